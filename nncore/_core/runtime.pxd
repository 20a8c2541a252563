from libc.stdint cimport int64_t

cdef void run(int kernel, int dtype, const void *args) noexcept
cdef void run_with_scratch(int kernel, int dtype, const void *args, void **scratch) except *
cdef void *alloc(size_t nbytes) except NULL
cdef void free(void *p, size_t nbytes) noexcept
cdef int64_t gemm_nr(int dtype) noexcept
cdef int isa() noexcept
