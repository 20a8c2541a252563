"""Rows by index."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from nncore._core.record import note_index
from nncore._core.tensor import OutOfRange

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, empty_constant, no_reading, require_writable, touch


def gather(TensorBase x, TensorBase index, int64_t inner, tuple shape):
    """Rows of `inner` elements of contiguous x, by contiguous checked int64 index; the result has `shape`."""
    cdef nn_gather_args g
    memset(&g, 0, sizeof(g))
    cdef int64_t[8] dims
    cdef int i
    if len(shape) > NN_MAX_DIMS:
        raise ValueError(f"index: the result would have {len(shape)} dimensions, at most {NN_MAX_DIMS} are possible")
    for i in range(len(shape)):
        dims[i] = shape[i]
    cdef TensorBase y = empty(x.code, len(shape), dims)
    g.n = index.count()
    g.inner = inner
    g.x = x.data
    g.index = <const int64_t *>index.data
    g.y = y.data
    runtime.run(NN_K_gather, NN_FLOAT64 if x.code == NN_INT64 else x.code, &g)  # bits are moved
    return y


def scatter_add(TensorBase x, TensorBase index, TensorBase y, int64_t inner):
    """x[index[i]] += y[i], rows of `inner` elements; all contiguous."""
    cdef nn_gather_args g
    memset(&g, 0, sizeof(g))
    g.n = index.count()
    g.inner = inner
    g.x = x.data
    g.index = <const int64_t *>index.data
    g.y = y.data
    runtime.run(NN_K_scatter_add, x.code, &g)


def scatter(TensorBase x, TensorBase index, TensorBase y, int64_t inner):
    """x[index[i]] = y[i], rows of `inner` elements; all contiguous; the last of equal indices wins."""
    cdef nn_gather_args g
    memset(&g, 0, sizeof(g))
    require_writable(x)
    touch(x.storage)
    g.n = index.count()
    g.inner = inner
    g.x = x.data
    g.index = <const int64_t *>index.data
    g.y = y.data
    runtime.run(NN_K_scatter, x.code, &g)
    touch(x.storage)


def checked_index(TensorBase index, int64_t n, str name, bint wrap=False, ignore=None, TensorBase after=None):
    """A private row-major copy of an int64 tensor, whose elements are all in [0, n); with `wrap`, negative ones count from
    the end. Elements equal to `ignore` become -1. Backward reads it again, and the caller's memory may have changed by then.
    after: checked positions on the axes before this one of n elements; the result are those on all."""
    cdef nn_index_args a
    memset(&a, 0, sizeof(a))
    index = contiguous(index)
    cdef TensorBase out = empty(NN_INT64, index.ndim, index.dims), bad = empty(NN_INT64, 0, NULL)
    a.n, a.size, a.wrap = index.count(), n, wrap
    a.ignore, a.ignored = ignore is not None, 0 if ignore is None else ignore
    a.x, a.y, a.bad = <const int64_t *>index.data, <int64_t *>out.data, <int64_t *>bad.data
    a.after = NULL if after is None else <const int64_t *>after.data
    note_index(name)
    runtime.run(NN_K_index, NN_FLOAT32, &a)
    raise_if_bad(<size_t>&a, name)
    return out


def raise_if_bad(size_t args, str name):
    """Raises OutOfRange if the index kernel that ran with these arguments met an element that is out of range."""
    cdef const nn_index_args *a = <const nn_index_args *>args
    if a.bad[0] >= 0:
        raise OutOfRange(f"{name}: expected indices from {-a.size if a.wrap else 0} to {a.size - 1}, got {a.x[a.bad[0]]} at "
                         f"position {a.bad[0]}")


def places(TensorBase index, int64_t n):
    """Flat positions in a matrix [rows, n] of the columns that a checked index [rows, width] lists; -1 from the first negative one
    of a row on."""
    cdef nn_places_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y = empty(NN_INT64, 2, index.dims)
    a.rows, a.width, a.n = index.dims[0], index.dims[1], n
    a.index = <const int64_t *>index.data
    a.y = <int64_t *>y.data
    runtime.run(NN_K_places, NN_FLOAT32, &a)
    return y


def bag(TensorBase x, TensorBase index, TensorBase start, TensorBase weight, str mode):
    """Rows of contiguous x [n, inner] in bags, by contiguous checked index: bag b has the indices start[b] to start[b + 1] - 1,
    without those below 0. Gives (sum, mean or max of each bag [bags, inner]; number of rows of each bag if mean; flat
    positions of the largest elements, -1 for none, if max)."""
    cdef nn_bag_args a
    memset(&a, 0, sizeof(a))
    cdef int64_t[2] dims
    cdef TensorBase y, count = None, where = None
    dims[0], dims[1] = start.dims[0] - 1, x.dims[1]
    y = empty(x.code, 2, dims)
    a.max = mode == "max"
    a.bags = dims[0]
    a.inner = dims[1]
    a.x = x.data
    a.weight = NULL if weight is None else weight.data
    a.index = <const int64_t *>index.data
    a.start = <const int64_t *>start.data
    a.y = y.data
    if mode == "mean":
        count = empty(x.code, 1, dims)
        a.count = count.data
    elif a.max:
        where = empty(NN_INT64, 2, dims)
        a.where = <int64_t *>where.data
    runtime.run(NN_K_bag, x.code, &a)
    return y, count, where


def bags(TensorBase offsets, int64_t n, bint closed):
    """(where each bag begins and the last one ends, the bag of each index), from offsets into n indices; `closed`: the last
    offset is that end."""
    cdef int64_t i, j, low = 0, count = offsets.count() - closed
    cdef int64_t size = count + 1
    cdef TensorBase start, which
    cdef const int64_t *p
    cdef int64_t *q
    no_reading(offsets, "offsets")
    if count < 0:
        raise ValueError("offsets: expected at least one, the end of the last bag")
    offsets = contiguous(offsets)
    start, which = empty_constant(NN_INT64, 1, &size), empty_constant(NN_INT64, 1, &n)
    p = <const int64_t *>offsets.data
    q = <int64_t *>start.data
    for i in range(count + closed):
        q[i] = p[i]  # read once
        if q[i] < low or q[i] > n or (i == 0 and q[i]):
            raise ValueError(f"offsets: expected rising numbers from 0 to {n}, got {q[i]} at position {i}")
        low = q[i]
    q[count] = low if closed else n
    for i in range(count):
        for j in range(q[i], q[i + 1]):
            (<int64_t *>which.data)[j] = i
    for j in range(q[count], n):  # after the last bag: in none
        (<int64_t *>which.data)[j] = -1
    return start, which
