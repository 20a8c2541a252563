cdef class Recorder:
    cdef public list calls      # of Call, in order
    cdef public list blocks     # of Block: memory that tensors took meanwhile
    cdef public dict live              # address -> Block that is not freed yet
    cdef public list ranges     # (address, bytes, owner): arrays that arguments point to
    cdef public dict indices    # number of a call that checks indices -> what they are
    cdef public list constants  # storages on arrays of NumPy
    cdef public dict written    # storage -> times, of memory that was there before
    cdef public dict leaves     # id of a tensor whose .grad was used -> Leaf
    cdef public set updated     # parameters that an optimizer updated
    cdef public set raw         # storages of arguments that were arrays
    cdef public dict modules    # module that was called -> what it depended on
    cdef public set optimizers  # that made a step
    cdef public dict options    # optimizer that was there before -> its options then
    cdef public list prepare    # (number of the call that follows, object with check() and apply(address))
    cdef public list streams    # of Taken, in the order in which they were
    cdef public dict drawn      # number of a call that draws -> its stream
    cdef public dict packs      # storage -> list of calls that pack it, made once per version
    cdef public object fixed    # storages that the plan does not write, if known: their packs are kept
    cdef public dict found      # (storage, key) -> pack
    cdef public list packing    # the calls of the pack that is being made, or None
    cdef public int pause
    cdef readonly long first    # serial of the last Storage of before
    cdef readonly set aside     # serials of those made in pauses
    cdef bint knows(self, object tensor) except -1
    cdef int leaf(self, object tensor, object before, object like) except -1
    cdef void call(self, int kernel, int dtype, const void *args, size_t size, int threads)
    cdef void made(self, char *data, size_t nbytes, long serial)
    cdef void freed(self, char *data)

cdef class Call:
    cdef readonly int kernel
    cdef readonly int dtype
    cdef readonly bytes args
    cdef readonly int threads   # that its work deserves
    cdef readonly object where  # (file, line) in the caller's code

cdef class Block:
    cdef readonly size_t address
    cdef readonly size_t nbytes
    cdef readonly long serial   # of its Storage
    cdef readonly long made     # number of calls before
    cdef readonly long freed    # the same, or -1

cdef class Leaf:
    cdef object tensor           # weakly: one that was made inside goes with the call
    cdef public object before    # memory of its .grad before; None, CLEAN, DROPPED; `any` if it did not matter
    cdef readonly object like    # if nobody else knows that memory: its .grad then, without memory

cdef Recorder recorder()
cdef long next_serial() noexcept
cpdef long epoch() noexcept
