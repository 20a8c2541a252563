"""Oracles: what each kernel should compute, written plainly in NumPy, one precision above the kernel's.

Nothing here imports nncore, so nothing here can inherit its mistakes. `wide` gives the working precision: float64 for
float32 kernels, the platform's long double for float64 kernels.
"""

import numpy as np


def wide(x):
    """x one precision up."""
    x = np.asarray(x)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return x.astype(np.longdouble if x.dtype in (np.float64, np.longdouble) else np.float64)


# ---- elementwise: OPS[name](a, b, c, s, t), on wide arrays ----


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


OPS = {
    "fill": lambda a, b, c, s, t: np.full_like(a, s),
    "copy": lambda a, b, c, s, t: a,
    "neg": lambda a, b, c, s, t: -a,
    "abs": lambda a, b, c, s, t: np.abs(a),
    "sign": lambda a, b, c, s, t: np.sign(a),
    "square": lambda a, b, c, s, t: a * a,
    "sqrt": lambda a, b, c, s, t: np.sqrt(a),
    "reciprocal": lambda a, b, c, s, t: 1 / a,
    "exp": lambda a, b, c, s, t: np.exp(a),
    "log": lambda a, b, c, s, t: np.log(a),
    "tanh": lambda a, b, c, s, t: np.tanh(a),
    "sigmoid": lambda a, b, c, s, t: _sigmoid(a),
    "relu": lambda a, b, c, s, t: np.where(a <= 0, 0, a),
    "affine": lambda a, b, c, s, t: a * s + t,
    "scale": lambda a, b, c, s, t: a * s,
    "add_scalar": lambda a, b, c, s, t: a + s,
    "rsub_scalar": lambda a, b, c, s, t: s - a,
    "rdiv_scalar": lambda a, b, c, s, t: s / a,
    # an array of exponents: for a single 0.5 NumPy takes the square root, which is not C's pow at -inf
    "pow_scalar": lambda a, b, c, s, t: np.power(a, np.full_like(a, s)),
    "add": lambda a, b, c, s, t: a + b,
    "sub": lambda a, b, c, s, t: a - b,
    "mul": lambda a, b, c, s, t: a * b,
    "div": lambda a, b, c, s, t: a / b,
    "pow": lambda a, b, c, s, t: np.power(a, b),
    "maximum": lambda a, b, c, s, t: np.maximum(a, b),
    "minimum": lambda a, b, c, s, t: np.minimum(a, b),
    "axpy": lambda a, b, c, s, t: s * a + b,
    "eq": lambda a, b, c, s, t: 1.0 * (a == b),
    "ne": lambda a, b, c, s, t: 1.0 * (a != b),
    "lt": lambda a, b, c, s, t: 1.0 * (a < b),
    "le": lambda a, b, c, s, t: 1.0 * (a <= b),
    "gt": lambda a, b, c, s, t: 1.0 * (a > b),
    "ge": lambda a, b, c, s, t: 1.0 * (a >= b),
    "where": lambda a, b, c, s, t: np.where(a != 0, b, c),
    "clamp": lambda a, b, c, s, t: np.clip(a, s, t),
    "mse": lambda a, b, c, s, t: (a - b) ** 2,
    # backward: a is dy
    "abs_backward": lambda a, b, c, s, t: np.where(np.isnan(b), b, np.where(b == 0, 0, a * np.copysign(1, b))),
    "square_backward": lambda a, b, c, s, t: 2 * a * b,
    "sqrt_backward": lambda a, b, c, s, t: 0.5 * a / b,
    "reciprocal_backward": lambda a, b, c, s, t: -a * b * b,
    "tanh_backward": lambda a, b, c, s, t: a * (1 - b * b),
    "sigmoid_backward": lambda a, b, c, s, t: a * b * (1 - b),
    "relu_backward": lambda a, b, c, s, t: np.where(b <= 0, 0, a),
    "pow_scalar_backward": lambda a, b, c, s, t: a * s * np.power(b, np.full_like(b, s - 1)),
    "div_backward_b": lambda a, b, c, s, t: -a * b / c,
    "pow_backward_a": lambda a, b, c, s, t: np.where(c == 0, 0, a * c * np.power(b, c - 1)),
    "pow_backward_b": lambda a, b, c, s, t: np.where(b == 0, 0, a * c * np.log(b)),
    "max_backward": lambda a, b, c, s, t: np.where(b == c, a, 0),
    "maximum_backward": lambda a, b, c, s, t: a * np.where(b > c, 1.0, np.where(b == c, 0.5, 0.0)),
    "minimum_backward": lambda a, b, c, s, t: a * np.where(b < c, 1.0, np.where(b == c, 0.5, 0.0)),
    "clamp_backward": lambda a, b, c, s, t: np.where((b >= s) & (b <= t), a, 0),
    "mse_backward": lambda a, b, c, s, t: a * s * (b - c),
}


def elementwise(name, operands, s=0.0, t=0.0):
    """OPS[name] on up to three arrays that broadcast; s and t as the arrays' dtype holds them."""
    dtype = operands[0].dtype.type
    x = [wide(o) for o in np.broadcast_arrays(*operands)] + [None] * (3 - len(operands))
    with np.errstate(all="ignore"):
        return np.asarray(OPS[name](*x, wide(dtype(s)), wide(dtype(t))))


# ---- products ----


def matmul(a, b):
    """(a @ b, sum over k of |a||b|): the second is what rounding errors are measured by."""
    a, b = wide(a), wide(b)
    with np.errstate(all="ignore"):
        return np.matmul(a, b), np.matmul(np.abs(a), np.abs(b))


# ---- rows ----


def softmax(x, log=False):
    """Over the last axis."""
    x = wide(x)
    with np.errstate(all="ignore"):
        z = x - x.max(-1, keepdims=True)
        e = np.exp(z)
        total = e.sum(-1, keepdims=True)
        return z - np.log(total) if log else e / total


def softmax_backward(y, dy, log=False):
    """The gradient for softmax's input, from its output y."""
    y, dy = wide(y), wide(dy)
    return dy - np.exp(y) * dy.sum(-1, keepdims=True) if log else y * (dy - (dy * y).sum(-1, keepdims=True))


def cross_entropy(x, target):
    """Each row's loss."""
    return -softmax(x, log=True)[np.arange(len(x)), target]


def cross_entropy_backward(x, target, dy):
    """d (sum_i dy_i loss_i) / dx."""
    dx = softmax(x)
    dx[np.arange(len(x)), target] -= 1
    return dx * wide(dy)[:, None]


# ---- optimizers: one step, as torch.optim documents them ----


def sgd(p, g, buf, lr, momentum, dampening, weight_decay, nesterov, maximize, first):
    """(p, buf) after the step."""
    p, g, buf = wide(p), wide(g), wide(buf)
    if maximize:
        g = -g
    g = g + weight_decay * p
    if momentum:
        buf = g if first else momentum * buf + (1 - dampening) * g
        g = g + momentum * buf if nesterov else buf
    return p - lr * g, buf


def adam(p, g, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, maximize, step):
    """(p, m, v) after step number `step`, from 1."""
    p, g, m, v = wide(p), wide(g), wide(m), wide(v)
    if maximize:
        g = -g
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    mean, var = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * mean / (np.sqrt(var) + eps), m, v


# ---- random numbers ----


def philox4x32(counter, key, rounds):
    """Philox4x32 (Salmon et al., SC11): counter is 4 arrays of 32-bit words, key 2 words."""
    word = np.uint64(0xFFFFFFFF)
    c = [np.asarray(x, np.uint64) for x in counter]
    k = [int(x) for x in key]
    for _ in range(rounds):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
            p1 & word,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            p0 & word,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def _words(groups, seed, stream):
    """[groups, 4, 16]: word w of counter 16 g + j."""
    counter = np.arange(groups * 16, dtype=np.uint64)
    low, high = counter & np.uint64(0xFFFFFFFF), counter >> np.uint64(32)
    c = (low, high, np.full_like(low, stream & 0xFFFFFFFF), np.full_like(low, stream >> 32))
    w = philox4x32(c, (seed & 0xFFFFFFFF, seed >> 32), 7)
    return np.stack([x.reshape(groups, 16) for x in w], 1)


def _units(n, dtype, seed, stream):
    """[groups, numbers / 16, 16] on [0, 1): 24 bits of a word in float32, 53 bits of two in float64."""
    per = 64 if dtype == np.float32 else 32
    w = _words(-(-n // per), seed, stream)
    if dtype == np.float32:
        return (w >> np.uint64(8)) * 2.0**-24
    return ((w[:, 0::2] << np.uint64(32) | w[:, 1::2]) >> np.uint64(11)) * 2.0**-53


def uniform(n, dtype, seed, stream):
    """n numbers on [0, 1), exactly."""
    return _units(n, dtype, seed, stream).reshape(-1)[:n].astype(dtype)


def normal(n, dtype, seed, stream):
    """(n standard normal numbers by Box and Muller, the radius that each came from)."""
    u = wide(_units(n, dtype, seed, stream).astype(dtype))
    r = np.sqrt(-2 * np.log(u[:, 0::2] + (2.0**-24 if dtype == np.float32 else 2.0**-53)))
    turn = 2 * np.arccos(u.dtype.type(-1)) * u[:, 1::2]
    y = np.stack([r * np.cos(turn), r * np.sin(turn)], 2)
    return y.reshape(-1)[:n], np.stack([r, r], 2).reshape(-1)[:n]


def dropout_keep(n, p, seed, stream):
    """Which of n elements stay: half h of word w of counter j decides position 32 w + 16 h + j of a group of 128."""
    w = _words(-(-n // 128), seed, stream)
    halves = np.stack([w & np.uint64(0xFFFF), w >> np.uint64(16)], 2)
    return halves.reshape(-1)[:n] >= int(p * 65536 + 0.5)
