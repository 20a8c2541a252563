"""Rows by index: gather, scatter, scatter_add."""

import itertools

import numpy as np
import pytest

from nncore._core import indexing, runtime, tensor

from . import reference, shapes, tolerance

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


def test_negative_indices_are_left_out(isa, dtype, rng):
    """scatter and scatter_add write nothing for an index below 0, gather gives zeros."""
    x, y = rng.standard_normal((3, 5)).astype(dtype), rng.standard_normal((3, 5)).astype(dtype)
    index = np.array([-1, 2, -1])
    for kernel, row in ((indexing.scatter, y[1]), (indexing.scatter_add, x[2] + y[1])):
        expected = x.copy()
        expected[2] = row
        tolerance.same_bits(put(kernel, x, index, y), expected)
    tolerance.same_bits(gather(x, index), np.stack([np.zeros_like(x[0]), x[2], np.zeros_like(x[0])]))


# ---- bags ----


def bag(x, index, start, weight=None, mode="sum"):
    shapes.prime((len(start) - 1, x.shape[1]), x.dtype)
    w = None if weight is None else from_array(weight)
    y, count, where = indexing.bag(from_array(x), from_array(index), from_array(start), w, mode)
    shapes.check_slack(y, "bag")
    return np.asarray(y), count, where


@pytest.mark.parametrize("mode", ["sum", "mean", "max", "weighted"])
def test_bag(isa, dtype, rng, mode):
    """Bags of any size, empty ones, and a row that does not count; of a maximum, where it stood."""
    _, lanes = shapes.tile(dtype)
    eps = np.finfo(dtype).eps
    for inner in (1, 3, *shapes.around(lanes, 2 * lanes), 70):
        x = rng.standard_normal((9, inner)).astype(dtype)
        for start in ([0, 3, 3, 4, 11], [0, 0], [0]):
            start = np.array(start)
            index = rng.integers(0, 9, start[-1])
            weight = rng.standard_normal(start[-1]).astype(dtype) if mode == "weighted" else None
            for skip in (9, 4):
                index = np.where(index == skip, -1, index)
                name = "sum" if mode == "weighted" else mode
                y, count, where = bag(x, index, start, weight, name)
                expected, size, at = reference.bag(x, index, start, weight, name)
                # a chain of at most 7 products and additions, then the reciprocal of the count and a product
                tolerance.close(y, expected, (7 + 2) * eps * size)
                if mode == "max":
                    assert np.array_equal(np.asarray(where), at)
                if mode == "mean":
                    sizes = [sum(i >= 0 for i in index[a:b]) for a, b in itertools.pairwise(start)]
                    assert np.asarray(count).tolist() == sizes


def test_bag_of_nan(isa, dtype):
    """NaN reaches the sums and maxima of its own bag and column."""
    x = np.array([[1, 2], [np.nan, 3], [4, np.inf]], dtype)
    index, start = np.array([0, 1, 2, 0, 2]), np.array([0, 3, 5])
    for mode, expected in (("sum", [[np.nan, np.inf], [5, np.inf]]), ("max", [[np.nan, np.inf], [4, np.inf]])):
        assert np.array_equal(bag(x, index, start, mode=mode)[0], np.array(expected), equal_nan=True)


def test_bag_threads(isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits."""
    x = rng.standard_normal((50, 40)).astype(dtype)
    index, start = rng.integers(-1, 50, 6000), np.arange(0, 6001, 3)
    expected = {mode: bag(x, index, start, mode=mode)[0] for mode in ("sum", "mean", "max")}
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        for mode, y in expected.items():
            runtime.threads_used(True)
            tolerance.same_bits(bag(x, index, start, mode=mode)[0], y, f"{mode}, {threads} threads")
            assert runtime.threads_used(True) == min(threads, -(-2000 // (1 + shapes.CHUNK // 41)))


def test_places(isa):
    """Flat positions of the labels before the first -1 of each row."""
    for labels, expected in (
        ([[2, 0, -1], [-1, 1, 1], [1, 1, 2]], [[2, 0, -1], [-1, -1, -1], [7, 7, 8]]),
        (np.zeros((2, 0), int), np.zeros((2, 0), int)),
        (np.zeros((0, 3), int), np.zeros((0, 3), int)),
    ):
        shapes.prime(np.shape(labels), np.dtype(np.int64))
        y = indexing.places(from_array(np.array(labels)), 3)
        shapes.check_slack(y, "places")
        assert np.array_equal(np.asarray(y), expected)


def test_bags():
    """Offsets become where each bag begins and ends, and the bag of each index."""
    for offsets, closed, start, which in (
        ([0, 2, 2], False, [0, 2, 2, 4], [0, 0, 2, 2]),
        ([0, 2, 4], True, [0, 2, 4], [0, 0, 1, 1]),
        ([0, 3], True, [0, 3], [0, 0, 0, -1]),
        ([0], True, [0], [-1] * 4),
    ):
        got = indexing.bags(from_array(np.array(offsets)), 4, closed)
        assert [np.asarray(g).tolist() for g in got] == [start, which]


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


COVERS = {
    "bag": test_bag,
    "gather": test_gather,
    "index": test_index,
    "places": test_places,
    "scatter": test_scatter,
    "scatter_add": test_scatter_add,
}
