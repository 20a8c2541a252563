"""Results against float64, within the bound of their rounding errors; of large results, at random places."""

import math

import numpy as np

from nncore._core import runtime
from tests import reference, tolerance

EPS = float(np.finfo(np.float32).eps)


# ---- products, convolutions ----


def product(a, b, rng):
    """A function that holds at most 64 rows of a b to float64."""
    rows = rng.permutation(len(a))[:64]

    def check(y):
        want, magnitude = reference.matmul(a[rows], b)
        tolerance.close(y[rows], want, tolerance.gemm(a.shape[1], magnitude, np.float32))

    return check


def conv_points(l, x, w, dy, direction, at):
    """The result of a convolution at the places `at`, in float64, with the number of terms: forward and backward-data a
    row of all channels at a point (n, h, w); backward-weights a row of all inputs at (k, r, s)."""
    p, q = l.out
    C, K = l.c // l.groups, l.k // l.groups
    if direction == "forward":
        pad = np.pad(x, ((0, 0), (0, 0), (l.padding,) * 2, (l.padding,) * 2))
        for n, i, j in at:
            patch = pad[n, :, i * l.stride : i * l.stride + l.r, j * l.stride : j * l.stride + l.s]
            patch = np.repeat(patch.reshape(l.groups, C, l.r, l.s), K, 0)
            yield np.einsum("kcrs,kcrs->k", patch, w), C * l.r * l.s
    elif direction == "backward-data":
        for n, i, j in at:
            total = np.zeros(l.c)
            for r in range(l.r):
                for s in range(l.s):
                    (a, u), (b, v) = divmod(i + l.padding - r, l.stride), divmod(j + l.padding - s, l.stride)
                    if u == v == 0 and 0 <= a < p and 0 <= b < q:
                        g = dy[n, :, a, b].reshape(l.groups, K)
                        total += np.einsum("gk,gkc->gc", g, w[:, :, r, s].reshape(l.groups, K, C)).reshape(-1)
            yield total, K * l.r * l.s
    else:
        pad = np.pad(x, ((0, 0), (0, 0), (l.padding,) * 2, (l.padding,) * 2))
        for k, r, s in at:
            group = slice(k // K * C, k // K * C + C)
            seen = pad[:, group, r : r + p * l.stride : l.stride, s : s + q * l.stride : l.stride][:, :, :p, :q]
            yield np.einsum("ncpq,npq->c", seen, dy[:, k]), l.n * p * q


def winograd_points(l, x, w, dy, direction, at, m):
    """What the rounding errors of F(m x m, 3x3) are measured by at the same places: the algorithm (Lavin, Gray, 2016)
    run on absolute values with absolute transforms."""
    G, B, A = (np.abs(t) for t in WINOGRAD[m])
    p, q = l.out
    if direction == "backward-data":  # a convolution of dy with the kernel turned round
        w = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        x, dy = dy, x
        p, q = l.h, l.w
    pad = 2 - l.padding if direction == "backward-data" else l.padding
    th, tw = -(-p // m), -(-q // m)
    x = np.pad(x, ((0, 0), (0, 0), (pad, th * m + 2 - p), (pad, tw * m + 2 - q)))
    if direction != "backward-weights":
        u = np.einsum("ir,kcrs,js->kcij", G, w, G)
        for n, i, j in at:
            h, v = i // m * m, j // m * m
            tile = np.einsum("ai,cij,bj->cab", B, x[n, :, h : h + m + 2, v : v + m + 2], B)
            yield np.einsum("a,kab,b->k", A[i % m], np.einsum("kcab,cab->kab", u, tile), A[j % m])
        return
    dy = np.pad(dy, ((0, 0), (0, 0), (0, th * m - p), (0, tw * m - q)))
    tiles = np.zeros((x.shape[1], l.n, th, tw, m + 2, m + 2))
    for h in range(th):
        for v in range(tw):
            part = x[:, :, h * m : h * m + m + 2, v * m : v * m + m + 2]
            tiles[:, :, h, v] = np.einsum("ai,ncij,bj->cnab", B, part, B)
    for k, r, s in at:
        g = dy[:, k].reshape(l.n, th, m, tw, m)
        g = np.einsum("ia,nhivj,jb->nhvab", A, g, A)
        yield np.einsum("a,cab,b->c", G[:, r], np.einsum("cnhvab,nhvab->cab", tiles, g), G[:, s])


# G, B^T, A^T of F(2x2, 3x3) and F(4x4, 3x3)
WINOGRAD = {
    2: (
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    ),
    4: (
        np.array(
            [
                [1 / 4, 0, 0],
                [-1 / 6, -1 / 6, -1 / 6],
                [-1 / 6, 1 / 6, -1 / 6],
                [1 / 24, 1 / 12, 1 / 6],
                [1 / 24, -1 / 12, 1 / 6],
                [0, 0, 1],
            ]
        ),
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ]
        ),
        np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
    ),
}


def convolution(l, x, w, dy, direction, rng, winograd=0):
    """A function that holds 16 rows of a result to float64. winograd: m, if F(m x m, 3 x 3) may have computed it."""
    weights = direction == "backward-weights"
    sizes = {"forward": (l.n, *l.out), "backward-data": (l.n, l.h, l.w)}.get(direction, (l.k, l.r, l.s))
    at = [tuple(int(rng.integers(n)) for n in sizes) for _ in range(16)]

    def check(y):
        found = np.stack([y[n, :, i, j] for n, i, j in at])
        wide = [reference.wide(a) for a in (x, w, dy)]
        absolute = [np.abs(a) for a in wide]
        want, terms = zip(*conv_points(l, *wide, direction, at))
        if winograd:  # each transform has at most 6 terms and is done twice, for x, w and y
            magnitude = np.stack(list(winograd_points(l, *absolute, direction, at, winograd)))
            depth = terms[0] + 36
        else:
            magnitude = np.stack([m for m, _ in conv_points(l, *absolute, direction, at)])
            depth = terms[0] + (16 if weights else 0)  # partial sums
        tolerance.close(found, np.stack(want), tolerance.gemm(depth, magnitude, np.float32))

    return check


# ---- pooling, normalization ----


def pool_windows(shape, arguments):
    """(start, end) of the windows along each axis, without the padding, and the sizes of the result."""
    if "output_size" in arguments:
        m = arguments["output_size"]
        return [[(o * n // m, -(-(o + 1) * n // m)) for o in range(m)] for n in shape[2:]]
    kernel, padding = arguments["kernel_size"], arguments.get("padding", 0)
    stride = arguments.get("stride", kernel)
    axes = []
    for n in shape[2:]:
        starts = range(-padding, n + padding - kernel + 1, stride)
        axes.append([(max(0, s), min(n, s + kernel)) for s in starts])
    return axes


def pooling(maximum, arguments, direction):
    """A function that holds 64 channels of a pooling to float64."""

    def check(x, dy, y):
        axes = pool_windows(x.shape, arguments)
        rng = np.random.default_rng(1)
        pairs = [(int(rng.integers(x.shape[0])), int(rng.integers(x.shape[1]))) for _ in range(64)]
        n, c = np.array(pairs).T
        x, dy, y = reference.wide(x[n, c]), reference.wide(dy[n, c]), y[n, c]
        want, magnitude, terms = np.zeros(y.shape), np.zeros(y.shape), 0
        for i, (h0, h1) in enumerate(axes[0]):
            for j, (w0, w1) in enumerate(axes[1]):
                window = x[:, h0:h1, w0:w1].reshape(len(x), -1)
                size = arguments["kernel_size"] ** 2 if "kernel_size" in arguments else window.shape[1]
                terms = max(terms, size)
                if direction == "forward":
                    want[:, i, j] = window.max(1) if maximum else window.sum(1) / size
                    magnitude[:, i, j] = 0 if maximum else np.abs(window).sum(1) / size
                elif maximum:
                    at = window.argmax(1)
                    rows = np.arange(len(x)), h0 + at // (w1 - w0), w0 + at % (w1 - w0)
                    np.add.at(want, rows, dy[:, i, j])
                    np.add.at(magnitude, rows, np.abs(dy[:, i, j]))
                else:
                    want[:, h0:h1, w0:w1] += (dy[:, i, j] / size)[:, None, None]
                    magnitude[:, h0:h1, w0:w1] += (np.abs(dy[:, i, j]) / size)[:, None, None]
        tolerance.close(y, want, tolerance.pool_avg(terms, magnitude, np.float32))

    return check


def upsample_axes(shape, arguments):
    """(size, matrix) of each axis."""
    factor, mode = arguments.get("scale_factor"), arguments["mode"]
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    sizes = [(n, arguments["size"] if factor is None else int(n * factor)) for n in shape[2:]]
    return [(m, reference.resample_axis(n, m, mode, factor=factor)) for n, m in sizes]


def interpolation(arguments, direction):
    """A function that holds 2 images of up to 4 channels to float64."""

    def check(x, dy, y):
        matrices = [m if direction == "forward" else m.T for _, m in upsample_axes(x.shape, arguments)]
        given = (x if direction == "forward" else dy)[:2, :4]
        want, magnitude, terms = reference.resample(given, matrices)
        tolerance.close(y[:2, :4], want, (terms + 2) * np.finfo(np.float32).eps * magnitude)

    return check


def normalization(module, arguments, direction):
    """(x - mean) / sqrt(var + eps) and its gradient (RMSNorm: x / sqrt(mean of squares + eps)), weights 1 and biases 0.

    The bound: a mean of n is a sum in chains of at most 64 and trees over these, log2 n deep, relative to the mean of
    |x|; the rest are a dozen roundings of the terms."""

    def check(x, dy, y):
        if module == "GroupNorm":
            x, dy, y = (a.reshape(len(a), arguments[0], -1) for a in (x, dy, y))
        x, dy, y = (reference.wide(a) for a in (x, dy, y))
        axes = (-1,)
        if module.startswith(("Batch", "Instance")):
            axes = (0, *range(2, x.ndim)) if module.startswith("Batch") else tuple(range(2, x.ndim))
        mean = lambda v: v.mean(axes, keepdims=True)
        rms = module == "RMSNorm"
        centre = 0 if rms else mean(x)
        rstd = 1 / np.sqrt(mean((x - centre) ** 2) + (EPS if rms else 1e-5))
        xhat = (x - centre) * rstd
        spread = mean(np.abs(x)) * rstd  # the size of the mean's error, where xhat is of size 1
        if direction == "forward":
            want, size = xhat, np.abs(xhat) + spread
        else:
            want = rstd * (dy - (0 if rms else mean(dy)) - xhat * mean(dy * xhat))
            size = np.abs(xhat) + 1 + spread
            size = rstd * (np.abs(dy) + mean(np.abs(dy)) + size * mean(np.abs(dy) * size))
        roundings = 64 + np.log2(x.size / rstd.size) + 12
        tolerance.close(y, want, roundings * EPS * size)

    return check


# ---- recurrent layers ----


def recurrent(kind, net, x):
    """A function that holds the first 8 steps to float64: errors pass from step to step, at most as they are."""
    mode = "RNN_TANH" if kind == "RNN" else kind
    steps, batch, inputs = x[:8].shape

    def check(y):
        state = np.zeros((1, batch, net.hidden_size))
        weights = tuple(reference.wide(p.numpy()) for p in net.parameters())
        rows = reference.wide(x[:steps]).reshape(-1, inputs)
        want, _, _ = reference.recurrent(mode, rows, [batch] * steps, state, state, [weights])
        bound = steps * (inputs + net.hidden_size) * EPS
        tolerance.close(y[:steps].reshape(want.shape), want, np.full(want.shape, bound))

    return check


def recurrent_gradients(names, wide, found):
    """A function that holds all gradients to those of the float64 kernels, which the tests hold to central differences;
    relative to the largest of a tensor, as errors have passed through the steps."""

    def check(_):
        steps, batch, inputs = wide[0].shape
        for name, want, got in zip(names, wide, found()):
            bound = steps * (inputs + wide[2].shape[1] + batch) * EPS * np.abs(want).max()
            tolerance.close(got, want, np.full(want.shape, bound), name)

    return check


# ---- elementwise, rows, sums, optimizers: functions of (x, dy, result) ----


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _normal_cdf(x):
    return (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


# name: (function, derivative, ulps: what csrc/kernels/vmath.inc promises, or derived from it)
UNARY = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: x > 0, 0),
    "exp": (np.exp, np.exp, 1),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, 1.5),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x)), 2),
    "log": (np.log, lambda x: 1 / x, 1),
    "gelu": (
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
        5,
    ),
    "silu": (lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))), 3),
}


def unary(name, direction):
    """At most 2^16 elements. gelu and silu are x times a number up to 1, and their error is relative to |x|; a
    derivative is dy times at most three terms, none above 1 + |x|."""
    function, slope, ulp = UNARY[name]

    def check(x, dy, y):
        some = slice(None, None, max(1, x.size >> 16))
        x, dy, y = reference.wide(x[some]), reference.wide(dy[some]), y[some]
        if direction == "forward":
            want = function(x)
            bound = ulp * EPS * np.abs(x if name in ("gelu", "silu") else want) * (1 + 1 / 64)
        else:
            want = dy * slope(x)
            bound = (ulp + 3) * EPS * np.abs(dy) * (1 + np.abs(x))
        tolerance.close(y, want, bound)

    return check


def dropout(direction):
    """Every element is dropped or doubled; half of them, within 6 standard deviations."""

    def check(x, dy, y):
        x = x if direction == "forward" else dy
        assert ((y == 0) | (y == 2 * x)).all()
        assert abs((y != 0).mean() - 0.5) < 3 / np.sqrt(x.size) + 2**-16

    return check


def softmax(log, direction):
    """Backward starts from the result forward had rounded, whose error counts too."""
    lanes = runtime.gemm_tile(0)[1]

    def check(x, dy, y):
        exact = reference.softmax(x, log)
        off = (tolerance.log_softmax if log else tolerance.softmax)(x, exact, lanes)
        if direction == "forward":
            tolerance.close(y, exact, off)
            return
        size = np.abs(reference.wide(dy))
        if log:
            off = off * np.exp(exact) * size.sum(-1, keepdims=True)
        else:
            off = off * (size + (size * exact).sum(-1, keepdims=True)) + exact * (size * off).sum(-1, keepdims=True)
        bound = tolerance.softmax_backward(exact.astype(np.float32), dy, lanes, log)
        tolerance.close(y, reference.softmax_backward(exact, dy, log), bound + off)

    return check


def cross_entropy(target, direction):
    """The mean over rows; its gradient is e^((x - max) - log sum), minus 1 at the target, by dy / rows."""
    lanes = runtime.gemm_tile(0)[1]

    def check(x, dy, y):
        rows = np.arange(len(x))
        logs = reference.softmax(x, True)
        off = tolerance.log_softmax(x, logs, lanes)
        if direction == "forward":
            loss = reference.cross_entropy(x, target)
            tolerance.close(y, loss.mean(), off[rows, target].mean() + 4 * EPS * np.abs(loss).mean())
        else:
            each = np.full(len(x), float(dy) / len(x))
            bound = (off + 4 * EPS) * (np.exp(logs) + 1) * np.abs(each[:, None])
            tolerance.close(y, reference.cross_entropy_backward(x, target, each), bound)

    return check


def embedding(index, direction):
    """Rows of a table, to the bit; the gradient's sums have as many terms as an index occurs."""

    def check(x, dy, y):
        if direction == "forward":
            assert (y == x[index]).all()
            return
        want, magnitude = np.zeros(x.shape), np.zeros(x.shape)
        np.add.at(want, index, reference.wide(dy))
        np.add.at(magnitude, index, np.abs(reference.wide(dy)))
        tolerance.close(y, want, np.bincount(index).max() * EPS * magnitude)

    return check


def total(dim):
    """A sum: chains of at most 64, and trees over them."""

    def check(x, dy, y):
        x = reference.wide(x)
        n = x.size if dim is None else x.shape[dim]
        tolerance.close(y, x.sum(dim), (64 + np.log2(n) + 2) * EPS * np.abs(x).sum(dim))

    return check


def optimizer(kind, options, p, g):
    """A function that holds a parameter after the first step to float64."""

    def check(after):
        p0, g0 = tolerance.Tracked(p), tolerance.Tracked(g)
        want, _ = reference.OPTIMIZERS[kind](p0, g0, None, **options)
        tolerance.close(after, want.value, want.error)

    return check
