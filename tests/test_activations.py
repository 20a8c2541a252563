"""What activations, embeddings and the perceptron promise beyond their values and gradients."""

import numpy as np
import pytest

import nncore
from nncore import nn
from nncore.nn import functional as F

SMOOTH = ("elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign", "logsigmoid", "tanhshrink", "relu6")
KINKED = ("leaky_relu", "hardtanh", "hardsigmoid", "hardswish", "softshrink", "hardshrink", "rrelu", "softmin", "glu")


@pytest.mark.parametrize("name", SMOOTH + KINKED)
def test_nan_and_extremes(isa, dtype, name):
    """NaN stays NaN; the largest numbers give finite results and gradients, infinities none that is NaN (but the
    products of softmin and glu)."""
    fn, big = getattr(F, name), np.finfo(dtype).max
    x = nncore.tensor(np.array([np.nan] * 4, dtype))
    assert np.isnan(fn(x).numpy()).all()
    values = [big / 2, -big / 2, 1e30, -1e30, 1e4, -1e4, 1000.0, -1000.0, 88.7, -88.7, 0.0, -0.0]
    values += [np.inf, -np.inf] * (name not in ("softmin", "glu"))
    for v in values:
        x = nncore.tensor(np.array([v, v], dtype), requires_grad=True)
        y = fn(x)
        assert np.isfinite(y.detach().numpy()).all() or np.isinf(v), v
        assert not np.isnan(y.detach().numpy()).any(), v
        y.backward(np.ones(y.shape))
        assert np.isfinite(x.grad.numpy()).all(), v


def test_gelu_tanh_extremes(isa, dtype):
    for v in (np.finfo(dtype).max, 1e30, 1e19, 50.0, np.inf):
        x = nncore.tensor(np.array([v, -v], dtype), requires_grad=True)
        y = F.gelu(x, "tanh")
        assert y.tolist() == [float(dtype.type(v)), 0.0]
        y.backward(np.ones(2))
        assert x.grad.tolist() == [1.0, 0.0]


def test_kinks():
    """torch's gradients at the kinks."""
    for fn, at, expected in (
        (F.relu6, [0.0, 6.0], [0, 0]),
        (F.hardtanh, [-1.0, 1.0], [0, 0]),
        (F.leaky_relu, [0.0], [0.01]),
        (F.elu, [0.0], [1]),
        (F.hardswish, [-3.0, 3.0], [0, 1]),
        (F.hardsigmoid, [-3.0, 3.0], [0, 0]),
        (F.softshrink, [-0.5, 0.5], [0, 0]),
        (F.hardshrink, [-0.5, 0.5], [0, 0]),
        (lambda x: F.threshold(x, 1.0, 5.0), [1.0], [0]),
        (lambda x: F.prelu(x, nncore.tensor([0.25])), [0.0], [0.25]),
        (lambda x: F.l1_loss(x, [2.0], reduction="sum"), [2.0], [0]),
        (lambda x: F.rmse_loss(x, [2.0]), [2.0], [0]),
        (lambda x: F.hinge_embedding_loss(x, [-1.0], 2.0), [2.0], [-1]),
    ):
        x = nncore.tensor(at, requires_grad=True)
        fn(x).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6, err_msg=f"{fn} at {at}")


def test_heaviside():
    """0 below, 1 above, a value of choice at 0, no gradient, NaN stays."""
    x = nncore.tensor([-np.inf, -2.0, 0.0, -0.0, 1e-30, np.inf], requires_grad=True)
    y = F.heaviside(x, 0.5)
    assert y.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert nn.Heaviside()(x).tolist() == [0, 0, 0, 0, 1, 1]
    assert np.isnan(F.heaviside(nncore.tensor([np.nan])).item())
    y.backward(np.ones(6))
    assert x.grad.tolist() == [0] * 6


def test_rrelu_draws():
    """Slopes are uniform in their bounds, the same for the same seed and any layout, and the mean in evaluation."""
    x = np.full((200, 300), -1, np.float32)
    layer = nn.RReLU(0.2, 0.6)
    nncore.manual_seed(4)
    a = -layer(x).numpy()
    nncore.manual_seed(4)
    assert np.array_equal(-layer(nncore.tensor(np.asfortranarray(x))).numpy(), a)
    assert not np.array_equal(-layer(x).numpy(), a)
    assert a.min() >= np.float32(0.2)
    assert a.max() < np.float32(0.6)
    n, deviation = a.size, 0.4 / np.sqrt(12)
    assert abs(a.mean() - 0.4) < 6 * deviation / np.sqrt(n)
    assert abs(a.std() - deviation) < 0.01
    np.testing.assert_allclose(layer.eval()(x).numpy(), -0.4, rtol=1e-6)


def test_layouts_are_kept():
    """Images stay channels-last through elementwise activations."""
    h = nncore.nn.Conv2d(3, 4, 3)(nncore.randn(2, 3, 6, 6))
    assert h.channels_last
    for layer in (nn.GELU(), nn.PReLU(4), nn.Hardswish(), nn.Mish()):
        assert layer(h).channels_last
    np.testing.assert_allclose(nn.Softmax2d()(h).detach().numpy().sum(1), 1, rtol=1e-6)


def test_relu_is_a_case_of_maxout():
    """ReLU and leaky ReLU of x: the larger of x and 0, of x and a x; their gradients too."""
    x, dy = (
        nncore.randn(50, 4, requires_grad=True),
        np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32),
    )
    for slope, layer in ((0.0, nn.ReLU()), (0.1, nn.LeakyReLU(0.1))):
        net = nn.Maxout(4, 4, 2)
        weight = np.zeros((8, 4), np.float32)
        weight[::2], weight[1::2] = np.eye(4), slope * np.eye(4)
        net.load_state_dict({"weight": weight, "bias": np.zeros(8, np.float32)})
        found = []
        for f in (net, layer):
            x.grad = None
            y = f(x)
            y.backward(dy)
            found.append((y.detach().numpy(), x.grad.numpy()))
        np.testing.assert_array_equal(*found)


def test_maxout_of_channels():
    x = np.random.default_rng(0).standard_normal((2, 6, 3, 5)).astype(np.float32)
    assert np.array_equal(F.maxout(x, 3).numpy(), x.reshape(2, 2, 3, 3, 5).max(2))
    assert F.maxout(np.zeros((0, 6), np.float32), 3).shape == (0, 2)


# ---- the perceptron ----


def separable(rng, n, dims):
    """Samples with a 1 appended, labels, and Novikoff's bound (R / g)^2 from a separating hyperplane."""
    plane = rng.standard_normal(dims + 1)
    x = rng.standard_normal((4 * n, dims))
    score = np.hstack([x, np.ones((4 * n, 1))]) @ plane / np.linalg.norm(plane)
    far = np.flatnonzero(np.abs(score) > 0.2)[:n]
    bound = (np.sum(x[far] ** 2, 1).max() + 1) / np.abs(score[far]).min() ** 2
    return x[far], (score[far] > 0).astype(float), bound


@pytest.mark.parametrize("dims", [1, 2, 10])
def test_perceptron_converges(dims):
    """On separable data the rule ends without mistakes, after at most (R / g)^2 of them."""
    x, t, bound = separable(np.random.default_rng(dims), 60, dims)
    neuron = nn.Perceptron(dims, dtype="float64")
    mistakes = neuron.fit(x, t)
    assert mistakes[-1] == 0
    assert 0 < sum(mistakes) <= bound
    assert np.array_equal(neuron(x).numpy()[:, 0], t)


def test_perceptron_rule():
    """One update: W += lr (t - y) x, b += lr (t - y); several neurons learn apart; "xor" is never learned."""
    p = nn.Perceptron(2, 2)
    assert p.update([1.0, -2.0], [1.0, 0.0], lr=0.5) == 1  # both say 0
    assert p.weight.tolist() == [[0.5, -1.0], [0.0, 0.0]]
    assert p.bias.tolist() == [0.5, 0.0]
    assert p.update([1.0, -2.0], [1.0, 0.0]) == 0
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    both = nn.Perceptron(2, 2)
    assert both.fit(x, np.array([[0, 0], [0, 1], [0, 1], [1, 1]], float))[-1] == 0  # "and", "or"
    assert both(x).tolist() == [[0, 0], [0, 1], [0, 1], [1, 1]]
    xor = nn.Perceptron(2).fit(x, [0, 1, 1, 0], max_epochs=50)
    assert len(xor) == 50
    assert min(xor) > 0
    assert nn.Perceptron(2, bias=False).fit(x[1:3], [1, 1])[-1] == 0


# ---- embeddings ----


def test_embedding_padding_and_norm():
    """The padding row is zero and gets no gradient; rows in use are scaled down to max_norm, others are not."""
    layer = nn.Embedding(6, 4, padding_idx=-2)
    assert layer.padding_idx == 4
    assert layer.weight[4].tolist() == [0] * 4
    ids = nncore.tensor([[4, 1], [1, 5]])
    layer(ids).sum().backward()
    assert layer.weight.grad.numpy()[:, 0].tolist() == [0, 2, 0, 0, 0, 1]
    before = layer.weight.numpy().copy() * 3
    layer.load_state_dict({"weight": before})
    layer.max_norm = 1.0
    layer(ids)
    after = layer.weight.numpy()
    np.testing.assert_allclose(np.linalg.norm(after[[1, 5]], axis=1), 1, rtol=1e-5)
    assert np.array_equal(after[[0, 2, 3, 4]], before[[0, 2, 3, 4]])


def test_embedding_from_pretrained():
    table = np.arange(6.0).reshape(3, 2)
    for cls in (nn.Embedding, nn.EmbeddingBag):
        layer = cls.from_pretrained(table)
        assert not layer.weight.requires_grad
        assert layer.weight.dtype == np.float64
        assert cls.from_pretrained(table, freeze=False).weight.requires_grad
        table[0] = 7
        assert layer.weight.tolist()[0] == [0, 1]
        table[0] = [0, 1]


def test_embedding_counts():
    """scale_grad_by_freq divides by how often an index occurs, of bags too."""
    ids, dy = np.array([[3, 0, 3], [3, 1, 0]]), np.random.default_rng(0).standard_normal((2, 1))
    expected = np.zeros(5)
    for b, i in np.ndindex(2, 3):
        expected[ids[b, i]] += dy[b, 0] / (ids == ids[b, i]).sum()
    for fn, g in (
        (lambda w: F.embedding_bag(ids, w, mode="sum", scale_grad_by_freq=True), dy),
        (lambda w: F.embedding(ids, w, scale_grad_by_freq=True), np.repeat(dy, 3, 1)[..., None]),
    ):
        w = nncore.tensor(np.ones((5, 1)), requires_grad=True)
        fn(w).backward(g)
        np.testing.assert_allclose(w.grad.numpy()[:, 0], expected, rtol=1e-14)


def test_one_hot():
    ids = np.array([[2, 0], [1, 2]])
    assert np.array_equal(F.one_hot(ids).numpy(), np.eye(3, dtype=np.int64)[ids])
    assert F.one_hot(ids, 5).shape == (2, 2, 5)
    assert F.one_hot(np.array(1), 2).tolist() == [0, 1]
    assert F.one_hot(np.zeros((0, 2), int), 3).shape == (0, 2, 3)


# ---- losses ----


def test_losses_do_not_overflow(isa, dtype):
    """Large logits give the losses that they have, and small losses keep their digits."""
    eps = np.finfo(dtype).eps
    x = nncore.tensor(np.array([1e4, -1e4, -1e4, 1e4], dtype))
    t = nncore.tensor(np.array([0, 1, 0, 1], dtype))
    assert F.binary_cross_entropy_with_logits(x, t, reduction="none").tolist() == [1e4, 1e4, 0, 0]
    assert F.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=[2.0]).tolist() == [1e4, 2e4, 0, 0]
    assert F.soft_margin_loss(x, t * 2 - 1, reduction="none").tolist() == [1e4, 1e4, 0, 0]
    small = nncore.tensor(np.array([-20.0], dtype))
    loss = F.binary_cross_entropy_with_logits(small, nncore.tensor(np.zeros(1, dtype))).item()
    assert abs(loss / np.log1p(np.exp(-20)) - 1) < 8 * eps
    assert (
        abs(F.binary_cross_entropy(np.array([1e-10], dtype), np.array([0], dtype)).item() / -np.log1p(-1e-10) - 1)
        < 4 * eps
    )
    assert F.binary_cross_entropy(np.array([0, 1], dtype), np.array([1, 0], dtype)).item() == 100
    assert np.isnan(F.gaussian_nll_loss(x, x, -1.0).item())
    assert np.isnan(F.binary_cross_entropy(np.array([1.5], dtype), np.array([1], dtype)).item())


def test_rmse():
    x, t = np.array([1.0, 2.0, 5.0]), np.array([1.0, 4.0, 1.0])
    assert F.rmse_loss(x, t).item() == pytest.approx(np.sqrt(20 / 3), rel=1e-14)
    assert F.rmse_loss(x, t, reduction="sum").item() == pytest.approx(np.sqrt(20), rel=1e-14)
    assert F.rmse_loss(x, t, reduction="none").tolist() == [0, 2, 4]


def test_ignored_samples_count_for_nothing():
    """Their logits may be anything; if all are ignored the mean is NaN, as a mean of nothing is."""
    x = np.array([[1.0, 2.0], [np.nan, np.inf], [0.5, 0.0]])
    a = nncore.tensor(x, requires_grad=True)
    loss = F.cross_entropy(a, [0, -100, 1])
    assert loss.item() == F.cross_entropy(x[[0, 2]], [0, 1]).item()
    loss.backward()
    assert a.grad.tolist()[1] == [0, 0]
    assert np.isnan(F.cross_entropy(x, [-100] * 3).item())
    assert F.cross_entropy(x, [-100] * 3, reduction="sum").item() == 0


def test_loss_factors_are_saved():
    """Weights are buffers: they are in the state and follow the dtype."""
    loss = nn.CrossEntropyLoss([1.0, 2.0]).double()
    assert list(loss.state_dict()) == ["weight"]
    assert loss(nncore.zeros(1, 2, dtype="float64"), nncore.tensor([1])).item() == pytest.approx(np.log(2), rel=1e-14)
    assert list(nn.BCEWithLogitsLoss(pos_weight=[1.0]).state_dict()) == ["pos_weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []


# ---- recorded steps ----

_ids = lambda rng: nncore.tensor(rng.integers(0, 5, 6))
_floats = lambda rng: nncore.tensor(rng.uniform(0.1, 0.9, (6, 5)).astype(np.float32))
COMPILED = {
    "activations": lambda net, x, i, t: sum(
        getattr(F, n)(net(x)).mean() for n in SMOOTH + KINKED if n not in ("glu", "softmin")
    ),
    "rrelu": lambda net, x, i, t: F.rrelu(net(x), training=True).sum(),
    "glu": lambda net, x, i, t: F.glu(net(x), 0).sum(),
    "maxout": lambda net, x, i, t: F.maxout(net(x), 5).square().sum(),
    "cross_entropy": lambda net, x, i, t: F.cross_entropy(net(x), i, ignore_index=2, label_smoothing=0.1),
    "nll": lambda net, x, i, t: F.nll_loss(net(x), i),
    "multi_margin": lambda net, x, i, t: F.multi_margin_loss(net(x), i, 2),
    "multilabel_margin": lambda net, x, i, t: F.multilabel_margin_loss(net(x), nncore.stack([i] * 5, 1)),
    "embedding": lambda net, x, i, t: (F.embedding(i, net.weight, 1) * t).sum(),
    "bag": lambda net, x, i, t: F.embedding_bag(i.reshape(3, 2), net.weight, mode="mean", padding_idx=1).square().sum(),
    "losses": lambda net, x, i, t: sum(
        f(net(x), t)
        for f in (
            F.l1_loss, F.rmse_loss, F.huber_loss, F.binary_cross_entropy_with_logits, F.kl_div, F.poisson_nll_loss,
            F.soft_margin_loss, F.hinge_embedding_loss, F.multilabel_soft_margin_loss,
        )
    ),
    "gaussian": lambda net, x, i, t: F.gaussian_nll_loss(net(x), t, t),
    "pairs": lambda net, x, i, t: F.triplet_margin_loss(net(x), t, x)
    + F.cosine_embedding_loss(net(x), t, t[:, 0] * 0 + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_recorded(name):
    """A recorded step does what the function does, on other numbers than those it was recorded with."""
    step, rng = COMPILED[name], np.random.default_rng(0)
    results = []
    for compiled in (False, True):
        nncore.manual_seed(3)
        net = nn.Linear(5, 5)

        def train(x, i, t, net=net):
            loss = step(net, x, i, t)
            loss.backward()
            return loss

        run = nncore.compile(train) if compiled else train
        rng = np.random.default_rng(0)
        found = []
        for _ in range(4):
            net.zero_grad()
            found.append(run(_floats(rng), _ids(rng), _floats(rng)).item())
            found += [None if p.grad is None else p.grad.tolist() for p in net.parameters()]
        results.append(found)
    assert results[0] == results[1]


START = nncore.tensor([0, 3])
TABLE = nncore.ones(5, 2)


def test_recorded_values_are_not_read():
    """What depends on values cannot be recorded, and says so."""
    for fn in (
        F.one_hot,
        lambda i: F.embedding_bag(i, TABLE, START),
    ):
        with pytest.raises(RuntimeError, match="compiled function cannot read"):
            nncore.compile(fn)(nncore.tensor([1, 2, 3, 4]))
