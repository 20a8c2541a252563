"""Direct convolutions: against the oracle wherever the kernels change path, and bit for bit against themselves."""

import numpy as np
import pytest
from nncore._core.elementwise import channels_last

import nncore
from nncore import nn
from nncore._core import conv as kernels
from nncore._core import dense, elementwise, runtime, tensor
from nncore.nn import functional as F

from . import reference, shapes, tolerance

from_array = tensor.from_array

ACTIVATIONS = {name: runtime.OPS[name] for name in ("relu", "tanh", "sigmoid")}


@pytest.fixture(autouse=True)
def direct():
    """These are tests of the direct algorithm (test_winograd.py has the other)."""
    nncore.set_conv_algorithm("direct")


# ---- the kernels themselves, for a shapes.Conv ----


def operands(rng, c, dtype):
    """x, w, bias, dy."""
    shape = (c.n, c.c * c.groups, *c.size), (c.k * c.groups, c.c, *c.kernel), c.k * c.groups
    return [rng.standard_normal(s).astype(dtype) for s in (*shape, (c.n, c.k * c.groups, *c.out))]


def geometry(c):
    return kernels.Geometry(c.kernel, c.stride, c.padding, c.dilation, c.groups)


def oracle(c):
    """The arguments that all oracles end with."""
    return c.stride, [(p, p) for p in c.padding], c.dilation, c.groups


def as_tensors(*arrays):
    return [t if t is None or isinstance(t, nncore.Tensor) else from_array(t) for t in arrays]


def forward(c, x, w, bias=None, act=-1):
    return kernels.forward(*as_tensors(x, w, bias), geometry(c), c.out, act)


def input_gradient(c, dy, w, bias=None):
    dy, w, bias = as_tensors(dy, w, bias)
    return kernels.input_gradient(dy, w, geometry(c), (dy.shape[0], c.c * c.groups, *c.size), bias)


def weight_gradient(c, x, dy):
    return kernels.weight_gradient(*as_tensors(x, dy), geometry(c), (c.k * c.groups, c.c, *c.kernel))


def guarded(shape, dtype, fn, *args):
    """fn(*args) of this shape, held to write nothing beyond its result."""
    shapes.prime(shape, np.dtype(dtype))
    y = fn(*args)
    shapes.check_slack(y, fn.__name__)
    return y


@pytest.mark.parametrize("family", shapes.CONVS)
def test_every_edge(family, isa, dtype, rng):
    """Forward with a bias, and both gradients, around everything that the kernels cut their work by."""
    for c in shapes.CONVS[family](dtype):
        x, w, bias, dy = operands(rng, c, dtype)
        taps = int(np.prod(c.kernel))
        column = (-1, *[1] * len(c.size))
        y, magnitude = reference.conv(x, w, *oracle(c))
        got = guarded(dy.shape, dtype, forward, c, x, w, bias)
        assert got.channels_last
        bound = tolerance.conv(c.c * taps, magnitude, dtype, bias.reshape(column))
        tolerance.close(got, y + bias.reshape(column), bound, f"forward {c}")
        dx, magnitude = reference.conv_input_gradient(dy, w, c.size, *oracle(c))
        got = guarded(x.shape, dtype, input_gradient, c, dy, w)
        assert got.channels_last
        tolerance.close(got, dx, tolerance.conv(c.k * taps, magnitude, dtype), f"input gradient {c}")
        dw, magnitude = reference.conv_weight_gradient(x, dy, c.kernel, *oracle(c))
        got = guarded(w.shape, dtype, weight_gradient, c, x, dy)
        assert got.is_contiguous()
        bound = tolerance.conv_weight(c.n, int(np.prod(c.out)), magnitude, dtype)
        tolerance.close(got, dw, bound, f"weight gradient {c}")


def _dead(c, axis):
    """The share of products along an axis that lie outside of the image."""
    points, taps = np.arange(c.out[axis]) * c.stride[axis] - c.padding[axis], np.arange(c.kernel[axis])
    at = points[:, None] + taps * c.dilation[axis]
    return np.mean((at < 0) | (at >= c.size[axis]))


def test_the_edges_are_reached(isa, dtype):
    """The shapes above have what they are meant to have: several chunks, chunks of several images, blocks, pieces."""
    NR, _ = shapes.tile(dtype)
    KC = shapes.KC_BYTES // dtype.itemsize
    found = [c for family in shapes.CONVS.values() for c in family(dtype)]
    points = {int(np.prod(c.out)) for c in found}
    assert {c.k for c in found} >= {1, NR - 1, NR, NR + 1}
    assert {c.c for c in found} >= {1, NR - 1, NR, NR + 1, KC - 1, KC, KC + 1}
    assert points >= {1, *shapes.around(shapes.MR, shapes.CONV_PIXELS)}
    assert any(c.n > 1 and int(np.prod(c.out)) * 2 < shapes.CONV_PIXELS < c.n * int(np.prod(c.out)) for c in found)
    assert any(max(s - d * (k - 1) for s, d, k in zip(c.stride, c.dilation, c.kernel)) > 1 for c in found)
    assert any(c.size == c.kernel and not any(c.padding) for c in found)
    assert any(max(p - d * (k - 1) for p, d, k in zip(c.padding, c.dilation, c.kernel)) > 1 for c in found)
    assert any(c.groups > 1 and c.c == c.k == 1 for c in found)
    assert any(c.groups > 1 and c.c == 1 < c.k for c in found)
    borders = [[_dead(c, axis) for axis in range(len(c.size))] for c in shapes.conv_borders(dtype)]
    assert any(0 < min(b) * shapes.CONV_DEAD <= 1 < max(b) * shapes.CONV_DEAD for b in borders), "both in one image"
    assert any(0 < max(b) * shapes.CONV_DEAD <= 1 for b in borders)
    assert any(min(b) * shapes.CONV_DEAD > 1 for b in borders)
    assert max(points) > 2 * shapes.CONV_BLOCK_POINTS
    assert max(c.n for c in found) > 2 * 16


def test_oracles_are_adjoint(rng):
    """<conv(x, w), dy> = <x, dx> = <w, dw>: the three oracles are of one bilinear map; and it is SciPy's."""
    correlate = pytest.importorskip("scipy.signal").correlate
    for c in shapes.conv_geometry(np.dtype(np.float64))[::3]:
        x, w, _, dy = operands(rng, c, np.float64)
        y, magnitude = reference.conv(x, w, *oracle(c))
        total = (magnitude * np.abs(dy)).sum()
        value = (y * dy).sum()
        dx, _ = reference.conv_input_gradient(dy, w, c.size, *oracle(c))
        dw, _ = reference.conv_weight_gradient(x, dy, c.kernel, *oracle(c))
        assert abs((dx * x).sum() - value) <= 1e-15 * total
        assert abs((dw * w).sum() - value) <= 1e-15 * total
    for size, kernel in (((11,), (3,)), ((9, 8), (3, 2)), ((5, 6, 5), (2, 3, 2))):
        x, w = rng.standard_normal((1, 1, *size)), rng.standard_normal((1, 1, *kernel))
        one = (1,) * len(size)
        y, magnitude = reference.conv(x, w, one, [(0, 0)] * len(size), one)
        known = correlate(x[0, 0], w[0, 0], "valid", "direct")
        assert np.abs(y[0, 0] - known).max() <= 64 * 2.0**-52 * magnitude.max()


def test_epilogue(isa, dtype, rng):
    """act(conv + bias) has the bits of the operations one by one, also where blocks of the depth wait in memory."""
    NR, _ = shapes.tile(dtype)
    KC = shapes.KC_BYTES // dtype.itemsize
    for c in (
        shapes.conv(2, 3, NR + 1, (5, 4), (3, 3), padding=1),
        shapes.conv(1, KC + 1, 3, (3, 3), (2, 2)),
        shapes.conv(2, 2, 3, (4, 5), (2, 2), groups=3),
        shapes.conv(2, 3, NR - 1, (30, 9), (1, 1), stride=2),
        shapes.conv(2, 1, 1, (5, 6), (3, 3), padding=1, groups=NR + 1),
    ):
        x, w, bias, _ = operands(rng, c, dtype)
        plain = forward(c, x, w)
        with_bias = forward(c, x, w, bias)
        column = bias.reshape(-1, *[1] * len(c.size))
        tolerance.same_bits(with_bias, np.asarray(plain) + column, f"bias {c}")
        for name, act in ACTIVATIONS.items():
            for b, z in ((None, plain), (bias, with_bias)):
                op = elementwise.ewise(runtime.OPS[name], z)
                tolerance.same_bits(forward(c, x, w, b, act), op, f"{name} {c}")


SEVERAL = [
    shapes.conv(3, 5, 7, (9,), (3,), 2, 1),
    shapes.conv(3, 5, 7, (6, 5), (3, 2), 1, 1),
    shapes.conv(2, 3, 4, (6, 7), (2, 3), (3, 2), 0, groups=3),
    shapes.conv(2, 3, 4, (7, 8), (1, 1), 2),
    shapes.conv(2, 3, 4, (7, 8), (1, 1)),
    shapes.conv(2, 1, 1, (8, 8), (3, 3), padding=1, groups=9),
    shapes.conv(2, 2, 3, (4, 5, 6), (2, 3, 2), (2, 1, 3), 1),
    shapes.conv(3, 1, 1, (9, 10), (3, 3), 2, 1, groups=20),
    shapes.conv(3, 1, 2, (6, 9), (3, 2), 1, 1, groups=9),
    shapes.conv(3, 2, 1, (6, 9), (3, 3), 2, 1, groups=9),
]


def test_layouts(isa, dtype, rng):
    """Row-major, channels-last, strided, backwards, read-only: the same bits, and the operands stay as they are."""
    for c in SEVERAL:
        x, w, bias, dy = operands(rng, c, dtype)
        y, dx, dw = forward(c, x, w, bias), input_gradient(c, dy, w), weight_gradient(c, x, dy)
        x_last, dy_last = channels_last(from_array(x)), channels_last(from_array(dy))
        assert x_last.channels_last
        assert dy_last.strides[1] == 1
        assert np.array_equal(x_last.numpy(), x)
        # a tag is what tells channels-last memory: the same memory without it is converted
        untagged = from_array(x_last.numpy())
        assert not untagged.channels_last
        assert untagged.strides == x_last.strides
        for name, a, b, v in (
            ("channels-last", x_last, dy_last, w),
            ("untagged", untagged, from_array(dy_last.numpy()), w),
            *((name, f(x), f(dy), f(w)) for name, f in shapes.LAYOUTS.items()),
        ):
            tolerance.same_bits(forward(c, a, v, bias), y, f"forward {name} {c}")
            tolerance.same_bits(input_gradient(c, b, v), dx, f"input gradient {name} {c}")
            tolerance.same_bits(weight_gradient(c, a, b), dw, f"weight gradient {name} {c}")
            tolerance.same_bits(a, x, name)
            tolerance.same_bits(b, dy, name)
            tolerance.same_bits(v, w, name)
        tolerance.same_bits(forward(c, x, w, np.repeat(bias, 2)[::2]), y, "strided bias")


def test_windows_of_larger_images(isa, dtype, rng):
    """What lies beside the operands (NaN here) is not read into results."""
    for c in SEVERAL:
        x, w, bias, dy = operands(rng, c, dtype)
        inside = []
        for a in (x, dy, w):
            big = np.full([n + 5 for n in a.shape], np.nan, dtype)
            v = big[tuple(slice(2, 2 + n) for n in a.shape)]
            v[...] = a
            inside.append(v)
        tolerance.same_bits(forward(c, inside[0], inside[2], bias), forward(c, x, w, bias))
        tolerance.same_bits(input_gradient(c, inside[1], inside[2]), input_gradient(c, dy, w))
        tolerance.same_bits(weight_gradient(c, inside[0], inside[1]), weight_gradient(c, x, dy))


def test_one_image_alone(isa, dtype, rng):
    """An image alone gives the bits it gives in a batch: forward, and the gradient for the input."""
    NR, _ = shapes.tile(dtype)
    for c in (
        *SEVERAL,
        shapes.conv(7, 3, NR + 1, (5, 5), (3, 3), padding=1),
        shapes.conv(40, 2, 3, (3, 3), (2, 2)),
        shapes.conv(3, 2, 3, (20, 20), (3, 3), padding=1),
        shapes.conv(3, 100, 70, (4, 4), (3, 3), 2, 1),
    ):
        x, w, bias, dy = operands(rng, c, dtype)
        y, dx = forward(c, x, w, bias).numpy(), input_gradient(c, dy, w).numpy()
        for part in (slice(0, 1), slice(c.n - 1, c.n), slice(1, 2), slice(1, c.n)):
            tolerance.same_bits(forward(c, x[part], w, bias), y[part], f"{part} {c}")
            tolerance.same_bits(input_gradient(c, dy[part], w), dx[part], f"{part} {c}")


def test_one_output_alone(isa, dtype, rng):
    """An output channel does not depend on the others; a group is a convolution of its own."""
    NR, _ = shapes.tile(dtype)
    c = shapes.conv(2, 3, 2 * NR + 2, (7, 6), (3, 3), padding=1)
    x, w, bias, _ = operands(rng, c, dtype)
    y = forward(c, x, w, bias).numpy()
    for k in (1, NR - 1, NR, NR + 1):
        tolerance.same_bits(forward(c._replace(k=k), x, w[:k], bias[:k]), y[:, :k], f"{k} outputs")
        tolerance.same_bits(forward(c._replace(k=k), x, w[-k:], bias[-k:]), y[:, -k:], f"last {k} outputs")
    for c in (c for c in SEVERAL if c.groups > 1):
        x, w, bias, dy = operands(rng, c, dtype)
        y, dx, dw = forward(c, x, w, bias).numpy(), input_gradient(c, dy, w).numpy(), weight_gradient(c, x, dy).numpy()
        _, magnitude = reference.conv_weight_gradient(x, dy, c.kernel, *oracle(c))
        one = c._replace(groups=1)
        for g in range(c.groups):
            i, o = slice(g * c.c, (g + 1) * c.c), slice(g * c.k, (g + 1) * c.k)
            tolerance.same_bits(forward(one, x[:, i], w[o], bias[o]), y[:, o], f"group {g} {c}")
            tolerance.same_bits(input_gradient(one, dy[:, o], w[o]), dx[:, i], f"group {g} {c}")
            bound = 2 * tolerance.conv_weight(c.n, int(np.prod(c.out)), magnitude[o], dtype)  # other pieces
            tolerance.close(weight_gradient(one, x[:, i], dy[:, o]), reference.wide(dw[o]), bound, f"group {g} {c}")


def test_points_without_taps(isa, dtype, rng):
    """Where the stride is larger than the kernel, no tap reaches: the gradient is 0, the transposed result the bias."""
    for stride, dilation in ((4, 1), (4, 2), (2, 4)):
        c = shapes.conv(2, 3, 5, (17, 14), (2, 3), stride, 0, dilation)
        _, w, _, dy = operands(rng, c, dtype)
        bias = rng.standard_normal(3).astype(dtype)
        reached = reference.conv_input_gradient(np.ones_like(dy), np.ones_like(w), c.size, *oracle(c))[0] > 0
        assert 0 < reached.sum() < reached.size
        for value in (None, bias):
            shapes.prime(reached.shape, dtype)
            got = input_gradient(c, dy, w, value).numpy()
            expected = np.zeros_like(got) if value is None else np.broadcast_to(bias[:, None, None], got.shape)
            tolerance.same_bits(got[~reached], expected[~reached], f"{stride} {dilation}")
            assert (got[reached] != expected[reached]).all()


# ---- threads ----

BY_THREADS = [
    shapes.conv(1, 5, 7, (40, 37), (3, 3), padding=1),  # chunks of one image
    shapes.conv(16, 3, 5, (15, 15), (3, 3), 2, 1),  # of several
    shapes.conv(16, 3, 5, (16, 16), (1, 1)),
    shapes.conv(4, 2, 3, (9, 20), (3, 3), 1, 1, groups=7),
    shapes.conv(4, 1, 1, (30, 20), (3, 3), 1, 1, groups=37),
    shapes.conv(2, 1, 2, (30, 20), (3, 3), 2, 1, groups=37),
    shapes.conv(16, 3, 2, (6, 7, 6), (2, 3, 2), padding=1),
]


@pytest.mark.parametrize("c", BY_THREADS)
def test_threads(c, isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits, and all of them take part."""
    x, w, bias, dy = operands(rng, c, dtype)
    x, dy = channels_last(from_array(x)), channels_last(from_array(dy))  # no copies that others could take part in
    w, bias = from_array(w), from_array(bias)
    calls = {
        "forward": lambda: forward(c, x, w, bias),
        "input gradient": lambda: input_gradient(c, dy, w),
        "weight gradient": lambda: weight_gradient(c, x, dy),
    }
    runtime.set_num_threads(1)
    plain = {name: call().numpy() for name, call in calls.items()}
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        for name, call in calls.items():
            runtime.threads_used(True)
            got = call()
            used = runtime.threads_used(True)
            tolerance.same_bits(got, plain[name], f"{name}, {threads} threads")
            pieces = (
                7
                if name == "weight gradient" or c.groups > 1
                else c.n * int(np.prod(c.out)) // (2 * shapes.CONV_PIXELS)
            )
            if name == "weight gradient" and (c.kernel == (1, 1) or c.n == 1):
                continue  # one piece of work at these sizes
            assert used >= min(threads, max(pieces, 1)), f"{name}: {used} of {threads} threads"


def test_panels_by_threads(isa, dtype, rng):
    """Few points and many outputs: panels are what is cut, in packing and in the product."""
    NR, _ = shapes.tile(dtype)
    c = shapes.conv(1, 3, 9 * NR, (3, 3), (3, 3), padding=1)
    x, w, bias, dy = operands(rng, c, dtype)
    x, dy = channels_last(from_array(x)), channels_last(from_array(dy))
    runtime.set_num_threads(1)
    y, dw = forward(c, x, w, bias).numpy(), weight_gradient(c, x, dy).numpy()
    runtime.set_parallel_threshold(0.0)
    for threads in (2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(forward(c, x, w, bias), y, f"{threads} threads")
        assert runtime.threads_used(True) == threads
        tolerance.same_bits(weight_gradient(c, x, dy), dw, f"{threads} threads")
        assert runtime.threads_used(True) == threads


# ---- packed weights ----


def packs(parameter):
    """The packed copies held for a parameter's current version."""
    storage = parameter._storage
    return [p for version, p in (storage.packs or {}).values() if p is not None and version == storage.version]


def test_packed_weights(isa, dtype, rng):
    """A weight used twice at one version stays packed, with the same bits; after a write the new values count."""
    NR, _ = shapes.tile(dtype)
    for c in (*SEVERAL, shapes.conv(2, 5, NR + 1, (6, 5), (3, 3), padding=1)):
        x, values, bias, dy = operands(rng, c, dtype)
        w = nn.Parameter(values)
        y, dx = forward(c, x, values, bias), input_gradient(c, dy, values)
        for use in range(3):
            assert len(packs(w)) == (use >= 2)
            tolerance.same_bits(forward(c, x, w, bias), y, f"use {use} {c}")
            tolerance.same_bits(input_gradient(c, dy, w), dx, f"use {use} {c}")
        with nncore.no_grad():
            w.copy_(-values)
        assert not packs(w)
        for use in range(3):
            tolerance.same_bits(forward(c, x, w, bias), forward(c, x, -values, bias), f"use {use} after a write")
            tolerance.same_bits(input_gradient(c, dy, w), input_gradient(c, dy, -values), f"use {use} after a write")
        with nncore.no_grad():
            w[0] = 2.0
        new = -values
        new[0] = 2
        for use in range(3):
            tolerance.same_bits(forward(c, x, w), forward(c, x, new), f"use {use} after an assignment")


def test_packed_copies_are_not_mixed_up(isa, dtype, rng):
    """One weight under other groups, other shapes, as a matrix, and under another ISA: each use finds its own copy."""
    c = shapes.conv(2, 4, 4, (5, 6), (2, 3), padding=1)
    x, values, _, _ = operands(rng, c, dtype)
    flat = nn.Parameter(values.reshape(-1))
    views = {
        "one group": (c, (4, 4, 2, 3)),
        "kernel turned": (c._replace(kernel=(3, 2)), (4, 4, 3, 2)),
        "two groups": (c._replace(c=2, k=4, groups=2, kernel=(2, 3)), (8, 2, 2, 3)),
        "fewer inputs": (c._replace(c=2, k=8), (8, 2, 2, 3)),
        "more taps": (c._replace(c=2, k=4, kernel=(4, 3)), (4, 2, 4, 3)),
        "transposed strides": (c._replace(c=1, k=4, groups=4), (16, 1, 2, 3)),
    }
    steps = {name: tuple(int(np.prod(s[i + 1 :])) for i in range(4)) for name, (_, s) in views.items()}
    a = rng.standard_normal((3, 24)).astype(dtype)
    for other in (isa, *runtime.isas()):
        runtime.set_isa(other)
        for use in range(3):
            for name, (d, shape) in views.items():
                inputs = x[:, : d.c * d.groups]
                got = forward(d, inputs, flat._view(shape, steps[name], 0))
                tolerance.same_bits(got, forward(d, inputs, values.reshape(shape)), f"{name}, use {use}, {other}")
            got = dense.linear(from_array(a), flat._view((4, 24), (24, 1), 0))
            tolerance.same_bits(got, dense.linear(from_array(a), from_array(values.reshape(4, 24))), f"{other}")
    half = flat._view((2, 4, 2, 3), (24, 6, 3, 1), 48)
    for _ in range(3):
        tolerance.same_bits(forward(c._replace(k=2), x, half), forward(c._replace(k=2), x, values[2:]), "second half")


# ---- NaN and infinity ----


def test_nan_and_infinity(isa, dtype, rng):
    """They reach exactly the results whose sums they are in; all else has the bits that it had. Whether the zeros of
    the border are in the sums of the weight's gradient is open: dY times them is NaN or nothing."""
    NR, _ = shapes.tile(dtype)
    for c in (
        shapes.conv(2, 3, NR + 1, (9, 8), (3, 2), padding=1),
        shapes.conv(2, 3, 4, (9, 8), (3, 2), (2, 3), (0, 2), (2, 1)),
        shapes.conv(2, 2, 3, (9, 8), (2, 2), groups=3),
        shapes.conv(2, 3, 4, (9, 8), (1, 1), stride=2),
        shapes.conv(2, 3, 4, (25,), (3,), 1, 3),
        shapes.conv(2, 2, 3, (4, 5, 4), (2, 2, 2), (1, 2, 1), 1),
    ):
        x, w, bias, dy = operands(rng, c, dtype)
        y, dx, dw = (
            np.asarray(t) for t in (forward(c, x, w, bias), input_gradient(c, dy, w), weight_gradient(c, x, dy))
        )
        for bad in (np.nan, np.inf, -np.inf):
            for corner in (0, 1):
                at = (1, *[(n - 1) * corner for n in x.shape[1:]])
                mark, z = np.zeros_like(x), x.copy()
                mark[at], z[at] = 1, bad
                hit = reference.conv(mark, np.ones_like(w), *oracle(c))[0] > 0
                got = np.asarray(forward(c, z, w, bias))
                assert not np.isfinite(got[hit]).any(), f"{bad} {c}"
                tolerance.same_bits(got[~hit], y[~hit], f"forward {bad} {c}")
                hit = reference.conv_weight_gradient(mark, np.ones_like(dy), c.kernel, *oracle(c))[0] > 0
                got = np.asarray(weight_gradient(c, z, dy))
                assert not np.isfinite(got[hit]).any(), f"{bad} {c}"
                tolerance.same_bits(got[~hit], dw[~hit], f"weight gradient of x {bad} {c}")

                at = (1, *[(n - 1) * corner for n in dy.shape[1:]])
                mark, z = np.zeros_like(dy), dy.copy()
                mark[at], z[at] = 1, bad
                hit = reference.conv_input_gradient(mark, np.ones_like(w), c.size, *oracle(c))[0] > 0
                got = np.asarray(input_gradient(c, z, w))
                assert not np.isfinite(got[hit]).any(), f"{bad} {c}"
                tolerance.same_bits(got[~hit], dx[~hit], f"input gradient {bad} {c}")
                hit = reference.conv_weight_gradient(np.ones_like(x), mark, c.kernel, *oracle(c))[0] > 0
                got = np.asarray(weight_gradient(c, x, z))
                assert not np.isfinite(got[hit]).any(), f"{bad} {c}"
                rest = ~hit & (np.isfinite(got) | (np.arange(len(got)) != at[1]).reshape(-1, *[1] * (got.ndim - 1)))
                tolerance.same_bits(got[rest], dw[rest], f"weight gradient of dy {bad} {c}")


# ---- the public functions ----

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

# (shape of x, shape of w, options)
CALLS = [
    ((2, 3, 11), (4, 3, 3), {}),
    ((2, 3, 11), (4, 3, 4), {"padding": "same"}),
    ((2, 4, 11), (6, 2, 3), {"stride": (2,), "padding": 2, "groups": 2}),
    ((3, 11), (4, 3, 5), {"padding": 4, "dilation": 2}),
    ((2, 3, 7, 8), (4, 3, 3, 2), {"padding": "valid", "stride": 2}),
    ((2, 3, 7, 8), (4, 3, 4, 2), {"padding": "same", "dilation": (1, 3)}),
    ((2, 3, 7, 8), (4, 3, 3, 2), {"stride": (2, 3), "padding": [1, 0], "dilation": [1, 2]}),
    ((2, 3, 7, 8), (6, 1, 3, 3), {"padding": 3, "groups": 3}),
    ((4, 7, 8), (4, 1, 3, 3), {"padding": 1, "groups": np.int64(4)}),
    ((2, 3, 7, 8), (4, 3, 1, 1), {"stride": 2}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 1), {"stride": (1, 2, 3), "padding": (1, 0, 2)}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"padding": "same"}),
    ((2, 4, 5, 6), (3, 2, 2, 3, 3), {"dilation": 2, "padding": 2}),
]
TRANSPOSED_CALLS = [
    ((2, 3, 6), (3, 4, 3), {}),
    ((2, 4, 6), (4, 3, 3), {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}),
    ((3, 6), (3, 2, 2), {"stride": 4}),
    ((2, 3, 5, 4), (3, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0)}),
    ((2, 3, 5, 4), (3, 1, 3, 3), {"groups": 3, "dilation": 2, "output_padding": 1, "padding": 2}),
    ((2, 3, 5, 4), (3, 4, 3, 2), {"padding": 1}),
    ((4, 5, 4), (4, 2, 1, 1), {"stride": 3, "output_padding": 2}),
    ((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), {"stride": (2, 3, 1), "padding": 1, "output_padding": (1, 2, 0)}),
    ((2, 3, 4, 3), (2, 3, 2, 1, 2), {"dilation": (1, 2, 3)}),
]


def per_axis(value, axes):
    return tuple(value) if isinstance(value, tuple | list) else (value,) * axes


def arguments(axes, kernel, options):
    """The oracles' (stride, padding, dilation, groups)."""
    o = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **options}
    stride, dilation = per_axis(o["stride"], axes), per_axis(o["dilation"], axes)
    if o["padding"] == "same":  # the odd one is behind
        spans = [d * (k - 1) for d, k in zip(dilation, kernel)]
        pads = [(s // 2, s - s // 2) for s in spans]
    else:
        pads = [(p, p) for p in per_axis(0 if o["padding"] == "valid" else o["padding"], axes)]
    return stride, pads, dilation, int(o["groups"])


def graded(*arrays):
    return [None if a is None else nncore.tensor(a, requires_grad=True) for a in arrays]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape, kernel, options", CALLS, ids=[f"{s} {k} {o}" for s, k, o in CALLS])
def test_functions(shape, kernel, options, with_bias, isa, dtype, rng):
    """F.conv*: result and all three gradients."""
    axes, alone = len(kernel) - 2, len(shape) == len(kernel) - 1
    a, v = rng.standard_normal(shape).astype(dtype), rng.standard_normal(kernel).astype(dtype)
    bias = rng.standard_normal(kernel[0]).astype(dtype) if with_bias else None
    x, w, b = graded(a, v, bias)
    y = CONV[axes](x, w, b, **options)
    common = arguments(axes, kernel[2:], options)
    batch = a[None] if alone else a
    want, magnitude = reference.conv(batch, v, *common)
    column = (bias if with_bias else np.zeros(kernel[0])).reshape(-1, *[1] * axes)
    terms = int(np.prod(kernel[1:]))
    if options.get("padding") == "same":
        assert y.shape[-axes:] == shape[-axes:]
    got = y.detach().numpy()
    tolerance.close(got[None] if alone else got, want + column, tolerance.conv(terms, magnitude, dtype, column), "y")
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    g = dy[None] if alone else dy
    dx, magnitude = reference.conv_input_gradient(g, v, batch.shape[2:], *common)
    terms = kernel[0] // common[-1] * int(np.prod(kernel[2:]))
    assert x.grad.shape == shape
    tolerance.close(x.grad.numpy().reshape(dx.shape), dx, tolerance.conv(terms, magnitude, dtype), "dx")
    dw, magnitude = reference.conv_weight_gradient(batch, g, kernel[2:], *common)
    points = int(np.prod(g.shape[2:]))
    tolerance.close(w.grad, dw, tolerance.conv_weight(len(g), points, magnitude, dtype), "dw")
    if with_bias:
        over = (0, *range(2, 2 + axes))
        bound = tolerance.gemm(len(g) * points, np.abs(reference.wide(g)).sum(over), dtype)
        tolerance.close(b.grad, reference.wide(g).sum(over), bound, "db")


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    "shape, kernel, options", TRANSPOSED_CALLS, ids=[f"{s} {k} {o}" for s, k, o in TRANSPOSED_CALLS]
)
def test_transposed_functions(shape, kernel, options, with_bias, isa, dtype, rng):
    """F.conv_transpose*: result and all three gradients; sizes as documented."""
    axes, alone = len(kernel) - 2, len(shape) == len(kernel) - 1
    options = dict(options)
    a, v = rng.standard_normal(shape).astype(dtype), rng.standard_normal(kernel).astype(dtype)
    stride, pads, dilation, groups = common = arguments(axes, kernel[2:], options)
    extra = per_axis(options.get("output_padding", 0), axes)
    bias = rng.standard_normal(kernel[1] * groups).astype(dtype) if with_bias else None
    x, w, b = graded(a, v, bias)
    y = TRANSPOSED[axes](x, w, b, **options)
    batch = a[None] if alone else a
    size = tuple(
        (n - 1) * s - 2 * p[0] + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(batch.shape[2:], stride, pads, dilation, kernel[2:], extra)
    )
    # output_padding adds points that the window of the last input may not reach
    room = [(p[0], p[0] + e) for p, e in zip(pads, extra)]
    want, magnitude = reference.conv_input_gradient(batch, v, size, stride, room, dilation, groups)
    column = (bias if with_bias else np.zeros(kernel[1] * groups)).reshape(-1, *[1] * axes)
    terms = kernel[0] // groups * int(np.prod(kernel[2:]))
    got = y.detach().numpy()
    tolerance.close(got[None] if alone else got, want + column, tolerance.conv(terms, magnitude, dtype, column), "y")
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    g = dy[None] if alone else dy
    dx, magnitude = reference.conv(g, v, *common)
    dx, magnitude = (t[(..., *(slice(0, n) for n in batch.shape[2:]))] for t in (dx, magnitude))
    terms = kernel[1] * int(np.prod(kernel[2:]))
    assert x.grad.shape == shape
    tolerance.close(x.grad.numpy().reshape(dx.shape), dx, tolerance.conv(terms, magnitude, dtype), "dx")
    dw, magnitude = reference.conv_weight_gradient(g, batch, kernel[2:], *common)
    points = int(np.prod(batch.shape[2:]))
    tolerance.close(w.grad, dw, tolerance.conv_weight(len(g), points, magnitude, dtype), "dw")
    if with_bias:
        over = (0, *range(2, 2 + axes))
        bound = tolerance.gemm(g.size // g.shape[1], np.abs(reference.wide(g)).sum(over), dtype)
        tolerance.close(b.grad, reference.wide(g).sum(over), bound, "db")


def test_axes_of_one_agree(isa, dtype, rng):
    """A signal is an image of height 1, and that a volume of depth 1: the same bits."""
    x, w = rng.standard_normal((2, 3, 11)).astype(dtype), rng.standard_normal((4, 3, 3)).astype(dtype)
    for f, shape_of in ((CONV, lambda t: t), (TRANSPOSED, lambda t: t.transpose(1, 0, 2))):
        v = np.ascontiguousarray(shape_of(w))
        y = f[1](x, v, stride=2, padding=1).numpy()
        two = f[2](x[:, :, None], v[:, :, None], stride=(1, 2), padding=(0, 1)).numpy()
        three = f[3](x[:, :, None, None], v[:, :, None, None], stride=(1, 1, 2), padding=(0, 0, 1)).numpy()
        tolerance.same_bits(two[:, :, 0], y)
        tolerance.same_bits(three[:, :, 0, 0], y)


def test_constants_and_frozen_parameters(rng):
    """Only what requires a gradient gets one, and nothing is recorded when nothing does."""
    arrays = [rng.standard_normal(s) for s in ((2, 4, 6, 5), (4, 2, 3, 3), (4,))]
    for f, options in ((F.conv2d, {"groups": 2}), (F.conv_transpose2d, {"groups": 2, "stride": 2})):
        full = graded(*arrays)
        f(*full, **options).sum().backward()
        for wanted in range(8):
            inputs = [nncore.tensor(a, requires_grad=bool(wanted >> i & 1)) for i, a in enumerate(arrays)]
            y = f(*inputs, **options)
            assert y.requires_grad == bool(wanted)
            if wanted:
                y.sum().backward()
            for i, t in enumerate(inputs):
                assert (t.grad is not None) == bool(wanted >> i & 1)
                if t.grad is not None:
                    tolerance.same_bits(t.grad, full[i].grad)


# ---- the memory order between layers ----


def test_results_are_channels_last(isa, rng, monkeypatch):
    """Results are tagged, elementwise operations keep the tag, and what reaches a convolution's backward is tagged too:
    nothing is reordered between layers. Gradients of leaves are row-major."""
    seen = []

    def spied(name, fn):
        def spy(first, second, *rest):
            seen.append((name, first.channels_last, second.channels_last))
            return fn(first, second, *rest)

        return spy

    for name in ("forward", "input_gradient", "weight_gradient"):
        monkeypatch.setattr(kernels, name, spied(name, getattr(kernels, name)))
    for axes in (1, 2, 3):
        size, ones = (9, 6, 5)[:axes], [2] * axes
        x = nncore.tensor(rng.standard_normal((2, 3, *size)), requires_grad=True)
        w = [nncore.tensor(rng.standard_normal((*s, *ones)), requires_grad=True) for s in ((4, 3), (4, 5), (2, 5))]
        y = CONV[axes](x, w[0])
        h = TRANSPOSED[axes]((y.tanh() * 2 + y).relu(), w[1])
        z = CONV[axes](1 - h, w[2])
        for t in (y, y.tanh(), y * 2 + y, h, 1 - h, z):
            assert t.channels_last
            inner = np.empty((t.shape[0], *t.shape[2:], t.shape[1]))  # as it lies in memory
            assert t.strides == tuple(s // 8 for s in np.moveaxis(inner, -1, 1).strides)
        seen.clear()
        (z * z).sum().backward()
        assert seen == [
            ("input_gradient", True, False),  # dy, w
            ("weight_gradient", True, True),  # x, dy
            ("forward", True, False),
            ("weight_gradient", True, True),
            ("input_gradient", True, False),
            ("weight_gradient", True, True),  # the leaf is row-major, and was reordered once
        ]
        for t in (x, *w):
            assert t.grad.is_contiguous()
    assert F.conv2d(nncore.ones(3, 5, 5), nncore.ones(2, 3, 3, 3)).strides[0] == 1  # without N


ELEMENTWISE = {
    "relu": lambda t: t.relu(),
    "tanh": lambda t: t.tanh(),
    "scalar": lambda t: 1 - t * 3,
    "square": lambda t: t.square(),
    "row-major operand": lambda t: t + nncore.arange(t.numel()).double().reshape(t.shape),
    "on the left": lambda t: nncore.arange(t.numel()).double().reshape(t.shape) - t,
    "transposed operand": lambda t: t * t.transpose(2, 3).contiguous().transpose(2, 3),
    "self": lambda t: t * t,
    "channel": lambda t: t * nncore.arange(t.shape[1]).double().reshape(-1, 1, 1),
    "column": lambda t: t / (nncore.arange(t.shape[3]).double() + 1),
    "image": lambda t: t - t[:1],
    "maximum": lambda t: t.maximum(t[:, :, :1]),
    "where": lambda t: nncore.where(t > 0, t, t * 2),
    "clamp": lambda t: t.clamp(-0.5, 0.5),
    "detach": lambda t: t.detach(),
}
OTHERS = {
    "sum": lambda t: t.sum(),
    "sum 1": lambda t: t.sum(1),
    "mean": lambda t: t.mean((0, 2)),
    "max": lambda t: t.max(3)[0],
    "argmax": lambda t: t.argmax(1),
    "argmax of all": lambda t: t.argmax(),
    "var": lambda t: t.var((2, 3)),
    "softmax": lambda t: t.softmax(1),
    "softmax last": lambda t: t.softmax(-1),
    "compare": lambda t: t > 0,
    "float": lambda t: t.float(),
    "flatten": lambda t: t.flatten(1),
    "flatten all": lambda t: t.flatten(),
    "reshape": lambda t: t.reshape(t.shape[0], -1, 2),
    "contiguous": lambda t: t.contiguous(),
    "permute": lambda t: t.permute(3, 0, 2, 1) + 1,
    "transpose": lambda t: t.transpose(1, 3) * t.transpose(1, 3),
    "index": lambda t: t[:, [1, 0]] * 2,
    "slice": lambda t: t[:, :, -2:, ::2].exp(),
    "cat": lambda t: nncore.cat([t, t.contiguous()], 1),
    "stack": lambda t: nncore.stack([t, t], 2),
    "unsqueeze": lambda t: t.unsqueeze(1) + t.unsqueeze(2),
    "expand": lambda t: t[:1].expand(3, *t.shape[1:]) + 1,
    "broadcast up": lambda t: t + nncore.ones(2, 1, 1, 1, 1, dtype="float64"),
    "matmul": lambda t: t @ t.transpose(2, 3),
    "dropout": lambda t: (nncore.manual_seed(1), F.dropout(t, 0.5))[1],
    "mse": lambda t: F.mse_loss(t, t.contiguous() * 2, reduction="none"),
    "cross entropy": lambda t: F.cross_entropy(t, np.zeros((t.shape[0], *t.shape[2:]), int), reduction="none"),
}


@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (1, 3, 6, 4), (3, 1, 2, 4), (2, 3, 1, 2), (2, 7, 16, 18)])
@pytest.mark.parametrize("name", [*ELEMENTWISE, *OTHERS])
def test_operations_on_channels_last(name, shape, isa, rng):
    """Every operation sees the values in the order of N, C, H, W; elementwise ones keep the memory's order. Gradients,
    which meet the tag on their way back, are those of the row-major tensor."""
    fn = {**ELEMENTWISE, **OTHERS}[name]
    if name == "index" and shape[1] < 2:
        shape = (3, 2, *shape[2:])
    a = rng.standard_normal(shape)
    tagged, plain = channels_last(from_array(a)), nncore.tensor(a)
    assert tagged.channels_last
    assert not plain.channels_last
    for t in (tagged, plain):
        t.requires_grad_()
    y, z = fn(tagged), fn(plain)
    assert y.shape == z.shape
    # sums may be added in another order: at most one rounding per element
    rounding = a.size * np.finfo(np.float64).eps
    if name in ELEMENTWISE:
        assert y.channels_last
        tolerance.same_bits(y.detach(), z.detach(), name)
    elif y.dtype == np.float64:
        tolerance.close(y.detach(), z.detach().numpy(), rounding * (1 + np.abs(z.detach().numpy()).max()), name)
    else:
        tolerance.same_bits(y.detach(), z.detach(), name)
    if y.requires_grad:
        dy = rng.standard_normal(y.shape).astype(y.dtype)
        y.backward(dy)
        z.backward(dy)
        tolerance.close(tagged.grad, plain.grad.numpy(), rounding * (1 + np.abs(plain.grad.numpy()).max()), name)


def test_writes_to_channels_last(isa, rng):
    """copy_, assignment and in-place arithmetic write at the place the index names."""
    a, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    for name, write, expected in (
        ("copy_", lambda t: t.copy_(b), b),
        ("copy_ broadcast", lambda t: t.copy_(b[0, 0, 0]), np.broadcast_to(b[0, 0, 0], a.shape)),
        ("copy_ number", lambda t: t.copy_(3.0), np.full_like(a, 3)),
        ("fill_", lambda t: t.fill_(2.0), np.full_like(a, 2)),
        ("add_", lambda t: t.add_(nncore.tensor(b)), a + b),
        ("add_ tagged", lambda t: t.add_(channels_last(from_array(b))), a + b),
        ("mul_ row", lambda t: t.mul_(nncore.tensor(b[0, 0, 0])), a * b[0, 0, 0]),
        ("mul_ channel", lambda t: t.mul_(nncore.tensor(b[0, :, :1, :1])), a * b[0, :, :1, :1]),
        ("sub_ number", lambda t: t.sub_(1.0), a - 1),
        ("item", lambda t: t.__setitem__((slice(None), 1), 0.0), np.where(np.arange(3)[:, None, None] == 1, 0, a)),
    ):
        t = channels_last(from_array(a))
        write(t)
        assert t.channels_last
        tolerance.same_bits(t, expected, name)


def test_flatten_is_row_major(isa, rng):
    """Flatten after a convolution gives C, H, W order, as a linear layer's weights expect."""
    x = rng.standard_normal((2, 3, 5, 4))
    w = np.zeros((3, 3, 1, 1))
    w[[0, 1, 2], [0, 1, 2]] = 1  # the identity
    y = F.conv2d(x, w)
    assert y.channels_last
    tolerance.same_bits(y, x)
    tolerance.same_bits(F.flatten(y, 1), x.reshape(2, -1))
    tolerance.same_bits(y.reshape(6, 20), x.reshape(6, 20))
    tolerance.same_bits(y.contiguous(), x)
    assert not y.contiguous().channels_last
    assert nn.Parameter(y).is_contiguous()  # a parameter's memory is row-major


# ---- layers ----


def test_layers_are_the_functions(isa, rng):
    """The modules pass on what they were given."""
    x = {axes: rng.standard_normal((2, 4, *(7, 6, 5)[:axes])).astype(np.float32) for axes in (1, 2, 3)}
    for axes in (1, 2, 3):
        for transposed in (False, True):
            options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
            if transposed:
                options["output_padding"] = 1
            name = f"{'Transpose' if transposed else ''}{axes}d"
            layer = getattr(nn, f"Conv{name}")(4, 6, 3, **options)
            f = (TRANSPOSED if transposed else CONV)[axes]
            y = layer(nncore.tensor(x[axes]))
            tolerance.same_bits(y.detach(), f(x[axes], layer.weight, layer.bias, **options).detach())
            assert layer.weight.shape == ((4, 3) if transposed else (6, 2)) + (3,) * axes
            assert list(layer.state_dict()) == ["weight", "bias"]
            bare = getattr(nn, f"Conv{name}")(4, 6, (1,) * axes, bias=False, dtype="float64")
            assert list(bare.state_dict()) == ["weight"]
            assert bare.weight.dtype == np.float64
            assert bare(x[axes].astype(np.float64)).shape[1] == 6


def test_initialization():
    """weight and bias are uniform on (-1/sqrt(n), 1/sqrt(n)), n the terms of weight[0]."""
    for layer in (nn.Conv2d(16, 64, 3, groups=2), nn.ConvTranspose1d(32, 64, 5), nn.Conv3d(4, 100, 2)):
        bound = 1 / np.sqrt(np.prod(layer.weight.shape[1:]))
        for p in (layer.weight, layer.bias):
            a = p.numpy()
            assert np.abs(a).max() <= bound * (1 + 1e-6)
            # the largest of n uniform numbers is below 1 - 12/n with probability e^-12
            assert np.abs(a).max() > bound * (1 - 12 / a.size)
            # the mean of n has the standard deviation bound / sqrt(3 n)
            assert abs(a.mean()) < 6 * bound / np.sqrt(3 * a.size)
        before = layer.weight.numpy().copy()
        layer.reset_parameters()
        assert not np.array_equal(before, layer.weight.numpy())


def test_repr():
    assert repr(nn.Conv1d(2, 4, 3)) == "Conv1d(2, 4, kernel_size=(3,), stride=(1,))"
    layer = nn.Conv2d(2, 4, (3, 1), stride=2, padding=(1, 0), dilation=2, groups=2, bias=False)
    assert repr(layer) == (
        "Conv2d(2, 4, kernel_size=(3, 1), stride=(2, 2), padding=(1, 0), dilation=(2, 2), groups=2, bias=False)"
    )
    assert "padding='same'" in repr(nn.Conv2d(2, 4, 3, padding="same"))


COVERS = {
    "conv": test_every_edge,
    "conv_pack": test_packed_weights,
    "conv_scatter": test_every_edge,
    "conv_weight": test_every_edge,
    "depthwise": test_every_edge,
    "depthwise_pack": test_every_edge,
    "depthwise_weight": test_every_edge,
}
