"""Batch normalization folded into the layer before it: for inference, where it is a linear map per channel."""

import copy

from nncore._grad import no_grad
from nncore.nn.conv import _ConvNd
from nncore.nn.linear import Linear
from nncore.nn.norm import _BatchNorm
from nncore.nn.parameter import Parameter

__all__ = ["fuse_conv_bn_eval", "fuse_linear_bn_eval"]


def _fuse(layer, name, kind, bn, out, axis):
    """A copy of the layer with weight and bias scaled along the axis of its outputs."""
    for module, what, expected in ((layer, name, kind), (bn, "bn", _BatchNorm)):
        if not isinstance(module, expected):
            raise TypeError(f"{what}: expected a {expected.__name__.strip('_')} layer, got {type(module).__name__}")
        if module.training:
            raise ValueError(f"{what}: fusion is for evaluation only; call .eval() first")
    if bn.running_mean is None:
        raise ValueError("bn: expected running statistics, got a layer without (track_running_stats=False)")
    if bn.num_features != out and not (kind is Linear and bn.num_features == 1):
        raise ValueError(f"bn: expected {out} features, as many as {name} has outputs, got {bn.num_features}")
    fused = copy.deepcopy(layer)
    with no_grad():
        scale = (bn.running_var + bn.eps).sqrt().reciprocal()
        if bn.weight is not None:
            scale = scale * bn.weight
        shift = -bn.running_mean if layer.bias is None else layer.bias - bn.running_mean
        shift = shift * scale
        if bn.bias is not None:
            shift = shift + bn.bias
        shape = [1] * layer.weight.ndim
        shape[axis] = -1
        fused.weight = Parameter(layer.weight * scale.reshape(shape), layer.weight.requires_grad)
        wanted = layer.weight if layer.bias is None else layer.bias
        fused.bias = Parameter(shift.expand(out).contiguous(), wanted.requires_grad)
    return fused


def fuse_conv_bn_eval(conv, bn, transpose=False):
    """One convolution that computes bn(conv(x)): its weight is scaled by weight / sqrt(running_var + eps) per output
    channel, its bias is (bias - running_mean) of that scale + bn.bias.

    Args:
        conv: a convolution in evaluation mode; it stays as it is.
        bn: the batch normalization after it, in evaluation mode, with running statistics.
        transpose: conv is a transposed convolution, whose second axis is that of the outputs (one group).

    Returns:
        A new layer of conv's class.

    Raises:
        ValueError: a layer is in training mode, or bn does not fit.
        TypeError: conv is no convolution, or bn no batch normalization.

    >>> import nncore
    >>> from nncore import nn
    >>> conv, bn = nn.Conv2d(1, 4, 3).eval(), nn.BatchNorm2d(4).eval()
    >>> fuse_conv_bn_eval(conv, bn)(nncore.ones(1, 1, 5, 5)).shape
    (1, 4, 3, 3)
    """
    if isinstance(conv, _ConvNd) and conv.transposed != bool(transpose):
        raise ValueError(f"transpose: expected {conv.transposed} for {type(conv).__name__}, got {transpose}")
    if transpose and isinstance(conv, _ConvNd) and conv.groups != 1:
        raise ValueError(f"conv: expected one group of a transposed convolution, got {conv.groups}")
    return _fuse(conv, "conv", _ConvNd, bn, getattr(conv, "out_channels", 0), 1 if transpose else 0)


def fuse_linear_bn_eval(linear, bn):
    """One Linear that computes bn(linear(x)); as fuse_conv_bn_eval. bn has as many features as linear has outputs,
    or one.

    >>> import nncore
    >>> from nncore import nn
    >>> fuse_linear_bn_eval(nn.Linear(3, 4).eval(), nn.BatchNorm1d(4).eval())(nncore.ones(2, 3)).shape
    (2, 4)
    """
    return _fuse(linear, "linear", Linear, bn, getattr(linear, "out_features", 0), 0)
