"""Limited-memory BFGS with a line search."""

import math

from nncore._core import elementwise, record
from nncore._core import optim as kernels
from nncore._core.runtime import OPS
from nncore._core.tensor import TensorBase, item, new_zeros
from nncore._grad import enable_grad, no_grad
from nncore._ops import shape
from nncore._ops._check import as_tensor, integer, number
from nncore.optim.optimizer import Optimizer, arguments, as_number


def _dot(a, b):
    return item(elementwise.ewise_sum(OPS["mul"], a, b))


def _largest(a):
    return item(kernels.norms([a], math.inf))


def _scaled(a, s):
    return elementwise.ewise(OPS["scale"], a, None, None, s)


class _Rate:
    """The numbers of a step of gradient descent."""

    def __init__(self, lr):
        self._lr = lr

    def apply(self, address):
        kernels.set_scalars(address, lr=self._lr)


def _add(y, s, x):
    """y += s x, in one pass: a step of gradient descent."""
    y.grad = x
    kernels.update("sgd", [y], [None], None, _Rate(-s))
    y.grad = None
    return y


class LBFGS(Optimizer):
    """The quasi-Newton method of limited memory: steps along -H g, where H approximates the inverse Hessian from the
    last `history_size` changes of the point, s, and of the gradient, y, by the two-loop recursion; H starts as I times
    s y / y y of the last.

    Nocedal, Math. Comp. 1980; Liu, Nocedal, Math. Programming 1989; the line search keeps the strong Wolfe conditions
    by cubic interpolation (Nocedal, Wright, "Numerical Optimization", algorithms 3.5 and 3.6; minFunc). In torch's
    form. For full batches and few parameters: the memory is 2 history_size times the parameters.

    Args:
        params: iterable of parameters of one dtype; one group only.
        lr: the step, or the first one that the line search tries, >= 0.
        max_iter: iterations in one `step`.
        max_eval: evaluations of the closure in one `step`; None: 1.25 max_iter.
        tolerance_grad: stop when no element of the gradient is larger.
        tolerance_change: stop when the parameters or the loss change by less.
        history_size: number of changes kept.
        line_search_fn: None or 'strong_wolfe'.

    Raises:
        ValueError, TypeError: an option or `params` is out of range.

    >>> import nncore
    >>> w = nncore.nn.Parameter([3.0, -4.0])
    >>> opt = LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = (w * w * nncore.tensor([1.0, 100.0])).sum()
    ...     loss.backward()
    ...     return loss
    >>> opt.step(closure).item()
    1609.0
    >>> closure().item() < 1e-8
    True
    """

    def __init__(
        self,
        params,
        lr=1,
        max_iter=20,
        max_eval=None,
        tolerance_grad=1e-7,
        tolerance_change=1e-9,
        history_size=100,
        line_search_fn=None,
    ):
        integer(max_iter, "max_iter", 1)
        max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        super().__init__(params, arguments(locals()))

    def add_param_group(self, param_group):
        """Adds the only group."""
        if self.param_groups:
            raise ValueError("params: LBFGS has one group of parameters only")
        super().add_param_group(param_group)
        params = self.param_groups[0]["params"]
        if len({p._code for p in params}) > 1:
            self.param_groups.clear()
            raise TypeError("params: expected one dtype")

    def check_options(self, group):
        super().check_options(group)
        for name in ("max_iter", "max_eval", "history_size"):
            integer(group[name], name, 1)
        for name in ("tolerance_grad", "tolerance_change"):
            number(group[name], name, 0)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(f"line_search_fn: expected None or 'strong_wolfe', got {group['line_search_fn']!r}")

    # ---- the parameters and their gradients as one vector ----

    @property
    def _params(self):
        return self.param_groups[0]["params"]

    def _flat(self, tensors):
        return shape.cat([shape.reshape(t, -1) for t in tensors])

    def _gradient(self):
        return self._flat([new_zeros(p.shape, p._code) if p.grad is None else p.grad for p in self._params])

    def _move(self, x):
        """Sets the parameters to the vector x."""
        at = 0
        for p in self._params:
            elementwise.copy_into(p, shape.reshape(x[at : at + p.numel()], p.shape))
            at += p.numel()

    # ---- the iteration ----

    def step(self, closure):
        """Up to `max_iter` iterations.

        Args:
            closure: function that clears the gradients, computes the loss and its gradients, and returns the loss.

        Returns:
            The loss that the first call of the closure gave.

        Raises:
            TypeError: closure is not a function.
            RuntimeError: inside of a compiled function.
        """
        if not callable(closure):
            raise TypeError(f"closure: expected a function, got {type(closure).__name__}")
        if record.active():
            raise record.RecordError("LBFGS decides by the losses how often it calls the closure; compile the closure")
        self._stepped = True
        with no_grad():
            return self._iterate(closure)

    def _iterate(self, closure):
        group, state = self.param_groups[0], self.state.setdefault(self._params[0], {"func_evals": 0, "n_iter": 0})

        def evaluate():
            with enable_grad():
                loss = closure()
            state["func_evals"] += 1
            return loss, self._gradient()

        first, g = evaluate()
        loss, evaluated, x = float(first), 1, self._flat(self._params)
        if _largest(g) <= group["tolerance_grad"]:
            return first
        for n in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = self._direction(state, g, group["history_size"])
            former, slope = loss, _dot(g, d)
            t = group["lr"]
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / item(kernels.norms([g], 1)))
            state.update(d=d, t=t, prev_flat_grad=g, prev_loss=former)
            if slope > -group["tolerance_change"]:
                break
            before = state["func_evals"]
            if group["line_search_fn"]:

                def along(t):
                    self._move(_add(elementwise.cast(x, x._code), t, d))
                    value, gradient = evaluate()
                    return float(value), gradient, _dot(gradient, d)

                most = group["max_eval"] - evaluated
                loss, g, t = strong_wolfe(along, t, _largest(d), loss, g, slope, group["tolerance_change"], most)
                state["t"] = t
            _add(x, t, d)
            self._move(x)
            if not group["line_search_fn"] and n < group["max_iter"]:
                value, g = evaluate()
                loss = float(value)
            evaluated += state["func_evals"] - before
            if (
                evaluated >= group["max_eval"]
                or _largest(g) <= group["tolerance_grad"]
                or _largest(d) * abs(t) <= group["tolerance_change"]
                or abs(loss - former) < group["tolerance_change"]
            ):
                break
        return first

    @staticmethod
    def _direction(state, g, history_size):
        """-H g, with the last step's changes taken into the memory."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return elementwise.ewise(OPS["neg"], g)
        ys, ss, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = elementwise.ewise(OPS["sub"], g, state["prev_flat_grad"]), _scaled(state["d"], state["t"])
        curvature = _dot(y, s)
        if curvature > 1e-10:
            for memory, new in ((ys, y), (ss, s), (ro, 1.0 / curvature)):
                if len(memory) == history_size:
                    memory.pop(0)
                memory.append(new)
            state["H_diag"] = curvature / _dot(y, y)
        q = elementwise.ewise(OPS["neg"], g)
        al = [0.0] * len(ys)
        for i in reversed(range(len(ys))):
            al[i] = _dot(ss[i], q) * ro[i]
            _add(q, -al[i], ys[i])
        r = _scaled(q, state["H_diag"])
        for i in range(len(ys)):
            _add(r, al[i] - _dot(ys[i], r) * ro[i], ss[i])
        return r

    # ---- saving ----

    def state_dict(self):
        """As torch's: the state stands at the first parameter; vectors are copies."""
        saved = super().state_dict()
        for values in saved["state"].values():
            for name in ("old_dirs", "old_stps", "ro"):
                if name in values:
                    values[name] = [v.numpy().copy() if isinstance(v, TensorBase) else v for v in values[name]]
        return saved

    def _arrays(self, group):
        return {}

    def _read_state(self, p, number, values):
        total = sum(q.numel() for q in self._params)

        def vector(v, name):
            v = as_tensor(v, name)
            if v.shape != (total,):
                raise ValueError(f"state_dict: {name} has shape {v.shape}, expected ({total},)")
            return new_zeros((total,), p._code).copy_(v)

        read = {
            **dict.fromkeys(("func_evals", "n_iter"), lambda v, name: int(as_number(v, name))),
            **dict.fromkeys(("d", "prev_flat_grad"), vector),
            **dict.fromkeys(("t", "H_diag", "prev_loss"), as_number),
            **dict.fromkeys(("old_dirs", "old_stps"), lambda v, name: [vector(a, name) for a in v]),
            "ro": lambda v, name: [as_number(a, name) for a in v],
        }
        return {name: of(values[name], name) for name, of in read.items() if values.get(name) is not None}


def _cubic(x1, f1, g1, x2, f2, g2, low=None, high=None):
    """Where the cubic through two values with their slopes is least, within [low, high] (the two points); the middle if
    it has no minimum."""
    if low is None:
        low, high = min(x1, x2), max(x1, x2)
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if not square >= 0:
        return (low + high) / 2
    if x1 > x2:
        x1, g1, x2, g2 = x2, g2, x1, g1
    d2 = math.sqrt(square)
    bottom = g2 - g1 + 2 * d2
    if bottom == 0:
        return (low + high) / 2
    return min(max(x2 - (x2 - x1) * ((g2 + d2 - d1) / bottom), low), high)


def strong_wolfe(along, t, size, f, g, slope, tolerance_change, most, c1=1e-4, c2=0.9):
    """A step t along a direction at which the loss is below f + c1 t slope and its slope within c2 of the first.

    Args:
        along: t -> (loss, gradient, slope).
        t: first step.
        size: largest element of the direction.
        f, g, slope: loss, gradient and slope at 0.
        tolerance_change: the bracket may shrink to this.
        most: evaluations.

    Returns:
        (loss, gradient, t): the best found.
    """
    start = last = (0.0, f, g, slope)
    point = (t, *along(t))
    bracket, done, n = None, False, 0
    while n < most:
        t, f_new, _, slope_new = point
        if f_new > f + c1 * t * slope or (n > 1 and f_new >= last[1]):
            bracket = [last, point]
            break
        if abs(slope_new) <= -c2 * slope:
            bracket, done = [point], True
            break
        if slope_new >= 0:
            bracket = [last, point]
            break
        beyond = _cubic(last[0], last[1], last[3], t, f_new, slope_new, t + 0.01 * (t - last[0]), t * 10)
        last, point = point, (beyond, *along(beyond))
        n += 1
    if bracket is None:
        bracket = [start, point]
    stuck = False
    low = 0 if bracket[0][1] <= bracket[-1][1] else 1
    while not done and n < most:
        a, b = sorted((bracket[0][0], bracket[1][0]))
        if (b - a) * size < tolerance_change:
            break
        (x1, f1, _, g1), (x2, f2, _, g2) = bracket
        t = _cubic(x1, f1, g1, x2, f2, g2)
        margin = 0.1 * (b - a)
        near = min(b - t, t - a) < margin
        if near and (stuck or t >= b or t <= a):  # near an end for the second time: a tenth away from it
            t = b - margin if abs(t - b) < abs(t - a) else a + margin
            near = False
        stuck = near
        point = (t, *along(t))
        n += 1
        if point[1] > f + c1 * t * slope or point[1] >= bracket[low][1]:
            bracket[1 - low] = point
            low = 0 if bracket[0][1] <= bracket[1][1] else 1
        else:
            if abs(point[3]) <= -c2 * slope:
                done = True
            elif point[3] * (bracket[1 - low][0] - bracket[low][0]) >= 0:
                bracket[1 - low] = bracket[low]
            bracket[low] = point
    t, f, g, _ = bracket[low]
    return f, g, t
