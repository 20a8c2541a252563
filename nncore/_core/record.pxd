cdef class Recorder:
    cdef public list calls      # of Call, in order
    cdef public list blocks     # of Block: memory that tensors took meanwhile
    cdef public dict live              # address -> Block that is not freed yet
    cdef public list ranges     # (address, bytes, owner): arrays that arguments point to
    cdef public dict indices    # number of a call that checks indices -> what they are
    cdef public list constants  # storages on arrays of NumPy
    cdef public dict written    # storage -> times, of memory that was there before
    cdef public dict leaves     # tensor whose .grad was written -> memory of its .grad before, or `any` if it did not matter
    cdef public set updated     # parameters that an optimizer updated
    cdef public set raw         # storages of arguments that were arrays
    cdef public dict modules    # module that was called -> what it depended on
    cdef public dict optimizers # that made a step -> version of their groups
    cdef public list prepare    # (number of the call that follows, object with check() and apply(address))
    cdef public list streams    # (generator, seed, stream) of each random operation
    cdef public dict packs      # storage -> list of calls that pack it, made once per version
    cdef public object fixed    # storages that the plan does not write, if known: their packs are kept
    cdef public dict found      # (storage, key) -> pack
    cdef public list packing    # the calls of the pack that is being made, or None
    cdef public int pause
    cdef void leaf(self, object tensor, object before)
    cdef void call(self, int kernel, int dtype, const void *args, size_t size, int threads)
    cdef void made(self, char *data, size_t nbytes)
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
    cdef readonly long made     # number of calls before
    cdef readonly long freed    # the same, or -1

cdef Recorder recorder()
cpdef long epoch() noexcept
