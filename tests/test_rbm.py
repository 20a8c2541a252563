"""Restricted Boltzmann machines against the enumeration of all states; deep belief nets."""

import itertools

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore.data import load_digits

from .tolerance import close, gemm

V, H = 4, 3


def states(n):
    """All vectors of n zeros and ones."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


def machine(visible="bernoulli", dtype="float64", seed=0, sizes=(V, H), scale=1.0):
    rng = np.random.default_rng(seed)
    rbm = nn.RBM(*sizes, visible, dtype=dtype)
    rbm.load_state_dict({n: scale * rng.standard_normal(p.shape) for n, p in rbm.named_parameters()})
    return rbm


def arrays(rbm):
    """W, a, c in double."""
    return [p.detach().numpy().astype(float) for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def joint(rbm):
    """p(v, h) of a Bernoulli machine for all states, [2^V, 2^H], and log Z."""
    W, a, c = arrays(rbm)
    v, h = states(rbm.visible_features), states(rbm.hidden_features)
    minus = (v @ a)[:, None] + h @ c + v @ W.T @ h.T
    log_z = np.logaddexp.reduce(minus, None)
    return np.exp(minus - log_z), log_z


def log_likelihood(rbm, x):
    """Mean log p(v) of a Bernoulli machine."""
    return -rbm.free_energy(x).mean().item() - joint(rbm)[1]


def pairs():
    """Every v with every h."""
    return np.repeat(states(V), 2**H, 0), np.tile(states(H), (2**V, 1))


def test_energies(isa, dtype):
    """E of all states gives the joint distribution, F its sum over h."""
    rbm = machine(dtype=dtype)
    p, log_z = joint(rbm)
    W, a, c = map(np.abs, arrays(rbm))
    largest = W.sum() + a.sum() + c.sum()  # of any sum of terms of E, and of F with H log 2 more
    bound = gemm(V + H, largest + H, dtype) * 4
    v, h = pairs()
    close(-rbm.energy(v, h).numpy(), np.log(p).ravel() + log_z, bound)
    close(-rbm.free_energy(states(V)).numpy(), np.log(p.sum(1)) + log_z, bound)


def test_conditionals(isa, dtype):
    """p(h | v) and p(v | h) are those of the joint distribution: a sigmoid has a slope of at most 1/4."""
    rbm = machine(dtype=dtype)
    p, _ = joint(rbm)
    W, a, c = map(np.abs, arrays(rbm))
    bound = gemm(V + H, W.sum() + a.sum() + c.sum(), dtype) / 4 + 4 * np.finfo(dtype).eps
    close(rbm(states(V)).numpy(), p @ states(H) / p.sum(1)[:, None], bound)
    close(rbm.visible_mean(states(H)).numpy(), p.T @ states(V) / p.sum(0)[:, None], bound)
    assert np.array_equal(rbm.reconstruct(states(V)).numpy(), rbm.visible_mean(rbm(states(V))).numpy())


def test_gaussian_units():
    """Given h, E is |v - mean(h)|^2 / 2 up to a number; e^-F is the sum of e^-E over h."""
    rbm, rng = machine("gaussian"), np.random.default_rng(1)
    v, h = rng.standard_normal((6, V)), states(H)
    e = np.array([[rbm.energy(x, y).item() for y in h] for x in v])
    rest = e - np.square(v[:, None] - rbm.visible_mean(h).numpy()).sum(-1) / 2
    assert np.ptp(rest, 0).max() < 1e-13 * np.abs(e).max()
    assert np.ptp(rest, 1).min() > 0.1  # which differs from h to h
    close(rbm.free_energy(v).numpy(), -np.logaddexp.reduce(-e, 1), 1e-13 * np.abs(e).max())


def within(sample, mean, variance, n, sigmas=5.5):
    """Asserts that means of n independent draws are near their expectation (a false alarm in 3e7)."""
    spread = np.sqrt(np.maximum(variance, 0) / n)
    assert np.all(np.abs(sample - mean) <= sigmas * spread + 1e-12), np.max(np.abs(sample - mean) / (spread + 1e-30))


def test_samples(dtype):
    """The frequencies of drawn units."""
    rbm, n = machine(dtype=dtype), 20000
    g = nncore.Generator(3)
    for drawn, p in (
        (rbm.sample_hidden(np.tile(states(V)[5], (n, 1)), g), rbm(states(V)[5]).numpy()),
        (rbm.sample_visible(np.tile(states(H)[5], (n, 1)), g), rbm.visible_mean(states(H)[5]).numpy()),
    ):
        drawn, p = drawn.numpy().astype(float), p.astype(float)
        assert set(np.unique(drawn)) == {0.0, 1.0}
        within(drawn.mean(0), p, p * (1 - p), n)
        within((drawn[:, 0] * drawn[:, 1]).mean(), p[0] * p[1], p[0] * p[1] * (1 - p[0] * p[1]), n)
    rbm = machine("gaussian", dtype)
    mean = rbm.visible_mean(states(H)[5]).numpy().astype(float)
    drawn = rbm.sample_visible(np.tile(states(H)[5], (n, 1)), g).numpy().astype(float)
    within(drawn.mean(0), mean, 1.0, n)
    within(np.square(drawn - mean).mean(0), 1.0, 2.0, n)
    assert drawn.tolist() != rbm.sample_visible(np.tile(states(H)[5], (n, 1)), g).tolist()


def free_energy_gradients(rbm):
    """dF/dW, dF/da, dF/dc of every visible state, flat: [2^V, parameters]."""
    W, _, c = arrays(rbm)
    v = states(rbm.visible_features)
    h = sigmoid(v @ W.T + c)
    return np.hstack([-(h[:, :, None] * v[:, None, :]).reshape(len(v), -1), -v, -h])


def gradient(rbm, *args, **kwargs):
    """The gradient of contrastive_divergence, flat."""
    for p in rbm.parameters():
        p.grad = None
    rbm.contrastive_divergence(*args, **kwargs).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in rbm.parameters()])


def transition(rbm):
    """p(v' | v) of a step of Gibbs sampling."""
    p, _ = joint(rbm)
    return (p / p.sum(1, keepdims=True)) @ (p / p.sum(0)).T


def data(n):
    """n visible states in fixed shares, and the shares."""
    counts = np.random.default_rng(2).multinomial(n, np.random.default_rng(3).dirichlet(np.ones(2**V)))
    return np.repeat(states(V), counts, 0), counts / n


@pytest.mark.parametrize("k", [1, 3])
def test_contrastive_divergence(k):
    """Its expectation is that of the chain's exact distribution after k steps, and not the likelihood's gradient."""
    rbm, n = machine(scale=2.5), 40000
    x, shares = data(n)
    d = free_energy_gradients(rbm)
    after = np.linalg.matrix_power(transition(rbm), k)
    mean = shares @ after @ d
    variance = shares @ (after @ d**2 - (after @ d) ** 2)  # of independent chains from given starts
    got = gradient(rbm, x, k, generator=nncore.Generator(k))
    within(got, shares @ d - mean, variance, n)
    p, _ = joint(rbm)
    with pytest.raises(AssertionError):  # the bias of CD-k, which the test would see
        within(got, shares @ d - p.sum(1) @ d, variance, n)


def exact_gradient(rbm, shares):
    """Of -mean log p(v), by central differences of the enumeration."""
    x, step, found = states(V), 1e-5, []
    for p in rbm.parameters():
        before = p.numpy().copy()
        for at in np.ndindex(before.shape):
            sides = []
            for sign in (1, -1):
                moved = before.copy()
                moved[at] += sign * step
                p.copy_(moved)
                sides.append(shares @ rbm.free_energy(x).numpy() + joint(rbm)[1])
            found.append((sides[0] - sides[1]) / (2 * step))
        p.copy_(before)
    return np.array(found)


def test_persistent_chains_give_the_likelihoods_gradient():
    """Chains that are in equilibrium stay there, and the expected gradient is exactly that of -log p(v)."""
    rbm, n = machine(), 40000
    x, shares = data(1000)
    p = joint(rbm)[0].sum(1)
    start = np.random.default_rng(4).choice(2**V, n, p=p)
    chain = nncore.tensor(states(V)[start])
    d = free_energy_gradients(rbm)
    variance = p @ d**2 - (p @ d) ** 2
    exact = exact_gradient(rbm, shares)
    np.testing.assert_allclose(exact, shares @ d - p @ d, atol=1e-9)
    for k in (1, 2):
        before = chain.numpy().copy()
        within(gradient(rbm, x, k, chain, nncore.Generator(5)), exact, variance, n)
        assert 0.1 < (chain.numpy() != before).mean() < 0.9
    v = chain.numpy()
    within(v.mean(0), p @ states(V), p @ states(V) * (1 - p @ states(V)), n)


def test_errors_change_nothing():
    rbm = machine()
    chain = nncore.ones(2, V, dtype="float64")
    state = nncore.get_rng_state()
    for bad in ((np.ones((2, V + 1)), 1, chain), (np.ones((2, V)), 0, chain)):
        with pytest.raises(ValueError):
            rbm.contrastive_divergence(*bad)
    with pytest.raises(TypeError):
        rbm.contrastive_divergence(np.ones((2, V)), chain=nncore.ones(2, V))
    assert chain.numpy().min() == 1
    assert nncore.get_rng_state() == state
    loss = rbm.contrastive_divergence(chain, chain=chain)  # the data themselves as the chain
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


@pytest.mark.parametrize("options", [{}, {"k": 5}, {"persistent": True}])
def test_learning_raises_the_likelihood(options):
    """Two patterns of six bits, of which a tenth is flipped: from -6 log 2 to near the entropy of the data."""
    rng = np.random.default_rng(0)
    x = np.repeat([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], 100, 0).astype(float)
    x = np.where(rng.random(x.shape) < 0.1, 1 - x, x)
    shares = np.unique(x, axis=0, return_counts=True)[1] / len(x)
    nncore.manual_seed(0)
    rbm = nn.RBM(6, 4, dtype="float64")
    assert log_likelihood(rbm, x) == pytest.approx(-6 * np.log(2), abs=0.1)
    errors = rbm.fit(x, 200, 100, lr=0.1, **options)
    assert log_likelihood(rbm, x) > shares @ np.log(shares) - 0.3
    assert len(errors) == 200
    assert errors[-1] < 0.09 < 0.24 < errors[0]
    assert all(p.grad is None for p in rbm.parameters())


def test_gaussian_learning():
    """A mixture of two normal distributions: one hidden unit moves the mean."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((600, 1)) < 0.5, [3.0, -1.0], [-1.0, 2.0]) + rng.standard_normal((600, 2))
    nncore.manual_seed(1)
    rbm = nn.RBM(2, 1, "gaussian", dtype="float64")
    rbm.fit(x, 60, 50, lr=0.02, momentum=0.5)
    modes = rbm.visible_mean([[0.0], [1.0]]).numpy()
    modes = modes[np.argsort(modes[:, 0])]
    np.testing.assert_allclose(modes, [[-1, 2], [3, -1]], atol=0.3)


def test_fit_repeats_and_decays_the_weight_only():
    x = (np.random.default_rng(0).random((50, 6)) < 0.3).astype(np.float32)

    def run(**options):
        rbm = nn.RBM(6, 3)
        rbm.load_state_dict({"weight": np.full((3, 6), 0.1), "visible_bias": np.ones(6), "hidden_bias": np.ones(3)})
        return rbm, rbm.fit(x, 2, 20, generator=nncore.Generator(7), **options)

    (a, errors), (b, again) = run(persistent=True), run(persistent=True)
    assert errors == again
    assert all(np.array_equal(p.numpy(), q.numpy()) for p, q in zip(a.parameters(), b.parameters()))
    plain, decayed = run()[0], run(weight_decay=5.0)[0]
    assert np.abs(decayed.weight.numpy()).mean() < 0.7 * np.abs(plain.weight.numpy()).mean()
    np.testing.assert_allclose(decayed.visible_bias.numpy(), plain.visible_bias.numpy(), atol=0.1)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("persistent", [False, True])
def test_compiled_learning(visible, persistent):
    """A step under nncore.compile gives the bits of eager steps, chains and random numbers included."""
    x = nncore.tensor(np.random.default_rng(0).random((20, 6)).astype(np.float32))

    def run(wrap):
        nncore.manual_seed(5)
        rbm = nn.RBM(6, 5, visible)
        optimizer = optim.SGD(rbm.parameters(), lr=0.1, momentum=0.5)
        chain = nncore.zeros(8, 6) if persistent else None

        @wrap
        def step(x):
            optimizer.zero_grad()
            rbm.contrastive_divergence(x, 2, chain).backward()
            optimizer.step()
            return rbm.free_energy(x)

        found = [step(x).tolist() for _ in range(6)]
        return found, rbm.weight.tolist(), chain is not None and chain.tolist(), nncore.get_rng_state(), step

    *eager, _ = run(lambda f: f)
    *compiled, step = run(nncore.compile)
    assert compiled == eager
    assert step.plan.replays == 4


def test_dbn():
    """The MLP computes what the machines do, with weights of its own; the autoencoder goes down again."""
    nncore.manual_seed(0)
    dbn = nn.DBN([6, 5, 4], "gaussian", dtype="float64")
    for p in dbn.parameters():
        p.copy_(nncore.randn(*p.shape, dtype="float64"))
    x = np.random.default_rng(0).standard_normal((7, 6))
    assert [r.visible for r in dbn.rbms] == ["gaussian", "bernoulli"]
    assert np.array_equal(dbn.mlp()(x).numpy(), dbn(x).numpy())
    net = dbn.mlp(3)
    assert net(x).shape == (7, 3)
    assert net[-1].weight.dtype == np.float64
    net[0].weight.zero_()
    assert np.abs(dbn.rbms[0].weight.numpy()).min() > 0
    coder = dbn.autoencoder()
    down = dbn.rbms[0].visible_mean(dbn.rbms[1].visible_mean(dbn(x)))
    assert np.array_equal(coder(x).numpy(), down.numpy())
    assert [type(m).__name__ for m in coder] == ["Linear", "Sigmoid"] * 3 + ["Linear"]
    assert type(nn.DBN([3, 2]).autoencoder()[-1]) is nn.Sigmoid
    assert dbn.sample(5, 2).shape == (5, 6)


def test_dbn_learns_layer_by_layer():
    """Each machine learns from the features below; options go to all or one by one; samples come in the data's
    patterns."""
    x = np.repeat([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], 32, 0).astype(np.float32)
    g = nncore.manual_seed(0)
    dbn = nn.DBN([6, 5, 4])
    errors = dbn.fit(x, epochs=[300, 100], batch_size=16, lr=0.2, generator=g)
    assert [len(e) for e in errors] == [300, 100]
    assert errors[0][-1] < 0.01
    drawn = dbn.sample(200, 50, generator=g).numpy()
    assert ((drawn > 0.5) == (x[:1] > 0.5)).all(1).mean() + ((drawn > 0.5) == (x[-1:] > 0.5)).all(1).mean() > 0.8
    alone = nn.RBM(5, 4)
    alone.load_state_dict(nn.DBN([6, 5, 4]).rbms[1].state_dict())
    first = dbn.rbms[0].weight.numpy().copy()
    dbn.rbms[1].fit(dbn.rbms[0](x), 1)
    assert np.array_equal(dbn.rbms[0].weight.numpy(), first)


def test_pretraining_beats_random_initialization():
    """A sigmoid network of three hidden layers, 25 epochs of the same descent: from random weights it stays at
    chance."""
    x, y = load_digits()
    x, y = nncore.tensor(x[:512] / 16), nncore.tensor(y[:512])
    nncore.manual_seed(0)
    sizes = [64] * 4
    dbn = nn.DBN(sizes)
    dbn.fit(x, epochs=20, lr=0.2, momentum=0.5)
    layers = [m for i, o in itertools.pairwise(sizes) for m in (nn.Linear(i, o), nn.Sigmoid())]

    def loss_after(net):
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        @nncore.compile
        def step(x, y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(25):
            for at in range(0, 512, 32):
                step(x[at : at + 32], y[at : at + 32])
        return nn.functional.cross_entropy(net(x), y).item()

    assert loss_after(nn.Sequential(*layers, nn.Linear(64, 10))) > 0.98 * np.log(10)
    assert loss_after(dbn.mlp(10)) < 0.2 * np.log(10)
