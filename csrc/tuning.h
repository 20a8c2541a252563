/* Every tuned constant, with the machine, date and command that set it. */
#ifndef NN_TUNING_H
#define NN_TUNING_H

/* Set 2026-11-21 on AMD EPYC 9R14-class Zen 4 (2 cores, 1 MiB L2 each), gcc 12.2: `make bench`. */

/* GEMM micro-tile: MR rows by NV vectors. 6x4 zmm is 24 accumulators, 4 of B, 1 broadcast: 29 of 32. */
#define NN_MR 6
#if defined(NN_ISA_AVX512)
#define NN_NV 4
#else
#define NN_NV 2
#endif

/* Bytes of one column of a B panel block: KC = NN_KC_BYTES / sizeof(real). The KC x NR panel lives in L2
 * (512 x 64 floats: 128 KiB) while MC rows of A pass by it. */
#define NN_KC_BYTES 2048
#define NN_MC 96
#define NN_NC_BYTES 8192  /* columns of B packed at a time, times sizeof(real) */
#define NN_KB_BYTES 16384 /* depth of A and B packed at a time, times sizeof(real) */

/* Up to this many rows, a panel of B is packed by the one chunk that uses it. */
#define NN_WIDE_M 384
/* Below this many rows of A, row-major B is read in place: packing costs about 8/M of the work. */
#define NN_PACK_B_MIN_M 48
/* A is read in place while fewer than this many columns of B pass over it. */
#define NN_PACK_A_MIN_N 192

/* How far ahead a pack prefetches: in rows, and in elements of a row if it transposes. */
#define NN_PACK_ROWS_AHEAD 8
#define NN_PACK_AHEAD (128 / (int)sizeof(real))

/* Elements per parallel chunk of elementwise work, and per staging buffer (stays in L1). */
#define NN_EWISE_CHUNK 16384
#define NN_STAGE_BUF 256

/* One thread's speed, from which the threads of an operation follow: ns = bytes / NN_GBPS, flops / NN_GFLOPS. */
#define NN_GBPS 12.0
#define NN_GFLOPS 60.0

/* Work in ns from which a second thread pays: when the team is awake, and when it must be woken. */
#define NN_PARALLEL_AWAKE_NS 5000.0
#define NN_PARALLEL_ASLEEP_NS 40000.0
/* How long an idle thread spins before it sleeps. */
#define NN_SPIN_NS 100000

#endif
