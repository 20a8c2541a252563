"""The arithmetic is the library's: everything runs while NumPy's computing functions raise.

NumPy allocates, reshapes, sorts a shuffle's keys and works out index positions; numbers are computed by the kernels.
Functions are replaced in the `numpy` namespace, and calls of ndarray's computing methods are seen by a profiler hook.
"""

import sys

import numpy as np
import pytest

import nncore
from nncore import data, nn, optim
from nncore.data import augment
from nncore.nn import functional as F

from . import test_gradients

FUNCTIONS = [
    "dot",
    "vdot",
    "inner",
    "outer",
    "matmul",
    "tensordot",
    "einsum",
    "kron",
    "cross",
    "trace",
    "sum",
    "prod",
    "mean",
    "average",
    "std",
    "var",
    "median",
    "max",
    "min",
    "amax",
    "amin",
    "ptp",
    "cumsum",
    "cumprod",
    "nansum",
    "nanmean",
    "clip",
    "convolve",
    "correlate",
    "interp",
    "gradient",
    "diff",
    "linspace",
    "where",
    "sinc",
    "round",
    "around",
    "argmax",
    "argmin",
]
METHODS = {
    "dot",
    "sum",
    "prod",
    "mean",
    "std",
    "var",
    "max",
    "min",
    "argmax",
    "argmin",
    "cumsum",
    "cumprod",
    "clip",
    "round",
    "trace",
    "ptp",
    "__add__",
    "__radd__",
    "__sub__",
    "__mul__",
    "__rmul__",
    "__truediv__",
    "__pow__",
    "__matmul__",
    "__neg__",
    "reduce",
    "accumulate",
    "outer",
    "reduceat",
    "at",
}


def forbidden(name):
    def raiser(*args, **kwargs):
        raise AssertionError(f"numpy.{name} was called")

    return raiser


def watch(found):
    """A profiler hook that notes calls of ndarray's computing methods by the library."""

    def profile(frame, event, arg):
        if event != "c_call" or getattr(arg, "__name__", "") not in METHODS:
            return
        package = frame.f_globals.get("__name__", "")
        ours = package.startswith("nncore.") and not package.startswith("nncore.tests")
        if ours and isinstance(getattr(arg, "__self__", None), np.ndarray | np.generic | np.ufunc):
            found.append(f"ndarray.{arg.__name__} in {package}.{frame.f_code.co_name}")

    return profile


@pytest.fixture
def no_numpy(monkeypatch):
    """NumPy without arithmetic."""
    names = [n for n in dir(np) if isinstance(getattr(np, n), np.ufunc)] + [n for n in FUNCTIONS if hasattr(np, n)]
    assert len(names) > 90
    for n in names:
        monkeypatch.setattr(np, n, forbidden(n))
    for n in dir(np.linalg):
        if callable(getattr(np.linalg, n)) and n[0].islower():
            monkeypatch.setattr(np.linalg, n, forbidden(f"linalg.{n}"))
    found, former = [], sys.getprofile()
    sys.setprofile(watch(found))
    yield
    sys.setprofile(former)
    assert found == []


def run(fn, *inputs):
    """Forward and backward."""
    y = fn(*inputs)
    for t in y if isinstance(y, tuple | list) else (y,):
        if t.dtype.kind == "f" and t.requires_grad:
            t.backward(np.ones(t.shape), retain_graph=True)


@pytest.mark.parametrize("name", test_gradients.CASES)
def test_operation(name, no_numpy):
    fn, arrays = test_gradients.CASES[name]
    leaves = [nncore.tensor(a, requires_grad=True) for a in arrays]
    run(fn, *leaves)
    assert all(t.grad is not None for t in leaves)


@pytest.mark.parametrize("name", test_gradients.MODULES)
def test_module(name, no_numpy):
    build, arrays = test_gradients.MODULES[name]
    net = build()
    leaves = [a if isinstance(a, nncore.Tensor) else nncore.tensor(a, requires_grad=True) for a in arrays]
    run(net, *leaves)
    assert all(p.grad is not None for p in net.parameters())
    state = net.state_dict()
    net.load_state_dict(state)


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1),
    "Adam amsgrad": lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    **{
        name: getattr(optim, name)
        for name in ("ASGD", "Adamax", "NAdam", "RAdam", "Lion", "Adagrad", "Adadelta", "Rprop", "AdaSecant")
    },
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training(name, no_numpy):
    """A net from its initialization to a fifth step."""
    nncore.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 20), nn.ReLU(), nn.Dropout(0.1), nn.Linear(20, 3))
    opt = OPTIMIZERS[name](net.parameters())
    x, y = nncore.randn(16, 2, 3), nncore.tensor([0, 1, 2, 1] * 4)
    order = nncore.randperm(16)
    losses = []
    for _ in range(5):
        opt.zero_grad()
        loss = F.cross_entropy(net(x[order]), y[order])
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        opt.step()
        losses.append(loss.item())
    assert losses[-1] != losses[0]
    opt.load_state_dict(opt.state_dict())
    with nncore.no_grad():
        net.eval()(x).argmax(1)


def test_lbfgs(no_numpy):
    nncore.manual_seed(0)
    net, x = nn.Linear(3, 2), nncore.randn(8, 3)
    opt = optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = (net(x) - 1).square().sum()
        loss.backward()
        return loss

    first = opt.step(closure).item()
    assert closure().item() < first
    opt.load_state_dict(opt.state_dict())
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(net.parameters()).detach() * 2, net.parameters())


def test_the_rest(no_numpy):
    """What has no gradient: comparisons, arg, writes, initialization. (orthogonal_ is exempt: its QR is LAPACK's.)"""
    nncore.manual_seed(0)
    t = nncore.randn(4, 5)
    for other in (t.T.contiguous().T, 0.5, np.ones((4, 5))):
        for fn in (t.__eq__, t.__ne__, t.__lt__, t.__le__, t.__gt__, t.__ge__):
            assert fn(other).dtype == nncore._tensor.bool_
    t.argmax(1), t.argmin(), (t > 0).sum(), t.double(), t.long(), t.bool()
    t.fill_(2).add_(1).sub_(t[0]).mul_(3).div_(2).zero_().copy_(np.ones(5))
    t[0] = 1.0
    t[[0, 2]] = t[1]
    t[:, 1:] = t[:, :-1]
    init = nn.init
    for fn in (
        init.uniform_,
        init.normal_,
        init.zeros_,
        init.ones_,
        init.eye_,
        init.xavier_uniform_,
        init.xavier_normal_,
    ):
        fn(t)
    for fn in (init.kaiming_uniform_, init.kaiming_normal_):
        fn(t)
    init.constant_(t, 3.0)
    nncore.rand(3), nncore.full((2,), 1.0), nncore.ones_like(t), nncore.arange(5)


def test_augmentation(no_numpy):
    """NumPy holds matrices and positions; pixels are computed by kernels."""
    x = nncore.rand(6, 3, 8, 8)
    steps = [
        augment.RandomAffine(20, (0.1, 0.1), (0.8, 1.2)),
        augment.RandomShift(1),
        augment.RandomCrop(8, 2),
        augment.RandomVerticalFlip(),
        augment.Cutout(3),
        augment.GaussianNoise(0.1),
        augment.Normalize(0.5, 0.5),
        augment.MixUp(0.4, 3),
    ]
    pairs = data.TensorDataset(x, nncore.tensor([0, 1, 2] * 2))
    for images, targets in data.DataLoader(pairs, 3, shuffle=True, transform=augment.Compose(steps)):
        assert images.shape == (3, 3, 8, 8)
        assert targets.shape == (3, 3)


def test_the_net_catches(no_numpy):
    """The replacement works: NumPy's arithmetic raises here."""
    for fn in (
        lambda: np.exp(1.0),
        lambda: np.add(1, 2),
        lambda: np.matmul([[1]], [[1]]),
        lambda: np.linalg.qr(np.eye(2)),
    ):
        with pytest.raises(AssertionError, match="was called"):
            fn()
    with pytest.raises(AssertionError, match="was called"):
        nn.init.orthogonal_(nncore.zeros(3, 3))


def test_the_watch_sees():
    """The profiler hook works: a method call from a module of the library is noted, one from here is not."""
    found, former, a = [], sys.getprofile(), np.ones(3)
    sys.setprofile(watch(found))
    a.sum()
    exec("a.sum(); a.max(); a.reshape(-1)", {"a": a, "__name__": "nncore.somewhere"})
    sys.setprofile(former)
    assert found == ["ndarray.sum in nncore.somewhere.<module>", "ndarray.max in nncore.somewhere.<module>"]
