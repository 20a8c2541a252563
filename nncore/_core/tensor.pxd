from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cdef class Storage:
    cdef char *data
    cdef size_t nbytes
    cdef Py_buffer *borrowed      # somebody else's memory, or NULL: ours
    cdef public bint readonly     # nobody may write
    cdef public bint tracked      # a parameter's: every write bumps the version, NumPy views are read-only
    cdef public bint shielded     # holds a recorded operation's result: NumPy views are read-only
    cdef public bint planned      # a plan writes it
    cdef public long version
    cdef public dict packs        # packed copies for gemm (dense.pyx)
    cdef object __weakref__
    cdef long serial              # no other one has it, nor had it
    cdef PyObject *older          # all that there are, in a list
    cdef PyObject *younger

cdef class TensorBase:
    cdef Storage storage
    cdef char *data
    cdef int ndim
    cdef int code
    cdef int64_t dims[8]
    cdef int64_t steps[8]
    cdef bint wants_grad
    cdef readonly bint channels_last  # memory order N, spatial..., C; the shape shows N, C, spatial...
    cdef public object grad_fn
    cdef public int output_nr
    cdef object grad_
    cdef public int _grad_dropped  # by a compiled update, and nobody has cleared it since: 1; 2 if it would not be cleared there either
    cdef dict hooks               # of a leaf: what its gradient goes through, or None
    cdef int64_t count(self) noexcept
    cdef bint contiguous(self) noexcept
    cdef TensorBase view(self, int ndim, const int64_t *dims, const int64_t *steps, int64_t offset)
    cdef TensorBase alias(self)

cdef TensorBase empty(int code, int ndim, const int64_t *dims)
cdef TensorBase empty_constant(int code, int ndim, const int64_t *dims)
cdef TensorBase empty_channels_last(int code, int ndim, const int64_t *dims)
cdef TensorBase empty_like(TensorBase t)
cdef void memory_order(int ndim, int64_t *values) noexcept
cpdef find_packed(Storage s, tuple key)
cdef void keep_packed(Storage s, tuple key, Storage p)
cdef int no_reading(TensorBase t, str how) except -1
cdef void touch(Storage s)
cdef bint alone(TensorBase leaf) noexcept
cdef int note_grad(TensorBase leaf) except -1
cdef TensorBase scalar(int code)
cdef Storage new_storage(size_t nbytes)
cdef list all_storages()
cdef int require_writable(TensorBase t) except -1
cdef bint overlaps(TensorBase t) noexcept
