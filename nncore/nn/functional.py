"""Operations under the names of torch.nn.functional. Arrays or Tensors in, Tensors out.

    relu(input)  sigmoid(input)  tanh(input)     elementwise
    softmax(input, dim=-1)                       e^x / sum e^x along dim
    log_softmax(input, dim=-1)                   x - log sum e^x along dim
    dropout(input, p=0.5, training=True)         zeroes with probability p, scales the rest by 1 / (1 - p)
    flatten(input, start_dim=0, end_dim=-1)      axes joined
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
    cross_entropy(input, target, *, reduction)      -log softmax(input)[target], from logits
    nll_loss(input, target, *, reduction)           -input[target]
    mse_loss(input, target, *, reduction)           (input - target)^2

Each raises ValueError or TypeError, naming the argument, for shapes, dtypes and values it cannot take.

>>> import nncore
>>> relu(nncore.tensor([-1.0, 1.0])).tolist()
[0.0, 1.0]
"""

from nncore._ops.activation import dropout, log_softmax, softmax
from nncore._ops.arithmetic import relu, sigmoid, tanh
from nncore._ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from nncore._ops.linear import linear
from nncore._ops.loss import cross_entropy, mse_loss, nll_loss
from nncore._ops.norm import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, rms_norm
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
from nncore._ops.shape import flatten

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "flatten",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mse_loss",
    "nll_loss",
    "relu",
    "rms_norm",
    "sigmoid",
    "softmax",
    "tanh",
]
