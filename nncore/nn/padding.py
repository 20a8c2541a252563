"""Padding layers in one, two and three dimensions."""

from nncore._ops._check import integer
from nncore._ops.pad import pad, pad_argument
from nncore.nn.module import Module

_SIZES = ("L", "H, W", "D, H, W")


class _Pad(Module):
    axes = 0
    mode = "constant"

    def __init__(self, padding):
        super().__init__()
        if not isinstance(padding, tuple | list):
            padding = (integer(padding, "padding"),) * (2 * self.axes)
        if len(padding) != 2 * self.axes:
            raise ValueError(f"padding: expected an integer or {2 * self.axes} of them, got {padding!r}")
        self.padding = tuple(p for pair in pad_argument(padding, "padding") for p in pair)

    def forward(self, input):
        y = pad(input, self.padding, self.mode)
        if y.ndim not in (self.axes + 1, self.axes + 2):
            raise ValueError(f"input: expected [N, C, {self.axes} spatial sizes] or [C, ...], got {y.ndim} dimensions")
        return y

    def extra_repr(self):
        return f"{self.padding}"


class _ReflectionPad(_Pad):
    mode = "reflect"


class _ReplicationPad(_Pad):
    mode = "replicate"


class _CircularPad(_Pad):
    mode = "circular"


class _ConstantPad(_Pad):
    def __init__(self, padding, value):
        super().__init__(padding)
        self.value = value

    def forward(self, input):
        return pad(input, self.padding, value=self.value)

    def extra_repr(self):
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding):
        super().__init__(padding, 0.0)

    def extra_repr(self):
        return f"{self.padding}"


def _layer(base, kind, text, n):
    """The class for n spatial axes, with its documentation."""
    name, ones = f"{kind}{n}d", ", ".join(["4"] * n)
    value = "\n        value: the number that is added." if kind == "ConstantPad" else ""
    doc = f"""{text} at the ends of the last {n} {"axes" if n > 1 else "axis"} (functional.pad).

    Args:
        padding: an integer for all ends, or {2 * n}: (in front, behind) of the last axis, then of the one before it.
            Negative numbers take elements away.{value}

    Shape:
        input [N, C, {_SIZES[n - 1]}] or [C, {_SIZES[n - 1]}] -> the same with each size grown by its two ends.

    >>> import nncore
    >>> {name}(1{", 2.0" if value else ""})(nncore.ones(1, 3, {ones})).shape
    (1, 3, {", ".join(["6"] * n)})
    """
    return type(name, (base,), {"axes": n, "__doc__": doc, "__module__": __name__, "__qualname__": name})


_N = (1, 2, 3)
_TEXTS = {
    "ConstantPad": "A constant is added",
    "ZeroPad": "Zeros are added",
    "ReflectionPad": "The elements behind the end, which is not repeated, are added",
    "ReplicationPad": "Copies of the end are added",
    "CircularPad": "The elements of the other end are added",
}
ConstantPad1d, ConstantPad2d, ConstantPad3d = (
    _layer(_ConstantPad, "ConstantPad", _TEXTS["ConstantPad"], n) for n in _N
)
ZeroPad1d, ZeroPad2d, ZeroPad3d = (_layer(_ZeroPad, "ZeroPad", _TEXTS["ZeroPad"], n) for n in _N)
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (
    _layer(_ReflectionPad, "ReflectionPad", _TEXTS["ReflectionPad"], n) for n in _N
)
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (
    _layer(_ReplicationPad, "ReplicationPad", _TEXTS["ReplicationPad"], n) for n in _N
)
CircularPad1d, CircularPad2d, CircularPad3d = (
    _layer(_CircularPad, "CircularPad", _TEXTS["CircularPad"], n) for n in _N
)
