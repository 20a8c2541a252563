"""Losses."""

import numpy as np

from nncore import _tape
from nncore._core import indexing
from nncore._core import reduction as rowwise
from nncore._core.elementwise import contiguous, ewise, ewise_sum
from nncore._core.runtime import OPS
from nncore._ops._check import INT64, as_float, as_tensor, constant, one_of
from nncore._ops.arithmetic import mul
from nncore._ops.reduction import sum as sum_
from nncore._ops.shape import permute, reshape

REDUCTIONS = ("mean", "sum", "none")


def mse_loss(input, target, *, reduction="mean"):
    """(input - target)^2, averaged, summed or as it is.

    Args:
        input, target: of one shape; gradients flow to both.
        reduction: 'mean', 'sum' or 'none'.

    Raises:
        ValueError: the shapes differ, or the reduction is unknown.

    >>> import nncore
    >>> mse_loss(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0])).item()
    2.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x = as_float(input)
    t = as_tensor(target, "target", x._code)
    if x.shape != t.shape:
        raise ValueError(f"target: expected the input's shape {x.shape}, got {t.shape}")
    if reduction == "none":
        scale, y = 1.0, ewise(OPS["mse"], x, t)
    else:
        scale = 1.0 if reduction == "sum" else (1.0 / x.numel() if x.numel() else float("nan"))
        y = ewise_sum(OPS["mse"], x, t, scale)

    def backward(dy):
        dx = ewise(OPS["mse_backward"], dy, x, t, 2 * scale)
        return dx, ewise(OPS["neg"], dx) if t.requires_grad else None

    return _tape.record(y, "mse_loss", (x, t), backward, (x, t))


def _rows_of_classes(x, t, indices):
    """Logits [N, C, d1, ...] as rows [N*d1*..., C], and the targets to match."""
    if x.ndim == 1:
        return reshape(x, (1, -1)), reshape(t, (1,) if indices else (1, -1))
    if x.ndim > 2:
        order = (0, *range(2, x.ndim), 1)
        x = reshape(permute(x, order), (-1, x.shape[1]))
        t = reshape(t if indices else permute(t, order), (-1,) if indices else x.shape)
    return x, t


def cross_entropy(input, target, *, reduction="mean"):
    """-log softmax(input)[target], from logits.

    Args:
        input: logits [N, C] (or [C], or [N, C, d1, ...]).
        target: int64 class indices [N] (or [], or [N, d1, ...]), or class probabilities of the input's shape.
        reduction: 'mean' over samples, 'sum', or 'none'.

    Raises:
        ValueError: a class index is not in [0, C), or a shape does not fit.
        TypeError: the target is neither.

    >>> import nncore
    >>> round(cross_entropy(nncore.zeros(1, 2), nncore.tensor([1])).item(), 4)
    0.6931
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x = as_float(input)
    if x.ndim == 0 or x.shape[min(x.ndim - 1, 1)] == 0:
        raise ValueError(f"input: expected logits [N, C] with C >= 1 (or [C], or [N, C, d1, ...]), got shape {x.shape}")
    t = as_tensor(target, "target")
    where = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if t._floating and t.shape == x.shape:
        return _soft_cross_entropy(x, as_tensor(target, "target", x._code), where, reduction)
    if t._code != INT64:
        raise TypeError(
            f"target: expected int64 class indices or class probabilities of the input's shape, got {t.dtype}"
        )
    if t.shape != where:
        raise ValueError(f"target: expected class indices of shape {where} for logits of {x.shape}, got {t.shape}")
    rows, t = _rows_of_classes(x, t, True)
    rows_c = contiguous(rows)
    n = rows_c.shape[0]
    t = indexing.checked_index(t, rows_c.shape[1], "target")
    scale = 1.0 if reduction != "mean" else (1.0 / n if n else float("nan"))
    y, lse = rowwise.cross_entropy(rows_c, t, scale, reduction == "none")

    def backward(dy):
        return (rowwise.cross_entropy_backward(rows_c, t, lse, dy, scale),)

    y = _tape.record(y, "cross_entropy", (rows,), backward, (rows_c,))
    return reshape(y, where) if reduction == "none" and where != y.shape else y


def _soft_cross_entropy(x, t, where, reduction):
    """Targets as probabilities: -sum_c t_c log softmax(x)_c."""
    from nncore._ops.activation import log_softmax

    rows, t = _rows_of_classes(x, t, False)
    losses = -sum_(mul(log_softmax(rows), t), 1)
    if reduction == "none":
        return reshape(losses, where)
    return sum_(losses) if reduction == "sum" else losses.mean()


def nll_loss(input, target, *, reduction="mean"):
    """-input[target], from log probabilities; arguments and errors as cross_entropy's with class indices.

    >>> import nncore
    >>> nll_loss(nncore.tensor([[-1.0, -2.0]]), nncore.tensor([0])).item()
    1.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x = as_float(input)
    t = as_tensor(target, "target")
    if t._code != INT64:
        raise TypeError(f"target: expected int64 class indices, got {t.dtype}")
    where = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if x.ndim == 0 or t.shape != where:
        raise ValueError(f"target: expected class indices of shape {where} for an input of {x.shape}, got {t.shape}")
    rows, t = _rows_of_classes(x, t, True)
    t = indexing.checked_index(t, rows.shape[1], "target")
    n = rows.shape[0]
    places = constant(np.arange(n), INT64)
    losses = -rows[places, t]
    if reduction == "none":
        return reshape(losses, where)
    return sum_(losses) if reduction == "sum" else losses.mean()
