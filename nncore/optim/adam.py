"""Adam and AdamW."""

from nncore._core import optim as kernels
from nncore._ops._check import number
from nncore.optim.optimizer import Optimizer


class Adam(Optimizer):
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  p <- p - lr m' / (sqrt(v') + eps), with m' = m / (1-b1^t) and
    v' = v / (1-b2^t). Kingma, Ba, ICLR 2015, in torch's form (weight decay is added to the gradient).

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
    >>> opt = Adam([w], lr=0.1)
    >>> (w * 2).sum().backward(); opt.step(); round(w.item(), 4)
    0.9
    """

    _decoupled = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, *, maximize=False):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        )

    def _state_names(self, group):
        return ("exp_avg", "exp_avg_sq")

    def check_options(self, group):
        for name in ("lr", "eps", "weight_decay"):
            number(group[name], name, 0)
        if not isinstance(group["betas"], tuple | list) or len(group["betas"]) != 2:
            raise TypeError(f"betas: expected two numbers, got {group['betas']!r}")
        for i, b in enumerate(group["betas"]):
            number(b, f"betas[{i}]", 0, 1, high_open=True)

    def _update(self, group, params):
        if params[0] not in self.state:
            self._init_state(params, self._state_names(group))
        states = [self.state[p] for p in params]
        b1, b2 = group["betas"]
        kernels.adam(
            params,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            group["lr"],
            b1,
            b2,
            group["eps"],
            group["weight_decay"],
            self._decoupled,
            group["maximize"],
            states[0]["step"] + 1,
        )
        for s in states:
            s["step"] += 1


class AdamW(Adam):
    """Adam with decoupled weight decay: p <- p (1 - lr weight_decay) before the step. Loshchilov, Hutter, ICLR 2019.

    Args: as Adam's; weight_decay is 0.01 by default.

    >>> import nncore
    >>> opt = AdamW([nncore.nn.Parameter([1.0])])
    >>> opt.param_groups[0]["weight_decay"]
    0.01
    """

    _decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, *, maximize=False):
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)
