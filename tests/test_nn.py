"""Modules: registration, state, modes, containers, and what each layer promises."""

import copy
import math
import pickle

import numpy as np
import pytest

import nncore
from nncore import nn
from nncore.nn import functional as F


class Net(nn.Module):
    """A parameter, a buffer and two submodules."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(np.ones(4, np.float32))
        self.register_buffer("mean", np.zeros(4, np.float32))
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False))

    def forward(self, x):
        return self.rest(self.first(x) * self.scale + self.mean)


NAMES = ["scale", "mean", "first.weight", "first.bias", "rest.1.weight"]


# ---- registration ----


def test_names():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["scale", "first.weight", "first.bias", "rest.1.weight"]
    assert [n for n, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [n for n, _ in net.named_buffers()] == ["mean"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [n for n, _ in net.named_children()] == ["first", "rest"]
    assert [type(m).__name__ for m in net.children()] == ["Linear", "Sequential"]
    assert len(list(net.modules())) == 5
    assert all(a is b for a, (_, b) in zip(net.parameters(), net.named_parameters(), strict=True))
    assert next(net.buffers()) is net.mean


def test_attributes_move_between_registries():
    net = Net()
    net.first = nn.Parameter([1.0])  # a Parameter takes the name of a module
    assert [n for n, _ in net.named_children()] == ["rest"]
    assert "first" in dict(net.named_parameters())
    net.first = nn.ReLU()
    assert "first" not in dict(net.named_parameters())
    assert "first" in dict(net.named_children())
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    assert net.scale is None
    net.scale = nn.Parameter([2.0])
    assert "scale" in dict(net.named_parameters())
    del net.scale
    assert not hasattr(net, "scale")
    assert "scale" not in net.state_dict()
    net.mean = np.ones(4, np.float32)  # a registered buffer stays one
    assert isinstance(net.mean, nncore.Tensor)
    assert net.state_dict()["mean"].tolist() == [1.0] * 4
    net.plain = nncore.ones(2)  # a tensor is an attribute like any other
    assert "plain" not in net.state_dict()


def test_registration_errors():
    net = Net()
    with pytest.raises(TypeError, match="scale"):
        net.scale = nncore.ones(4)
    with pytest.raises(TypeError, match="first"):
        net.first = 3
    for register in (net.register_parameter, net.register_buffer, net.add_module):
        with pytest.raises(ValueError, match="name"):
            register("a.b", None)
        with pytest.raises(ValueError, match="name"):
            register("", None)
        with pytest.raises(TypeError, match="name"):
            register(3, None)
    with pytest.raises(TypeError, match="param"):
        net.register_parameter("p", nncore.ones(1))
    with pytest.raises(TypeError, match="module"):
        net.add_module("m", nncore.ones(1))
    assert list(net.state_dict()) == NAMES

    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(RuntimeError, match="super"):
        Early()
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(1)


def test_shared_modules_and_parameters_are_listed_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a
            self.c = nn.Linear(3, 3)
            self.c.weight = self.a.weight

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    net = Tied()
    assert [n for n, _ in net.named_parameters()] == ["a.weight", "a.bias", "c.bias"]
    assert [n for n, _ in net.named_modules()] == ["", "a", "c"]
    assert list(net.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias", "c.weight", "c.bias"]
    other = Tied()
    assert other.load_state_dict(net.state_dict()) == ([], [])
    x = np.ones((2, 3), np.float32)
    assert other(x).tolist() == net(x).tolist()
    net.double()
    assert net.c.weight is net.a.weight
    assert net.a.weight.dtype == np.float64


def test_apply_visits_children_first():
    seen = []
    net = Net()
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


# ---- state ----


def test_state_dict_holds_copies():
    net = Net()
    state = net.state_dict()
    assert list(state) == NAMES
    assert all(type(a) is np.ndarray for a in state.values())
    before = net.scale.tolist()
    state["scale"][...] = 7
    assert net.scale.tolist() == before
    state = net.state_dict()
    net.scale.fill_(9)
    assert state["scale"].tolist() == before


def test_load_state_dict():
    nncore.manual_seed(1)
    a, b = Net(), Net()
    assert a.first.weight.tolist() != b.first.weight.tolist()
    assert b.load_state_dict(a.state_dict()) == ([], [])
    for n, t in a.state_dict().items():
        np.testing.assert_array_equal(t, b.state_dict()[n])
    state = {n: t.astype(np.float64) for n, t in a.state_dict().items()}  # other dtypes are converted
    state["scale"] = nncore.tensor([1.0, 2.0, 3.0, 4.0], dtype="float64")
    state["mean"] = [1, 2, 3, 4]
    b.load_state_dict(state)
    assert b.scale.dtype == b.mean.dtype == np.float32
    assert b.scale.tolist() == b.mean.tolist() == [1.0, 2.0, 3.0, 4.0]
    held = b.scale
    b.load_state_dict(a.state_dict())
    assert b.scale is held  # written in place: optimizers keep their parameters


def test_load_state_dict_not_strict():
    net = Net()
    state = {"scale": np.full(4, 3.0), "unknown": np.ones(1)}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert missing == [n for n in NAMES if n != "scale"]
    assert unexpected == ["unknown"]
    assert net.scale.tolist() == [3.0] * 4


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("scale", "absent", ValueError),
        ("extra", np.ones(1), ValueError),
        ("rest.1.weight", np.ones((4, 2)), ValueError),
        ("rest.1.weight", np.ones(8), ValueError),
        ("rest.1.weight", "weights", TypeError),
        ("rest.1.weight", None, TypeError),
        ("rest.1.weight", [[1.0], [1.0, 2.0]], TypeError),
        ("rest.1.weight", np.ones((2, 4), complex), TypeError),
    ],
)
def test_load_state_dict_changes_nothing_on_error(name, value, error):
    net = Net()
    before = net.state_dict()
    state = {n: a + 1 for n, a in before.items()} | {name: value}
    if isinstance(value, str) and value == "absent":
        del state[name]
    with pytest.raises(error, match=name.replace(".", r"\.")):
        net.load_state_dict(state)
    for n, a in net.state_dict().items():
        np.testing.assert_array_equal(a, before[n])


# ---- modes and dtypes ----


def test_train_and_eval():
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    assert net.training
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert net.train() is net
    assert all(m.training for m in net.modules())
    net.train(False)
    assert not net[1][0].training
    with pytest.raises(ValueError, match="mode"):
        net.train("yes")


def test_double_and_float():
    net = Net()
    net.register_buffer("count", np.array(3))
    w = net.scale
    (net(np.ones((2, 3))).sum()).backward()
    assert net.double() is net
    assert {t.dtype for t in net.parameters()} == {np.dtype(np.float64)}
    assert net.mean.dtype == np.float64
    assert net.count.dtype == np.int64
    assert net.scale is w  # the same parameters, for the optimizer that holds them
    assert w.grad is None
    assert net(np.ones((2, 3), np.float32)).dtype == np.float64
    net.float()
    assert net(np.ones((2, 3))).dtype == np.float32
    assert net.to(np.float64).first.weight.dtype == np.float64
    with pytest.raises(TypeError, match="dtype"):
        net.to(np.int64)
    assert not net.scale.numpy().flags.writeable


def test_double_keeps_values_and_requires_grad():
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    before = net.state_dict()
    net.double()
    for n, a in net.state_dict().items():
        np.testing.assert_array_equal(a, before[n].astype(np.float64))
    assert not net.weight.requires_grad
    assert net.bias.requires_grad


def test_freezing():
    net = Net()
    assert net.requires_grad_(False) is net
    assert not net(np.ones((2, 3))).requires_grad
    net.rest.requires_grad_()
    net(np.ones((2, 3))).sum().backward()
    assert net.scale.grad is None
    assert net.first.weight.grad is None
    assert net.rest[1].weight.grad is not None


def test_zero_grad():
    net = Net()
    net(np.ones((2, 3))).sum().backward()
    held = net.scale.grad
    net.zero_grad(set_to_none=False)
    assert net.scale.grad is held
    assert not held.numpy().any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_arrays_are_cast_and_tensors_are_not():
    """A raw array takes the module's dtype; a Tensor of another dtype is somebody's mistake."""
    for build in (
        lambda: nn.Linear(4, 2),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 2)),
    ):
        net = build()
        for raw in (
            np.ones((3, 4)),
            np.ones((3, 4), np.float16),
            np.ones((3, 4), np.float32),
            np.ones((3, 4)).tolist(),
        ):
            assert net(raw).dtype == np.float32
        with pytest.raises(TypeError, match="input: expected dtype float32"):
            net(nncore.ones(3, 4, dtype="float64"))
        net.double()
        assert net(np.ones((3, 4), np.float32)).dtype == np.float64
        with pytest.raises(TypeError, match="input: expected dtype float64"):
            net(nncore.ones(3, 4))
    assert nn.Linear(4, 2)(np.ones((3, 4), int)).dtype == np.float32
    assert nn.Linear(4, 2)([[True, False, True, True]]).dtype == np.float32


def test_python_floats_reach_a_double_net_unrounded():
    net = nn.Linear(1, 1, bias=False).double()
    net.weight.fill_(1)
    assert net([[0.1]]).item() == 0.1


# ---- copies ----


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copied_nets_are_independent(how):
    net = Net().eval()
    net.first.weight.requires_grad_(False)
    twin = how(net)
    x = np.ones((2, 3), np.float32)
    assert twin(x).tolist() == net(x).tolist()
    assert list(twin.state_dict()) == NAMES
    assert not twin.training
    assert not twin.first.weight.requires_grad
    assert twin.scale.requires_grad
    assert not twin.scale.numpy().flags.writeable
    twin.scale.fill_(5)
    twin.mean.fill_(5)
    assert net.scale.tolist() == [1.0] * 4
    assert net.mean.tolist() == [0.0] * 4
    assert twin.scale is dict(twin.named_parameters())["scale"]
    twin(x).sum().backward()
    assert net.scale.grad is None


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_keep_sharing(how):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    twin = how(net)
    assert twin[1].weight is twin[0].weight
    assert twin[1].weight is not net[1].weight


# ---- containers ----


def test_sequential():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    net = nn.Sequential(a, b, c)
    x = np.ones((4, 2), np.float32)
    assert net(x).tolist() == c(b(a(x))).tolist()
    assert len(net) == 3
    assert list(net) == [a, b, c]
    assert net[0] is a
    assert net[-1] is c
    assert net[:2](x).tolist() == b(a(x)).tolist()
    assert list(net[1:]) == [b, c]
    assert net.append(nn.Tanh()) is net
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert repr(net[3]) == "Tanh()"
    net[1] = nn.Sigmoid()
    assert type(net[1]) is nn.Sigmoid
    assert net[1] is not b
    with pytest.raises(IndexError):
        net[4]
    named = nn.Sequential({"in": a, "out": c})
    assert list(named.state_dict()) == ["in.weight", "in.bias", "out.weight", "out.bias"]
    assert getattr(named, "in") is a
    y = nncore.ones(2)
    assert nn.Sequential()(y) is y


def test_sequential_is_changed_like_a_list():
    a, b, c, d = (nn.Linear(1, 1) for _ in range(4))
    net = nn.Sequential({"in": a, "mid": b, "out": c})
    assert net.insert(-1, d) is net
    assert (list(net), list(net._modules)) == ([a, b, d, c], ["0", "1", "2", "3"])
    del net[1]
    assert (list(net), list(net._modules)) == ([a, d, c], ["0", "1", "2"])
    assert net.pop(-1) is c
    assert list(net.pop(slice(0, 1))) == [a]
    assert (list(net), list(net._modules)) == ([d], ["0"])
    assert net.insert(1, b).extend([a, c]) is net
    assert list(net) == [d, b, a, c]
    del net[1:3]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    both = net + nn.Sequential(a, b)
    assert (list(both), list(both._modules)) == ([d, c, a, b], ["0", "1", "2", "3"])
    assert list(net) == [d, c]
    same = net
    net += net
    assert net is same
    assert list(net) == [d, c, d, c]
    assert list(nn.Sequential(a) * 2) == list(2 * nn.Sequential(a)) == [a, a]
    net *= 2
    assert net is same
    assert len(net) == 8
    for bad in (lambda: net + [a], lambda: net + 3):
        with pytest.raises(TypeError):
            bad()
    for bad in (lambda: net.pop(8), lambda: net.insert(9, a), lambda: net.__delitem__(-9)):
        with pytest.raises(IndexError):
            bad()
    assert len(net) == 8


def test_slice_of_sequential_can_grow():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    tail = net[1:].append(nn.Tanh())
    assert [type(m).__name__ for m in tail] == ["ReLU", "Linear", "Tanh"]


def test_module_list():
    layers = nn.ModuleList([nn.Linear(2, 2)])
    assert layers.append(nn.ReLU()) is layers
    assert layers.extend([nn.Linear(2, 1)]) is layers
    assert [type(m).__name__ for m in layers] == ["Linear", "ReLU", "Linear"]
    assert len(layers) == 3
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(layers[1:]) == 2
    assert layers[1:][0] is layers[1]
    layers[1] = nn.Tanh()
    assert type(layers[1]) is nn.Tanh
    assert type(layers[-1]) is nn.Linear
    with pytest.raises(NotImplementedError):
        layers(1)


# ---- layers ----


def test_linear_initialization():
    nncore.manual_seed(0)
    layer = nn.Linear(400, 300)
    bound = 1 / math.sqrt(400)
    for t in (layer.weight, layer.bias):
        a = t.numpy()
        assert np.abs(a).max() <= bound
        assert np.abs(a).max() > 0.97 * bound
    w = layer.weight.numpy()
    assert abs(w.mean()) < 4 * bound / math.sqrt(3 * w.size)
    assert abs(w.std() - bound / math.sqrt(3)) < 0.01 * bound
    nncore.manual_seed(0)
    again = nn.Linear(400, 300)
    assert np.array_equal(again.weight.numpy(), w)
    again.reset_parameters()
    assert not np.array_equal(again.weight.numpy(), w)


def test_linear_without_bias():
    layer = nn.Linear(3, 2, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert len(list(layer.parameters())) == 1
    assert layer(np.zeros((1, 3))).tolist() == [[0.0, 0.0]]
    assert repr(layer) == "Linear(in_features=3, out_features=2, bias=False)"


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("rows", [(5,), (0,), (2, 3), ()])
def test_linear_with_no_features(sizes, rows):
    layer = nn.Linear(*sizes)
    if sizes[0] == 0:  # no fan-in: torch's bound is 0
        assert layer.bias.tolist() == [0.0] * sizes[1]
    layer.bias.fill_(2)
    x = nncore.ones(*rows, sizes[0], requires_grad=True)
    y = layer(x)
    assert y.shape == (*rows, sizes[1])
    assert y.tolist() == np.full((*rows, sizes[1]), 2.0 if sizes[0] == 0 else 0.0).tolist()
    y.backward(np.ones(y.shape))
    assert x.grad.tolist() == np.zeros(x.shape).tolist()
    assert layer.weight.grad.tolist() == np.zeros((sizes[1], sizes[0])).tolist()
    assert layer.bias.grad.tolist() == [float(np.prod(rows))] * sizes[1]


def test_linear_of_many_shapes():
    layer = nn.Linear(3, 2).double()
    w, b = layer.weight.numpy(), layer.bias.numpy()
    for shape in [(3,), (1, 3), (4, 3), (2, 4, 3), (2, 1, 2, 3), (0, 3)]:
        x = np.random.default_rng(0).standard_normal(shape)
        np.testing.assert_allclose(layer(x).numpy(), x @ w.T + b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sample_alone_is_the_sample_in_a_batch(isa, dtype):
    """Bit for bit, wherever in whichever batch, forward and backward (for equal cotangents)."""
    nncore.manual_seed(0)
    rng = np.random.default_rng(0)
    nets = [
        nn.Sequential(nn.Linear(37, 70), nn.ReLU(), nn.Linear(70, 33), nn.Tanh(), nn.Linear(33, 5)),
        nn.Sequential(nn.Linear(37, 19), nn.Sigmoid(), nn.Linear(19, 1), nn.Softmax(-1)),
        nn.Sequential(nn.Flatten(), nn.Linear(37, 300), nn.LogSoftmax(1)),
        nn.Linear(37, 1, bias=False),
    ]
    for net in nets:
        net.to(dtype).eval()
        x = rng.standard_normal((53, 37)).astype(dtype)
        xt = nncore.tensor(x, requires_grad=True)
        y = net(xt)
        dy = rng.standard_normal(y.shape).astype(dtype)
        y.backward(dy)
        for rows in ([0], [52], [7], [3, 4], [50, 2, 2, 9, 11], range(1, 20), range(53)):
            rows = list(rows)
            xs = nncore.tensor(x[rows], requires_grad=True)
            ys = net(xs)
            assert np.array_equal(ys.numpy(), y.numpy()[rows])
            ys.backward(dy[rows])
            assert np.array_equal(xs.grad.numpy(), xt.grad.numpy()[rows])
        with nncore.no_grad():
            assert np.array_equal(net(x).numpy(), y.numpy())


def test_dropout():
    nncore.manual_seed(0)
    layer = nn.Dropout(0.3)
    x = nncore.ones(100, 100, requires_grad=True)
    y = layer(x)
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.7) < 4 * math.sqrt(0.21 / 10_000)
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.7, rtol=1e-6)
    assert not np.array_equal(layer(x).numpy(), y.numpy())  # another mask each time
    y.backward(np.ones(y.shape))
    assert np.array_equal(x.grad.numpy(), y.numpy())  # the same mask backward
    nncore.manual_seed(0)
    assert np.array_equal(layer(x).numpy(), y.numpy())
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    assert not nn.Dropout(1.0)(x).numpy().any()
    assert repr(nn.Dropout(0.3)) == "Dropout(p=0.3)"


def test_dropout_of_everything():
    """Times 0, so that NaN and infinities are seen."""
    x = nncore.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    y = F.dropout(x, 1.0)
    assert np.array_equal(y.numpy(), [0.0, np.nan, np.nan], equal_nan=True)
    y.backward([1.0, float("nan"), 1.0])
    assert np.array_equal(x.grad.numpy(), [0.0, np.nan, 0.0], equal_nan=True)


def test_dropout_columns_and_rows_are_independent():
    nncore.manual_seed(0)
    kept = F.dropout(nncore.ones(400, 300), 0.5).numpy() != 0
    for axis in (0, 1):
        n = kept.shape[axis]
        assert np.abs(kept.mean(axis) - 0.5).max() < 5 * 0.5 / math.sqrt(n)
    agree = (kept[1:] == kept[:-1]).mean()
    assert abs(agree - 0.5) < 5 * 0.5 / math.sqrt(400 * 300)


def test_softmax_dimensions():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    for d in (0, 1, 2, -1):
        e = np.exp(x)
        np.testing.assert_allclose(nn.Softmax(d)(x).numpy(), e / e.sum(d, keepdims=True), rtol=1e-12)
        np.testing.assert_allclose(
            nn.LogSoftmax(d)(x).numpy(), x - np.log(e.sum(d, keepdims=True)), rtol=1e-11, atol=1e-13
        )
    assert repr(nn.Softmax(1)) == "Softmax(dim=1)"


def test_losses():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 3)), np.array([0, 2, 1, 1, 0])
    logp = x - np.log(np.exp(x).sum(1, keepdims=True))
    each = -logp[np.arange(5), t]
    for reduction, want in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        np.testing.assert_allclose(nn.CrossEntropyLoss(reduction=reduction)(x, t).numpy(), want, rtol=1e-12)
        np.testing.assert_allclose(nn.NLLLoss(reduction=reduction)(logp, t).numpy(), want, rtol=1e-12)
    p = rng.dirichlet(np.ones(3), 5)
    np.testing.assert_allclose(F.cross_entropy(x, p).item(), -(p * logp).sum(1).mean(), rtol=1e-12)
    y = rng.standard_normal((5, 3))
    np.testing.assert_allclose(nn.MSELoss()(x, y).item(), ((x - y) ** 2).mean(), rtol=1e-12)
    np.testing.assert_allclose(nn.MSELoss(reduction="sum")(x, y).item(), ((x - y) ** 2).sum(), rtol=1e-12)
    np.testing.assert_allclose(nn.MSELoss(reduction="none")(x, y).numpy(), (x - y) ** 2, rtol=1e-12)
    assert repr(nn.MSELoss(reduction="sum")) == "MSELoss(reduction='sum')"


def test_cross_entropy_shapes():
    rng = np.random.default_rng(0)
    for shape in [(3,), (4, 3), (2, 3, 5), (2, 3, 2, 4)]:
        x = rng.standard_normal(shape)
        d = min(1, len(shape) - 1)
        where = shape[:d] + shape[d + 1 :]
        t = rng.integers(0, 3, where)
        logp = x - np.log(np.exp(x).sum(d, keepdims=True))
        each = -np.take_along_axis(logp, np.expand_dims(t, d), d).squeeze(d)
        for f, data in ((F.cross_entropy, x), (F.nll_loss, logp)):
            got = f(data, t, reduction="none")
            assert got.shape == where
            np.testing.assert_allclose(got.numpy(), each, rtol=1e-12)
            np.testing.assert_allclose(f(data, t).item(), each.mean(), rtol=1e-12)
        soft = rng.random(shape)
        got = F.cross_entropy(x, soft, reduction="none")
        assert got.shape == where
        np.testing.assert_allclose(got.numpy(), -(soft * logp).sum(d), rtol=1e-12)


def test_cross_entropy_of_certainty():
    """Large logits neither overflow nor lose the loss."""
    x = nncore.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    loss = F.cross_entropy(x, [0, 0], reduction="none")
    assert loss.tolist() == [0.0, 1000.0]
    loss.sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


def test_empty_batches():
    assert math.isnan(F.cross_entropy(nncore.zeros(0, 3), np.zeros(0, int)).item())
    assert F.cross_entropy(nncore.zeros(0, 3), np.zeros(0, int), reduction="sum").item() == 0
    assert F.cross_entropy(nncore.zeros(0, 3), np.zeros(0, int), reduction="none").shape == (0,)
    assert math.isnan(F.mse_loss(nncore.zeros(0, 3), np.zeros((0, 3))).item())
    assert math.isnan(F.nll_loss(nncore.zeros(0, 3), np.zeros(0, int)).item())
    net = Net()
    y = net(np.zeros((0, 3)))
    assert y.shape == (0, 2)
    y.sum().backward()
    assert not net.first.weight.grad.numpy().any()


def test_identity_and_flatten():
    x = nncore.ones(2, 3, 4)
    assert nn.Identity(1, two=2)(x) is x
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0, 1)(x).shape == (6, 4)
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (rest): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=4, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )


# ---- Parameter ----


def test_parameter():
    a = np.ones(3, np.float32)
    p = nn.Parameter(a)
    a[0] = 9
    assert p.tolist() == [1.0, 1.0, 1.0]
    assert isinstance(p, nncore.Tensor)
    assert p.is_leaf
    assert p.requires_grad
    assert not nn.Parameter(a, requires_grad=False).requires_grad
    t = nncore.ones(2)
    q = nn.Parameter(t)
    t.fill_(3)
    assert q.tolist() == [1.0, 1.0]
    assert type(p * 2) is nncore.Tensor
    assert type(p[0]) is nncore.Tensor
    with pytest.raises(TypeError, match="data"):
        nn.Parameter([1, 2])


def test_stale_packs_are_not_used():
    """A weight that was used (and packed) and then written gives the new product, whoever wrote it."""
    x = np.eye(40, dtype=np.float32)
    layer = nn.Linear(40, 40, bias=False)
    opt = nncore.optim.SGD(layer.parameters(), lr=1.0)
    layer.weight.grad = nncore.ones(40, 40)
    writes = [
        lambda w: w.fill_(1),
        lambda w: w.copy_(np.arange(1600).reshape(40, 40)),
        lambda w: w.__setitem__(3, 5.0),
        lambda w: w.__setitem__(([1, 2], [3, 4]), 7.0),
        lambda w: nn.init.normal_(w),
        lambda w: w.add_(1),
        lambda w: opt.step(),
        lambda w: layer.load_state_dict({"weight": np.ones((40, 40))}),
        lambda w: w.detach()[2:4].fill_(8),
        lambda w: w.detach().T.__setitem__(0, 9.0),
    ]
    for write in writes:
        with nncore.no_grad():
            for _ in range(4):
                layer(x)
            before = layer.weight.numpy().copy()
            write(layer.weight)
            assert not np.array_equal(before, layer.weight.numpy())
            assert np.array_equal(layer(x).numpy(), layer.weight.numpy().T)
            assert np.array_equal((x @ layer.weight.detach()).numpy(), layer.weight.numpy())


# ---- init ----


@pytest.mark.parametrize("shape", [(200, 300), (64, 32, 3, 3)])
def test_init_statistics(shape):
    nncore.manual_seed(0)
    t = nncore.zeros(*shape)
    n, fan_in, fan_out = t.numel(), math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
    init = nn.init
    for fill, std, bound in [
        (lambda: init.uniform_(t, -2, 4), 6 / math.sqrt(12), None),
        (lambda: init.normal_(t, 1.0, 3.0), 3.0, None),
        (lambda: init.xavier_uniform_(t), math.sqrt(2 / (fan_in + fan_out)), math.sqrt(6 / (fan_in + fan_out))),
        (lambda: init.xavier_normal_(t, gain=2), 2 * math.sqrt(2 / (fan_in + fan_out)), None),
        (lambda: init.kaiming_uniform_(t), math.sqrt(2 / fan_in), math.sqrt(6 / fan_in)),
        (lambda: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / fan_out), None),
        (lambda: init.kaiming_normal_(t, a=1), math.sqrt(1 / fan_in), None),
    ]:
        assert fill() is t
        a = t.numpy().astype(np.float64)
        assert abs(a.std() / std - 1) < 5 / math.sqrt(n)
        if bound is not None:
            assert 0.99 * bound < np.abs(a).max() <= bound * (1 + 1e-6)


def test_init_values():
    t = nncore.zeros(3, 5, dtype="float64")
    assert (nn.init.constant_(t, 2.5).numpy() == 2.5).all()
    assert (nn.init.ones_(t).numpy() == 1).all()
    assert (nn.init.zeros_(t).numpy() == 0).all()
    assert np.array_equal(nn.init.eye_(t).numpy(), np.eye(3, 5))
    for shape in [(3, 5), (5, 3), (4, 2, 2)]:
        q = nn.init.orthogonal_(nncore.zeros(*shape, dtype="float64"), gain=2).numpy().reshape(shape[0], -1)
        gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
        np.testing.assert_allclose(gram, 4 * np.eye(min(q.shape)), atol=1e-12)
    for name, gain in (
        ("linear", 1),
        ("tanh", 5 / 3),
        ("relu", math.sqrt(2)),
        ("leaky_relu", math.sqrt(2 / 1.0001)),
        ("selu", 0.75),
    ):
        assert nn.init.calculate_gain(name) == pytest.approx(gain)
    assert nn.init.calculate_gain("leaky_relu", 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_init_of_nothing(shape):
    for fill in (
        nn.init.xavier_uniform_,
        nn.init.xavier_normal_,
        nn.init.kaiming_uniform_,
        nn.init.kaiming_normal_,
        nn.init.normal_,
    ):
        assert fill(nncore.zeros(*shape)).shape == shape
