"""Pooling: against the oracle over geometries and channel counts, and bit for bit against itself."""

import itertools

import numpy as np
import pytest

import nncore
from nncore import nn
from nncore._core import pool as kernels
from nncore._core import runtime, tensor
from nncore._ops import pool as ops
from nncore.nn import functional as F

from . import reference, shapes, tolerance

from_array = tensor.from_array


# (size, kernel, stride, padding, dilation, ceil_mode); stride None: the kernel
GEOMETRIES = [
    ((7,), (2,), None, (0,), (1,), False),
    ((7,), (2,), None, (0,), (1,), True),  # a partial last window
    ((7,), (3,), (1,), (1,), (1,), False),  # overlapping, padded
    ((8,), (3,), (2,), (1,), (2,), True),  # dilated
    ((9,), (2,), (3,), (0,), (1,), True),  # gaps between the windows
    ((5,), (4,), (3,), (2,), (1,), True),  # a last window that would start beyond the image is left out
    ((1,), (1,), None, (0,), (1,), False),
    ((6,), (6,), None, (0,), (1,), False),  # global
    ((5, 6), (2, 2), None, (0, 0), (1, 1), False),
    ((5, 7), (3, 2), (2, 1), (1, 0), (1, 1), False),
    ((5, 7), (3, 2), (2, 3), (1, 1), (1, 1), True),
    ((7, 6), (3, 3), (1, 2), (1, 1), (2, 1), False),
    ((7, 8), (2, 3), (2, 2), (0, 1), (3, 2), True),
    ((4, 3), (4, 3), None, (0, 0), (1, 1), False),
    ((1, 9), (1, 3), (1, 2), (0, 1), (1, 1), False),
    ((3, 4, 5), (2, 2, 2), None, (0, 0, 0), (1, 1, 1), False),
    ((3, 4, 5), (2, 3, 2), (1, 1, 2), (1, 1, 0), (1, 1, 1), True),
    ((5, 4, 6), (2, 2, 3), (2, 1, 1), (0, 0, 1), (2, 1, 2), False),
    ((2, 3, 4), (2, 3, 4), None, (0, 0, 0), (1, 1, 1), False),
    ((5, 71), (2, 2), None, (0, 0), (1, 1), True),  # long lines: of few channels, several windows share a vector
    ((5, 71), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((5, 50), (2, 2), (3, 3), (0, 0), (2, 2), False),
]
ADAPTIVE = [
    ((7,), (3,)),
    ((3,), (7,)),  # windows of one element, some twice
    ((5, 7), (2, 3)),
    ((6, 4), (1, 4)),
    ((5, 6), (1, 1)),
    ((3, 5, 4), (2, 2, 3)),
]
AVERAGES = [g for g in GEOMETRIES if max(g[4]) == 1]
DIVISORS = [(True, None), (False, None), (True, 3), (False, -2)]


def windows(geometry):
    """The oracle's windows along each axis."""
    size, kernel, stride, padding, dilation, ceil_mode = geometry
    return [reference.pool_axis(*a, ceil_mode) for a in zip(size, kernel, stride or kernel, padding, dilation)]


def numbers(rng, n, c, size, dtype, special=False):
    """An image; `special`: with many ties, zeros of both signs, NaN and infinities."""
    if not special:
        return rng.standard_normal((n, c, *size)).astype(dtype)
    x = rng.integers(-2, 2, (n, c, *size)).astype(dtype)
    x[rng.random(x.shape) < 0.2] = -0.0
    for v in (np.nan, np.inf, -np.inf):
        x[rng.random(x.shape) < 0.06] = v
    return x


def channels(dtype):
    _, lanes = shapes.tile(dtype)
    return sorted({1, 3, lanes // 2, lanes - 1, lanes, lanes + 1, 5 * lanes + 1} - {0})


def channels_last(a):
    """The same values with the channels last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def max_pool(x, geometry):
    """(values, indices) as arrays; held to write nothing beyond the values."""
    _, kernel, stride, padding, dilation, ceil_mode = geometry
    fn = getattr(F, f"max_pool{len(kernel)}d")
    shapes.prime((*x.shape[:2], *[len(a) for a in windows(geometry)]), x.dtype)
    y, where = fn(from_array(x), kernel, stride, padding, dilation, ceil_mode, True)
    shapes.check_slack(y, f"max_pool {geometry}")
    assert where.dtype == np.int64
    return np.asarray(y), np.asarray(where)


def avg_pool(x, geometry, include_pad=True, divisor=None):
    _, kernel, stride, padding, _, ceil_mode = geometry
    fn = getattr(F, f"avg_pool{len(kernel)}d")
    shapes.prime((*x.shape[:2], *[len(a) for a in windows(geometry)]), x.dtype)
    more = () if len(kernel) == 1 else (divisor,)
    y = fn(from_array(x), kernel, stride, padding, ceil_mode, include_pad, *more)
    shapes.check_slack(y, f"avg_pool {geometry}")
    return np.asarray(y)


def adaptive(kind, x, out, *more):
    return getattr(F, f"adaptive_{kind}_pool{len(out)}d")(from_array(x), out, *more)


def gradient(fn, x, dy):
    """dx of fn at x."""
    leaf = nncore.tensor(x, requires_grad=True)
    fn(leaf).backward(from_array(dy))
    return leaf.grad.numpy()


def terms(axes):
    """The largest window."""
    return int(np.prod([max(len(t) for t, _ in a) for a in axes]))


def check_max(x, geometry):
    values, where = max_pool(x, geometry)
    y, at = reference.pool_max(x, windows(geometry))
    tolerance.same_bits(values, y, f"{geometry} {x.shape}")
    tolerance.same_bits(where, at, f"indices of {geometry} {x.shape}")


def check_avg(x, geometry, *options):
    axes = windows(geometry)
    y, magnitude = reference.pool_avg(x, axes, *options)
    bound = tolerance.pool_avg(terms(axes), magnitude, x.dtype)
    tolerance.close(avg_pool(x, geometry, *options), y, bound, f"{geometry} {options} {x.shape}")


def divisors(size):
    return DIVISORS if len(size) > 1 else DIVISORS[:2]


# ---- forward ----


def test_the_oracle():
    """Numbers that can be checked by eye."""
    assert reference.pool_axis(5, 2, 2, 0) == [([0, 1], 2), ([2, 3], 2)]
    assert reference.pool_axis(5, 2, 2, 0, ceil_mode=True) == [([0, 1], 2), ([2, 3], 2), ([4], 1)]
    assert reference.pool_axis(4, 3, 2, 1) == [([0, 1], 3), ([1, 2, 3], 3)]
    assert reference.pool_axis(5, 3, 1, 1, 2) == [([1, 3], 3), ([0, 2, 4], 3), ([1, 3], 3)]
    assert reference.pool_axis(4, 4, 3, 2, ceil_mode=True) == [([0, 1], 4), ([1, 2, 3], 4)]
    assert reference.pool_adaptive_axis(5, 2) == [([0, 1, 2], 3), ([2, 3, 4], 3)]
    assert reference.pool_adaptive_axis(2, 3) == [([0], 1), ([0, 1], 2), ([1], 1)]
    x = np.array([[[3.0, 3.0, 1.0, np.nan, np.nan, 2.0]]])
    y, where = reference.pool_max(x, [[([0, 1, 2], 3), ([2, 3, 4], 3), ([5], 1)]])
    np.testing.assert_array_equal(y, [[[3.0, np.nan, 2.0]]])
    assert where.tolist() == [[[0, 4, 5]]]


@pytest.mark.parametrize("special", [False, True], ids=["numbers", "special values"])
def test_max(isa, dtype, rng, special):
    """Values and positions, bit for bit, for each geometry and around the lanes."""
    for geometry in GEOMETRIES:
        for c in channels(dtype):
            check_max(numbers(rng, 2, c, geometry[0], dtype, special), geometry)


def test_avg(isa, dtype, rng):
    for geometry in AVERAGES:
        for c in channels(dtype):
            x = numbers(rng, 2, c, geometry[0], dtype)
            for options in divisors(geometry[0]):
                check_avg(x, geometry, *options)


def test_avg_of_special_values(isa, dtype):
    """A NaN or an infinity reaches exactly the windows that it is in."""
    _, lanes = shapes.tile(dtype)
    x = np.ones((1, lanes + 1, 6), dtype)
    x[0, 0, 1], x[0, 1, 2], x[0, lanes, 5] = np.nan, np.inf, -np.inf
    y = avg_pool(x, ((6,), (2,), None, (0,), (1,), False))
    expected = np.ones((1, lanes + 1, 3), dtype)
    expected[0, 0, 0], expected[0, 1, 1], expected[0, lanes, 2] = np.nan, np.inf, -np.inf
    tolerance.same_bits(y, expected)


def test_adaptive(isa, dtype, rng):
    for (size, out), c in itertools.product(ADAPTIVE, channels(dtype)):
        axes = [reference.pool_adaptive_axis(n, m) for n, m in zip(size, out)]
        x = numbers(rng, 2, c, size, dtype)
        y, magnitude = reference.pool_avg(x, axes)
        bound = tolerance.pool_avg(terms(axes), magnitude, dtype)
        tolerance.close(np.asarray(adaptive("avg", x, out)), y, bound, f"{size} {out} {c}")
        for z in (x, numbers(rng, 2, c, size, dtype, True)):
            y, at = reference.pool_max(z, axes)
            values, where = adaptive("max", z, out, True)
            tolerance.same_bits(np.asarray(values), y, f"{size} {out} {c}")
            tolerance.same_bits(np.asarray(where), at, f"indices of {size} {out} {c}")


def test_global(isa, dtype, rng):
    """A window as large as the image and an adaptive size of 1 are the same, and None keeps an axis."""
    for size in ((9,), (4, 5), (2, 3, 4)):
        x, n = numbers(rng, 2, 5, size, dtype), len(size)
        geometry = (size, size, None, (0,) * n, (1,) * n, False)
        values, where = max_pool(x, geometry)
        tolerance.same_bits(values.reshape(2, 5), x.reshape(2, 5, -1).max(-1))
        tolerance.same_bits(where.reshape(2, 5), x.reshape(2, 5, -1).argmax(-1))
        tolerance.same_bits(np.asarray(adaptive("max", x, (1,) * n)), values)
        tolerance.same_bits(np.asarray(adaptive("avg", x, (1,) * n)), avg_pool(x, geometry))
        tolerance.same_bits(np.asarray(adaptive("avg", x, (None,) * n)), x)
    x = numbers(rng, 2, 3, (4, 6), dtype)
    for kind in ("avg", "max"):
        tolerance.same_bits(np.asarray(adaptive(kind, x, (None, 2))), np.asarray(adaptive(kind, x, (4, 2))))
        tolerance.same_bits(np.asarray(adaptive(kind, x, [2, None])), np.asarray(adaptive(kind, x, (2, 6))))


def test_only_infinities(isa, dtype):
    """A window of -inf has the maximum -inf at its first element within the image, which gets the gradient."""
    _, lanes = shapes.tile(dtype)
    for geometry in GEOMETRIES:
        x = np.full((2, lanes + 1, *geometry[0]), -np.inf, dtype)
        check_max(x, geometry)
    geometry = ((4, 4), (3, 3), (2, 2), (1, 1), (1, 1), False)
    values, where = max_pool(np.full((1, 1, 4, 4), -np.inf, dtype), geometry)
    assert np.isneginf(values).all()
    assert where.tolist() == [[[[0, 1], [4, 5]]]]
    dy = np.arange(1, 5, dtype=dtype).reshape(1, 1, 2, 2)
    dx = gradient(lambda t: F.max_pool2d(t, 3, 2, 1), np.full((1, 1, 4, 4), -np.inf, dtype), dy)
    assert dx[0, 0].tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0] * 4, [0] * 4]


def test_layouts(isa, dtype, rng):
    """Any strides of the input give the bits of a row-major one, and the input stays as it is."""
    for c in channels(dtype):
        for geometry in (GEOMETRIES[3], GEOMETRIES[10], GEOMETRIES[16]):
            x = numbers(rng, 2, c, geometry[0], dtype)
            y, where = max_pool(x, geometry)
            mean = None if max(geometry[4]) > 1 else avg_pool(x, geometry)
            for name, layout in {**shapes.LAYOUTS, "channels last": channels_last}.items():
                z = layout(x)
                got, at = max_pool(z, geometry)
                tolerance.same_bits(got, y, name)
                tolerance.same_bits(at, where, name)
                if mean is not None:
                    tolerance.same_bits(avg_pool(z, geometry), mean, name)
                np.testing.assert_array_equal(z, x)


def test_results_are_channels_last(isa):
    """What the next layer reads fastest, forward and backward."""
    x = nncore.ones(2, 3, 4, 6, requires_grad=True)
    for fn in (F.max_pool2d, F.avg_pool2d):
        y = fn(x, 2)
        assert y.shape == (2, 3, 2, 3)
        assert y.strides == (18, 1, 9, 3)


def test_batches(isa, dtype, rng):
    """An image alone, as a batch of one and without a batch axis, gives the bits that it has within a batch."""
    for geometry in (GEOMETRIES[3], GEOMETRIES[10], GEOMETRIES[16]):
        size, kernel, stride, padding, dilation, ceil_mode = geometry
        n, (_, lanes) = len(size), shapes.tile(dtype)
        x = numbers(rng, 5, lanes + 1, size, dtype)
        out = tuple(max(1, s // 2) for s in size)
        calls = [
            lambda t: getattr(F, f"max_pool{n}d")(t, kernel, stride, padding, dilation, ceil_mode, True),
            lambda t: (getattr(F, f"max_pool{n}d")(t, kernel, stride, padding, dilation, ceil_mode),),
            lambda t: (getattr(F, f"avg_pool{n}d")(t, kernel, stride, padding, ceil_mode),),
            lambda t: (getattr(F, f"adaptive_avg_pool{n}d")(t, out),),
            lambda t: getattr(F, f"adaptive_max_pool{n}d")(t, out, True),
        ]
        for k, call in enumerate(calls):
            batch = [np.asarray(t) for t in call(from_array(x))]
            for i in (0, 3):
                for whole, one, alone in zip(
                    batch, call(from_array(x[i : i + 1])), call(from_array(x[i])), strict=True
                ):
                    tolerance.same_bits(np.asarray(one)[0], whole[i], f"{k} {geometry}")
                    tolerance.same_bits(np.asarray(alone), whole[i], f"{k} {geometry}, unbatched")


def test_empty_batch(isa, dtype):
    """No image: results of the right shapes, and a gradient."""
    for fn, more in [
        (F.max_pool1d, (2,)),
        (F.max_pool2d, (2,)),
        (F.max_pool3d, (2,)),
        (F.avg_pool2d, (2,)),
        (F.adaptive_avg_pool2d, (2,)),
        (F.adaptive_max_pool3d, (2,)),
    ]:
        n = int(fn.__name__[-2])
        x = nncore.zeros(0, 3, *[4] * n, dtype=dtype, requires_grad=True)
        y = fn(x, *more)
        assert y.shape == (0, 3, *[2] * n)
        assert y.dtype == dtype
        y.sum().backward()
        assert x.grad.shape == x.shape
    y, where = F.max_pool2d(nncore.zeros(0, 3, 4, 4), 2, return_indices=True)
    assert where.shape == y.shape
    assert where.dtype == np.int64


def test_indices_gather_the_values(isa, dtype, rng):
    """return_indices: int64, row-major, and x at the indices is the result."""
    for geometry in (GEOMETRIES[3], GEOMETRIES[12], GEOMETRIES[17]):
        size, kernel, stride, padding, dilation, ceil_mode = geometry
        x = from_array(channels_last(numbers(rng, 3, 5, size, dtype)))
        fn = getattr(F, f"max_pool{len(size)}d")
        y, where = fn(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        assert isinstance(where, nncore.Tensor)
        assert where.dtype == np.int64
        assert where.shape == y.shape
        assert where.is_contiguous()
        assert not where.requires_grad
        n, c = np.arange(3)[:, None, None], np.arange(5)[None, :, None]
        picked = x.reshape(3, 5, -1)[n, c, where.reshape(3, 5, -1)]
        tolerance.same_bits(picked.numpy(), y.reshape(3, 5, -1).numpy())


# ---- backward ----


def test_max_backward(isa, dtype, rng):
    """Each gradient goes to where the maximum stood, and those of overlapping windows add in their order."""
    for geometry, c in itertools.product(GEOMETRIES, channels(dtype)):
        size, kernel, stride, padding, dilation, ceil_mode = geometry
        fn = getattr(F, f"max_pool{len(size)}d")
        for special in (False, True):
            x = numbers(rng, 2, c, size, dtype, special)
            y, where = reference.pool_max(x, windows(geometry))
            dy = numbers(rng, *y.shape[:2], y.shape[2:], dtype)
            dx = gradient(lambda t: fn(t, kernel, stride, padding, dilation, ceil_mode), x, dy)
            tolerance.same_bits(dx, reference.pool_max_backward(dy, where, size), f"{geometry} {c}")


def test_avg_backward(isa, dtype, rng):
    for geometry, c in itertools.product(AVERAGES, channels(dtype)):
        size, kernel, stride, padding, _, ceil_mode = geometry
        fn, axes = getattr(F, f"avg_pool{len(size)}d"), windows(geometry)
        x = numbers(rng, 2, c, size, dtype)
        dy = numbers(rng, 2, c, [len(a) for a in axes], dtype)
        for include, divisor in divisors(size):
            more = (divisor,) if len(size) > 1 else ()
            dx = gradient(lambda t: fn(t, kernel, stride, padding, ceil_mode, include, *more), x, dy)
            want, magnitude, count = reference.pool_avg_backward(dy, axes, size, include, divisor)
            tolerance.close(dx, want, tolerance.pool_avg(count + 1, magnitude, dtype), f"{geometry} {c} {include}")


def test_adaptive_backward(isa, dtype, rng):
    for (size, out), c in itertools.product(ADAPTIVE, channels(dtype)):
        axes = [reference.pool_adaptive_axis(n, m) for n, m in zip(size, out)]
        x, dy = numbers(rng, 2, c, size, dtype), numbers(rng, 2, c, out, dtype)
        fn = getattr(F, f"adaptive_avg_pool{len(size)}d")
        want, magnitude, count = reference.pool_avg_backward(dy, axes, size)
        bound = tolerance.pool_avg(count + 1, magnitude, dtype)
        tolerance.close(gradient(lambda t: fn(t, out), x, dy), want, bound, f"{size} {out} {c}")
        fn, (_, where) = getattr(F, f"adaptive_max_pool{len(size)}d"), reference.pool_max(x, axes)
        want = reference.pool_max_backward(dy, where, size)
        tolerance.same_bits(gradient(lambda t: fn(t, out), x, dy), want, f"{size} {out} {c}")
        tolerance.same_bits(gradient(lambda t: fn(t, out, True)[0], x, dy), want, f"{size} {out} {c} with indices")


def test_overlapping_windows_add_in_order(isa, dtype, rng):
    """The sums are those of the windows from the first to the last, to the bit; from the last they are others."""
    _, lanes = shapes.tile(dtype)
    size, geometry = (9, 8), ((9, 8), (4, 4), (1, 1), (2, 2), (1, 1), False)
    axes = windows(geometry)
    x, dy = numbers(rng, 2, lanes + 1, size, dtype), numbers(rng, 2, lanes + 1, [len(a) for a in axes], dtype)
    _, where = reference.pool_max(x, axes)
    want = reference.pool_max_backward(dy, where, size)
    assert (want != reference.pool_max_backward(dy, where, size, -1)).any()
    tolerance.same_bits(gradient(lambda t: F.max_pool2d(t, 4, 1, 2), x, dy), want)
    # a division by 16 is exact, so fused or not the sums have the same bits
    exact = {"precision": np.asarray, "divisor": 16}
    want = reference.pool_avg_backward(dy, axes, size, **exact)[0]
    assert (want != reference.pool_avg_backward(dy, axes, size, **exact, order=-1)[0]).any()
    assert want.dtype == dtype
    tolerance.same_bits(gradient(lambda t: F.avg_pool2d(t, 4, 1, 2), x, dy), want)


def test_layouts_of_the_gradient(isa, dtype, rng):
    """Any strides of dy, also one number for all, give the same bits."""
    _, lanes = shapes.tile(dtype)
    x, dy = numbers(rng, 2, lanes + 1, (6, 7), dtype), numbers(rng, 2, lanes + 1, (6, 7), dtype)
    for fn in (lambda t: F.max_pool2d(t, 3, 1, 1), lambda t: F.avg_pool2d(t, 3, 1, 1)):
        want = gradient(fn, x, dy)
        for name, layout in {**shapes.LAYOUTS, "channels last": channels_last}.items():
            tolerance.same_bits(gradient(fn, layout(x), layout(dy)), want, name)
        ones = np.ones_like(dy)
        tolerance.same_bits(gradient(fn, x, np.broadcast_to(dtype.type(1), dy.shape)), gradient(fn, x, ones), "one")


def test_backward_writes_nothing_else(isa, dtype, rng):
    """dx, allocated on memory full of a pattern, is written completely and not beyond."""
    for c, average in itertools.product(channels(dtype), (False, True)):
        windows = ops._strided((5, 7), (3, 2), (3, 4), (1, 0), (1, 1), False, average, True, None)  # with gaps
        x = from_array(channels_last(numbers(rng, 2, c, (5, 7), dtype)))
        y, index = kernels.forward(x, windows, True)
        assert (index is None) == average
        dy = from_array(channels_last(np.ones(y.shape, dtype)))
        shapes.prime(x.shape, dtype)
        dx = kernels.backward(dy, windows, index, x.shape)
        shapes.check_slack(dx, f"pool_backward of {c} channels")
        dx = np.asarray(dx)
        if average:
            want = reference.pool_avg_backward(
                np.ones(y.shape, dtype), [reference.pool_axis(5, 3, 3, 1), reference.pool_axis(7, 2, 4, 0)], (5, 7)
            )[0]
            tolerance.close(dx, want, np.finfo(dtype).eps)
        else:
            assert dx.sum() == y.numel()
            assert np.isin(dx, (0, 1)).all()


def test_backward_reads_what_was_pooled(dtype, rng):
    """Writing into the input after the forward changes no gradient: the positions were kept, not the numbers."""
    a = numbers(rng, 1, 3, (4, 4), dtype)
    dy = np.ones((1, 3, 2, 2), dtype)
    want = gradient(lambda t: F.max_pool2d(t, 2), a, dy)
    leaf = nncore.tensor(a, requires_grad=True)
    y = F.max_pool2d(leaf, 2)
    with nncore.no_grad():
        leaf.copy_(-a)
    y.backward(from_array(dy))
    tolerance.same_bits(leaf.grad.numpy(), want)


# ---- threads ----


def test_threads(isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits, and as many take part as there are pieces of work."""
    for n, c, size in ((9, 17, (40, 30)), (2, 1, (100, 90)), (1, 5, (40, 50))):
        x = channels_last(numbers(rng, n, c, size, dtype))
        for average in (False, True):
            windows = ops._strided(size, (3, 3), (1, 1), (1, 1), (1, 1), False, average, True, None)
            runtime.set_parallel_threshold(-1)
            runtime.set_num_threads(1)
            y, index = kernels.forward(from_array(x), windows, True)
            where = None if average else np.asarray(kernels.indices(y, index))
            dy = from_array(channels_last(numbers(rng, *y.shape[:2], y.shape[2:], dtype)))
            dx = kernels.backward(dy, windows, index, x.shape)
            per_chunk = min(1 + shapes.POOL_CHUNK // (c + 1), 1 + n * size[0] * size[1] // 8)
            pieces = -(-n * size[0] * size[1] // per_chunk)
            runtime.set_parallel_threshold(0.0)
            for threads in (1, 2, 3, 7):
                runtime.set_num_threads(threads)
                runtime.threads_used(True)
                got, at = kernels.forward(from_array(x), windows, True)
                assert runtime.threads_used(True) == min(threads, pieces)
                tolerance.same_bits(np.asarray(got), np.asarray(y), f"{threads} threads")
                if not average:
                    tolerance.same_bits(np.asarray(kernels.indices(got, at)), where, f"{threads} threads, indices")
                runtime.threads_used(True)
                got = kernels.backward(dy, windows, at, x.shape)
                assert runtime.threads_used(True) == min(threads, pieces)
                tolerance.same_bits(np.asarray(got), np.asarray(dx), f"{threads} threads, backward")


def test_threads_through_the_public_functions(isa, dtype, rng):
    """Copies into channels-last order included."""
    x = numbers(rng, 3, 5, (30, 20), dtype)
    dy = numbers(rng, 3, 5, (15, 10), dtype)
    fns = (lambda t: F.max_pool2d(t, 2), lambda t: F.avg_pool2d(t, 2), lambda t: F.adaptive_avg_pool2d(t, (15, 10)))
    runtime.set_num_threads(1)
    want = [(np.asarray(fn(from_array(x))), gradient(fn, x, dy)) for fn in fns]
    runtime.set_parallel_threshold(0.0)
    for threads in (2, 3, 7):
        runtime.set_num_threads(threads)
        for fn, (y, dx) in zip(fns, want):
            runtime.threads_used(True)
            tolerance.same_bits(np.asarray(fn(from_array(x))), y)
            tolerance.same_bits(gradient(fn, x, dy), dx)
            assert runtime.threads_used(True) >= min(threads, 3)


# ---- layers ----


LAYERS = [
    ("MaxPool", (3,), {"stride": 1, "padding": 1, "dilation": 2}),
    ("MaxPool", (2,), {"ceil_mode": True}),
    ("MaxPool", (2,), {"return_indices": True}),
    ("AvgPool", (2,), {"stride": 3, "padding": 1, "count_include_pad": False}),
    ("AvgPool", (2,), {"ceil_mode": True}),
    ("AvgPool", (2,), {"divisor_override": 3}),
    ("AdaptiveAvgPool", (3,), {}),
    ("AdaptiveMaxPool", (3,), {}),
    ("AdaptiveMaxPool", (2,), {"return_indices": True}),
]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind, args, options", LAYERS, ids=[f"{k} {o}" for k, _, o in LAYERS])
def test_layers(kind, args, options, axes, rng):
    """A layer passes every one of its arguments on: the function's bits, and other ones without the arguments."""
    fn = getattr(F, kind.replace("Pool", "_pool").replace("Adaptive", "adaptive_").lower() + f"{axes}d")
    if "divisor_override" in options and axes == 1:
        with pytest.raises(TypeError):
            nn.AvgPool1d(*args, **options)
        return
    layer = getattr(nn, f"{kind}{axes}d")
    x = nncore.tensor(numbers(rng, 2, 3, (7, 5, 9)[:axes], np.float32))

    def arrays(y):
        return [np.asarray(t) for t in (y if isinstance(y, tuple) else (y,))]

    got, want = arrays(layer(*args, **options)(x)), arrays(fn(x, *args, **options))
    for a, b in zip(got, want, strict=True):
        tolerance.same_bits(a, b)
    for name in options:  # each one matters
        fewer = arrays(fn(x, *args, **{k: v for k, v in options.items() if k != name}))
        assert len(fewer) != len(got) or fewer[0].shape != got[0].shape or (fewer[0] != got[0]).any(), name
    assert list(layer(*args, **options).parameters()) == []
    assert str(args[0]) in repr(layer(*args, **options))


COVERS = {"pool": test_max, "pool_backward": test_max_backward}
