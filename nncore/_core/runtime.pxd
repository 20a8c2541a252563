from libc.stdint cimport int64_t

from .c cimport nn_call, nn_trial

cdef void run(int kernel, int dtype, const void *args) noexcept
cdef void run_briefly(int kernel, int dtype, const void *args) noexcept
cdef void run_with_scratch(int kernel, int dtype, const void *args, void **scratch) except *
cdef void *alloc(size_t nbytes) except NULL
cdef void free(void *p, size_t nbytes) noexcept
cdef void keep(const void *array, size_t nbytes, owner)
cdef void replay(const nn_call *calls, int64_t n, int64_t *ns) noexcept
cdef void trial_begin(nn_trial *trial) noexcept
cdef void trial_end(nn_trial *trial) noexcept
cdef object witnessing()
cdef size_t scratch_field(int kernel) noexcept
cdef int hold() noexcept
cdef int64_t gemm_nr(int dtype) noexcept
cdef int64_t lanes(int dtype) noexcept
cdef int isa() noexcept
