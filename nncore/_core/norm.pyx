"""Normalization over groups of elements, and local response normalization. Arrays are dense, in the order that the
geometry (N, P, C, G) says: [N][P][C] with G groups of channels."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .tensor cimport TensorBase, empty, empty_like, require_writable, touch


cdef void *_data(TensorBase t) noexcept:
    return NULL if t is None else t.data


cdef void _geometry(nn_norm_args *a, tuple geometry, bint fixed, bint rms, bint relu) except *:
    a.N, a.P, a.C, a.G = geometry
    a.fixed, a.rms, a.relu = fixed, rms, relu


def forward(TensorBase x, TensorBase weight, TensorBase bias, tuple geometry, double eps, bint rms=False, bint relu=False,
            TensorBase running_mean=None, TensorBase running_var=None, bint fixed=False, double momentum=0,
            TensorBase batches=None):
    """(y of x's shape and layout; mean and rstd of the groups [N, G], for backward). geometry: (N, P, C, G)."""
    cdef nn_norm_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y = empty_like(x), mean = None, rstd
    cdef int64_t[2] dims
    if not fixed:
        for t in (running_mean, running_var, batches):
            if t is not None:
                require_writable(t)
    _geometry(&a, geometry, fixed, rms, relu)
    dims[0], dims[1] = a.N, a.G
    rstd = empty(x.code, 2, dims)
    if not rms:
        mean = empty(x.code, 2, dims)
    a.eps, a.momentum = eps, momentum
    a.x, a.weight, a.bias, a.y = x.data, _data(weight), _data(bias), y.data
    a.mean, a.rstd = _data(mean), rstd.data
    a.running_mean, a.running_var = _data(running_mean), _data(running_var)
    a.batches = <int64_t *>_data(batches)
    runtime.run_with_scratch(NN_K_norm, x.code, &a, &a.scratch)
    if not fixed:
        for t in (running_mean, running_var, batches):
            if t is not None:
                touch((<TensorBase>t).storage)
    return y, mean, rstd


def backward(TensorBase x, TensorBase dy, TensorBase weight, TensorBase bias, TensorBase mean, TensorBase rstd,
             tuple geometry, bint need_x, bint need_weight, bint need_bias, bint rms=False, bint fixed=False, bint relu=False):
    """(dX in x's layout, which dy has too, or None; dweight [C] or None; dbias [C] or None)."""
    cdef nn_norm_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dx = empty_like(x) if need_x else None, dweight = None, dbias = None
    _geometry(&a, geometry, fixed, rms, relu)
    if need_weight:
        dweight = empty(x.code, 1, &a.C)
    if need_bias:
        dbias = empty(x.code, 1, &a.C)
    a.x, a.dy, a.weight, a.bias = x.data, dy.data, _data(weight), _data(bias)
    a.mean, a.rstd = _data(mean), rstd.data
    a.dx, a.dweight, a.dbias = _data(dx), _data(dweight), _data(dbias)
    runtime.run_with_scratch(NN_K_norm_backward, x.code, &a, &a.scratch)
    return dx, dweight, dbias


def lrn(TensorBase x, TensorBase dy, int64_t size, double alpha, double beta, double k):
    """x with its channels last normalized across them; with dy (in x's layout), dX."""
    cdef nn_lrn_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase out = empty_like(x)
    a.C, a.size, a.alpha, a.beta, a.k = x.dims[1], size, alpha, beta, k
    a.rows = x.count() // a.C if a.C else 0
    a.x, a.dy = x.data, _data(dy)
    a.y = a.dx = out.data
    runtime.run_with_scratch(NN_K_lrn, x.code, &a, &a.scratch)
    return out
