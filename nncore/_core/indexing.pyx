"""Rows by index."""
from libc.stdint cimport int64_t

from nncore._core.tensor import OutOfRange

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, require_writable


def gather(TensorBase x, TensorBase index, int64_t inner, tuple shape):
    """Rows of `inner` elements of contiguous x, by contiguous checked int64 index; the result has `shape`."""
    cdef nn_gather_args g
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
    g.n = index.count()
    g.inner = inner
    g.x = x.data
    g.index = <const int64_t *>index.data
    g.y = y.data
    runtime.run(NN_K_scatter_add, x.code, &g)


def scatter(TensorBase x, TensorBase index, TensorBase y, int64_t inner):
    """x[index[i]] = y[i], rows of `inner` elements; all contiguous; the last of equal indices wins."""
    cdef nn_gather_args g
    require_writable(x)
    x.storage.version += 1
    g.n = index.count()
    g.inner = inner
    g.x = x.data
    g.index = <const int64_t *>index.data
    g.y = y.data
    runtime.run(NN_K_scatter, x.code, &g)
    x.storage.version += 1


def checked_index(TensorBase index, int64_t n, str name, bint wrap=False):
    """A private row-major copy of an int64 tensor, whose elements are all in [0, n); with `wrap`, negative ones count from
    the end. Backward reads it again, and the caller's memory may have changed by then."""
    cdef TensorBase out
    cdef const int64_t *p
    cdef int64_t *q
    cdef int64_t i, least = -n if wrap else 0
    index = contiguous(index)
    out = empty(NN_INT64, index.ndim, index.dims)
    p = <const int64_t *>index.data
    q = <int64_t *>out.data
    for i in range(index.count()):
        q[i] = p[i]  # read once
        if q[i] < least or q[i] >= n:
            raise OutOfRange(f"{name}: expected indices from {least} to {n - 1}, got {q[i]} at position {i}")
        if q[i] < 0:
            q[i] += n
    return out
