"""What a compiled function may read besides its arguments: found from its code, and watched between its calls."""

import dis
import functools
import sys
import types

from nncore._core.tensor import TensorBase
from nncore._random import Generator
from nncore._replay import ABSENT, Callable, Edge, class_dict
from nncore._tape import leaf_hooks
from nncore.nn import Module
from nncore.optim.optimizer import Optimizer

LONGEST = 1000  # a longer list or dict is not looked into
MOST = 20_000  # values that are looked at
UNNAMED = (
    "__enter__",
    "__exit__",
    "__iter__",
    "__next__",
    "__len__",
    "__getitem__",
    "__getattr__",
    "__call__",
    "forward",
)
ATOMS = {int, float, bool, str, bytes, complex, type(None), type(Ellipsis), types.BuiltinFunctionType}
PLAIN = int | float | str | bytes | complex | None | list | tuple | dict | TensorBase  # cannot be called
PYTHON = sys.stdlib_module_names - {"builtins"}  # which classes made by exec have for a module
HEAP_TYPE = 1 << 9  # of classes that are made by a class statement


class Names:
    """What code that starts from `roots` can reach by name.

    From a function: the variables of its closure, its defaults, the globals that it reads. From an object, its classes
    or a module: the attributes that code found on the way names, methods with their code; of a Module all attributes.
    From a list, tuple or dict: all that is in it. From a bound method or functools.partial: its parts.

    Args:
        roots: what to start from.
        known: tensors that are not to be watched.

    Attributes:
        edges: list of Edge: who has what. Attributes of Modules are not among them.
        modules: all Modules.
        tensors: [(tensor, what `state` says of it)].
        shared: what other threads may use meanwhile.
    """

    def __init__(self, roots, known=()):
        self._own = {str(getattr(_inner(r), "__module__", None)).split(".")[0] for r in roots}
        self._read, self._called, former = set(UNNAMED), set(), -1
        while former != len(self._read) + len(self._called):  # names that were met late count for all objects
            former = len(self._read) + len(self._called)
            self._edges, self._modules, self._tensors, self._others = {}, {}, [], []
            self._seen, self._waiting = {id(t): t for t in known}, list(roots)
            while self._waiting and len(self._seen) < MOST:
                self._look(self._waiting.pop())
        self.edges, self.modules, self.tensors = list(self._edges.values()), list(self._modules), self._tensors
        parts = [t for m in self.modules for r in (m._parameters, m._buffers) for t in r.values() if t is not None]
        for o in self._others:
            parts += [p for g in o.param_groups for p in g["params"]] if isinstance(o, Optimizer) else []
        self.shared = [*self.modules, *self._others, *(t for t, _ in self.tensors), *parts]
        del self._edges, self._modules, self._tensors, self._others, self._seen, self._waiting

    def _look(self, value):
        if type(value) in ATOMS or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, TensorBase):
            self._tensors.append((value, state(value)))
            self._waiting += leaf_hooks(value)
        elif isinstance(value, Module) and "_modules" in vars(value):
            self._module(value)
        elif isinstance(value, Module | Optimizer | Generator):  # a Module that is being copied has nothing yet
            self._others.append(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, list | tuple | dict):
            self._contents(value)
        elif isinstance(value, types.MethodType):
            self._waiting += value.__func__, value.__self__
        elif isinstance(value, functools.partial):
            self._waiting += value.func, *value.args, *value.keywords.values()
        elif isinstance(value, Callable):
            self._waiting.append(value._fn)
        elif isinstance(value, staticmethod | classmethod):
            self._waiting.append(value.__func__)
        elif isinstance(value, property):
            self._waiting.append(value.fget)
        elif isinstance(value, types.ModuleType):
            if not self._foreign(value.__name__):
                self._attributes(value, [vars(value)])
        elif isinstance(value, type):
            self._attributes(value, self._classes(value))
        else:
            mine = _instance(value)
            self._attributes(value, [*mine, *self._classes(type(value))])
            self._waiting += [m.get("__wrapped__") for m in mine]  # functools.cache

    def _edge(self, holder, key=None):
        """Watches who has what; looks at what is there."""
        edge = self._edges.get((id(holder), key))
        if edge is None:
            edge = self._edges[id(holder), key] = Edge(holder, key)
            self._waiting += edge.values()

    def _function(self, fn):
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            self._edge(cell, name)
        self._waiting += fn.__defaults__ or ()
        self._waiting += (fn.__kwdefaults__ or {}).values()
        self._waiting.append(vars(fn).get("__wrapped__"))
        if not self._foreign(fn.__globals__.get("__name__")):
            names, read, called = _names(fn.__code__)
            self._read |= read
            self._called |= called
            for name in names:
                found = fn.__globals__.get(name, ABSENT)
                if found is not ABSENT and not (isinstance(found, types.ModuleType) and self._foreign(found.__name__)):
                    self._edge(fn.__globals__, name)

    def _contents(self, value):
        if len(value) <= LONGEST:
            if isinstance(value, tuple):
                self._waiting += value
            else:
                self._edge(value)

    def _module(self, module):
        for m in module.modules():
            if m not in self._modules:
                self._seen[id(m)] = m
                self._modules[m] = None
                for name, value in list(vars(m).items()):
                    if name.endswith("_hooks"):
                        self._waiting += value.values()
                    elif isinstance(value, TensorBase):
                        self._waiting += leaf_hooks(value)
                    elif self._named(name, value):
                        self._waiting.append(value)
                self._attributes(m, self._classes(type(m)))

    def _classes(self, cls):
        """The attributes of a class and its bases, but foreign ones."""
        return [class_dict(c) for c in cls.__mro__ if c.__flags__ & HEAP_TYPE and not self._foreign(c.__module__)]

    def _foreign(self, name):
        """Whether a module of this name is not looked into: Python's, the library's (its tests are a user's), or of
        an installed package that none of the roots is from."""
        package, *below = str(name).split(".")
        if package == "nncore":
            return "tests" not in below
        return package in PYTHON or (package not in self._own and _installed(package))

    def _named(self, name, value):
        """Whether code may mean this attribute."""
        return name in self._read or (name in self._called and not isinstance(value, PLAIN))

    def _attributes(self, owner, places):
        """Watches the attributes that are named: what they are, and that no earlier place gets one of that name."""
        for i, place in enumerate(places):
            for name in (self._read | self._called) & place.keys():
                if self._named(name, place[name]):
                    if isinstance(place[name], types.MemberDescriptorType):  # of __slots__
                        self._edge(owner, name)
                    for p in places[: i + 1]:
                        self._edge(p, name)


def _inner(fn):
    """The function in a functools.partial."""
    return _inner(fn.func) if isinstance(fn, functools.partial) else fn


def state(t):
    """What a tensor is, besides its values."""
    return t.requires_grad, t._storage, leaf_hooks(t)


@functools.lru_cache(1024)
def _installed(package):
    """Whether a package is Python's or was installed."""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in PYTHON or "site-packages" in file or "dist-packages" in file


def _instance(value):
    """[an object's own attributes], if it has some."""
    mine = getattr(value, "__dict__", None)
    return [mine] if type(mine) is dict else []


@functools.lru_cache(1024)
def _names(code):
    """(globals, attributes and strings, methods) that code and the functions within it name."""
    variables, read, called = set(), set(), set()
    for i in dis.get_instructions(code):
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(i.argval)
        elif i.opname == "LOAD_METHOD" or (i.opname == "LOAD_ATTR" and sys.version_info >= (3, 12) and i.arg & 1):
            called.add(i.argval)
        elif i.opname in ("LOAD_ATTR", "LOAD_SUPER_ATTR"):
            read.add(i.argval)
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            for mine, its in zip((variables, read, called), _names(c), strict=True):
                mine |= its
        elif isinstance(c, tuple | frozenset):
            read.update(v for v in c if isinstance(v, str))
        elif isinstance(c, str):
            read.add(c)
    return frozenset(variables), frozenset(read), frozenset(called)
