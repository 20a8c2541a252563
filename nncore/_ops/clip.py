"""Norms of lists of tensors, and limits on them, in place."""

import math

from nncore._core import optim as kernels
from nncore._core.elementwise import cast, ewise
from nncore._core.reduction import MAX, SUM, reduce
from nncore._core.runtime import OPS


def total_norm(tensors, p, code):
    """(Sum of |x|^p over all elements of all tensors)^(1/p), or the largest |x| for p = inf, without dimensions, as
    float64 and in the dtype of `code`. Each tensor's sum is made in pieces of a fixed length; the sums are added in
    order."""
    sums = kernels.norms(tensors, p)
    total, _ = reduce(MAX if p == math.inf and tensors else SUM, sums, 0, 1)
    if p == 2:
        total = ewise(OPS["sqrt"], total)
    elif p != math.inf:
        total = ewise(OPS["pow_scalar"], total, None, None, 1 / p)
    return total, cast(total, code)


def clip_norm_(tensors, norm, max_norm):
    """Each times min(1, max_norm / (norm + 1e-6)), in place; norm as total_norm's first."""
    kernels.clip_norm(tensors, norm, max_norm)


def clip_value_(tensors, clip_value):
    """Each limited to [-clip_value, clip_value], in place."""
    kernels.clip_value(tensors, clip_value)
