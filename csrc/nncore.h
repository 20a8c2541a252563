/* The C interface: what the Cython modules call. A kernel is a function of one argument struct, without
 * allocation and without hidden state, so a call is data: {kernel number, dtype, args}.
 *
 * Sizes and strides are int64_t counted in elements. Pointers to data are const void * here and take their
 * type from the dtype of the call. Outputs never overlap inputs unless an args struct says they may.
 */
#ifndef NNCORE_H
#define NNCORE_H

#include <stddef.h>
#include <stdint.h>

enum { NN_MAX_DIMS = 8 };
enum { NN_FLOAT32 = 0, NN_FLOAT64 = 1, NN_INT64 = 2, NN_BOOL = 3, NN_INT32 = 4 }; /* int32: within kernels */

/* ---- arguments ---- */

/* Applied to each C once its sum over K is complete, while it is in registers or L1:
 *     C + bias;  (C - mean) rstd weight + shift, as batch normalization with fixed statistics;  then n elementwise
 * operations in turn, C = op(C, other; s, t). Vectors are added along rows; `other` is laid out as the whole result, which
 * begins at `of`, and neither overlaps. NULL: none (of weight: 1; of shift: 0).
 * moments: of the columns of the whole result, which is dense, for the batch normalization that reads it: nn_norm_args of
 * the same name. Of conv, winograd and depthwise. */
enum { NN_MAX_THEN = 3 };
typedef struct {
    const void *bias, *mean, *rstd, *weight, *shift; /* [N] */
    int n;
    struct {
        int op;
        double s, t;
        const void *other;
    } then[NN_MAX_THEN];
    const void *of;
    void *moments;
} nn_epilogue;

/* C[M,N] = epilogue((beta ? C : 0) + A[M,K] B[K,N]), for each of `batch` matrices.
 * A(i,k) = A[i*rsA + k*csA], B likewise: transposition is a choice of strides, one of the two being 1.
 * Every C(i,j) is one FMA chain over k = 0..K-1, whatever the blocking, so it does not depend on M, N,
 * the number of threads, or on whether B came packed. */
typedef struct {
    int64_t M, N, K;
    const void *A;
    int64_t rsA, csA;
    const void *B;
    int64_t rsB, csB;
    const void *packed; /* B as written by gemm_pack, or NULL; then B is not read */
    void *C;
    int64_t ldC;
    int beta;
    nn_epilogue epilogue;
    int64_t batch, bsA, bsB, bsC; /* bsB is ignored when packed */
    void *scratch;
} nn_gemm_args;

/* B[K,N] -> panels of NR columns, each [K][NR], the last one zero-padded.
 * `packed` holds K * roundup(N, NR) elements: nn_gemm_nr(dtype) gives NR. */
typedef struct {
    int64_t N, K;
    const void *B;
    int64_t rsB, csB;
    void *packed;
} nn_gemm_pack_args;

/* y = op(x[0], x[1], x[2]; s, t) over an n-dimensional index space; a stride of 0 broadcasts.
 * With `sum`, y is one number: scale times the sum of op over all elements, in an order fixed by the shape.
 * y may be the same array as an operand with equal strides. */
typedef struct {
    int op, ndim, sum;
    int64_t shape[NN_MAX_DIMS];
    void *y;
    int64_t ys[NN_MAX_DIMS];
    const void *x[3];
    int64_t xs[3][NN_MAX_DIMS];
    double s, t, scale;
    void *scratch;
} nn_ewise_args;

/* Operations of ewise in turn, all on dense arrays of n numbers in one order: a piece at a time goes through all of them, so that
 * what is between stays in L1. An operand is row[k] >= 0: this row of scratch memory, which holds what an operation wrote there
 * or, if x[k] is not NULL, that one number throughout; else the array x[k]. The result is the row `to` >= 0, else the array y.
 * With `sum`, y is one number: scale times the sum of the row as by ewise, or without an operation that of x[0] as by reduce.
 * An array that is read and written is read at the place that is written. The bits are those of the operations one by one. */
enum { NN_MAX_CHAIN = 12, NN_CHAIN_ROWS = 8 };
enum { NN_LINK_SUM = 1, NN_LINK_REDUCE };
typedef struct {
    int op, sum;
    double s, t, scale;
    const void *x[3];
    void *y;
    int row[3], to;
} nn_link;
typedef struct {
    int64_t n;
    int links;
    nn_link link[NN_MAX_CHAIN];
    void *scratch;
} nn_chain_args;

/* y = (type of y) x, strided; types are any of the four, x also int32. Equal types copy bits. */
typedef struct {
    int ndim, xtype, ytype;
    int64_t shape[NN_MAX_DIMS];
    void *y;
    int64_t ys[NN_MAX_DIMS];
    const void *x;
    int64_t xs[NN_MAX_DIMS];
} nn_cast_args;

/* y[outer, inner] = scale * op over n of x[outer, n, inner]. NN_MAX and NN_MIN also give the index of the
 * first extreme (or first NaN) when index is not NULL. Sums are pairwise over blocks fixed by n. */
enum { NN_SUM, NN_MAX, NN_MIN };
typedef struct {
    int op;
    int64_t outer, n, inner;
    const void *x;
    void *y;
    int64_t *index;
    double scale;
    void *scratch;
} nn_reduce_args;

/* Rows of n: y = softmax(x), or log softmax with `log`. Backward: dx from y and dy. */
typedef struct {
    int log;
    int64_t rows, n;
    const void *x; /* forward */
    void *y;       /* forward: out; backward: in */
    const void *dy;
    void *dx;
} nn_softmax_args;

/* loss = scale sum_i loss_i, or with `total` that over sum_i w[t_i], which is written there:
 *     loss_i = (1 - smoothing) w[t_i] l_i,t_i + smoothing / n sum_j w[j] l_ij,  l_ij = lse_i - x_ij
 * and 0 where t_i < 0: a row to be left out. w is 1 without `weight`. With `log_probs` l_ij = -x_ij (smoothing is 0).
 * lse[rows, 2] is kept for backward as two numbers, the row's maximum and the log of the sum of e^(x - maximum).
 * per_row, if not NULL, gets each row's loss.
 * backward: dx from dy, which is [rows] (dy_stride 1) or one number (dy_stride 0). */
typedef struct {
    int64_t rows, n;
    const void *x;
    const int64_t *target;
    const void *weight; /* [n] or NULL */
    double smoothing;
    int log_probs;
    void *lse, *loss, *per_row, *total;
    const void *dy;
    int64_t dy_stride;
    void *dx;
    double scale;
    void *scratch;
} nn_cross_entropy_args;

/* gather: y[i, :] = x[index[i], :] for i < n, rows of `inner`. scatter: x[index[i], :] = y[i, :]. scatter_add:
 * x[index[i], :] += y[i, :], in the order of i. Indices are within the rows of x: the caller has checked. Those
 * below 0 give 0, and write nothing. */
typedef struct {
    int64_t n, inner;
    void *x;
    const int64_t *index;
    void *y;
} nn_gather_args;

/* y = x, with size added to those in [-size, 0) if `wrap`, and -1 for those equal to `ignored` if `ignore`. Others must be in [0, size): they
 * give 0, and *bad is the position of the first such, or -1. With `after`, size after[i] is added to y[i]. */
typedef struct {
    int64_t n, size, ignored;
    int wrap, ignore;
    const int64_t *x, *after;
    int64_t *y, *bad;
} nn_index_args;

/* y[i, j] = i n + index[i, j], flat positions in a matrix [rows, n] of the columns that index [rows, width] lists; -1 from the
 * first negative one of a row on. */
typedef struct {
    int64_t rows, width, n;
    const int64_t *index;
    int64_t *y;
} nn_places_args;

/* Bags of rows: y[b, :] = sum (or the largest, elementwise) over from[b] <= i < from[b + 1] of w[i] x[index[i], :],
 * without the i whose index[i] < 0; w is 1 without `weight`. An empty bag gives 0. With `count`, it gets the number of rows of
 * each bag, and y is divided by it. max: `where` gets the flat position in x of each largest element (the first, or a
 * NaN), or -1. */
typedef struct {
    int max;
    int64_t bags, inner;
    const void *x, *weight;
    const int64_t *index, *from;
    void *y, *count;
    int64_t *where;
} nn_bag_args;

/* Philox4x32-7. Element i of a call depends on (seed, stream, i) alone. */
enum { NN_UNIFORM, NN_NORMAL };
typedef struct {
    int dist; /* uniform on [a, b); normal of mean a and deviation b */
    int64_t n;
    void *y;
    double a, b;
    uint64_t seed, stream;
} nn_random_args;

/* y = x * (keep(i) ? scale : 0), P(keep) = 1 - threshold / 65536; the mask is recomputed, never stored. */
typedef struct {
    int64_t n;
    const void *x;
    void *y;
    double scale;
    uint32_t threshold;
    uint64_t seed, stream;
} nn_dropout_args;

/* One fused pass over a list of parameters; which states there are: optim.def. */
enum { NN_MAX_STATES = 13 };
typedef struct {
    void *p;
    const void *g;          /* NULL: updated without a gradient */
    void *s[NN_MAX_STATES]; /* NULL: not there */
    const double *norm;     /* adasecant: squared norm of g; clip_norm: norm of all arrays */
    int64_t n;
} nn_chunk;

typedef struct {
    const nn_chunk *chunks;
    int64_t n_chunks;
    double lr, weight_decay;
    int maximize;
    int decoupled;                    /* weight decay shrinks p by lr weight_decay, apart from the gradient */
    int first;                        /* the first step */
    int nesterov, correct;            /* sgd; adasecant: reduce the variance of g */
    double momentum, dampening;       /* sgd, rmsprop */
    double beta1, beta2, eps;         /* decays of means of g and of g^2 */
    double bias1, bias2;              /* 1 - beta^t */
    double along_g, along_m;          /* nadam: steps along the gradient and its mean */
    double rectify;                   /* radam: r_t, or 0 while the variance is intractable */
    double grow, shrink, least, most; /* rprop: factors and bounds of the step; clip: most */
    double lambd, mu;                 /* asgd: decay, 1 / (steps averaged) */
    double gamma_clip, delta_clip;    /* adasecant; infinite: no bound */
} nn_optim_args;

/* sums[k] = sum of |x|^p over chunks[k].p, or its largest |x| for p = inf */
typedef struct {
    const nn_chunk *chunks;
    int64_t n_chunks;
    double p;
    double *sums;
    void *scratch;
} nn_norms_args;

/* Convolution over channels-last data [N][d][h][w][channel]: at each point g of a grid,
 *     y[ostep g + obase, :] = epilogue(sum over taps t of x[step g + tap_t, :] W_t)
 * x is 0 outside of its extents. C channels are read and K written per group; ldx and ldy are the channels of all
 * groups, the steps from pixel to pixel. Taps are in ascending order; W is packed by conv_pack with the same list, or with a
 * longer one of which it is a part: panels of outputs are `panel` numbers apart.
 * Forward: step = stride, tap = kernel index * dilation - padding. Gradient for the input: see the bindings.
 * conv_scatter, the gradient for an input of few channels (groups 1; grid, ostep, obase unused; taps along w in runs without
 * gaps, W as [C][n_taps][K]): y = epilogue(sum over points g of x and taps of x[g, :] W_t at step g + tap_t). */
typedef struct {
    int64_t N, C, K, groups, ldx, ldy;
    int64_t in[3], grid[3], step[3];
    int64_t out[3], ostep[3], obase[3];
    int64_t n_taps;
    const int64_t *taps; /* [n_taps][3] */
    const void *x, *packed;
    int64_t panel;
    void *y;
    nn_epilogue epilogue; /* of groups * K columns */
    void *scratch;
} nn_conv_args;

/* w, with strides for the channel that is summed over (in) and the one that is written (out), and all_taps contiguous taps,
 * -> panels [group][out / NR][n_taps][in][NR]; position[t] is where tap t stands in the list, or -1: not in it. */
typedef struct {
    int64_t groups, in, out, in_stride, out_stride, group_stride, all_taps, n_taps;
    const int64_t *position;
    const void *w;
    void *packed;
} nn_conv_pack_args;

/* dw[groups * K, C, n_taps] = sum over images and points g of dy[g, k] x[stride g + tap_t, c]. */
typedef struct {
    int64_t N, C, K, groups, ldx, ldy;
    int64_t in[3], out[3], stride[3];
    int64_t n_taps;
    const int64_t *taps;
    const void *x, *dy;
    void *dw;
    void *scratch;
} nn_conv_weight_args;

/* 3x3 convolution with stride 1, two spatial axes, by Winograd's F(m x m, 3x3), m = 2 or 4: with channels as above,
 *     y[h, w, :] = epilogue(sum over r, s < 3 of x[h + r + offset_0, w + s + offset_1, :] W_rs)
 * W is packed by winograd_pack. winograd_weight: dw[groups * K, C, 3, 3], the gradient, from x and dy. */
typedef struct {
    int m;
    int64_t N, C, K, groups, ldx, ldy;
    int64_t in[2], out[2], offset[2];
    const void *x, *packed;
    void *y;
    nn_epilogue epilogue;
    const void *dy; /* winograd_weight: in place of packed, y, epilogue */
    void *dw;
    void *scratch;
} nn_winograd_args;

/* w [groups * K, C, 3, 3], transformed -> panels [group][K / NR][(m + 2)^2 points][C][NR]; turned, for the gradient for
 * the input: the taps from last to first, and K and C exchanged. */
typedef struct {
    int m, turned;
    int64_t groups, C, K;
    const void *w;
    void *scratch;
    void *packed;
} nn_winograd_pack_args;

/* Convolution over channels-last data with narrow groups, C channels read and K written in each; w, as depthwise_pack writes
 * it, is [kernel][C][groups * K].
 *     y[g, k] = epilogue(sum over taps t and c of x[stride g + dilation t - padding, c] w[t, c, k])
 * x being 0 outside of its extents. transposed: the gradient for x of a convolution with these strides; x is dy then, y dx:
 *     y[g, k] = sum over t, c and those p with stride p + dilation t - padding = g of x[p, c] w[t, c, k]
 * depthwise_weight (not transposed): dw[t, c, k] = sum over images and g of dy[g, k] x[stride g + dilation t - padding, c].
 * depthwise_pack takes all taps; it has no use for `position`. */
typedef struct {
    int transposed;
    int64_t N, C, K, groups;
    int64_t in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
    const void *x, *packed;
    void *y;
    nn_epilogue epilogue; /* of groups * K columns */
    const void *dy;       /* depthwise_weight: in place of packed, y, epilogue */
    void *dw;
    void *scratch;
} nn_depthwise_args;

/* Pooling over channels-last data. Along axis d, the window of output o is the elements start[d][o] + i step[d],
 * i < count[d][o], all within the image. max: largest element, and with `index` where it stood (flat position in the image);
 * else scale[o] times the sum of the window, o flat over the outputs. backward: dx from dy, and from index if max; the
 * windows that hold element i along axis d are cover[d][k], cover_at[d][i] <= k < cover_at[d][i + 1], ascending. */
typedef struct {
    int max;
    int64_t N, C;
    int64_t in[3], out[3], step[3];
    const int64_t *start[3], *count[3], *cover_at[3], *cover[3];
    const double *scale;
    const void *x;
    void *y;
    int32_t *index;
    const void *dy;
    void *dx;
} nn_pool_args;

/* y = 0 */
typedef struct {
    int64_t bytes;
    void *y;
} nn_zero_args;

/* A recurrent layer in one direction, over `steps` steps of sizes[t] rows each (falling: the sequences still running,
 * longest first); arrays over all steps hold the rows of one step after the other. G gates: 1, 4 (i f g o), 3 (r z n).
 * Forward: gates holds x W_ih^T + b_ih; with h the state before, and W_hh, b_hh in the order of the gates,
 *     RNN    h' = act(gates + W_hh h + b_hh)
 *     LSTM   i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')
 *     GRU    r, z = sigmoid(...), n = tanh(gates_n + r (W_hn h + b_hn));  h' = (1 - z) n + z h
 * keep: what backward needs is left in gates (activated; not RNN), c and hidden; else gates is read only.
 * Backward, if dgates is not NULL: from dy, dhn and dcn (NULL: zeros) the gradients of the gates as they came from x
 * (dgates) and from h (drecurrent: another array for GRU, dgates itself else), the states before each step (hprev),
 * and the gradients of the initial states (or NULL). Then dW_ih = dgates^T x, dW_hh = drecurrent^T hprev, dx = dgates W_ih. */
enum { NN_RNN_TANH, NN_RNN_RELU, NN_LSTM, NN_GRU };
typedef struct {
    int cell, reverse, keep;
    int64_t steps, H, ldy;
    const int64_t *sizes;
    void *gates;         /* [rows, G H] */
    const void *packed;  /* forward: W_hh^T of each gate [H, H] as by gemm_pack, in turn; backward: W_hh [G H, H] */
    const void *bias;    /* b_hh [G H], or NULL */
    const void *h0, *c0; /* [sizes[0], H], or NULL: zeros; so are the other states */
    void *y;             /* [rows, ldy]: h */
    void *c;             /* LSTM, keep: [rows, H] */
    void *hidden;        /* GRU, keep: W_hn h + b_hn [rows, H] */
    void *hn, *cn;       /* the last states of each sequence; cn: LSTM */
    const void *dy, *dhn, *dcn;
    void *dgates, *drecurrent, *hprev, *dh0, *dc0;
    void *scratch;
} nn_rnn_args;

/* Normalization of x [N][P][C] over groups: (n, g) is P points times C / G channels, each with one mean and one
 * rstd = 1 / sqrt(variance + eps): y = (x - mean) rstd weight + bias; then + add, laid out as y, if not NULL; then the ReLU of
 * that with `relu`. Batch norm: N = 1, G = C. Instance norm: G = C.
 * Layer norm: P = 1, G = 1. rms (with P = 1): no mean, rstd = 1 / sqrt(mean of x^2 + eps).
 * fixed (N = 1, G = C): the statistics are running_mean and running_var. Otherwise these, if not NULL (G = C, P > 1), become
 * (1 - momentum) old + momentum new, new being the mean over images of mean and unbiased variance; batches, if not NULL, is
 * counted up first, and momentum < 0 stands for 1 / batches.
 * moments, if not NULL (N = 1, G = C, P > 1, not fixed): memory as large as the scratch, in which the kernel that made x has
 * left the moments of its pieces, so that only y is left to do; `scratch` is not used.
 * backward reads x, weight, mean, rstd and dy, and with `relu` (of a forward without `add`) bias, from which it computes again
 * where y is 0. */
typedef struct {
    int64_t N, P, C, G;
    int rms, fixed, relu;
    double eps;
    const void *x, *weight, *bias; /* weight, bias: [C] or NULL */
    const void *add;
    void *mean, *rstd; /* [N, G]: forward: out; backward: in. No mean if rms */
    void *y;
    void *running_mean, *running_var; /* [C] */
    int64_t *batches;
    double momentum;
    const void *dy;
    void *dx, *dweight, *dbias; /* NULL: not wanted */
    void *moments;
    void *scratch;
} nn_norm_args;

/* Local response normalization along rows of C channels: y = x (k + alpha / size * sum of x^2)^-beta, the sum over the
 * channels c - size / 2 .. c + (size - 1) / 2. dy not NULL: dx instead of y. */
typedef struct {
    int64_t rows, C, size;
    double alpha, beta, k;
    const void *x;
    void *y;
    const void *dy;
    void *dx;
    void *scratch;
} nn_lrn_args;

/* Padding: y[o] = x[i], i[d] = from[d][o[d]], or value where one of them is -1. After the last axis, `inner` numbers stay
 * together; its table is given as runs {first output, first input or -1, length}. Elements are moved, not computed with, so
 * int64 passes as float64. backward: y is dx, x is dy, and the outputs made from input i of axis d (not the last) are into[d][k],
 * into_at[d][i] <= k < into_at[d][i + 1], ascending. */
typedef struct {
    int ndim;
    int64_t in[NN_MAX_DIMS], out[NN_MAX_DIMS], inner, runs;
    const int64_t *from[NN_MAX_DIMS], *into_at[NN_MAX_DIMS], *into[NN_MAX_DIMS], *run;
    int64_t value; /* the bits of a number of the dtype, in its first bytes */
    const void *x;
    void *y;
} nn_pad_args;

/* Interpolation over channels-last data: with i, j, k over at[d][o_d] <= i < at[d][o_d + 1], d = 0, 1, 2,
 *     y[o, :] = sum over i, j, k of weight[0][i] weight[1][j] weight[2][k] x[from[0][i], from[1][j], from[2][k], :] */
typedef struct {
    int64_t N, C;
    int64_t in[3], out[3];
    const int64_t *at[3], *from[3];
    const double *weight[3];
    const void *x;
    void *y;
    void *scratch;
} nn_resample_args;

/* Images x [N][planes][h][w][inner], resampled: y[n, p, r, c] is x[n, p] at the position m[n] (r, c, 1)^T, rows and columns
 * counted from the middles of y and x, bilinear between the four pixels around it. Those outside are `value`, or, with edge,
 * the position is moved to the nearest of the image. hole[n], if not NULL: the rows and columns [top, bottom, left, right)
 * of y that are `value`. */
typedef struct {
    int edge;
    int64_t N, planes, inner, in[2], out[2];
    const double *matrix; /* [N][2][3] */
    const int64_t *hole;  /* [N][4] or NULL */
    double value;
    const void *x;
    void *y;
} nn_affine_args;

/* Measures the machine: FLOP/s of independent FMAs in registers; bytes/s of y = x, read plus written. */
typedef struct {
    double seconds;
    const void *x;
    void *y;
    int64_t n;
    double *result;
} nn_probe_args;

/* ---- the table ---- */

enum {
#define NN_KERNEL(name, args) NN_K_##name,
#define NN_KERNEL_S(name, args) NN_K_##name,
#include "kernels.def"
    NN_N_KERNELS
};
enum {
#define NN_OP(name, arity, formula) NN_OP_##name,
#include "ops.def"
    NN_N_OPS
};

typedef void (*nn_kernel)(const void *args);
typedef size_t (*nn_scratch_fn)(const void *args);
typedef struct {
    nn_kernel kernel[NN_N_KERNELS];
    nn_scratch_fn scratch[NN_N_KERNELS]; /* NULL: needs none */
    int64_t gemm_nr;
    int64_t lanes;
} nn_table;

extern const char *const nn_kernel_names[NN_N_KERNELS];
extern const char *const nn_op_names[NN_N_OPS];
extern const int nn_op_arity[NN_N_OPS];

extern const size_t nn_args_size[NN_N_KERNELS];
extern const size_t nn_scratch_field[NN_N_KERNELS]; /* where `scratch` stands in the args of those that need it */

/* Denormals flushed, rounding to nearest, no traps; leave restores what enter found. */
unsigned nn_float_enter(void);
void nn_float_leave(unsigned state);
/* Runs a kernel in that state. */
void nn_run(int kernel, int dtype, const void *args);
size_t nn_scratch(int kernel, int dtype, const void *args);

/* A recorded call, and many of them one after the other. `ns`, if not NULL, gets n + 1 times: when each call began and
 * when the last one ended. The caller holds the team: the scratch memory is for so many threads. */
typedef struct {
    int kernel, dtype;
    void *args;
} nn_call;
void nn_replay(const nn_call *calls, int64_t n, int64_t *ns);
int64_t nn_clock(void); /* nanoseconds */
int64_t nn_gemm_nr(int dtype);
int64_t nn_lanes(int dtype);

/* ---- ISA (cpu.c) ---- */
int nn_isa_count(void);           /* compiled in, lowest first */
const char *nn_isa_name(int isa); /* "baseline", "avx2", "avx512" */
int nn_isa_supported(int isa);    /* by this CPU and operating system */
int nn_isa_current(void);
int nn_isa_set(int isa); /* 0, or -1 if not supported */

/* ---- memory (memory.c): 64-byte aligned, cached by size class; never NULL except when memory is out ---- */
void *nn_alloc(size_t bytes);
void nn_free(void *p, size_t bytes); /* bytes as given to nn_alloc */
void nn_empty_cache(void);
void nn_memory_stats(int64_t *in_use, int64_t *peak, int64_t *cached);
void nn_memory_reset_peak(void);

/* ---- threads (threads.c) ---- */
typedef void (*nn_task)(const void *ctx, int64_t chunk, int tid);
/* task(ctx, 0..chunks-1), each once, by up to as many threads as `nanoseconds` of one thread's work deserve.
 * tid < nn_team_max(). Returns when the chunks are done. */
void nn_parallel(nn_task task, const void *ctx, int64_t chunks, double nanoseconds);
int nn_team_for(double nanoseconds); /* threads for so much work: what cutting it into chunks may go by */
int nn_team_max(void);               /* an upper bound for the next nn_parallel on this thread */
void nn_hold_team(int hold);         /* fixes that bound for this thread (scratch is measured by it), or lets go */
/* Turns: work whose parts follow one another, within the tasks of one nn_parallel. Each of its n tasks is a member: it takes
 * all turns in their order, the same for all of them, and nn_turn returns when the chunks of a turn are done, whoever did
 * them. A member takes first its own part of the chunks, the same at every turn as far as they allow, then what others have
 * left who are not there: one that comes late, or never, is waited for by nobody. */
enum { NN_MEMBER_BYTES = 128 };
typedef struct {
    void *members; /* n NN_MEMBER_BYTES at a multiple of 64; zeros at first, as are the last three here */
    int64_t n, self;
    int64_t turn, total, done; /* chunks: of all turns so far; done by this member */
} nn_turns;
void nn_turn(nn_turns *turns, nn_task task, const void *ctx, int64_t chunks, int tid);
void nn_set_num_threads(int n);
int nn_get_num_threads(void);
/* Whether sharing pays for work that is done again and again, such as a plan of many small kernels: what it costs depends on
 * how far apart the cores are and on what else the machine does, so now and then some runs are timed in both ways. */
enum { NN_TRIAL_RUNS = 8 };
typedef struct {
    int64_t left, pause;              /* runs until the next trial; from trial to trial */
    int64_t start, ns[NN_TRIAL_RUNS]; /* of a run; of those in one way, ascending */
    int64_t shared_ns;                /* their median when shared */
    int trying, alone, shared;        /* runs of this trial to come; what the last one found, if it came to its end */
    int threads;                      /* with which */
} nn_trial;
void nn_trial_begin(nn_trial *t); /* before and after a run, on one thread */
void nn_trial_end(nn_trial *t);
void nn_follow_affinity(void); /* unless somebody has set a number: the CPUs that this process now has */
int nn_cgroup_cpus(const char *root, const char *membership); /* CPUs that its quota allows; 0: no limit */
void nn_set_parallel_threshold(double nanoseconds);           /* < 0: the tuned default. 0 also makes every thread */
double nn_get_parallel_threshold(void);                       /* of the team wait for the others: for tests */
int nn_threads_used(int reset);              /* distinct threads that ran a chunk since the last reset */
void nn_running(int kernel);                 /* on this thread, from now on; -1: none */
int nn_threads_deserved(void);               /* by the work of the kernel that ran last on this thread */
int nn_kernel_shared(int kernel, int reset); /* whether it ran on several threads at a threshold of 0 */

#endif
