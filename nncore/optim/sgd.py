"""Stochastic gradient descent, plain and averaged."""

from nncore._ops._check import number
from nncore.optim.optimizer import Optimizer, arguments


class SGD(Optimizer):
    """g <- grad + weight_decay p;  b <- momentum b + (1 - dampening) g;  p <- p - lr b  (Nesterov: g + momentum b).

    At a parameter's first step b = g. Without momentum, p <- p - lr g. Sutskever et al., ICML 2013, in torch's form.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        momentum: >= 0.
        dampening: of the gradient in the momentum.
        weight_decay: L2 coefficient, >= 0.
        nesterov: needs momentum > 0 and dampening 0.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = SGD([w], lr=0.5)
    >>> (w * 2).sum().backward(); opt.step(); w.tolist()
    [0.0]
    """

    _kernel = "sgd"
    _slots = ("momentum_buffer",)

    def __init__(self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, maximize=False):
        super().__init__(params, arguments(locals()))

    def _arrays(self, group):
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def check_options(self, group):
        super().check_options(group)
        number(group["momentum"], "momentum", 0)
        number(group["dampening"], "dampening")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov: needs momentum > 0 and dampening 0")

    def _plan(self, group, counters):
        step = counters.get("step", 0)
        scalars = {name: group[name] for name in ("momentum", "dampening", "nesterov")}
        return {**scalars, "first": step == 0}, {"step": step + 1}


class ASGD(Optimizer):
    """Averaged SGD: p <- p (1 - lambd eta) - eta (grad + weight_decay p), with eta = lr / (1 + lambd lr t)^alpha, and
    beside it the average ax <- ax + mu (p - ax), with mu = 1 / max(1, t - t0); eta and mu of a step come from the t
    before.

    Polyak, Juditsky, SIAM J. Control and Optimization 1992; Bottou, COMPSTAT 2010; in torch's form. The average is
    `state[p]["ax"]`.

    Args:
        params: iterable of parameters or of group dicts.
        lr: learning rate, >= 0.
        lambd: decay of the parameter.
        alpha: power by which eta falls.
        t0: step at which averaging starts; before it ax is p.
        weight_decay: L2 coefficient, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = ASGD([w], lr=0.5, lambd=0)
    >>> (w * 2).sum().backward(); opt.step(); w.tolist()
    [0.0]
    """

    _kernel = "asgd"
    _slots = ("ax",)

    def __init__(self, params, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0, *, maximize=False):
        super().__init__(params, arguments(locals()))

    def _counters(self, group):
        return {"step": 0, "eta": float(group["lr"]), "mu": 1.0}

    def check_options(self, group):
        super().check_options(group)
        for name in ("lambd", "alpha", "t0"):
            number(group[name], name)

    def _plan(self, group, counters):
        step, lr, lambd = counters["step"] + 1, group["lr"], group["lambd"]
        after = {
            "step": step,
            "eta": lr / (1 + lambd * lr * step) ** group["alpha"],
            "mu": 1 / max(1, step - group["t0"]),
        }
        return {"lr": counters["eta"], "lambd": lambd, "mu": counters["mu"]}, after
