from libc.stdint cimport int64_t

from .tensor cimport TensorBase

cdef bint fits(int code, int64_t groups, int64_t read, int64_t written) noexcept
cdef object convolve(bint transposed, TensorBase x, TensorBase w, TensorBase bias, int act, TensorBase y,
                     int64_t groups, const int64_t *kernel, const int64_t *stride, const int64_t *padding,
                     const int64_t *dilation)
cdef TensorBase weight_gradient(TensorBase x, TensorBase dy, tuple shape, int64_t groups, const int64_t *kernel,
                                const int64_t *stride, const int64_t *padding, const int64_t *dilation)
