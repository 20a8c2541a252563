"""Fused updates of lists of parameters: the optimizers, clipping; norms of lists."""
from cpython.dict cimport PyDict_Next
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, require_writable, touch

from .elementwise import copy_into
from .record import before_next, current
from .runtime import KERNELS

cdef dict NUMBERS = {name: i for i, name in enumerate(KERNELS)}


cdef void *_state(TensorBase s, TensorBase p) except NULL:
    if s.code != p.code or s.count() != p.count() or not s.contiguous():
        raise TypeError(f"params: the optimizer's state is {s.dtype} of shape {s.shape}, the parameter is now {p.dtype} of "
                        f"{p.shape}; make the optimizer after converting the model")
    return s.data


cdef class Chunks:
    """The tensors as chunks of memory, with their gradients (if `graded`), states, and norms: a float64 tensor with one
    number for each or for all. Neighbours in memory are merged, so that parameters allocated together are updated in one
    stretch. All of one dtype and row-major."""

    cdef nn_chunk *chunks
    cdef int64_t n
    cdef int code
    cdef list params
    cdef list keep

    def __cinit__(self):
        self.chunks = NULL

    def __init__(self, list params, list states, TensorBase norms, bint graded, bint merge):
        cdef nn_chunk *c
        cdef nn_chunk *last = NULL
        cdef TensorBase p, g
        cdef int64_t i, size
        cdef int k
        self.chunks = <nn_chunk *>PyMem_Malloc((len(params) + 1) * sizeof(nn_chunk))
        if self.chunks == NULL:
            raise MemoryError()
        self.params = params
        merge = merge and current() is None  # a plan moves gradients: what is next to each other now will not be
        self.keep = [norms]
        self.code = (<TensorBase>params[0]).code if params else NN_FLOAT32
        size = 4 if self.code == NN_FLOAT32 else 8
        if len(states) > NN_MAX_STATES:
            raise ValueError(f"states: at most {NN_MAX_STATES}, got {len(states)}")
        for i in range(len(params)):
            p = params[i]
            if p.code != self.code:
                raise TypeError(f"params: expected one dtype, got {p.dtype}")
            if not p.contiguous():
                raise ValueError(f"params: expected row-major tensors, got shape {p.shape} with strides {p.strides}")
            c = self.chunks + self.n
            memset(c, 0, sizeof(nn_chunk))
            c.p = p.data
            c.n = p.count()
            if graded:
                g = contiguous(p.grad_)  # of the dtype and shape of p: the setter of .grad sees to it
                self.keep.append(g)
                c.g = g.data
            for k in range(len(states)):
                if states[k] is not None:
                    c.s[k] = _state(states[k][i], p)
            if norms is not None:
                c.norm = <double *>norms.data + (i if norms.ndim else 0)
            if merge and last != NULL and _follows(last, c, size):
                last.n += c.n
            else:
                last = c
                self.n += 1

    def __dealloc__(self):
        PyMem_Free(self.chunks)

    cdef int update(self, int kernel, nn_optim_args *o) except -1:
        cdef TensorBase p
        for p in self.params:
            require_writable(p)
        o.chunks = self.chunks
        runtime.keep(self.chunks, <size_t>self.n * sizeof(nn_chunk), self)
        o.n_chunks = self.n
        runtime.run(kernel, self.code, o)
        for p in self.params:
            touch(p.storage)
        self.params = self.keep = None  # a recording keeps the chunks, which are numbers to it
        return 0


cdef bint _follows(const nn_chunk *a, const nn_chunk *b, int64_t size) noexcept:
    """Whether b begins where a ends, in every array."""
    cdef int64_t step = a.n * size
    cdef int k
    if <char *>a.p + step != b.p or a.norm != b.norm or (a.g != NULL and <char *>a.g + step != b.g):
        return False
    for k in range(NN_MAX_STATES):
        if a.s[k] != NULL and <char *>a.s[k] + step != b.s[k]:
            return False
    return True


cdef dict _fields():
    """Where each number of a step stands in the arguments, and whether it is an int."""
    cdef nn_optim_args o
    memset(&o, 0, sizeof(o))
    cdef size_t start = <size_t>&o
    return {
        "lr": (<size_t>&o.lr - start, False), "weight_decay": (<size_t>&o.weight_decay - start, False),
        "maximize": (<size_t>&o.maximize - start, True), "decoupled": (<size_t>&o.decoupled - start, True),
        "first": (<size_t>&o.first - start, True), "nesterov": (<size_t>&o.nesterov - start, True),
        "correct": (<size_t>&o.correct - start, True), "momentum": (<size_t>&o.momentum - start, False),
        "dampening": (<size_t>&o.dampening - start, False), "beta1": (<size_t>&o.beta1 - start, False),
        "beta2": (<size_t>&o.beta2 - start, False), "eps": (<size_t>&o.eps - start, False),
        "bias1": (<size_t>&o.bias1 - start, False), "bias2": (<size_t>&o.bias2 - start, False),
        "along_g": (<size_t>&o.along_g - start, False), "along_m": (<size_t>&o.along_m - start, False),
        "rectify": (<size_t>&o.rectify - start, False), "grow": (<size_t>&o.grow - start, False),
        "shrink": (<size_t>&o.shrink - start, False), "least": (<size_t>&o.least - start, False),
        "most": (<size_t>&o.most - start, False), "lambd": (<size_t>&o.lambd - start, False),
        "mu": (<size_t>&o.mu - start, False), "gamma_clip": (<size_t>&o.gamma_clip - start, False),
        "delta_clip": (<size_t>&o.delta_clip - start, False),
    }


cdef dict FIELDS = _fields()


cdef class Groups:
    """The groups of an optimizer, their parameters and the tensors of its state, as a plan found them."""

    def __init__(self, optimizer):
        if not isinstance(optimizer.state, dict) or not all(isinstance(s, dict) for s in optimizer.state.values()):
            raise TypeError(f"{type(optimizer).__name__}.state: expected a dict of dicts")
        self.attributes = vars(optimizer)
        self.state, self.groups = optimizer.state, optimizer.param_groups
        self.params = tuple([(g, g["params"], tuple(g["params"])) for g in self.groups])
        self.held = tuple([(s, tuple([v if isinstance(v, TensorBase) else None for v in s.values()]))
                           for s in self.state.values()])

    cdef bint same(self) except -1:
        """Whether they are the same objects still."""
        cdef Py_ssize_t at = 0, inside, i = 0, k
        cdef PyObject *key
        cdef PyObject *value
        cdef PyObject *v
        cdef tuple tensors, params
        if (self.attributes.get("state") is not self.state or self.attributes.get("param_groups") is not self.groups
                or len(self.groups) != len(self.params) or len(self.state) != len(self.held)):
            return False
        for group, listed, params in self.params:
            if self.groups[i] is not group or group.get("params") is not listed or len(listed) != len(params):
                return False
            i += 1
            for k in range(len(params)):
                if listed[k] is not params[k]:
                    return False
        i = 0
        while PyDict_Next(<dict>self.state, &at, &key, &value):
            mine, tensors = self.held[i]
            i += 1
            if value != <PyObject *>mine or len(<dict>mine) != len(tensors):
                return False
            inside = k = 0
            while PyDict_Next(<dict>mine, &inside, &key, &v):
                tensor = tensors[k]
                if tensor is not None and v != <PyObject *>tensor:
                    return False
                k += 1
        return True

    def unchanged(self):
        """`same`, for Python."""
        return self.same()


cdef class Step:
    """The numbers of the next step for parameters that share their counters: `counters` is one of `states`, which stand for
    the parameters. arrays: names of those of the optimizer's states that the options needed when it was made."""
    cdef object optimizer, names
    cdef dict group, counters
    cdef list states
    cdef list options  # the group's when `names` were seen to be what they need

    def __init__(self, optimizer, dict group, dict counters, list states, names):
        self.optimizer, self.group, self.counters, self.states, self.names = optimizer, group, counters, states, names
        self.options = []

    def check(self):
        """Whether the options still need the same state, and the counters still are one (frozen ones stand still)."""
        cdef object step = self.counters.get("step"), other
        for s in self.states:
            other = (<dict>s)["step"]
            if other is not step and other != step:
                return False
        if self._same_options():
            return True
        if self.optimizer._arrays(self.group).keys() != self.names:
            return False
        now = list(self.group.values())
        if list(map(type, now)) != list(map(type, self.options)) or any(isinstance(v, (tuple, list)) for v in now):
            self._try()
        self.options = now
        return True

    def _try(self):
        """Raises, before anything is changed, what `apply` would."""
        cdef nn_optim_args o
        memset(&o, 0, sizeof(o))
        try:
            self._write(<size_t>&o)
        except (TypeError, ValueError):
            self.optimizer.check_options(self.group)  # names the option
            raise

    cdef dict _write(self, size_t args):
        """Writes them into the kernel's arguments; gives the counters after the step."""
        scalars, after = self.optimizer._plan(self.group, self.counters)
        _put(args, "lr", self.group["lr"])
        _put(args, "weight_decay", self.group.get("weight_decay", 0))
        _put(args, "maximize", self.group["maximize"])
        _put_all(args, scalars)
        return after

    cdef bint _same_options(self) except -1:
        """Whether the options are the very objects."""
        cdef Py_ssize_t i = 0, n = len(self.options)
        for value in self.group.values():
            if i == n or self.options[i] is not value:
                return False
            i += 1
        return i == n

    def apply(self, size_t args):
        """Writes them into the kernel's arguments, and counts the step."""
        cdef object name, value, s
        cdef dict after = self._write(args)
        for name, value in after.items():
            for s in self.states:
                (<dict>s)[name] = value


def set_scalars(size_t args, **numbers):
    """Writes the numbers of a step, by name, into arguments at an address."""
    _put_all(args, numbers)


cdef int _put_all(size_t args, dict numbers) except -1:
    cdef nn_optim_args *o = <nn_optim_args *>args
    o.bias1 = o.bias2 = 1
    for name, value in numbers.items():
        _put(args, name, value)
    return 0


cdef int _put(size_t args, name, value) except -1:
    cdef size_t at
    cdef bint integer
    at, integer = FIELDS[name]
    if integer:
        (<int *>(args + at))[0] = <bint>value
    else:
        (<double *>(args + at))[0] = value
    return 0


def update(str name, list params, list states, TensorBase norms, prepare):
    """One step of an optimizer (a line of csrc/optim.def) for parameters with gradients.

    states: for each state array of the line, its tensors, one for each parameter; or None.
    norms: for adasecant, the sums of squares of the gradients.
    prepare: its apply(address) writes the numbers; a replay calls it again, if its check() holds.
    """
    cdef nn_optim_args o
    memset(&o, 0, sizeof(o))
    cdef Chunks chunks = Chunks(params, states, norms, True, True)
    for p in params:
        require_writable(p)
    prepare.apply(<size_t>&o)
    before_next(prepare, params)
    chunks.update(NUMBERS[name], &o)


cdef int _in_place(int kernel, list tensors, TensorBase norm, double most) except -1:
    """An update without gradient and state; tensors that are not row-major are updated in a copy, and written back."""
    cdef nn_optim_args o
    memset(&o, 0, sizeof(o))
    cdef TensorBase t
    cdef int code
    o.most = most
    for t in tensors:
        require_writable(t)
    if len({id(t._storage) for t in tensors}) < len(tensors):  # they may share memory: one after the other
        for t in tensors:
            _in_place(kernel, [t], norm, most)
        return 0
    cdef list dense = [contiguous(t) for t in tensors]
    for code in range(2):
        Chunks([d for d in dense if (<TensorBase>d).code == code], [], norm, False, True).update(kernel, &o)
    for t, d in zip(tensors, dense):
        if t is not d:
            copy_into(t, d)
    return 0


def clip_norm(list tensors, TensorBase norm, double max_norm):
    """Each times min(1, max_norm / (norm + 1e-6)), in place; norm is a float64 tensor without dimensions."""
    _in_place(NN_K_clip_norm, tensors, norm, max_norm)


def clip_value(list tensors, double clip_value):
    """Each limited to [-clip_value, clip_value], in place."""
    _in_place(NN_K_clip_value, tensors, None, clip_value)


def norms(list tensors, double p):
    """The sum of |x|^p of each tensor, or its largest |x| for p = inf: a float64 tensor."""
    cdef int64_t n = len(tensors), i
    cdef TensorBase out = empty(NN_FLOAT64, 1, &n), part
    cdef int code
    for code in range(2):
        at = [i for i in range(n) if (<TensorBase>tensors[i]).code == code]
        if len(at) == n:
            _norms(tensors, p, out)
        elif at:
            part = norms([tensors[i] for i in at], p)
            for k, i in enumerate(at):
                copy_into(out._view((), (), i), part._view((), (), k))
    return out


cdef int _norms(list tensors, double p, TensorBase out) except -1:
    cdef nn_norms_args a
    memset(&a, 0, sizeof(a))
    cdef Chunks chunks = Chunks([contiguous(t) for t in tensors], [], None, False, False)
    a.chunks = chunks.chunks
    a.n_chunks = chunks.n
    a.p = p
    a.sums = <double *>out.data
    runtime.keep(chunks.chunks, <size_t>chunks.n * sizeof(nn_chunk), chunks)
    runtime.run_with_scratch(NN_K_norms, chunks.code, &a, &a.scratch)
    chunks.params = chunks.keep = None
    return 0
