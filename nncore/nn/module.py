"""Module: parameters, buffers and submodules under names."""

import warnings

import numpy as np

from nncore import _tape
from nncore._core import elementwise, record
from nncore._grad import RemovableHandle
from nncore._ops._check import as_array, as_tensor, float_code
from nncore._tensor import Tensor
from nncore._tensor import tensor as new_tensor
from nncore.nn.parameter import Parameter


class Module:
    """Base of all layers and networks. Assigning a Parameter or a Module to an attribute registers it.

    Subclasses define `__init__`, which calls `super().__init__()` first, and `forward`.

    Attributes:
        training: True in training mode (dropout drops, batch normalization uses batch statistics).

    >>> import nncore
    >>> from nncore import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(4, 8)
    ...         self.out = nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> Net()(nncore.zeros(3, 4)).shape
    (3, 2)
    """

    def __init__(self):
        put = object.__setattr__
        put(self, "training", True)
        put(self, "_parameters", {})
        put(self, "_buffers", {})
        put(self, "_modules", {})
        put(self, "_forward_pre_hooks", {})
        put(self, "_forward_hooks", {})
        put(self, "_backward_pre_hooks", {})
        put(self, "_backward_hooks", {})

    def forward(self, *args, **kwargs):
        """The computation; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args, **kwargs):
        recording = record.current()
        if recording is not None:
            recording.modules.setdefault(self, self._snapshot())
        if self._forward_pre_hooks or self._forward_hooks or self._backward_hooks or self._backward_pre_hooks:
            return self._call_hooked(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_hooked(self, args, kwargs):
        waiting = [entry for entry in self._forward_hooks.values() if entry[2]]  # to be called in any case
        output = None
        try:
            for hook, with_kwargs in list(self._forward_pre_hooks.values()):
                if with_kwargs:
                    result = hook(self, args, kwargs)
                    if result is not None:
                        if not isinstance(result, tuple) or len(result) != 2:
                            raise TypeError(f"hook: expected (args, kwargs) or None, got {type(result).__name__}")
                        args, kwargs = result
                else:
                    result = hook(self, args)
                    if result is not None:
                        args = result if isinstance(result, tuple) else (result,)
            backward = _BackwardHooks(self) if self._backward_hooks or self._backward_pre_hooks else None
            if backward is not None:
                args = backward.inputs(args)
            output = self.forward(*args, **kwargs)
            for entry in list(self._forward_hooks.values()):
                waiting = [other for other in waiting if other is not entry]
                result = _after_forward(entry, self, args, kwargs, output)
                output = output if result is None else result
            return output if backward is None else backward.outputs(output)
        except Exception:
            for entry in waiting:
                try:
                    _after_forward(entry, self, args, kwargs, output)
                except Exception as e:
                    warnings.warn(f"a forward hook with always_call=True failed after another error: {e}", stacklevel=2)
            raise

    def register_forward_pre_hook(self, hook, *, prepend=False, with_kwargs=False):
        """Calls hook(module, args) before each forward; what it returns, if not None, takes the place of args.

        Args:
            hook: function. args are the positional arguments, a tuple; it may return a tuple, or the only one.
            prepend: before the hooks that are there already.
            with_kwargs: call hook(module, args, kwargs), which may return (args, kwargs).

        Returns:
            A handle with `remove()`.

        >>> import nncore
        >>> from nncore import nn
        >>> layer = nn.Identity()
        >>> handle = layer.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        >>> layer(nncore.tensor([1.0])).tolist()
        [2.0]
        """
        return RemovableHandle(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook, *, prepend=False, with_kwargs=False, always_call=False):
        """Calls hook(module, args, output) after each forward; what it returns, if not None, takes output's place.

        Args:
            hook: function.
            prepend: before the hooks that are there already.
            with_kwargs: call hook(module, args, kwargs, output).
            always_call: also after an exception in the module or in another hook, with the output there was, or None.

        Returns:
            A handle with `remove()`.

        >>> import nncore
        >>> from nncore import nn
        >>> layer, seen = nn.ReLU(), []
        >>> handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.tolist()))
        >>> out = layer(nncore.tensor([-1.0, 1.0])); seen
        [[0.0, 1.0]]
        """
        return RemovableHandle(self._forward_hooks, (hook, bool(with_kwargs), bool(always_call)), prepend)

    def register_full_backward_hook(self, hook, prepend=False):
        """Calls hook(module, grad_input, grad_output) when backward has passed through the module.

        Args:
            hook: function. grad_input and grad_output are tuples with the gradient of each positional argument and of
                each output, None where there is none; it may return gradients in place of grad_input.
            prepend: before the hooks that are there already.

        Returns:
            A handle with `remove()`.

        >>> import nncore
        >>> from nncore import nn
        >>> layer, x = nn.ReLU(), nncore.tensor([-1.0, 1.0], requires_grad=True)
        >>> handle = layer.register_full_backward_hook(lambda module, into, out: (into[0] * 10,))
        >>> layer(x).sum().backward(); x.grad.tolist()
        [0.0, 10.0]
        """
        return RemovableHandle(self._backward_hooks, (hook, False), prepend)

    def register_full_backward_pre_hook(self, hook, prepend=False):
        """Calls hook(module, grad_output) when backward comes to the module, before its gradients are computed.

        Args:
            hook: function. grad_output is a tuple with the gradient of each output, None where there is none; it may
                return gradients in its place.
            prepend: before the hooks that are there already.

        Returns:
            A handle with `remove()`.

        >>> import nncore
        >>> from nncore import nn
        >>> layer, x = nn.ReLU(), nncore.tensor([-1.0, 1.0], requires_grad=True)
        >>> handle = layer.register_full_backward_pre_hook(lambda module, out: (out[0] * 10,))
        >>> layer(x).sum().backward(); x.grad.tolist()
        [0.0, 10.0]
        """
        return RemovableHandle(self._backward_pre_hooks, (hook, False), prepend)

    def _snapshot(self):
        """What the computation may depend on besides the values of tensors."""
        seen = []
        for name, value in vars(self).items():
            if name in ("_parameters", "_buffers", "_modules") or name.endswith("_hooks"):
                seen += value.items()
            else:
                seen.append((name, value))
                if isinstance(value, Tensor):  # parameters and buffers are here, too
                    seen.append((value.requires_grad, value._storage, _tape.leaf_hooks(value)))
        return tuple(seen)

    # ---- registration ----

    def __setattr__(self, name, value):
        record.changed()
        registries = self.__dict__.get("_parameters"), self.__dict__.get("_buffers"), self.__dict__.get("_modules")
        if isinstance(value, Parameter | Module):
            if registries[0] is None:
                raise RuntimeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
            mine = registries[0] if isinstance(value, Parameter) else registries[2]
            for r in registries:
                if r is not mine:
                    r.pop(name, None)
            mine[name] = value
        elif registries[0] is not None:
            parameters, buffers, modules = registries
            if name in parameters and value is not None:
                raise TypeError(f"{name}: expected a Parameter or None, got {type(value).__name__}")
            if name in modules and value is not None:
                raise TypeError(f"{name}: expected a Module or None, got {type(value).__name__}")
            for r in (parameters, modules):
                if name in r:
                    r[name] = None
            if name in buffers:
                buffers[name] = (
                    value if value is None or isinstance(value, Tensor) else new_tensor(as_array(value, name))
                )
                value = buffers[name]
        object.__setattr__(self, name, value)

    def __getattr__(self, name):
        """For names that are not there otherwise: a weight that a hook computes from others (nn.utils.weight_norm)."""
        for hook, *_ in self.__dict__.get("_forward_pre_hooks", {}).values():
            if getattr(hook, "computes", None) == name:
                return hook.compute(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name):
        record.changed()
        for r in (self._parameters, self._buffers, self._modules):
            r.pop(name, None)
        object.__delattr__(self, name)

    def register_parameter(self, name, param):
        """Registers a Parameter, or None for one that is absent (Linear's bias=False)."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"param: expected a Parameter or None, got {type(param).__name__}")
        _check_name(name)
        self._parameters[name] = param
        record.changed()
        object.__setattr__(self, name, param)

    def register_buffer(self, name, tensor):
        """Registers a tensor (an array is copied) that is saved with the parameters but not learned."""
        value = tensor if tensor is None or isinstance(tensor, Tensor) else new_tensor(as_array(tensor, "tensor"))
        _check_name(name)
        self._buffers[name] = value
        record.changed()
        object.__setattr__(self, name, value)

    def add_module(self, name, module):
        """Registers a submodule under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module: expected a Module or None, got {type(module).__name__}")
        _check_name(name)
        self._modules[name] = module
        record.changed()
        object.__setattr__(self, name, module)

    # ---- walking ----

    def named_modules(self, prefix="", _seen=None):
        """(name, module) of this module and all below it, each once."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self):
        """This module and all below it, each once."""
        return (m for _, m in self.named_modules())

    def named_children(self):
        """(name, module) of the direct submodules."""
        return ((n, m) for n, m in self._modules.items() if m is not None)

    def children(self):
        """The direct submodules."""
        return (m for _, m in self.named_children())

    def _named(self, registry, recurse):
        seen = set()
        for prefix, m in self.named_modules() if recurse else (("", self),):
            for name, t in getattr(m, registry).items():
                if t is not None and id(t) not in seen:
                    seen.add(id(t))
                    yield (f"{prefix}.{name}" if prefix else name), t

    def named_parameters(self, recurse=True):
        """(name, parameter) of this module and, by default, of those below it, each once."""
        return self._named("_parameters", recurse)

    def parameters(self, recurse=True):
        """The parameters, each once: what an optimizer takes."""
        return (p for _, p in self.named_parameters(recurse))

    def named_buffers(self, recurse=True):
        """(name, buffer), each once."""
        return self._named("_buffers", recurse)

    def buffers(self, recurse=True):
        """The buffers, each once."""
        return (b for _, b in self.named_buffers(recurse))

    def apply(self, fn):
        """Calls fn on every module, children first; returns the module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- modes ----

    def train(self, mode=True):
        """Training mode for this module and all below; returns the module."""
        if not isinstance(mode, bool):
            raise ValueError(f"mode: expected a bool, got {type(mode).__name__}")
        for m in self.modules():
            object.__setattr__(m, "training", mode)
        record.changed()
        return self

    def eval(self):
        """Evaluation mode: `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Thaws or freezes all parameters; returns the module."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none=True):
        """Drops the gradients of all parameters (or sets them to zero)."""
        for p in self.parameters():
            p._zero_grad(set_to_none)

    def to(self, dtype):
        """Parameters and floating buffers in another floating dtype, in place; returns the module."""
        code = float_code(dtype)
        for m in self.modules():
            for p in m._parameters.values():
                if p is not None:
                    p._convert(code)
            for name, b in m._buffers.items():
                if b is not None and b._floating and b._code != code:
                    m.register_buffer(name, elementwise.cast(b, code))
        return self

    def double(self):
        """Parameters and floating buffers as float64; returns the module."""
        return self.to(np.float64)

    def float(self):
        """Parameters and floating buffers as float32; returns the module."""
        return self.to(np.float32)

    # ---- state ----

    def _named_state(self):
        """(name, tensor) of parameters and buffers, under every name they have."""

        def walk(module, prefix):
            for registry in (module._parameters, module._buffers):
                for name, t in registry.items():
                    if t is not None:
                        yield prefix + name, t
            for name, child in module._modules.items():
                if child is not None:
                    yield from walk(child, prefix + name + ".")

        return walk(self, "")

    def state_dict(self):
        """{name: NumPy array} of all parameters and buffers: copies, under torch's names.

        >>> from nncore import nn
        >>> list(nn.Sequential(nn.Linear(2, 1)).state_dict())
        ['0.weight', '0.bias']
        """
        return {name: t.detach().numpy().copy() for name, t in self._named_state()}

    def load_state_dict(self, state_dict, strict=True):
        """Copies arrays (or Tensors) into the parameters and buffers of the same names.

        Args:
            state_dict: {name: array}, as `state_dict` gives it or torch's after `.numpy()`.
            strict: names must agree exactly; otherwise only the common ones are loaded.

        Returns:
            (names missing in state_dict, names that the module does not have).

        Raises:
            ValueError: names disagree (strict), or a shape does; nothing has been written then.
            TypeError: state_dict is no mapping, or a value no array of numbers.
        """
        if not hasattr(state_dict, "keys"):
            raise TypeError(f"state_dict: expected a mapping of names to arrays, got {type(state_dict).__name__}")
        own = dict(self._named_state())
        missing = [n for n in own if n not in state_dict]
        unexpected = [n for n in state_dict if n not in own]
        if strict and (missing or unexpected):
            raise ValueError(f"state_dict: missing names {missing}, unexpected names {unexpected}")
        writes = []
        for name, t in own.items():
            if name in state_dict:
                value = state_dict[name]
                source = as_tensor(value if isinstance(value, Tensor) else as_array(value, name), name)
                if source.shape != t.shape:
                    raise ValueError(f"state_dict: {name} has shape {source.shape}, the module's has {t.shape}")
                writes.append((t, source))
        for t, source in writes:
            elementwise.copy_into(t, source.detach())
        return missing, unexpected

    # ---- description ----

    def extra_repr(self):
        """What `repr` shows between the parentheses."""
        return ""

    def __repr__(self):
        lines = [f"({n}): " + repr(m).replace("\n", "\n  ") for n, m in self._modules.items()]
        head, extra = type(self).__name__, self.extra_repr()
        if not lines:
            return f"{head}({extra})"
        return f"{head}(\n  " + "\n  ".join(([extra] if extra else []) + lines) + "\n)"


class _BackwardHooks:
    """One call of a module with backward hooks: nodes of the graph around it, which see the gradients pass."""

    def __init__(self, module):
        self._module, self._grad_output, self._positions, self._count = module, (), None, 0

    def _node(self, values, backward):
        """(values with their tensors renamed behind a node, positions of the tensors)."""
        at = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
        values, tensors = list(values), tuple(values[i] for i in at)
        if tensors:
            for i, t in zip(at, _tape.record(tuple(t._alias() for t in tensors), "BackwardHook", tensors, backward)):
                values[i] = t
        return tuple(values), at

    def inputs(self, args):
        self._count = len(args)
        renamed, at = self._node(args, self._entered)
        if any(t.grad_fn is not None and t is not args[i] for i, t in enumerate(renamed) if i in at):
            self._positions = at
            return renamed
        return args

    def outputs(self, output):
        several = isinstance(output, tuple | list)
        renamed, self._out = self._node(output if several else (output,), self._left)
        self._outs = len(renamed)
        return type(output)(renamed) if several and type(output) in (tuple, list) else output if several else renamed[0]

    def _left(self, *grads):
        """Backward enters the module."""
        found = self._spread(grads, self._out, self._outs)
        for hook, _ in list(self._module._backward_pre_hooks.values()):
            found = _in_place_of(found, hook(self._module, found))
        self._grad_output = found
        if self._positions is None:  # no gradient is to come out at the other side
            self._run((None,) * self._count)
        return tuple(found[i] for i in self._out)

    def _entered(self, *grads):
        """Backward leaves the module."""
        result = self._run(self._spread(grads, self._positions, self._count))
        return tuple(result[i] for i in self._positions)

    @staticmethod
    def _spread(grads, at, count):
        found = [None] * count
        for i, g in zip(at, grads):
            found[i] = g
        return tuple(found)

    def _run(self, grad_input):
        for hook, _ in list(self._module._backward_hooks.values()):
            grad_input = _in_place_of(grad_input, hook(self._module, grad_input, self._grad_output))
        return grad_input


def _in_place_of(grads, result):
    """What a hook returned, if it did, in place of the gradients."""
    if result is None:
        return grads
    result = result if isinstance(result, tuple) else (result,)
    if len(result) != len(grads):
        raise ValueError(f"hook: expected {len(grads)} gradients, got {len(result)}")
    return result


def _after_forward(entry, module, args, kwargs, output):
    hook, with_kwargs, _ = entry
    return hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)


def _check_name(name):
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    if not name or "." in name:
        raise ValueError(f"name: expected a name without dots, got {name!r}")
