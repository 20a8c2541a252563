"""Convolutional layers in one, two and three dimensions, and transposed."""

from nncore._core.tensor import new_empty
from nncore._ops._check import float_code, integer, one_of
from nncore._ops.conv import front_and_behind, per_axis
from nncore.nn import functional as F
from nncore.nn import init
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter

_DOC = """{formula}

Args:
    in_channels, out_channels: C and K, both divisible by groups.
    kernel_size, stride, {extra}dilation: integers, or {axes} of them.
    padding: integer >= 0{padding}.
    groups: groups of channels that do not see each other (C for a depthwise convolution).
    bias: whether there is a b.
    padding_mode: {modes}.
    dtype: float32 (default) or float64.

Shape:
    {shape}; the result is channels-last in memory.

Attributes:
    weight: {weight}, initialized uniformly on (-1/sqrt(n), 1/sqrt(n)), n = {fan}, as torch's.
    bias: [K], initialized likewise, or None.

>>> import nncore
>>> from nncore import nn
>>> nn.{name}(2, 3, 3, padding=1)(nncore.ones({example})).shape
{result}
"""


class _ConvNd(Module):
    """What all convolutions share. `axes` and `transposed` come from the class."""

    axes = 0
    transposed = False

    def __init__(
        self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
    ):
        super().__init__()
        self.in_channels = integer(in_channels, "in_channels", 1)
        self.out_channels = integer(out_channels, "out_channels", 1)
        self.groups = integer(groups, "groups", 1)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{name}: expected a multiple of groups = {self.groups}, got {channels}")
        self.kernel_size = per_axis(kernel_size, self.axes, "kernel_size", 1)
        self.stride = per_axis(stride, self.axes, "stride", 1)
        self.dilation = per_axis(dilation, self.axes, "dilation", 1)
        if isinstance(padding, str) and not self.transposed:
            if padding not in ("valid", "same"):
                raise ValueError(f"padding: expected 'valid', 'same' or integers, got {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"padding: 'same' needs stride 1, got {self.stride}")
            self.padding = padding
        else:
            self.padding = per_axis(padding, self.axes, "padding", 0)
        modes = ("zeros",) if self.transposed else ("zeros", "reflect", "replicate", "circular")
        self.padding_mode = one_of(padding_mode, "padding_mode", modes)
        code = float_code(dtype)
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        self.weight = Parameter(new_empty((first, second // self.groups, *self.kernel_size), code))
        if bias:
            self.bias = Parameter(new_empty((self.out_channels,), code))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draws the parameters anew."""
        init.default_(self.weight, self.bias)

    def extra_repr(self):
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding not in ("valid", (0,) * self.axes):
            text += f", padding={self.padding!r}"
        if self.dilation != (1,) * self.axes:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


class _Conv(_ConvNd):
    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        *,
        dtype="float32",
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
        )

    def forward(self, input):
        conv, padding = (F.conv1d, F.conv2d, F.conv3d)[self.axes - 1], self.padding
        if self.padding_mode != "zeros":
            ends = front_and_behind(padding, self.kernel_size, self.stride, self.dilation)
            input, padding = F.pad(input, [p for pair in reversed(ends) for p in pair], self.padding_mode), 0
        return conv(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_ConvNd):
    transposed = True

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        padding_mode="zeros",
        *,
        dtype="float32",
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
        )
        self.output_padding = per_axis(output_padding, self.axes, "output_padding", 0)

    def forward(self, input):
        conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.axes - 1]
        return conv(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


_SIZES = ("L", "H, W", "D, H, W")
_KERNELS = ("R", "R, S", "T, R, S")


def _layer(base, axes):
    """The class for this many spatial axes, with its documentation."""
    transposed = base.transposed
    name = f"Conv{'Transpose' if transposed else ''}{axes}d"
    sizes, kernel, ones = _SIZES[axes - 1], _KERNELS[axes - 1], ", ".join(["8"] * axes)
    if transposed:
        formula = f"The gradient of Conv{axes}d for its input, as a layer (functional.conv_transpose{axes}d)."
        formula += "\n\n    Zeiler, Krishnan, Taylor, Fergus, CVPR 2010."
        shape = (
            f"input [N, C, {sizes}] -> output [N, K, (size - 1) stride - 2 padding + dilation (kernel - 1) + extra + 1]"
        )
        weight, fan = f"[C, K / groups, {kernel}]", f"K / groups * {kernel.replace(', ', ' * ')}"
    else:
        formula = "y[n, k, i] = b[k] + sum over c and r of w[k, c, r] x[n, c, stride i + dilation r - padding]."
        formula += "\n\n    LeCun et al., Neural Computation, 1989."
        shape = f"input [N, C, {sizes}] -> output [N, K, (size + 2 padding - dilation (kernel - 1) - 1) // stride + 1]"
        weight, fan = f"[K, C / groups, {kernel}]", f"C / groups * {kernel.replace(', ', ' * ')}"
    doc = _DOC.format(
        formula=formula,
        extra="output_padding, " if transposed else "",
        axes=axes,
        modes="'zeros'"
        if transposed
        else "what is beyond the input: 'zeros', or as functional.pad's 'reflect', 'replicate' or 'circular'",
        padding="" if transposed else ", 'valid', or 'same' (stride 1 only)",
        shape=shape,
        weight=weight,
        fan=fan,
        name=name,
        example=f"1, 2, {ones}",
        result=(1, 3, *([8] * axes)),
    )
    return type(name, (base,), {"axes": axes, "__doc__": doc, "__module__": __name__, "__qualname__": name})


Conv1d, Conv2d, Conv3d = (_layer(_Conv, n) for n in (1, 2, 3))
ConvTranspose1d, ConvTranspose2d, ConvTranspose3d = (_layer(_ConvTranspose, n) for n in (1, 2, 3))
