"""Adam and its kin: steps along a running mean of gradients."""

import math

from nncore._ops._check import number
from nncore.optim.optimizer import Optimizer, arguments


class Adam(Optimizer):
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  p <- p - lr m' / (sqrt(v') + eps), with m' = m / (1-b1^t) and
    v' = v / (1-b2^t). Kingma, Ba, ICLR 2015, in torch's form (weight decay is added to the gradient).

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        betas: (b1, b2), each in [0, 1).
        eps: >= 0.
        weight_decay: L2 coefficient, >= 0.
        amsgrad: v' is made from the largest v so far. Reddi, Kale, Kumar, ICLR 2018.
        maximize: ascend instead.
        decoupled_weight_decay: decay as AdamW's.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = Adam([w], lr=0.1)
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    _kernel = "adam"
    _slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        amsgrad=False,
        *,
        maximize=False,
        decoupled_weight_decay=False,
    ):
        super().__init__(params, arguments(locals()))

    def _arrays(self, group):
        return dict.fromkeys(self._slots if group["amsgrad"] else self._slots[:2], 0.0)

    def _plan(self, group, counters):
        step = counters["step"] + 1
        return {**_means(group, step), "decoupled": group["decoupled_weight_decay"]}, {"step": step}


def _means(group, step):
    """The scalars of m and v."""
    b1, b2 = group["betas"]
    return {"beta1": b1, "beta2": b2, "eps": group["eps"], "bias1": 1 - b1**step, "bias2": 1 - b2**step}


class AdamW(Adam):
    """Adam with decoupled weight decay: p <- p (1 - lr weight_decay) before the step. Loshchilov, Hutter, ICLR 2019.

    Args: as Adam's; weight_decay is 0.01 by default.

    >>> import nncore
    >>> opt = AdamW([nncore.nn.Parameter([1.0])])
    >>> opt.param_groups[0]["weight_decay"]
    0.01
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, maximize=False
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)


class Adamax(Optimizer):
    """m <- b1 m + (1-b1) g;  u <- max(b2 u, |g| + eps);  p <- p - lr / (1-b1^t) m / u. Kingma, Ba, ICLR 2015, 7.1.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        betas: (b1, b2), each in [0, 1).
        eps: >= 0.
        weight_decay: L2 coefficient, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = Adamax([w], lr=0.1)
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    _kernel = "adamax"
    _slots = ("exp_avg", "exp_inf")

    def __init__(self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, *, maximize=False):
        super().__init__(params, arguments(locals()))

    def _plan(self, group, counters):
        step = counters["step"] + 1
        return _means(group, step), {"step": step}


class NAdam(Optimizer):
    """Adam with Nesterov momentum: p <- p - lr d / (sqrt(v') + eps), with m, v, v' as Adam's,
    d = mu_{t+1} m / (1 - mu_1...mu_{t+1}) + (1 - mu_t) g / (1 - mu_1...mu_t) and
    mu_t = b1 (1 - 0.96^(t momentum_decay) / 2). Dozat, "Incorporating Nesterov Momentum into Adam", 2016, in torch's
    form.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        betas: (b1, b2), each in [0, 1).
        eps: >= 0.
        weight_decay: L2 coefficient, >= 0.
        momentum_decay: >= 0; how fast mu_t rises to b1.
        decoupled_weight_decay: p <- p (1 - lr weight_decay), as AdamW's.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = NAdam([w], lr=0.1)
    >>> (w * 2).sum().backward(); opt.step(); w.item() < 1
    True
    """

    _kernel = "nadam"
    _slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        momentum_decay=4e-3,
        decoupled_weight_decay=False,
        *,
        maximize=False,
    ):
        super().__init__(params, arguments(locals()))

    def _counters(self, group):
        return {"step": 0, "mu_product": 1.0}

    def check_options(self, group):
        super().check_options(group)
        number(group["momentum_decay"], "momentum_decay", 0)

    def _plan(self, group, counters):
        step, lr = counters["step"] + 1, group["lr"]
        mu, following = (
            group["betas"][0] * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1)
        )
        product = counters["mu_product"] * mu
        scalars = {
            **_means(group, step),
            "decoupled": group["decoupled_weight_decay"],
            "along_g": lr * (1 - mu) / (1 - product),
            "along_m": lr * following / (1 - product * following),
        }
        return scalars, {"step": step, "mu_product": product}


class RAdam(Optimizer):
    """Adam whose adaptive step waits until the variance of its denominator is known: with r_inf = 2 / (1-b2) - 1 and
    r_t = r_inf - 2 t b2^t / (1-b2^t), while r_t <= 5, p <- p - lr m'; then
    p <- p - lr m' R_t sqrt(1-b2^t) / (sqrt(v) + eps), with
    R_t = sqrt((r_t-4) (r_t-2) r_inf / ((r_inf-4) (r_inf-2) r_t)). Liu et al., ICLR 2020, in torch's form.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        betas: (b1, b2), each in [0, 1).
        eps: >= 0.
        weight_decay: L2 coefficient, >= 0.
        decoupled_weight_decay: p <- p (1 - lr weight_decay), as AdamW's.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = RAdam([w], lr=0.1)
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.8
    """

    _kernel = "radam"
    _slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        decoupled_weight_decay=False,
        *,
        maximize=False,
    ):
        super().__init__(params, arguments(locals()))

    def _plan(self, group, counters):
        step, b2 = counters["step"] + 1, group["betas"][1]
        most = 2 / (1 - b2) - 1
        length = most - 2 * step * b2**step / (1 - b2**step)
        rectify = 0.0
        if length > 5:
            rectify = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
        scalars = {**_means(group, step), "decoupled": group["decoupled_weight_decay"], "rectify": rectify}
        return scalars, {"step": step}


class Lion(Optimizer):
    """p <- p (1 - lr weight_decay) - lr sign(b1 m + (1-b1) g);  m <- b2 m + (1-b2) g. Chen et al., "Symbolic Discovery
    of Optimization Algorithms", NeurIPS 2023.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0: the size of every step. A third to a tenth of Adam's is usual.
        betas: (b1, b2), each in [0, 1).
        weight_decay: >= 0; three to ten times Adam's is usual.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0, 1.0])
    >>> opt = Lion([w], lr=0.25)
    >>> (w * nncore.tensor([2.0, -9.0])).sum().backward(); opt.step(); w.tolist()
    [0.75, 1.25]
    """

    _kernel = "lion"
    _slots = ("exp_avg",)

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, *, maximize=False):
        super().__init__(params, arguments(locals()))

    def _plan(self, group, counters):
        b1, b2 = group["betas"]
        return {"beta1": b1, "beta2": b2, "decoupled": True}, {"step": counters["step"] + 1}
