"""Elementwise kernels: broadcasting operations, their sums, and copies between types."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .tensor cimport TensorBase, empty, empty_channels_last, memory_order, require_writable, scalar, touch


cdef int64_t BRIEF = 4096  # elements: microseconds of the slowest operations


cdef object _mismatch(TensorBase a, TensorBase b):
    return ValueError(f"shapes {a.shape} and {b.shape} cannot be broadcast together")


cdef int _broadcast(nn_ewise_args *e, TensorBase x, TensorBase first) except -1:
    """Widens e.shape by x's."""
    cdef int i, at
    cdef int grow = x.ndim - e.ndim
    if grow > 0:
        for i in range(e.ndim - 1, -1, -1):
            e.shape[i + grow] = e.shape[i]
        for i in range(grow):
            e.shape[i] = 1
        e.ndim = x.ndim
    for i in range(x.ndim):
        at = e.ndim - x.ndim + i
        if x.dims[i] != e.shape[at]:
            if e.shape[at] == 1:
                e.shape[at] = x.dims[i]
            elif x.dims[i] != 1:
                raise _mismatch(first, x)
    return 0


cdef void _strides(int64_t *steps, const nn_ewise_args *e, TensorBase x) noexcept:
    cdef int i, skip = e.ndim - x.ndim
    for i in range(e.ndim):
        steps[i] = 0 if i < skip or x.dims[i - skip] == 1 else x.steps[i - skip]


cdef int _operands(nn_ewise_args *e, TensorBase a, TensorBase b, TensorBase c) except -1:
    """Common shape, pointers and strides; gives the dtype."""
    cdef int i
    e.ndim = a.ndim
    for i in range(a.ndim):
        e.shape[i] = a.dims[i]
    if b is not None:
        if b.code != a.code:
            raise TypeError(f"expected operands of one dtype, got {a.dtype} and {b.dtype}")
        _broadcast(e, b, a)
    if c is not None:
        if c.code != a.code:
            raise TypeError(f"expected operands of one dtype, got {a.dtype} and {c.dtype}")
        _broadcast(e, c, a)
    if a.code > NN_FLOAT64:
        raise TypeError(f"expected a floating tensor, got {a.dtype}")
    e.x[0] = a.data
    _strides(e.xs[0], e, a)
    if b is not None:
        e.x[1] = b.data
        _strides(e.xs[1], e, b)
    if c is not None:
        e.x[2] = c.data
        _strides(e.xs[2], e, c)
    return a.code


cdef TensorBase _result(const nn_ewise_args *e, int code, TensorBase a, TensorBase b, TensorBase c):
    """A fresh result: channels-last if an operand of its full shape is."""
    cdef int i
    cdef bint full
    for t in (a, b, c):
        if t is not None and (<TensorBase>t).channels_last and (<TensorBase>t).ndim == e.ndim:
            full = True
            for i in range(e.ndim):
                full = full and (<TensorBase>t).dims[i] == e.shape[i]
            if full:
                return empty_channels_last(code, e.ndim, e.shape)
    return empty(code, e.ndim, e.shape)


cpdef TensorBase ewise(int op, TensorBase a, TensorBase b=None, TensorBase c=None, double s=0, double t=0, TensorBase out=None):
    """op(a, b, c; s, t), broadcast, into a new tensor or `out` (of the result's shape)."""
    cdef nn_ewise_args e
    memset(&e, 0, sizeof(e))
    cdef int i, code
    code = _operands(&e, a, b, c)
    if out is None:
        out = _result(&e, code, a, b, c)
    else:
        require_writable(out)
        if out.code != code or out.ndim < e.ndim:
            raise ValueError(f"out: expected {a.dtype} of the result's shape, got {out.dtype} of {out.shape}")
        if out.ndim > e.ndim:
            raise ValueError(f"out: has shape {out.shape}, the result has {e.ndim} dimensions")
        for i in range(e.ndim):
            if out.dims[i] != e.shape[i]:
                raise ValueError(f"out: shape {out.shape} is not the result's "
                                 f"{tuple([e.shape[k] for k in range(e.ndim)])}")
        touch(out.storage)
    e.op = op
    e.sum = 0
    e.s = s
    e.t = t
    e.y = out.data
    _strides(e.ys, &e, out)
    if out.channels_last:
        memory_order(e.ndim, e.shape)
        memory_order(e.ndim, e.ys)
        for i in range(3):
            memory_order(e.ndim, e.xs[i])
    if out.count() <= BRIEF:
        runtime.run_briefly(NN_K_ewise, code, &e)
    else:
        runtime.run(NN_K_ewise, code, &e)
    touch(out.storage)  # also after the write: a pack made in between holds neither version
    return out


def ewise_sum(int op, TensorBase a, TensorBase b=None, double scale=1, double s=0, double t=0):
    """scale * the sum of op(a, b; s, t) over all elements, as a tensor without dimensions."""
    cdef nn_ewise_args e
    memset(&e, 0, sizeof(e))
    cdef int code = _operands(&e, a, b, None)
    cdef TensorBase out = scalar(code)
    e.op = op
    e.sum = 1
    e.s = s
    e.t = t
    e.scale = scale
    e.y = out.data
    runtime.run_with_scratch(NN_K_ewise, code, &e, &e.scratch)
    return out


cdef void _copy(TensorBase dst, TensorBase src) noexcept:
    cdef nn_cast_args c
    memset(&c, 0, sizeof(c))
    cdef int i, skip = dst.ndim - src.ndim
    c.ndim = dst.ndim
    c.xtype = src.code
    c.ytype = dst.code
    c.y = dst.data
    c.x = src.data
    for i in range(dst.ndim):
        c.shape[i] = dst.dims[i]
        c.ys[i] = dst.steps[i]
        c.xs[i] = 0 if i < skip or src.dims[i - skip] == 1 else src.steps[i - skip]
    if dst.channels_last:
        memory_order(c.ndim, c.shape)
        memory_order(c.ndim, c.ys)
        memory_order(c.ndim, c.xs)
    runtime.run(NN_K_cast, NN_FLOAT64 if c.ytype == NN_FLOAT64 else NN_FLOAT32, &c)


def cast(TensorBase t, int code):
    """A row-major copy in another dtype."""
    cdef TensorBase out = empty(code, t.ndim, t.dims)
    _copy(out, t)
    return out


cpdef TensorBase contiguous(TensorBase t):
    """t itself if it is row-major, else a row-major copy."""
    cdef TensorBase out
    if t.contiguous():
        return t
    out = empty(t.code, t.ndim, t.dims)
    _copy(out, t)
    return out


cpdef TensorBase channels_last(TensorBase t):
    """t [N, C, spatial...] itself if it is tagged as channels-last, else under that tag where memory is in both orders at once, as
    of one channel, else a copy."""
    cdef TensorBase out
    cdef int64_t n = 1
    cdef int i
    if t.channels_last:
        return t
    for i in range(2, t.ndim):
        n *= t.dims[i]
    if (n != 1 and t.dims[1] != 1) or not t.contiguous():
        out = empty_channels_last(t.code, t.ndim, t.dims)
        _copy(out, t)
        return out
    out = t.alias()
    out.channels_last = True
    n = t.dims[1]
    out.steps[1] = 1
    for i in range(t.ndim - 1, 1, -1):
        out.steps[i] = n
        n *= t.dims[i]
    out.steps[0] = n
    return out


def copy_into(TensorBase dst, TensorBase src):
    """dst[...] = src, broadcast and converted to dst's dtype; bumps dst's version."""
    cdef int i, skip = dst.ndim - src.ndim
    require_writable(dst)
    for i in range(src.ndim):
        if skip < 0 or (src.dims[i] != 1 and src.dims[i] != dst.dims[i + skip]):
            raise ValueError(f"value: shape {src.shape} cannot be broadcast to {dst.shape}")
    touch(dst.storage)
    _copy(dst, src)
    touch(dst.storage)


def fill(TensorBase t, double value):
    """t[...] = value; bumps t's version."""
    cdef nn_ewise_args e
    memset(&e, 0, sizeof(e))
    cdef int i
    require_writable(t)
    touch(t.storage)
    e.op = NN_OP_fill
    e.sum = 0
    e.s = value
    e.ndim = t.ndim
    e.y = t.data
    for i in range(t.ndim):
        e.shape[i] = t.dims[i]
        e.ys[i] = t.steps[i]
    if t.code > NN_FLOAT64:
        raise TypeError(f"expected a floating tensor, got {t.dtype}")
    runtime.run(NN_K_ewise, t.code, &e)
    touch(t.storage)
