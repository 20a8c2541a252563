"""Initialization in place, under torch.nn.init's names. Each writes into the tensor and returns it.

fan_in and fan_out are the inputs and outputs of one unit: for a weight [O, I, k1, ...], I k1 ... and O k1 ...
"""

import math

import numpy as np

from nncore import _random
from nncore._core import elementwise, rng
from nncore._core.tensor import TensorBase, from_array, new_empty
from nncore._ops._check import FLOAT64, number, one_of
from nncore._ops.shape import writable

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def _check(tensor):
    if not isinstance(tensor, TensorBase):
        raise TypeError(f"tensor: expected a Tensor, got {type(tensor).__name__}")
    if not tensor._floating:
        raise TypeError(f"tensor: expected float32 or float64, got {tensor.dtype}")
    writable(tensor)
    return tensor


def _draw(tensor, dist, a, b):
    _check(tensor)
    if tensor._contiguous:
        return _random.fill(tensor, dist, a, b)
    elementwise.copy_into(tensor, _random.fill(new_empty(tensor.shape, tensor._code), dist, a, b))
    return tensor


def calculate_gain(nonlinearity, param=None):
    """Factor by which a layer before this nonlinearity is scaled to keep the variance.

    >>> calculate_gain("relu") ** 2
    2.0000000000000004
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else number(param, "param")
        return math.sqrt(2 / (1 + slope**2))
    one_of(nonlinearity, "nonlinearity", ("leaky_relu", *_GAINS))
    return _GAINS[nonlinearity]


def _fans(tensor):
    _check(tensor)
    if tensor.ndim < 2:
        raise ValueError(f"tensor: fans need at least 2 dimensions, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def uniform_(tensor, a=0.0, b=1.0):
    """Uniform on [a, b)."""
    return _draw(tensor, rng.UNIFORM, number(a, "a"), number(b, "b"))


def normal_(tensor, mean=0.0, std=1.0):
    """Normal of this mean and standard deviation."""
    return _draw(tensor, rng.NORMAL, number(mean, "mean"), number(std, "std", 0))


def constant_(tensor, val):
    """One number everywhere."""
    elementwise.fill(_check(tensor), number(val, "val"))
    return tensor


def zeros_(tensor):
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor):
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor):
    """The identity, for a matrix."""
    if _check(tensor).ndim != 2:
        raise ValueError(f"tensor: expected 2 dimensions, got shape {tensor.shape}")
    elementwise.copy_into(tensor, from_array(np.eye(*tensor.shape)))
    return tensor


def xavier_uniform_(tensor, gain=1.0):
    """Uniform on (-a, a), a = gain sqrt(6 / (fan_in + fan_out)). Glorot, Bengio, AISTATS 2010."""
    fan_in, fan_out = _fans(tensor)
    a = number(gain, "gain") * math.sqrt(6 / max(fan_in + fan_out, 1))  # 0: nothing to fill
    return uniform_(tensor, -a, a)


def xavier_normal_(tensor, gain=1.0):
    """Normal of standard deviation gain sqrt(2 / (fan_in + fan_out)). Glorot, Bengio, AISTATS 2010."""
    fan_in, fan_out = _fans(tensor)
    return normal_(tensor, 0.0, number(gain, "gain") * math.sqrt(2 / max(fan_in + fan_out, 1)))


def _kaiming_std(tensor, a, mode, nonlinearity):
    one_of(mode, "mode", ("fan_in", "fan_out"))
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))  # 0: nothing to fill


def kaiming_uniform_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu"):
    """Uniform on (-c, c), c = gain sqrt(3 / fan). He et al., ICCV 2015."""
    c = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -c, c)


def kaiming_normal_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu"):
    """Normal of standard deviation gain / sqrt(fan). He et al., ICCV 2015."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def default_(weight, bias=None):
    """torch's default for linear and convolutional layers: both uniform on (-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    fan = _fans(weight)[0]
    bound = 1 / math.sqrt(fan) if fan else 0.0
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)
    return weight


def orthogonal_(tensor, gain=1.0):
    """Rows (or columns, if there are more rows) orthonormal, times gain. Saxe, McClelland, Ganguli, 2013."""
    _check(tensor)
    if tensor.ndim < 2:
        raise ValueError(f"tensor: expected at least 2 dimensions, got shape {tensor.shape}")
    rows, cols = tensor.shape[0], math.prod(tensor.shape[1:])
    flat = _random.fill(new_empty((max(rows, cols), min(rows, cols)), FLOAT64), rng.NORMAL, 0.0, 1.0)
    q, r = np.linalg.qr(flat.numpy())
    q = q * np.sign(np.diag(r))
    q = (q.T if rows < cols else q) * number(gain, "gain")
    elementwise.copy_into(tensor, from_array(np.ascontiguousarray(q.reshape(tensor.shape))))
    return tensor
