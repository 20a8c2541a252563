"""Pooling over channels-last images. All on three spatial axes; fewer have size 1 in front."""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport channels_last
from .tensor cimport Storage, TensorBase, empty_channels_last, empty, new_storage, no_reading


cdef class Windows:
    """The windows of a pooling: per axis where each starts and how many elements it has, and what their sums are
    divided by. Made once per geometry."""
    cdef int64_t *start[3]
    cdef int64_t *count[3]
    cdef double *divisor
    cdef int64_t[3] step
    cdef int64_t[3] out
    cdef readonly int axes

    def __cinit__(self, list axes, tuple step, divisors=None):
        """axes: for each spatial axis [(start, count)]; divisors: for each output point in order, for averages."""
        cdef int d, skip = 3 - len(axes)
        cdef int64_t i, points = 1
        self.axes = len(axes)
        for d in range(3):
            windows = axes[d - skip] if d >= skip else [(0, 1)]
            self.step[d] = step[d - skip] if d >= skip else 1
            self.out[d] = len(windows)
            points *= len(windows)
            self.start[d] = <int64_t *>PyMem_Malloc((len(windows) + 1) * sizeof(int64_t))
            self.count[d] = <int64_t *>PyMem_Malloc((len(windows) + 1) * sizeof(int64_t))
            if self.start[d] == NULL or self.count[d] == NULL:
                raise MemoryError()
            for i, (start, count) in enumerate(windows):
                self.start[d][i] = start
                self.count[d][i] = count
        if divisors is not None:
            self.divisor = <double *>PyMem_Malloc((points + 1) * sizeof(double))
            if self.divisor == NULL:
                raise MemoryError()
            for i, v in enumerate(divisors):
                self.divisor[i] = v

    def __dealloc__(self):
        for d in range(3):
            PyMem_Free(self.start[d])
            PyMem_Free(self.count[d])
        PyMem_Free(self.divisor)

    cdef void fill(self, nn_pool_args *a, TensorBase x) noexcept:
        cdef int d, skip = 3 - self.axes
        a.max = self.divisor == NULL
        a.N, a.C = x.dims[0], x.dims[1]
        a.divisor = self.divisor
        for d in range(3):
            a.extent[d] = x.dims[d - skip + 2] if d >= skip else 1
            a.out[d], a.step[d] = self.out[d], self.step[d]
            a.start[d], a.count[d] = self.start[d], self.count[d]
            runtime.keep(self.start[d], <size_t>self.out[d] * sizeof(int64_t), self)
            runtime.keep(self.count[d], <size_t>self.out[d] * sizeof(int64_t), self)
        runtime.keep(self.divisor, <size_t>(self.out[0] * self.out[1] * self.out[2]) * sizeof(double) * (self.divisor != NULL), self)


def forward(TensorBase x, Windows w, bint with_index):
    """(pooled [N, C, out], channels-last; where the maxima stood, for backward and indices, or None)."""
    cdef nn_pool_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y
    cdef Storage index = None
    cdef int64_t[8] dims
    cdef int i
    x = channels_last(x)
    dims[0], dims[1] = x.dims[0], x.dims[1]
    for i in range(w.axes):
        dims[2 + i] = w.out[3 - w.axes + i]
    y = empty_channels_last(x.code, x.ndim, dims)
    w.fill(&a, x)
    if with_index and a.max:
        index = new_storage(<size_t>(y.count() * sizeof(int32_t)))
    a.x, a.y, a.index = x.data, y.data, <int32_t *>index.data if index is not None else NULL
    runtime.run(NN_K_pool, x.code, &a)
    return y, index


def backward(TensorBase dy, Windows w, Storage index, tuple shape):
    """dX of `shape`, channels-last."""
    cdef nn_pool_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dx
    cdef int64_t[8] dims
    cdef int i
    for i in range(len(shape)):
        dims[i] = shape[i]
    dy = channels_last(dy)
    dx = empty_channels_last(dy.code, dy.ndim, dims)
    w.fill(&a, dx)
    a.dy, a.dx, a.index = dy.data, dx.data, <int32_t *>index.data if index is not None else NULL
    runtime.run(NN_K_pool_backward, dy.code, &a)
    return dx


def indices(TensorBase y, Storage index):
    """The positions of the maxima as an int64 tensor of y's shape, row-major."""
    no_reading(y, "return_indices")
    cdef TensorBase out = empty(NN_INT64, y.ndim, y.dims)
    cdef const int32_t *p = <const int32_t *>index.data
    cdef int64_t *q = <int64_t *>out.data
    cdef int64_t n, c, s, N = y.dims[0], C = y.dims[1], S = y.count() // max(1, y.dims[0] * y.dims[1])
    for n in range(N):
        for c in range(C):
            for s in range(S):
                q[(n * C + c) * S + s] = p[(n * S + s) * C + c]
    return out
