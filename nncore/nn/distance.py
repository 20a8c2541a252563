"""Distances and similarities of vectors as modules."""

from nncore._ops._check import integer, number
from nncore.nn import functional as F
from nncore.nn.module import Module


class CosineSimilarity(Module):
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along an axis, which vanishes.

    Args:
        dim: the axis.
        eps: smallest norm.

    >>> import nncore
    >>> CosineSimilarity()(nncore.tensor([[3.0, 0.0]]), nncore.tensor([[5.0, 0.0]])).tolist()
    [1.0]
    """

    def __init__(self, dim=1, eps=1e-8):
        super().__init__()
        self.dim, self.eps = integer(dim, "dim"), number(eps, "eps", 0)

    def forward(self, x1, x2):
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """(sum |x1 - x2 + eps|^p)^(1/p) over the last axis.

    Args:
        p: order of the norm, > 0; inf for the largest.
        eps: added to the differences, so that a gradient exists where they are 0.
        keepdim: keep the axis with size 1.

    >>> import nncore
    >>> round(PairwiseDistance()(nncore.tensor([[1.0, 2.0]]), nncore.tensor([[4.0, 6.0]])).item(), 4)
    5.0
    """

    def __init__(self, p=2.0, eps=1e-6, keepdim=False):
        super().__init__()
        self.norm, self.eps = number(p, "p", 0, low_open=True), number(eps, "eps", 0)
        self.keepdim = keepdim

    def forward(self, x1, x2):
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
