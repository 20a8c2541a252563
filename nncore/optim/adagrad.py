"""Adagrad, RMSprop and Adadelta: steps scaled by the gradients' root mean square."""

from nncore._ops._check import number
from nncore.optim.optimizer import Optimizer, arguments


class Adagrad(Optimizer):
    """s <- s + g^2;  p <- p - lr / (1 + (t-1) lr_decay) g / (sqrt(s) + eps). Duchi, Hazan, Singer, JMLR 2011, in
    torch's form.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        lr_decay: >= 0.
        weight_decay: L2 coefficient, >= 0.
        initial_accumulator_value: of s, >= 0.
        eps: >= 0.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = Adagrad([w], lr=0.1)
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    _kernel = "adagrad"
    _slots = ("sum",)

    def __init__(
        self,
        params,
        lr=1e-2,
        lr_decay=0,
        weight_decay=0,
        initial_accumulator_value=0,
        eps=1e-10,
        *,
        maximize=False,
    ):
        super().__init__(params, arguments(locals()))

    def _arrays(self, group):
        return {"sum": group["initial_accumulator_value"]}

    def check_options(self, group):
        super().check_options(group)
        for name in ("lr_decay", "initial_accumulator_value"):
            number(group[name], name, 0)

    def _plan(self, group, counters):
        step = counters["step"]
        return {"lr": group["lr"] / (1 + step * group["lr_decay"]), "eps": group["eps"]}, {"step": step + 1}


class RMSprop(Optimizer):
    """v <- alpha v + (1-alpha) g^2;  d = g / (sqrt(v) + eps);  b <- momentum b + d;  p <- p - lr b  (no momentum: d).

    Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; centered: v minus the square of the mean gradient
    under the root, Graves, arXiv:1308.0850. In torch's form.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        alpha: decay of v, in [0, 1].
        eps: >= 0.
        weight_decay: L2 coefficient, >= 0.
        momentum: >= 0.
        centered: divide by the standard deviation instead of the root mean square.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = RMSprop([w], lr=0.01)
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    _kernel = "rmsprop"
    _slots = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, *, maximize=False
    ):
        super().__init__(params, arguments(locals()))

    def _arrays(self, group):
        there = True, group["momentum"] > 0, group["centered"]
        return {name: 0.0 for name, t in zip(self._slots, there) if t}

    def check_options(self, group):
        super().check_options(group)
        number(group["momentum"], "momentum", 0)
        number(group["alpha"], "alpha", 0, 1)

    def _plan(self, group, counters):
        scalars = {"beta2": group["alpha"], "eps": group["eps"], "momentum": group["momentum"]}
        return scalars, {"step": counters["step"] + 1}


class Adadelta(Optimizer):
    """v <- rho v + (1-rho) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;  u <- rho u + (1-rho) d^2;  p <- p - lr d.

    Zeiler, arXiv:1212.5701, in torch's form.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0; 1 as published.
        rho: decay of the means of squares, in [0, 1].
        eps: >= 0.
        weight_decay: L2 coefficient, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = Adadelta([w])
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.9968
    """

    _kernel = "adadelta"
    _slots = ("square_avg", "acc_delta")

    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0, *, maximize=False):
        super().__init__(params, arguments(locals()))

    def check_options(self, group):
        super().check_options(group)
        number(group["rho"], "rho", 0, 1)

    def _plan(self, group, counters):
        return {"beta2": group["rho"], "eps": group["eps"]}, {"step": counters["step"] + 1}
