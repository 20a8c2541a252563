"""Sums, maxima and minima over axes, and the places of extremes."""

import numpy as np
import pytest

import nncore
from nncore._core import reduction, runtime, tensor

from . import shapes, tolerance
from .reference import wide

from_array = tensor.from_array

BLOCK, PIECE, ROWS, ROW_PIECE = shapes.SUM_BLOCK, shapes.SUM_PIECE, shapes.SUM_ROWS, shapes.SUM_ROW_PIECE


def run(op, x, first, last, scale=1.0, with_index=False):
    """reduce on an array; held to write nothing beyond its results."""
    shapes.prime(x.shape[:first] + x.shape[last:], x.dtype)
    y, index = reduction.reduce(op, from_array(x), first, last, scale, with_index)
    if not with_index or x.dtype == np.float64:
        shapes.check_slack(y, f"reduce {x.shape} over {first}..{last}")
    return np.asarray(y), None if index is None else np.asarray(index)


def check_sum(x, first, last, scale, what):
    axes = tuple(range(first, last))
    _, lanes = shapes.tile(x.dtype)
    n, inner = int(np.prod(x.shape[first:last])), int(np.prod(x.shape[last:]))
    magnitude = np.abs(wide(x)).sum(axes)
    bound = (
        tolerance.sum_rows(n, lanes, magnitude, x.dtype) if inner == 1 else tolerance.sum_columns(n, magnitude, x.dtype)
    )
    y = wide(x).sum(axes) * scale
    got, _ = run(reduction.SUM, x, first, last, scale)
    tolerance.close(got, y, abs(scale) * bound + np.finfo(x.dtype).eps * np.abs(y), what)


def test_sum_of_rows(isa, dtype, rng):
    """Along contiguous rows: lengths around vectors, blocks and pieces; few and many rows."""
    sizes = [*shapes.lengths(dtype), *shapes.around(BLOCK, 2 * BLOCK), *shapes.around(PIECE), 3 * PIECE + 5]
    for n in sizes:
        for rows in (0, 1, 3) if n > 5000 else (0, 1, 5, 40):
            x = rng.standard_normal((rows, n)).astype(dtype)
            check_sum(x, 1, 2, 0.25, f"{rows} rows of {n}")


def test_sum_across_rows(isa, dtype, rng):
    """Across rows: columns around vectors and column chunks, depths around the blocks and pieces, several outer."""
    _, lanes = shapes.tile(dtype)
    for inner in [*shapes.around(lanes, 8 * lanes), 2, 16 * lanes + 3]:
        for n in (0, 1, 2, *shapes.around(ROWS, 3 * ROWS)):
            x = rng.standard_normal((2, n, inner)).astype(dtype)
            check_sum(x, 1, 2, 1.5, f"{n} of {inner}")
    for n in (*shapes.around(ROW_PIECE), 3 * ROW_PIECE + 77):
        for inner in (2, lanes + 1):
            check_sum(rng.standard_normal((2, n, inner)).astype(dtype), 1, 2, 1.5, f"{n} of {inner}")


def test_sum_of_axes(isa, dtype, rng):
    """Every run of neighbouring axes, of arrays in any layout."""
    x = rng.standard_normal((3, 4, 5, 6)).astype(dtype)
    for first in range(4):
        for last in range(first, 5):
            check_sum(x, first, last, 1.0, f"{first}..{last}")
            y, _ = run(reduction.SUM, x, first, last)
            for name, layout in shapes.LAYOUTS.items():
                z = layout(x)
                tolerance.same_bits(run(reduction.SUM, z, first, last)[0], y, name)
                tolerance.same_bits(z, x, name)
    wide_row = np.broadcast_to(x[:1], x.shape)
    tolerance.same_bits(run(reduction.SUM, wide_row, 0, 2)[0], run(reduction.SUM, wide_row.copy(), 0, 2)[0])


def test_large_sums_keep_their_digits(isa):
    """A million ones, and a large number among small ones: the error does not grow with n."""
    for shape, first in (((1_000_003,), 0), ((1_000_003, 2), 0)):
        assert (run(reduction.SUM, np.ones(shape, np.float32), first, first + 1)[0] == 1_000_003).all()
    x = np.full(2**20, 0.1, np.float32)
    exact = float(np.float32(0.1)) * 2**20
    assert abs(float(run(reduction.SUM, x, 0, 1)[0]) - exact) <= 4 * np.finfo(np.float32).eps * exact


def test_sum_of_nothing(dtype):
    """The sum of nothing is 0; its mean is NaN, as NumPy's and torch's."""
    for shape in ((0,), (3, 0), (0, 3), (2, 0, 3)):
        assert nncore.from_numpy(np.zeros(shape, dtype)).sum().item() == 0
        assert np.isnan(nncore.from_numpy(np.zeros(shape, dtype)).mean().item())
    assert np.isnan(nncore.from_numpy(np.zeros((3, 0), dtype)).mean(1).numpy()).all()
    assert np.isnan(nncore.from_numpy(np.zeros((0, 3), dtype)).mean(0).numpy()).all()
    assert nncore.from_numpy(np.zeros((0, 3), dtype)).sum(1).shape == (0,)


def test_sum_of_nan_and_infinity(isa, dtype, rng):
    """A NaN or infinity reaches the sums it belongs to and no others."""
    for shape, axis in (((5, 700), 1), ((700, 5), 0), ((2, 5000, 3), 1)):
        x = rng.standard_normal(shape).astype(dtype)
        clean, _ = run(reduction.SUM, x, axis, axis + 1)
        for bad in (np.nan, np.inf, -np.inf):
            for where in (0, -1, shape[axis] // 2):
                z = x.copy()
                at = [1] * x.ndim
                at[axis] = where
                z[tuple(at)] = bad
                y, _ = run(reduction.SUM, z, axis, axis + 1)
                hit = np.zeros(y.shape, bool)
                hit[(1,) * y.ndim] = True
                assert np.isnan(y[hit]).all() if np.isnan(bad) else (y[hit] == bad).all()
                tolerance.same_bits(y[~hit], clean[~hit])


def extremes(x, axis, largest):
    """(values, first places): NaN counts as the extreme, as NumPy's."""
    place = (np.argmax if largest else np.argmin)(x, axis)
    return np.take_along_axis(x, np.expand_dims(place, axis), axis).squeeze(axis), place


@pytest.mark.parametrize("largest", [True, False], ids=["max", "min"])
def test_extremes(isa, dtype, rng, largest):
    """Values and first places, with ties, NaN and infinities, along rows and across them."""
    op = reduction.MAX if largest else reduction.MIN
    _, lanes = shapes.tile(dtype)
    for n in [s for s in shapes.lengths(dtype) if s] + [700]:
        for inner in (1, 2, lanes + 1):
            clean = rng.integers(-3, 4, (3, n, inner)).astype(dtype)  # few values: many ties
            nan = clean.copy()
            nan[0, n // 2, 0] = nan[1, n - 1, inner - 1] = np.nan
            infinite = clean.copy()
            infinite[:, n // 3], infinite[:, n - 1] = np.inf, -np.inf
            every = np.full_like(clean, np.nan)
            for x in (
                clean,
                nan,
                infinite,
                every,
                np.full_like(clean, -np.inf),
                np.full_like(clean, np.inf),
                -np.abs(clean),
            ):
                x = x[..., 0] if inner == 1 else x
                y, index = run(op, x, 1, 2, with_index=True)
                value, place = extremes(x, 1, largest)
                assert np.array_equal(y, value, equal_nan=True), f"{n} {inner}"
                assert np.array_equal(index, place), f"{n} {inner}"
                assert np.array_equal(run(op, x, 1, 2)[0], value, equal_nan=True)


def test_extremes_of_axes(isa, dtype, rng):
    """Runs of axes and layouts; of nothing there is no extreme."""
    x = rng.standard_normal((3, 4, 5, 6)).astype(dtype)
    for first, last in ((0, 1), (1, 3), (0, 4), (3, 4), (2, 2)):
        axes = tuple(range(first, last))
        for name, layout in shapes.LAYOUTS.items():
            z = layout(x)
            tolerance.same_bits(run(reduction.MAX, z, first, last)[0], x.max(axes), name)
            tolerance.same_bits(run(reduction.MIN, z, first, last)[0], x.min(axes), name)
            tolerance.same_bits(z, x, name)
    with pytest.raises(ValueError, match="no elements"):
        reduction.reduce(reduction.MAX, from_array(np.zeros((3, 0), dtype)), 1, 2)


@pytest.mark.parametrize("op", [reduction.SUM, reduction.MAX, reduction.MIN], ids=["sum", "max", "min"])
@pytest.mark.parametrize(
    "shape,axis", [((300, 700), 1), ((2, 300000), 1), ((900, 700), 0), ((30000, 3), 0), ((4, 5000, 40), 1)]
)
def test_threads(isa, dtype, rng, op, shape, axis):
    """1, 2, 3 and 7 threads give the same bits and, for these sizes, all take part."""
    x = rng.standard_normal(shape).astype(dtype)
    runtime.set_num_threads(1)
    y, _ = run(op, x, axis, axis + 1)
    runtime.set_parallel_threshold(0.0)
    _, lanes = shapes.tile(dtype)
    outer, n, inner = int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))
    if op != reduction.SUM:
        chunks = -(-outer // (1 + shapes.CHUNK // (n * inner + 1)))
    elif inner > 1:
        pieces = -(-n // ROW_PIECE) * outer
        chunks = -(-inner // (shapes.SUM_COLUMNS // (1 if pieces >= 4 else 2) * lanes)) * pieces
    elif n > PIECE:
        chunks = -(-n // PIECE) * outer
    else:
        chunks = -(-outer // (1 + shapes.CHUNK // (n + 1)))
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(run(op, x, axis, axis + 1)[0], y, f"{threads} threads")
        assert runtime.threads_used(True) == min(threads, chunks)


def test_one_row_alone(isa, dtype, rng):
    """A row's sum does not depend on the rows beside it, nor a column's on its columns beside it."""
    _, lanes = shapes.tile(dtype)
    for n in (lanes + 1, 700, PIECE + 3):
        x = rng.standard_normal((9, n)).astype(dtype)
        y, _ = run(reduction.SUM, x, 1, 2)
        for i in range(9):
            tolerance.same_bits(run(reduction.SUM, x[i : i + 1], 1, 2)[0], y[i : i + 1])
        x = rng.standard_normal((min(n, 5000), 3 * lanes + 1)).astype(dtype)
        y, _ = run(reduction.SUM, x, 0, 1)
        for i in range(3 * lanes):
            tolerance.same_bits(run(reduction.SUM, x[:, i : i + 2], 0, 1)[0], y[i : i + 2])


COVERS = {"reduce": test_sum_of_rows}
