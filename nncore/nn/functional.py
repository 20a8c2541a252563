"""Operations under the names of torch.nn.functional. Arrays or Tensors in, Tensors out.

    relu, sigmoid, tanh, heaviside, leaky_relu, prelu, rrelu, relu6, elu, celu, selu, gelu, silu, mish, softplus,
    softsign, hardsigmoid, hardtanh, hardswish, logsigmoid, tanhshrink, softshrink, hardshrink, threshold(input, ...)
                                                 elementwise
    glu(input, dim=-1)                           first half * sigmoid(second half)
    maxout(input, pieces, dim=1)                 the largest of each `pieces` neighbours
    softmax(input, dim=-1)                       e^x / sum e^x along dim
    softmin(input, dim=-1)                       softmax(-x)
    log_softmax(input, dim=-1)                   x - log sum e^x along dim
    dropout(input, p=0.5, training=True)         zeroes with probability p, scales the rest by 1 / (1 - p)
    flatten(input, start_dim=0, end_dim=-1)      axes joined
    dropout1d, 2d, 3d(input, p=0.5, training=True)  zeroes whole channels
    alpha_dropout, feature_alpha_dropout(input, p=0.5, training=False)  keeps mean and variance of SELU networks
    gaussian_noise(input, std=0.1, training=True)  adds normal noise
    pixel_shuffle, pixel_unshuffle(input, factor)  channels as pixels, and back
    bilinear(input1, input2, weight, bias=None)  x1^T W_o x2 + b_o
    cosine_similarity(x1, x2, dim=1, eps=1e-8), pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False)
    linear(input, weight, bias=None)             x [*, I], weight [O, I], bias [O]: x weight^T + bias, [*, O]
    conv1d, conv2d, conv3d(input, weight, bias, stride, padding, dilation, groups)
    conv_transpose1d, 2d, 3d(input, weight, bias, stride, padding, output_padding, groups, dilation)
    max_pool1d, 2d, 3d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    avg_pool1d, 2d, 3d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    adaptive_avg_pool1d, 2d, 3d and adaptive_max_pool1d, 2d, 3d(input, output_size)
    batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    group_norm(input, num_groups, weight, bias, eps)
    layer_norm(input, normalized_shape, weight, bias, eps)  rms_norm(input, normalized_shape, weight, eps)
    local_response_norm(input, size, alpha, beta, k)
    pad(input, pad, mode, value)                    elements added at the ends of the last axes
    interpolate(input, size, scale_factor, mode, ...)  images, sequences and volumes in another size
    embedding(input, weight, ...)                rows of a table;  embedding_bag: their sums, means or maxima
    one_hot(input, num_classes=-1)               a 1 at the index
    cross_entropy, nll_loss(input, target, weight=None, *, ignore_index, reduction)     of class indices
    l1_loss, mse_loss, rmse_loss, huber_loss, smooth_l1_loss, binary_cross_entropy, binary_cross_entropy_with_logits,
    kl_div, poisson_nll_loss, gaussian_nll_loss, soft_margin_loss, hinge_embedding_loss(input, target, ..., reduction)
    margin_ranking_loss, cosine_embedding_loss, triplet_margin_loss                     of pairs and triplets
    multi_margin_loss, multilabel_margin_loss, multilabel_soft_margin_loss              of classes

Each raises ValueError or TypeError, naming the argument, for shapes, dtypes and values it cannot take.

>>> import nncore
>>> relu(nncore.tensor([-1.0, 1.0])).tolist()
[0.0, 1.0]
"""

from nncore._ops.activation import (
    celu,
    dropout,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    heaviside,
    leaky_relu,
    log_softmax,
    logsigmoid,
    maxout,
    mish,
    prelu,
    relu6,
    rrelu,
    selu,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from nncore._ops.arithmetic import relu, sigmoid, tanh
from nncore._ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from nncore._ops.distance import cosine_similarity, pairwise_distance
from nncore._ops.dropout import alpha_dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout, gaussian_noise
from nncore._ops.embedding import embedding, embedding_bag, one_hot
from nncore._ops.linear import bilinear, linear
from nncore._ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
    poisson_nll_loss,
    rmse_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from nncore._ops.norm import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, rms_norm
from nncore._ops.pad import pad
from nncore._ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from nncore._ops.resample import interpolate
from nncore._ops.shape import flatten, pixel_shuffle, pixel_unshuffle

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "embedding_bag",
    "feature_alpha_dropout",
    "flatten",
    "gaussian_nll_loss",
    "gaussian_noise",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "heaviside",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "maxout",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rmse_loss",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
]
