"""The recorded step: `nncore.compile`.

The first two calls with arguments of one kind run as they would without it, and are recorded: every kernel that runs,
with its arguments. If both did the same work, later calls replay it: one call into the kernels, no Python between them.
"""

import copy
import dis
import functools
import gc
import sys
import threading
import types
import weakref

import numpy as np

from nncore import _tape
from nncore._core import conv, record, runtime
from nncore._core import plan as core
from nncore._core.record import Recorder, RecordError
from nncore._core.tensor import TensorBase
from nncore._grad import no_grad
from nncore._ops._check import as_tensor
from nncore.nn import Module
from nncore.optim.optimizer import Optimizer

MOST_PLANS = 64  # of one function: the one that was not used for longest goes


class _Family:
    """A lock shared by the compiled functions that share a model, an optimizer or a generator."""

    members = weakref.WeakKeyDictionary()
    guard = threading.Lock()

    def __init__(self):
        self.lock, self.joined = threading.RLock(), None

    def root(self):
        while self.joined is not None:
            self = self.joined
        return self

    def join(self, objects):
        """From now on one family with all others that have one of these."""
        with self.guard:
            root = self.root()
            for o in objects:
                o = o._storage if isinstance(o, TensorBase) else o
                other = self.members.get(o, root).root()
                if other is not root:
                    other.joined = root
                self.members[o] = root

    def run(self, f, *args):
        """f(*args), while no other member runs."""
        while True:
            root = self.root()
            with root.lock:
                if root.joined is None:
                    return f(*args)


class _Names:
    """What a function finds by name: modules, optimizers and tensors in its closure, among the globals it and the
    functions it calls read, and in the attributes of objects found so or given as arguments."""

    def __init__(self, fn, given):
        self.cells, self.entries, self._seen = [], [], set()
        self._function(fn)
        self.objects = [v for v in given if not isinstance(v, TensorBase) and self._value(v)]
        self.objects += [v for *_, v in self.cells + self.entries]
        self.modules = [m for v in self.objects if isinstance(v, Module) for m in v.modules()]
        self.tensors = [(v, v.requires_grad, v._storage) for v in self.objects if isinstance(v, TensorBase)]

    def _function(self, fn):
        if isinstance(fn, functools.partial):
            for v in (fn.func, *fn.args, *fn.keywords.values()):
                self._value(v)
            return
        if isinstance(fn, types.MethodType):
            self._value(fn.__self__)
            fn = fn.__func__
        while hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        if not isinstance(fn, types.FunctionType) or fn in self._seen or _ours(fn):
            return
        self._seen.add(fn)
        for cell in fn.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if self._value(value):
                self.cells.append((cell, value))
        for name in _global_names(fn.__code__):
            if name in fn.__globals__ and self._value(fn.__globals__[name]):
                self.entries.append((fn.__globals__, name, fn.__globals__[name]))

    def _value(self, value):
        """Whether to watch who has this value; its own attributes are watched too."""
        if isinstance(value, Module | TensorBase | Optimizer):
            return True
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial | Compiled):
            self._function(value)
        elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType):
            mine = vars(value)
            self.entries += [(mine, k, v) for k, v in mine.items() if isinstance(v, Module | TensorBase | Optimizer)]
        return False

    def same(self):
        """Whether the names still stand for the same objects."""
        try:
            return all(c.cell_contents is v for c, v in self.cells) and all(d.get(k) is v for d, k, v in self.entries)
        except ValueError:  # a cell is empty now
            return False

    def unchanged(self):
        """Whether the tensors among them have the same memory, and are trained or not as before."""
        return all(t.requires_grad == wanted and t._storage is storage for t, wanted, storage in self.tensors)


def _ours(fn):
    parts = fn.__globals__.get("__name__", "").split(".")
    return parts[0] == "nncore" and "tests" not in parts


def _global_names(code):
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def _same(a, b):
    """Whether two values are equal: numbers and strings by value, other things by identity."""
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return a is b or (type(a) is type(b) and isinstance(a, int | float | str) and (a == b or (a != a and b != b)))


def _flatten(value, tensors, leaf):
    """The kind of a structure of values, hashable; `leaf` gives that of a value which is no tuple, list or dict."""
    if isinstance(value, tuple | list):
        return (type(value), *[_flatten(v, tensors, leaf) for v in value])
    if isinstance(value, dict):
        return (dict, *[(k, _flatten(v, tensors, leaf)) for k, v in value.items()])
    if isinstance(value, TensorBase):
        tensors.append(value)
        return "tensor", value._code, value.shape, value.channels_last
    return leaf(value, tensors)


def _number(value):
    """A float such that equal ones are equal bit for bit, NaN included."""
    return float, value.hex()


def _argument(value, tensors):
    if type(value) is float:
        return _number(value)
    if isinstance(value, np.ndarray | np.generic):
        with no_grad():  # read in place: the plan has its own copy
            tensors.append(as_tensor(value, "argument"))
        return "array", tensors[-1]._code, tensors[-1].shape
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            "argument: expected tensors, arrays, numbers, or tuples, lists and dicts of them, got an unhashable "
            f"{type(value).__name__}"
        ) from None
    return type(value), value


def _result(value, tensors):
    if type(value) is float:
        return _number(value)
    if value is None or isinstance(value, int | float | str):
        return type(value), value
    raise RecordError(
        "a compiled function returns tensors, numbers, strings, and tuples, lists and dicts of them; this one returned "
        f"{type(value).__name__}"
    )


def _map(value, f):
    """The structure with f of each tensor and array."""
    if isinstance(value, TensorBase | np.ndarray | np.generic):
        return f(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_map(v, f) for v in value])
    if isinstance(value, tuple | list):
        return type(value)(_map(v, f) for v in value)
    if isinstance(value, dict):
        return {k: _map(v, f) for k, v in value.items()}
    return value


class _Recording:
    """A call of the function that was recorded: its work, its results, and what they depend on."""

    def __init__(self, fn, plan, fixed):
        self.recorder = Recorder(fixed, plan.raw)
        self.names = _Names(fn, [*plan.args, *plan.kwargs.values()])
        plan.family.join(self.names.objects)
        self.recorder.modules = {m: m._snapshot() for m in self.names.modules}
        self.recorder.start()
        try:
            self._run(fn, plan)
        finally:
            self.recorder.stop()

    def _run(self, fn, plan):
        r = self.recorder
        result = fn(*plan.args, **plan.kwargs)
        r.pause += 1  # from here on only what is freed counts
        for module, before in r.modules.items():
            if not _same(before, module._snapshot()):
                raise RecordError(
                    f"{type(module).__name__}: an attribute changed inside a compiled function, and a replay would not "
                    "change it; keep what changes in a buffer, or change it outside"
                )
        if any(r.written.get(t._storage) for t in plan.inputs):
            raise RecordError(
                "argument: changed in place inside a compiled function, which has its own copy; return the new value, "
                "or change a tensor from outside"
            )
        tensors = []
        self.kind = _flatten(result, tensors, _result)
        self.held = [b for t in tensors if (b := core.block_of(r, t)) is not None]
        self.grads = []
        for leaf in r.leaves:
            block = core.block_of(r, leaf.grad) if leaf.grad is not None else None
            if block is None:
                continue
            if leaf in r.updated and not plan.keep_grads:
                leaf.grad = None
            else:
                self.grads.append((leaf, leaf.grad, block))
                self.held.append(block)
        self.trained = [(leaf, leaf.requires_grad) for leaf in r.leaves]
        self.steps = core.understand(r)
        r.ranges = []  # what they held is in the steps now
        self.result = _map(result, lambda t: t.detach())
        del result, tensors  # and with them the graph
        if self._lost():
            gc.collect()  # references in circles
        if lost := self._lost():
            raise RecordError(
                f"a tensor of {lost[0].nbytes} bytes that was made inside a compiled function outlives it without "
                "being returned, and a replay would not write it; return it, or copy_() it into a tensor from outside",
                core.writer(self.steps, lost[0]),
            )

    def _lost(self):
        found = [b for b in self.recorder.live.values() if b not in self.held and b.nbytes]
        if found:  # another thread's garbage collector may have freed them
            alive = core.in_use()
            found = [b for b in found if b.address in alive]
        return found


class Plan:
    """The work recorded for one kind of arguments.

    Attributes:
        replays: the number of calls that replayed it.
    """

    def __init__(self, args, kwargs, tensors, keep_grads, family):
        self.keep_grads, self.family = keep_grads, family
        self.inputs = [core.fresh(t) for t in tensors]
        arrays, statics = [], iter(self.inputs)

        def static(value):
            t = next(statics)
            if not isinstance(value, TensorBase):
                arrays.append(t._storage)
            return t

        self.args, self.kwargs = _map(args, static), _map(kwargs, static)
        self.raw = set(arrays)  # of any floating dtype, like an array where a tensor is expected
        self.recording, self.work, self.epoch = None, None, -1

    @property
    def replays(self):
        return self.work.replays if self.work is not None else 0

    def __len__(self):
        return len(self.work) if self.work is not None else 0

    def fits(self):
        """Whether what the work depends on, besides its arguments, is as it was recorded."""
        if self.recording is None:
            return True
        r = self.recording.recorder
        for leaf, before in r.leaves.items():
            if before is not any and (None if leaf.grad is None else leaf.grad._storage) is not before:
                return False
        if self.stale() or not self.recording.names.same():
            return False
        if self.epoch != record.epoch():
            now = record.epoch()
            if not all(_same(before, m._snapshot()) for m, before in r.modules.items()):
                return False
            if any(leaf.requires_grad != before for leaf, before in self.recording.trained):
                return False
            if not self.recording.names.unchanged():
                return False
            self.epoch = now
        return self.work is None or self.work.valid()

    def stale(self):
        """Whether it will never fit again: an optimizer has other groups or another state now."""
        r = self.recording and self.recording.recorder
        return r is not None and any(o._version != version for o, version in r.optimizers.items())

    def record(self, fn, check):
        """Runs fn and records it; from the second time on the work is there."""
        former = self.recording
        fixed = former and {s for s, times in former.recorder.written.items() if not times}
        now = _Recording(fn, self, fixed)
        if former is not None:
            core.compare(former.steps, former.recorder, now.steps, now.recorder)
            if now.kind != former.kind:
                raise RecordError(
                    "a compiled function returned other numbers, or tensors of other shapes, in the second of two "
                    f"calls with equal arguments: {now.kind} after {former.kind}"
                )
            if not check:
                self._make(now)
        self.recording = now
        result = _map(now.result, core.fresh)
        for leaf, g, _ in now.grads:
            leaf.grad = core.fresh(g)
        now.result = now.grads = None
        self.epoch = -1
        return result

    def _make(self, now):
        r = now.recorder
        self.work = core.Plan(now.steps, r, now.held)

        def moved(t):
            b = core.block_of(r, t)
            return t if b is None else self.work.tensor(b, t)

        self.result = _map(now.result, moved)
        self.grads = [(leaf, moved(g)) for leaf, g, _ in now.grads]
        kept = {leaf for leaf, _ in self.grads}
        self.dropped = [leaf for leaf, before in r.leaves.items() if before is any and leaf not in kept]
        self.family.join([*r.modules, *r.optimizers, *{g for g, _, _ in r.streams}, *r.leaves])

    def run(self, fn, check, tensors):
        """Replays the work on these arguments, or runs fn and records it; gives what fn returns."""
        for mine, given in zip(self.inputs, tensors):
            core.refill(mine, given)
        if self.work is None:
            return self.record(fn, check)
        self.work.replay()
        for leaf, g in self.grads:
            leaf.grad = core.fresh(g)
        for leaf in self.dropped:
            leaf.grad = None
        return _map(self.result, core.fresh)


class Compiled:
    """What `compile` returns: called like the function or module it was made from, whose attributes it has.

    Attributes:
        plan: the plan that was used last.
    """

    def __init__(self, fn, check=False, keep_grads=False):
        self._fn, self._check, self._keep_grads = fn, check, keep_grads
        self._family = _Family()
        self._family.join(_Names(fn, []).objects)  # before any runs: first calls take turns, too
        self._plans = {}  # kind of arguments -> plans, which differ in what else they depend on
        self.plan = None
        functools.update_wrapper(self, fn if hasattr(fn, "__name__") else type(fn), updated=())

    def __getattr__(self, name):
        if name.startswith("__") or "_fn" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._fn, name)

    def __get__(self, owner, kind=None):
        return self if owner is None else types.MethodType(self, owner)

    def __reduce__(self):
        name, found = getattr(self._fn, "__qualname__", ""), sys.modules.get(getattr(self._fn, "__module__", None))
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:  # a decorated function: it is found under its name again
            return name
        return Compiled, (self._fn, self._check, self._keep_grads)

    def __deepcopy__(self, memo):
        return Compiled(copy.deepcopy(self._fn, memo), self._check, self._keep_grads)

    def __call__(self, *args, **kwargs):
        if isinstance(self._fn, Module) and _tape.is_grad_enabled():
            with no_grad():
                return self(*args, **kwargs)
        if record.active():  # a part of another recording
            return self._fn(*args, **kwargs)
        tensors = []
        key = (
            _flatten(args, tensors, _argument),
            _flatten(kwargs, tensors, _argument),
            _tape.is_grad_enabled(),
            runtime.get_isa(),
            conv.get_algorithm(),
        )
        for t in tensors:
            if t.requires_grad:
                raise ValueError(
                    "argument: expected tensors that do not require grad; gradients flow to what is outside of the "
                    "function's arguments; pass x.detach()"
                )
        return self._family.run(self._run, key, args, kwargs, tensors)

    def _run(self, key, args, kwargs, tensors):
        self.plan = plan = self._find(key, args, kwargs, tensors)
        return plan.run(self._fn, self._check, tensors)

    def _find(self, key, args, kwargs, tensors):
        plans = self._plans.pop(key, [])
        self._plans[key] = plans  # used last
        for plan in plans:
            if plan.fits():
                return plan
        plans[:] = [p for p in plans if not p.stale()]
        plans.append(Plan(args, kwargs, tensors, self._keep_grads, self._family))
        if sum(map(len, self._plans.values())) > MOST_PLANS:
            oldest = next(iter(self._plans))
            self._plans[oldest].pop(0)
            if not self._plans[oldest]:
                del self._plans[oldest]
        return plans[-1]


def compile(fn=None, *, check=False, keep_grads=False):
    """A function or module whose work is recorded, and replayed without Python between its kernels.

    Args:
        fn: a function of tensors, arrays, numbers, and tuples, lists and dicts of them: a whole training step (forward,
            loss, backward, clipping, update, several networks and optimizers), or a Module for inference. Without it, a
            decorator.
        check: record every call and compare it with the one before, never replay: finds what changes from call to call.
        keep_grads: leave `.grad` readable after a step that updated the parameters; otherwise it reads None.

    Returns:
        Compiled: to be called like fn, with results equal bit for bit. The first two calls with arguments of one kind
            (shapes, dtypes, values of numbers) are recorded and compared; later ones replay. A module runs without
            recording gradients.

    What is computed inside from tensors is replayed, with the values of the moment: arguments, parameters, buffers,
    states and options of optimizers, random streams. Python numbers that are not arguments are constants. Returned
    tensors are outside the graph and never written again. Changing a module's mode or attributes, freezing a parameter,
    loading a state_dict take effect.

    Raises:
        RecordError: (a RuntimeError) while recording, with the line: a value was read (`item`, `numpy`, `if` on a
            tensor), an array of NumPy was used that is no argument, a tensor outlives the call without being returned,
            or the second call did other work than the first.
        TypeError, ValueError: an argument of another kind, or one that requires grad.

    >>> import nncore
    >>> from nncore import nn
    >>> model = nn.Linear(3, 1); optimizer = nncore.optim.SGD(model.parameters(), lr=0.1)
    >>> @nncore.compile
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = nncore.randn(8, 3), nncore.randn(8, 1)
    >>> losses = [step(x, y).item() for _ in range(5)]
    >>> losses == sorted(losses, reverse=True), step.plan.replays
    (True, 3)
    """
    if fn is None:
        return functools.partial(compile, check=check, keep_grads=keep_grads)
    if not callable(fn):
        raise TypeError(f"fn: expected a function or a Module, got {type(fn).__name__}")
    return Compiled(fn, check, keep_grads)
