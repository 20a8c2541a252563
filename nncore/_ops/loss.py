"""Losses.

An elementwise loss is one operation of csrc/ops.def, stored or summed in one pass over input and target; its
derivative is another. Losses over rows or pairs are put together from operations.
"""

import math

from nncore import _tape
from nncore._core import indexing
from nncore._core import reduction as rowwise
from nncore._core.elementwise import contiguous, ewise, ewise_sum
from nncore._core.runtime import OPS
from nncore._core.tensor import new_empty, new_zeros
from nncore._ops._check import INT64, as_float, as_tensor, constant, integer, is_number, number, one_of
from nncore._ops.activation import log_softmax, softplus
from nncore._ops.arithmetic import abs as abs_
from nncore._ops.arithmetic import clamp, log, minimum, mul, pow, sqrt, square, sub, where
from nncore._ops.arithmetic import eq as eq_
from nncore._ops.reduction import max as max_
from nncore._ops.reduction import mean as mean_
from nncore._ops.reduction import sum as sum_
from nncore._ops.shape import getitem, permute, reshape, unsqueeze

REDUCTIONS = ("mean", "sum", "none")


def _reduced(losses, reduction):
    return losses if reduction == "none" else (mean_ if reduction == "mean" else sum_)(losses)


def _same_shape(input, target):
    x = as_float(input)
    t = as_tensor(target, "target", x._code)
    if x.shape != t.shape:
        raise ValueError(f"target: expected the input's shape {x.shape}, got {t.shape}")
    return x, t


def _pointwise(name, input, target, reduction, s=0.0, t=0.0, slope=(1.0, 0.0), target_slope=None):
    """The elementwise loss `name` with scalars s and t. slope: the factor and the parameter of `name_backward`;
    target_slope: the operation that gives the target's gradient, None for minus the input's."""
    one_of(reduction, "reduction", REDUCTIONS)
    x, y = _same_shape(input, target)
    scale = 1.0 if reduction != "mean" else (1.0 / x.numel() if x.numel() else float("nan"))
    loss = ewise(OPS[name], x, y, None, s, t) if reduction == "none" else ewise_sum(OPS[name], x, y, scale, s, t)
    factor, parameter = slope[0] * scale, slope[1]

    def backward(dy):
        dx = dt = None
        if x.requires_grad or target_slope is None:
            dx = ewise(OPS[name + "_backward"], dy, x, y, factor, parameter)
        if y.requires_grad:
            dt = (
                ewise(OPS["neg"], dx) if target_slope is None else ewise(OPS[target_slope], dy, x, y, factor, parameter)
            )
        return dx, dt

    return _tape.record(loss, name + "_loss", (x, y), backward, (x, y))


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
    return _pointwise("mse", input, target, reduction, slope=(2.0, 0.0))


def rmse_loss(input, target, *, reduction="mean"):
    """sqrt of the mean (or sum) of (input - target)^2; 'none': |input - target|. The gradient of a loss of 0 is 0.

    Args:
        input, target: of one shape; gradients flow to both.
        reduction: 'mean', 'sum' or 'none'.

    Raises:
        ValueError: the shapes differ, or the reduction is unknown.

    >>> import nncore
    >>> rmse_loss(nncore.tensor([1.0, 5.0]), nncore.tensor([1.0, 5.0])).item()
    0.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    if reduction == "none":
        return l1_loss(input, target, reduction="none")
    x, t = _same_shape(input, target)
    scale = 1.0 if reduction == "sum" else (1.0 / x.numel() if x.numel() else float("nan"))
    y = ewise(OPS["sqrt"], ewise_sum(OPS["mse"], x, t, scale))

    def backward(dy):  # dy (x - t) scale / y
        zero = ewise(OPS["scale"], y, None, None, 0.0)
        dx = ewise(OPS["mse_backward"], ewise(OPS["where"], y, ewise(OPS["div"], dy, y), zero), x, t, scale)
        return dx, ewise(OPS["neg"], dx) if t.requires_grad else None

    return _tape.record(y, "rmse_loss", (x, t), backward, (x, t, y))


def l1_loss(input, target, *, reduction="mean"):
    """|input - target|: the mean absolute error. The gradient of equal elements is 0.

    Args:
        input, target: of one shape; gradients flow to both.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> l1_loss(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0])).item()
    1.0
    """
    return _pointwise("l1", input, target, reduction)


def huber_loss(input, target, reduction="mean", delta=1.0):
    """With d = input - target: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). Huber, Ann. Math. Stat., 1964.

    Args:
        input, target: of one shape; gradients flow to both.
        reduction: 'mean', 'sum' or 'none'.
        delta: number > 0.

    >>> import nncore
    >>> huber_loss(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0]), reduction="none").tolist()
    [0.0, 1.5]
    """
    d = number(delta, "delta", 0, low_open=True)
    return _pointwise("huber", input, target, reduction, d, 1.0, (1.0, d))


def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """With d = input - target: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2: Huber's loss over beta.
    Girshick, ICCV 2015.

    Args:
        input, target: of one shape; gradients flow to both.
        reduction: 'mean', 'sum' or 'none'.
        beta: number >= 0; at 0 it is the L1 loss.

    >>> import nncore
    >>> smooth_l1_loss(nncore.tensor([1.0, 3.0]), nncore.tensor([1.0, 1.0]), reduction="none").tolist()
    [0.0, 1.5]
    """
    b = number(beta, "beta", 0)
    if b == 0:
        return l1_loss(input, target, reduction=reduction)
    return _pointwise("huber", input, target, reduction, b, 1 / b, (1 / b, b))


def _weighted(loss, input, target, weight, reduction):
    """An elementwise loss with factors that broadcast to the input."""
    one_of(reduction, "reduction", REDUCTIONS)
    x = as_float(input)
    w = as_tensor(weight, "weight", x._code)
    losses = mul(loss(x, target, reduction="none"), w)
    if losses.shape != x.shape:
        raise ValueError(f"weight: shape {w.shape} cannot be broadcast to the input's {x.shape}")
    return _reduced(losses, reduction)


def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """-(t log p + (1 - t) log(1 - p)), logarithms not below -100.

    Args:
        input: probabilities p in [0, 1]; outside of it the loss is NaN.
        target: t in [0, 1], of the input's shape.
        weight: factors that broadcast to the input, or None.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> round(binary_cross_entropy(nncore.tensor([0.5]), nncore.tensor([1.0])).item(), 4)
    0.6931
    """
    if weight is not None:
        return _weighted(binary_cross_entropy, input, target, weight, reduction)
    return _pointwise("bce", input, target, reduction, target_slope="bce_backward_target")


def binary_cross_entropy_with_logits(input, target, weight=None, *, reduction="mean", pos_weight=None):
    """-(w t log s(x) + (1 - t) log(1 - s(x))), s the sigmoid: t w log(1 + e^-x) + (1 - t) log(1 + e^x), which cannot
    overflow and keeps the digits of small losses.

    Args:
        input: logits x.
        target: t in [0, 1], of the input's shape.
        weight: factors that broadcast to the input, or None.
        reduction: 'mean', 'sum' or 'none'.
        pos_weight: w, which broadcasts to the input, or None.

    >>> import nncore
    >>> binary_cross_entropy_with_logits(nncore.tensor([-1000.0]), nncore.tensor([1.0])).item()
    1000.0
    """
    if weight is not None:
        loss = lambda x, t, reduction: binary_cross_entropy_with_logits(
            x, t, reduction=reduction, pos_weight=pos_weight
        )
        return _weighted(loss, input, target, weight, reduction)
    if pos_weight is None:
        return _pointwise("bce_logits", input, target, reduction, target_slope="product_backward_target")
    one_of(reduction, "reduction", REDUCTIONS)
    x, t = _same_shape(input, target)
    w = as_tensor(pos_weight, "pos_weight", x._code)
    losses = mul(mul(t, w), softplus(-x, 1.0, math.inf)) + mul(1 - t, softplus(x, 1.0, math.inf))
    if losses.shape != x.shape:
        raise ValueError(f"pos_weight: shape {w.shape} cannot be broadcast to the input's {x.shape}")
    return _reduced(losses, reduction)


def kl_div(input, target, *, reduction="mean", log_target=False):
    """t (log t - x), with x = log q: the terms of the Kullback-Leibler divergence KL(t | q). Kullback, Leibler, 1951.

    Args:
        input: log probabilities x.
        target: probabilities t (0 log 0 = 0), or their logarithms; of the input's shape.
        reduction: 'batchmean' (sum / size of the first axis: the divergence), 'mean', 'sum' or 'none'.
        log_target: whether target is log t.

    >>> import nncore
    >>> kl_div(nncore.tensor([[0.5, 0.5]]).log(), nncore.tensor([[0.5, 0.5]]), reduction="batchmean").item()
    0.0
    """
    one_of(reduction, "reduction", (*REDUCTIONS, "batchmean"))
    name = "kl_div_log" if log_target else "kl_div"
    one = "sum" if reduction == "batchmean" else reduction
    loss = _pointwise(name, input, target, one, target_slope=name + "_backward_target")
    if reduction != "batchmean":
        return loss
    shape = as_float(input).shape
    return loss / (shape[0] if shape else 1)


def poisson_nll_loss(input, target, log_input=True, full=False, *, eps=1e-8, reduction="mean"):
    """e^x - t x, or with log_input=False x - t log(x + eps): -log of the Poisson probability of t, without log t!.

    Args:
        input: the logarithm of the expected count, or the count itself.
        target: counts t, of the input's shape.
        log_input: whether input is the logarithm.
        full: whether Stirling's t log t - t + log(2 pi t) / 2 is added where t > 1.
        eps: number > 0, keeps log x finite.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> poisson_nll_loss(nncore.tensor([0.0]), nncore.tensor([2.0])).item()
    1.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    e = number(eps, "eps", 0, low_open=True)
    if full:
        x, t = _same_shape(input, target)
        safe = clamp(t, min=1.0)  # where it is not used, its logarithm must exist
        stirling = mul(t, log(safe)) - t + 0.5 * log(2 * math.pi * safe)
        losses = poisson_nll_loss(x, t, log_input, eps=e, reduction="none")
        return _reduced(losses + where(t > 1, stirling, 0.0), reduction)
    if log_input:
        return _pointwise("poisson_log", input, target, reduction, target_slope="product_backward_target")
    return _pointwise("poisson", input, target, reduction, e, 0.0, (1.0, e), "poisson_backward_target")


def gaussian_nll_loss(input, target, var, full=False, eps=1e-6, reduction="mean"):
    """(log v + (input - target)^2 / v) / 2 with v = max(var, eps): -log of the normal density, without log(2 pi) / 2.
    Nix, Weigend, ICNN 1994. The gradient passes the maximum as if it were not there.

    Args:
        input: expected values.
        target: of a shape that broadcasts with the input's.
        var: variances >= 0 (below that the loss is NaN): a number, or of the input's shape, without its last axis, or
            with size 1 there.
        full: whether log(2 pi) / 2 is added.
        eps: number > 0.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> gaussian_nll_loss(nncore.tensor([3.0]), nncore.tensor([1.0]), nncore.tensor([1.0])).item()
    2.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x = as_float(input)
    t = as_tensor(target, "target", x._code)
    e = number(eps, "eps", 0, low_open=True)
    v = constant(float(var), x._code) if is_number(var) else as_tensor(var, "var", x._code)
    if v.ndim and v.shape != x.shape:
        if v.shape == x.shape[:-1]:
            v = unsqueeze(v, -1)
        elif v.ndim != x.ndim or v.shape[:-1] != x.shape[:-1] or v.shape[-1] != 1:
            raise ValueError(f"var: shape {v.shape} does not fit an input of {x.shape}")
    negative = ewise(OPS["lt"], v, constant(0.0, v._code))
    least = ewise(OPS["clamp"], v, None, None, e, math.inf)
    v = _tape.record(ewise(OPS["where"], negative, constant(math.nan, v._code), least), "clamp", (v,), lambda dy: (dy,))
    losses = 0.5 * (log(v) + square(sub(x, t)) / v)
    return _reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def hinge_embedding_loss(input, target, margin=1.0, *, reduction="mean"):
    """x where target is 1, max(0, margin - x) where it is -1; x is a distance of a pair that is alike or is not.
    Chopra, Hadsell, LeCun, CVPR 2005.

    Args:
        input: distances x.
        target: 1 or -1, of the input's shape.
        margin: number.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> hinge_embedding_loss(nncore.tensor([0.5, 0.25]), nncore.tensor([1.0, -1.0]), reduction="none").tolist()
    [0.5, 0.75]
    """
    m = number(margin, "margin")
    x, t = _same_shape(input, target)
    return _pointwise("hinge_embedding", x, t.detach(), reduction, m, 0.0, (1.0, m))


def soft_margin_loss(input, target, *, reduction="mean"):
    """log(1 + e^(-t x)): the logistic loss of labels t = +-1. It cannot overflow.

    Args:
        input: scores x.
        target: 1 or -1, of the input's shape.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> round(soft_margin_loss(nncore.tensor([0.0]), nncore.tensor([1.0])).item(), 4)
    0.6931
    """
    return _pointwise("soft_margin", input, target, reduction, target_slope="soft_margin_backward_target")


def margin_ranking_loss(input1, input2, target, margin=0.0, *, reduction="mean"):
    """max(0, -t (x1 - x2) + margin): t = 1 if the first is to rank higher, -1 if the second.

    Args:
        input1, input2: scores of one shape (or that broadcast).
        target: 1 or -1.
        margin: number.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> margin_ranking_loss(nncore.tensor([1.0]), nncore.tensor([3.0]), nncore.tensor([1.0])).item()
    2.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    m = number(margin, "margin")
    a = as_float(input1, "input1")
    b, t = as_tensor(input2, "input2", a._code), as_tensor(target, "target", a._code)
    return _reduced(clamp(m - mul(t, sub(a, b)), min=0.0), reduction)


def _distance(a, b, p, eps):
    """|a - b + eps|_p over the last axis."""
    d = sub(a, b) + eps
    if p == 2:
        return sqrt(sum_(square(d), -1))
    if p == math.inf:
        return max_(abs_(d), -1)[0]
    return pow(sum_(pow(abs_(d), p), -1), 1 / p)


def triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, *, reduction="mean"):
    """max(0, d(a, p) - d(a, n) + margin) with d(x, y) = |x - y + eps|_p. Balntas et al., BMVC 2016.

    Args:
        anchor, positive, negative: [N, D] or [D].
        margin: number > 0.
        p: norm, > 0 (infinity: the largest difference).
        eps: number, keeps the gradient at a distance of 0 finite.
        swap: whether d(p, n) is taken where it is smaller than d(a, n).
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> a, b = nncore.zeros(1, 2), nncore.tensor([[3.0, 4.0]])
    >>> round(triplet_margin_loss(a, b, a).item(), 3)
    6.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    m, p, eps = number(margin, "margin", 0, low_open=True), number(p, "p", 0, low_open=True), number(eps, "eps")
    a = as_float(anchor, "anchor")
    b, c = as_tensor(positive, "positive", a._code), as_tensor(negative, "negative", a._code)
    for t, name in ((b, "positive"), (c, "negative")):
        if t.ndim != a.ndim or a.ndim == 0:
            raise ValueError(f"{name}: expected shape [N, D] or [D] as the anchor's {a.shape}, got {t.shape}")
    near, far = _distance(a, b, p, eps), _distance(a, c, p, eps)
    if swap:
        far = minimum(far, _distance(b, c, p, eps))
    return _reduced(clamp(near - far + m, min=0.0), reduction)


def cosine_embedding_loss(input1, input2, target, margin=0.0, *, reduction="mean"):
    """1 - cos(x1, x2) where target is 1, max(0, cos(x1, x2) - margin) where it is -1.

    Args:
        input1, input2: [N, D] or [D].
        target: 1 or -1, [N] or [].
        margin: -1 to 1.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> x = nncore.tensor([[1.0, 0.0]])
    >>> cosine_embedding_loss(x, x, nncore.tensor([1.0])).item()
    0.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    m = number(margin, "margin", -1, 1)
    a = as_float(input1, "input1")
    b = as_tensor(input2, "input2", a._code)
    if a.ndim not in (1, 2) or b.shape != a.shape:
        raise ValueError(f"input2: expected both inputs [N, D] or [D], got {a.shape} and {b.shape}")
    dots, squares = sum_(mul(a, b), -1), mul(sum_(square(a), -1) + 1e-12, sum_(square(b), -1) + 1e-12)
    cos = dots / sqrt(squares)
    t = as_tensor(target, "target", a._code)
    if t.shape != cos.shape:
        raise ValueError(f"target: expected shape {cos.shape}, got {t.shape}")
    zero = new_zeros(cos.shape, cos._code)
    losses = where(eq_(t, 1.0), 1 - cos, zero) + where(eq_(t, -1.0), clamp(cos - m, min=0.0), zero)
    return _reduced(losses, reduction)


def _class_weight(weight, x, classes):
    if weight is None:
        return None
    w = as_tensor(weight, "weight", x._code)
    if w.shape != (classes,):
        raise ValueError(f"weight: expected one factor per class, shape ({classes},), got {w.shape}")
    return contiguous(w.detach())


def _scores(input, target):
    """Scores as [N, C] with C >= 1, and class indices as [N]."""
    x = as_float(input)
    t = as_tensor(target, "target")
    if x.ndim not in (1, 2) or x.shape[-1] == 0:
        raise ValueError(f"input: expected scores [N, C] or [C] with C >= 1, got shape {x.shape}")
    if t._code != INT64:
        raise TypeError(f"target: expected int64 class indices, got {t.dtype}")
    return (x if x.ndim == 2 else unsqueeze(x, 0)), t


def multi_margin_loss(input, target, p=1, margin=1.0, weight=None, *, reduction="mean"):
    """sum over j != t of w_t max(0, margin - x_t + x_j)^p / C: the hinge loss of C classes. Crammer, Singer, JMLR 2001
    (who take the largest term).

    Args:
        input: scores [N, C] or [C].
        target: int64 class indices [N] or [].
        p: 1 or 2.
        margin: number.
        weight: w [C] or None.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> multi_margin_loss(nncore.tensor([[1.0, 3.0]]), nncore.tensor([0])).item()
    1.5
    """
    one_of(reduction, "reduction", REDUCTIONS)
    if p not in (1, 2):
        raise ValueError(f"p: expected 1 or 2, got {p!r}")
    m = number(margin, "margin")
    x, t = _scores(input, target)
    if t.shape != as_float(input).shape[:-1]:
        raise ValueError(f"target: expected shape {as_float(input).shape[:-1]}, got {t.shape}")
    n, classes = x.shape
    w = _class_weight(weight, x, classes)
    t = indexing.checked_index(reshape(t, (n,)), classes, "target")
    at = indexing.places(reshape(t, (n, 1)), classes)
    others = _ones_but(n * classes, at, x._code)._view((n, classes), (classes, 1), 0)
    own = getitem(reshape(x, (-1,)), at)
    z = clamp(m - own + x, min=0.0)
    losses = sum_(mul(z if p == 1 else square(z), others), 1) / classes
    if w is not None:
        losses = mul(losses, indexing.gather(w, t, 1, (n,)))
    return _reduced(losses if as_float(input).ndim == 2 else reshape(losses, ()), reduction)


def _ones_but(n, at, code):
    """[n] ones, 0 at the flat positions."""
    y = ewise(OPS["fill"], new_empty((n,), code), None, None, 1.0)
    indexing.scatter(y, at, new_zeros(at.shape, code), 1)
    return y


def multilabel_margin_loss(input, target, *, reduction="mean"):
    """sum over labels j and classes i that are no label of max(0, 1 - (x_j - x_i)) / C.

    Args:
        input: scores [N, C] or [C].
        target: int64 of the input's shape: the labels of a row, then -1.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> multilabel_margin_loss(nncore.tensor([[0.0, 1.0]]), nncore.tensor([[1, -1]])).item()
    0.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x, t = _scores(input, target)
    if t.shape != as_float(input).shape:
        raise ValueError(f"target: expected the input's shape {as_float(input).shape}, got {t.shape}")
    n, classes = x.shape
    at = indexing.places(indexing.checked_index(reshape(t, (n, classes)), classes, "target", False, -1), classes)
    labels = new_zeros((n * classes,), x._code)
    indexing.scatter_add(labels, at, ewise(OPS["fill"], new_empty(at.shape, x._code), None, None, 1.0), 1)
    labels = labels._view((n, classes, 1), (classes, 1, 1), 0)
    others = _ones_but(n * classes, at, x._code)._view((n, 1, classes), (classes, classes, 1), 0)
    hinge = clamp(1 - unsqueeze(x, 2) + unsqueeze(x, 1), min=0.0)
    losses = sum_(mul(mul(hinge, labels), others), (1, 2)) / classes
    return _reduced(losses if as_float(input).ndim == 2 else reshape(losses, ()), reduction)


def multilabel_soft_margin_loss(input, target, weight=None, *, reduction="mean"):
    """mean over classes of -w (t log s(x) + (1 - t) log(1 - s(x))), s the sigmoid.

    Args:
        input: scores x [N, C] or [C].
        target: t, 0 or 1, of the input's shape.
        weight: w [C] or None.
        reduction: 'mean', 'sum' or 'none'.

    >>> import nncore
    >>> round(multilabel_soft_margin_loss(nncore.zeros(1, 2), nncore.ones(1, 2)).item(), 4)
    0.6931
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x, t = _same_shape(input, target)
    if x.ndim == 0:
        raise ValueError("input: expected at least one dimension, the classes")
    losses = binary_cross_entropy_with_logits(x, t, _class_weight(weight, x, x.shape[-1]), reduction="none")
    return _reduced(mean_(losses, -1), reduction)


def _rows_of_classes(x, t, indices):
    """Logits [N, C, d1, ...] as rows [N*d1*..., C], and the targets to match."""
    if x.ndim == 1:
        return reshape(x, (1, -1)), reshape(t, (1,) if indices else (1, -1))
    if x.ndim > 2:
        order = (0, *range(2, x.ndim), 1)
        x = reshape(permute(x, order), (-1, x.shape[1]))
        t = reshape(t if indices else permute(t, order), (-1,) if indices else x.shape)
    return x, t


def _class_loss(x, target, weight, ignore_index, reduction, smoothing, log_probs):
    """Cross-entropy, or with log_probs the negative log likelihood, of class indices."""
    t = as_tensor(target, "target")
    where_ = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if t._code != INT64:
        or_soft = "" if log_probs else " or class probabilities of the input's shape"
        raise TypeError(f"target: expected int64 class indices{or_soft}, got {t.dtype}")
    if t.shape != where_:
        raise ValueError(f"target: expected class indices of shape {where_} for an input of {x.shape}, got {t.shape}")
    rows, t = _rows_of_classes(x, t, True)
    rows_c = contiguous(rows)
    w = _class_weight(weight, x, rows_c.shape[1])
    t = indexing.checked_index(t, rows_c.shape[1], "target", False, integer(ignore_index, "ignore_index"))
    y, lse, total = rowwise.cross_entropy(
        rows_c, t, 1.0, reduction == "none", w, smoothing, log_probs, reduction == "mean"
    )

    def backward(dy):
        return (rowwise.cross_entropy_backward(rows_c, t, lse, dy, 1.0, w, smoothing, total),)

    y = _tape.record(y, "nll_loss" if log_probs else "cross_entropy", (rows,), backward, (rows_c,))
    return reshape(y, where_) if reduction == "none" and where_ != y.shape else y


def cross_entropy(input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """-log softmax(input)[target], from logits.

    Args:
        input: logits [N, C] (or [C], or [N, C, d1, ...]).
        target: int64 class indices [N] (or [], or [N, d1, ...]), or class probabilities of the input's shape.
        weight: factors w of the classes, [C], or None. With indices, 'mean' divides by the sum of w[target].
        ignore_index: samples of this class index count for nothing.
        reduction: 'mean' over samples, 'sum', or 'none'.
        label_smoothing: 0 to 1, e: the target is mixed with the uniform distribution, (1 - e) target + e / C.
            Szegedy et al., CVPR 2016.

    Raises:
        ValueError: a class index is not in [0, C), or a shape does not fit.
        TypeError: the target is neither.

    >>> import nncore
    >>> round(cross_entropy(nncore.zeros(1, 2), nncore.tensor([1])).item(), 4)
    0.6931
    """
    one_of(reduction, "reduction", REDUCTIONS)
    smoothing = number(label_smoothing, "label_smoothing", 0, 1)
    x = as_float(input)
    if x.ndim == 0 or x.shape[min(x.ndim - 1, 1)] == 0:
        raise ValueError(f"input: expected logits [N, C] with C >= 1 (or [C], or [N, C, d1, ...]), got shape {x.shape}")
    t = as_tensor(target, "target")
    if t._floating and t.shape == x.shape:
        t = as_tensor(target, "target", x._code)
        return _soft_cross_entropy(x, t, weight, reduction, smoothing)
    return _class_loss(x, t, weight, ignore_index, reduction, smoothing, False)


def _soft_cross_entropy(x, t, weight, reduction, smoothing):
    """Targets as probabilities: -sum_c w_c t_c log softmax(x)_c."""
    where_ = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    rows, t = _rows_of_classes(x, t, False)
    w = _class_weight(weight, x, rows.shape[1])
    if smoothing:
        t = t * (1 - smoothing) + smoothing / rows.shape[1]
    losses = -sum_(mul(log_softmax(rows), t if w is None else mul(t, w)), 1)
    if reduction == "none":
        return reshape(losses, where_)
    return _reduced(losses, reduction)


def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """-input[target], from log probabilities; arguments and errors as cross_entropy's with class indices.

    >>> import nncore
    >>> nll_loss(nncore.tensor([[-1.0, -2.0]]), nncore.tensor([0])).item()
    1.0
    """
    one_of(reduction, "reduction", REDUCTIONS)
    x = as_float(input)
    if x.ndim == 0 or x.shape[min(x.ndim - 1, 1)] == 0:
        raise ValueError(f"input: expected log probabilities [N, C] with C >= 1, got shape {x.shape}")
    return _class_loss(x, target, weight, ignore_index, reduction, 0.0, True)
