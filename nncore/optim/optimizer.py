"""What all optimizers share: parameter groups, state, and the walk over parameters that have a gradient."""

import weakref

from nncore._core import elementwise, record
from nncore._core import optim as kernels
from nncore._core.tensor import TensorBase, new_empty, new_zeros
from nncore._grad import enable_grad
from nncore._ops._check import as_tensor, is_number, number, row_major


def pair(values, name, *bounds, **open_ends):
    """Raises unless `values` are two numbers within bounds."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise TypeError(f"{name}: expected two numbers, got {values!r}")
    for i, v in enumerate(values):
        number(v, f"{name}[{i}]", *bounds, **open_ends)


def as_number(x, name):
    """A number, or the one in an array without dimensions (as torch saves counters)."""
    if not is_number(x) and getattr(x, "shape", None) != ():
        raise TypeError(f"{name}: expected a number, got {type(x).__name__}")
    return float(x)


def arguments(names):
    """The options among the locals() of an optimizer's constructor: what follows `params`."""
    return {name: value for name, value in names.items() if name not in ("self", "params", "__class__")}


_alive = {}  # id -> weak reference to each optimizer


def options_of_all():
    """{optimizer: the values in its groups} of all that there are."""
    living = [o for o in (r() for r in list(_alive.values())) if o is not None]
    return {o: o._options() for o in living}


class Optimizer:
    """Base of the optimizers; torch's interface.

    A subclass names its line of csrc/optim.def and that line's state arrays, and works out its scalars in `_plan`.

    Args:
        params: iterable of tensors, or of dicts {'params': ..., option: value} that override defaults.
        defaults: {option: value}.

    Attributes:
        param_groups: list of dicts: 'params' and the options, which may be changed at any time.
        state: {parameter: {name: value}}.
    """

    _kernel = None
    _slots = ()

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        key = id(self)
        _alive[key] = weakref.ref(self, lambda _: _alive.pop(key, None))
        return self

    def __init__(self, params, defaults):
        if isinstance(params, TensorBase) or not hasattr(params, "__iter__"):
            raise TypeError(f"params: expected an iterable of tensors or dicts, got {type(params).__name__}")
        groups = list(params)
        if not groups:
            raise ValueError("params: empty; an optimizer needs at least one parameter")
        self.defaults, self.state, self.param_groups = defaults, {}, []
        self._stepped = False
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for g in groups:
            self.add_param_group(g)

    def add_param_group(self, param_group):
        """Adds a group {'params': tensors, option: value, ...}; missing options take the defaults."""
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError("param_group: expected a dict with 'params'")
        params = param_group["params"]
        params = [params] if isinstance(params, TensorBase) else list(params)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, TensorBase):
                raise TypeError(f"params: expected tensors, got {type(p).__name__}")
            if p.grad_fn is not None or not p._floating:
                raise ValueError("params: expected floating leaf tensors")
            if not p._contiguous:
                raise ValueError(
                    f"params: a view of strides {p.strides} cannot be updated in place; pass a contiguous tensor"
                )
            if id(p) in known:
                raise ValueError("params: a parameter appears twice")
            known.add(id(p))
        for name in param_group:
            if name not in ("params", "initial_lr") and name not in self.defaults:
                raise ValueError(f"param_group: unknown option {name!r}; expected {sorted(self.defaults)}")
        group = {**self.defaults, **param_group, "params": params}
        self.check_options(group)
        self.param_groups.append(group)

    def _options(self):
        """The values in the groups, to be compared by identity."""
        return [v for group in self.__dict__.get("param_groups", ()) for v in group.values()]

    def _arrays(self, group):
        """{name: initial value} of those of `_slots` that these options need."""
        return dict.fromkeys(self._slots, 0.0)

    def _counters(self, group):
        """{name: initial value} of the numbers kept for each parameter."""
        return {"step": 0}

    def _plan(self, group, counters):
        """(scalars of the kernel for this step, the counters after it)."""
        raise NotImplementedError

    def _norms(self, params):
        """Sums of squares of the gradients, for a kernel that needs them."""
        return None

    def check_options(self, group):
        """Raises ValueError or TypeError for option values that make no sense."""
        for name in ("lr", "eps", "weight_decay"):
            if name in group:
                number(group[name], name, 0)
        if "betas" in group:
            pair(group["betas"], "betas", 0, 1, high_open=True)

    def zero_grad(self, set_to_none=True):
        """Drops all gradients (or sets them to zero)."""
        for group in self.param_groups:
            for p in group["params"]:
                p._zero_grad(set_to_none)

    def step(self, closure=None):
        """Updates every parameter that has a gradient.

        Args:
            closure: function that computes the gradients anew and returns the loss.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            if not callable(closure):
                raise TypeError(f"closure: expected a function, got {type(closure).__name__}")
            with enable_grad():
                loss = closure()
        self._stepped = True
        recording = record.current()
        if recording is not None:
            recording.optimizers.add(self)
        for group in self.param_groups:
            for params in self._batches(group):
                try:
                    self._update(group, params)
                except TypeError:
                    self.check_options(group)  # names the option, if it was one
                    raise
        return loss

    def _batches(self, group):
        """Lists of parameters that one kernel call can update: with a gradient, of one dtype and the same counters."""
        found, names = {}, tuple(self._counters(group))
        for p in group["params"]:
            if p.grad is not None:
                state = self.state.get(p)
                key = (p._code, *[state[n] for n in names]) if state else (p._code,)
                found.setdefault(key, []).append(p)
        return found.values()

    def _init_state(self, params, group, arrays):
        """State before the first step, or what of it is not there yet. One flat array per name, so that neighbours can
        be updated as one."""
        total = sum(p.numel() for p in params)
        code = params[0]._code
        at = 0
        flat = {}
        for name, value in arrays.items():
            flat[name] = new_empty((total,), code)
            elementwise.fill(flat[name], value)
        for p in params:
            views = {k: f._view(p.shape, row_major(p.shape), at) for k, f in flat.items()}
            self.state[p] = {**self._counters(group), **views, **self.state.get(p, {})}
            at += p.numel()

    def _update(self, group, params):
        """One kernel call for all."""
        arrays = self._arrays(group)
        counters = self.state.get(params[0], {})
        if not arrays.keys() <= counters.keys():
            recording = record.current()
            if recording is not None and self not in recording.options:
                raise record.RecordError(
                    f"{type(self).__name__}: made inside a compiled function, it starts anew in each call, but a "
                    "replay would go on with its state; make it outside"
                )
            with record.paused():  # once, not in every replay
                self._init_state(params, group, arrays)
            counters = self.state[params[0]]
        states = [self.state[p] for p in params] if arrays else []
        arrays_of = [[s[name] for s in states] if name in arrays else None for name in self._slots]
        step = kernels.Step(self, group, counters, states, arrays.keys())
        kernels.update(self._kernel, params, arrays_of, self._norms(params), step)

    # ---- saving ----

    def state_dict(self):
        """{'state': {number: values}, 'param_groups': [options with parameter numbers]}; arrays are copies."""
        numbers, groups = {}, []
        for group in self.param_groups:
            for p in group["params"]:
                numbers[p] = len(numbers)
            groups.append(
                {k: v for k, v in group.items() if k != "params"} | {"params": [numbers[p] for p in group["params"]]}
            )
        state = {
            numbers[p]: {k: v.detach().numpy().copy() if isinstance(v, TensorBase) else v for k, v in s.items()}
            for p, s in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def _read_state(self, p, number, values):
        """The saved values of one parameter as its state."""
        values = {k: v for k, v in values.items() if v is not None}  # torch's SGD without momentum has None
        if not values:
            return {}
        state = self._counters(self.param_groups[0])
        values.setdefault("step", 1)  # torch's SGD does not count
        for k, v in values.items():
            if k in state:
                state[k] = type(state[k])(as_number(v, k))
            else:
                v = as_tensor(v, k)
                if v.shape != p.shape:
                    raise ValueError(f"state_dict: {k} of parameter {number} has shape {v.shape}, expected {p.shape}")
                state[k] = new_zeros(p.shape, p._code).copy_(v)
        return state

    def load_state_dict(self, state_dict):
        """Restores what `state_dict` gave, for the same parameters in the same order.

        Raises:
            ValueError: groups, parameters or shapes do not match; nothing has been changed then.
        """
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            raise TypeError("state_dict: expected a dict with 'state' and 'param_groups', as state_dict() gives it")
        groups, saved = self.param_groups, state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in saved]:
            raise ValueError("state_dict: its parameter groups have other sizes than this optimizer's")
        by_number = {n: p for g, s in zip(groups, saved) for p, n in zip(g["params"], s["params"])}
        state = {}
        for n, values in state_dict["state"].items():
            if n not in by_number:
                raise ValueError(f"state_dict: state for unknown parameter number {n}")
            read = self._read_state(by_number[n], n, values)
            if read:
                state[by_number[n]] = read
        for g, s in zip(groups, saved):
            for p in g["params"]:
                missing = [k for k in self._arrays({**g, **s}) if p in state and k not in state[p]]
                if missing:
                    raise ValueError(f"state_dict: {missing} missing for a parameter; it is another optimizer's state")
            self.check_options({**g, **{k: v for k, v in s.items() if k != "params"}})
        for g, s in zip(groups, saved):
            g.update({k: v for k, v in s.items() if k != "params"})
        self.state = state

    def __repr__(self):
        options = [", ".join(f"{k}={v}" for k, v in g.items() if k != "params") for g in self.param_groups]
        return f"{type(self).__name__}(" + "; ".join(options) + ")"
