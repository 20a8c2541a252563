"""Padding with a constant or with the tensor's own elements, and its gradient."""

from functools import lru_cache

from nncore import _tape
from nncore._core import pad as kernels
from nncore._core.pad import Axis
from nncore._ops._check import BOOL, INT64, as_tensor, integer, number, one_of

MODES = ("constant", "reflect", "replicate", "circular")


@lru_cache(maxsize=256)
def _axis(n, front, behind, mode):
    """Which of n elements each of front + n + behind is; -1: none."""
    positions = range(-front, n + behind)
    if mode == "constant":
        return Axis(n, [i if 0 <= i < n else -1 for i in positions])
    if mode == "replicate":
        return Axis(n, [min(max(i, 0), n - 1) for i in positions])
    if mode == "circular":
        first, left = max(-front, 0), n + min(front, 0) + min(behind, 0)  # what is taken away comes first, as torch's
        return Axis(n, [first + (i - first) % left for i in positions])
    return Axis(n, [n - 1 - abs(n - 1 - abs(i)) for i in positions])


def pad_argument(pad, name="pad"):
    """[(in front, behind)] from the last axis on."""
    if not isinstance(pad, (tuple, list)) or len(pad) % 2:
        raise ValueError(f"{name}: expected pairs (in front, behind), from the last axis on, got {pad!r}")
    sizes = [integer(p, name) for p in pad]
    return list(zip(sizes[::2], sizes[1::2]))


def pad(input, pad, mode="constant", value=None):
    """The tensor with elements added, or taken away, at the ends of its last axes.

    Args:
        input: of any shape; float32, float64 or int64.
        pad: (in front, behind) of the last axis, then of the one before it, and so on. Negative numbers take elements
            away.
        mode: what is added. 'constant': `value`. 'reflect': the elements behind the end, which is not repeated
            (d c b | a b c d | c b a). 'replicate': the end itself (a a a | a b c d | d d d). 'circular': the other
            end (b c d | a b c d | a b c), of what is left after negative numbers.
        value: a number, 0 by default; for 'constant' only.

    Returns:
        The padded tensor; channels-last in memory if the input is.

    Raises:
        ValueError: a size would be negative (for the other modes: below 1), 'reflect' needs more elements than an axis
            has beside its end, 'circular' more than it has.

    >>> import nncore
    >>> pad(nncore.tensor([1.0, 2.0, 3.0]), (2, 1), "reflect").tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    >>> pad(nncore.ones(2, 3), (1, -1, 0, 1), value=5.0).tolist()
    [[5.0, 1.0, 1.0], [5.0, 1.0, 1.0], [5.0, 5.0, 5.0]]
    """
    x = as_tensor(input)
    if x._code == BOOL:
        raise TypeError("input: expected float32, float64 or int64, got bool; convert it first")
    sizes = pad_argument(pad)
    one_of(mode, "mode", MODES)
    if not 0 < len(sizes) <= x.ndim:
        raise ValueError(f"pad: expected 1 to {x.ndim} pairs for input of shape {x.shape}, got {len(sizes)}")
    if mode != "constant" and value is not None:
        raise ValueError(f"value: mode {mode!r} takes none, got {value!r}")
    if value is None:
        value = 0
    elif x._code == INT64:
        value = integer(value, "value")
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"value: beyond the range of int64: {value}")
    elif value == value:  # NaN is a value here
        value = number(value, "value")
    sizes += [(0, 0)] * (x.ndim - len(sizes))
    for n, (front, behind) in zip(reversed(x.shape), sizes):
        most = n - 1 if mode == "reflect" else n + min(front, 0) + min(behind, 0)
        if n + front + behind < (1 if mode != "constant" and (front or behind) else 0):
            raise ValueError(f"pad: {front} and {behind} would make a size of {n + front + behind} (input {x.shape})")
        if mode in ("reflect", "circular") and max(front, behind) > max(most, 0):
            raise ValueError(f"pad: expected at most {most} for mode {mode!r}, got {front} and {behind} ({x.shape})")
        if mode == "replicate" and n == 0 and (front or behind):
            raise ValueError(f"pad: mode 'replicate' has no element to repeat (input {x.shape})")
    axes = tuple(_axis(n, *size, mode) for n, size in zip(x.shape, reversed(sizes)))
    y = kernels.forward(x, axes, value)
    return _tape.record(y, "pad", (x,), lambda dy: (kernels.backward(dy, axes),))
