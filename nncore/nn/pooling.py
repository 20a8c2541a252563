"""Pooling layers in one, two and three dimensions."""

from nncore._ops import pool as ops
from nncore.nn.module import Module

_SIZES = ("L", "H, W", "D, H, W")


class _MaxPool(Module):
    axes = 0

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
        super().__init__()
        geometry = ops.window_arguments(self.axes, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = geometry
        self.return_indices, self.ceil_mode = bool(return_indices), bool(ceil_mode)

    def forward(self, input):
        pool = (ops.max_pool1d, ops.max_pool2d, ops.max_pool3d)[self.axes - 1]
        return pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class _AvgPool(Module):
    axes = 0

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        super().__init__()
        self.kernel_size, self.stride, self.padding, _ = ops.window_arguments(
            self.axes, kernel_size, stride, padding, 1
        )
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)

    def forward(self, input):
        pool = (ops.avg_pool1d, ops.avg_pool2d, ops.avg_pool3d)[self.axes - 1]
        return pool(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPoolDivisor(_AvgPool):
    """Average pooling with torch's divisor_override, which the one-dimensional layer does not have."""

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = ops.divisor_argument(divisor_override)

    def forward(self, input):
        pool = (ops.avg_pool2d, ops.avg_pool3d)[self.axes - 2]
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class _AdaptiveAvgPool(Module):
    axes = 0

    def __init__(self, output_size):
        super().__init__()
        self.output_size = ops.output_size_argument(output_size, self.axes)

    def forward(self, input):
        pool = (ops.adaptive_avg_pool1d, ops.adaptive_avg_pool2d, ops.adaptive_avg_pool3d)[self.axes - 1]
        return pool(input, self.output_size)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class _AdaptiveMaxPool(_AdaptiveAvgPool):
    def __init__(self, output_size, return_indices=False):
        super().__init__(output_size)
        self.return_indices = bool(return_indices)

    def forward(self, input):
        pool = (ops.adaptive_max_pool1d, ops.adaptive_max_pool2d, ops.adaptive_max_pool3d)[self.axes - 1]
        return pool(input, self.output_size, self.return_indices)


_DOCS = {
    "MaxPool": """The largest element of each window (functional.max_pool{n}d).

    Riesenhuber, Poggio, Nature Neuroscience, 1999; Ranzato, Huang, Boureau, LeCun, CVPR 2007.

    Args:
        kernel_size, stride (the kernel by default), dilation: integers, or {n} of them.
        padding: at most half the kernel; counts as -inf.
        return_indices: also the flat position of each maximum in its image.
        ceil_mode: also the last, partial window.
    """,
    "AvgPool": """The mean of each window (functional.avg_pool{n}d). LeCun et al., 1989.

    Args:
        kernel_size, stride (the kernel by default): integers, or {n} of them.
        padding: at most half the kernel; counts as 0.
        ceil_mode: also the last, partial window.
        count_include_pad: divide by the window's size with padding.{more}
    """,
    "AdaptiveAvgPool": """The mean of windows that divide each axis into output_size parts
    (functional.adaptive_avg_pool{n}d).

    Args:
        output_size: integer, or {n} of them; None keeps a size.
    """,
    "AdaptiveMaxPool": """The largest element of windows that divide each axis into output_size parts
    (functional.adaptive_max_pool{n}d).

    Args:
        output_size: integer, or {n} of them; None keeps a size.
        return_indices: also the flat position of each maximum in its image.
    """,
}


def _layer(base, kind, n):
    """The class for n spatial axes, with its documentation."""
    name, ones = f"{kind}{n}d", ", ".join(["4"] * n)
    more = "\n        divisor_override: divide by this instead." if n > 1 else ""
    doc = (
        _DOCS[kind].format(n=n, more=more)
        + f"""
    Shape:
        input [N, C, {_SIZES[n - 1]}] or [C, {_SIZES[n - 1]}] -> the same with pooled sizes.

    >>> import nncore
    >>> {name}(2)(nncore.ones(1, 3, {ones})).shape
    (1, 3, {", ".join(["2"] * n)})
    """
    )
    return type(name, (base,), {"axes": n, "__doc__": doc, "__module__": __name__, "__qualname__": name})


MaxPool1d, MaxPool2d, MaxPool3d = (_layer(_MaxPool, "MaxPool", n) for n in (1, 2, 3))
AvgPool1d = _layer(_AvgPool, "AvgPool", 1)
AvgPool2d, AvgPool3d = (_layer(_AvgPoolDivisor, "AvgPool", n) for n in (2, 3))
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (
    _layer(_AdaptiveAvgPool, "AdaptiveAvgPool", n) for n in (1, 2, 3)
)
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (
    _layer(_AdaptiveMaxPool, "AdaptiveMaxPool", n) for n in (1, 2, 3)
)
