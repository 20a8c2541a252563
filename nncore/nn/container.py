"""Modules that hold modules."""

import numpy as np

from nncore._ops._check import as_tensor
from nncore.nn.module import Module


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

    def append(self, module):
        """Adds a module at the end; returns the container."""
        _check(module)
        i = len(self)
        while str(i) in self._modules:  # a slice keeps the names of the whole
            i += 1
        self.add_module(str(i), module)
        return self

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


class ModuleList(Module):
    """A list of modules, registered; it has no forward of its own.

    Args:
        modules: iterable of Modules.

    >>> from nncore import nn
    >>> len(nn.ModuleList([nn.Linear(2, 2) for _ in range(3)]))
    3
    """

    def __init__(self, modules=None):
        super().__init__()
        self.extend(() if modules is None else modules)

    def append(self, module):
        """Adds a module at the end; returns the list."""
        _check(module)
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules):
        """Adds several modules; returns the list."""
        if not hasattr(modules, "__iter__"):
            raise TypeError(f"modules: expected an iterable of Modules, got {type(modules).__name__}")
        for m in modules:
            self.append(m)
        return self

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def __getitem__(self, i):
        values = list(self._modules.values())[i]
        return ModuleList(values) if isinstance(i, slice) else values

    def __setitem__(self, i, module):
        _check(module)
        self.add_module(list(self._modules)[i], module)


def _check(module):
    if not isinstance(module, Module):
        raise TypeError(f"modules: expected Modules, got {type(module).__name__}")
