"""Interpolation: images, sequences and volumes in another size. An output is a weighted sum of a few inputs."""

from ctypes import c_float
from functools import lru_cache
from math import floor

from nncore import _tape
from nncore._core.resample import Taps, apply
from nncore._ops._check import as_float, integer, number, one_of
from nncore._ops.pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
    "area": (1, 2, 3),
}  # and for how many spatial axes each is


def _linear(d):
    return max(0.0, 1 - abs(d))


def _cubic(d, a):
    """Keys' kernel, "Cubic convolution interpolation for digital image processing", 1981."""
    d = abs(d)
    if d < 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return (((d - 5) * d + 8) * d - 4) * a if d < 2 else 0.0


def _nearest(n, m, exact, factor):
    # in single precision, as for images in torch: where o n / m is next to an integer, the element depends on it
    step, half = c_float(1 / factor if factor else n / m).value, 0.5 if exact else 0.0
    return [[(min(int(c_float((o + half) * step).value), n - 1), 1.0)] for o in range(m)]


def _smooth(n, m, cubic, align_corners, factor, antialias):
    if n == m and (antialias or not cubic):  # whatever the factor, as torch's
        return [[(o, 1.0)] for o in range(m)]
    step = 1 / factor if factor else n / m
    if align_corners:
        step = (n - 1) / (m - 1) if m > 1 else 0.0
    rows = []
    for o in range(m):
        if antialias:  # the kernel stretched over the elements that an output stands for
            wide, center = max(step, 1.0), step * (o + 0.5)
            reach = (2 if cubic else 1) * wide
            near = range(max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), n))
            at = [(i, (i - center + 0.5) / wide) for i in near]
            at = [(i, _cubic(d, -0.5) if cubic else _linear(d)) for i, d in at]
        else:
            source = step * o if align_corners else step * (o + 0.5) - 0.5
            source = min(source if cubic else max(source, 0.0), n)
            first = min(floor(source), n - 1)
            t = min(source - first, 1.0)
            at = [(first + k, _cubic(t - k, -0.75) if cubic else _linear(t - k)) for k in range(-1, 3)]
        row = {}  # what lies beyond an end is the end
        for i, w in at:
            i = min(max(i, 0), n - 1)
            row[i] = row.get(i, 0.0) + w
        total = sum(row.values()) if antialias else 1.0
        rows.append([(i, w / total) for i, w in row.items() if w])
    return rows


@lru_cache(maxsize=256)
def _taps(n, m, mode, align_corners, factor, antialias):
    """From n elements to m, and its transpose."""
    if mode.startswith("nearest"):
        rows = _nearest(n, m, mode == "nearest-exact", factor)
    else:
        rows = _smooth(n, m, mode == "bicubic", align_corners, factor, antialias)
    back = [[] for _ in range(n)]
    for o, row in enumerate(rows):
        for i, w in row:
            back[i].append((o, w))
    return Taps(rows), Taps(back)


def size_arguments(axes, size, scale_factor):
    """(sizes or None, factors or None), as many as there are axes, if that is known; one of the two is given."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"size: expected size or scale_factor, got {'neither' if size is None else 'both'}")
    name = "size" if scale_factor is None else "scale_factor"
    given = size if scale_factor is None else scale_factor
    several = isinstance(given, tuple | list)
    if several and axes is not None and len(given) != axes:
        raise ValueError(f"{name}: expected a number or {axes} of them, got {given!r}")
    given = tuple(given) if several else (given,) * (axes or 1)
    if size is not None:
        return tuple(integer(n, "size", 1) for n in given), None
    return None, tuple(number(f, "scale_factor", 0, 2**31, low_open=True) for f in given)


def interpolate(
    input,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
):
    """Images, sequences or volumes in another size.

    With scale s = n / m from m outputs to n elements, output o takes, along each axis,

        nearest         element floor(o s)
        nearest-exact   element floor((o + 1/2) s)
        linear          the two elements around p = (o + 1/2) s - 1/2, each weighed by 1 - its distance from p
                        (bilinear, trilinear: along two, three axes)
        bicubic         the four around p, weighed by cubic convolution with a = -3/4 (R. Keys, IEEE Transactions on
                        Acoustics, Speech, and Signal Processing 29, 1981)
        area            the mean of elements floor(o s) up to ceil((o + 1) s): adaptive_avg_pool

    and what lies beyond an end is the end. The linear modes, and those with antialias, leave an axis alone whose size
    stays.

    Args:
        input: [N, C, L], [N, C, H, W] or [N, C, D, H, W]; float32 or float64.
        size: of the result: an integer, or one per spatial axis. Either this or scale_factor.
        scale_factor: a number > 0, or one per spatial axis: m = floor(n * factor), and s is 1 / factor.
        mode: as above; 'linear' is for sequences, 'bilinear' and 'bicubic' for images, 'trilinear' for volumes.
        align_corners: for the linear and cubic modes: p = o (n - 1) / (m - 1), so that the ends stay the ends.
        recompute_scale_factor: with scale_factor: s = n / m of the resulting sizes.
        antialias: for 'bilinear' and 'bicubic': where s > 1 the weights are stretched by s, so that all elements count
            (and a is -1/2).

    Returns:
        [N, C, sizes], channels-last in memory.

    Raises:
        ValueError, TypeError: an argument makes no sense, or not with this mode or input.

    >>> import nncore
    >>> interpolate(nncore.tensor([[[1.0, 3.0]]]), size=4, mode="linear").tolist()
    [[[1.0, 1.5, 2.5, 3.0]]]
    >>> interpolate(nncore.ones(1, 2, 4, 6), scale_factor=2).shape
    (1, 2, 8, 12)
    """
    one_of(mode, "mode", tuple(MODES))
    x = as_float(input)
    axes = x.ndim - 2
    if axes not in MODES[mode]:
        wanted = " or ".join(f"{n + 2}" for n in MODES[mode])
        raise ValueError(f"input: mode {mode!r} expects {wanted} dimensions, [N, C, sizes], got shape {x.shape}")
    if 0 in x.shape[1:]:
        raise ValueError(f"input: expected no empty dimension besides the batch, got shape {x.shape}")
    corners = mode in ("linear", "bilinear", "bicubic", "trilinear")
    if align_corners is not None and not corners:
        raise ValueError(f"align_corners: mode {mode!r} takes none, got {align_corners!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias: expected mode 'bilinear' or 'bicubic', got {mode!r}")
    sizes, factors = size_arguments(axes, size, scale_factor)
    if recompute_scale_factor and factors is None:
        raise ValueError("recompute_scale_factor: expected scale_factor, got size")
    if factors is not None:
        sizes = tuple(int(n * f) for n, f in zip(x.shape[2:], factors))
        if 0 in sizes:
            raise ValueError(f"scale_factor: {scale_factor} would make sizes {sizes} of input {x.shape}")
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[axes - 1](x, sizes)
    if factors is None or recompute_scale_factor:
        factors = (None,) * axes
    options = mode, bool(align_corners), bool(antialias)
    pairs = [_taps(n, m, *options[:2], f, options[2]) for n, m, f in zip(x.shape[2:], sizes, factors)]
    forward, back = zip(*pairs)
    return _tape.record(apply(x, forward), "interpolate", (x,), lambda dy: (apply(dy, back),))
