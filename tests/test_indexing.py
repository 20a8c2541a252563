"""Rows by index: gather, scatter, scatter_add."""

import numpy as np
import pytest

from nncore._core import indexing, runtime, tensor

from . import shapes, tolerance

from_array = tensor.from_array

COLUMNS = shapes.GATHER_COLUMNS


def gather(x, index):
    inner = int(np.prod(x.shape[1:]))
    shape = index.shape + x.shape[1:]
    shapes.prime(shape, x.dtype)
    y = indexing.gather(from_array(x), from_array(index), inner, shape)
    shapes.check_slack(y, "gather")
    return np.asarray(y)


def put(kernel, x, index, y):
    """scatter or scatter_add into a guarded copy of x."""
    guarded = shapes.Guarded(x.shape, x.dtype)
    guarded.array[...] = x
    kernel(guarded.tensor, from_array(index), from_array(y), int(np.prod(x.shape[1:])))
    guarded.check(kernel.__name__)
    return guarded.array


def problems(rng, dtype):
    """(x, index, y) with rows of one element, of lengths around vectors, of none, and of several chunks."""
    _, lanes = shapes.tile(dtype)
    for inner in (0, 1, 2, *shapes.around(lanes), 4 * lanes + 3, *shapes.around(COLUMNS), 2 * COLUMNS + 5):
        for rows, n in ((1, 1), (5, 0), (7, 3), (6, 40)):
            x = rng.standard_normal((rows, inner)).astype(dtype)
            index = rng.integers(0, rows, n)
            yield x, index, rng.standard_normal((n, inner)).astype(dtype)


def test_gather(isa, dtype, rng):
    """Rows in any order, repeated or left out; NaN bits as they are."""
    for x, index, _ in problems(rng, dtype):
        if x.size:
            x[0, 0] = np.nan
        tolerance.same_bits(gather(x, index), x[index])
    x = rng.standard_normal((5, 3, 4)).astype(dtype)
    index = rng.integers(0, 5, (2, 6))
    tolerance.same_bits(gather(x, index), x[index])


def test_scatter(isa, dtype, rng):
    """The last of equal indices wins, and rows without an index stay."""
    for x, index, y in problems(rng, dtype):
        expected = x.copy()
        for i, row in zip(index, y):
            expected[i] = row
        tolerance.same_bits(put(indexing.scatter, x, index, y), expected)


def test_scatter_add(isa, dtype, rng):
    """Rows are added in the order of the indices: exactly the sums that NumPy's add.at makes."""
    for x, index, y in problems(rng, dtype):
        expected = x.copy()
        np.add.at(expected, index, y)
        tolerance.same_bits(put(indexing.scatter_add, x, index, y), expected)


def test_scatter_add_of_nan_and_infinity(isa, dtype):
    """They reach their own element only."""
    x, y = np.zeros((3, 20), dtype), np.ones((4, 20), dtype)
    y[1, 5], y[2, 6], y[3, 6] = np.nan, np.inf, -np.inf
    got = put(indexing.scatter_add, x, np.array([0, 1, 1, 1]), y)
    assert np.flatnonzero(np.isnan(got)).tolist() == [25, 26]
    assert np.array_equal(got[0], np.ones(20))


@pytest.mark.parametrize("inner,n", [(5 * COLUMNS + 3, 6), (1, 100_000), (40, 4000)])
def test_threads(isa, dtype, rng, inner, n):
    """1, 2, 3 and 7 threads give the same bits; gather divides the rows, scatter the columns."""
    x = rng.standard_normal((50, inner)).astype(dtype)
    index = rng.integers(0, 50, n)
    y = rng.standard_normal((n, inner)).astype(dtype)
    added = x.copy()
    np.add.at(added, index, y)
    rows, columns = -(-n // (1 + shapes.CHUNK // (inner + 1))), -(-inner // COLUMNS)
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(gather(x, index), x[index])
        assert runtime.threads_used(True) == min(threads, rows)
        tolerance.same_bits(put(indexing.scatter_add, x, index, y), added)
        assert runtime.threads_used(True) == min(threads, columns)
        expected = x.copy()
        expected[index] = y  # NumPy, too, lets the last one win
        tolerance.same_bits(put(indexing.scatter, x, index, y), expected)
        assert runtime.threads_used(True) == min(threads, columns)


def test_read_only(dtype):
    """gather reads read-only memory; scatter refuses to write it, and counts its writes."""
    x = np.arange(6, dtype=dtype).reshape(3, 2)
    fixed = shapes.LAYOUTS["read-only"](x)
    index = np.array([2, 0])
    tolerance.same_bits(gather(fixed, index), x[index])
    with pytest.raises(ValueError, match="read-only"):
        indexing.scatter(from_array(fixed), from_array(index), from_array(x[:2].copy()), 2)
    tolerance.same_bits(fixed, x)
    t = from_array(x)
    before = t._storage.version
    indexing.scatter(t, from_array(index), from_array(x[:2].copy()), 2)
    assert t._storage.version > before


def test_checked_index():
    """Negative indices count from the end; what is out of range is an error that names it."""
    wrapped = indexing.checked_index(from_array(np.array([[0, -1], [4, -5]])), 5, "index", True)
    assert np.asarray(wrapped).tolist() == [[0, 4], [4, 0]]
    assert np.asarray(indexing.checked_index(from_array(np.arange(6)[::-2]), 6, "index", True)).tolist() == [5, 3, 1]
    for bad in (5, -6, 2**62, -(2**63)):
        with pytest.raises(IndexError, match=f"index: expected .* got {bad} at position 1"):
            indexing.checked_index(from_array(np.array([0, bad])), 5, "index", True)


def test_index(isa, rng):
    """Indices are copied, counted from the end, left out, or refused with their value and place."""
    for n in (0, 1, 7, 100):
        x = rng.integers(-10, 10, n)
        y = np.asarray(indexing.checked_index(from_array(x), 10, "index", True))
        assert np.array_equal(y, np.where(x < 0, x + 10, x))
        x = np.abs(x)
        assert np.array_equal(indexing.checked_index(from_array(x), 11, "index"), x)
        y = np.asarray(indexing.checked_index(from_array(x), 11, "index", False, 3))
        assert np.array_equal(y, np.where(x == 3, -1, x))
    for wrap, bad in ((False, -1), (False, 5), (True, -6), (True, 5), (False, 2**62), (True, -(2**63))):
        x = np.array([0, 4, bad, 7])
        with pytest.raises(tensor.OutOfRange, match=f"target: .*{bad} at position 2"):
            indexing.checked_index(from_array(x), 5, "target", wrap)


COVERS = {"index": test_index, "gather": test_gather, "scatter": test_scatter, "scatter_add": test_scatter_add}
