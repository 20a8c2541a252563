"""Normalization layers."""

from nncore._core.tensor import new_empty, new_zeros
from nncore._ops import norm as ops
from nncore._ops._check import INT64, as_array, float_code, integer, number
from nncore.nn import functional as F
from nncore.nn import init
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


def _affine(module, shape, code, affine, bias):
    """weight and bias, or None for what is left out."""
    for name, wanted in (("weight", affine), ("bias", affine and bias)):
        if wanted:
            setattr(module, name, Parameter(new_empty(shape, code)))
        else:
            module.register_parameter(name, None)


class _Norm(Module):
    """What layers with a weight and a bias share."""

    def reset_parameters(self):
        """weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _ChannelNorm(_Norm):
    """Statistics per channel, and running ones: batch and instance normalization."""

    dims = ()

    def __init__(self, num_features, eps, momentum, affine, track_running_stats, dtype, bias):
        super().__init__()
        self.num_features = integer(num_features, "num_features", 0)
        self.eps = number(eps, "eps", 0)
        self.momentum = momentum if momentum is None else number(momentum, "momentum", 0, 1)
        self.affine, self.track_running_stats = bool(affine), bool(track_running_stats)
        code = float_code(dtype)
        _affine(self, (self.num_features,), code, self.affine, bias)
        tracked = self.track_running_stats
        self.register_buffer("running_mean", new_empty((self.num_features,), code) if tracked else None)
        self.register_buffer("running_var", new_empty((self.num_features,), code) if tracked else None)
        self.register_buffer("num_batches_tracked", new_zeros((), INT64) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self):
        """Running mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean.fill_(0)
            self.running_var.fill_(1)
            self.num_batches_tracked.copy_(new_zeros((), INT64))

    def reset_parameters(self):
        """weight 1, bias 0, and the running statistics of a new layer."""
        self.reset_running_stats()
        super().reset_parameters()

    def _checked(self, input):
        x = input if hasattr(input, "ndim") else as_array(input, "input")
        if x.ndim not in self.dims:
            raise ValueError(f"input: expected {' or '.join(map(str, self.dims))} dimensions, got shape {x.shape}")
        return x

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        *,
        dtype="float32",
        bias=True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, input):
        x = self._checked(input)
        update = self.training and self.track_running_stats
        training = self.training or self.running_mean is None
        mean, var = (self.running_mean, self.running_var) if update or not training else (None, None)
        batches = self.num_batches_tracked if update else None
        momentum = 0.0 if self.momentum is None and batches is None else self.momentum
        return ops.counted_batch_norm(x, mean, var, self.weight, self.bias, training, momentum, self.eps, batches)


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=False,
        track_running_stats=False,
        *,
        dtype="float32",
        bias=True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, input):
        x = self._checked(input)
        alone = x.ndim == self.dims[0]
        y = F.instance_norm(
            x[None] if alone else x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y[0] if alone else y


_BATCH = """(x - mean) / sqrt(var + eps) weight + bias, per channel: with the statistics of the batch in training, with
the running ones in evaluation. Ioffe, Szegedy, ICML 2015.

Args:
    num_features: C.
    eps: added to the variance.
    momentum: share of a batch in the running statistics; None: they are the mean over all batches.
    affine: whether there are weight and bias.
    track_running_stats: False: no running statistics; the batch's are used in evaluation too.
    dtype: float32 (default) or float64.
    bias: False: a weight only.
"""
_INSTANCE = """(x - mean) / sqrt(var + eps) weight + bias, with the statistics of each channel of each image. Ulyanov,
Vedaldi, Lempitsky, arXiv:1607.08022.

Args:
    num_features: C.
    eps: added to the variance.
    momentum: share of a batch in the running statistics.
    affine: whether there are weight and bias.
    track_running_stats: whether there are running statistics, used in evaluation.
    dtype: float32 (default) or float64.
    bias: False: a weight only.
"""
_DOC = """{text}
Shape:
    input {shape} -> the same.

Attributes:
    weight, bias: [C], 1 and 0 at first; None without affine.
    running_mean, running_var: [C], buffers, 0 and 1 at first; the variance is the unbiased one. None if not tracked.
    num_batches_tracked: buffer, {counted}.

>>> import nncore
>>> {name}(3)(nncore.rand({sizes})).shape
({sizes})
"""


def _layer(base, n):
    """The class for n spatial axes, with its documentation."""
    batch = base is _BatchNorm
    name, sizes = f"{'Batch' if batch else 'Instance'}Norm{n}d", ("L", "H, W", "D, H, W")[n - 1]
    alone = f" or [C, {sizes}]" if not batch else " or [N, C]" if n == 1 else ""
    dims = (n + 2,) if batch and n > 1 else (n + 1, n + 2)
    doc = _DOC.format(
        text=_BATCH if batch else _INSTANCE,
        shape=f"[N, C, {sizes}]{alone}",
        counted="the number of batches seen" if batch else "unused, as torch's",
        name=name,
        sizes=", ".join(["2", "3", *["4"] * n]),
    )
    return type(name, (base,), {"dims": dims, "__doc__": doc, "__module__": __name__, "__qualname__": name})


BatchNorm1d, BatchNorm2d, BatchNorm3d = (_layer(_BatchNorm, n) for n in (1, 2, 3))
InstanceNorm1d, InstanceNorm2d, InstanceNorm3d = (_layer(_InstanceNorm, n) for n in (1, 2, 3))


class GroupNorm(_Norm):
    """(x - mean) / sqrt(var + eps) weight + bias, with the statistics of groups of channels of each image. Wu, He,
    ECCV 2018.

    Args:
        num_groups: of neighbouring channels; divides C.
        num_channels: C.
        eps: added to the variance.
        affine: whether there are weight and bias.
        dtype: float32 (default) or float64.
        bias: False: a weight only.

    Shape:
        input [N, C] or [N, C, spatial sizes] -> the same.

    Attributes:
        weight, bias: [C], 1 and 0 at first; None without affine.

    >>> import nncore
    >>> GroupNorm(2, 6)(nncore.rand(2, 6, 4, 4)).shape
    (2, 6, 4, 4)
    """

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True, *, dtype="float32", bias=True):
        super().__init__()
        self.num_groups = integer(num_groups, "num_groups", 1)
        self.num_channels = integer(num_channels, "num_channels", 1)
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_groups: {num_groups} does not divide num_channels {num_channels}")
        self.eps, self.affine = number(eps, "eps", 0), bool(affine)
        _affine(self, (self.num_channels,), float_code(dtype), self.affine, bias)
        self.reset_parameters()

    def forward(self, input):
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(_Norm):
    """(x - mean) / sqrt(var + eps) weight + bias, with the statistics of the last dimensions. Ba, Kiros, Hinton,
    arXiv:1607.06450.

    Args:
        normalized_shape: sizes of the dimensions to normalize over; an integer for the last one.
        eps: added to the variance.
        elementwise_affine: whether there are weight and bias.
        bias: False: a weight only.
        dtype: float32 (default) or float64.

    Shape:
        input [*, normalized_shape] -> the same.

    Attributes:
        weight, bias: of normalized_shape, 1 and 0 at first; None without elementwise_affine.

    >>> import nncore
    >>> LayerNorm(4)(nncore.rand(2, 3, 4)).shape
    (2, 3, 4)
    """

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, *, dtype="float32"):
        super().__init__()
        self.normalized_shape = ops.normalized_shape_argument(normalized_shape)
        self.eps, self.elementwise_affine = number(eps, "eps", 0), bool(elementwise_affine)
        _affine(self, self.normalized_shape, float_code(dtype), self.elementwise_affine, bias)
        self.reset_parameters()

    def forward(self, input):
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(_Norm):
    """x / sqrt(mean of x^2 + eps) weight, over the last dimensions. Zhang, Sennrich, NeurIPS 2019.

    Args:
        normalized_shape: sizes of the dimensions to normalize over; an integer for the last one.
        eps: added to the mean; the dtype's epsilon by default.
        elementwise_affine: whether there is a weight.
        dtype: float32 (default) or float64.

    Shape:
        input [*, normalized_shape] -> the same.

    Attributes:
        weight: of normalized_shape, 1 at first; None without elementwise_affine.

    >>> import nncore
    >>> RMSNorm(4)(nncore.rand(2, 3, 4)).shape
    (2, 3, 4)
    """

    bias = None

    def __init__(self, normalized_shape, eps=None, elementwise_affine=True, *, dtype="float32"):
        super().__init__()
        self.normalized_shape = ops.normalized_shape_argument(normalized_shape)
        self.eps = eps if eps is None else number(eps, "eps", 0)
        self.elementwise_affine = bool(elementwise_affine)
        code = float_code(dtype)
        if self.elementwise_affine:
            self.weight = Parameter(new_empty(self.normalized_shape, code))
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def forward(self, input):
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """x (k + alpha / size * sum of x^2 over `size` neighbouring channels)^-beta. Krizhevsky, Sutskever, Hinton,
    NeurIPS 2012 (whose alpha is not divided by size).

    Args:
        size: channels of a window.
        alpha, beta, k: numbers.

    Shape:
        input [N, C, spatial sizes] -> the same.

    >>> import nncore
    >>> LocalResponseNorm(5)(nncore.rand(2, 8, 4, 4)).shape
    (2, 8, 4, 4)
    """

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        super().__init__()
        self.size = integer(size, "size", 1)
        self.alpha, self.beta, self.k = number(alpha, "alpha"), number(beta, "beta"), number(k, "k")

    def forward(self, input):
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self):
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
