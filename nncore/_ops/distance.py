"""Distances and similarities of vectors."""

import math

from nncore import _tape
from nncore._core.elementwise import ewise
from nncore._core.runtime import OPS
from nncore._ops import arithmetic, reduction
from nncore._ops._check import as_float, as_tensor, axis, constant, number
from nncore._ops.shape import expand, reshape


def _both(x1, x2, name):
    """Two tensors of one dtype, broadcast against each other."""
    a = as_float(x1, "x1")
    b = as_tensor(x2, "x2", a._code)
    shape = ewise(OPS["add"], a, b).shape if a.shape != b.shape else a.shape
    return expand(a, shape), expand(b, shape)


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along an axis, which vanishes.

    Args:
        x1, x2: Tensors of one dtype that broadcast.
        dim: the axis.
        eps: smallest norm.

    >>> import nncore
    >>> round(cosine_similarity(nncore.tensor([3.0, 0.0]), nncore.tensor([4.0, 4.0]), dim=0).item(), 4)
    0.7071
    """
    eps = number(eps, "eps", 0)
    a, b = _both(x1, x2, "x2")
    d = axis(dim, a.ndim)

    def total(u, v):
        return reduction._sum(ewise(OPS["mul"], u, v), (d,), True, 1.0, "sum")

    with_grad = _tape.set_enabled(False)
    try:
        least = constant(eps, a._code)
        norms = [ewise(OPS["sqrt"], total(u, u)) for u in (a, b)]
        inverse = [ewise(OPS["reciprocal"], ewise(OPS["maximum"], n, least)) for n in norms]
        both = ewise(OPS["mul"], *inverse)
        y = ewise(OPS["mul"], total(a, b), both)
    finally:
        _tape.set_enabled(with_grad)

    def one(dy, u, v, norm, inv):
        """dy (v / (|u| |v|) - y u / |u|^2); the second only where |u| is above eps."""
        along = ewise(OPS["mul"], ewise(OPS["mul"], dy, y), ewise(OPS["square"], inv))
        along = ewise(OPS["mul"], along, ewise(OPS["gt"], norm, least))
        return ewise(OPS["sub"], ewise(OPS["mul"], ewise(OPS["mul"], dy, both), v), ewise(OPS["mul"], along, u))

    def backward(dy):
        da = one(dy, a, b, norms[0], inverse[0]) if a.requires_grad else None
        db = one(dy, b, a, norms[1], inverse[1]) if b.requires_grad else None
        return da, db

    y = _tape.record(y, "cosine_similarity", (a, b), backward, (a, b))
    return reshape(y, y.shape[:d] + y.shape[d + 1 :])


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """(sum |x1 - x2 + eps|^p)^(1/p) over the last axis.

    Args:
        x1, x2: Tensors [N, D] or [D] of one dtype that broadcast.
        p: order of the norm, > 0; inf for the largest.
        eps: added to the differences, so that a gradient exists where they are 0.
        keepdim: keep the axis with size 1.

    >>> import nncore
    >>> round(pairwise_distance(nncore.tensor([[1.0, 2.0]]), nncore.tensor([[4.0, 6.0]])).item(), 4)
    5.0
    """
    p, eps = number(p, "p", 0, low_open=True), number(eps, "eps", 0)
    a, b = _both(x1, x2, "x2")
    if a.ndim == 0:
        raise ValueError("x1: expected at least one dimension")
    d = arithmetic.add(arithmetic.sub(a, b), eps)
    if p == math.inf:
        return reduction.max(arithmetic.abs(d), -1, keepdim)[0]
    if p == 2:
        return arithmetic.sqrt(reduction.sum(arithmetic.square(d), -1, keepdim))
    total = reduction.sum(arithmetic.pow(arithmetic.abs(d), p) if p != 1 else arithmetic.abs(d), -1, keepdim)
    return arithmetic.pow(total, 1 / p) if p != 1 else total
