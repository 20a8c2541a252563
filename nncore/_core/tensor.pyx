"""The array: storage with a version, shape and strides, and conversion from and to NumPy. No arithmetic."""
from cpython.buffer cimport (PyBUF_C_CONTIGUOUS, PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBUF_STRIDES,
                             PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.mem cimport PyMem_Free, PyMem_Malloc

import numpy as np

from libc.string cimport memset

from . cimport runtime
from .c cimport NN_BOOL, NN_FLOAT32, NN_FLOAT64, NN_INT64, NN_K_zero, NN_MAX_DIMS, nn_zero_args
from .record cimport Recorder, next_serial, recorder

from .record import CLEAN, DROPPED, RecordError, changed

DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_))
_CODES = {d: i for i, d in enumerate(DTYPES)}
cdef int[4] ITEMSIZE = [4, 8, 8, 1]
cdef bytes _FORMATS = b"f\0d\0l\0?\0" if sizeof(long) == 8 else b"f\0d\0q\0?\0"
cdef object _tensor_type = None  # set below: TensorBase, until nncore.Tensor is defined
cdef tuple _NO_ARGS = ()
cdef int64_t MOST = <int64_t>1 << 46  # elements of one tensor: no product of sizes and item sizes overflows


class OutOfRange(ValueError, IndexError):
    """An index or axis that is not there: an IndexError, as Python's, and a ValueError, as all bad values."""


def set_tensor_type(cls):
    """The class of new tensors: nncore.Tensor, defined above this layer."""
    global _tensor_type
    _tensor_type = cls


def dtype_code(dtype, str name="dtype"):
    """The code of a dtype (or of something np.dtype understands): float32, float64, int64 or bool."""
    try:
        return _CODES[np.dtype(dtype)]
    except (KeyError, TypeError):
        raise TypeError(f"{name}: expected float32, float64, int64 or bool, got {dtype!r}") from None


cdef PyObject *youngest = NULL


cdef class Storage:
    """A block of memory. `version` counts the writes made through the library."""

    def __cinit__(self):
        global youngest
        self.data = NULL
        self.borrowed = NULL
        self.older, self.younger = youngest, NULL
        if youngest != NULL:
            (<Storage>youngest).younger = <PyObject *>self
        youngest = <PyObject *>self
        self.serial = next_serial()

    def __dealloc__(self):
        global youngest
        if self.younger != NULL:
            (<Storage>self.younger).older = self.older
        else:
            youngest = self.older
        if self.older != NULL:
            (<Storage>self.older).younger = self.younger
        if self.borrowed != NULL:
            PyBuffer_Release(self.borrowed)
            PyMem_Free(self.borrowed)
        elif self.data != NULL:
            if recorder() is not None:
                recorder().freed(self.data)
            runtime.free(self.data, self.nbytes)


cdef extern from *:
    """
    static PyObject *new_object(PyObject *type, PyObject *no_args)
    {
        return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, no_args, NULL);
    }
    """
    object new_object(object type, object no_args)


cdef list all_storages():
    cdef list found = []
    cdef PyObject *p = youngest
    while p != NULL:
        found.append(<Storage>p)
        p = (<Storage>p).older
    return found


cdef Storage new_storage(size_t nbytes):
    cdef Storage s = Storage.__new__(Storage)
    s.nbytes = nbytes
    s.data = <char *>runtime.alloc(nbytes)
    if recorder() is not None:
        recorder().made(s.data, nbytes, s.serial)
    return s


cdef void touch(Storage s):
    """Counts a write."""
    cdef Recorder r = recorder()
    s.version += 1
    if r is not None and not r.pause and <size_t>s.data not in r.live:
        r.written[s] = r.written.get(s, 0) + 1


cdef bint alone(TensorBase leaf) noexcept:
    """Whether the memory of the gradient is known to nobody else, and holds nothing else."""
    cdef PyObject *g = <PyObject *>leaf.grad_
    cdef PyObject *s = <PyObject *>(<TensorBase>g).storage
    return (g.ob_refcnt == 1 and s.ob_refcnt == 1 and (<Storage>s).borrowed == NULL
            and (<TensorBase>g).data == (<Storage>s).data)


cdef int note_grad(TensorBase leaf) except -1:
    """A recording learns that the gradient is used."""
    cdef Recorder r = recorder()
    cdef TensorBase g, like = None
    if r is None or r.pause or r.knows(leaf):
        return 0
    if leaf.grad_ is None:
        return r.leaf(leaf, None, None)
    if alone(leaf):
        g = leaf.grad_
        like = g.alias()
        like.storage, like.data = None, NULL
    return r.leaf(leaf, (<TensorBase>leaf.grad_).storage, like)


cdef inline TensorBase _new():
    return <TensorBase>new_object(_tensor_type, _NO_ARGS)


cdef int _check_size(int ndim, const int64_t *dims) except -1:
    """Raises if a product of sizes could overflow."""
    cdef int64_t n = 1
    cdef int i
    for i in range(ndim):
        if dims[i] > 1:
            if dims[i] > MOST // n:
                raise ValueError(f"shape: too large, {tuple([dims[k] for k in range(ndim)])}")
            n *= dims[i]
    return 0


cdef TensorBase empty(int code, int ndim, const int64_t *dims):
    """A fresh row-major tensor; contents undefined."""
    cdef TensorBase t = _new()
    cdef Storage s
    cdef int64_t n = 1
    cdef int i
    _check_size(ndim, dims)
    for i in range(ndim - 1, -1, -1):
        t.dims[i] = dims[i]
        t.steps[i] = n
        n *= dims[i]
    s = new_storage(<size_t>(n * ITEMSIZE[code]))
    t.storage = s
    t.data = s.data
    t.ndim = ndim
    t.code = code
    return t


cdef TensorBase empty_constant(int code, int ndim, const int64_t *dims):
    """A fresh tensor that the binding fills itself, from shapes and the like: a recording takes its contents as they are."""
    cdef Recorder r = recorder()
    if r is None:
        return empty(code, ndim, dims)
    r.pause += 1
    cdef TensorBase t = empty(code, ndim, dims)
    r.pause -= 1
    r.constants.append(t.storage)
    return t


cdef TensorBase empty_channels_last(int code, int ndim, const int64_t *dims):
    """A fresh tensor [N, C, spatial...] whose channels lie next to each other in memory."""
    cdef TensorBase t = empty(code, ndim, dims)
    cdef int64_t n = dims[1]
    cdef int i
    t.steps[1] = 1
    for i in range(ndim - 1, 1, -1):
        t.steps[i] = n
        n *= dims[i]
    t.steps[0] = n
    t.channels_last = True
    return t


cdef TensorBase empty_like(TensorBase t):
    return empty_channels_last(t.code, t.ndim, t.dims) if t.channels_last else empty(t.code, t.ndim, t.dims)


cdef void memory_order(int ndim, int64_t *values) noexcept:
    """Moves the channel's entry, the second, to the end: the order in which channels-last memory is walked."""
    cdef int64_t c = values[1]
    cdef int i
    for i in range(1, ndim - 1):
        values[i] = values[i + 1]
    values[ndim - 1] = c


# ---- packed copies of parameters ----
#
# A weight in training changes at every step and is packed on the way; a weight that stays is packed once, at its
# second use at one version. Every write through the library changes the version.

cpdef find_packed(Storage s, tuple key):
    """The valid packed copy under this key; True if it is time to make one (keep_packed); False if not."""
    cdef Recorder r
    if not s.tracked:
        return False
    r = recorder()
    if r is not None and not r.pause:
        return _find_recorded(r, s, key)
    if s.packs is None:
        s.packs = {}
    version, held = s.packs.get(key, (-1, None))
    if version != s.version:
        s.packs[key] = (s.version, None)
        return False
    return True if held is None else held


cdef void keep_packed(Storage s, tuple key, Storage p):
    cdef Recorder r = recorder()
    if r is not None and r.packing is not None:
        r.packs.setdefault(s, []).extend(r.packing)
        r.found[s, key] = p
        r.packing = None
        return
    if r is not None and not r.pause:
        return  # a pack of this recording alone
    s.packs[key] = (s.version, p)


cdef object _find_recorded(Recorder r, Storage s, tuple key):
    """A plan has its own packs, of weights that it does not write; which those are is known from the second recording on."""
    if <size_t>s.data in r.live:
        return False  # made inside
    if r.fixed is None or s not in r.fixed:
        r.written.setdefault(s, 0)
        return False
    held = r.found.get((s, key))
    if held is None:
        r.packing = []
        return True
    return held


cdef TensorBase scalar(int code):
    return empty(code, 0, NULL)


cdef int require_writable(TensorBase t) except -1:
    """Raises unless each element of t can be written alone."""
    if t.storage.readonly:
        raise ValueError("cannot write: the tensor's memory is read-only")
    if overlaps(t):
        raise ValueError("cannot write: elements of an expanded tensor share memory; write to a clone()")
    return 0


cdef bint overlaps(TensorBase t) noexcept:
    """Whether elements share memory, as expand() makes them."""
    cdef int i
    for i in range(t.ndim):
        if t.steps[i] == 0 and t.dims[i] > 1 and t.count() > 0:
            return True
    return False


cdef class TensorBase:
    """What nncore.Tensor is made of. Attributes without a leading underscore are documented there."""

    def __cinit__(self):
        self.wants_grad = False

    # ---- for the bindings ----

    cdef int64_t count(self) noexcept:
        cdef int64_t n = 1
        for i in range(self.ndim):
            n *= self.dims[i]
        return n

    cdef bint contiguous(self) noexcept:
        cdef int64_t n = 1
        cdef int i
        for i in range(self.ndim - 1, -1, -1):
            if self.dims[i] != 1 and self.steps[i] != n:
                return self.count() == 0
            n *= self.dims[i]
        return True

    cdef TensorBase view(self, int ndim, const int64_t *dims, const int64_t *steps, int64_t offset):
        cdef TensorBase t = _new()
        cdef int i
        for i in range(ndim):
            t.dims[i] = dims[i]
            t.steps[i] = steps[i]
            if dims[i] == 0:
                offset = 0  # a view of nothing begins within the memory, too
        t.ndim = ndim
        t.code = self.code
        t.storage = self.storage
        t.data = self.data + offset * ITEMSIZE[self.code]
        return t

    cdef TensorBase alias(self):
        cdef TensorBase t = self.view(self.ndim, self.dims, self.steps, 0)
        t.channels_last = self.channels_last
        return t

    # ---- for Python ----

    @property
    def shape(self):
        """Tuple of sizes."""
        cdef int n = self.ndim
        if n == 2:
            return (self.dims[0], self.dims[1])
        if n == 1:
            return (self.dims[0],)
        return tuple([self.dims[i] for i in range(n)])

    @property
    def strides(self):
        """Tuple of steps in elements."""
        return tuple([self.steps[i] for i in range(self.ndim)])

    @property
    def ndim(self):
        """Number of dimensions."""
        return self.ndim

    def numel(self):
        """Number of elements."""
        return self.count()

    @property
    def dtype(self):
        """NumPy dtype: float32, float64, int64 or bool."""
        return DTYPES[self.code]

    @property
    def _code(self):
        return self.code

    @property
    def _storage(self):
        return self.storage

    @property
    def _contiguous(self):
        return self.contiguous()

    @property
    def _floating(self):
        return self.code <= NN_FLOAT64

    @property
    def requires_grad(self):
        """Whether gradients flow to this tensor."""
        return self.wants_grad

    @requires_grad.setter
    def requires_grad(self, bint value):
        if value and self.code > NN_FLOAT64:
            raise TypeError(f"requires_grad: only floating tensors can require gradients, this one is {self.dtype}")
        if not value and self.grad_fn is not None:
            raise ValueError("requires_grad: can only be cleared on leaf tensors; use detach()")
        self.wants_grad = value
        changed()

    @property
    def grad(self):
        """The accumulated gradient: a tensor of the same shape and dtype, or None."""
        note_grad(self)
        return self.grad_

    @grad.setter
    def grad(self, value):
        if value is not None:
            if not isinstance(value, TensorBase):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(f"grad: expected {self.dtype} of shape {self.shape}, got {value.dtype} of {value.shape}")
        cdef Recorder r = recorder()
        if r is not None and not r.pause:
            r.leaf(self, any, None)
            r.updated.discard(self)
        self.grad_ = value
        self._grad_dropped = 0

    def _zero_grad(self, bint set_to_none):
        """Drops the gradient, or sets it to zero, also for a recording: an update before it leaves nothing to be dropped.
        One that a compiled update dropped is there in eager code, and so is zero."""
        cdef Recorder r = recorder()
        cdef bint recorded = r is not None and not r.pause
        if set_to_none:
            self.grad = None
        elif self.grad_ is not None or self._grad_dropped:
            if self.grad_ is None:
                if recorded:
                    r.leaf(self, DROPPED, None)
                self.grad_ = new_empty(self.shape, self.code)
            self.grad.zero_()
            if recorded:
                r.updated.discard(self)
        elif recorded:
            r.leaf(self, CLEAN, None)
        self._grad_dropped = 0

    @property
    def is_leaf(self):
        """True unless the tensor is the result of a recorded operation."""
        return self.grad_fn is None

    def _alias(self):
        """The same memory as a new tensor outside the graph."""
        return self.alias()

    def _view(self, tuple shape, tuple strides, int64_t offset):
        """A strided window on the same memory; the caller has checked the bounds."""
        cdef int64_t[8] dims
        cdef int64_t[8] steps
        cdef int i, n = len(shape)
        if n > NN_MAX_DIMS:
            raise ValueError(f"shape: at most {NN_MAX_DIMS} dimensions, got {n}")
        for i in range(n):
            dims[i] = shape[i]
            steps[i] = strides[i]
        _check_size(n, dims)
        return self.view(n, dims, steps, offset)

    def _copy_meta(self, TensorBase other):
        """Makes this tensor a second name for other's memory (Parameter, and data= assignments)."""
        cdef int i
        for i in range(other.ndim):
            self.dims[i] = other.dims[i]
            self.steps[i] = other.steps[i]
        self.ndim = other.ndim
        self.code = other.code
        self.channels_last = other.channels_last
        self.storage = other.storage
        self.data = other.data
        changed()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Py_ssize_t *meta
        no_reading(self, "numpy()")
        cdef int i
        cdef bint fixed = self.storage.readonly or self.storage.tracked or self.storage.shielded or self.wants_grad
        if flags & PyBUF_WRITABLE and fixed:
            raise BufferError("the memory of parameters and of recorded results is read-only: write with copy_() or "
                              "p[...] = value, or work on a copy")
        if not self.contiguous() and (
                flags & PyBUF_STRIDES != PyBUF_STRIDES or flags & PyBUF_C_CONTIGUOUS == PyBUF_C_CONTIGUOUS):
            raise BufferError("the tensor is not row-major: pass tensor.contiguous()")
        if flags & PyBUF_F_CONTIGUOUS == PyBUF_F_CONTIGUOUS and self.ndim > 1:
            raise BufferError("the tensor is not column-major")
        meta = <Py_ssize_t *>PyMem_Malloc(2 * NN_MAX_DIMS * sizeof(Py_ssize_t))
        if meta == NULL:
            raise MemoryError()
        for i in range(self.ndim):
            meta[i] = self.dims[i]
            meta[NN_MAX_DIMS + i] = self.steps[i] * ITEMSIZE[self.code]
        buffer.buf = self.data
        buffer.obj = self
        buffer.len = self.count() * ITEMSIZE[self.code]
        buffer.itemsize = ITEMSIZE[self.code]
        buffer.readonly = fixed
        buffer.ndim = self.ndim
        buffer.format = (<char *>_FORMATS) + 2 * self.code if flags & PyBUF_FORMAT else NULL
        buffer.shape = meta
        buffer.strides = meta + NN_MAX_DIMS
        buffer.suboffsets = NULL
        buffer.internal = meta

    def __releasebuffer__(self, Py_buffer *buffer):
        PyMem_Free(buffer.internal)


def new_empty(tuple shape, int code):
    """A fresh tensor; contents undefined."""
    cdef int64_t[8] dims
    cdef int i, n = len(shape)
    if n > NN_MAX_DIMS:
        raise ValueError(f"shape: at most {NN_MAX_DIMS} dimensions, got {n}")
    for i in range(n):
        if shape[i] < 0:
            raise ValueError(f"shape: sizes must not be negative, got {shape}")
        dims[i] = shape[i]
    return empty(code, n, dims)


def new_zeros(tuple shape, int code):
    """A fresh tensor of zeros."""
    cdef TensorBase t = new_empty(shape, code)
    cdef nn_zero_args z
    memset(&z, 0, sizeof(z))
    z.bytes, z.y = t.storage.nbytes, t.data
    runtime.run(NN_K_zero, NN_FLOAT32, &z)
    return t


def from_array(array):
    """A tensor on the memory of a NumPy array of one of the four dtypes, without a copy."""
    cdef TensorBase t
    cdef Storage s
    cdef Py_buffer *view
    cdef int i, size, code = _CODES[array.dtype]
    if array.ndim > NN_MAX_DIMS:
        raise ValueError(f"array: at most {NN_MAX_DIMS} dimensions, got {array.ndim}")
    view = <Py_buffer *>PyMem_Malloc(sizeof(Py_buffer))
    if view == NULL:
        raise MemoryError()
    try:
        PyObject_GetBuffer(array, view, PyBUF_STRIDED_RO | PyBUF_FORMAT)
    except BaseException:
        PyMem_Free(view)
        raise
    s = Storage.__new__(Storage)
    s.borrowed = view
    s.data = <char *>view.buf
    s.nbytes = <size_t>view.len
    s.readonly = view.readonly
    if recorder() is not None:
        recorder().constants.append(s)
    size = ITEMSIZE[code]
    t = _new()
    t.storage = s
    t.data = s.data
    t.code = code
    t.ndim = view.ndim
    for i in range(view.ndim):
        t.dims[i] = view.shape[i]
        if (view.strides[i] % size and view.shape[i] > 1) or <size_t>view.buf % size:
            raise ValueError("array: not aligned to the item size, or strides are no multiples of it; pass a copy")
        t.steps[i] = view.strides[i] // size
    return t


def item(TensorBase t):
    """The only element as a Python number."""
    no_reading(t, "item()")
    if t.count() != 1:
        raise ValueError(f"item: only a tensor of one element has an item, this one has shape {t.shape}")
    if t.code == NN_FLOAT32:
        return (<float *>t.data)[0]
    if t.code == NN_FLOAT64:
        return (<double *>t.data)[0]
    if t.code == NN_INT64:
        return (<int64_t *>t.data)[0]
    return bool((<unsigned char *>t.data)[0])


def bump(TensorBase t):
    """Counts a write to the tensor's memory."""
    touch(t.storage)


cdef int no_reading(TensorBase t, str how) except -1:
    cdef Recorder r = recorder()
    if r is not None and not r.pause and t.storage not in r.constants:
        raise RecordError(f"{how}: a compiled function cannot read values, a branch on them would be frozen; compute with "
                          "tensors, or return the tensor and read it outside")
    return 0


set_tensor_type(TensorBase)
