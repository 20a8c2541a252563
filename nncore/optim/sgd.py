"""Stochastic gradient descent."""

from nncore._core import optim as kernels
from nncore._ops._check import number
from nncore.optim.optimizer import Optimizer


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

    def __init__(self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, maximize=False):
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _state_names(self, group):
        return ("momentum_buffer",) if group["momentum"] else ()

    def check_options(self, group):
        for name in ("lr", "momentum", "weight_decay"):
            number(group[name], name, 0)
        number(group["dampening"], "dampening")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov: needs momentum > 0 and dampening 0")

    def _update(self, group, params):
        first, buffers = False, None
        if group["momentum"]:
            first = params[0] not in self.state
            if first:
                self._init_state(params, self._state_names(group))
            buffers = [self.state[p]["momentum_buffer"] for p in params]
        kernels.sgd(
            params,
            buffers,
            group["lr"],
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            group["maximize"],
            first,
        )
        if buffers:
            for p in params:
                self.state[p]["step"] += 1
