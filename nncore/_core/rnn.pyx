"""Recurrent layers, one direction a call: the walk over the steps. The products before and after it are dense.pyx's."""
import numpy as np

from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport Storage, TensorBase, empty, empty_constant, find_packed, keep_packed, new_storage, no_reading

RNN_TANH, RNN_RELU, LSTM, GRU = NN_RNN_TANH, NN_RNN_RELU, NN_LSTM, NN_GRU


cdef Storage _packed(TensorBase w, int64_t H, bint by_gate):
    """W_hh [G H, H] for the products with it: each gate's transpose in turn (by_gate), or as it is. A parameter's copy
    is kept until it changes: there must be one anyway."""
    cdef nn_gemm_pack_args a
    memset(&a, 0, sizeof(a))
    cdef Storage p
    cdef int64_t g, nr = runtime.gemm_nr(w.code), parts, part
    cdef int64_t itemsize = 4 if w.code == NN_FLOAT32 else 8
    cdef tuple key = ("rnn", runtime.isa(), <size_t>(w.data - w.storage.data), H, w.dims[0], by_gate)
    found = find_packed(w.storage, key)
    if found is not True and found is not False:
        return <Storage>found
    parts = w.dims[0] // H if by_gate and H % nr != 0 else 1  # whole panels: the gates' copies are one
    a.N, a.K = (w.dims[0] // parts, H) if by_gate else (H, w.dims[0])
    a.rsB = 1 if by_gate else H
    a.csB = H if by_gate else 1
    part = a.K * ((a.N + nr - 1) // nr * nr) * itemsize
    p = new_storage(<size_t>(parts * part))
    for g in range(parts):
        a.B = w.data + g * H * H * itemsize
        a.packed = p.data + g * part
        runtime.run(NN_K_gemm_pack, w.code, &a)
    if w.storage.tracked:
        keep_packed(w.storage, key, p)
    return p


cdef char *_direction(TensorBase t, int d, int64_t numbers) noexcept:
    """The data of t, `numbers` elements on for each direction; NULL for None."""
    return t.data + d * numbers * (4 if t.code == NN_FLOAT32 else 8) if t is not None else NULL


cdef void _common(nn_rnn_args *a, int cell, TensorBase gates, TensorBase y, TensorBase h0, TensorBase c0,
                  TensorBase sizes, int64_t H, int d) noexcept:
    cdef int64_t numbers = (<const int64_t *>sizes.data)[0] * H
    a.cell, a.H, a.ldy = cell, H, y.dims[1]
    a.steps, a.sizes = sizes.dims[0], <const int64_t *>sizes.data
    a.gates, a.y = gates.data, _direction(y, d, H)
    a.h0, a.c0 = _direction(h0, d, numbers), _direction(c0, d, numbers)
    a.c = a.hidden = NULL
    a.dgates = a.drecurrent = a.hprev = a.dh0 = a.dc0 = NULL


def steps(int64_t n, int64_t rows):
    """The sizes of n steps of equally many rows."""
    cdef TensorBase t = empty_constant(NN_INT64, 1, &n)
    cdef int64_t i
    for i in range(n):
        (<int64_t *>t.data)[i] = rows
    return t


def checked_sizes(TensorBase sizes, int64_t rows):
    """A copy that nobody else can write; raises unless it is int64, does not rise, and adds up to the rows."""
    cdef TensorBase t
    cdef int64_t i, total = 0, former = rows
    if sizes.code != NN_INT64 or sizes.ndim != 1:
        raise TypeError(f"batch_sizes: expected int64 in one dimension, got {sizes.dtype} of shape {sizes.shape}")
    no_reading(sizes, "batch_sizes")
    t = empty_constant(NN_INT64, 1, sizes.dims)
    for i in range(sizes.dims[0]):
        former = min(former, max(<int64_t>0, (<int64_t *>sizes.data)[i * sizes.steps[0]]))
        (<int64_t *>t.data)[i] = former
        total += former
        if former != (<int64_t *>sizes.data)[i * sizes.steps[0]]:
            total = -1
            break
    if sizes.dims[0] == 0 or total != rows:
        raise ValueError(f"batch_sizes: expected sizes that do not rise and add up to the {rows} rows, got {np.asarray(sizes)}")
    return t


def forward(int cell, int d, TensorBase gates, TensorBase w_hh, TensorBase b_hh, TensorBase h0, TensorBase c0,
            TensorBase sizes, bint keep, TensorBase y, TensorBase hn, TensorBase cn):
    """Direction d (1: in reverse) of a layer with the gates x W_ih^T + b_ih [rows, G H]; writes its part of y [rows, D H],
    hn and cn [D, B, H]. With keep, gives what backward needs besides gates (which then hold what they became): the
    cells' states of an LSTM, W_hn h + b_hn of a GRU; else None."""
    cdef nn_rnn_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase more = None
    cdef Storage p
    cdef int64_t[2] dims
    cdef int64_t H = hn.dims[2]
    w_hh = contiguous(w_hh)
    if b_hh is not None:
        b_hh = contiguous(b_hh)
    _common(&a, cell, gates, y, h0, c0, sizes, H, d)
    if keep and (cell == NN_LSTM or cell == NN_GRU):
        dims[0], dims[1] = gates.dims[0], H
        more = empty(gates.code, 2, dims)
    p = _packed(w_hh, H, True)
    a.reverse, a.keep = d, keep
    a.packed = p.data
    a.bias = b_hh.data if b_hh is not None else NULL
    if more is not None:
        if cell == NN_LSTM:
            a.c = more.data
        else:
            a.hidden = more.data
    a.hn = _direction(hn, d, hn.dims[1] * H)
    a.cn = _direction(cn, d, hn.dims[1] * H)
    runtime.run_with_scratch(NN_K_rnn, gates.code, &a, &a.scratch)
    return more


def backward(int cell, int d, TensorBase gates, TensorBase more, TensorBase w_hh, TensorBase h0, TensorBase c0,
             TensorBase sizes, TensorBase y, TensorBase dy, TensorBase dhn, TensorBase dcn, TensorBase dh0, TensorBase dc0):
    """Of direction d, from what forward left and the gradients of y, hn and cn (None: zeros): (gradients of the gates as
    they came from x, and as they came from h [rows, G H]; h before each step [rows, H]). Writes dh0, dc0 [D, B, H]."""
    cdef nn_rnn_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dgates, drecurrent, hprev
    cdef Storage p
    cdef int64_t[2] dims
    cdef int64_t H = w_hh.dims[1], numbers
    w_hh = contiguous(w_hh)
    _common(&a, cell, gates, y, h0, c0, sizes, H, d)
    numbers = a.sizes[0] * H
    dims[0], dims[1] = gates.dims[0], gates.dims[1]
    dgates = empty(gates.code, 2, dims)
    drecurrent = empty(gates.code, 2, dims) if cell == NN_GRU else dgates
    dims[1] = H
    hprev = empty(gates.code, 2, dims)
    p = _packed(w_hh, H, False)
    a.reverse, a.keep = d, True
    a.packed, a.bias = p.data, NULL
    if cell == NN_LSTM:
        a.c = more.data
    elif cell == NN_GRU:
        a.hidden = more.data
    a.hn = a.cn = NULL
    a.dy = _direction(dy, d, H)
    a.dhn, a.dcn = _direction(dhn, d, numbers), _direction(dcn, d, numbers)
    a.dh0, a.dc0 = _direction(dh0, d, numbers), _direction(dc0, d, numbers)
    a.dgates, a.drecurrent, a.hprev = dgates.data, drecurrent.data, hprev.data
    runtime.run_with_scratch(NN_K_rnn, gates.code, &a, &a.scratch)
    return dgates, drecurrent, hprev
