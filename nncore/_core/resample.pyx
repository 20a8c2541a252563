"""Interpolation of channels-last images. All on three spatial axes; fewer have size 1 in front."""
from itertools import accumulate

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport channels_last
from .tensor cimport TensorBase, empty_channels_last


cdef class Taps:
    """A sparse matrix in rows: what each output along an axis adds up."""
    cdef int64_t *at
    cdef int64_t *source
    cdef double *weight
    cdef int64_t size, count  # of the outputs, of all entries

    def __cinit__(self, list rows):
        """rows: for each output [(input, weight)]."""
        cdef int64_t i = 0
        self.size = len(rows)
        self.count = sum(len(row) for row in rows)
        self.at = <int64_t *>PyMem_Malloc(<size_t>(self.size + 1) * sizeof(int64_t))
        self.source = <int64_t *>PyMem_Malloc(<size_t>(self.count + 1) * sizeof(int64_t))
        self.weight = <double *>PyMem_Malloc(<size_t>(self.count + 1) * sizeof(double))
        if self.at == NULL or self.source == NULL or self.weight == NULL:
            raise MemoryError()
        for i, v in enumerate(accumulate((len(row) for row in rows), initial=0)):
            self.at[i] = v
        i = 0
        for row in rows:
            for source, weight in row:
                self.source[i], self.weight[i] = source, weight
                i += 1

    def __dealloc__(self):
        PyMem_Free(self.at)
        PyMem_Free(self.source)
        PyMem_Free(self.weight)


def apply(TensorBase x, tuple axes):
    """y [N, C, sizes of the Taps] of x, channels-last: forward, and backward with the matrices transposed."""
    cdef nn_resample_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y
    cdef Taps taps
    cdef int64_t[8] dims
    cdef int d, skip = 3 - len(axes)
    x = channels_last(x)
    dims[0], dims[1] = x.dims[0], x.dims[1]
    a.N, a.C = x.dims[0], x.dims[1]
    for d in range(3):
        taps = axes[d - skip] if d >= skip else _SAME
        a.extent[d], a.out[d] = x.dims[d - skip + 2] if d >= skip else 1, taps.size
        if d >= skip:
            dims[d - skip + 2] = taps.size
        a.at[d], a.from_[d], a.weight[d] = taps.at, taps.source, taps.weight
        runtime.keep(taps.at, <size_t>(taps.size + 1) * sizeof(int64_t), taps)
        runtime.keep(taps.source, <size_t>taps.count * sizeof(int64_t), taps)
        runtime.keep(taps.weight, <size_t>taps.count * sizeof(double), taps)
    y = empty_channels_last(x.code, x.ndim, dims)
    a.x, a.y = x.data, y.data
    runtime.run_with_scratch(NN_K_resample, x.code, &a, &a.scratch)
    return y


_SAME = Taps([[(0, 1.0)]])
