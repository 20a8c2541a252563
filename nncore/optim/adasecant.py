"""AdaSecant: step sizes from finite differences of gradients."""

import math

from nncore._core import optim as kernels
from nncore._ops._check import integer, number
from nncore.optim.optimizer import Optimizer, arguments


class AdaSecant(Optimizer):
    """A diagonal secant method without a learning rate to tune. For each element, with g the gradient divided by the
    norm of its whole array (+ eps), and E[.] the mean over about the last tau steps (of g and g^2: decay E +
    (1-decay) .):

        gamma = min(sqrt(E[((g - g~')(g~' - E g))^2] / E[((E g - g)(g~' - E g))^2]), gamma_clip)
        g~    = (g + gamma E[g]) / (1 + gamma)                   the gradient with less variance; g~' the one before
        alpha = g - g'                                           the change of the gradient
        delta = -lr (sqrt(E[delta^2]) / sqrt(E[alpha^2]) - E[alpha delta] / E[alpha^2]) g~
        p    <- p + delta
        tau  <- (1 - E[delta]^2 / E[delta^2]) tau + 1, within [1.5, 1e8];  2.2 where g or alpha is more than two
                standard deviations from its mean

    Gulcehre, Moczulski, Bengio, "ADASECANT", arXiv:1412.7419 (2014), and "A Robust Adaptive Stochastic Gradient Method
    for Deep Learning", IJCNN 2017. The order of the updates, the initial values and the defaults are those of the
    authors' published code of 2015, which differs from the paper in the means of g. Roots and quotients are guarded by
    eps as there; the variances, which rounding can make negative, by 0.

    Args:
        params: iterable of parameters or of group dicts.
        lr: multiplies every step, >= 0; 1 as published.
        decay: of the means of g and g^2, in [0, 1).
        gamma_clip: largest gamma, > 0; None: no limit.
        start_var_reduction: step (from 0) from which gradients are corrected by gamma; None: never.
        delta_clip: limit of the step size that multiplies g~, > 0; None: no limit.
        use_adagrad: divide delta by max(1, sqrt(sum of g~^2)).
        eps: > 0.
        weight_decay: decoupled: p <- p (1 - lr weight_decay), >= 0.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0, -2.0])
    >>> opt = AdaSecant([w])
    >>> for _ in range(300):
    ...     opt.zero_grad()
    ...     loss = (w * w).sum()
    ...     loss.backward()
    ...     opt.step()
    >>> loss.item() < 0.01
    True
    """

    _kernel = "adasecant"
    _slots = (
        "tau",
        "mean_grad",
        "mean_square_grad",
        "gamma_numerator",
        "gamma_denominator",
        "mean_curvature_delta",
        "mean_curvature",
        "mean_square_curvature",
        "mean_delta",
        "mean_square_delta",
        "corrected_grad",
        "grad",
        "sum_square_grad",
    )

    def __init__(
        self,
        params,
        lr=1.0,
        decay=0.95,
        gamma_clip=1.8,
        start_var_reduction=0,
        delta_clip=None,
        use_adagrad=False,
        eps=1e-7,
        weight_decay=0,
        *,
        maximize=False,
    ):
        super().__init__(params, arguments(locals()))

    def _arrays(self, group):
        eps = group["eps"]
        start = dict.fromkeys(self._slots, eps)
        start.update(tau=2.1 * (1 + eps), mean_delta=0.0, mean_square_delta=0.0, sum_square_grad=0.0)
        if not group["use_adagrad"]:
            del start["sum_square_grad"]
        return start

    def check_options(self, group):
        super().check_options(group)
        number(group["eps"], "eps", 0, low_open=True)
        number(group["decay"], "decay", 0, 1, high_open=True)
        for name in ("gamma_clip", "delta_clip"):
            if group[name] is not None:
                number(group[name], name, 0, low_open=True)
        if group["start_var_reduction"] is not None:
            integer(group["start_var_reduction"], "start_var_reduction", 0)

    def _norms(self, params):
        return kernels.norms([p.grad for p in params], 2.0)

    def _plan(self, group, counters):
        step, start = counters["step"], group["start_var_reduction"]
        scalars = {
            "beta1": group["decay"],
            "eps": group["eps"],
            "gamma_clip": math.inf if group["gamma_clip"] is None else group["gamma_clip"],
            "delta_clip": math.inf if group["delta_clip"] is None else group["delta_clip"],
            "correct": start is not None and step >= start,
            "first": step == 0,
            "decoupled": True,
        }
        return scalars, {"step": step + 1}
