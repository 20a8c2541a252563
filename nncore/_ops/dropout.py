"""Dropout of whole channels, and for SELU networks; noise. (Plain dropout: activation.py.)"""

import math

from nncore import _random
from nncore._core import elementwise, rng
from nncore._core.tensor import new_empty
from nncore._ops._check import as_float, number
from nncore._ops.activation import dropout
from nncore._ops.arithmetic import add, mul

_SATURATION = 1.7580993408473766  # minus SELU's limit at -inf


def _by_channel(x, p, leading):
    """x with whole channels dropped: those that the first `leading` axes count."""
    shape = x.shape[:leading]
    ones = new_empty(shape, x._code)
    elementwise.fill(ones, 1.0)
    mask = dropout(ones, p)
    return mul(x, mask._view(shape + (1,) * (x.ndim - leading), mask.strides + (0,) * (x.ndim - leading), 0))


def _channels(name, unbatched, batched, shapes, doc):
    def apply(input, p=0.5, training=True):
        x = as_float(input)
        p = number(p, "p", 0, 1)
        if x.ndim not in (unbatched, batched):
            raise ValueError(f"input: expected {shapes}, got shape {x.shape}")
        if not training or p == 0:
            return x
        return _by_channel(x, p, 2 if x.ndim == batched or name == "dropout2d" else 1)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


_CHANNELS = """In training, zeroes whole channels of {0} with probability p and scales the others by 1 / (1 - p).
Tompson
    et al., CVPR 2015.

    >>> import nncore
    >>> {1}(nncore.ones({2}), training=False).sum().item()
    6.0
    """

dropout1d = _channels("dropout1d", 2, 3, "[C, L] or [N, C, L]", _CHANNELS.format("[N, C, L]", "dropout1d", "1, 2, 3"))
dropout2d = _channels(
    "dropout2d", 3, 4, "[N, C, L] or [N, C, H, W]", _CHANNELS.format("[N, C, H, W]", "dropout2d", "1, 2, 3, 1")
)
dropout3d = _channels(
    "dropout3d",
    4,
    5,
    "[C, D, H, W] or [N, C, D, H, W]",
    _CHANNELS.format("[N, C, D, H, W]", "dropout3d", "1, 2, 3, 1, 1"),
)


def _alpha(x, p, drop):
    """a (kept ? x : -s) + a s p: with s added before and taken away after, it is plain dropout."""
    a = 1 / math.sqrt((_SATURATION**2 * p + 1) * (1 - p)) if p < 1 else 0.0
    kept = drop(add(x, _SATURATION), p)
    return add(mul(kept, a * (1 - p)), a * _SATURATION * (p - 1))


def alpha_dropout(input, p=0.5, training=False):
    """Dropout that keeps mean 0 and variance 1: in training, a element becomes -s with probability p, s = 1.7581 being
    where SELU saturates; then a x + a s p with a = 1 / sqrt((1 - p) (1 + p s^2)). Klambauer et al., NIPS 2017.

    >>> import nncore
    >>> alpha_dropout(nncore.ones(3), 0.5).tolist()
    [1.0, 1.0, 1.0]
    """
    x = as_float(input)
    p = number(p, "p", 0, 1)
    return _alpha(x, p, dropout) if training and p > 0 else x


def feature_alpha_dropout(input, p=0.5, training=False):
    """alpha_dropout of whole channels of [N, C, ...].

    >>> import nncore
    >>> feature_alpha_dropout(nncore.ones(1, 3), 0.5).tolist()
    [[1.0, 1.0, 1.0]]
    """
    x = as_float(input)
    p = number(p, "p", 0, 1)
    if x.ndim < 2:
        raise ValueError(f"input: expected [N, C, ...], got shape {x.shape}")
    return _alpha(x, p, lambda x, p: _by_channel(x, p, 2)) if training and p > 0 else x


def gaussian_noise(input, std=0.1, training=True):
    """In training x + std n, n drawn from the standard normal distribution for each element; nothing in evaluation.
    Sietsma, Dow, "Creating artificial neural networks that generalize", 1991.

    Args:
        input: Tensor or array of floats.
        std: standard deviation, >= 0, in the input's units.
        training: whether noise is added.

    >>> import nncore
    >>> gaussian_noise(nncore.ones(2), training=False).tolist()
    [1.0, 1.0]
    """
    x = as_float(input)
    std = number(std, "std", 0)
    if not training or std == 0:
        return x
    noise = new_empty(x.shape, x._code)
    rng.fill_random(noise, rng.NORMAL, 0.0, std, *_random.default_generator.next_stream())
    return add(x, noise)
