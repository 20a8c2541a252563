"""Resilient back-propagation."""

from nncore._ops._check import number
from nncore.optim.optimizer import Optimizer, arguments, pair


class Rprop(Optimizer):
    """Each element has its own step size, which grows while its gradient keeps its sign and shrinks when it turns:
    with s = g g_before, step <- clamp(step (s > 0 ? eta_plus : s < 0 ? eta_minus : 1));  if s < 0, g <- 0;
    p <- p - sign(g) step.

    Riedmiller, Braun, ICNN 1993, in torch's form (no step back when the gradient turns). For full batches.

    Args:
        params: iterable of parameters or of group dicts.
        lr: first step size, >= 0.
        etas: (eta_minus, eta_plus), 0 < eta_minus < 1 < eta_plus.
        step_sizes: (smallest, largest) step.
        maximize: ascend instead.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0])
    >>> opt = Rprop([w], lr=0.25)
    >>> (w * 2).sum().backward(); opt.step(); w.tolist()
    [0.75]
    """

    _kernel = "rprop"
    _slots = ("prev", "step_size")

    def __init__(self, params, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50), *, maximize=False):
        super().__init__(params, arguments(locals()))

    def _arrays(self, group):
        return {"prev": 0.0, "step_size": group["lr"]}

    def check_options(self, group):
        super().check_options(group)
        pair(group["etas"], "etas")
        number(group["etas"][0], "etas[0]", 0, 1, low_open=True, high_open=True)
        number(group["etas"][1], "etas[1]", 1, low_open=True)
        pair(group["step_sizes"], "step_sizes", 0)
        if group["step_sizes"][0] > group["step_sizes"][1]:
            raise ValueError(f"step_sizes: expected (smallest, largest), got {group['step_sizes']!r}")

    def _plan(self, group, counters):
        (shrink, grow), (least, most) = group["etas"], group["step_sizes"]
        return {"shrink": shrink, "grow": grow, "least": least, "most": most}, {"step": counters["step"] + 1}
