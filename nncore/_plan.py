"""The recorded step: `nncore.compile`.

The first two calls with arguments of one kind run as they would without it, and are recorded: every kernel that runs,
with its arguments. If both did the same work, later calls replay it: one call into the kernels, no Python between them.
"""

import copy
import functools
import gc
import operator
import os
import sys
import types
import weakref

import numpy as np

from nncore._core import plan as core
from nncore._core.fuse import fuse
from nncore._core.optim import Groups
from nncore._core.record import Recorder, RecordError
from nncore._core.tensor import TensorBase
from nncore._grad import is_grad_enabled, set_grad_enabled
from nncore._profile import align, units
from nncore._replay import Callable, Family, Replay, Structure, built, changed_edge, fresh, same, taken_apart
from nncore._watch import Names, state
from nncore.nn import Module
from nncore.optim.optimizer import Optimizer, options_of_all


def _tree(value):
    """The value taken apart down to its leaves, with tensors outside of the graph."""
    if isinstance(value, TensorBase):
        return value.detach()
    if (found := taken_apart(value)) is None:
        return value
    found.parts = [_tree(v) for v in found.parts]
    return found


def _kind(value, tensors):
    """The kind of a result that was taken apart; its tensors are appended to `tensors`."""
    if isinstance(value, Structure):
        return value.cls, value.keys, value.names, [_kind(v, tensors) for v in value.parts]
    if isinstance(value, TensorBase):
        tensors.append(value)
        return "tensor", value._code, value.shape, value.channels_last
    if isinstance(value, float):
        return float, value.hex()  # equal bit for bit, NaN included
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if value is None or isinstance(value, int | str):
        return type(value), value
    raise RecordError(
        "a compiled function returns tensors, numbers, strings, and tuples, lists, dicts and dataclasses of them; this "
        f"one returned {type(value).__name__}"
    )


class _Recording:
    """A call of the function that was recorded: its work, its results, and what they depend on."""

    def __init__(self, fn, plan, fixed):
        inputs = [*plan.args.tensors(), *plan.kwargs.tensors()]
        self.recorder = Recorder(fixed, {t._storage for t, array in inputs if array})  # of any floating dtype
        copies = []
        args, kwargs = plan.args.given(copies), plan.kwargs.given(copies)
        names = Names([fn, *plan.args.values(), *plan.kwargs.values()], [t for t, _ in inputs])
        plan.family.join(names.shared)
        self.edges, self.tensors = names.edges, names.tensors
        named = {o for o in names.shared if isinstance(o, Optimizer)}
        self.recorder.modules = {m: m._snapshot() for m in names.modules}
        self.recorder.options = options_of_all()
        self.recorder.start()
        try:
            self._run(fn, args, kwargs, plan.keep_grads, [t for t, _ in inputs], named, copies)
        finally:
            self.recorder.stop()

    def _run(self, fn, args, kwargs, keep_grads, inputs, named, copies):
        r = self.recorder
        result = fn(*args, **kwargs)
        r.pause += 1  # from here on only what is freed counts
        for module, before in r.modules.items():
            if not same(before, module._snapshot()):
                raise RecordError(
                    f"{type(module).__name__}: an attribute changed inside a compiled function, and a replay would not "
                    "change it; keep what changes in a buffer, or change it outside"
                )
        for optimizer in r.optimizers | named:
            before, now = r.options.get(optimizer), optimizer._options()
            if before is not None and (len(before) != len(now) or any(map(operator.is_not, before, now))):
                raise RecordError(
                    f"{type(optimizer).__name__}: an option changed inside a compiled function, and a replay would not "
                    "change it; set it outside, between calls"
                )
        r.options = optimizer = None
        if any(r.written.get(t._storage) for t in inputs):
            raise RecordError(
                "argument: changed in place inside a compiled function, which has its own copy; return the new value, "
                "or change a tensor from outside"
            )
        tensors = []
        self.result = _tree(result)
        self.kind = _kind(self.result, tensors)
        returned = [b for t in tensors if (b := core.block_of(r, t)) is not None]
        made = [m for m in r.modules if any(core.block_of(r, t) is not None for t in m.parameters())]
        for module in made:  # inside: it goes with the call
            del r.modules[module]
        del result, tensors, made  # and with them the graph
        module = before = None
        self.held = returned + [b for t, _ in r.alive() if (b := self._grad_block(t)) is not None]
        if self._lost():
            gc.collect()  # references in circles
        self._settle(returned, keep_grads)
        self.steps = core.understand(r, self.moving)
        r.ranges = []  # what they held is in the steps now
        if lost := self._lost():
            raise RecordError(
                f"a tensor of {lost[0].nbytes} bytes that was made inside a compiled function outlives it without "
                "being returned, and a replay would not write it; return it, or copy_() it into a tensor from outside",
                core.writer(self.steps, lost[0]),
            )
        if edge := changed_edge(self.edges + copies):
            raise RecordError(
                f"{edge.key or 'a list or dict'}: changed inside a compiled function, and a replay would not change "
                "it; keep what changes in a tensor, or change it outside"
            )

    def _grad_block(self, leaf):
        return core.block_of(self.recorder, leaf.grad) if leaf.grad is not None else None

    def _settle(self, returned, keep_grads):
        """What becomes of gradients: those from before, those made inside."""
        r = self.recorder
        leaves = r.alive()
        self.leaves = [leaf for leaf, _ in leaves]
        self.trained = [(leaf, leaf.requires_grad) for leaf in self.leaves]
        self.held, self.grads, self.left = list(returned), [], []
        for leaf, found in leaves:
            block = self._grad_block(leaf)
            if block is not None and leaf in r.updated and not keep_grads:
                dropped = 2 if found.before is None else 1  # 2: neither cleared before nor after
                leaf.grad, leaf._grad_dropped = None, dropped
                self.left.append((leaf, None, dropped))
            elif block is not None:
                self.grads.append((leaf, leaf.grad, block))
                self.held.append(block)
            elif leaf.grad is None:
                if found.before is not None:
                    self.left.append((leaf, None, 0))
            elif leaf.grad._storage is not found.before:
                self.left.append((leaf, leaf.grad, 0))
        self.moving = [m for leaf, found in leaves if (m := core.moving(r, found, leaf)) is not None]
        self.befores = [(leaf, found.before) for leaf, found in leaves if found.before is not any]

    def _lost(self):
        found = [b for b in self.recorder.live.values() if b not in self.held and b.nbytes]
        if found:  # another thread's garbage collector may have freed them
            alive = core.in_use()
            found = [b for b in found if b.serial in alive]
        return found


class Plan(Replay):
    """The work recorded for one kind of arguments.

    Attributes:
        replays: the number of calls that replayed it.
    """

    def __init__(self, args, kwargs, grad, keep_grads, family):
        super().__init__(args, kwargs, grad)
        self.keep_grads, self.family = keep_grads, family

    @property
    def replays(self):
        return self.work.replays if self.work is not None else 0

    def __len__(self):
        return len(self.work) if self.work is not None else 0

    def summary(self):
        """The kernels of a replay, in order, as a table: what each computes, on how many threads its work is done,
        where the memory that it uses lies in the plan's arena ("offset+bytes"; the rest is parameters, states and other
        memory from outside), and which line of Python it comes from.

        Returns:
            str.

        >>> import nncore
        >>> f = nncore.compile(lambda x: (x * 2).sum())
        >>> for _ in range(3): y = f(nncore.ones(1000))
        >>> print(f.plan.summary())  # doctest: +ELLIPSIS
        # ... kernel ... shape ... FLOP ... bytes ... threads ... arena ... line
        ... 1 replays
        """
        if self.work is None:
            return "no kernels yet: a plan is made by the second call"
        cells, total, moved = [["#", "kernel", "shape", "FLOP", "bytes", "threads", "arena", "line"]], 0, 0
        for i, (name, shape, flop, size, _, blocks, threads, (file, line)) in enumerate(self.work.describe()):
            arena = " ".join(f"{at}+{n}" for at, n in sorted(blocks))
            here = f"{os.path.basename(file)}:{line}"
            cells.append([str(i), name, shape, units(flop), units(size), str(threads), arena, here])
            total, moved = total + flop, moved + size
        lines = align(cells, left=(1, 2, 6, 7))
        lines.append(
            f"{len(self)} kernels, {units(total)}FLOP, {units(moved)}B read and written; arena of "
            f"{units(self.work.arena_bytes)}B; {self.replays} replays"
        )
        return "\n".join(lines)

    def deep(self):
        then = self.recording
        if not all((m := ref()) is None or same(before, m._snapshot()) for ref, before in then.modules):
            return False
        return all(leaf.requires_grad == was for leaf, was in then.trained) and all(
            state(t) == was for t, was in then.tensors
        )

    def record(self, fn, check):
        """Runs fn and records it; from the second time on the work is there."""
        former = self.recording
        fixed = former and {s for s, times in former.recorder.written.items() if not times}
        now = _Recording(fn, self, fixed)
        r = now.recorder
        now.modules = [(weakref.ref(m), before) for m, before in r.modules.items()]  # an argument is not kept alive
        self.recording, self.befores, self.moving, self.epoch = now, now.befores, now.moving, -1
        former_groups, self.optimizers = self.optimizers, [Groups(o) for o in r.optimizers]
        self.edges, self.written = now.edges, core.planned(r)
        try:
            if former is not None:
                if not all(g.unchanged() for g in former_groups):
                    raise RecordError(
                        "optimizer: its groups or the tensors of its state changed inside a compiled function, and a "
                        "replay would not change them; do it outside, between calls"
                    )
                self._compare(former, now)
                if not check:
                    self._make(now)
            result = built(now.result, fresh)
            for leaf, g, _ in now.grads:
                leaf.grad = fresh(g)
        finally:
            now.result = now.grads = None
            r.modules = {}
        return result

    def _compare(self, former, now):
        core.compare(former.steps, former.recorder, now.steps, now.recorder)
        if now.kind != former.kind:
            raise RecordError(
                "a compiled function returned other numbers, or tensors of other shapes, in the second of two "
                f"calls with equal arguments: {now.kind} after {former.kind}"
            )

    def _make(self, now):
        r = now.recorder
        self.work = core.Plan(fuse(now.steps, now.held), r, now.held, now.moving)

        def moved(t):
            b = core.block_of(r, t)
            return t if b is None else self.work.tensor(b, t)

        self.result = _tree(built(now.result, moved))
        self.grads = [(leaf, moved(g)) for leaf, g, _ in now.grads]
        self.left = now.left
        self.family.join([*r.modules, *r.optimizers, *{s.generator for s in r.streams}, *now.leaves])


class Compiled(Callable):
    """What `compile` returns: called like the function or module it was made from, whose attributes it has.

    Attributes:
        plan: the plan that was used last.
        plans: all plans.
    """

    def __init__(self, fn, check=False, keep_grads=False):
        family = Family()
        family.join(Names([fn]).shared)  # before any runs: first calls take turns, too
        super().__init__(family, isinstance(fn, Module))
        functools.update_wrapper(self, fn if hasattr(fn, "__name__") else type(fn), updated=())
        self._check, self._keep_grads = check, keep_grads
        self._fn = fn  # the last one: from here on a module's attributes are set

    def __getattr__(self, name):
        if name.startswith("__") or "_fn" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._fn, name)

    def __setattr__(self, name, value):
        if self._wraps_module():
            setattr(self._fn, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name):
        if self._wraps_module():
            delattr(self._fn, name)
        else:
            super().__delattr__(name)

    def _wraps_module(self):
        return isinstance(self.__dict__.get("_fn"), Module)

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

    def _run(self, fn, *args, **kwargs):
        """fn, without gradients if it infers."""
        with set_grad_enabled(is_grad_enabled() and not isinstance(self._fn, Module)):
            return fn(*args, **kwargs)

    def _nested(self, args, kwargs):
        return self._run(self._fn, *args, **kwargs)

    def _new_plan(self, args, kwargs, grad):
        return Plan(args, kwargs, grad, self._keep_grads, self._family)

    def _record(self, plan):
        return self._run(plan.record, self._fn, self._check)


def compile(fn=None, *, check=False, keep_grads=False):
    """A function or module whose work is recorded, and replayed without Python between its kernels.

    Args:
        fn: a function of tensors, arrays, numbers, and tuples, lists, dicts and dataclasses of them: a whole training
            step (forward, loss, backward, clipping, update, several networks and optimizers), or a Module for
            inference. Without it, a decorator.
        check: record every call and compare it with the one before, never replay: finds what changes from call to call.
        keep_grads: leave `.grad` readable after a step that updated the parameters; otherwise it reads None.

    Returns:
        Compiled: to be called like fn, with results equal bit for bit. The first two calls with arguments of one kind
            (shapes, dtypes, values of numbers) are recorded and compared; later ones replay. A module runs without
            recording gradients.

    What is computed inside from tensors is replayed, with the values of the moment: arguments, parameters, buffers,
    states and options of optimizers, random streams. Returned tensors are outside the graph and never written again.
    Changing a module's mode or attributes, freezing a parameter, loading a state_dict take effect, and so does binding
    a name that the function reads to another object or number. What is constant: docs/compile.md.

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
