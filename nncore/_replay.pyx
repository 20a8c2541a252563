"""The call of a compiled function: finds the plan that fits, writes its arguments, replays it, gives the results.

What decides it is compared in place: nothing is hashed, and no key is made. How plans come to be: `_plan.py`.
"""
import threading
import weakref
from collections import OrderedDict, defaultdict
from copyreg import _slotnames
from enum import Enum
from types import CellType

import numpy as np

from cpython.dict cimport PyDict_GetItemWithError, PyDict_Keys, PyDict_Next, PyDict_Values
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.object cimport PyObject
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy

from nncore._core.c cimport NN_BOOL, NN_FLOAT32, NN_FLOAT64, NN_INT64
from nncore._core.optim cimport Groups
from nncore._core.plan cimport Moving
from nncore._core.record cimport epoch, recorder
from nncore._core.tensor cimport Storage, TensorBase, empty_like

from nncore._core import conv, runtime
from nncore._core import plan as core
from nncore._core.elementwise import copy_into
from nncore._core.record import CLEAN, DROPPED, RecordError
from nncore._ops._check import as_tensor
from nncore._tape import is_grad_enabled, set_enabled

cdef extern from "Python.h":
    PyObject *PyCell_GET(object cell)  # NULL: empty
    int Py_EnterRecursiveCall(const char *where) except *
    void Py_LeaveRecursiveCall()
    ctypedef struct PyTypeObject:
        PyObject *tp_dict

cdef size_t COPIED_HERE = 1 << 15  # bytes up to which a copy is not worth a kernel
cdef int MOST_PLANS = 64           # of one function: the one that was not used for longest goes


# ---- memory ----

cdef bint _alike(TensorBase a, TensorBase b) noexcept:
    """Whether both are of one dtype, shape and dense memory order."""
    cdef int i
    if a.code != b.code or a.ndim != b.ndim:
        return False
    for i in range(a.ndim):
        if a.dims[i] != b.dims[i] or (a.steps[i] != b.steps[i] and a.dims[i] != 1):
            return False
    return True


cdef int _copy(TensorBase to, TensorBase value) except -1:
    """to[...] = value; `to` is dense."""
    if to.storage.nbytes <= COPIED_HERE and _alike(to, value):
        memcpy(to.data, value.data, to.storage.nbytes)
    else:
        copy_into(to, value)
    return 0


cpdef TensorBase fresh(TensorBase t):
    """A copy on memory of its own, of the same memory order."""
    cdef TensorBase made = empty_like(t)
    _copy(made, t)
    return made


# ---- structures ----

cdef class Structure:
    """A tuple, a list, a dict or a dataclass, taken apart. Its own methods have no say, neither here nor in `made`.

    Attributes:
        cls: its type.
        parts: list of what is in it, and of the attributes of a dataclass or a subclass.
        keys: of a dict, else None.
        names: those of the attributes, or None.
    """
    cdef readonly type cls
    cdef public list parts
    cdef readonly list keys, names
    cdef type base        # whose items it has; object: a dataclass, which has none
    cdef object factory   # of a defaultdict
    cdef bint own         # its attributes are its items: self.__dict__ = self

    cdef object made(self, list parts):
        """One of this type from other parts."""
        cdef Py_ssize_t n
        cdef dict items
        if self.names is None:
            if self.base is not dict:
                return tuple(parts) if self.base is tuple else parts
            items = {}
            for n in range(len(parts)):
                items[self.keys[n]] = parts[n]
            return items
        n = len(parts) - len(self.names)
        if self.base is tuple:
            value = tuple.__new__(self.cls, parts[:n])
        elif self.base is object:
            value = self.cls.__new__(self.cls)  # of an exception, say; as copy() does
        else:
            value = self.base.__new__(self.cls)
        if self.base is list:
            list.extend(value, parts[:n])
        elif self.keys is not None:
            for key, part in zip(self.keys, parts):
                self.base.__setitem__(value, key, part)
        if self.factory is not None:
            value.default_factory = self.factory
        if self.own:
            object.__setattr__(value, "__dict__", value)
        for name, part in zip(self.names, parts[n:]):
            object.__setattr__(value, name, part)
        return value


cpdef Structure taken_apart(value):
    """The value as a Structure, or None if it is something else."""
    cdef Structure s
    cdef type cls = type(value), base = cls
    cdef bint plain = cls is tuple or cls is list or cls is dict
    if not plain:
        for base in (tuple, list, OrderedDict, dict, object):
            if isinstance(value, base):
                break
        if base is object and (isinstance(value, type) or not hasattr(cls, "__dataclass_fields__")):
            return None
        if isinstance(value, Enum) or hasattr(cls, "n_sequence_fields"):  # these are not made of parts
            return None
    s = Structure.__new__(Structure)
    s.cls, s.base = cls, base
    if base is dict:
        s.keys, s.parts = PyDict_Keys(value), PyDict_Values(value)
    elif base is OrderedDict:
        s.keys, s.parts = list(OrderedDict.keys(value)), list(OrderedDict.values(value))
    else:
        s.parts = [] if base is object else list(value) if plain else list(base.__iter__(value))
    if plain:
        return s
    s.names = []
    if isinstance(value, defaultdict):
        s.factory = value.default_factory
    mine = object.__getattribute__(value, "__dict__") if cls.__dictoffset__ else {}
    s.own = mine is value
    if not s.own:
        s.names += mine
        s.parts += mine.values()
    for name in _slotnames(cls):
        try:
            s.parts.append(object.__getattribute__(value, name))
        except AttributeError:  # not set
            continue
        s.names.append(name)
    return s


cpdef built(node, f):
    """The structure that was taken apart down to its leaves, with f of each tensor."""
    if isinstance(node, TensorBase):
        return f(node)
    if type(node) is Structure:
        return (<Structure>node).made([built(v, f) for v in (<Structure>node).parts])
    return node


cdef object _parts(value):
    """What is in a structure."""
    return value if type(value) is tuple or type(value) is list else taken_apart(value).parts


# ---- arguments ----

cdef enum Form:
    TENSOR, ARRAY, NUMBER, SCALAR, VALUE, OBJECT, STRUCTURE


cdef class Argument:
    """An argument of a plan: what may be given, and the plan's copy of it.

    Tensors and arrays are of one kind if dtype and shape are the same; other things if they are equal.
    """
    cdef Form form
    cdef type cls
    cdef object value        # VALUE, SCALAR: what it equals; OBJECT: a weak reference to it
    cdef double number       # NUMBER: a float, bit for bit
    cdef Structure structure # STRUCTURE: without its parts
    cdef list parts          # and these as Arguments
    cdef readonly TensorBase mine

    def __init__(self, value):
        cdef TensorBase t
        cdef Structure structure = taken_apart(value)
        self.cls = type(value)
        if structure is not None and structure.base is object and self.cls.__eq__ is object.__eq__:
            structure = None  # a dataclass that is compared as an object
        if isinstance(value, TensorBase):
            t = value
            if t.wants_grad:
                raise ValueError(
                    "argument: expected tensors that do not require grad; gradients flow to what is outside of the "
                    "function's arguments; pass x.detach()")
            self.form, self.mine = TENSOR, fresh(t)
        elif isinstance(value, np.ndarray):
            self.form, self.mine = ARRAY, fresh(_as_tensor(value))
        elif structure is not None:
            self.form, self.structure = STRUCTURE, structure
            Py_EnterRecursiveCall(" in an argument of a compiled function")  # it may hold itself
            try:
                self.parts = [Argument(v) for v in structure.parts]
            finally:
                Py_LeaveRecursiveCall()
            structure.parts = None
        elif self.cls is float:
            self.form, self.number = NUMBER, value
        elif isinstance(value, np.generic):  # a number as Python's: part of the kind, bit for bit
            self.form, self.value = SCALAR, value
        else:
            try:
                hash(value)
            except TypeError:
                raise TypeError("argument: expected tensors, arrays, numbers, or tuples, lists, dicts and dataclasses of "
                                f"them, got an unhashable {self.cls.__name__}") from None
            self.form, self.value = VALUE, value
            if self.cls.__eq__ is object.__eq__:  # it equals nothing else, and is not kept alive
                try:
                    self.form, self.value = OBJECT, weakref.ref(value)
                except TypeError:
                    self.form = VALUE

    cdef bint gone(self) except -1:
        """Whether an object that it stood for is no more."""
        if self.parts is not None:
            return any([(<Argument>p).gone() for p in self.parts])
        return self.form == OBJECT and self.value() is None

    cdef bint fits(self, value) except -1:
        """Whether the value is of this kind."""
        cdef TensorBase t
        cdef Argument part
        cdef Structure structure
        cdef double number
        cdef Py_ssize_t i
        if self.form == TENSOR:
            if not isinstance(value, TensorBase):
                return False
            t = value
            if t.code != self.mine.code or t.ndim != self.mine.ndim or t.channels_last != self.mine.channels_last:
                return False
            return not t.wants_grad and _same_dims(t, self.mine)
        if self.form == ARRAY:
            return self._array(value, None)
        if self.form == NUMBER:
            if type(value) is not float:
                return False
            number = value
            return memcmp(&number, &self.number, sizeof(number)) == 0 or (number != number and self.number != self.number)
        if type(value) is not self.cls:
            return False
        if self.form == OBJECT:
            return self.value() is value
        if self.form == VALUE:
            return value is self.value or value == self.value
        if self.form == SCALAR:
            return value is self.value or value.tobytes() == self.value.tobytes()
        if self.cls is tuple or self.cls is list:
            parts = value
        elif self.cls is dict and not value:
            return not self.parts
        else:
            structure = taken_apart(value)
            parts = structure.parts
            if structure.keys != self.structure.keys or structure.names != self.structure.names:
                return False
        if len(parts) != len(self.parts):
            return False
        for i in range(len(self.parts)):
            part = self.parts[i]
            if not part.fits(parts[i]):
                return False
        return True

    cdef int write(self, value, list written) except -1:
        """Takes over a value that fits. written: storages that the function writes; a value that shares their memory would change
        meanwhile in eager code."""
        cdef Argument part
        cdef Py_ssize_t i
        cdef Storage s
        if self.form == TENSOR:
            s = (<TensorBase>value).storage
            if s.planned:
                _apart(<size_t>s.data, <size_t>s.data + s.nbytes, written)
            _copy(self.mine, value)
        elif self.form == ARRAY:
            self._array(value, written)
        elif self.form == STRUCTURE:
            parts = _parts(value)
            for i in range(len(self.parts)):
                part = self.parts[i]
                part.write(parts[i], written)
        return 0

    cdef bint _array(self, value, list written) except -1:
        """Whether an array fits; takes it over as `write` does, unless `written` is None."""
        cdef Py_buffer view
        cdef TensorBase mine = self.mine
        cdef int code = -1, i
        cdef bint fits = True, dense = True, write = written is not None
        cdef Py_ssize_t step, first = 0, last = 0
        if not isinstance(value, np.ndarray):
            return False
        if PyObject_CheckBuffer(value):
            try:
                PyObject_GetBuffer(value, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT)
            except (ValueError, BufferError):  # a dtype that has no format
                pass
            else:
                code = _code(view.format)
                if code == mine.code and view.ndim == mine.ndim:
                    step = view.itemsize
                    for i in range(view.ndim - 1, -1, -1):
                        fits = fits and view.shape[i] == mine.dims[i]
                        dense = dense and (view.strides[i] == step or view.shape[i] == 1)
                        first += min(view.strides[i] * (view.shape[i] - 1), 0)
                        last += max(view.strides[i] * (view.shape[i] - 1), 0)
                        step *= view.shape[i]
                    if fits and write and view.len:
                        try:
                            _apart(<size_t>view.buf + first, <size_t>view.buf + last + view.itemsize, written)
                        except RecordError:
                            PyBuffer_Release(&view)
                            raise
                    if fits and write and dense and mine.storage.nbytes <= COPIED_HERE:
                        memcpy(mine.data, view.buf, mine.storage.nbytes)
                        write = False
                elif code >= 0:
                    fits = False
                PyBuffer_Release(&view)
        if code >= 0 and not (fits and write):
            return fits
        cdef TensorBase t = _as_tensor(value)
        fits = t.code == mine.code and t.ndim == mine.ndim and _same_dims(t, mine)
        if fits and write:
            _copy(mine, t)
        return fits

    def given(self, edges):
        """The value with the plan's copies in it. The attributes of dataclasses are appended to `edges`."""
        if self.form == STRUCTURE:
            value = self.structure.made([(<Argument>p).given(edges) for p in self.parts])
            if self.structure.base is object:
                edges += [Edge(value, name) for name in self.structure.names]
            return value
        if self.form == NUMBER:
            return self.number
        if self.form == OBJECT:
            return self.value()
        return self.mine if self.mine is not None else self.value

    def values(self):
        """What is neither a tensor nor an array; classes of structures, whose methods may be called."""
        if self.parts is not None:
            return [self.cls] + [v for p in self.parts for v in (<Argument>p).values()]
        return [] if self.mine is not None else [self.given(None)]

    def tensors(self):
        """(copy, whether it is of an array) of each tensor and array."""
        if self.parts is not None:
            return [t for p in self.parts for t in (<Argument>p).tensors()]
        return [] if self.mine is None else [(self.mine, self.form == ARRAY)]


cdef int _apart(size_t first, size_t end, list written) except -1:
    """Raises if memory from `first` to `end` is among the storages."""
    cdef Storage s
    for s in written:
        if first < <size_t>s.data + s.nbytes and <size_t>s.data < end:
            raise RecordError(
                "argument: shares memory with a tensor that the compiled function changes, but is copied before; pass a clone(), or "
                "use that tensor in the function instead")
    return 0


cdef bint _same_dims(TensorBase a, TensorBase b) noexcept:
    cdef int i
    for i in range(a.ndim):
        if a.dims[i] != b.dims[i]:
            return False
    return True


cdef int _code(const char *format) noexcept:
    """The dtype of a buffer, or -1."""
    if format == NULL or format[0] == 0 or format[1] != 0:
        return -1
    if format[0] == c"f":
        return NN_FLOAT32
    if format[0] == c"d":
        return NN_FLOAT64
    if format[0] == c"?":
        return NN_BOOL
    return NN_INT64 if format[0] == (c"l" if sizeof(long) == 8 else c"q") else -1


cdef TensorBase _as_tensor(value):
    """An array read in place: the plan has its own copy."""
    was = set_enabled(False)
    try:
        return as_tensor(value, "argument")
    finally:
        set_enabled(was)


# ---- what is watched ----

ABSENT = object()  # where nothing is


def class_dict(cls):
    """The dict that vars(cls) shows, of a class made by a class statement."""
    return <object>(<PyTypeObject *>cls).tp_dict


cpdef bint same(a, b) except -1:
    """Whether two values are one for whoever reads them: numbers and strings by value (floats bit for bit), tuples by
    what is in them, other things by identity."""
    cdef double x, y
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        x, y = PyFloat_AS_DOUBLE(a), PyFloat_AS_DOUBLE(b)
        return memcmp(&x, &y, sizeof(x)) == 0 or (x != x and y != y)
    if isinstance(a, tuple):
        return len(a) == len(b) and all([same(v, w) for v, w in zip(a, b)])
    return isinstance(a, (int, str, bytes)) and a == b


cdef enum Holder:
    VARIABLE, ENTRY, SLOT, LIST, DICT


cdef class Edge:
    """Who has what: a variable of a closure (a cell and its name), an entry of a dict such as a global or an attribute
    (the dict and the key), an attribute in `__slots__` (the object and the name), or all that is in a list or dict."""
    cdef object holder, value
    cdef readonly object key
    cdef Holder kind

    def __init__(self, holder, key=None):
        self.holder, self.key = holder, key
        if key is None:
            self.kind = DICT if isinstance(holder, dict) else LIST
            self.value = tuple([v for pair in holder.items() for v in pair]) if self.kind == DICT else tuple(holder)
        elif isinstance(holder, dict):
            self.kind, self.value = ENTRY, holder.get(key, ABSENT)
        elif isinstance(holder, CellType):
            self.kind = VARIABLE
            self.value = ABSENT if PyCell_GET(holder) == NULL else <object>PyCell_GET(holder)
        else:
            self.kind, self.value = SLOT, getattr(holder, key, ABSENT)

    def values(self):
        """What is there."""
        return self.value if self.kind >= LIST else (self.value,)

    cdef bint holds(self) except -1:
        """Whether the same is there."""
        cdef PyObject *now
        cdef PyObject *key
        cdef Py_ssize_t i = 0, at = 0
        cdef tuple values
        if self.kind <= ENTRY:
            now = PyCell_GET(self.holder) if self.kind == VARIABLE else PyDict_GetItemWithError(self.holder, self.key)
            return now == <PyObject *>self.value or (same(<object>now, self.value) if now != NULL else self.value is ABSENT)
        if self.kind == SLOT:
            return same(getattr(self.holder, self.key, ABSENT), self.value)
        values = self.value
        if self.kind == LIST:
            if len(self.holder) != len(values):
                return False
            for i in range(len(values)):
                if self.holder[i] is not values[i] and not same(self.holder[i], values[i]):
                    return False
            return True
        if 2 * len(self.holder) != len(values):
            return False
        while PyDict_Next(self.holder, &at, &key, &now):
            if not (key == <PyObject *>values[i] or same(<object>key, values[i])):
                return False
            if not (now == <PyObject *>values[i + 1] or same(<object>now, values[i + 1])):
                return False
            i += 2
        return True


def changed_edge(list edges):
    """The first edge that does not hold any more, or None."""
    cdef Edge e
    for e in edges:
        if not e.holds():
            return e
    return None


# ---- who waits for whom ----

_members = weakref.WeakKeyDictionary()
_guard = threading.Lock()


cdef class Family:
    """A lock shared by the compiled functions that share a model, an optimizer or a generator."""
    cdef object acquire, release
    cdef Family joined
    cdef object __weakref__

    def __init__(self):
        lock = threading.RLock()
        self.acquire, self.release = lock.acquire, lock.release

    cdef Family root(self):
        while self.joined is not None:
            self = self.joined
        return self

    cdef Family entered(self):
        """Waits until no other member runs; gives the family whose `release` ends that."""
        cdef Family root
        while True:
            root = self.root()
            root.acquire()
            if root.joined is None:
                return root
            root.release()

    def join(self, objects):
        """From now on one family with all others that have one of these, when those of them that run have ended. Nobody waits
        in a circle: of two families that meet, the second to come finds that they are one already."""
        cdef Family root, other
        met = []
        with _guard:
            root = self.root()
            for o in objects:
                o = o._storage if isinstance(o, TensorBase) else o
                other = (<Family>_members.get(o, root)).root()
                if other is not root:
                    other.joined = root
                    met.append(other)
                _members[o] = root
        for other in met if recorder() is None else ():  # within a recording, its own would be waited for
            other.acquire()
            other.release()


# ---- plans ----

cdef class Replay:
    """A plan as a call sees it: its arguments, whether it fits, the work, the results."""
    cdef public Argument args
    cdef public Argument kwargs
    cdef bint grad
    cdef public long epoch       # of record.epoch(), when `deep` was true; -1: look
    cdef public object recording # None until there is one
    cdef public object work      # None until there is some
    cdef public list befores     # (leaf, the memory that its .grad must have, None, CLEAN or DROPPED)
    cdef public list moving      # gradients from before that may be elsewhere by now
    cdef public list optimizers  # Groups of each that makes a step
    cdef public list edges       # what the function finds by name
    cdef public list written     # storages from outside that it changes
    cdef public object result    # taken apart, with tensors in the arena
    cdef public list grads       # (leaf, its gradient in the arena)
    cdef public list left        # (leaf, its gradient afterwards: None, or one from outside; whether the plan dropped its own)
    cdef tuple place             # where it was recorded: the instruction set and the algorithm of convolutions

    def __init__(self, args, kwargs, bint grad):
        self.args, self.kwargs, self.grad = Argument(args), Argument(kwargs), grad
        self.epoch = -1

    def deep(self):
        """Whether what changes rarely, and then raises the epoch, is as it was recorded."""
        raise NotImplementedError

    cpdef bint stale(self) except -1:
        """Whether it will never fit again: an optimizer has other groups or another state now."""
        if self.recording is not None:
            for x in self.optimizers:
                if not (<Groups>x).same():
                    return True
        return False

    cdef bint gone(self) except -1:
        """The same: an argument is no more."""
        return self.args.gone() or self.kwargs.gone()

    cdef bint takes(self, tuple args, dict kwargs, bint grad) except -1:
        return self.grad == grad and self.args.fits(args) and self.kwargs.fits(kwargs)

    cdef bint fits(self) except -1:
        """Whether what the work depends on, besides its arguments, is as it was recorded."""
        cdef TensorBase leaf
        if self.recording is None:
            return True
        for x, before in self.befores:
            leaf = x
            if before is CLEAN or before is DROPPED:
                if leaf.grad_ is not None or (leaf._grad_dropped != 0) != (before is DROPPED):
                    return False
            elif leaf._grad_dropped == 2 or (None if leaf.grad_ is None else (<TensorBase>leaf.grad_).storage) is not before:
                return False
        for x in self.moving:
            if not (<Moving>x).fits():
                return False
        if self.stale():
            return False
        for e in self.edges:
            if not (<Edge>e).holds():
                return False
        if self.epoch != epoch():
            now = epoch()
            if self.place != _place() or not self.deep():
                return False
            self.epoch = now
        return core.valid([p for _, p in self.recording.recorder.prepare]) if self.work is None else self.work.valid()

    cdef object run(self, tuple args, dict kwargs):
        cdef TensorBase leaf
        self.args.write(args, self.written)
        if kwargs:
            self.kwargs.write(kwargs, self.written)
        self.work.replay()
        for x, g in self.grads:
            leaf = x
            leaf.grad_, leaf._grad_dropped = fresh(g), 0
        for x, g, dropped in self.left:
            leaf = x
            leaf.grad_, leaf._grad_dropped = g, dropped
        return fresh(self.result) if isinstance(self.result, TensorBase) else built(self.result, fresh)


cdef tuple _place():
    return runtime.get_isa(), conv.get_algorithm()


cdef class Callable:
    """A function with plans. A subclass makes them."""
    cdef readonly Replay plan    # that was used last
    cdef list _plans             # used last first
    cdef readonly Family _family
    cdef bint _infers            # gradients are off in any case

    def __init__(self, Family family, bint infers):
        self._plans, self._family, self._infers = [], family, infers

    @property
    def plans(self):
        """All plans, the one that was used last first."""
        return tuple(self._plans)

    def _nested(self, args, kwargs):
        """The call as a part of another recording."""
        raise NotImplementedError

    def _new_plan(self, args, kwargs, grad):
        """A Replay without work."""
        raise NotImplementedError

    def _record(self, plan):
        """The call with recording, of a plan without work whose arguments are written."""
        raise NotImplementedError

    def __call__(self, *args, **kwargs):
        cdef Replay plan
        cdef Family entered
        if recorder() is not None:
            return self._nested(args, kwargs)
        entered = self._family.entered()
        try:
            plan = self._find(args, kwargs)
            self.plan = plan
            if plan.work is not None:
                return plan.run(args, kwargs)
            plan.args.write(args, [])
            plan.kwargs.write(kwargs, [])
            plan.place = _place()
            result = self._record(plan)
            plan.args.write(args, plan.written)
            plan.kwargs.write(kwargs, plan.written)
            return result
        finally:
            entered.release()

    cdef Replay _find(self, tuple args, dict kwargs):
        cdef Replay plan
        cdef bint grad = not self._infers and is_grad_enabled()
        cdef Py_ssize_t i
        for i in range(len(self._plans)):
            plan = self._plans[i]
            if plan.takes(args, kwargs, grad) and plan.fits():
                if i:
                    del self._plans[i]
                    self._plans.insert(0, plan)
                return plan
        plan = self._new_plan(args, kwargs, grad)
        self._plans = [plan] + [p for p in self._plans if not (<Replay>p).stale() and not (<Replay>p).gone()][:MOST_PLANS - 1]
        return plan
