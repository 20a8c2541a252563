/* Every kernel, compiled once per ISA and dtype: setup.py sets NN_SUFFIX (avx2_f32, ...), NN_F64 and the ISA's
 * macro and flags. All functions are static; only the table leaves this file, so that no copy compiled for one
 * ISA can stand in for another's. */
#include "nncore.h"
#include "tuning.h"
#include "vec.h"

#include <stdatomic.h>

#include "kernels/vmath.inc"
#include "kernels/stream.inc"
#include "kernels/epilogue.inc"
#include "kernels/gemm.inc"
#include "kernels/conv_window.inc"
#include "kernels/conv_few.inc"
#include "kernels/conv.inc"
#include "kernels/conv_scatter.inc"
#include "kernels/conv_weight_few.inc"
#include "kernels/conv_weight.inc"
#include "kernels/winograd.inc"
#include "kernels/depthwise.inc"
#include "kernels/pool.inc"
#include "kernels/resample.inc"
#include "kernels/rnn.inc"
#include "kernels/elementwise.inc"
#include "kernels/pad.inc"
#include "kernels/affine.inc"
#include "kernels/reduce.inc"
#include "kernels/softmax.inc"
#include "kernels/norm.inc"
#include "kernels/gather.inc"
#include "kernels/random.inc"
#include "kernels/optim.inc"
#include "kernels/probe.inc"

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

const nn_table PASTE(nn_table_, NN_SUFFIX) = {
    .kernel =
        {
#define NN_KERNEL(name, args) [NN_K_##name] = k_##name,
#define NN_KERNEL_S(name, args) [NN_K_##name] = k_##name,
#include "kernels.def"
        },
    .scratch =
        {
#define NN_KERNEL(name, args)
#define NN_KERNEL_S(name, args) [NN_K_##name] = k_##name##_scratch,
#include "kernels.def"
        },
    .gemm_nr = NR_MAX,
    .lanes = LANES,
};
