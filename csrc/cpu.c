/* Which instruction sets this build has, which the machine has, and the table in use.
 * Compiled with baseline flags: it must run everywhere. */
#include "nncore.h"

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

/* NN_ISAS is set by setup.py: the names compiled for this architecture, lowest first. */
#define NN_ISA(name) extern const nn_table nn_table_##name##_f32, nn_table_##name##_f64;
NN_ISAS
#undef NN_ISA

static const struct {
    const char *name;
    const nn_table *table[2];
} isas[] = {
#define NN_ISA(name) {#name, {&nn_table_##name##_f32, &nn_table_##name##_f64}},
    NN_ISAS
#undef NN_ISA
};
enum { N_ISAS = sizeof isas / sizeof *isas };

const char *const nn_kernel_names[NN_N_KERNELS] = {
#define NN_KERNEL(name, args) #name,
#define NN_KERNEL_S(name, args) #name,
#include "kernels.def"
};
const size_t nn_args_size[NN_N_KERNELS] = {
#define NN_KERNEL(name, args) sizeof(args),
#define NN_KERNEL_S(name, args) sizeof(args),
#include "kernels.def"
};
const size_t nn_scratch_field[NN_N_KERNELS] = {
#define NN_KERNEL(name, args) 0,
#define NN_KERNEL_S(name, args) offsetof(args, scratch),
#include "kernels.def"
};
const char *const nn_op_names[NN_N_OPS] = {
#define NN_OP(name, arity, formula) #name,
#include "ops.def"
};
const int nn_op_arity[NN_N_OPS] = {
#define NN_OP(name, arity, formula) arity,
#include "ops.def"
};

static _Atomic int current = 0;

int nn_isa_count(void) { return N_ISAS; }
const char *nn_isa_name(int isa) { return isa >= 0 && isa < N_ISAS ? isas[isa].name : ""; }
int nn_isa_current(void) { return atomic_load(&current); }

/* __builtin_cpu_supports asks CPUID and, by XGETBV, whether the operating system saves the registers. */
int nn_isa_supported(int isa)
{
    if (isa < 0 || isa >= N_ISAS) return 0;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && nn_isa_supported(1);
    if (isa == 1)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2");
#endif
    return isa == 0;
}

int nn_isa_set(int isa)
{
    if (!nn_isa_supported(isa)) return -1;
    atomic_store(&current, isa);
    return 0;
}

static const nn_table *table(int dtype) { return isas[nn_isa_current()].table[dtype]; }

/* Denormals cost a hundred cycles each and carry nothing here; and were a caller's rounding mode or trap in force on its
 * own thread, results would depend on who runs which chunk. */
unsigned nn_float_enter(void)
{
#ifdef __SSE__
    unsigned state = _mm_getcsr();
    _mm_setcsr(0x9fc0); /* FTZ, DAZ, all exceptions masked */
    return state;
#else
    return 0;
#endif
}

void nn_float_leave(unsigned state)
{
#ifdef __SSE__
    _mm_setcsr(state);
#else
    (void)state;
#endif
}

void nn_run(int kernel, int dtype, const void *args)
{
    unsigned state = nn_float_enter();
    nn_running(kernel);
    table(dtype)->kernel[kernel](args);
    nn_running(-1);
    nn_float_leave(state);
    nn_hold_team(0);
}

int64_t nn_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

void nn_replay(const nn_call *calls, int64_t n, int64_t *ns)
{
    unsigned state = nn_float_enter();
    nn_hold_team(1); /* the scratch memory is for this many threads */
    for (int64_t i = 0; i < n; i++) {
        if (ns) ns[i] = nn_clock();
        nn_running(calls[i].kernel);
        table(calls[i].dtype)->kernel[calls[i].kernel](calls[i].args);
    }
    if (ns) ns[n] = nn_clock();
    nn_running(-1);
    nn_hold_team(0);
    nn_float_leave(state);
}

size_t nn_scratch(int kernel, int dtype, const void *args)
{
    nn_scratch_fn f = table(dtype)->scratch[kernel];
    if (!f) return 0;
    nn_hold_team(1); /* until nn_run: somebody may set another number of threads in between */
    return f(args);
}

int64_t nn_gemm_nr(int dtype) { return table(dtype)->gemm_nr; }
int64_t nn_lanes(int dtype) { return table(dtype)->lanes; }
