"""Losses as modules."""

from nncore._ops._check import as_float, integer, number, one_of
from nncore._ops.loss import REDUCTIONS
from nncore.nn import functional as F
from nncore.nn.module import Module


class _Loss(Module):
    def __init__(self, *, reduction="mean"):
        super().__init__()
        self.reduction = one_of(reduction, "reduction", REDUCTIONS)

    def _factors(self, name, values):
        """Keeps factors as a buffer: they are saved and converted with the module."""
        self.register_buffer(name, None if values is None else as_float(values, name).detach())

    def extra_repr(self):
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """-log softmax(x)[target], from logits.

    Args:
        weight: factors of the classes, [C], or None. With class indices, 'mean' divides by the sum of weight[target].
        ignore_index: samples of this class index count for nothing.
        reduction: 'mean' over samples, 'sum', or 'none'.
        label_smoothing: 0 to 1, e: the target is mixed with the uniform distribution, (1 - e) target + e / C.

    Shape:
        input [N, C] (or [C], or [N, C, d1, ...]); target [N] (or [], or [N, d1, ...]) int64 class indices, or
        class probabilities of the input's shape.

    >>> import nncore
    >>> round(CrossEntropyLoss()(nncore.zeros(1, 2), nncore.tensor([0])).item(), 4)
    0.6931
    """

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(reduction=reduction)
        self._factors("weight", weight)
        self.ignore_index = integer(ignore_index, "ignore_index")
        self.label_smoothing = number(label_smoothing, "label_smoothing", 0, 1)

    def forward(self, input, target):
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """-x[target]: cross-entropy from log probabilities.

    Args:
        weight: factors of the classes, [C], or None. 'mean' divides by the sum of weight[target].
        ignore_index: samples of this class index count for nothing.
        reduction: 'mean' over samples, 'sum', or 'none'.

    Shape:
        input [N, C] log probabilities (or [C], or [N, C, d1, ...]); target [N] (or [], or [N, d1, ...]) int64 class
        indices.

    >>> import nncore
    >>> NLLLoss()(nncore.tensor([[-1.0, -2.0]]), nncore.tensor([1])).item()
    2.0
    """

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean"):
        super().__init__(reduction=reduction)
        self._factors("weight", weight)
        self.ignore_index = integer(ignore_index, "ignore_index")

    def forward(self, input, target):
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class L1Loss(_Loss):
    """|x - target|: the mean absolute error (MAE). The gradient of equal elements is 0.

    Args:
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> L1Loss()(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0])).item()
    1.0
    """

    def forward(self, input, target):
        return F.l1_loss(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """(x - target)^2: the mean squared error.

    Args:
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> MSELoss()(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0])).item()
    2.0
    """

    def forward(self, input, target):
        return F.mse_loss(input, target, reduction=self.reduction)


class RMSELoss(_Loss):
    """Square root of the mean (or sum) of (x - target)^2; 'none': |x - target|. The gradient of a loss of 0 is 0.

    Args:
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> RMSELoss()(nncore.tensor([3.0, 5.0]), nncore.tensor([1.0, 3.0])).item()
    2.0
    """

    def forward(self, input, target):
        return F.rmse_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """With d = x - target: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). Huber, 1964.

    Args:
        delta: number > 0.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> HuberLoss()(nncore.tensor([3.0]), nncore.tensor([1.0])).item()
    1.5
    """

    def __init__(self, reduction="mean", delta=1.0):
        super().__init__(reduction=reduction)
        self.delta = number(delta, "delta", 0, low_open=True)

    def forward(self, input, target):
        return F.huber_loss(input, target, delta=self.delta, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """With d = x - target: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2. Girshick, ICCV 2015.

    Args:
        beta: number >= 0; at 0 it is the L1 loss.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> SmoothL1Loss()(nncore.tensor([3.0]), nncore.tensor([1.0])).item()
    1.5
    """

    def __init__(self, *, reduction="mean", beta=1.0):
        super().__init__(reduction=reduction)
        self.beta = number(beta, "beta", 0)

    def forward(self, input, target):
        return F.smooth_l1_loss(input, target, beta=self.beta, reduction=self.reduction)


class BCELoss(_Loss):
    """-(t log p + (1 - t) log(1 - p)) of probabilities p, logarithms not below -100.

    Args:
        weight: factors that broadcast to the input, or None.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> round(BCELoss()(nncore.tensor([0.5]), nncore.tensor([1.0])).item(), 4)
    0.6931
    """

    def __init__(self, weight=None, *, reduction="mean"):
        super().__init__(reduction=reduction)
        self._factors("weight", weight)

    def forward(self, input, target):
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """-(w t log s(x) + (1 - t) log(1 - s(x))) of logits x, s the sigmoid; it cannot overflow.

    Args:
        weight: factors that broadcast to the input, or None.
        pos_weight: w, which broadcasts to the input, or None.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> BCEWithLogitsLoss()(nncore.tensor([-1000.0]), nncore.tensor([1.0])).item()
    1000.0
    """

    def __init__(self, weight=None, *, reduction="mean", pos_weight=None):
        super().__init__(reduction=reduction)
        self._factors("weight", weight)
        self._factors("pos_weight", pos_weight)

    def forward(self, input, target):
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )


class KLDivLoss(_Loss):
    """t (log t - x), with x = log q: the terms of the Kullback-Leibler divergence KL(t | q). Kullback, Leibler, 1951.

    Args:
        reduction: 'batchmean' (sum / size of the first axis: the divergence), 'mean', 'sum' or 'none'.
        log_target: whether targets are log t.

    Shape:
        input (log probabilities) and target of one shape.

    >>> import nncore
    >>> p = nncore.tensor([[0.5, 0.5]])
    >>> KLDivLoss(reduction="batchmean")(p.log(), p).item()
    0.0
    """

    def __init__(self, *, reduction="mean", log_target=False):
        super().__init__()
        self.reduction = one_of(reduction, "reduction", (*REDUCTIONS, "batchmean"))
        self.log_target = bool(log_target)

    def forward(self, input, target):
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """e^x - t x, or with log_input=False x - t log(x + eps): -log of the Poisson probability of t, without log t!.

    Args:
        log_input: whether the input is the logarithm of the expected count.
        full: whether Stirling's t log t - t + log(2 pi t) / 2 is added where t > 1.
        eps: number > 0, keeps log x finite.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> PoissonNLLLoss()(nncore.tensor([0.0]), nncore.tensor([2.0])).item()
    1.0
    """

    def __init__(self, log_input=True, full=False, *, eps=1e-8, reduction="mean"):
        super().__init__(reduction=reduction)
        self.log_input, self.full, self.eps = bool(log_input), bool(full), number(eps, "eps", 0, low_open=True)

    def forward(self, input, target):
        return F.poisson_nll_loss(input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)


class GaussianNLLLoss(_Loss):
    """(log v + (x - target)^2 / v) / 2 with v = max(var, eps): -log of the normal density. Nix, Weigend, ICNN 1994.

    Args:
        full: whether log(2 pi) / 2 is added.
        eps: number > 0.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape; var of the input's, without its last axis, or with size 1 there.

    >>> import nncore
    >>> GaussianNLLLoss()(nncore.tensor([3.0]), nncore.tensor([1.0]), nncore.tensor([1.0])).item()
    2.0
    """

    def __init__(self, *, full=False, eps=1e-6, reduction="mean"):
        super().__init__(reduction=reduction)
        self.full, self.eps = bool(full), number(eps, "eps", 0, low_open=True)

    def forward(self, input, target, var):
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, reduction=self.reduction)


class HingeEmbeddingLoss(_Loss):
    """x where target is 1, max(0, margin - x) where it is -1, of the distances x of pairs. Chopra, Hadsell, LeCun, CVPR
    2005.

    Args:
        margin: number.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> HingeEmbeddingLoss()(nncore.tensor([0.25]), nncore.tensor([-1.0])).item()
    0.75
    """

    def __init__(self, margin=1.0, *, reduction="mean"):
        super().__init__(reduction=reduction)
        self.margin = number(margin, "margin")

    def forward(self, input, target):
        return F.hinge_embedding_loss(input, target, self.margin, reduction=self.reduction)


class SoftMarginLoss(_Loss):
    """log(1 + e^(-t x)) of labels t = +-1; it cannot overflow.

    Args:
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target of one shape.

    >>> import nncore
    >>> round(SoftMarginLoss()(nncore.tensor([0.0]), nncore.tensor([1.0])).item(), 4)
    0.6931
    """

    def forward(self, input, target):
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, -t (x1 - x2) + margin): t = 1 if the first is to rank higher, -1 if the second.

    Args:
        margin: number.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input1, input2 and target of one shape.

    >>> import nncore
    >>> MarginRankingLoss()(nncore.tensor([1.0]), nncore.tensor([3.0]), nncore.tensor([1.0])).item()
    2.0
    """

    def __init__(self, margin=0.0, *, reduction="mean"):
        super().__init__(reduction=reduction)
        self.margin = number(margin, "margin")

    def forward(self, input1, input2, target):
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_Loss):
    """1 - cos(x1, x2) where target is 1, max(0, cos(x1, x2) - margin) where it is -1.

    Args:
        margin: -1 to 1.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input1 and input2 [N, D] or [D]; target [N] or [].

    >>> import nncore
    >>> CosineEmbeddingLoss()(nncore.ones(1, 2), nncore.ones(1, 2), nncore.tensor([-1.0])).item()
    1.0
    """

    def __init__(self, margin=0.0, *, reduction="mean"):
        super().__init__(reduction=reduction)
        self.margin = number(margin, "margin", -1, 1)

    def forward(self, input1, input2, target):
        return F.cosine_embedding_loss(input1, input2, target, self.margin, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, d(a, p) - d(a, n) + margin) with d(x, y) = |x - y + eps|_p. Balntas et al., BMVC 2016.

    Args:
        margin: number > 0.
        p: norm, > 0 (infinity: the largest difference).
        eps: number, keeps the gradient at a distance of 0 finite.
        swap: whether d(p, n) is taken where it is smaller than d(a, n).
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        anchor, positive, negative [N, D] or [D].

    >>> import nncore
    >>> round(TripletMarginLoss()(nncore.zeros(1, 2), nncore.tensor([[3.0, 4.0]]), nncore.zeros(1, 2)).item(), 3)
    6.0
    """

    def __init__(self, margin=1.0, p=2.0, eps=1e-6, swap=False, *, reduction="mean"):
        super().__init__(reduction=reduction)
        self.margin, self.p = number(margin, "margin", 0, low_open=True), number(p, "p", 0, low_open=True)
        self.eps, self.swap = number(eps, "eps"), bool(swap)

    def forward(self, anchor, positive, negative):
        return F.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, reduction=self.reduction
        )


class MultiMarginLoss(_Loss):
    """sum over j != t of w_t max(0, margin - x_t + x_j)^p / C: the hinge loss of C classes. Crammer, Singer, JMLR 2001.

    Args:
        p: 1 or 2.
        margin: number.
        weight: w [C] or None.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input [N, C] or [C]; target [N] or [] int64 class indices.

    >>> import nncore
    >>> MultiMarginLoss()(nncore.tensor([[1.0, 3.0]]), nncore.tensor([0])).item()
    1.5
    """

    def __init__(self, p=1, margin=1.0, weight=None, *, reduction="mean"):
        super().__init__(reduction=reduction)
        if p not in (1, 2):
            raise ValueError(f"p: expected 1 or 2, got {p!r}")
        self.p, self.margin = p, number(margin, "margin")
        self._factors("weight", weight)

    def forward(self, input, target):
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """sum over labels j and classes i that are no label of max(0, 1 - (x_j - x_i)) / C.

    Args:
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input [N, C] or [C]; target int64 of the same shape, the labels of a row and then -1.

    >>> import nncore
    >>> MultiLabelMarginLoss()(nncore.tensor([[0.0, 0.5]]), nncore.tensor([[1, -1]])).item()
    0.25
    """

    def forward(self, input, target):
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_Loss):
    """mean over classes of -w (t log s(x) + (1 - t) log(1 - s(x))), s the sigmoid.

    Args:
        weight: w [C] or None.
        reduction: 'mean', 'sum' or 'none'.

    Shape:
        input and target (0 or 1) [N, C] or [C].

    >>> import nncore
    >>> round(MultiLabelSoftMarginLoss()(nncore.zeros(1, 2), nncore.ones(1, 2)).item(), 4)
    0.6931
    """

    def __init__(self, weight=None, *, reduction="mean"):
        super().__init__(reduction=reduction)
        self._factors("weight", weight)

    def forward(self, input, target):
        return F.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)
