/* Every tuned constant. Each section names the command by whose figures its values are set: run it before and after
 * a change. Machine and date: AMD EPYC 9R14-class Zen 4 (2 cores, 32 KiB L1d, 1 MiB L2 each), gcc 12.2, 2026-11-21.
 *
 * NN_SUM_*, NN_NORM_PIECE to NN_NORM_SUMS, NN_EWISE_CHUNK, NN_ROWS_CHUNK, NN_STAGE_BUF, NN_CONV_C_CHUNK,
 * NN_CONV_WEIGHT_CHUNKS, NN_DW_PIECES and the NN_WINOGRAD_* of the gradient also fix the order of a sum: another value gives
 * other bits. */
#ifndef NN_TUNING_H
#define NN_TUNING_H

/* ---- GEMM: `make bench-kernels ONLY=gemm` ---- */

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
/* Neither is packed (but to be transposed) where it spans so little that it stays in L1. */
#define NN_IN_PLACE_BYTES (16 << 10)
/* A^T B of at least this depth, where C stays in L2, packs nothing: so many rows of C at a time take so much of the depth, in turn. */
#define NN_DEEP_K 512
#define NN_DEEP_BYTES (1 << 20)
#define NN_DEEP_M 768
#define NN_DEEP_STEP 128
/* Columns of B up to which the vectors run along the rows of A: where these must be transposed, and where they are columns. */
#define NN_NARROW 3
#define NN_NARROW_T NN_MR
/* Up to a panel of rows is transposed instead of B where B has so many columns for each of them, between these depths. */
#define NN_FLAT 2
#define NN_FLAT_MIN_K 128
#define NN_FLAT_MAX_K 2048

/* Up to so many rows of A, a B of more bytes (half of them from three tiles of rows on) is read in stripes of so many rows
 * (twice as many from three tiles on) and panels. */
#define NN_STRIPE_M 96
#define NN_STRIPE_BYTES ((int64_t)16 << 20)
#define NN_STRIPE_STEP 32
#define NN_STRIPE_PANELS 16

/* How far ahead a pack prefetches: in rows, and in elements of a row if it transposes. */
#define NN_PACK_ROWS_AHEAD 8
#define NN_CONV_PACK_AHEAD (512 / (int)sizeof(real)) /* of the weight of a convolution */
#define NN_PACK_AHEAD (128 / (int)sizeof(real))

/* Rows of A packed by one parallel chunk. */
#define NN_PACK_A_ROWS (16 * NN_MR)

/* ---- convolution: `make bench-kernels ONLY=conv` ---- */

/* Points of the result in a chunk, at least: enough tiles for a panel of weights to be worth its load. */
#define NN_CONV_PIXELS 216
/* Taps outside of the image are left out along a dimension if they are more than 1 of so many; with fewer than so many
 * channels, for which the tiles at the border take longer than their taps, if they are more than 1 of these. */
#define NN_CONV_DEAD 100
#define NN_CONV_LEAVE_C 5
#define NN_CONV_FEW_DEAD 3
/* To few outputs: the taps from which laying x out in planes pays, and the bytes of the planes of a chunk (they stay in L2). */
#define NN_FEW_TAPS 4
#define NN_FEW_BYTES (128 << 10)
/* Bytes of the lines that a chunk of conv_scatter reads and writes. The gradient for few channels is scattered where that
 * takes fewer cycles: per vector and row of a tile one for each channel of dY, and these to load and store it; gathering takes
 * so many per vector and FMA, or with planes, divided by LANES, as a function of the channels. */
#define NN_SCATTER_BYTES (128 << 10)
#define NN_SCATTER_CYCLES 8.0
#define NN_GATHER 1.3
#define NN_GATHER_FEW(C) (1.5 * (double)(C) + 3.0)
/* Gradient of the weight: points of dY packed at a time (512 x NR floats: 128 KiB of L2), channels of x per chunk, and
 * the chunks to have at least: with fewer, the images are divided too. */
#define NN_CONV_BLOCK_POINTS 512
#define NN_CONV_C_CHUNK 48
#define NN_CONV_WEIGHT_CHUNKS 16
/* One thread's time, in ns, to pack one number of the weight, and to add one partial sum of its gradient. */
#define NN_CONV_PACK_NS 4.0
#define NN_CONV_SUM_NS 2.0

/* ---- depthwise convolution and narrow groups: `make bench-kernels ONLY=depthwise` ---- */

/* Numbers written per chunk, at most, and chunks that a result is cut into, at least; pieces of the sum of the weight's
 * gradient, at most. */
#define NN_DW_WORK 65536
#define NN_DW_PIECES 16
/* Where a group has several inputs or outputs: outputs whose source is spread out at a time, and rows of them. */
#define NN_DW_BLOCK 64
#define NN_DW_LINES 8
/* Pixels at multiples of so many bytes compete for one of the 64 sets of L1: so many of their channels are copied at a time. */
#define NN_DW_FAR 4096
#define NN_DW_FAR_BLOCK 256
/* Outputs of a chunk of the weight's gradient. */
#define NN_DW_OUTS 512

/* ---- recurrent layers: `make bench-kernels ONLY=recurrent` ---- */

/* Rows whose products with a panel of each gate wait in cache for the pointwise part: 48 x 64 x 4 floats are 48 KiB. */
#define NN_RNN_ROWS 48
/* Threads share the sequences, and never wait for each other, where W_hh takes up to so many bytes (it stays in the L2 of
 * each) and there are so many sequences for each; otherwise they share the units of every step. */
#define NN_RNN_BYTES (1 << 20)
#define NN_RNN_MIN_ROWS 4
/* What starting an operation on several threads costs, in turns of a walk: steps of less work are shared. */
#define NN_RNN_TURN 2.0

/* ---- 3x3 convolution by Winograd's F(m x m, 3x3): `python -m benchmarks.winograd` ---- */

/* Bytes of transformed tiles and products that a chunk aims at (they stay in L2 beside a panel of weights), and its
 * tiles, at least: the uses of a panel that may come from L3. */
#define NN_WINOGRAD_BYTES (384 << 10)
#define NN_WINOGRAD_MIN_TILES 48
/* How many tiles ahead Y is prefetched. */
#define NN_WINOGRAD_AHEAD 2
/* Inputs whose 9 taps are packed at a time before they are transformed (they stay in L1). */
#define NN_WINOGRAD_PACK_C 16
/* Gradient of the weight: channels and outputs of a chunk, whose sums stay in L2, and tiles of a block. */
#define NN_WINOGRAD_C 128
#define NN_WINOGRAD_K 64
#define NN_WINOGRAD_TILES 64
/* The automatic choice takes F(2x2) from so many channels in and out (per group), and where tiles that reach beyond the
 * image leave at least so many per cent of direct multiplications for one of its own (225: none does). On every
 * instruction set and both dtypes 16 channels have 1.2 to 1.4 times the speed of direct and 64 have 1.6 to 2; 8 have 0.8. */
#define NN_WINOGRAD_MIN_CHANNELS 16
#define NN_WINOGRAD_MIN_GAIN 150

/* ---- work by rows and elements: `make bench-kernels ONLY="pool bandwidth"` ----
 * A chunk is a few microseconds of work, so that claiming it costs nothing beside it, on data that stay in L1 or L2. */

/* Bytes from which a result is written past the cache. In a 32 MiB L3 such a one of 24 MiB takes 0.7 of the time, and 0.85
 * together with the next operation, which must fetch it; one of 16 MiB takes 0.9 and 1.1. Where what is read should stay (for a
 * second pass), or comes from all over a table, half as many do: 0.55 and 0.4 for 16 MiB. */
#define NN_STREAM_BYTES ((int64_t)24 << 20)
/* Bytes from which what is read is prefetched, as it is not in L2; and how far ahead, in elements. */
#define NN_FAR_BYTES ((int64_t)1 << 20)
#define NN_AHEAD (4096 / (int64_t)sizeof(real))

/* How far ahead pooling prefetches what it reads, in elements. */
#define NN_POOL_AHEAD (4096 / (int)sizeof(real))

/* Elements per chunk of elementwise work, and per staging buffer (stays in L1). */
#define NN_EWISE_CHUNK 16384
#define NN_STAGE_BUF 256
/* Elements of a row of a chain; whole blocks of sums. */
#define NN_CHAIN_ROW (4096 / (int64_t)sizeof(real))
/* Rows that a copy takes at a time: where it transposes, they stay in L1. */
#define NN_CAST_ROWS ((int64_t)64)
/* Numbers of the result per chunk of pooling; numbers of the rows of a chunk of softmax and cross-entropy. */
#define NN_POOL_CHUNK 8192
#define NN_ROWS_CHUNK 8192
/* One thread's time for such rows, in ns: per byte, and per row. */
#define NN_ROWS_NS_PER_BYTE 0.125
#define NN_ROWS_NS 10.0
/* Sums along rows: the block added in vectors, and the piece that is one chunk; across rows: rows of a block and of a
 * piece, and the vectors of columns in a chunk: half of them where there would be fewer than NN_SUM_FEW chunks of whole rows. */
#define NN_SUM_BLOCK 512
#define NN_SUM_PIECE 65536
#define NN_SUM_ROWS 64
#define NN_SUM_ROW_PIECE 4096
#define NN_SUM_COLUMNS 64
#define NN_SUM_FEW 4
/* How far ahead a gather or scatter fetches rows, in bytes of rows. */
#define NN_GATHER_AHEAD ((int64_t)16 << 10)
/* Columns that one chunk of a scatter writes, for all indices. */
#define NN_GATHER_COLUMNS 1024
/* Numbers of a line that interpolation adds up at a time (they stay in L1). */
#define NN_RESAMPLE_ROW 4096
/* Numbers of the result per chunk of affine resampling; one thread's time per number, in ns: estimates, not measured. */
#define NN_AFFINE_CHUNK 4096
#define NN_AFFINE_NS 4.0
/* Groups of random numbers (or of dropout's decisions) per chunk; one thread's time per number, in ns. */
#define NN_RANDOM_CHUNK 256
#define NN_RANDOM_NS 0.8
#define NN_DROPOUT_NS 0.3

/* ---- normalization: `make bench-kernels ONLY=norm` ---- */

/* Elements of a piece whose moments are taken in float; its rows, at least and at most (rows of layer normalization: sums for
 * the parameters over at most NN_NORM_MIN_ROWS, and about NN_NORM_SUMS elements); columns of a task. */
#define NN_NORM_PIECE 65536
#define NN_NORM_MIN_ROWS 64
#define NN_NORM_MAX_ROWS 1024
#define NN_NORM_SUMS 32768
#define NN_NORM_COLUMNS 4096
/* Bytes of an image up to which group and instance normalization go over it twice in cache, image by image; bytes of the
 * short rows that are summed abreast. */
#define NN_NORM_LOCAL (512 << 10)
#define NN_NORM_ABREAST 4096
/* Bytes of the images that group and instance normalization otherwise go over twice before the next ones: they stay in L3. */
#define NN_NORM_NEAR ((int64_t)4 << 20)
/* Numbers per chunk of local response normalization. */
#define NN_LRN_CHUNK 8192

/* ---- threads: `make bench-system` ---- */

/* One thread's speed on data in its caches, from which the threads of an operation follow: ns = bytes / NN_GBPS,
 * flops / NN_GFLOPS. Work in memory takes longer and is far beyond the thresholds. */
#define NN_GBPS 70.0
#define NN_GFLOPS (6.25 * (double)LANES)

/* Work in ns from which a second thread pays: when the team is awake, and when it must be woken. */
#define NN_PARALLEL_AWAKE_NS 5000.0
#define NN_PARALLEL_ASLEEP_NS 80000.0
/* The same, awake, where trying out has shown that sharing pays (nn_trial): of work that takes so long at most when shared, it
 * must save this part of the time, and is tried again after so many runs, at first and at most. */
#define NN_PARALLEL_TRIED_NS 1000.0
#define NN_TRIAL_MAX_NS 3000000
#define NN_TRIAL_GAIN 0.05
#define NN_TRIAL_PAUSE 500
#define NN_TRIAL_PAUSE_MAX 16000
/* Work that a thread claims at a time, where chunks are smaller. */
#define NN_CLAIM_NS 1000.0
/* A wait this much longer than two chunks take is a stall. Unless so many times its length was shared before it, the
 * caller then works alone for as many, and twice as long each time, at most NN_ALONE_MAX_NS. */
#define NN_STALL_NS 100000
#define NN_STALL_FACTOR 4
#define NN_ALONE_MAX_NS 1000000000
/* Chunks per thread, at least, of products and convolutions: a thread that comes late finds less to do. */
#define NN_CHUNKS_PER_THREAD 4
/* How long an idle thread spins before it sleeps, and the spins between two looks at the clock. */
#define NN_SPIN_NS 100000
#define NN_SPINS_PER_LOOK 64
/* Spins of a caller that waits for the last chunks, before it yields its core. */
#define NN_SPINS_BEFORE_YIELD 1000
/* Spins of a member of turns that waits for another to begin its chunk, before it does it itself. */
#define NN_SPINS_BEFORE_HELP 40

/* ---- memory: `make bench-steps` ---- */

/* Small blocks are carved from slabs; at least this much of what was freed is kept for reuse. */
#define NN_SLAB_BYTES ((size_t)8 << 20)
#define NN_KEEP_BYTES ((int64_t)256 << 20)
/* Blocks within a slab from this size on can give their pages back. */
#define NN_PAGES_BYTES ((size_t)64 << 10)
/* Large blocks start at a line (64 bytes) of a 4 KiB page that moves on by NN_SKEW_STEP from block to block; the two
 * are coprime, so that neighbours in time are far apart. */
#define NN_SKEW_LINES 61
#define NN_SKEW_STEP 23

#endif
