"""Rows of a table by index: embeddings, bags of them, one-hot rows."""

import math

from nncore import _tape
from nncore._core import elementwise, indexing
from nncore._core.elementwise import contiguous, ewise
from nncore._core.runtime import OPS
from nncore._core.tensor import new_empty, new_zeros
from nncore._ops._check import (
    FLOAT32,
    FLOAT64,
    INT64,
    as_float,
    as_tensor,
    constant,
    integer,
    number,
    one_of,
    row_major,
)
from nncore._ops.arithmetic import abs as abs_
from nncore._ops.arithmetic import pow, sqrt, square
from nncore._ops.reduction import max as max_
from nncore._ops.reduction import sum as sum_
from nncore._ops.shape import writable


def _table(weight):
    w = as_float(weight, "weight")
    if w.ndim != 2:
        raise ValueError(f"weight: expected a table [num_embeddings, embedding_dim], got shape {w.shape}")
    return w


def _indices(input, n, skip=-1):
    """Checked indices; those equal to skip become -1, which gather reads as zeros and scatter leaves out."""
    index = as_tensor(input)
    if index._code != INT64:
        raise TypeError(f"input: expected int64 indices, got {index.dtype}")
    return indexing.checked_index(index, n, "input", False, skip if skip >= 0 else None)


def padding_index(padding_idx, n):
    """padding_idx as a row of the table, -1 for none."""
    if padding_idx is None:
        return -1
    i = integer(padding_idx, "padding_idx")
    if not -n <= i < n:
        raise ValueError(f"padding_idx: expected {-n} to {n - 1}, got {i}")
    return i % n


def norm_arguments(max_norm, norm_type):
    """max_norm (or None) and norm_type as numbers."""
    top = None if max_norm is None else number(max_norm, "max_norm", 0)
    return top, number(norm_type, "norm_type", 0, low_open=True)


def _renorm(w, index, max_norm, p):
    """Rows of w with a p-norm above max_norm are scaled down to it, in place."""
    if not w._contiguous:
        raise ValueError("weight: max_norm writes into the table, which must be row-major")
    writable(w)
    recording = _tape.set_enabled(False)
    try:
        rows = indexing.gather(w, index, w.shape[1], (index.numel(), w.shape[1]))
        if p == 2:
            norm = sqrt(sum_(square(rows), 1))
        elif p == math.inf:
            norm = max_(abs_(rows), 1)[0]
        else:
            norm = pow(sum_(pow(abs_(rows), p), 1), 1 / p)
        n = norm._view((norm.numel(), 1), (1, 0), 0)
        indexing.scatter(
            w, index, ewise(OPS["where"], (n > max_norm).to(w.dtype), rows * (max_norm / (n + 1e-7)), rows), w.shape[1]
        )
    finally:
        _tape.set_enabled(recording)


def _by_frequency(g, index, n):
    """Rows g over how often their index occurs."""
    count = new_zeros((n,), g._code)
    one = ewise(OPS["fill"], new_empty(index.shape, g._code), None, None, 1.0)
    indexing.scatter_add(count, index, one, 1)
    here = indexing.gather(count, index, 1, (index.numel(),))
    return ewise(OPS["div"], g, here._view((index.numel(), 1), (1, 0), 0))


def embedding(input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False):
    """Rows of a table: y[...] = weight[input[...]]. The gradient adds up where an index occurs again, in their order.

    Args:
        input: int64 indices of any shape.
        weight: [num_embeddings, embedding_dim].
        padding_idx: a row that gets no gradient, or None.
        max_norm: rows in use whose norm exceeds it are scaled down to it first, in the table; None: they are not.
        norm_type: p of that norm.
        scale_grad_by_freq: whether gradients are divided by how often their index occurs.

    Returns:
        [*input.shape, embedding_dim].

    Raises:
        ValueError: an index is not a row of the table.
        TypeError: indices are not int64.

    >>> import nncore
    >>> embedding(nncore.tensor([2, 0]), nncore.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])).tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """
    w = _table(weight)
    n, width = w.shape
    skip = padding_index(padding_idx, n)
    top, p = norm_arguments(max_norm, norm_type)
    index = _indices(input, n)
    if top is not None:
        _renorm(w, index, top, p)
    y = indexing.gather(contiguous(w), index, width, (*index.shape, width))

    def backward(dy):
        g = contiguous(dy)._view((index.numel(), width), (width, 1), 0)
        if scale_grad_by_freq:
            g = _by_frequency(g, index, n)
        dw = new_zeros(w.shape, w._code)
        indexing.scatter_add(dw, index, g, width)
        if skip >= 0:
            elementwise.fill(dw._view((width,), (1,), skip * width), 0.0)
        return (dw,)

    return _tape.record(y, "embedding", (w,), backward)


def embedding_bag(
    input,
    weight,
    offsets=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    mode="mean",
    *,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
):
    """The sum, mean or elementwise maximum of bags of rows of a table, without the rows in between.

    Args:
        input: int64 indices: [bags, size], or [total] with offsets.
        weight: [num_embeddings, embedding_dim].
        offsets: where each bag begins in `input`, int64 [bags], rising from 0; None for two-dimensional input.
        max_norm, norm_type, scale_grad_by_freq: as embedding's.
        mode: 'sum', 'mean' or 'max'. An empty bag gives 0.
        per_sample_weights: factors of the rows, of the input's shape, with mode 'sum'.
        include_last_offset: whether the last offset is the end of the last bag.
        padding_idx: a row that counts for nothing, or None.

    Returns:
        [bags, embedding_dim].

    Raises:
        ValueError: an index or offset is out of range, or the arguments do not fit each other.
        TypeError: indices or offsets are not int64.

    >>> import nncore
    >>> table = nncore.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    >>> embedding_bag(nncore.tensor([2, 0, 1]), table, nncore.tensor([0, 2]), mode="sum").tolist()
    [[4.0, 6.0], [2.0, 3.0]]
    """
    w = _table(weight)
    n, width = w.shape
    one_of(mode, "mode", ("sum", "mean", "max"))
    skip = padding_index(padding_idx, n)
    top, p = norm_arguments(max_norm, norm_type)
    if scale_grad_by_freq and mode == "max":
        raise ValueError("scale_grad_by_freq: not with mode 'max'")
    index = _indices(input, n, skip)
    if index.ndim not in (1, 2):
        raise ValueError(f"input: expected [bags, size] or [total], got shape {index.shape}")
    if (index.ndim == 2) != (offsets is None):
        raise ValueError("offsets: needed for input of one dimension, and only for it")
    if index.ndim == 2:
        bags, size = index.shape
        start = constant([size * i for i in range(bags + 1)], INT64)
        which = constant([i for i in range(bags) for _ in range(size)], INT64)
    else:
        begin = as_tensor(offsets, "offsets")
        if begin._code != INT64:
            raise TypeError(f"offsets: expected int64, got {begin.dtype}")
        if begin.ndim != 1:
            raise ValueError(f"offsets: expected one dimension, got shape {begin.shape}")
        start, which = indexing.bags(begin, index.numel(), bool(include_last_offset))
    factors = None
    if per_sample_weights is not None:
        if mode != "sum":
            raise ValueError(f"per_sample_weights: only with mode 'sum', not {mode!r}")
        factors = as_tensor(per_sample_weights, "per_sample_weights", w._code)
        if factors.shape != index.shape:
            raise ValueError(f"per_sample_weights: expected the input's shape {index.shape}, got {factors.shape}")
    if top is not None:
        _renorm(w, index, top, p)
    table, dense = contiguous(w), None if factors is None else contiguous(factors)
    y, count, where = indexing.bag(table, index, start, dense, mode)

    def backward(dy):
        dy, m = contiguous(dy), index.numel()
        dw = new_zeros(w.shape, w._code) if w.requires_grad else None
        df = None
        if mode == "max":
            indexing.scatter_add(dw, where, dy, 1)
            return dw, None
        g = indexing.gather(dy, which, width, (m, width))  # of each index, its bag's
        if factors is not None and factors.requires_grad:
            df = sum_(ewise(OPS["mul"], g, indexing.gather(table, index, width, (m, width))), 1)
            df = df._view(factors.shape, row_major(factors.shape), 0)
        if w.requires_grad:
            if dense is not None:
                g = ewise(OPS["mul"], g, dense._view((m, 1), (1, 0), 0))
            if count is not None:
                g = ewise(OPS["div"], g, indexing.gather(count, which, 1, (m,))._view((m, 1), (1, 0), 0))
            if scale_grad_by_freq:
                g = _by_frequency(g, index, n)
            indexing.scatter_add(dw, index, g, width)
        return dw, df

    return _tape.record(y, "embedding_bag", (w, factors), backward, () if dense is None else (table, dense))


def one_hot(input, num_classes=-1):
    """Rows with a 1 at the index and 0 elsewhere, int64.

    Args:
        input: int64 indices of any shape, >= 0.
        num_classes: length of the rows; -1: the largest index + 1.

    Returns:
        int64 [*input.shape, num_classes].

    >>> import nncore
    >>> one_hot(nncore.tensor([1, 0]), 3).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    index = as_tensor(input)
    if index._code != INT64:
        raise TypeError(f"input: expected int64 indices, got {index.dtype}")
    n = integer(num_classes, "num_classes")
    if n == -1:
        if index.numel() == 0:
            raise ValueError("num_classes: cannot be told from no indices; give it")
        n = int(max_(elementwise.cast(index, FLOAT64)).item()) + 1
    if n <= 0:
        raise ValueError(f"num_classes: expected at least 1, got {n}")
    at = indexing.places(indexing.checked_index(index, n, "input")._view((index.numel(), 1), (1, 1), 0), n)
    y = new_zeros((*index.shape, n), FLOAT32)
    indexing.scatter(y, at, ewise(OPS["fill"], new_empty(at.shape, FLOAT32), None, None, 1.0), 1)
    return elementwise.cast(y, INT64)
