"""Convolution in one, two and three dimensions, and transposed. Images stay channels-last in memory between layers."""

from nncore import _tape
from nncore._core import conv as kernels
from nncore._core.conv import Geometry
from nncore._core.elementwise import channels_last
from nncore._core.reduction import SUM, reduce
from nncore._ops._check import as_float, as_tensor, integer, one_of
from nncore._ops.arithmetic import crosswise
from nncore._ops.shape import getitem, reshape


def per_axis(value, axes, name, low):
    """value as a tuple of `axes` integers >= low."""
    if not isinstance(value, (tuple, list)):
        return (integer(value, name, low),) * axes
    if len(value) != axes:
        raise ValueError(f"{name}: expected an integer or {axes} of them, got {value!r}")
    return tuple([v if type(v) is int and v >= low else integer(v, name, low) for v in value])


def _arguments(axes, input, weight, bias, groups, transposed):
    """The checked tensors, with a batch axis, and whether it was added."""
    w = as_float(weight, "weight")
    x = as_tensor(input, "input", w._code)
    groups = integer(groups, "groups", 1)
    if w.ndim != axes + 2:
        order = "[in, out / groups, kernel]" if transposed else "[out, in / groups, kernel]"
        raise ValueError(f"weight: expected {axes + 2} dimensions {order}, got shape {w.shape}")
    if 0 in w.shape:
        raise ValueError(f"weight: expected no empty dimension, got shape {w.shape}")
    alone = x.ndim == axes + 1
    if not alone and x.ndim != axes + 2:
        raise ValueError(f"input: expected [N, C, {axes} spatial sizes] or [C, ...], got shape {x.shape}")
    if alone:
        x = reshape(x, (1, *x.shape))
    channels = w.shape[0] if transposed else w.shape[1] * groups
    if x.shape[1] != channels:
        raise ValueError(
            f"input: expected {channels} channels for weight {w.shape} and groups {groups}, got {x.shape[1]}"
        )
    if w.shape[0] % groups:
        raise ValueError(f"groups: {groups} does not divide the weight's first size {w.shape[0]}")
    b = None
    if bias is not None:
        b = as_tensor(bias, "bias", w._code)
        out = w.shape[1] * groups if transposed else w.shape[0]
        if b.shape != (out,):
            raise ValueError(f"bias: expected shape ({out},), got {b.shape}")
    return x, w, b, groups, alone


def front_and_behind(padding, kernel, stride, dilation):
    """(in front, behind) of each axis."""
    if isinstance(padding, str):
        one_of(padding, "padding", ("valid", "same"))
        if padding == "valid":
            return [(0, 0)] * len(kernel)
        if any(s != 1 for s in stride):
            raise ValueError(f"padding: 'same' needs stride 1, got {stride}")
        total = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return [(t // 2, t - t // 2) for t in total]
    return [(p, p) for p in per_axis(padding, len(kernel), "padding", 0)]


def _conv(axes, input, weight, bias, stride, padding, dilation, groups):
    x, w, b, groups, alone = _arguments(axes, input, weight, bias, groups, False)
    kernel = w.shape[2:]
    stride, dilation = per_axis(stride, axes, "stride", 1), per_axis(dilation, axes, "dilation", 1)
    pads = front_and_behind(padding, kernel, stride, dilation)
    out = []
    for n, k, s, d, (front, behind) in zip(x.shape[2:], kernel, stride, dilation, pads):
        room = n + front + behind - d * (k - 1) - 1
        if room < 0 or k < 1:
            raise ValueError(
                f"input: spatial sizes {x.shape[2:]} are smaller than the kernel {kernel} (dilation {dilation})"
            )
        out.append(room // s + 1)
    g = Geometry(kernel, stride, tuple(front for front, _ in pads), dilation, groups)
    d = channels_last(x)
    y = kernels.forward(d, w, b, g, tuple(out))

    def backward(dy):
        return (
            kernels.input_gradient(dy, w, g, d.shape) if x.requires_grad else None,
            kernels.weight_gradient(d, dy, g, w.shape) if w.requires_grad else None,
            reduce(SUM, kernels.rows_of(dy), 0, 1)[0] if b is not None and b.requires_grad else None,
        )

    saved = [t for t, other in ((d, w), (w, x)) if other.requires_grad]
    y = _tape.record(y, f"conv{axes}d", (x, w, b), backward, tuple(saved))
    return getitem(y, 0) if alone else y


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """y[n, k, i] = b[k] + sum over c, r of w[k, c, r] x[n, c, stride i + dilation r - padding], x being 0 outside.

    Args:
        input: [N, C, L] or [C, L]; an array is converted to the weight's dtype.
        weight: [K, C / groups, R].
        bias: [K] or None.
        stride, dilation: integers >= 1.
        padding: integer >= 0, 'valid' (0), or 'same' (output as long as the input; stride 1 only).
        groups: divides C and K; each group of channels sees its own.

    Returns:
        [N, K, (L + 2 padding - dilation (R - 1) - 1) // stride + 1], or without N; channels-last in memory.

    Raises:
        ValueError: a shape does not fit, or the input is smaller than the kernel.
        TypeError: a Tensor of another dtype than the weight's.

    >>> import nncore
    >>> conv1d(nncore.ones(1, 1, 4), nncore.ones(1, 1, 3)).tolist()
    [[[3.0, 3.0]]]
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of images: input [N, C, H, W] (or [C, H, W]), weight [K, C / groups, R, S]; stride, padding and
    dilation are integers or pairs. Otherwise as conv1d.

    >>> import nncore
    >>> conv2d(nncore.ones(2, 3, 8, 8), nncore.ones(4, 3, 3, 3), padding="same").shape
    (2, 4, 8, 8)
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of volumes: input [N, C, D, H, W] (or without N), weight [K, C / groups, T, R, S]; stride, padding
    and dilation are integers or triples. Otherwise as conv1d.

    >>> import nncore
    >>> conv3d(nncore.ones(1, 2, 4, 4, 4), nncore.ones(3, 2, 2, 2, 2)).shape
    (1, 3, 3, 3, 3)
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(axes, input, weight, bias, stride, padding, output_padding, groups, dilation):
    x, w, b, groups, alone = _arguments(axes, input, weight, bias, groups, True)
    kernel = w.shape[2:]
    stride, dilation = per_axis(stride, axes, "stride", 1), per_axis(dilation, axes, "dilation", 1)
    padding = per_axis(padding, axes, "padding", 0)
    extra = per_axis(output_padding, axes, "output_padding", 0)
    out = []
    for n, k, s, d, p, e in zip(x.shape[2:], kernel, stride, dilation, padding, extra):
        if e >= max(s, d):
            raise ValueError(f"output_padding: must be smaller than stride or dilation, got {extra}")
        size = (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        if size < 1 or n < 1:
            raise ValueError(f"input: spatial sizes {x.shape[2:]} give an output of size {size}")
        out.append(size)
    g = Geometry(kernel, stride, padding, dilation, groups)
    shape = (x.shape[0], w.shape[1] * groups, *out)
    y = kernels.input_gradient(x, w, g, shape, b)

    # The transposed convolution is the gradient of a convolution, so its gradients are that convolution.
    def backward(dy):
        return (
            kernels.forward(dy, w, None, g, x.shape[2:]) if x.requires_grad else None,
            kernels.weight_gradient(dy, x, g, w.shape) if w.requires_grad else None,
            reduce(SUM, kernels.rows_of(dy), 0, 1)[0] if b is not None and b.requires_grad else None,
        )

    y = _tape.record(y, f"conv_transpose{axes}d", (x, w, b), backward, crosswise(x, w))
    return getitem(y, 0) if alone else y


def conv_transpose1d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The gradient of conv1d for its input, as a layer: input [N, C, L], weight [C, K / groups, R], bias [K] ->
    [N, K, (L - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1].

    >>> import nncore
    >>> conv_transpose1d(nncore.ones(1, 1, 2), nncore.ones(1, 1, 2), stride=2).tolist()
    [[[1.0, 1.0, 1.0, 1.0]]]
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The gradient of conv2d for its input, as a layer: input [N, C, H, W], weight [C, K / groups, R, S].

    >>> import nncore
    >>> conv_transpose2d(nncore.ones(1, 4, 5, 5), nncore.ones(4, 3, 3, 3), stride=2).shape
    (1, 3, 11, 11)
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The gradient of conv3d for its input, as a layer: input [N, C, D, H, W], weight [C, K / groups, T, R, S].

    >>> import nncore
    >>> conv_transpose3d(nncore.ones(1, 1, 2, 2, 2), nncore.ones(1, 1, 2, 2, 2)).shape
    (1, 1, 3, 3, 3)
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
