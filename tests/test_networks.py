"""Two networks, shared weights, frozen layers, losses of one's own: gradients against SciPy, trainings against torch.

Each network is written once, for the names that nncore and torch share.
"""

import itertools
import types

import numpy as np
import pytest

import nncore
from nncore import nn, optim

from .gradcheck import gradcheck

try:
    import torch
except ImportError:
    torch = None

OURS = types.SimpleNamespace(
    nn=nn,
    optim=optim,
    tensor=lambda a: nncore.tensor(a),
    where=nncore.where,
    F=nn.functional,
    array=lambda t: t.numpy(),
)
STEPS = 6


def theirs():
    if torch is None:
        pytest.skip("torch is not installed: nothing to compare with")
    return types.SimpleNamespace(
        nn=torch.nn, optim=torch.optim, tensor=torch.tensor, where=torch.where, F=torch.nn.functional,
        array=lambda t: t.detach().numpy(),
    )  # fmt: skip


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def weights(module, seed=0):
    """The module in float64, with weights that depend on their shapes alone."""
    rng, module = np.random.default_rng(seed), module.double()
    state = {name: rng.standard_normal(tuple(t.shape)) * 0.6 for name, t in module.state_dict().items()}
    if isinstance(module, nn.Module):
        module.load_state_dict(state)
    else:
        module.load_state_dict({name: torch.tensor(a) for name, a in state.items()})
    return module


def mlp(lib, *sizes, seed=0):
    layers = []
    for i, o in itertools.pairwise(sizes):
        layers += [lib.nn.Linear(i, o), lib.nn.Tanh()]
    return weights(lib.nn.Sequential(*layers[:-1]), seed)


def agree(train):
    """Each array that a training gives is torch's: after STEPS steps of a few hundred roundings, none of them amplified
    much, in float64."""
    for got, want in zip(train(OURS), train(theirs()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def parameters(lib, *modules):
    return [lib.array(p).copy() for m in modules for p in m.parameters()]


# ---- two networks ----


def adversaries(lib):
    return mlp(lib, 3, 5, 4, seed=1), mlp(lib, 4, 6, 1, seed=2)


def generator_loss(g, d, z):
    return (d(g(z)) - 1).square().mean()


def discriminator_loss(g, d, z, real):
    return ((d(real) - 1).square() + d(g(z).detach()).square()).mean()


def test_two_networks():
    """The generator's loss differentiates through both; the discriminator's stops at what was generated."""
    g, d = adversaries(OURS)
    z, real = numbers(7, 3), numbers(7, 4, seed=3)
    both = nn.ModuleList([g, d])
    both.forward = lambda z: generator_loss(g, d, z)
    gradcheck(both, z)
    both.zero_grad()
    discriminator_loss(g, d, nncore.tensor(z), nncore.tensor(real)).backward()
    assert all(p.grad is None for p in g.parameters())
    assert all(p.grad is not None for p in d.parameters())
    g.requires_grad_(False)
    both.forward = lambda real: discriminator_loss(g, d, nncore.tensor(z), real)
    gradcheck(both, real)


def test_two_networks_are_trained_in_turn():
    def train(lib):
        g, d = adversaries(lib)
        og, od = lib.optim.Adam(g.parameters(), lr=0.02), lib.optim.SGD(d.parameters(), lr=0.1, momentum=0.5)
        found = []
        for i in range(STEPS):
            z, real = lib.tensor(numbers(7, 3, seed=i)), lib.tensor(numbers(7, 4, seed=50 + i))
            for opt, loss in ((od, lambda: discriminator_loss(g, d, z, real)), (og, lambda: generator_loss(g, d, z))):
                od.zero_grad(), og.zero_grad()
                value = loss()
                value.backward()
                opt.step()
                found.append(value.item())
        return [found, *parameters(lib, g, d)]

    agree(train)


# ---- shared weights ----


def tied(lib):
    """An autoencoder whose decoder is the encoder's transpose, as a function of x; and its layer."""
    layer = weights(lib.nn.Linear(4, 3), seed=4)
    return layer, lambda x: lib.F.linear(layer(x).tanh(), layer.weight.T)


def siamese_loss(net, a, b, same):
    """Contrastive (Hadsell, Chopra, LeCun, CVPR 2006): one network for both inputs."""
    distance = (net(a).tanh() - net(b).tanh()).square().sum(-1).sqrt()
    return (same * distance.square() + (1 - same) * (2 - distance).relu().square()).mean()


def test_shared_weights():
    layer, net = tied(OURS)
    both = nn.ModuleList([layer])
    both.forward = lambda x: net(x)
    gradcheck(both, numbers(5, 4))
    twin = mlp(OURS, 3, 4, 2, seed=5)
    twice = nn.ModuleList([twin])
    twice.forward = lambda a, b: siamese_loss(twin, a, b, nncore.tensor(np.array([1.0, 0.0, 1.0, 0.0])))
    gradcheck(twice, numbers(4, 3), numbers(4, 3, seed=1))


def test_shared_weights_in_training():
    def train(lib):
        layer, autoencoder = tied(lib)
        twin = mlp(lib, 3, 4, 2, seed=5)
        opt = lib.optim.SGD([*layer.parameters(), *twin.parameters()], lr=0.05, momentum=0.9, nesterov=True)
        for i in range(STEPS):
            x, a, b = (lib.tensor(numbers(4, n, seed=10 * i + n)) for n in (4, 3, 3))
            opt.zero_grad()
            same = lib.tensor(np.array([1.0, 0.0, 1.0, 0.0]))
            ((autoencoder(x) - x).square().mean() + siamese_loss(twin, a, b * 0.5, same)).backward()
            opt.step()
        return parameters(lib, layer, twin)

    agree(train)


# ---- frozen layers ----


def test_frozen_layer():
    """Gradients pass through it; it gets none."""
    net = mlp(OURS, 3, 4, 4, 2)
    net[2].requires_grad_(False)
    gradcheck(net, numbers(5, 3))
    net(nncore.tensor(numbers(5, 3))).sum().backward()
    assert [p.grad is None for p in net.parameters()] == [False, False, True, True, False, False]


def test_frozen_layer_in_training():
    """It keeps its bits, weight decay and momentum notwithstanding, until it is thawed."""

    def train(lib):
        net = mlp(lib, 3, 4, 4, 2)
        opt = lib.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
        frozen, found = parameters(lib, net[2]), []
        for i in range(2 * STEPS):
            net[2].requires_grad_(i >= STEPS)
            opt.zero_grad()
            x = lib.tensor(numbers(5, 3, seed=i))
            (net(x) - x[:, :2]).abs().mean().backward()
            opt.step()
            if i == STEPS - 1:
                assert all(np.array_equal(a, b) for a, b in zip(frozen, parameters(lib, net[2])))
        assert not np.array_equal(frozen[0], lib.array(net[2].weight))
        return [*found, *parameters(lib, net)]

    agree(train)


# ---- losses of one's own ----


def focal(lib, x, hot):
    """-(1 - p)^2 log p of the right class: Lin et al., ICCV 2017."""
    log_p = (lib.F.log_softmax(x, -1) * hot).sum(-1)
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def pinball(lib, x, target):
    """Quantile regression: d q where d > 0, else d (q - 1). Koenker, Bassett, 1978."""
    d = target - x
    return lib.where(d > 0, d * 0.9, d * -0.1).mean()


def log_cosh(lib, x, target):
    d = x - target
    return (d + lib.F.softplus(-2 * d) - np.log(2)).sum()


class Weighted:
    """A loss with a learned weight (Kendall, Gal, Cipolla, CVPR 2018)."""

    def __init__(self, lib):
        self.s = lib.nn.Parameter(lib.tensor(np.array(0.3)))

    def __call__(self, lib, x, target):
        return (x - target).square().mean() * (-self.s).exp() + self.s


HOT = np.eye(3)[[0, 2, 1, 1, 0]]
LOSSES = {
    "focal": (focal, HOT),
    "pinball": (pinball, numbers(5, 3, seed=9)),
    "log cosh": (log_cosh, numbers(5, 3, seed=9)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_own_loss(name):
    loss, target = LOSSES[name]
    net = mlp(OURS, 2, 4, 3)
    checked = nn.ModuleList([net])
    checked.forward = lambda x: loss(OURS, net(x), nncore.tensor(target))
    gradcheck(checked, numbers(5, 2))


@pytest.mark.parametrize("name", [*LOSSES, "weighted"])
def test_own_loss_in_training(name):
    def train(lib):
        loss, target = LOSSES.get(name) or (Weighted(lib), HOT)
        net = mlp(lib, 2, 4, 3)
        more = [loss.s] if name == "weighted" else []
        opt = lib.optim.SGD([*net.parameters(), *more], lr=0.05, momentum=0.9)
        for i in range(STEPS):
            opt.zero_grad()
            loss(lib, net(lib.tensor(numbers(5, 2, seed=i))), lib.tensor(target)).backward()
            opt.step()
        return [*parameters(lib, net), *(lib.array(p) for p in more)]

    agree(train)
