"""Affine resampling of images."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, empty_channels_last


def affine(TensorBase x, TensorBase matrix, TensorBase hole, tuple size, bint edge, double value):
    """Images x [N, C, H, W] at the positions that matrix [N, 2, 3] (float64) gives, with hole [N, 4] (int64) or None blank;
    [N, C, *size], channels-last if x is."""
    cdef nn_affine_args a
    memset(&a, 0, sizeof(a))
    cdef int64_t[4] dims
    cdef TensorBase y
    x = x if x.channels_last else contiguous(x)
    matrix = contiguous(matrix)
    dims[0], dims[1], dims[2], dims[3] = x.dims[0], x.dims[1], size[0], size[1]
    y = empty_channels_last(x.code, 4, dims) if x.channels_last else empty(x.code, 4, dims)
    a.N = dims[0]
    a.planes = 1 if x.channels_last else dims[1]
    a.inner = dims[1] if x.channels_last else 1
    a.extent[0], a.extent[1], a.out[0], a.out[1] = x.dims[2], x.dims[3], dims[2], dims[3]
    a.matrix = <const double *>matrix.data
    if hole is not None:
        hole = contiguous(hole)
        a.hole = <const int64_t *>hole.data
    a.edge, a.value = edge, value
    a.x, a.y = x.data, y.data
    runtime.run(NN_K_affine, x.code, &a)
    return y
