"""Rows by index."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from nncore._core.record import note_index
from nncore._core.tensor import OutOfRange

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, require_writable, touch


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
    runtime.run(NN_K_gather, x.code, &g)
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


def checked_index(TensorBase index, int64_t n, str name, bint wrap=False, ignore=None):
    """A private row-major copy of an int64 tensor, whose elements are all in [0, n); with `wrap`, negative ones count from
    the end. Elements equal to `ignore` become -1. Backward reads it again, and the caller's memory may have changed by then."""
    cdef nn_index_args a
    memset(&a, 0, sizeof(a))
    index = contiguous(index)
    cdef TensorBase out = empty(NN_INT64, index.ndim, index.dims), bad = empty(NN_INT64, 0, NULL)
    a.n, a.size, a.wrap = index.count(), n, wrap
    a.ignore, a.ignored = ignore is not None, 0 if ignore is None else ignore
    a.x, a.y, a.bad = <const int64_t *>index.data, <int64_t *>out.data, <int64_t *>bad.data
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
