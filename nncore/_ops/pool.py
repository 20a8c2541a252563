"""Pooling in one, two and three dimensions: strided, adaptive and global through one table of windows."""

from functools import lru_cache
from itertools import product
from math import prod

from nncore import _tape
from nncore._core import pool as kernels
from nncore._core.pool import Windows
from nncore._ops._check import as_float, integer
from nncore._ops.conv import per_axis
from nncore._ops.shape import getitem, reshape


def _axis(n, k, s, p, d, ceil_mode):
    """[(start, count, count with padding)] of the windows along an axis."""
    room = n + 2 * p - d * (k - 1) - 1
    if room < 0:
        raise ValueError(f"input: a spatial size of {n} is smaller than the kernel {k} (dilation {d}, padding {p})")
    out = -(-room // s) + 1 if ceil_mode else room // s + 1
    if ceil_mode and (out - 1) * s >= n + p:  # the last window must start in the image or its front padding
        out -= 1
    windows = []
    for o in range(out):
        first = o * s - p
        skip = -(first // d) if first < 0 else 0
        start = first + skip * d
        end = min(first + d * (k - 1) + 1, n)
        count = max(0, -(-(end - start) // d))
        if count == 0:
            raise ValueError(
                f"dilation: a window has no element of the image (size {n}, kernel {k}, padding {p}, dilation {d})"
            )
        windows.append((start, count, min(first + k, n + p) - first))
    return windows


@lru_cache(maxsize=256)
def _strided(sizes, kernel, stride, padding, dilation, ceil_mode, average, include_pad, divisor):
    axes = [_axis(*a, ceil_mode) for a in zip(sizes, kernel, stride, padding, dilation)]
    scales = None
    if average:
        scales = [1 / (divisor or prod(w[2 if include_pad else 1] for w in point) or 1) for point in product(*axes)]
    return Windows(sizes, [[w[:2] for w in axis] for axis in axes], dilation, scales)


@lru_cache(maxsize=256)
def _adaptive(sizes, out, average):
    axes = [[(o * n // m, -(-(o + 1) * n // m) - o * n // m) for o in range(m)] for n, m in zip(sizes, out)]
    scales = [1 / prod(w[1] for w in point) for point in product(*axes)] if average else None
    return Windows(sizes, axes, (1,) * len(sizes), scales)


def _image(axes, input):
    x = as_float(input)
    if x.ndim not in (axes + 1, axes + 2):
        raise ValueError(f"input: expected [N, C, {axes} spatial sizes] or [C, ...], got shape {x.shape}")
    alone = x.ndim == axes + 1
    x = reshape(x, (1, *x.shape)) if alone else x
    if 0 in x.shape[1:]:
        raise ValueError(f"input: expected no empty dimension besides the batch, got shape {x.shape}")
    if prod(x.shape[2:]) >= 2**31:
        raise ValueError(f"input: expected fewer than 2^31 points in an image, got shape {x.shape}")
    return x, alone


def _apply(name, x, alone, windows, average, return_indices):
    shape = x.shape
    y, index = kernels.forward(x, windows, return_indices or (_tape.is_grad_enabled() and x.requires_grad))

    def backward(dy, *_):
        return (kernels.backward(dy, windows, index, shape),)

    if return_indices and not average:
        y, where = _tape.record((y, kernels.indices(y, index)), name, (x,), backward)
        return (getitem(y, 0), getitem(where, 0)) if alone else (y, where)
    y = _tape.record(y, name, (x,), backward)
    return getitem(y, 0) if alone else y


def window_arguments(axes, kernel_size, stride, padding, dilation):
    """The checked kernel, stride, padding and dilation, a tuple each."""
    kernel = per_axis(kernel_size, axes, "kernel_size", 1)
    stride = kernel if stride is None or stride == () else per_axis(stride, axes, "stride", 1)
    padding = per_axis(padding, axes, "padding", 0)
    dilation = per_axis(dilation, axes, "dilation", 1)
    if any(p > k // 2 for p, k in zip(padding, kernel)):
        raise ValueError(f"padding: expected at most half of the kernel {kernel}, got {padding}")
    return kernel, stride, padding, dilation


def _max_pool(axes, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    x, alone = _image(axes, input)
    geometry = window_arguments(axes, kernel_size, stride, padding, dilation)
    windows = _strided(x.shape[2:], *geometry, bool(ceil_mode), False, True, None)
    return _apply(f"max_pool{axes}d", x, alone, windows, False, return_indices)


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest element of each window; otherwise as max_pool2d.

    >>> import nncore
    >>> max_pool1d(nncore.tensor([[[1.0, 3.0, 2.0, 0.0]]]), 2).tolist()
    [[[3.0, 2.0]]]
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """y[n, c, i, j] = max over the window of x that starts at stride (i, j) - padding.

    Args:
        input: [N, C, H, W] or [C, H, W].
        kernel_size, stride (the kernel by default), padding (at most half the kernel; counts as -inf), dilation:
            integers or pairs.
        ceil_mode: also the last, partial window.
        return_indices: also the flat position of each maximum in its image [H * W], int64.

    The first of equal elements is taken, and gets the gradient; a NaN is the maximum.

    >>> import nncore
    >>> max_pool2d(nncore.ones(1, 2, 4, 4), 2).shape
    (1, 2, 2, 2)
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum pooling of volumes [N, C, D, H, W]; otherwise as max_pool2d.

    >>> import nncore
    >>> max_pool3d(nncore.ones(1, 2, 4, 4, 4), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def divisor_argument(divisor):
    """An integer other than 0, or None."""
    if divisor is not None and not 0 < abs(integer(divisor, "divisor_override")) < 2**63:
        raise ValueError(f"divisor_override: expected an integer other than 0 (below 2^63), got {divisor}")
    return divisor


def _avg_pool(axes, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    x, alone = _image(axes, input)
    geometry = window_arguments(axes, kernel_size, stride, padding, 1)
    divisor = divisor_argument(divisor_override)
    windows = _strided(x.shape[2:], *geometry, bool(ceil_mode), True, bool(count_include_pad), divisor)
    return _apply(f"avg_pool{axes}d", x, alone, windows, True, False)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window; otherwise as avg_pool2d.

    >>> import nncore
    >>> avg_pool1d(nncore.tensor([[[1.0, 3.0, 2.0, 0.0]]]), 2).tolist()
    [[[2.0, 1.0]]]
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """The mean of each window of images [N, C, H, W] or [C, H, W].

    Args:
        input, kernel_size, stride, padding, ceil_mode: as max_pool2d's; padding counts as 0.
        count_include_pad: divide by the window's size with padding, else by the elements within the image.
        divisor_override: divide by this instead.

    >>> import nncore
    >>> avg_pool2d(nncore.ones(1, 2, 4, 4), 2).shape
    (1, 2, 2, 2)
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Average pooling of volumes [N, C, D, H, W]; otherwise as avg_pool2d.

    >>> import nncore
    >>> avg_pool3d(nncore.ones(1, 2, 4, 4, 4), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def output_size_argument(output_size, axes):
    """`axes` integers >= 1, or None for a size to keep."""
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * axes
    if len(sizes) != axes:
        raise ValueError(f"output_size: expected an integer or {axes} of them, got {output_size!r}")
    return tuple(None if m is None else integer(m, "output_size", 1) for m in sizes)


def _adaptive_pool(axes, input, output_size, average, return_indices):
    x, alone = _image(axes, input)
    sizes = output_size_argument(output_size, axes)
    out = tuple(n if m is None else m for n, m in zip(x.shape[2:], sizes))
    windows = _adaptive(x.shape[2:], out, average)
    name = f"adaptive_{'avg' if average else 'max'}_pool{axes}d"
    return _apply(name, x, alone, windows, average, return_indices)


def _adaptive_function(axes, average):
    name = f"adaptive_{'avg' if average else 'max'}_pool{axes}d"
    if average:

        def pool(input, output_size):
            return _adaptive_pool(axes, input, output_size, True, False)
    else:

        def pool(input, output_size, return_indices=False):
            return _adaptive_pool(axes, input, output_size, False, return_indices)

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = f"""{"Mean" if average else "Largest element"} of windows that divide each axis of n into m parts.

    Window o is floor(o n / m) up to ceil((o + 1) n / m); m is `output_size`, an integer or {axes} of them; None keeps
    a size; 1 is global pooling.

    >>> import nncore
    >>> {name}(nncore.ones(1, 2, {", ".join(["5"] * axes)}), 1).shape
    (1, 2, {", ".join(["1"] * axes)})
    """
    return pool


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (_adaptive_function(n, True) for n in (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (_adaptive_function(n, False) for n in (1, 2, 3))
