"""Pooling over channels-last images. All on three spatial axes; fewer have size 1 in front."""
from itertools import accumulate

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport channels_last
from .tensor cimport Storage, TensorBase, empty_channels_last, empty, new_storage


cdef class Windows:
    """The windows of a pooling: per axis where each starts and how many elements it has, which windows hold an element, and
    what their sums are multiplied by. Made once per geometry."""
    cdef int64_t *start[3]
    cdef int64_t *count[3]
    cdef int64_t *cover_at[3]
    cdef int64_t *cover[3]
    cdef double *scale
    cdef int64_t[3] step
    cdef int64_t[3] out
    cdef readonly int axes

    def __cinit__(self, tuple sizes, list axes, tuple step, scales=None):
        """sizes: of the image; axes: for each spatial axis [(start, count)]; scales: for each output point in order, for
        averages."""
        cdef int d, skip = 3 - len(axes)
        cdef int64_t i
        self.axes = len(axes)
        for d in range(3):
            windows = axes[d - skip] if d >= skip else [(0, 1)]
            self.step[d] = step[d - skip] if d >= skip else 1
            self.out[d] = len(windows)
            self.start[d] = _table([start for start, _ in windows])
            self.count[d] = _table([count for _, count in windows])
            holds = [[] for _ in range(sizes[d - skip] if d >= skip else 1)]
            for o, (start, count) in enumerate(windows):
                for i in range(start, start + count * self.step[d], self.step[d]):
                    holds[i].append(o)
            self.cover_at[d] = _table([0, *accumulate(len(found) for found in holds)])
            self.cover[d] = _table([o for found in holds for o in found])
        if scales is not None:
            self.scale = <double *>PyMem_Malloc((len(scales) + 1) * sizeof(double))
            if self.scale == NULL:
                raise MemoryError()
            for i, v in enumerate(scales):
                self.scale[i] = v

    def __dealloc__(self):
        for d in range(3):
            PyMem_Free(self.start[d])
            PyMem_Free(self.count[d])
            PyMem_Free(self.cover_at[d])
            PyMem_Free(self.cover[d])
        PyMem_Free(self.scale)

    cdef void fill(self, nn_pool_args *a, TensorBase x) noexcept:
        cdef int d, skip = 3 - self.axes
        a.max = self.scale == NULL
        a.N, a.C = x.dims[0], x.dims[1]
        a.scale = self.scale
        for d in range(3):
            a.extent[d] = x.dims[d - skip + 2] if d >= skip else 1
            a.out[d], a.step[d] = self.out[d], self.step[d]
            a.start[d], a.count[d] = self.start[d], self.count[d]
            a.cover_at[d], a.cover[d] = self.cover_at[d], self.cover[d]
            runtime.keep(self.start[d], <size_t>self.out[d] * sizeof(int64_t), self)
            runtime.keep(self.count[d], <size_t>self.out[d] * sizeof(int64_t), self)
            runtime.keep(self.cover_at[d], <size_t>(a.extent[d] + 1) * sizeof(int64_t), self)
            runtime.keep(self.cover[d], <size_t>self.cover_at[d][a.extent[d]] * sizeof(int64_t), self)
        runtime.keep(self.scale, <size_t>(self.out[0] * self.out[1] * self.out[2]) * sizeof(double) * (self.scale != NULL), self)


cdef int64_t *_table(list values) except NULL:
    cdef int64_t i
    cdef int64_t *p = <int64_t *>PyMem_Malloc((len(values) + 1) * sizeof(int64_t))
    if p == NULL:
        raise MemoryError()
    for i in range(len(values)):
        p[i] = values[i]
    return p


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
    cdef nn_cast_args c
    memset(&c, 0, sizeof(c))
    cdef TensorBase out = empty(NN_INT64, y.ndim, y.dims)
    cdef int i
    c.ndim, c.xtype, c.ytype = y.ndim, NN_INT32, NN_INT64
    c.x, c.y = index.data, out.data
    for i in range(y.ndim):
        c.shape[i], c.ys[i], c.xs[i] = y.dims[i], out.steps[i], y.steps[i]
    runtime.run(NN_K_cast, NN_FLOAT32, &c)
    return out
