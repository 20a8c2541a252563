"""Modules that hold modules."""

import numpy as np

from nncore._core.tensor import OutOfRange
from nncore._ops._check import as_float, as_tensor, integer
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


class Sequential(Module):
    """Modules in a chain: the output of each is the input of the next.

    Args:
        *modules: Modules, or one dict of names to Modules.

    >>> import nncore
    >>> from nncore import nn
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> net(nncore.zeros(5, 4)).shape
    (5, 2)
    """

    def __init__(self, *modules):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], dict):
            named = modules[0].items()
        else:
            named = ((str(i), m) for i, m in enumerate(modules))
        for name, m in named:
            _check(m)
            self.add_module(name, m)

    def forward(self, input):
        if isinstance(input, np.ndarray) and input.dtype.kind == "f":  # before a layer without dtype, such as Flatten
            p = next(self.parameters(), None)
            input = input if p is None else as_tensor(input, "input", p._code)
        for m in self._modules.values():
            input = m(input)
        return input

    def _renumber(self, modules):
        for name in list(self._modules):
            delattr(self, name)
        for i, m in enumerate(modules):
            self.add_module(str(i), m)

    def append(self, module):
        """Adds a module at the end; returns the container."""
        return self.extend([module])

    def extend(self, sequential):
        """Adds the modules of an iterable at the end; returns the container."""
        if not hasattr(sequential, "__iter__"):
            raise TypeError(f"sequential: expected an iterable of Modules, got {type(sequential).__name__}")
        modules = list(sequential)
        for m in modules:
            _check(m)
        for m in modules:
            i = len(self)
            while str(i) in self._modules:  # a slice keeps the names of the whole
                i += 1
            self.add_module(str(i), m)
        return self

    def insert(self, index, module):
        """Adds a module before the one at `index`, -len to len, and numbers the names anew; returns the container."""
        _check(module)
        n = len(self)
        if not -n <= integer(index, "index") <= n:
            raise OutOfRange(f"index: expected {-n} to {n} for {n} modules, got {index}")
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def pop(self, key):
        """Takes out the module at an index, or the modules of a slice as a Sequential, and returns it."""
        found = self[key]
        del self[key]
        return found

    def __delitem__(self, i):
        modules = list(self)
        del modules[i]
        self._renumber(modules)

    def __add__(self, other):
        return Sequential(*self, *other) if isinstance(other, Sequential) else NotImplemented

    def __iadd__(self, other):
        return self.extend(other) if isinstance(other, Sequential) else NotImplemented

    def __mul__(self, times):
        return Sequential(*list(self) * integer(times, "times", 1))

    __rmul__ = __mul__

    def __imul__(self, times):
        return self.extend(list(self) * (integer(times, "times", 1) - 1))

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def __getitem__(self, i):
        values = list(self._modules.values())
        return Sequential(dict(list(self._modules.items())[i])) if isinstance(i, slice) else values[i]

    def __setitem__(self, i, module):
        _check(module)
        self.add_module(list(self._modules)[i], module)


class _List(Module):
    """What ModuleList and ParameterList share: entries named 0, 1, ... in a registry."""

    _entries, _argument = "_modules", "modules"

    def _put(self, name, value):
        self.add_module(name, value)

    def _check(self, value):
        _check(value)
        return value

    def __init__(self, values=None):
        super().__init__()
        self.extend(() if values is None else values)

    def _values(self):
        return list(getattr(self, self._entries).values())

    def _renumber(self, values):
        for name in list(getattr(self, self._entries)):
            delattr(self, name)
        for i, v in enumerate(values):
            self._put(str(i), v)

    def append(self, value):
        """Adds one at the end; returns the list."""
        self._put(str(len(self)), self._check(value))
        return self

    def extend(self, values):
        """Adds several; returns the list."""
        if not hasattr(values, "__iter__"):
            raise TypeError(f"{self._argument}: expected an iterable, got {type(values).__name__}")
        for v in [self._check(v) for v in values]:
            self.append(v)
        return self

    def __len__(self):
        return len(getattr(self, self._entries))

    def __iter__(self):
        return iter(self._values())

    def __iadd__(self, values):
        return self.extend(values)

    def __getitem__(self, i):
        found = self._values()[i]
        return type(self)(found) if isinstance(i, slice) else found

    def __setitem__(self, i, value):
        self._put(list(getattr(self, self._entries))[i], self._check(value))


class ModuleList(_List):
    """A list of modules, registered; it has no forward of its own.

    Args:
        modules: iterable of Modules.

    >>> from nncore import nn
    >>> len(nn.ModuleList([nn.Linear(2, 2) for _ in range(3)]))
    3
    """

    def __init__(self, modules=None):
        super().__init__(modules)

    def insert(self, index, module):
        """Adds a module before the one at `index`."""
        values = self._values()
        values.insert(index, self._check(module))
        self._renumber(values)

    def pop(self, key):
        """Takes out the module at an index, and returns it."""
        values = self._values()
        found = values.pop(key)
        self._renumber(values)
        return found

    def __delitem__(self, i):
        values = self._values()
        del values[i]
        self._renumber(values)


class ParameterList(_List):
    """A list of parameters, registered under their numbers; tensors and arrays become Parameters.

    Args:
        values: iterable of Parameters, Tensors or arrays.

    >>> from nncore import nn
    >>> [name for name, _ in nn.ParameterList([nn.Parameter([1.0]), [2.0]]).named_parameters()]
    ['0', '1']
    """

    _entries, _argument = "_parameters", "values"

    def _put(self, name, value):
        self.register_parameter(name, value)

    def _check(self, value):
        return value if isinstance(value, Parameter) else Parameter(as_float(value, "data"))


class _Dict(Module):
    """What ModuleDict and ParameterDict share: a registry with the ways of a dict."""

    _entries, _argument = "_modules", "modules"

    def _put(self, name, value):
        self.add_module(name, value)

    def _check(self, value):
        _check(value)
        return value

    def __init__(self, values=None):
        super().__init__()
        self.update({} if values is None else values)

    def update(self, values):
        """Adds or replaces the entries of a mapping, or of an iterable of pairs."""
        if not hasattr(values, "__iter__"):
            expected = "a mapping or an iterable of pairs"
            raise TypeError(f"{self._argument}: expected {expected}, got {type(values).__name__}")
        for name, value in list(values.items() if hasattr(values, "items") else values):
            self[name] = value

    def keys(self):
        """The names."""
        return getattr(self, self._entries).keys()

    def values(self):
        """The entries."""
        return getattr(self, self._entries).values()

    def items(self):
        """(name, entry) pairs."""
        return getattr(self, self._entries).items()

    def pop(self, key):
        """Takes out an entry, and returns it."""
        found = self[key]
        del self[key]
        return found

    def clear(self):
        """Takes out all entries."""
        for name in list(self.keys()):
            del self[name]

    def __len__(self):
        return len(self.keys())

    def __iter__(self):
        return iter(self.keys())

    def __contains__(self, key):
        return key in self.keys()

    def __getitem__(self, key):
        return getattr(self, self._entries)[key]

    def __setitem__(self, key, value):
        if isinstance(key, str) and key not in self and hasattr(self, key):
            raise ValueError(f"key: {key!r} is an attribute of {type(self).__name__}")
        self._put(key, self._check(value))

    def __delitem__(self, key):
        if key not in self:
            raise KeyError(key)
        delattr(self, key)


class ModuleDict(_Dict):
    """A dict of modules, registered under their names; it has no forward of its own.

    Args:
        modules: mapping of names to Modules, or iterable of pairs.

    >>> from nncore import nn
    >>> list(nn.ModuleDict({"in": nn.Linear(2, 2), "out": nn.ReLU()}))
    ['in', 'out']
    """

    def __init__(self, modules=None):
        super().__init__(modules)


class ParameterDict(_Dict):
    """A dict of parameters, registered under their names; tensors and arrays become Parameters.

    Args:
        parameters: mapping of names to Parameters, Tensors or arrays, or iterable of pairs.

    >>> from nncore import nn
    >>> nn.ParameterDict({"scale": [1.0]})["scale"].requires_grad
    True
    """

    _entries, _argument = "_parameters", "parameters"

    def __init__(self, parameters=None):
        super().__init__(parameters)

    def _put(self, name, value):
        self.register_parameter(name, value)

    def _check(self, value):
        return value if isinstance(value, Parameter) else Parameter(as_float(value, "data"))


def _check(module):
    if not isinstance(module, Module):
        raise TypeError(f"modules: expected Modules, got {type(module).__name__}")
