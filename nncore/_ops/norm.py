"""Normalization: batch, instance, group, layer and RMS normalization are one kernel, which sees [N, P, C] and the
number of groups that the channels fall into; local response normalization is another."""

from math import prod

import numpy as np

from nncore import _tape
from nncore._core import norm as kernels
from nncore._core.elementwise import channels_last, contiguous, copy_into
from nncore._core.tensor import TensorBase
from nncore._ops._check import as_float, as_tensor, integer, number
from nncore._ops.shape import permute, reshape, writable


def _tensors(input, **others):
    """The input and the others that are not None as floating Tensors of one dtype: that of a Tensor among the others,
    or the input's. Arrays are converted to it."""
    name, decides = "input", input
    for n, t in others.items():
        if isinstance(t, TensorBase):
            name, decides = n, t
            break
    dtype = as_float(decides, name)._code
    x = as_tensor(input, "input", dtype)
    return x, [t if t is None else as_tensor(t, n, dtype) for n, t in others.items()]


def _check_shape(t, name, shape):
    if t is not None and t.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {t.shape}")


def _check_running(mean, var, weight, bias, channels):
    for t, name in ((weight, "weight"), (bias, "bias"), (mean, "running_mean"), (var, "running_var")):
        _check_shape(t, name, (channels,))
    if (mean is None) != (var is None):
        raise ValueError("running_mean: running_mean and running_var must both be given, or neither")


def _check_written(**buffers):
    """Statistics that are updated must be tensors, and not results of the graph."""
    for name, t in buffers.items():
        if t is not None and not isinstance(t, TensorBase):
            raise TypeError(f"{name}: expected a Tensor, which is updated, got {type(t).__name__}")
        if t is not None:
            writable(t)


def _dense(t):
    """t with its channels next to each other."""
    return channels_last(t) if t.ndim > 2 else contiguous(t)


def _normalize(
    name,
    x,
    weight,
    bias,
    geometry,
    eps,
    dense=_dense,
    running=(None, None),
    fixed=False,
    rms=False,
    momentum=0.0,
    batches=None,
):
    """y = (x - mean) rstd weight + bias, recorded. dense: brings x and dy into the order of the geometry,
    (N, P, C, G); weight and bias are [C]. running: mean and variance, used if `fixed`, else updated."""
    d = dense(x)
    w, b, *stats = [t if t is None else contiguous(t) for t in (weight, bias, *running)]
    y, mean, rstd = kernels.forward(d, w, b, geometry, eps, rms, False, *stats, fixed, momentum, batches)
    if not fixed:
        for given, own in zip(running, stats):
            if given is not own:
                copy_into(given, own)

    def backward(dy):
        wanted = [t is not None and t.requires_grad for t in (x, weight, bias)]
        return kernels.backward(d, dense(dy), w, None, mean, rstd, geometry, *wanted, rms, fixed)

    reads_x = not fixed or (weight is not None and weight.requires_grad)
    saved = (d if reads_x else None, w)
    return _tape.record(y, name, (x, weight, bias), backward, tuple(t for t in saved if t is not None))


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """y = (x - mean[c]) / sqrt(var[c] + eps) weight[c] + bias[c], with the statistics of channel c over the batch in
    training, or the running ones. Ioffe, Szegedy, ICML 2015.

    Args:
        input: [N, C] or [N, C, spatial sizes].
        running_mean, running_var: [C]. In training they become (1 - momentum) old + momentum new, the new variance
            being the unbiased one, unless they are None.
        weight, bias: [C], or None: 1 and 0.
        training: normalize by the batch's statistics, and update the running ones.
        momentum: share of the new statistics.
        eps: added to the variance; above 0 in training.

    Returns:
        The shape of the input; channels-last in memory.

    Raises:
        ValueError: a shape does not fit, or in training a channel has one value only.
        TypeError: a Tensor of another dtype.

    >>> import nncore
    >>> batch_norm(nncore.tensor([[1.0], [3.0]]), None, None, training=True, eps=1e-12).tolist()
    [[-1.0], [1.0]]
    """
    momentum = number(momentum, "momentum", 0, 1)
    return counted_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, None)


def counted_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, batches):
    """batch_norm that counts up `batches`, an int64 tensor or None; momentum None (with batches): 1 / batches."""
    training = bool(training)
    if training:
        _check_written(running_mean=running_mean, running_var=running_var)
    x, (w, b, rm, rv) = _tensors(input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if x.ndim < 2:
        raise ValueError(f"input: expected [N, C] or [N, C, spatial sizes], got shape {x.shape}")
    channels = x.shape[1]
    _check_running(rm, rv, w, b, channels)
    eps = number(eps, "eps", 0, low_open=training)
    points = x.shape[0] * prod(x.shape[2:])
    if training and points == 1:
        raise ValueError(f"input: expected more than 1 value per channel when training, got shape {x.shape}")
    if not training and rm is None:
        raise ValueError("running_mean: expected running statistics in evaluation, got None")
    return _normalize(
        "batch_norm",
        x,
        w,
        b,
        (1, points, channels, channels),
        eps,
        running=(rm, rv),
        fixed=not training,
        momentum=-1.0 if momentum is None else momentum,
        batches=batches,
    )


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """batch_norm with the statistics of each image alone: over the points of channel c of image n. Ulyanov, Vedaldi,
    Lempitsky, arXiv:1607.08022.

    Args:
        input: [N, C, spatial sizes].
        running_mean, running_var: [C] or None; updated with the mean over the images of their statistics.
        weight, bias: [C], or None: 1 and 0.
        use_input_stats: normalize by the images' statistics; False: by the running ones.
        momentum: share of the new statistics.
        eps: added to the variance.

    >>> import nncore
    >>> instance_norm(nncore.tensor([[[1.0, 3.0]]]), eps=1e-12).tolist()
    [[[-1.0, 1.0]]]
    """
    own = bool(use_input_stats)
    if own:
        _check_written(running_mean=running_mean, running_var=running_var)
    x, (w, b, rm, rv) = _tensors(input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if x.ndim < 3:
        raise ValueError(f"input: expected [N, C, spatial sizes], got shape {x.shape}")
    channels, points = x.shape[1], prod(x.shape[2:])
    _check_running(rm, rv, w, b, channels)
    eps, momentum = number(eps, "eps", 0), number(momentum, "momentum", 0, 1)
    if own and points == 1:
        raise ValueError(f"input: expected more than 1 spatial element when training, got shape {x.shape}")
    if not own and rm is None:
        raise ValueError("running_mean: expected running statistics without use_input_stats, got None")
    images = (x.shape[0], points) if own else (1, x.shape[0] * points)
    geometry = (*images, channels, channels)
    return _normalize("instance_norm", x, w, b, geometry, eps, running=(rm, rv), fixed=not own, momentum=momentum)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """y = (x - mean) / sqrt(var + eps) weight[c] + bias[c], with the statistics of each image over groups of
    C / num_groups neighbouring channels and all points. Wu, He, ECCV 2018.

    Args:
        input: [N, C] or [N, C, spatial sizes].
        num_groups: divides C.
        weight, bias: [C], or None: 1 and 0.
        eps: added to the variance.

    >>> import nncore
    >>> group_norm(nncore.tensor([[1.0, 3.0, 5.0, 9.0]]), 2, eps=1e-12).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    groups = integer(num_groups, "num_groups", 1)
    x, (w, b) = _tensors(input, weight=weight, bias=bias)
    if x.ndim < 2:
        raise ValueError(f"input: expected [N, C] or [N, C, spatial sizes], got shape {x.shape}")
    n, channels, points = x.shape[0], x.shape[1], prod(x.shape[2:])
    if channels % groups:
        raise ValueError(f"num_groups: {groups} does not divide the {channels} channels of the input {x.shape}")
    _check_shape(w, "weight", (channels,))
    _check_shape(b, "bias", (channels,))
    eps = number(eps, "eps", 0)
    if n * channels // groups * points == 1:
        raise ValueError(f"input: expected more than 1 value per group when training, got shape {x.shape}")
    return _normalize("group_norm", x, w, b, (n, points, channels, groups), eps)


def normalized_shape_argument(normalized_shape):
    """A tuple of at least one size."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not shape:
        raise ValueError("normalized_shape: expected at least one size, got none")
    return tuple(integer(n, "normalized_shape", 0) for n in shape)


def _row_norm(name, input, normalized_shape, weight, bias, eps, rms):
    shape = normalized_shape_argument(normalized_shape)
    x, (w, b) = _tensors(input, weight=weight, bias=bias)
    axes = len(shape)
    if x.shape[max(0, x.ndim - axes) :] != shape:
        raise ValueError(f"input: expected shape (*, {', '.join(map(str, shape))}), got {x.shape}")
    _check_shape(w, "weight", shape)
    _check_shape(b, "bias", shape)
    eps = float(np.finfo(x.dtype).eps) if eps is None and rms else number(eps, "eps", 0)
    size = prod(shape)
    rows = prod(x.shape[: x.ndim - axes])
    images = x.channels_last and axes == x.ndim - 1
    if axes > 1:
        w, b = (None if t is None else _flat(t, images) for t in (w, b))
    return _normalize(name, x, w, b, (rows, 1, size, 1), eps, _dense if images else contiguous, rms=rms)


def _flat(t, images):
    """t as one row; with `images`, t being [C, spatial sizes], in channels-last order."""
    return reshape(permute(t, *range(1, t.ndim), 0) if images else t, (t.numel(),))


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """y = (x - mean) / sqrt(var + eps) weight + bias, with the statistics of the last dimensions. Ba, Kiros, Hinton,
    arXiv:1607.06450.

    Args:
        input: [*, normalized_shape].
        normalized_shape: sizes of the dimensions to normalize over, an integer for one.
        weight, bias: of that shape, or None: 1 and 0.
        eps: added to the variance.

    >>> import nncore
    >>> layer_norm(nncore.tensor([[1.0, 3.0]]), 2, eps=1e-12).tolist()
    [[-1.0, 1.0]]
    """
    return _row_norm("layer_norm", input, normalized_shape, weight, bias, eps, False)


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """y = x / sqrt(mean of x^2 + eps) weight, over the last dimensions. Zhang, Sennrich, NeurIPS 2019.

    Args:
        input: [*, normalized_shape].
        normalized_shape: sizes of the dimensions to normalize over, an integer for one.
        weight: of that shape, or None: 1.
        eps: added to the mean; the dtype's epsilon by default.

    >>> import nncore
    >>> rms_norm(nncore.tensor([[1.0, 7.0]]), 2, eps=0.0).tolist()
    [[0.20000000298023224, 1.399999976158142]]
    """
    return _row_norm("rms_norm", input, normalized_shape, weight, None, eps, True)


def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0):
    """y[c] = x[c] (k + alpha / size * sum of x^2 over `size` neighbouring channels)^-beta, 0 beyond the ends.
    Krizhevsky, Sutskever, Hinton, NeurIPS 2012 (whose alpha is not divided by size).

    Args:
        input: [N, C, spatial sizes].
        size: channels of a window, c - size // 2 .. c + (size - 1) // 2.
        alpha, beta, k: numbers.

    >>> import nncore
    >>> local_response_norm(nncore.ones(1, 1, 1), 1, alpha=3.0, beta=0.5).tolist()
    [[[0.5]]]
    """
    x = as_float(input)
    if x.ndim < 3:
        raise ValueError(f"input: expected [N, C, spatial sizes], got shape {x.shape}")
    size = integer(size, "size", 1)
    alpha, beta, k = number(alpha, "alpha"), number(beta, "beta"), number(k, "k")
    d = channels_last(x)
    y = kernels.lrn(d, None, size, alpha, beta, k)

    def backward(dy):
        return (kernels.lrn(d, channels_last(dy), size, alpha, beta, k),)

    return _tape.record(y, "local_response_norm", (x,), backward, (d,))
