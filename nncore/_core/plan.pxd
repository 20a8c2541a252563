from .tensor cimport Storage, TensorBase

cdef class Moving:
    cdef readonly TensorBase leaf
    cdef TensorBase like         # the gradient, without memory
    cdef readonly size_t start   # where it was at the recording
    cdef readonly size_t nbytes
    cdef bint written
    cdef list places             # (address in the plan's arguments, distance from the gradient's start)
    cdef char *at                # where these point now
    cdef Storage held            # while a replay runs
    cdef bint fits(self) noexcept
    cdef int begin(self) except -1
    cdef void end(self) noexcept
