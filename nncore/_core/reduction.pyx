"""Sums and extremes over axes; softmax and cross-entropy over rows."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, empty_like, scalar

SUM, MAX, MIN = NN_SUM, NN_MAX, NN_MIN


def reduce(int op, TensorBase x, int first, int last, double scale=1, bint with_index=False):
    """scale * op over the axes first..last-1 of x, which stand together; those axes vanish.
    Gives (values, indices or None)."""
    cdef nn_reduce_args r
    memset(&r, 0, sizeof(r))
    cdef int64_t[8] dims
    cdef int i, n = 0
    cdef TensorBase y, index = None
    x = contiguous(x)
    r.outer = r.n = r.inner = 1
    for i in range(x.ndim):
        if i < first:
            r.outer *= x.dims[i]
        elif i < last:
            r.n *= x.dims[i]
            continue
        else:
            r.inner *= x.dims[i]
        dims[n] = x.dims[i]
        n += 1
    if op != NN_SUM and r.n == 0:
        raise ValueError(f"input: cannot take the extreme of no elements, shape {x.shape}")
    y = empty(x.code, n, dims)
    r.op = op
    r.x = x.data
    r.y = y.data
    r.scale = scale
    r.index = NULL
    if with_index:
        index = empty(NN_INT64, n, dims)
        r.index = <int64_t *>index.data
    runtime.run_with_scratch(NN_K_reduce, x.code, &r, &r.scratch)
    return y, index


def softmax(TensorBase x, bint log):
    """Softmax or log softmax over the last axis."""
    cdef nn_softmax_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y
    x = contiguous(x)
    y = empty_like(x)
    a.log = log
    a.n = x.dims[x.ndim - 1]
    a.rows = x.count() // a.n if a.n else 0
    a.x = x.data
    a.y = y.data
    runtime.run(NN_K_softmax, x.code, &a)
    return y


def softmax_backward(TensorBase y, TensorBase dy, bint log):
    """The gradient for softmax's input, from its output and the output's gradient."""
    cdef nn_softmax_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dx
    dy = contiguous(dy)
    dx = empty_like(y)
    a.log = log
    a.n = y.dims[y.ndim - 1]
    a.rows = y.count() // a.n if a.n else 0
    a.y = y.data
    a.dy = dy.data
    a.dx = dx.data
    runtime.run(NN_K_softmax_backward, y.code, &a)
    return dx


def cross_entropy(TensorBase x, TensorBase target, double scale, bint per_row, TensorBase weight=None,
                  double smoothing=0, bint log_probs=False, bint mean=False):
    """Of rows x [rows, n] (log probabilities if log_probs) and targets, -1 for a row to leave out: (scale * summed loss,
    over the summed weight if mean; or each row's loss if per_row; log-sum-exp of the rows in two parts [rows, 2] and
    the summed weight, for backward)."""
    cdef nn_cross_entropy_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase lse = None, loss, total = None
    cdef int64_t[2] pairs
    cdef int64_t rows = x.dims[0]
    _cross_entropy(&a, x, target, weight, smoothing, log_probs)
    if not log_probs:
        pairs[0], pairs[1] = rows, 2
        lse = empty(x.code, 2, pairs)
        a.lse = lse.data
    if mean:
        total = scalar(x.code)
        a.total = total.data
    loss = empty(x.code, 1, &rows) if per_row else scalar(x.code)
    a.per_row = loss.data if per_row else NULL
    a.loss = NULL if per_row else loss.data
    a.scale = scale
    runtime.run_with_scratch(NN_K_cross_entropy, x.code, &a, &a.scratch)
    return loss, lse, total


def cross_entropy_backward(TensorBase x, TensorBase target, TensorBase lse, TensorBase dy, double scale,
                           TensorBase weight=None, double smoothing=0, TensorBase total=None):
    """dx from what cross_entropy gave (no lse: log probabilities) and dy, which is [rows] or without dimensions."""
    cdef nn_cross_entropy_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dx = empty_like(x)
    dy = contiguous(dy)
    _cross_entropy(&a, x, target, weight, smoothing, lse is None)
    if lse is not None:
        a.lse = lse.data
    if total is not None:
        a.total = total.data
    a.dy = dy.data
    a.dy_stride = 1 if dy.ndim else 0
    a.dx = dx.data
    a.scale = scale
    runtime.run(NN_K_cross_entropy_backward, x.code, &a)
    return dx


cdef void _cross_entropy(nn_cross_entropy_args *a, TensorBase x, TensorBase target, TensorBase weight, double smoothing,
                         bint log_probs) noexcept:
    a.rows = x.dims[0]
    a.n = x.dims[1]
    a.x = x.data
    a.target = <const int64_t *>target.data
    a.weight = NULL if weight is None else weight.data
    a.smoothing = smoothing
    a.log_probs = log_probs
