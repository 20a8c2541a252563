"""Losses as modules."""

from nncore._ops._check import one_of
from nncore._ops.loss import REDUCTIONS
from nncore.nn import functional as F
from nncore.nn.module import Module


class _Loss(Module):
    def __init__(self, *, reduction="mean"):
        super().__init__()
        self.reduction = one_of(reduction, "reduction", REDUCTIONS)

    def extra_repr(self):
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """-log softmax(x)[target], from logits.

    Args:
        reduction: 'mean' over samples, 'sum', or 'none'.

    Shape:
        input [N, C] (or [C], or [N, C, d1, ...]); target [N] (or [], or [N, d1, ...]) int64 class indices, or
        class probabilities of the input's shape.

    >>> import nncore
    >>> round(CrossEntropyLoss()(nncore.zeros(1, 2), nncore.tensor([0])).item(), 4)
    0.6931
    """

    def forward(self, input, target):
        return F.cross_entropy(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """(x - target)^2, averaged ('mean'), summed ('sum') or as it is ('none').

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> MSELoss()(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0])).item()
    2.0
    """

    def forward(self, input, target):
        return F.mse_loss(input, target, reduction=self.reduction)


class NLLLoss(_Loss):
    """-x[target]: cross-entropy from log probabilities.

    Shape:
        input [N, C] log probabilities; target [N] int64 class indices.

    >>> import nncore
    >>> NLLLoss()(nncore.tensor([[-1.0, -2.0]]), nncore.tensor([1])).item()
    2.0
    """

    def forward(self, input, target):
        return F.nll_loss(input, target, reduction=self.reduction)
