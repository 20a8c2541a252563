"""Depthwise convolution, and grouped convolution with narrow groups: vectors over the channels of all groups."""
from itertools import accumulate
from operator import mul

from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport Storage, TensorBase, empty, find_packed, keep_packed, new_storage


cdef bint fits(int code, int64_t groups, int64_t read, int64_t written) noexcept:
    """Whether groups of this many channels leave most lanes of the GEMM micro-kernel idle."""
    cdef int64_t lanes = runtime.lanes(code)
    return groups > 1 and (read * written == 1 or (2 * written <= lanes and read <= lanes))


cdef void _spatial(TensorBase t, int64_t *to) noexcept:
    cdef int i, skip = 3 - (t.ndim - 2)
    for i in range(3):
        to[i] = t.dims[i - skip + 2] if i >= skip else 1


cdef void _geometry(nn_depthwise_args *a, int64_t groups, const int64_t *kernel, const int64_t *stride,
                    const int64_t *padding, const int64_t *dilation) noexcept:
    cdef int i
    a.groups = groups
    for i in range(3):
        a.kernel[i], a.stride[i], a.padding[i], a.dilation[i] = kernel[i], stride[i], padding[i], dilation[i]


cdef Storage _pack(bint transposed, TensorBase w, int64_t groups, int64_t taps):
    """w [groups * K, C, taps] as [tap][what is summed over][what is written]; for the forward direction kept while w
    stays as it is."""
    cdef nn_conv_pack_args a
    memset(&a, 0, sizeof(a))
    cdef Storage p
    cdef int64_t K = w.dims[0] // groups, C = w.dims[1]
    cdef tuple key = ("depthwise", <size_t>(w.data - w.storage.data), K, C, taps, groups)
    found = find_packed(w.storage, key) if not transposed else False
    if found is not False and found is not True:
        return <Storage>found
    a.groups, a.all_taps, a.n_taps, a.group_stride = groups, taps, taps, K * C * taps
    a.inputs, a.outputs = (K, C) if transposed else (C, K)
    a.in_stride, a.out_stride = (C * taps, taps) if transposed else (taps, C * taps)
    p = new_storage(<size_t>(w.count() * (4 if w.code == NN_FLOAT32 else 8)))
    a.w, a.packed = w.data, p.data
    runtime.run(NN_K_depthwise_pack, w.code, &a)
    if found is True:
        keep_packed(w.storage, key, p)
    return p


cdef object convolve(bint transposed, TensorBase x, TensorBase w, TensorBase bias, int act, TensorBase y,
                     int64_t groups, const int64_t *kernel, const int64_t *stride, const int64_t *padding,
                     const int64_t *dilation):
    """y = act(x * w + bias), or transposed, the gradient for the input of such a convolution: x is dY then, y dX. x and y
    are channels-last, w and bias row-major."""
    cdef nn_depthwise_args a
    memset(&a, 0, sizeof(a))
    cdef Storage p = _pack(transposed, w, groups, kernel[0] * kernel[1] * kernel[2])
    _geometry(&a, groups, kernel, stride, padding, dilation)
    _spatial(x, a.extent)
    _spatial(y, a.out)
    a.transposed, a.N, a.C, a.K = transposed, x.dims[0], x.dims[1] // groups, y.dims[1] // groups
    a.x, a.packed, a.y = x.data, p.data, y.data
    a.epilogue.bias = bias.data if bias is not None else NULL
    a.epilogue.n, a.epilogue.then[0].op = act >= 0, act
    runtime.run_with_scratch(NN_K_depthwise, x.code, &a, &a.scratch)


cdef TensorBase weight_gradient(TensorBase x, TensorBase dy, tuple shape, int64_t groups, const int64_t *kernel,
                                const int64_t *stride, const int64_t *padding, const int64_t *dilation):
    """dW of `shape`, row-major; x and dy are channels-last."""
    cdef nn_depthwise_args a
    memset(&a, 0, sizeof(a))
    cdef int64_t[3] dims
    cdef int64_t[3] steps
    cdef TensorBase dw
    _geometry(&a, groups, kernel, stride, padding, dilation)
    _spatial(x, a.extent)
    _spatial(dy, a.out)
    a.transposed, a.N, a.C, a.K = False, x.dims[0], x.dims[1] // groups, dy.dims[1] // groups
    dims[0], dims[1], dims[2] = kernel[0] * kernel[1] * kernel[2], a.C, dy.dims[1]
    dw = empty(x.code, 3, dims)
    a.x, a.dy, a.dw = x.data, dy.data, dw.data
    runtime.run_with_scratch(NN_K_depthwise_weight, x.code, &a, &a.scratch)
    steps[0], steps[1], steps[2] = 1, dims[2], dims[1] * dims[2]
    dims[0], dims[2] = dims[2], dims[0]
    dw = contiguous(dw.view(3, dims, steps, 0))
    return dw._view(shape, tuple(accumulate((1, *reversed(shape[1:])), mul))[::-1], 0)
