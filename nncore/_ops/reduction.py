"""Sums, means and extremes over axes."""

import numpy as np

from nncore import _tape
from nncore._core import elementwise
from nncore._core.elementwise import contiguous, ewise
from nncore._core.reduction import MAX, MIN, SUM, reduce
from nncore._core.runtime import OPS
from nncore._core.tensor import new_zeros
from nncore._ops._check import FLOAT64, INT64, as_float, as_tensor, axes, axis, constant, number


def _keep(t, ax):
    """t with sizes of 1 put back at the reduced axes."""
    shape, strides = list(t.shape), list(t.strides)
    for d in ax:
        shape.insert(d, 1)
        strides.insert(d, 0)
    return t._view(tuple(shape), tuple(strides), 0)


def _reduce(op, x, ax, scale=1.0):
    """Reduces runs of neighbouring axes, from the last; the scale goes with the last run."""
    runs = []
    for d in ax:
        if runs and runs[-1][1] == d:
            runs[-1][1] = d + 1
        else:
            runs.append([d, d + 1])
    if not runs:
        return ewise(OPS["scale"], x, None, None, scale)
    for i, (first, last) in enumerate(reversed(runs)):
        x, _ = reduce(op, x, first, last, scale if i == len(runs) - 1 else 1.0)
    return x


def _expand(t, shape):
    return t._view(shape, tuple(0 if n == 1 else s for n, s in zip(t.shape, t.strides)), 0)


def sum(input, dim=None, keepdim=False):
    """Sum over axis or axes `dim` (all by default).

    Integers and bools give int64, by way of float64 (exact up to 2^53).

    Sums are taken in an order fixed by the shape: partial sums in vectors, then in double (or as a binary tree).

    >>> import nncore
    >>> sum(nncore.ones(2, 3), dim=1).tolist()
    [3.0, 3.0]
    """
    x = as_tensor(input)
    if not x._floating:
        return elementwise.cast(sum(elementwise.cast(x, FLOAT64), dim, keepdim), INT64)
    return _sum(x, axes(dim, x.ndim), keepdim, 1.0, "sum")


def mean(input, dim=None, keepdim=False):
    """Mean over axis or axes `dim` (all by default); NaN over nothing."""
    x = as_float(input)
    ax = axes(dim, x.ndim)
    n = 1
    for d in ax:
        n *= x.shape[d]
    return _sum(x, ax, keepdim, 1.0 / n if n else float("nan"), "mean")


def _sum(x, ax, keepdim, scale, name):
    y = _reduce(SUM, x, ax, scale)

    def backward(dy):
        dy = dy if keepdim else _keep(dy, ax)
        if scale != 1.0:
            dy = ewise(OPS["scale"], dy, None, None, scale)
        return (_expand(dy, x.shape),)

    return _tape.record(_keep(y, ax) if keepdim else y, name, (x,), backward)


def _extreme(op, name, doc):
    def extreme(input, dim=None, keepdim=False):
        x = as_float(input)
        if dim is None:
            if x.numel() == 0:
                raise ValueError(f"input: cannot take the {name} of no elements, shape {x.shape}")
            y = _reduce(op, x, tuple(range(x.ndim)))

            def spread(dy):  # equal extremes share the gradient evenly
                here = ewise(OPS["add"], ewise(OPS["eq"], x, y), ewise(OPS["ne"], x, x))  # NaN equals nothing
                share = ewise(OPS["div"], dy, _reduce(SUM, here, tuple(range(x.ndim))))
                return (ewise(OPS["mul"], here, share),)

            return _tape.record(y, name, (x,), spread, (x, y))
        d = axis(dim, x.ndim)
        if x.ndim == 0:
            return x, constant(0, INT64)
        if x.shape[d] == 0:
            raise ValueError(f"input: cannot take the {name} over axis {d} of size 0, shape {x.shape}")
        y, index = reduce(op, x, d, d + 1, 1.0, True)
        n = x.shape[d]
        code = x._code if n < 1 << 24 else FLOAT64  # positions must be exact
        places = constant(np.arange(n).reshape((n,) + (1,) * (x.ndim - 1 - d)), code)

        def backward(dy, _):
            at = elementwise.cast(_keep(index, (d,)), code)
            dy = dy if keepdim else _keep(dy, (d,))
            dx = ewise(OPS["max_backward"], elementwise.cast(dy, code) if dy._code != code else dy, at, places)
            return (dx if code == x._code else elementwise.cast(dx, x._code),)

        if keepdim:
            y, kept = _keep(y, (d,)), _keep(index, (d,))
            return _tape.record((y, kept), name, (x,), backward, (index,))
        return _tape.record((y, index), name, (x,), backward, (index,))

    extreme.__name__ = extreme.__qualname__ = name
    extreme.__doc__ = doc
    return extreme


_DOC = """The {} element, or along axis `dim` (values, indices of the first). NaN if there is one.

Without `dim`, equal extremes share the gradient; along an axis it goes to the one whose index is given.
"""
max = _extreme(MAX, "max", _DOC.format("largest"))
min = _extreme(MIN, "min", _DOC.format("smallest"))


def _arg(op, name, doc):
    def arg(input, dim=None, keepdim=False):
        x = as_float(input)
        if dim is None:
            flat = contiguous(x)
            flat, d, where = flat._view((x.numel(),), (1,), 0), 0, tuple(range(x.ndim))
        else:
            d = axis(dim, x.ndim)
            flat, where = x, (d,) if x.ndim else ()
        if flat.ndim == 0:
            return new_zeros((), INT64)
        if flat.shape[d] == 0:
            raise ValueError(f"input: cannot take the {name} of no elements, shape {x.shape}")
        index = reduce(op, flat, d, d + 1, 1.0, True)[1]
        return _keep(index, where) if keepdim else index

    arg.__name__ = arg.__qualname__ = name
    arg.__doc__ = doc
    return arg


argmax = _arg(MAX, "argmax", "Index of the first largest element (or NaN), along `dim` or of the flattened tensor.")
argmin = _arg(MIN, "argmin", "Index of the first smallest element (or NaN), along `dim` or of the flattened tensor.")


def var(input, dim=None, correction=1, keepdim=False):
    """Mean squared deviation from the mean, over n - correction."""
    x = as_float(input)
    ax = axes(dim, x.ndim)
    correction = number(correction, "correction")
    n = 1
    for d in ax:
        n *= x.shape[d]
    centred = x - mean(x, ax, True)
    return (
        sum(centred.square(), ax, keepdim) / float(n - correction)
        if n > correction
        else sum(x, ax, keepdim) * float("nan")
    )


def std(input, dim=None, correction=1, keepdim=False):
    """Square root of `var`."""
    return var(input, dim, correction, keepdim).sqrt()
