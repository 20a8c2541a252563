"""The C runtime: kernel table, ISA, threads, memory. The one module that links the C code.

The other modules of this package cimport `run`, `alloc` and `free` from here, so that there is one table, one
team of threads and one heap in the process.
"""
import os

from .c cimport *
from .record cimport Recorder, recorder

from .record import changed

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "nncore.h" nogil:
    const char *const nn_kernel_names[]
    const char *const nn_op_names[]
    const int nn_op_arity[]
    const size_t nn_args_size[]
    const size_t nn_scratch_field[]
    void nn_replay(const nn_call *calls, int64_t n, int64_t *ns)
    int64_t nn_clock()
    void nn_run(int kernel, int dtype, const void *args)
    size_t nn_scratch(int kernel, int dtype, const void *args)
    int64_t nn_gemm_nr(int dtype)
    int64_t nn_lanes(int dtype)
    int nn_isa_count()
    const char *nn_isa_name(int isa)
    int nn_isa_supported(int isa)
    int nn_isa_current()
    int nn_isa_set(int isa)
    void *nn_alloc(size_t nbytes)
    void nn_free(void *p, size_t nbytes)
    void nn_empty_cache()
    void nn_memory_stats(int64_t *in_use, int64_t *peak, int64_t *cached)
    void nn_memory_reset_peak()
    void nn_set_num_threads(int n)
    void nn_hold_team(int hold)
    void nn_trial_begin(nn_trial *t)
    void nn_trial_end(nn_trial *t)
    int nn_team_max()
    int nn_get_num_threads()
    void nn_follow_affinity()
    int nn_cgroup_cpus(const char *root, const char *membership)
    void nn_set_parallel_threshold(double ns)
    double nn_get_parallel_threshold()
    int nn_threads_used(int reset)
    int nn_threads_deserved()
    int nn_kernel_shared(int kernel, int reset)


cdef list stopwatch = None  # [(kernel, seconds per call)] while kernels are timed
cdef double turn = 0        # seconds of one measurement
cdef object witness = None  # what is told of kernels that run, while somebody profiles


# ---- for the bindings ----

cdef void _record(int kernel, int dtype, const void *args):
    cdef Recorder r = recorder()
    if r is not None:
        r.call(kernel, dtype, args, nn_args_size[kernel], nn_threads_deserved())


cdef void run(int kernel, int dtype, const void *args) noexcept:
    if stopwatch is not None:
        _time(kernel, dtype, args)
        return
    if witness is not None:
        _witnessed(kernel, dtype, args)
    else:
        with nogil:
            nn_run(kernel, dtype, args)
    _record(kernel, dtype, args)


cdef void run_briefly(int kernel, int dtype, const void *args) noexcept:
    """run, for work that takes no longer than to let other Python threads in and to wait for them."""
    if stopwatch is not None or witness is not None:
        run(kernel, dtype, args)
        return
    nn_run(kernel, dtype, args)
    _record(kernel, dtype, args)


cdef void _witnessed(int kernel, int dtype, const void *args) noexcept:
    cdef int64_t start, end
    cdef int threads
    told = witness
    with nogil:
        start = nn_clock()
        nn_run(kernel, dtype, args)
        end = nn_clock()
    threads = nn_threads_deserved()
    told.ran(kernel, dtype, <size_t>args, start, end, threads)


cdef void keep(const void *array, size_t nbytes, owner):
    """Says that arguments of the next kernel point to an array that `owner` holds."""
    cdef Recorder r = recorder()
    if r is not None and not r.pause:
        r.ranges.append((<size_t>array, nbytes, owner))


cdef void run_with_scratch(int kernel, int dtype, const void *args, void **scratch) except *:
    """run, with `*scratch` (a field of args) pointing to as much memory as the kernel asks for."""
    cdef size_t n = nn_scratch(kernel, dtype, args)
    if n:
        scratch[0] = nn_alloc(n)
        if scratch[0] == NULL:
            nn_hold_team(0)
            raise MemoryError(f"cannot allocate {n} bytes of scratch memory")
    if stopwatch is not None:
        _time(kernel, dtype, args)
        nn_free(scratch[0], n)
        return
    if witness is not None:
        _witnessed(kernel, dtype, args)
        nn_free(scratch[0], n)
    else:
        with nogil:
            nn_run(kernel, dtype, args)
            if n:
                nn_free(scratch[0], n)
    _record(kernel, dtype, args)


cdef void *alloc(size_t nbytes) except NULL:
    cdef void *p = nn_alloc(nbytes)
    if p == NULL:
        raise MemoryError(f"cannot allocate {nbytes} bytes")
    return p


cdef void free(void *p, size_t nbytes) noexcept:
    nn_free(p, nbytes)


cdef void replay(const nn_call *calls, int64_t n, int64_t *ns) noexcept:
    with nogil:
        nn_replay(calls, n, ns)


cdef void trial_begin(nn_trial *trial) noexcept:
    nn_trial_begin(trial)


cdef void trial_end(nn_trial *trial) noexcept:
    nn_trial_end(trial)


cdef object witnessing():
    return witness


cdef size_t scratch_field(int kernel) noexcept:
    return nn_scratch_field[kernel]


cdef int hold() noexcept:
    """Fixes the number of threads for the replay that follows, and gives it."""
    nn_hold_team(1)
    return nn_team_max()


cdef int64_t gemm_nr(int dtype) noexcept:
    return nn_gemm_nr(dtype)


cdef int64_t lanes(int dtype) noexcept:
    return nn_lanes(dtype)


cdef int isa() noexcept:
    return nn_isa_current()


# ---- for Python ----

KERNELS = tuple(nn_kernel_names[i].decode() for i in range(NN_N_KERNELS))
OPS = {nn_op_names[i].decode(): i for i in range(NN_N_OPS)}
OP_ARITY = {nn_op_names[i].decode(): nn_op_arity[i] for i in range(NN_N_OPS)}


def isas():
    """Names of the instruction sets this build has and this machine supports, lowest first."""
    return tuple(nn_isa_name(i).decode() for i in range(nn_isa_count()) if nn_isa_supported(i))


def get_isa():
    """Name of the instruction set in use."""
    return nn_isa_name(nn_isa_current()).decode()


def set_isa(name):
    """Uses another instruction set from the next kernel on (tests and benchmarks; users set NNCORE_ISA)."""
    cdef int i
    for i in range(nn_isa_count()):
        if nn_isa_name(i).decode() == name:
            if nn_isa_set(i) != 0:
                raise ValueError(f"isa: this machine does not support {name!r}; it supports {', '.join(isas())}")
            changed()
            return
    built = ", ".join(nn_isa_name(i).decode() for i in range(nn_isa_count()))
    raise ValueError(f"isa: expected one of {built}, got {name!r}")


def _choose_isa():
    wanted = os.environ.get("NNCORE_ISA", "").strip().lower()
    if not wanted:
        set_isa(isas()[len(isas()) - 1])
        return "highest that the CPU and operating system support"
    try:
        set_isa(wanted)
    except ValueError as e:
        raise ImportError(f"NNCORE_ISA={wanted}: {e}") from None
    return f"NNCORE_ISA={wanted}"


ISA_REASON = _choose_isa()


def built_isas():
    """(name, supported here) of every instruction set in this build, lowest first."""
    return tuple((nn_isa_name(i).decode(), bool(nn_isa_supported(i))) for i in range(nn_isa_count()))


def gemm_tile(dtype_code):
    """(NR, lanes) of the GEMM micro-kernel in use: what edge-case tests derive their shapes from."""
    return nn_gemm_nr(dtype_code), nn_lanes(dtype_code)


def scratch_bytes(int kernel, int dtype, size_t args):
    """What a kernel with these arguments needs, for the threads there are."""
    cdef size_t n = nn_scratch(kernel, dtype, <const void *>args)
    nn_hold_team(0)
    return n


def set_num_threads(int n):
    nn_set_num_threads(n)


def get_num_threads():
    """How many threads kernels may use: what `set_num_threads` said; else OMP_NUM_THREADS; else the CPUs of the
    process's affinity mask, at most the control group's quota. A lower limit set through OpenMP (threadpoolctl) counts."""
    nn_follow_affinity()
    return nn_get_num_threads()


def cgroup_cpus(root="/sys/fs/cgroup", membership="/proc/self/cgroup"):
    """CPUs that the quotas of the control groups (version 1 or 2) allow, rounded up; None: no limit."""
    return nn_cgroup_cpus(os.fsencode(root), os.fsencode(membership)) or None


def set_parallel_threshold(double nanoseconds):
    """Work, in ns of one thread, from which a kernel is shared; < 0: the tuned default. At 0 every chunked kernel
    is shared and each thread of the team takes part (tests)."""
    nn_set_parallel_threshold(nanoseconds)


def threads_used(bint reset=True):
    """How many distinct threads ran a part of a kernel since the last reset."""
    return nn_threads_used(reset)


def kernels_shared(bint reset=True):
    """Names of the kernels that ran on more than one thread, at a parallel threshold of 0, since the last reset."""
    return [name for i, name in enumerate(KERNELS) if nn_kernel_shared(i, reset)]


def empty_cache():
    """Returns cached memory to the operating system, but for blocks of less than 64 KiB."""
    nn_empty_cache()


def memory_stats():
    """Bytes in use, at most in use since the last `reset_peak_memory`, and cached for reuse."""
    cdef int64_t in_use, peak, cached
    nn_memory_stats(&in_use, &peak, &cached)
    return {"in_use": in_use, "peak": peak, "cached": cached}


def reset_peak_memory():
    """The peak of `memory_stats` counts from here."""
    nn_memory_reset_peak()


cdef double _probe(int kernel, int dtype, const void *x, void *y, int64_t n, double seconds):
    cdef double result = 0
    cdef nn_probe_args a
    memset(&a, 0, sizeof(a))
    a.seconds, a.x, a.y, a.n, a.result = seconds, x, y, n, &result
    run(kernel, dtype, &a)
    return result


def probe_fma(int dtype_code, double seconds=0.05):
    """FLOP/s of independent FMAs in registers, on one thread: the peak that kernels are compared with."""
    return _probe(NN_K_probe_fma, dtype_code, NULL, NULL, 0, seconds)


def probe_copy(size_t nbytes, double seconds=0.05):
    """Bytes/s, read plus written, of copying `nbytes` on one thread."""
    cdef char *x = <char *>alloc(nbytes)
    cdef char *y = <char *>alloc(nbytes)
    memset(x, 0, nbytes)
    memset(y, 0, nbytes)
    result = _probe(NN_K_probe_copy, NN_FLOAT32, x, y, <int64_t>(nbytes // 4), seconds)
    free(x, nbytes)
    free(y, nbytes)
    return result


def set_witness(told):
    """From now on told.ran(kernel, dtype, address of the arguments, start, end, threads) is called after each kernel, and
    told.replayed(plan, clock readings) after each replay, on any thread; None: nobody's. Gives the former one."""
    global witness
    former, witness = witness, told
    return former


def clock():
    """Nanoseconds of the clock that kernels are timed with."""
    return nn_clock()


# ---- time without Python ----

cdef double _seconds(int kernel, int dtype, const void *args, int64_t calls) noexcept nogil:
    cdef timespec start, end
    cdef int64_t i
    clock_gettime(CLOCK_MONOTONIC, &start)
    for i in range(calls):
        nn_run(kernel, dtype, args)
    clock_gettime(CLOCK_MONOTONIC, &end)
    return <double>(end.tv_sec - start.tv_sec) + 1e-9 * <double>(end.tv_nsec - start.tv_nsec)


cdef void _time(int kernel, int dtype, const void *args) noexcept:
    """The median of 7 turns, each of as many calls as take `turn` seconds."""
    cdef double[7] found
    cdef double t
    cdef int64_t calls = 1
    cdef int i
    with nogil:
        t = _seconds(kernel, dtype, args, 1)
        while t < turn / 4 and calls < 1 << 30:
            calls *= 2
            t = _seconds(kernel, dtype, args, calls)
        calls = max(1, <int64_t>(<double>calls * turn / max(t, 1e-9)))
        for i in range(7):
            found[i] = _seconds(kernel, dtype, args, calls) / <double>calls
    stopwatch.append((KERNELS[kernel], sorted(found)[3]))


def time_kernels(function, double seconds=0.01):
    """Seconds per call of each kernel that function() runs, [(kernel, seconds)] in order: a loop in C over the one
    argument struct, with the GIL released. Kernels that add to their result have added many times then."""
    global stopwatch, turn
    stopwatch, turn = [], seconds
    try:
        function()
        return stopwatch
    finally:
        stopwatch = None
