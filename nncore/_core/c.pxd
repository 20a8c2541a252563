# csrc/nncore.h, as far as the bindings use it. Only runtime.pyx links the C code; other modules take the structs
# and constants from here and the functions from runtime.pxd.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "nncore.h" nogil:
    enum:
        NN_MAX_DIMS
        NN_N_KERNELS
        NN_N_OPS
        NN_FLOAT32, NN_FLOAT64, NN_INT64, NN_BOOL, NN_INT32
        NN_MAX_THEN
        NN_SUM, NN_MAX, NN_MIN
        NN_UNIFORM, NN_NORMAL
        NN_K_gemm, NN_K_gemm_pack, NN_K_conv, NN_K_conv_pack, NN_K_conv_scatter, NN_K_conv_weight, NN_K_pool, NN_K_pool_backward, NN_K_depthwise, NN_K_depthwise_pack, NN_K_depthwise_weight, NN_K_pad, NN_K_pad_backward, NN_K_resample, NN_K_affine, NN_K_ewise, NN_K_chain, NN_K_cast, NN_K_zero, NN_K_index, NN_K_reduce, NN_K_softmax, NN_K_softmax_backward, NN_RNN_TANH, NN_RNN_RELU, NN_LSTM, NN_GRU, NN_K_rnn, NN_K_winograd, NN_K_winograd_pack, NN_K_winograd_weight
        NN_K_cross_entropy, NN_K_cross_entropy_backward, NN_K_gather, NN_K_scatter_add, NN_K_scatter, NN_K_places, NN_K_bag, NN_K_random, NN_K_dropout
        NN_K_clip_norm, NN_K_clip_value, NN_K_norms, NN_K_probe_fma, NN_K_probe_copy
        NN_K_norm, NN_K_norm_backward, NN_K_lrn
        NN_OP_add, NN_OP_copy, NN_OP_fill
        NN_MAX_CHAIN, NN_CHAIN_ROWS, NN_LINK_SUM, NN_LINK_REDUCE

    # where in their arguments
    size_t RANDOM_SEED "offsetof(nn_random_args, seed)"
    size_t DROPOUT_SEED "offsetof(nn_dropout_args, seed)"
    size_t INDEX_X "offsetof(nn_index_args, x)"

    ctypedef struct nn_then "__typeof__(((nn_epilogue *)0)->then[0])":
        int op
        double s, t
        const void *other

    ctypedef struct nn_epilogue:
        const void *bias
        const void *mean
        const void *rstd
        const void *weight
        const void *shift
        int n
        nn_then then[3]
        const void *of
        void *moments

    ctypedef struct nn_call:
        int kernel, dtype
        void *args

    ctypedef struct nn_trial:
        int alone

    ctypedef struct nn_index_args:
        int64_t n, size, ignored
        int wrap, ignore
        const int64_t *x
        const int64_t *after
        int64_t *y
        int64_t *bad

    ctypedef struct nn_zero_args:
        int64_t bytes
        void *y

    ctypedef struct nn_gemm_args:
        int64_t M, N, K
        const void *A
        int64_t rsA, csA
        const void *B
        int64_t rsB, csB
        const void *packed
        void *C
        int64_t ldC
        int beta
        nn_epilogue epilogue
        int64_t batch, bsA, bsB, bsC
        void *scratch

    ctypedef struct nn_gemm_pack_args:
        int64_t N, K
        const void *B
        int64_t rsB, csB
        void *packed

    ctypedef struct nn_conv_args:
        int64_t N, C, K, groups, ldx, ldy
        int64_t extent "in"[3]
        int64_t grid[3]
        int64_t step[3]
        int64_t out[3]
        int64_t ostep[3]
        int64_t obase[3]
        int64_t n_taps
        const int64_t *taps
        const void *x
        const void *packed
        int64_t panel
        void *y
        nn_epilogue epilogue
        void *scratch

    ctypedef struct nn_conv_pack_args:
        int64_t groups
        int64_t inputs "in"
        int64_t outputs "out"
        int64_t in_stride, out_stride, group_stride, all_taps, n_taps
        const int64_t *position
        const void *w
        void *packed

    ctypedef struct nn_conv_weight_args:
        int64_t N, C, K, groups, ldx, ldy
        int64_t extent "in"[3]
        int64_t out[3]
        int64_t stride[3]
        int64_t n_taps
        const int64_t *taps
        const void *x
        const void *dy
        void *dw
        void *scratch

    ctypedef struct nn_winograd_args:
        int m
        int64_t N, C, K, groups, ldx, ldy
        int64_t extent "in"[2]
        int64_t out[2]
        int64_t offset[2]
        const void *x
        const void *packed
        void *y
        nn_epilogue epilogue
        const void *dy
        void *dw
        void *scratch

    ctypedef struct nn_winograd_pack_args:
        int m, turned
        int64_t groups, C, K
        const void *w
        void *scratch
        void *packed

    ctypedef struct nn_depthwise_args:
        int transposed
        int64_t N, C, K, groups
        int64_t extent "in"[3]
        int64_t out[3]
        int64_t kernel[3]
        int64_t stride[3]
        int64_t padding[3]
        int64_t dilation[3]
        const void *x
        const void *packed
        void *y
        nn_epilogue epilogue
        const void *dy
        void *dw
        void *scratch

    ctypedef struct nn_pool_args:
        int max
        int64_t N, C
        int64_t extent "in"[3]
        int64_t out[3]
        int64_t step[3]
        const int64_t *start[3]
        const int64_t *count[3]
        const int64_t *cover_at[3]
        const int64_t *cover[3]
        const double *scale
        const void *x
        void *y
        int32_t *index
        const void *dy
        void *dx

    ctypedef struct nn_pad_args:
        int ndim
        int64_t extent "in"[8]
        int64_t out[8]
        int64_t inner, runs
        const int64_t *from_ "from"[8]
        const int64_t *into_at[8]
        const int64_t *into[8]
        const int64_t *run
        int64_t value
        const void *x
        void *y

    ctypedef struct nn_resample_args:
        int64_t N, C
        int64_t extent "in"[3]
        int64_t out[3]
        const int64_t *at[3]
        const int64_t *from_ "from"[3]
        const double *weight[3]
        const void *x
        void *y
        void *scratch

    ctypedef struct nn_affine_args:
        int edge
        int64_t N, planes, inner
        int64_t extent "in"[2]
        int64_t out[2]
        const double *matrix
        const int64_t *hole
        double value
        const void *x
        void *y

    ctypedef struct nn_rnn_args:
        int cell, reverse, keep
        int64_t steps, H, ldy
        const int64_t *sizes
        void *gates
        const void *packed
        const void *bias
        const void *h0
        const void *c0
        void *y
        void *c
        void *hidden
        void *hn
        void *cn
        const void *dy
        const void *dhn
        const void *dcn
        void *dgates
        void *drecurrent
        void *hprev
        void *dh0
        void *dc0
        void *scratch

    ctypedef struct nn_norm_args:
        int64_t N, P, C, G
        int rms, fixed, relu
        double eps
        const void *x
        const void *weight
        const void *bias
        const void *add
        void *mean
        void *rstd
        void *y
        void *running_mean
        void *running_var
        int64_t *batches
        double momentum
        const void *dy
        void *dx
        void *dweight
        void *dbias
        void *moments
        void *scratch

    ctypedef struct nn_lrn_args:
        int64_t rows, C, size
        double alpha, beta, k
        const void *x
        void *y
        const void *dy
        void *dx
        void *scratch

    ctypedef struct nn_ewise_args:
        int op, ndim, sum
        int64_t shape[8]
        void *y
        int64_t ys[8]
        const void *x[3]
        int64_t xs[3][8]
        double s, t, scale
        void *scratch

    ctypedef struct nn_link:
        int op, sum
        double s, t, scale
        const void *x[3]
        void *y
        int row[3]
        int to

    ctypedef struct nn_chain_args:
        int64_t n
        int links
        nn_link link[12]
        void *scratch

    ctypedef struct nn_cast_args:
        int ndim, xtype, ytype
        int64_t shape[8]
        void *y
        int64_t ys[8]
        const void *x
        int64_t xs[8]

    ctypedef struct nn_reduce_args:
        int op
        int64_t outer, n, inner
        const void *x
        void *y
        int64_t *index
        double scale
        void *scratch

    ctypedef struct nn_softmax_args:
        int log
        int64_t rows, n
        const void *x
        void *y
        const void *dy
        void *dx

    ctypedef struct nn_cross_entropy_args:
        int64_t rows, n
        const void *x
        const int64_t *target
        const void *weight
        double smoothing
        int log_probs
        void *lse
        void *loss
        void *per_row
        void *total
        const void *dy
        int64_t dy_stride
        void *dx
        double scale
        void *scratch

    ctypedef struct nn_gather_args:
        int64_t n, inner
        void *x
        const int64_t *index
        void *y

    ctypedef struct nn_places_args:
        int64_t rows, width, n
        const int64_t *index
        int64_t *y

    ctypedef struct nn_bag_args:
        int max
        int64_t bags, inner
        const void *x
        const void *weight
        const int64_t *index
        const int64_t *start "from"
        void *y
        void *count
        int64_t *where

    ctypedef struct nn_random_args:
        int dist
        int64_t n
        void *y
        double a, b
        uint64_t seed, stream

    ctypedef struct nn_dropout_args:
        int64_t n
        const void *x
        void *y
        double scale
        uint32_t threshold
        uint64_t seed, stream

    enum:
        NN_MAX_STATES

    ctypedef struct nn_chunk:
        void *p
        const void *g
        void *s[13]
        const double *norm
        int64_t n

    ctypedef struct nn_optim_args:
        const nn_chunk *chunks
        int64_t n_chunks
        double lr, weight_decay
        int maximize, decoupled, first, nesterov, correct
        double momentum, dampening
        double beta1, beta2, eps
        double bias1, bias2
        double along_g, along_m
        double rectify
        double grow, shrink, least, most
        double lambd, mu
        double gamma_clip, delta_clip

    ctypedef struct nn_norms_args:
        const nn_chunk *chunks
        int64_t n_chunks
        double p
        double *sums
        void *scratch

    ctypedef struct nn_probe_args:
        double seconds
        const void *x
        void *y
        int64_t n
        double *result
