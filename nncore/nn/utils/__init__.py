"""Helpers around modules and their parameters, with torch.nn.utils' names. `rnn`: sequences of different lengths."""

from nncore.nn.utils import rnn
from nncore.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_, get_total_norm
from nncore.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from nncore.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from nncore.nn.utils.regularization import l1_penalty, max_norm_
from nncore.nn.utils.reparameterize import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "get_total_norm",
    "l1_penalty",
    "max_norm_",
    "parameters_to_vector",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]
