"""Against PyTorch, where it is installed: names, defaults, outputs, gradients and optimizer trajectories."""

import inspect

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore.nn import functional as F
from nncore.nn import init

from . import coverage_page, test_lr_scheduler, test_optim

try:
    import torch
except ImportError:
    pytest.skip("torch is not installed: nothing to compare with", allow_module_level=True)

TF = torch.nn.functional
EPS = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}


def to_torch(a, grad=False):
    t = torch.from_numpy(np.array(a, order="C"))
    return t.requires_grad_() if grad else t


def close(got, want, roundings):
    """Both sides round at most `roundings` times, each relative to the largest magnitude."""
    got, want = np.asarray(got), want.detach().numpy() if isinstance(want, torch.Tensor) else np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if got.size:
        scale = max(float(np.abs(want).max()), 1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=2 * roundings * EPS[got.dtype] * scale)


# ---- outputs and gradients of operations ----


OPERATIONS = {
    "exp": (lambda x: x.exp(), 1),
    "log": (lambda x: (x * x + 0.1).log(), 1),
    "tanh": (lambda x: x.tanh(), 1),
    "sigmoid": (lambda x: x.sigmoid(), 1),
    "relu": (lambda x: x.relu(), 1),
    "sqrt": (lambda x: (x * x + 0.1).sqrt(), 1),
    "softmax": (lambda x: x.softmax(-1), 1),
    "softmax 0": (lambda x: x.softmax(0), 1),
    "log_softmax": (lambda x: x.log_softmax(1), 1),
    "sum": (lambda x: x.sum(), 1),
    "sum 0": (lambda x: x.sum(0), 1),
    "mean": (lambda x: x.mean(1, keepdim=True), 1),
    "var": (lambda x: x.var(1), 1),
    "std": (lambda x: x.std(0, correction=0), 1),
    "max": (lambda x: x.max(1)[0], 1),
    "min": (lambda x: x.min(), 1),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), 1),
    "abs": (lambda x: x.abs(), 1),
    "pow": (lambda x: (x.abs() + 0.1) ** 2.5, 1),
    "cube": (lambda x: x**3, 1),
    "index": (lambda x: x[[0, 2, 0], [1, 1, 1]], 1),
    "slice": (lambda x: x[1:, ::2], 1),
    "reshape": (lambda x: x.T.reshape(-1), 1),
    "expand": (lambda x: x[:, None].expand(5, 2, 4), 1),
    "add": (lambda x, y: x + y, 2),
    "sub": (lambda x, y: x.sub(y, alpha=2), 2),
    "mul": (lambda x, y: x * y, 2),
    "div": (lambda x, y: x / (y * y + 1), 2),
    "matmul": (lambda x, y: x @ y.T, 2),
    "maximum": (lambda x, y: x.maximum(y), 2),
    "broadcast": (lambda x, y: x * y[0] + y[:, :1], 2),
    "rpow": (lambda x: 1.5**x, 1),
    "rdiv": (lambda x: 1 / (x * x + 1), 1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, dtype):
    fn, n = OPERATIONS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((5, 4)).astype(dtype) for _ in range(n)]
    ours = [nncore.tensor(a, requires_grad=True) for a in arrays]
    theirs = [to_torch(a, True) for a in arrays]
    y, z = fn(*ours), fn(*theirs)
    close(y.detach().numpy(), z, 64)
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    z.backward(to_torch(dy))
    for a, b in zip(ours, theirs):
        close(a.grad.numpy(), b.grad, 64)


TINY = 2.0**-126  # below it kernels flush to zero
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, 88.0, -104.0, 3e38, -3e38, 1.0, -1.0], np.float32)


@pytest.mark.parametrize(
    "name", ["exp", "log", "tanh", "sigmoid", "relu", "sqrt", "abs", "square", "neg", "reciprocal"]
)
def test_special_values(name):
    """NaN, infinities and zeros come out where torch has them, forward and backward."""
    ours, theirs = nncore.tensor(SPECIAL, requires_grad=True), to_torch(SPECIAL, True)
    y, z = getattr(ours, name)(), getattr(theirs, name)()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-6, atol=TINY)
    y.backward(np.ones(12))
    z.backward(torch.ones(12))
    want = theirs.grad.numpy()
    if name == "abs":
        want = np.where(np.isnan(SPECIAL), SPECIAL, want)  # torch's sign of NaN is 0: its NaN would go unnoticed
    np.testing.assert_allclose(ours.grad.numpy(), want, rtol=1e-6, atol=TINY)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 5), (2, 3, 2, 2)])
def test_losses(shape, reduction):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    d = min(1, len(shape) - 1)
    t = np.asarray(rng.integers(0, 3, shape[:d] + shape[d + 1 :]))
    soft = rng.random(shape)
    for ours_fn, theirs_fn, target in [
        (F.cross_entropy, TF.cross_entropy, t),
        (F.cross_entropy, TF.cross_entropy, soft),
        (F.mse_loss, TF.mse_loss, soft),
        (F.nll_loss, TF.nll_loss, t),
    ]:
        a, b = nncore.tensor(x, requires_grad=True), to_torch(x, True)
        y, z = ours_fn(a, target, reduction=reduction), theirs_fn(b, to_torch(target), reduction=reduction)
        close(y.detach().numpy(), z, 64)
        dy = rng.standard_normal(y.shape)
        y.backward(dy)
        z.backward(to_torch(dy))
        close(a.grad.numpy(), b.grad, 64)


# ---- activations ----

ACTIVATIONS = {
    "leaky_relu": [(), (0.3,), (-2.0,)],
    "rrelu": [(), (0.1, 0.6)],
    "relu6": [()],
    "hardtanh": [(), (-2.0, 0.5)],
    "elu": [(), (2.0,), (-1.5,)],
    "celu": [(), (2.0,), (-1.5,)],
    "selu": [()],
    "gelu": [(), ("tanh",)],
    "silu": [()],
    "mish": [()],
    "softplus": [(), (2.0, 5.0)],
    "softsign": [()],
    "hardsigmoid": [()],
    "hardswish": [()],
    "logsigmoid": [()],
    "tanhshrink": [()],
    "softshrink": [(), (1.0,)],
    "hardshrink": [(), (1.0,)],
    "threshold": [(1.0, 5.0)],
    "glu": [(), (0,)],
    "softmin": [(0,), (-1,)],
}
# everything that a float can be where something changes, but for values at which torch overflows
EXTREMES = [1e4, 1000, 500, 88, 87, 20, 12, 6, 3, 2, 1, 0.5, 1e-4, 1e-7, 1e-30, 0]
HUGE = [3e38, 1e30, 1e19]
OVERFLOW = {
    "hardswish": "x * 6 / 6",
    "gelu": "x^3, and of its vector erf",
    "celu": "with alpha < 0",
    "glu": "infinity * 0 in the gradient",
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype):
    """Random numbers, and extremes of both signs."""
    rng = np.random.default_rng(0)
    extremes = EXTREMES + HUGE * (name not in OVERFLOW)
    for arguments in ACTIVATIONS[name]:
        few = EXTREMES[2:] if name == "celu" and -1.5 in arguments else extremes
        for x in (3 * rng.standard_normal((4, 6, 8)), np.array([few, [-v for v in few]])):
            a, b = nncore.tensor(x.astype(dtype), requires_grad=True), to_torch(x.astype(dtype), True)
            options = {"approximate": arguments[0]} if "tanh" in arguments else {}
            y = getattr(F, name)(a, *arguments)
            z = getattr(TF, name)(b, **options) if options else getattr(TF, name)(b, *arguments)
            dy = rng.standard_normal(y.shape).astype(dtype)
            y.backward(dy)
            z.backward(to_torch(dy))
            # torch's gradient of hardsigmoid multiplies by a float32 sixth; its float32 erf is good to 1e-6
            loose = name == "hardsigmoid" or (name == "gelu" and dtype == np.float32)
            tol = 2e-6 if loose else 64 * EPS[np.dtype(dtype)]
            np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=tol, atol=tol)
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=tol, atol=tol)


@pytest.mark.parametrize("shape, n", [((4, 3, 5, 2), 3), ((4, 3), 3), ((4, 3), 1), ((7,), 1), ((), 1), ((2, 3, 4), 3)])
def test_prelu(shape, n):
    rng = np.random.default_rng(0)
    arrays = [np.array(rng.standard_normal(shape)), rng.standard_normal(n)]
    ours, theirs = [nncore.tensor(a, requires_grad=True) for a in arrays], [to_torch(a, True) for a in arrays]
    y, z = F.prelu(*ours), TF.prelu(*theirs)
    close(y.detach().numpy(), z, 4)
    y.backward(np.ones(shape))
    z.backward(torch.ones(shape, dtype=torch.float64))
    for a, b in zip(ours, theirs):
        close(a.grad.numpy(), b.grad, 64)


# ---- more losses: (name, arrays, options); arrays of floats get gradients ----


def loss_cases():
    rng = np.random.default_rng(0)
    normal = lambda *s: rng.standard_normal(s)
    p, q, w = rng.uniform(0.01, 0.99, (4, 5)), rng.uniform(0, 1, (4, 5)), rng.uniform(0.5, 2, 5)
    signs, marks = np.sign(normal(4, 5)), np.sign(normal(4))
    labels = np.array([[1, 2, -1, 3, 0], [0, -1, -1, -1, -1], [4, 3, 2, 1, 0], [-1, 2, 2, 2, 2]])
    x, y, z = 2 * normal(4, 5), normal(4, 5), normal(4, 5)
    for options in ({}, {"delta": 0.3}, {"delta": 2.0}):
        yield "huber_loss", (x, y), options
    for options in ({}, {"beta": 0.3}, {"beta": 0.0}):
        yield "smooth_l1_loss", (x, y), options
    yield "l1_loss", (x, y), {}
    yield "l1_loss", (np.array([1.0, 2.0]), np.array([1.0, 3.0])), {}
    for options in ({}, {"weight": w}):
        yield "binary_cross_entropy", (p, q), options
        yield "binary_cross_entropy_with_logits", (5 * x, q), options
        yield "binary_cross_entropy_with_logits", (5 * x, q), {**options, "pos_weight": 2 * w}
        yield "multilabel_soft_margin_loss", (x, (signs > 0) * 1.0), options
        yield "multi_margin_loss", (x, np.array([0, 4, 2, 2])), {**options, "p": 2, "margin": 0.7}
        yield "multi_margin_loss", (x, np.array([0, 4, 2, 2])), options
    yield "kl_div", (x, q), {}
    yield "kl_div", (x, y), {"log_target": True}
    for log_input in (True, False):
        for full in (True, False):
            yield "poisson_nll_loss", (3 * p, 4 * q), {"log_input": log_input, "full": full}
    for shape in ((4, 5), (4, 1), (4,)):
        yield "gaussian_nll_loss", (x, y, rng.uniform(0.1, 2, shape)), {"full": len(shape) == 1}
    yield "gaussian_nll_loss", (x, y, 0 * p), {"eps": 0.1}
    yield "hinge_embedding_loss", (x, signs), {"margin": 0.7}
    yield "soft_margin_loss", (x, signs), {}
    yield "margin_ranking_loss", (x, y, signs), {"margin": 0.3}
    yield "cosine_embedding_loss", (x, y, marks), {"margin": 0.1}
    for norm in (1.0, 2.0, 3.0, 0.5, float("inf")):
        yield "triplet_margin_loss", (x, y, z), {"p": norm, "swap": norm > 1}
    yield "multilabel_margin_loss", (x, labels), {}
    yield "multilabel_margin_loss", (x[0], labels[0]), {}
    for shape in ((7, 5), (3, 5, 4), (2, 5, 3, 2)):
        t = rng.integers(0, 5, (shape[0], *shape[2:]))
        t.flat[1] = -100
        for options in ({}, {"weight": w}):
            yield "nll_loss", (normal(*shape), t), options
            yield "nll_loss", (normal(*shape), np.maximum(t, 0)), {**options, "ignore_index": 2}
            for smooth in ({}, {"label_smoothing": 0.3}):
                yield "cross_entropy", (normal(*shape), t), {**options, **smooth}
                yield "cross_entropy", (normal(*shape), np.maximum(t, 0)), {**options, **smooth, "ignore_index": 2}
                yield "cross_entropy", (normal(*shape), rng.random(shape)), {**options, **smooth}


LOSSES = list(loss_cases())
NO_TARGET = ("hinge_embedding_loss", "soft_margin_loss", "margin_ranking_loss", "cosine_embedding_loss")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize(
    "name, arrays, options", LOSSES, ids=[f"{i} {c[0]} {list(c[2])}" for i, c in enumerate(LOSSES)]
)
@pytest.mark.filterwarnings("ignore:reduction. 'mean'")
def test_more_losses(name, arrays, options, reduction):
    if reduction == "batchmean" and name != "kl_div":
        pytest.skip("KL divergence only")
    wants = [a.dtype.kind == "f" and not (name in NO_TARGET and a is arrays[-1]) for a in arrays]
    ours = [nncore.tensor(a, requires_grad=w) for a, w in zip(arrays, wants)]
    theirs = [to_torch(a, w) for a, w in zip(arrays, wants)]
    torchs = {k: to_torch(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    y = getattr(F, name)(*ours, **options, reduction=reduction)
    z = getattr(TF, name)(*theirs, **torchs, reduction=reduction)
    close(y.detach().numpy(), z, 128)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(dy)
    z.backward(to_torch(dy))
    for a, b in zip(ours, theirs):
        if b.grad is not None:
            close(a.grad.numpy(), b.grad, 512)


# ---- embeddings ----


@pytest.mark.parametrize("padding_idx", [None, 3, -1])
def test_embeddings(padding_idx):
    """Values and gradients, of bags in each mode; torch's division by counts in bags is wrong, and not compared."""
    rng = np.random.default_rng(0)
    table, ids, flat = rng.standard_normal((10, 6)), rng.integers(0, 10, (4, 3)), rng.integers(0, 10, 11)
    starts, factors = np.array([0, 3, 3, 7]), rng.standard_normal(11)
    calls = [(lambda M, T, w: M.embedding(T(ids), w, padding_idx, scale_grad_by_freq=s)) for s in (False, True)]
    for mode in ("sum", "mean", "max"):
        k = {"mode": mode, "padding_idx": padding_idx}
        calls.append(lambda M, T, w, k=k: M.embedding_bag(T(ids), w, **k))
        calls.append(lambda M, T, w, k=k: M.embedding_bag(T(flat), w, T(starts), **k))
        last = np.append(starts, 11)
        calls.append(lambda M, T, w, k=k: M.embedding_bag(T(flat), w, T(last), include_last_offset=True, **k))
    k = {"mode": "sum", "padding_idx": padding_idx}
    calls.append(lambda M, T, w: M.embedding_bag(T(flat), w, T(starts), per_sample_weights=T(factors), **k))
    for call in calls:
        a, b = nncore.tensor(table, requires_grad=True), to_torch(table, True)
        y, z = call(F, nncore.tensor, a), call(TF, to_torch, b)
        close(y.detach().numpy(), z, 16)
        dy = rng.standard_normal(y.shape)
        y.backward(dy)
        z.backward(to_torch(dy))
        close(a.grad.numpy(), b.grad, 64)
    for p in (1.0, 2.0, 3.0, float("inf")):
        a, b = nncore.tensor(table), to_torch(table)
        F.embedding(ids, a, max_norm=1.5, norm_type=p)
        TF.embedding(to_torch(ids), b, max_norm=1.5, norm_type=p)
        close(a.numpy(), b, 64)


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_embedding_layers(name):
    ours, theirs = getattr(nn, name)(7, 3, padding_idx=2), getattr(torch.nn, name)(7, 3, padding_idx=2)
    share(ours, theirs)
    ids = np.array([[1, 2], [6, 0]])
    close(ours(ids).detach().numpy(), theirs(to_torch(ids)), 4)


@pytest.mark.parametrize("num_classes", [-1, 12])
def test_one_hot(num_classes):
    ids = np.random.default_rng(0).integers(0, 10, (4, 3))
    np.testing.assert_array_equal(F.one_hot(ids, num_classes).numpy(), TF.one_hot(to_torch(ids), num_classes).numpy())


@pytest.mark.parametrize(
    "s, t",
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (4, 3, 2)), ((5, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 3))],
)
def test_matmul(s, t):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal(s), rng.standard_normal(t)
    ours = [nncore.tensor(a, requires_grad=True) for a in arrays]
    theirs = [to_torch(a, True) for a in arrays]
    y, z = ours[0] @ ours[1], theirs[0] @ theirs[1]
    close(y.detach().numpy(), z, 64)
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    z.backward(to_torch(np.asarray(dy)))
    for a, b in zip(ours, theirs):
        close(a.grad.numpy(), b.grad, 64)


# ---- convolutions ----

# (function, input, weight, options)
CONVOLUTIONS = [
    ("conv1d", (2, 3, 11), (4, 3, 3), {}),
    ("conv1d", (2, 4, 11), (6, 2, 4), {"padding": "same", "dilation": 2, "groups": 2}),
    ("conv1d", (3, 11), (4, 3, 3), {"stride": 2, "padding": 3}),
    ("conv2d", (3, 5, 9, 8), (7, 5, 3, 3), {"padding": 1}),
    ("conv2d", (3, 5, 9, 8), (7, 5, 3, 2), {"stride": (3, 2), "padding": (0, 2), "dilation": (1, 2)}),
    ("conv2d", (2, 6, 7, 7), (6, 1, 3, 3), {"groups": 6, "padding": "valid"}),
    ("conv2d", (2, 6, 7, 7), (12, 1, 1, 1), {"groups": 6, "stride": 3}),
    ("conv2d", (2, 40, 9, 11), (40, 1, 3, 3), {"groups": 40, "stride": 2, "padding": 1}),
    ("conv2d", (2, 9, 9, 11), (18, 1, 5, 3), {"groups": 9, "padding": 2, "dilation": (1, 2)}),
    ("conv2d", (2, 16, 9, 11), (16, 4, 3, 3), {"groups": 4, "padding": 1}),
    ("conv_transpose2d", (2, 9, 5, 6), (9, 1, 3, 3), {"groups": 9, "stride": 2, "output_padding": 1}),
    ("conv2d", (5, 7, 7), (8, 5, 7, 7), {}),
    ("conv2d", (2, 3, 7, 6), (4, 3, 2, 4), {"padding": "same"}),
    ("conv3d", (1, 3, 4, 5, 6), (2, 3, 2, 3, 2), {"stride": (1, 2, 1), "padding": 1}),
    ("conv3d", (2, 4, 4, 5, 4), (6, 2, 2, 2, 2), {"groups": 2, "dilation": (1, 2, 1), "padding": "same"}),
    ("conv_transpose1d", (2, 3, 6), (3, 4, 3), {"stride": 3, "output_padding": 2}),
    ("conv_transpose1d", (3, 6), (3, 4, 2), {"stride": 4}),
    ("conv_transpose2d", (2, 4, 5, 6), (4, 3, 3, 2), {"stride": (2, 1), "padding": 1, "output_padding": (1, 0)}),
    ("conv_transpose2d", (2, 4, 5, 6), (4, 3, 2, 2), {"groups": 2, "dilation": 3}),
    ("conv_transpose3d", (1, 2, 3, 4, 3), (2, 3, 2, 2, 2), {"stride": 2, "padding": (0, 1, 1)}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "name, shape, kernel, options", CONVOLUTIONS, ids=[f"{n} {s} {o}" for n, s, _, o in CONVOLUTIONS]
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, for even kernels
def test_convolutions(name, shape, kernel, options, bias, dtype):
    rng = np.random.default_rng(0)
    out = kernel[1] * options.get("groups", 1) if "transpose" in name else kernel[0]
    arrays = [rng.standard_normal(s).astype(dtype) for s in (shape, kernel, *[(out,)] * bias)]
    ours, theirs = [nncore.tensor(a, requires_grad=True) for a in arrays], [to_torch(a, True) for a in arrays]
    y, z = getattr(F, name)(*ours, **options), getattr(TF, name)(*theirs, **options)
    close(y.detach().numpy(), z, 300)
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    z.backward(to_torch(dy))
    for a, b in zip(ours, theirs):
        close(a.grad.numpy(), b.grad, 300)


CONV_LAYERS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}),
    ("Conv1d", (4, 6, 4), {"padding": "same", "bias": False}),
    ("Conv2d", (4, 6, (3, 2)), {"dilation": (1, 2), "padding": (1, 0)}),
    ("Conv2d", (4, 4, 3, 2, 1, 1, 4, False), {}),
    ("Conv3d", (4, 6, 2), {"padding": "valid"}),
    ("Conv1d", (4, 6, 3, 2, 2, 1, 2, True, "reflect"), {}),
    ("Conv2d", (4, 6, (3, 4)), {"padding": "same", "padding_mode": "reflect", "dilation": (2, 1)}),
    ("Conv2d", (4, 6, 3), {"padding": (1, 2), "padding_mode": "circular", "stride": 2}),
    ("Conv3d", (4, 6, (3, 1, 2)), {"padding": (2, 1, 0), "padding_mode": "replicate"}),
    ("ConvTranspose1d", (4, 6, 3, 2, 1, 1, 2, True, 1), {}),
    ("ConvTranspose2d", (4, 6, 3), {"stride": (2, 3), "output_padding": (1, 2)}),
    ("ConvTranspose3d", (4, 6, 2), {"bias": False, "groups": 2}),
]


@pytest.mark.parametrize("name, args, options", CONV_LAYERS, ids=[f"{n} {a} {o}" for n, a, o in CONV_LAYERS])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_convolution_layers(name, args, options):
    """Names and shapes of parameters, and outputs; torch's initialization has the same bounds."""
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    share(ours, theirs)
    assert [v.shape for v in ours.state_dict().values()] == [tuple(v.shape) for v in theirs.state_dict().values()]
    theirs.load_state_dict({n: torch.from_numpy(v) for n, v in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 4, *(7, 6, 5)[: int(name[-2])])).astype(np.float32)
    close(ours(nncore.tensor(x)).detach().numpy(), theirs(to_torch(x)), 300)
    ours.reset_parameters(), theirs.reset_parameters()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        limit = (1 + 1e-6) / np.sqrt(np.prod(ours.weight.shape[1:]))
        assert 0 < np.abs(p.numpy()).max() <= limit
        assert 0 < np.abs(q.detach().numpy()).max() <= limit


# ---- padding ----

PADS = [
    ((5, 7), (2, 1)),
    ((2, 3, 5, 7), (3, 0, 1, 2)),
    ((2, 3, 5, 7), (-2, 1, 3, -1)),
    ((3, 4, 5, 6), (1, 2, 3, 1, 2, 0)),
    ((2, 3, 4, 5, 6), (1, 2, 3, 1, 2, 0)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape, pad", PADS)
def test_pad(shape, pad, mode, dtype):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(shape).astype(dtype)
    x, z = nncore.tensor(a, requires_grad=True), to_torch(a, True)
    value = {"value": -2.5} if mode == "constant" else {}
    y, t = F.pad(x, pad, mode, **value), TF.pad(z, pad, mode, **value)
    close(y.detach().numpy(), t, 0)
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    t.backward(to_torch(dy))
    close(x.grad.numpy(), z.grad, 27)  # sums of at most so many


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["ConstantPad", "ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad"])
def test_padding_layers(kind, axes):
    a = np.random.default_rng(0).standard_normal((2, 3, *(5, 4, 6)[:axes])).astype(np.float32)
    more = (1.5,) if kind == "ConstantPad" else ()
    for padding in (2, (1, 0, 2, 1, 3, 2)[: 2 * axes]):
        ours, theirs = (getattr(m, f"{kind}{axes}d")(padding, *more) for m in (nn, torch.nn))
        close(ours(a).numpy(), theirs(to_torch(a)), 0)
        assert ours.padding == theirs.padding
        assert repr(ours).split("(", 1)[1] == repr(theirs).split("(", 1)[1]


# ---- interpolation ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"])
def test_interpolation(mode, dtype):
    """Sizes and factors at random, with all options; 'nearest' takes the very elements that torch takes."""
    rng = np.random.default_rng(0)
    corners = mode in ("linear", "bilinear", "bicubic", "trilinear")
    for _ in range(60):
        axes = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}.get(mode) or int(rng.integers(1, 4))
        size = rng.integers(1, 10, axes)
        options = {"mode": mode}
        if rng.random() < 0.5:
            options["size"] = tuple(rng.integers(1, 40 if axes == 1 else 15, axes).tolist())
        else:
            options["scale_factor"] = tuple(rng.choice([1.0, 1.5, 2.0, 2.7, 3.0], axes).tolist())
            options["recompute_scale_factor"] = bool(rng.random() < 0.4) or None
        if corners:
            options["align_corners"] = [None, False, True][rng.integers(3)]
        if (
            mode in ("bilinear", "bicubic")
            and rng.random() < 0.4
            and size[1] > 1
            and options.get("size", (0, 2))[1] > 1
        ):
            options["antialias"] = True  # torch's is wrong for a width of 1: the rows are not those of the input
        a = rng.standard_normal((2, 3, *size)).astype(dtype)
        x, z = nncore.tensor(a, requires_grad=True), to_torch(a, True)
        y, t = F.interpolate(x, **options), TF.interpolate(z, **options)
        close(y.detach().numpy(), t, 0 if mode.startswith("nearest") else 1000)  # torch's positions are float32
        dy = rng.standard_normal(y.shape).astype(dtype)
        y.backward(dy)
        t.backward(to_torch(dy))
        close(x.grad.numpy(), z.grad, 1000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_elements(dtype):
    """Where n / m is hard to round, torch's choice."""
    for n, m in [(n, m) for n in (2, 7, 25, 33) for m in range(1, 140, 3)]:
        a = np.broadcast_to(np.arange(n, dtype=dtype), (1, 4, 2, n)).copy()
        z = to_torch(a).contiguous(memory_format=torch.channels_last)
        for mode in ("nearest", "nearest-exact"):
            close(F.interpolate(a, (2, m), mode=mode).numpy(), TF.interpolate(z, (2, m), mode=mode), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["linear", "bilinear", "trilinear", "bicubic"])
def test_factors_that_leave_the_size(mode, dtype, rng):
    a = rng.standard_normal((2, 3, *(2, 4, 3)[: {"linear": 1, "trilinear": 3}.get(mode, 2)])).astype(dtype)
    for corners in (False, True):
        for antialias in (False, True) if mode[:2] == "bi" else (False,):
            options = {"scale_factor": 1.2, "mode": mode, "align_corners": corners, "antialias": antialias}
            close(F.interpolate(a, **options).numpy(), TF.interpolate(to_torch(a), **options), 1000)


@pytest.mark.parametrize("name", ["Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"])
def test_upsampling_layers(name):
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    for options in ({"size": 5}, {"scale_factor": 2}, {"scale_factor": (1.5, 2.0)}):
        ours, theirs = (getattr(m, name)(**options) for m in (nn, torch.nn))
        close(ours(a).numpy(), theirs(to_torch(a)), 1000)


# ---- pooling ----

# (function without axes, sizes of three axes, arguments)
POOLINGS = [
    ("max", (7, 6, 5), {"kernel_size": 2}),
    ("max", (7, 6, 5), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("max", (7, 6, 5), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("max", (7, 6, 8), {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True}),
    ("avg", (7, 6, 5), {"kernel_size": 2}),
    ("avg", (7, 6, 5), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("avg", (7, 6, 5), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg", (7, 6, 5), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True}),
    ("avg", (7, 6, 5), {"kernel_size": 3, "stride": 1, "padding": 1, "divisor_override": 5}),
    ("adaptive_avg", (7, 6, 5), {"output_size": 3}),
    ("adaptive_avg", (2, 3, 4), {"output_size": 5}),
    ("adaptive_max", (7, 6, 5), {"output_size": 3}),
    ("adaptive_max", (7, 6, 5), {"output_size": 1}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind, size, options", POOLINGS, ids=[f"{k} {o}" for k, _, o in POOLINGS])
def test_pooling(kind, size, options, axes, dtype):
    """Results, indices and gradients, of distinct numbers and of ties, NaN and infinities; batched and not."""
    if "divisor_override" in options and axes == 1:
        options = {k: v for k, v in options.items() if k != "divisor_override"}
    name, size = f"{kind}_pool{axes}d", size[:axes]
    if "max" in kind:
        options = {**options, "return_indices": True}
    rng = np.random.default_rng(0)
    ties = rng.integers(-1, 2, (2, 3, *size)).astype(dtype)
    odd = ties.copy()
    for v in (np.nan, -np.inf):
        odd[rng.random(odd.shape) < 0.1] = v
    odd[0, 0] = -np.inf
    plain = rng.standard_normal((2, 3, *size)).astype(dtype)
    for x in [plain, plain[0], ties] + [odd] * ("max" in kind):
        a, b = nncore.tensor(x, requires_grad=True), to_torch(x, True)
        y, z = getattr(F, name)(a, **options), getattr(TF, name)(b, **options)
        if "max" in kind:
            (y, where), (z, at) = y, z
            np.testing.assert_array_equal(where.numpy(), at.numpy())
            assert where.dtype == np.int64
            np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
        else:
            close(y.detach().numpy(), z, 64)
        dy = rng.standard_normal(y.shape).astype(dtype)
        y.backward(dy)
        z.backward(to_torch(dy))
        close(a.grad.numpy(), b.grad, 64)


# ---- normalization ----

# (layer, arguments, options, input)
NORMALIZATIONS = [
    ("BatchNorm1d", (6,), {}, (5, 6)),
    ("BatchNorm1d", (6,), {"momentum": None, "eps": 1e-3}, (5, 6, 4)),
    ("BatchNorm2d", (6,), {"momentum": 0.3}, (3, 6, 5, 4)),
    ("BatchNorm2d", (6,), {"affine": False, "track_running_stats": False}, (3, 6, 5, 4)),
    ("BatchNorm2d", (3,), {}, (3, 3, 50, 40)),
    ("BatchNorm3d", (6,), {"bias": False}, (2, 6, 3, 2, 4)),
    ("InstanceNorm1d", (6,), {"affine": True}, (3, 6, 5)),
    ("InstanceNorm1d", (6,), {}, (6, 5)),
    ("InstanceNorm2d", (6,), {"track_running_stats": True, "affine": True}, (3, 6, 5, 4)),
    ("InstanceNorm3d", (6,), {"track_running_stats": True}, (2, 6, 3, 2, 4)),
    ("GroupNorm", (3, 6), {}, (4, 6)),
    ("GroupNorm", (2, 6), {"eps": 0.1}, (4, 6, 5, 3)),
    ("GroupNorm", (6, 6), {"affine": False}, (4, 6, 5)),
    ("LayerNorm", (7,), {}, (4, 5, 7)),
    ("LayerNorm", ((5, 7),), {"bias": False}, (4, 5, 7)),
    ("LayerNorm", ([4, 5, 7],), {"elementwise_affine": False}, (4, 5, 7)),
    ("RMSNorm", (7,), {}, (4, 5, 7)),
    ("RMSNorm", ((5, 7),), {"eps": 1e-2}, (4, 5, 7)),
    ("LocalResponseNorm", (5,), {}, (2, 7, 4)),
    ("LocalResponseNorm", (4, 0.5, 1.25, 0.8), {}, (2, 7, 4, 3)),
    ("LocalResponseNorm", (3, 2.0), {}, (2, 7, 2, 3, 2)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, args, options, shape", NORMALIZATIONS)
def test_normalization(name, args, options, shape, dtype):
    """Two training steps and an evaluation: outputs, gradients, statistics, state."""
    rng = np.random.default_rng(0)
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    if dtype == np.float64:
        ours.double(), theirs.double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.from_numpy(rng.standard_normal(p.shape)))
    share(ours, theirs)
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        x = (rng.standard_normal(shape) + 0.5).astype(dtype)
        a, b = nncore.tensor(x, requires_grad=True), to_torch(x, True)
        y, z = ours(a), theirs(b)
        close(y.detach().numpy(), z, 200)
        dy = rng.standard_normal(shape).astype(dtype)
        y.backward(dy)
        z.backward(to_torch(dy))
        close(a.grad.numpy(), b.grad, 1000)
        for (n, p), (m, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert n == m
            close(p.grad.numpy(), q.grad, 1000)
    state = theirs.state_dict()
    assert list(state) == list(ours.state_dict())
    for n, v in ours.state_dict().items():
        if v.dtype.kind == "f":
            close(v, state[n], 64)
        else:
            assert v.dtype == state[n].numpy().dtype
            assert v == state[n].item()


def test_folding():
    """fuse_conv_bn_eval and fuse_linear_bn_eval give torch's weights."""
    for kind, args, shape in (("Conv2d", (3, 4, 3), 4), ("ConvTranspose2d", (3, 4, 3), 4), ("Linear", (3, 4), 4)):
        torch.manual_seed(0)
        layer, bn = getattr(torch.nn, kind)(*args).eval(), (torch.nn.BatchNorm1d(shape)).eval()
        with torch.no_grad():
            for t in (*bn.parameters(), bn.running_mean, bn.running_var):
                t.uniform_(0.5, 1.5)
        mine, my_bn = getattr(nn, kind)(*args).eval(), nn.BatchNorm1d(shape).eval()
        share(mine, layer), share(my_bn, bn)
        more = (True,) if "Transpose" in kind else ()
        fuse = "fuse_linear_bn_eval" if kind == "Linear" else "fuse_conv_bn_eval"
        got = getattr(nn.utils, fuse)(mine, my_bn, *more)
        want = getattr(torch.nn.utils.fusion, fuse)(layer, bn, *more)
        for p, q in zip(got.parameters(), want.parameters(), strict=True):
            close(p.numpy(), q, 8)


# ---- nets ----


RECURRENT = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"batch_first": True}),
    ("GRU", {"num_layers": 2, "batch_first": True}),
    ("GRU", {"bidirectional": True, "bias": False}),
]


def flat(out):
    """The tensors of a recurrent layer's result."""
    for t in out:
        if isinstance(t, nn.utils.rnn.PackedSequence | torch.nn.utils.rnn.PackedSequence):
            yield t.data
        elif isinstance(t, tuple):
            yield from t
        else:
            yield t


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, options", RECURRENT, ids=[f"{n} {o}" for n, o in RECURRENT])
def test_recurrent(name, options, dtype):
    """Outputs, last states and gradients of padded and packed input, with torch's parameters."""
    rng = np.random.default_rng(0)
    theirs = getattr(torch.nn, name)(5, 9, **options).to(torch.float64 if dtype == np.float64 else torch.float32)
    ours = getattr(nn, name)(5, 9, **options, dtype=dtype)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({n: p.detach().numpy() for n, p in theirs.state_dict().items()})
    first = options.get("batch_first", False)
    x = rng.standard_normal((3, 4, 5) if first else (4, 3, 5)).astype(dtype)
    s = rng.standard_normal((options.get("num_layers", 1) * (1 + options.get("bidirectional", False)), 3, 9)).astype(
        dtype
    )
    for lengths in (None, [2, 4, 3]):
        a, h, b, g = (
            nncore.tensor(x, requires_grad=True),
            nncore.tensor(s, requires_grad=True),
            to_torch(x, True),
            to_torch(s, True),
        )
        p, q = a, b
        if lengths:
            p = nn.utils.rnn.pack_padded_sequence(a, lengths, first, False)
            q = torch.nn.utils.rnn.pack_padded_sequence(b, torch.tensor(lengths), first, False)
            for i, j in zip(p[1:], q[1:]):
                assert i.tolist() == j.tolist()
        got, want = (
            list(flat(net(v, (w, w) if name == "LSTM" else w))) for net, v, w in ((ours, p, h), (theirs, q, g))
        )
        assert len(got) == len(want)
        ours.zero_grad(), theirs.zero_grad()
        root = other = 0
        for y, z in zip(got, want):
            close(y.detach().numpy(), z, 256)
            dy = rng.standard_normal(y.shape).astype(dtype)
            root, other = (y * nncore.tensor(dy)).sum() + root, (z * to_torch(dy)).sum() + other
        root.backward()
        other.backward()
        close(a.grad.numpy(), b.grad, 1024)
        close(h.grad.numpy(), g.grad, 1024)
        for u, v in zip(ours.parameters(), theirs.parameters()):
            close(u.grad.numpy(), v.grad, 1024)
        if lengths:
            p, q = (
                u.pad_packed_sequence(v[0], first, 2.5, 6)
                for u, v in ((nn.utils.rnn, ours(p)), (torch.nn.utils.rnn, theirs(q)))
            )
            close(p[0].detach().numpy(), q[0], 256)
            assert p[1].tolist() == q[1].tolist()


def nets():
    ours = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 30, bias=False), nn.Tanh(), nn.Linear(30, 3)
    )
    t = torch.nn
    theirs = t.Sequential(
        t.Flatten(), t.Linear(12, 40), t.ReLU(), t.Linear(40, 30, bias=False), t.Tanh(), t.Linear(30, 3)
    )
    return ours, theirs


def share(ours, theirs):
    """torch's weights, through the state_dict: same names, same layouts."""
    state = {n: v.numpy() for n, v in theirs.state_dict().items()}
    assert list(state) == list(ours.state_dict())
    assert ours.load_state_dict(state) == ([], [])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nets(dtype):
    torch.manual_seed(0)
    ours, theirs = nets()
    if dtype == np.float64:
        ours.double(), theirs.double()
    share(ours, theirs)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((20, 3, 4)).astype(dtype), rng.integers(0, 3, 20)
    a, b = nncore.tensor(x, requires_grad=True), to_torch(x, True)
    y, z = ours(a), theirs(b)
    close(y.detach().numpy(), z, 200)
    F.cross_entropy(y, t).backward()
    TF.cross_entropy(z, to_torch(t)).backward()
    close(a.grad.numpy(), b.grad, 200)
    for (n, p), (m, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert n == m
        close(p.grad.numpy(), q.grad, 200)
    theirs.load_state_dict({n: torch.from_numpy(v) for n, v in ours.state_dict().items()})  # and back


OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-4, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.2}),
    ("Adam", {"amsgrad": True}),
    ("Adamax", {}),
    ("NAdam", {"weight_decay": 0.01}),
    ("RAdam", {}),
    ("Adagrad", {"initial_accumulator_value": 0.1}),
    ("RMSprop", {"momentum": 0.5}),
    ("Adadelta", {}),
    ("ASGD", {"t0": 10}),
]


@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=[f"{n} {o}" for n, o in OPTIMIZERS])
def test_trajectories(name, options, double):
    """30 steps in float64. One step multiplies a difference by at most 1 + lr |curvature| (about 1.2 here)."""
    torch.manual_seed(0)
    ours, theirs = nets()
    ours.double(), theirs.double()
    share(ours, theirs)
    opt, tpt = (
        getattr(optim, name)(ours.parameters(), **options),
        getattr(torch.optim, name)(theirs.parameters(), **options),
    )
    rng = np.random.default_rng(0)
    start = ours.state_dict()
    for _ in range(30):
        x, t = rng.standard_normal((16, 12)), rng.integers(0, 3, 16)
        opt.zero_grad(), tpt.zero_grad()
        loss, other = F.cross_entropy(ours(x), t), TF.cross_entropy(theirs(to_torch(x)), to_torch(t))
        loss.backward(), other.backward()
        opt.step(), tpt.step()
        assert loss.item() == pytest.approx(other.item(), rel=1e-9)
    for n, v in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[n], v.numpy(), rtol=0, atol=64 * 2.0**-53 * 1.2**30 * 10)
        assert not np.allclose(start[n], v.numpy(), atol=1e-6)


UPDATES = [(name, options) for name, options in test_optim.VARIANTS if hasattr(torch.optim, name)]


@pytest.fixture
def double():
    """torch keeps the counters of ASGD and NAdam in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name, options", UPDATES, ids=[f"{n} {o}" for n, o in UPDATES])
def test_updates(name, options, double):
    """20 steps with given gradients that change, one of them 0; names, shapes and numbers of the state are torch's."""
    rng = np.random.default_rng(0)
    a, grads = rng.standard_normal((4, 3)), rng.standard_normal((20, 4, 3)) * 3.0 ** rng.standard_normal((20, 1, 1))
    grads[7] = 0
    q, p = torch.nn.Parameter(to_torch(a)), nn.Parameter(a)
    tpt, opt = getattr(torch.optim, name)([q], **options), getattr(optim, name)([p], **options)
    for g in grads:
        q.grad, p.grad = to_torch(g), nncore.tensor(g)
        tpt.step(), opt.step()
        close(p.numpy(), q, 64)
    mine, torchs = (dict(o.state_dict()["state"].get(0, {})) for o in (opt, tpt))
    torchs = {k: v for k, v in torchs.items() if v is not None}
    assert mine.keys() - {"step"} == torchs.keys() - {"step"}
    for k in torchs:
        close(np.asarray(mine[k], float), torchs[k].double(), 64)


@pytest.mark.parametrize("name, options", UPDATES, ids=[f"{n} {o}" for n, o in UPDATES])
def test_optimizer_state_crosses_over(name, options, double):
    """torch's optimizer state, as arrays, continues here."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 3))
    grads = rng.standard_normal((6, 4, 3))
    q = torch.nn.Parameter(to_torch(a))
    tpt = getattr(torch.optim, name)([q], **options)
    for g in grads[:3]:
        q.grad = to_torch(g)
        tpt.step()
    saved = tpt.state_dict()
    state = {
        i: {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in s.items()} for i, s in saved["state"].items()
    }
    p = nn.Parameter(q.detach().numpy())
    opt = getattr(optim, name)([p])
    opt.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    for g in grads[3:]:
        q.grad, p.grad = to_torch(g), nncore.tensor(g)
        tpt.step(), opt.step()
    close(p.numpy(), q, 64)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("options", [{}, {"lr": 0.3, "max_iter": 7, "history_size": 3}, {"max_eval": 9}], ids=str)
def test_lbfgs(search, options):
    """As many evaluations of the closure as torch, the same losses, and torch's state; with no line search the steps
    are kept short, as they grow beyond all bounds."""
    options = {"lr": 0.01, **options} if search is None else options
    start = np.linspace(-0.5, 1.5, 8)
    w, v = nn.Parameter(start), torch.nn.Parameter(to_torch(start))
    opt, tpt = (o.LBFGS([p], line_search_fn=search, **options) for o, p in ((optim, w), (torch.optim, v)))
    losses = []
    for o, p in ((opt, w), (tpt, v)):

        def closure(o=o, p=p):
            o.zero_grad()
            loss = test_optim.rosenbrock(p)
            loss.backward()
            return loss

        losses.append([o.step(closure).item() for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)  # a step is a quotient of differences
    np.testing.assert_allclose(w.numpy(), v.detach().numpy(), rtol=1e-5)
    mine, torchs = (o.state_dict()["state"][0] for o in (opt, tpt))
    assert mine.keys() == torchs.keys() - {"al"}
    assert [mine[n] for n in ("func_evals", "n_iter")] == [torchs[n] for n in ("func_evals", "n_iter")]
    arrays = {
        n: x.numpy() if isinstance(x, torch.Tensor) else [np.asarray(y) for y in x] if isinstance(x, list) else x
        for n, x in torchs.items()
        if n != "al"
    }
    opt.load_state_dict({"state": {0: arrays}, "param_groups": tpt.state_dict()["param_groups"]})
    np.testing.assert_allclose(opt.state[w]["d"].numpy(), torchs["d"].numpy(), rtol=1e-15)


# ---- shapes, distances, hooks ----

SHAPED = {
    "pixel_shuffle": ((2, 8, 3, 2), lambda f, x: f.pixel_shuffle(x, 2)),
    "pixel_unshuffle": ((3, 2, 4, 6), lambda f, x: f.pixel_unshuffle(x, 2)),
    "unflatten": ((2, 12), lambda f, x: x.unflatten(1, (3, -1))),
    "cosine_similarity": ((2, 3, 5), lambda f, x: f.cosine_similarity(x[0], x[1], 1)),
    "cosine_similarity broadcast": ((4, 3, 5), lambda f, x: f.cosine_similarity(x[:1], x, -1)),
    "pairwise_distance": ((2, 3, 5), lambda f, x: f.pairwise_distance(x[0], x[1])),
    "pairwise_distance p": ((2, 3, 5), lambda f, x: f.pairwise_distance(x[0], x[1], 1.5, 1e-3, True)),
    "pairwise_distance inf": ((2, 3, 5), lambda f, x: f.pairwise_distance(x[0], x[1], float("inf"))),
    "bilinear": ((4, 5), lambda f, x: f.bilinear(x[:, :3], x[:, 3:], x.reshape(-1)[:12].reshape(2, 3, 2), x[0, :2])),
}


@pytest.mark.parametrize("name", SHAPED)
def test_shaped(name, dtype):
    shape, run = SHAPED[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    a, b = nncore.tensor(x, requires_grad=True), to_torch(x, True)
    y, z = run(F, a), run(TF, b)
    close(y.detach().numpy(), z, 64)
    g = np.random.default_rng(1).standard_normal(z.shape).astype(dtype)
    y.backward(g), z.backward(to_torch(g))
    close(a.grad.numpy(), b.grad, 64)


def test_hooks():
    """The same calls, in the same order, with the same gradients."""
    logs = []
    ours, theirs = nets()
    ours.double(), theirs.double()
    share(ours, theirs)
    x = np.random.default_rng(0).standard_normal((4, 12))
    for net, tensor in ((ours, lambda a: nncore.tensor(a, requires_grad=True)), (theirs, lambda a: to_torch(a, True))):
        log, a = [], tensor(x)
        logs.append(log)
        for i, m in enumerate(net):
            m.register_forward_pre_hook(lambda m, args, i=i: log.append(("pre", i, args[0].detach().numpy().copy())))
            m.register_forward_hook(lambda m, args, out, i=i: out * 1.5 if i == 0 else None)
            m.register_full_backward_hook(
                lambda m, into, out, i=i: log.append(("back", i, into[0].numpy().copy(), out[0].numpy().copy()))
            )
            m.register_full_backward_hook(lambda m, into, out: (into[0] * 1.25,))
        a.register_hook(lambda g: log.append(("leaf", g.numpy().copy())))
        a.register_hook(lambda g: g * 2)
        b = a * a + a
        b.register_hook(lambda g: log.append(("middle", g.numpy().copy())))
        net(b).sum().backward()
        log.append(("grad", a.grad.numpy()))
        log += [("parameter", p.grad.numpy()) for p in net.parameters()]
    assert [(e[0], *[v for v in e[1:] if isinstance(v, int)]) for e in logs[0]] == [
        (e[0], *[v for v in e[1:] if isinstance(v, int)]) for e in logs[1]
    ]
    for e, f in zip(*logs):
        for v, w in zip(e[1:], f[1:]):
            close(np.asarray(v, float), np.asarray(w, float), 200)


NORMALIZED = {
    "weight_norm": lambda m: m.utils.weight_norm(m.Linear(5, 3)),
    "weight_norm whole": lambda m: m.utils.weight_norm(m.Linear(5, 3), dim=None),
    "weight_norm of inputs": lambda m: m.utils.weight_norm(m.Conv2d(5, 3, 2), dim=1),
    "weight_norm of a recurrent layer": lambda m: m.utils.weight_norm(m.GRU(5, 3), "weight_hh_l0"),
    "spectral_norm": lambda m: m.utils.spectral_norm(m.Linear(5, 3)),
    "spectral_norm of a convolution": lambda m: m.utils.spectral_norm(m.ConvTranspose2d(5, 3, 2), n_power_iterations=3),
}


@pytest.mark.parametrize("name", NORMALIZED)
@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_normalized_weights(name):
    """Names, and three steps of training, from torch's state on."""
    ours, theirs = (NORMALIZED[name](m).double() for m in (nn, torch.nn))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    share(ours, theirs)
    a = np.random.default_rng(0).standard_normal((4, 5, 3, 3) if "Conv" in str(ours) else (4, 2, 5))
    opts = [m.SGD(net.parameters(), lr=0.05) for m, net in ((optim, ours), (torch.optim, theirs))]
    for _ in range(3):
        for net, opt, x in ((ours, opts[0], nncore.tensor(a)), (theirs, opts[1], to_torch(a))):
            y = net(x)
            opt.zero_grad()
            (y[0] if isinstance(y, tuple) else y).square().sum().backward()
            opt.step()
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value, 1000)


# ---- schedules ----


def schedulers(name, kind="SGD"):
    """(optimizer, schedule), ours and torch's."""
    options = {"momentum": 0.9} if kind == "SGD" else {}
    for module, parameter in (
        (optim, lambda: nn.Parameter([1.0])),
        (torch.optim, lambda: torch.nn.Parameter(torch.ones(1))),
    ):
        o = test_lr_scheduler.optimizer(getattr(module, kind), module, parameter, **options)
        yield o, test_lr_scheduler.SCHEDULES[name][0](module.lr_scheduler, o)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", test_lr_scheduler.SCHEDULES)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_schedules(name, kind):
    """The same rates and momenta over 60 epochs, to a rounding or two; torch's saved state goes on here from epoch
    20."""
    (o, s), (p, t) = schedulers(name, kind)
    (q, u), _ = schedulers(name, kind)
    for epoch in range(test_lr_scheduler.EPOCHS):
        for a, b in ((o, s), (p, t)):
            a.step(), b.step()
        if epoch == 20:
            u.load_state_dict(t.state_dict())
            q.load_state_dict({"state": {}, "param_groups": p.state_dict()["param_groups"]})
        elif epoch > 20:
            q.step(), u.step()
            assert u.get_last_lr() == pytest.approx(t.get_last_lr(), rel=1e-14, abs=1e-300)
        assert s.get_last_lr() == pytest.approx(t.get_last_lr(), rel=1e-14, abs=1e-300)
        for a, b in zip(o.param_groups, p.param_groups):
            assert a["lr"] == pytest.approx(b["lr"], rel=1e-14, abs=1e-300)
            for k in ("momentum", "betas"):
                assert k not in b or a[k] == pytest.approx(b[k], rel=1e-14)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold", [1e-4, 0.3])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "options", [{}, {"cooldown": 2, "factor": 0.5, "min_lr": [0.01, 0.001]}, {"eps": 0.1}], ids=str
)
def test_plateau(mode, threshold, threshold_mode, options):
    (o, _), (p, _) = schedulers("StepLR")
    options = {"patience": 2, "threshold": threshold, "threshold_mode": threshold_mode, **options}
    s, t = (m.lr_scheduler.ReduceLROnPlateau(x, mode, **options) for m, x in ((optim, o), (torch.optim, p)))
    u = optim.lr_scheduler.ReduceLROnPlateau(o, mode)
    for value in test_lr_scheduler.PLATEAU:
        s.step(value), t.step(value)
        assert s.get_last_lr() == pytest.approx(t.get_last_lr(), rel=1e-14)
    u.load_state_dict(t.state_dict())
    assert u.state_dict() == s.state_dict()


# ---- names and defaults ----

# (ours, parameter): why it differs from torch's
DIFFERENT = {
    ("Softmin", "dim"): "as Softmax",
    ("softmin", "dim"): "as Softmax",
    ("Softmax", "dim"): "torch warns and guesses for None; the last axis is what everybody means",
    ("LogSoftmax", "dim"): "as Softmax",
    ("softmax", "dim"): "as Softmax",
    ("log_softmax", "dim"): "as Softmax",
    **{
        (name, "dtype"): "there is no global default dtype: float32"
        for name in (
            "Linear",
            "Bilinear",
            *(k + c for k in ("RNN", "LSTM", "GRU") for c in ("", "Cell")),
            "RNNBase",
            "GroupNorm",
            "LayerNorm",
            "RMSNorm",
            *(f"{kind}Norm{n}d" for kind in ("Batch", "Instance") for n in (1, 2, 3)),
            "PReLU",
            "Embedding",
            "EmbeddingBag",
            *(f"Conv{kind}{n}d" for kind in ("", "Transpose") for n in (1, 2, 3)),
        )
    },
}


def _conv(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    pass


def _conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    pass


def _avg_pool(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """torch's parameters, as documented."""


# functions that torch implements in C, without a signature to read
IN_C = {
    "flatten": lambda input, start_dim=0, end_dim=-1: None,  # torch.flatten
    "linear": lambda input, weight, bias=None: None,
    "prelu": lambda input, weight: None,
    "gelu": lambda input, approximate="none": None,
    "softplus": lambda input, beta=1.0, threshold=20.0: None,
    "softshrink": lambda input, lambd=0.5: None,
    "hardshrink": lambda input, lambd=0.5: None,
    "logsigmoid": lambda input: None,
    "one_hot": lambda input, num_classes=-1: None,
    "bilinear": lambda input1, input2, weight, bias=None: None,
    "cosine_similarity": lambda x1, x2, dim=1, eps=1e-8: None,
    "pairwise_distance": lambda x1, x2, p=2.0, eps=1e-6, keepdim=False: None,
    "pixel_shuffle": lambda input, upscale_factor: None,
    "pixel_unshuffle": lambda input, downscale_factor: None,
    "avg_pool1d": lambda input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True: None,
    "avg_pool2d": _avg_pool,
    "avg_pool3d": _avg_pool,
    "adaptive_avg_pool1d": lambda input, output_size: None,
    # these dispatch on return_indices, and hide their parameters
    **{
        n: getattr(TF, f"{n}_with_indices")
        for n in [f"{kind}_pool{axes}d" for kind in ("max", "adaptive_max") for axes in (1, 2, 3)]
    },
    **{f"conv{n}d": _conv for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _conv_transpose for n in (1, 2, 3)},
}


def _recurrent(
    input_size,
    hidden_size,
    num_layers=1,
    bias=True,
    batch_first=False,
    dropout=0.0,
    bidirectional=False,
    proj_size=0,
    device=None,
    dtype=None,
):
    """torch's LSTM and GRU as documented: they pass *args on."""


def _elman(
    input_size,
    hidden_size,
    num_layers=1,
    nonlinearity="tanh",
    bias=True,
    batch_first=False,
    dropout=0.0,
    bidirectional=False,
    device=None,
    dtype=None,
):
    """torch's RNN as documented."""


def parameters(obj):
    target = obj.__init__ if isinstance(obj, type) and obj.__init__ is not object.__init__ else obj
    found = inspect.signature(target).parameters.values()
    return {p.name: p for p in found if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


# what torch.nn does not have: the textbooks' (torch.heaviside is a function of two tensors)
OURS = {"DBN", "Heaviside", "Maxout", "Perceptron", "RBM", "RMSELoss", "heaviside", "maxout", "rmse_loss"}
OURS |= {"GaussianNoise", "gaussian_noise", "l1_penalty", "max_norm_"}
PAIRS = [
    *(
        (
            f"nn.{n}",
            getattr(nn, n),
            {"RNN": _elman, "LSTM": _recurrent, "GRU": _recurrent}.get(n) or getattr(torch.nn, n),
        )
        for n in nn.__all__
        if n not in ("functional", "init", "utils") and n not in OURS
    ),
    *(
        (f"utils.rnn.{n}", getattr(nn.utils.rnn, n), getattr(torch.nn.utils.rnn, n))
        for n in nn.utils.rnn.__all__
        if n != "PackedSequence"
    ),
    *((f"F.{n}", getattr(F, n), IN_C.get(n) or getattr(TF, n)) for n in F.__all__ if n not in OURS),
    *(
        (f"optim.{n}", getattr(optim, n), getattr(torch.optim, n))
        for n in optim.__all__
        if hasattr(torch.optim, n) and n[0].isupper()
    ),
    *(
        (f"lr_scheduler.{n}", getattr(optim.lr_scheduler, n), getattr(torch.optim.lr_scheduler, n))
        for n in optim.lr_scheduler.__all__
    ),
    *(
        (f"utils.{n}", getattr(nn.utils, n), getattr(torch.nn.utils, n))
        for n in nn.utils.__all__
        if n not in OURS | {"rnn"}
    ),
    *(
        (f"init.{n}", getattr(init, n), getattr(torch.nn.init, n))
        for n, v in vars(init).items()
        if inspect.isfunction(v) and not n.startswith("_") and v.__module__ == init.__name__ and n != "default_"
    ),
]


@pytest.mark.parametrize("name, ours, theirs", PAIRS, ids=[p[0] for p in PAIRS])
def test_signatures(name, ours, theirs):
    """Our parameters are torch's, in torch's order and with torch's defaults, though not all of torch's are here."""
    mine, torchs = parameters(ours), parameters(theirs)
    short = name.split(".")[1]
    assert [p for p in mine if p not in torchs] == [], "names that torch does not have"
    assert list(mine) == [p for p in torchs if p in mine], "another order"
    for n, p in mine.items():
        if p.default != torchs[n].default and not (p.default is p.empty and torchs[n].default is None):
            assert DIFFERENT.get((short, n)), f"{n}: default {p.default!r}, torch's {torchs[n].default!r}"


def test_the_coverage_page_names_what_torch_has():
    for name, _ in coverage_page.everything():
        target, (library, *parts) = torch, coverage_page.torch_name(name).split(".")
        for part in parts if library == "torch" else ():  # torchvision's names are not looked up
            assert hasattr(target, part), name
            target = getattr(target, part)


METHODS = [n for n in dir(nncore.Tensor) if not n.startswith("_")]


def test_tensor_methods_are_torchs():
    """What Tensor has, torch.Tensor has under the same name."""
    ours_only = {n for n in METHODS if not hasattr(torch.Tensor, n) and not hasattr(torch.ones(1), n)}
    assert ours_only <= {"strides", "channels_last"}  # NumPy's; torch has it as a memory format


def test_module_methods_are_torchs():
    assert {n for n in dir(nn.Module) if not n.startswith("_") and not hasattr(torch.nn.Module, n)} == set()
    assert {n for n in dir(optim.SGD) if not n.startswith("_") and not hasattr(torch.optim.SGD, n)} <= {"check_options"}


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "sigmoid", "selu", "leaky_relu"])
def test_gains(name):
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)


def test_indexing_like_torch():
    """Where torch and NumPy agree, so do we: arrays, masks, None and Ellipsis."""
    a = np.arange(24.0).reshape(2, 3, 4)
    ours, theirs = nncore.tensor(a), to_torch(a)
    for key in [
        (..., [0, 1]),
        (None, 1),
        ([1, 0, 1],),
        (slice(None), [0, 2], 1),
        (a > 5,),
        ([0, 1], slice(None), [1, 2]),
    ]:
        np.testing.assert_array_equal(
            ours[key].numpy(),
            theirs[tuple(torch.tensor(k) if isinstance(k, list | np.ndarray) else k for k in key)].numpy(),
        )
