"""Matrix products."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport Storage, TensorBase, empty, find_packed, keep_packed, new_storage


cdef TensorBase _matrix(TensorBase t):
    """t, copied unless one of its last two strides is 1 and the other is a sound leading dimension."""
    cdef int64_t r = t.steps[t.ndim - 2], c = t.steps[t.ndim - 1]
    cdef int64_t m = t.dims[t.ndim - 2], n = t.dims[t.ndim - 1]
    if (c == 1 or n <= 1) and (r >= n or m <= 1):
        return t
    if (r == 1 or m <= 1) and (c >= m or n <= 1):
        return t
    return contiguous(t)


cdef void _strides(TensorBase t, int64_t *rs, int64_t *cs) noexcept:
    """Row and column stride of the last two dimensions; the stride of a dimension of size 1 is free, so choose
    it such that the other one may be the unit stride that the kernel looks for."""
    rs[0] = t.steps[t.ndim - 2]
    cs[0] = t.steps[t.ndim - 1]
    if t.dims[t.ndim - 1] <= 1:
        cs[0] = 1 if rs[0] != 1 else t.dims[t.ndim - 2]
    elif t.dims[t.ndim - 2] <= 1:
        rs[0] = 1 if cs[0] != 1 else t.dims[t.ndim - 1]


cdef Storage _packed(TensorBase b, int64_t K, int64_t N, int64_t rs, int64_t cs):
    """The packed copy of a parameter that has not changed since its last use, or None."""
    cdef Storage p
    cdef nn_gemm_pack_args a
    memset(&a, 0, sizeof(a))
    cdef int64_t nr
    cdef tuple key = (runtime.isa(), <size_t>(b.data - b.storage.data), K, N, rs, cs)
    found = find_packed(b.storage, key)
    if found is not True:
        return <Storage>found if found is not False else None
    nr = runtime.gemm_nr(b.code)
    p = new_storage(<size_t>(K * ((N + nr - 1) // nr * nr) * (4 if b.code == NN_FLOAT32 else 8)))
    a.N = N
    a.K = K
    a.B = b.data
    a.rsB = rs
    a.csB = cs
    a.packed = p.data
    runtime.run(NN_K_gemm_pack, b.code, &a)
    keep_packed(b.storage, key, p)
    return p


cdef TensorBase _gemm(TensorBase a, TensorBase b, TensorBase bias, int act, int64_t batch, TensorBase out):
    cdef nn_gemm_args g
    memset(&g, 0, sizeof(g))
    cdef Storage pack = None
    if a.code != b.code or a.code > NN_FLOAT64:
        raise TypeError(f"expected two floating operands of one dtype, got {a.dtype} and {b.dtype}")
    g.M = a.dims[a.ndim - 2]
    g.K = a.dims[a.ndim - 1]
    g.N = b.dims[b.ndim - 1]
    _strides(a, &g.rsA, &g.csA)
    _strides(b, &g.rsB, &g.csB)
    if b.ndim == 2:
        pack = _packed(b, g.K, g.N, g.rsB, g.csB)
    g.A = a.data
    g.B = b.data
    g.packed = pack.data if pack is not None else NULL
    g.C = out.data
    g.ldC = g.N
    g.beta = 0
    g.epilogue.bias = bias.data if bias is not None else NULL
    g.epilogue.n, g.epilogue.then[0].op = act >= 0, act
    g.batch = batch
    g.bsA = a.steps[0] if a.ndim == 3 else 0
    g.bsB = b.steps[0] if b.ndim == 3 else 0
    g.bsC = g.M * g.N
    runtime.run_with_scratch(NN_K_gemm, a.code, &g, &g.scratch)
    return out


def matmul(TensorBase a, TensorBase b):
    """a [M,K] @ b [K,N], or [batch,M,K] @ [batch,K,N] (either batch may be missing); strides are free."""
    cdef int64_t[3] dims
    cdef bint batched = a.ndim == 3 or b.ndim == 3
    cdef int64_t batch = a.dims[0] if a.ndim == 3 else (b.dims[0] if b.ndim == 3 else 1)
    dims[0] = batch
    dims[1] = a.dims[a.ndim - 2]
    dims[2] = b.dims[b.ndim - 1]
    a = _matrix(a)
    b = _matrix(b)
    return _gemm(a, b, None, -1, batch, empty(a.code, 3, dims) if batched else empty(a.code, 2, &dims[1]))


def linear(TensorBase x, TensorBase weight, TensorBase bias=None, int act=-1):
    """act(x [*,I] weight[O,I]^T + bias[O]) -> [*,O], act being an elementwise operation, or -1. The caller has checked shapes and dtypes."""
    cdef int64_t[8] dims
    cdef int64_t[2] two
    cdef int64_t[2] steps
    cdef int i
    cdef int64_t I = weight.dims[1], O = weight.dims[0], rows
    cdef TensorBase x2, wt, out
    x = contiguous(x)
    weight = contiguous(weight)
    rows = x.count() // I if I else 1
    if not I:
        for i in range(x.ndim - 1):
            rows *= x.dims[i]
    for i in range(x.ndim - 1):
        dims[i] = x.dims[i]
    dims[x.ndim - 1] = O
    out = empty(x.code, x.ndim, dims)
    two[0], two[1] = rows, I
    steps[0], steps[1] = I, 1
    x2 = x.view(2, two, steps, 0)
    two[0], two[1] = I, O
    steps[0], steps[1] = 1, I
    wt = weight.view(2, two, steps, 0)
    if bias is not None:
        bias = contiguous(bias)
    return _gemm(x2, wt, bias, act, 1, out)
