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


def _softplus(a):
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def _times(a, b):
    """a * b, 0 where b is 0: the limit at infinity of a product of which b vanishes faster."""
    return np.where(b == 0, 0, a * b)


def _normal(z):
    """(P(-z), p(z)) of the standard normal distribution for z >= 0: by series, or by Laplace's continued fraction."""
    z = np.minimum(z, 200)
    top = np.round(z * 2**20) / 2**20  # exact square: z^2 must be, as its exponential is taken
    pi = z.dtype.type("3.14159265358979323846264338327950288")
    p = np.exp(-top * top / 2) * np.exp(-(z - top) * (z + top) / 2) / np.sqrt(2 * pi)
    term = total = np.minimum(z, 2)
    for k in range(1, 60):
        term = term * np.minimum(z, 2) ** 2 / (2 * k + 1)
        total = total + term
    f = far = np.maximum(z, 2)
    for k in range(250, 0, -1):
        f = far + k / f
    return np.where(z < 2, np.asarray(0.5, z.dtype) - p * total, p / f), p


def _gelu(a):
    q, _ = _normal(np.abs(a))
    return np.maximum(a, 0) - _times(np.abs(a), q)


def _gelu_slope(b):
    q, p = _normal(np.abs(b))
    h = q - _times(np.abs(b), p)
    return np.where(b < 0, h, 1 - h)


def _gelu_tanh_argument(a):
    root = np.sqrt(8 / a.dtype.type("3.14159265358979323846264338327950288"))
    return root * (a + a.dtype.type("0.044715") * a**3), root * (1 + 3 * a.dtype.type("0.044715") * a**2)


def _gelu_tanh_slope(b):
    b = np.clip(b, -100, 100)
    v, inner = _gelu_tanh_argument(b)
    return _sigmoid(v) * (1 + b * _sigmoid(-v) * inner)


def _silu_slope(b):
    b = np.clip(b, -20000, 20000)
    return _sigmoid(b) * (1 + b * _sigmoid(-b))


def _mish_slope(b):
    b = np.clip(b, -20000, 20000)
    return np.tanh(_softplus(b)) + b * _sigmoid(b) / np.cosh(_softplus(b)) ** 2


def _tanhshrink(a):
    near, z = np.where(np.abs(a) < 0.25, a, 0), np.where(np.abs(a) < 0.25, a, 0) ** 2
    total, power = 0, near * z  # of the Taylor series of tanh, by the recurrence tanh' = 1 - tanh^2
    c = [a.dtype.type(1)]
    for k in range(1, 20):
        c.append(-sum(c[i] * c[k - 1 - i] for i in range(k)) / (2 * k + 1))
        total = total - c[k] * power
        power = power * z
    return np.where(np.abs(a) < 0.25, total, a - np.tanh(a))


def _logs(p):
    """log p and log(1 - p), not below -100."""
    return np.maximum(-100, np.log(p)), np.maximum(-100, np.log1p(-p))


SELU_SCALE = "1.0507009873554804934193349852946"
SELU_ALPHA = "1.6732632423543772848170429916717"


def _selu(a, positive, negative):
    return a.dtype.type(SELU_SCALE) * np.where(a > 0, positive, a.dtype.type(SELU_ALPHA) * negative)


OPS = {
    "fill": lambda a, b, c, s, t: np.full_like(a, s),
    "copy": lambda a, b, c, s, t: a,
    "neg": lambda a, b, c, s, t: -a,
    "abs": lambda a, b, c, s, t: np.abs(a),
    "square": lambda a, b, c, s, t: a * a,
    "sqrt": lambda a, b, c, s, t: np.sqrt(a),
    "reciprocal": lambda a, b, c, s, t: 1 / a,
    "exp": lambda a, b, c, s, t: np.exp(a),
    "log": lambda a, b, c, s, t: np.log(a),
    "tanh": lambda a, b, c, s, t: np.tanh(a),
    "sigmoid": lambda a, b, c, s, t: _sigmoid(a),
    "relu": lambda a, b, c, s, t: np.where(a <= 0, 0, a),
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
    "maximum_backward": lambda a, b, c, s, t: a * np.where(b < c, 0.0, np.where(b == c, 0.5, 1.0)),
    "minimum_backward": lambda a, b, c, s, t: a * np.where(b > c, 0.0, np.where(b == c, 0.5, 1.0)),
    "clamp_backward": lambda a, b, c, s, t: np.where((b >= s) & (b <= t), a, 0),
    "mse_backward": lambda a, b, c, s, t: a * s * (b - c),
    # activations
    "heaviside": lambda a, b, c, s, t: np.where(np.isnan(a), a, np.where(a == 0, s, a > 0)),
    "leaky_relu": lambda a, b, c, s, t: np.where(a > 0, a, a * s),
    "leaky_relu_backward": lambda a, b, c, s, t: np.where(b > 0, a, a * s),
    "prelu": lambda a, b, c, s, t: np.where(a > 0, a, a * b),
    "prelu_backward": lambda a, b, c, s, t: np.where(b > 0, a, a * c),
    "prelu_backward_weight": lambda a, b, c, s, t: np.where(b > 0, 0, a * b),
    "hardtanh_backward": lambda a, b, c, s, t: np.where((b <= s) | (b >= t), 0, a),
    "elu": lambda a, b, c, s, t: np.where(a <= 0, s * np.expm1(a * t), a),
    "elu_backward": lambda a, b, c, s, t: np.where(b <= 0, a * s * t * np.exp(b * t), a),
    "selu": lambda a, b, c, s, t: _selu(a, a, np.expm1(a)),
    "selu_backward": lambda a, b, c, s, t: a * _selu(np.where(np.isnan(b), 1, b), 1, np.exp(b)),
    "gelu": lambda a, b, c, s, t: _gelu(a),
    "gelu_backward": lambda a, b, c, s, t: a * _gelu_slope(b),
    "gelu_tanh": lambda a, b, c, s, t: _times(a, _sigmoid(_gelu_tanh_argument(a)[0])),
    "gelu_tanh_backward": lambda a, b, c, s, t: a * _gelu_tanh_slope(b),
    "silu": lambda a, b, c, s, t: _times(a, _sigmoid(a)),
    "silu_backward": lambda a, b, c, s, t: a * _silu_slope(b),
    "mish": lambda a, b, c, s, t: _times(a, np.tanh(_softplus(a))),
    "mish_backward": lambda a, b, c, s, t: a * _mish_slope(b),
    "softplus": lambda a, b, c, s, t: np.where(a * s > t, a, _softplus(a * s) / s),
    "softplus_backward": lambda a, b, c, s, t: np.where(b * s > t, a, a * _sigmoid(b * s)),
    "softsign": lambda a, b, c, s, t: np.where(np.isinf(a), np.copysign(1, a), a / (1 + np.abs(a))),
    "softsign_backward": lambda a, b, c, s, t: a / (1 + np.abs(b)) / (1 + np.abs(b)),
    "hardsigmoid": lambda a, b, c, s, t: np.clip(a + 3, 0, 6) / 6,
    "hardsigmoid_backward": lambda a, b, c, s, t: np.where(np.abs(b) < 3, a / 6, 0),
    "hardswish": lambda a, b, c, s, t: np.where(a <= -3, 0, a * np.minimum((a + 3) / 6, 1)),
    "hardswish_backward": lambda a, b, c, s, t: np.where(b <= -3, 0, np.where(b < 3, a * (b / 3 + 0.5), a)),
    "log_sigmoid": lambda a, b, c, s, t: -_softplus(-a),
    "log_sigmoid_backward": lambda a, b, c, s, t: a * _sigmoid(-b),
    "tanhshrink": lambda a, b, c, s, t: _tanhshrink(a),
    "tanhshrink_backward": lambda a, b, c, s, t: a * np.tanh(b) * np.tanh(b),
    "softshrink": lambda a, b, c, s, t: np.where(np.abs(a) <= s, 0, a - np.copysign(s, a)),
    "hardshrink": lambda a, b, c, s, t: np.where(np.abs(a) <= s, 0, a),
    "shrink_backward": lambda a, b, c, s, t: np.where(np.abs(b) <= s, 0, a),
    "threshold": lambda a, b, c, s, t: np.where(a <= s, t, a),
    "threshold_backward": lambda a, b, c, s, t: np.where(b <= s, 0, a),
    "glu": lambda a, b, c, s, t: a * _sigmoid(b),
    "glu_backward_gate": lambda a, b, c, s, t: a * b * _sigmoid(c) * _sigmoid(-c),
    # losses; backward: a is dy
    "l1": lambda a, b, c, s, t: np.abs(a - b),
    "l1_backward": lambda a, b, c, s, t: a * s * np.sign(b - c),
    "huber": lambda a, b, c, s, t: t * np.where(np.abs(a - b) <= s, (a - b) ** 2 / 2, s * (np.abs(a - b) - s / 2)),
    "huber_backward": lambda a, b, c, s, t: a * s * np.clip(b - c, -t, t),
    "bce": lambda a, b, c, s, t: -b * _logs(a)[0] - (1 - b) * _logs(a)[1],
    "bce_backward": lambda a, b, c, s, t: a * s * (b - c) / np.maximum(1e-12, (1 - b) * b),
    "bce_backward_target": lambda a, b, c, s, t: a * s * (_logs(b)[1] - _logs(b)[0]),
    "bce_logits": lambda a, b, c, s, t: (
        b * np.maximum(0, -a) + ((1 - b) * np.maximum(0, a) + np.log1p(np.exp(-np.abs(a))))
    ),
    "bce_logits_backward": lambda a, b, c, s, t: a * s * (_sigmoid(b) - c),
    "kl_div": lambda a, b, c, s, t: np.where(b == 0, 0, b * np.log(b)) - b * a,
    "kl_div_backward": lambda a, b, c, s, t: a * -s * c,
    "kl_div_backward_target": lambda a, b, c, s, t: a * s * (np.log(c) + 1 - b),
    "kl_div_log": lambda a, b, c, s, t: np.exp(b) * (b - a),
    "kl_div_log_backward": lambda a, b, c, s, t: a * -s * np.exp(c),
    "kl_div_log_backward_target": lambda a, b, c, s, t: a * s * np.exp(c) * (c + 1 - b),
    "poisson": lambda a, b, c, s, t: a - b * np.log(a + s),
    "poisson_backward": lambda a, b, c, s, t: a * s * (1 - c / (b + t)),
    "poisson_backward_target": lambda a, b, c, s, t: a * -s * np.log(b + t),
    "poisson_log": lambda a, b, c, s, t: np.exp(a) - b * a,
    "poisson_log_backward": lambda a, b, c, s, t: a * s * (np.exp(b) - c),
    "product_backward_target": lambda a, b, c, s, t: a * -s * b,
    "hinge_embedding": lambda a, b, c, s, t: np.where(b == 1, 0, np.maximum(0, s - a)) + np.where(b == -1, 0, a),
    "hinge_embedding_backward": lambda a, b, c, s, t: a * s * (1.0 * (c != -1) - 1.0 * ((c != 1) & ~(b > t))),
    "soft_margin": lambda a, b, c, s, t: _softplus(-a * b),
    "soft_margin_backward": lambda a, b, c, s, t: a * -s * c * _sigmoid(-b * c),
    "soft_margin_backward_target": lambda a, b, c, s, t: a * -s * b * _sigmoid(-b * c),
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


# ---- convolution: (result, sum of the terms' magnitudes), one tap of the kernel after another ----


def _steps(tap, stride, dilation, out):
    """Where a tap meets the padded input, at each point of the result."""
    starts = [t * d for t, d in zip(tap, dilation)]
    return (..., *(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, stride, out)))


def _grouped(a, groups):
    """[N, channels, spatial] as [N, groups, channels of one, points]."""
    return a.reshape(len(a), groups, a.shape[1] // groups, int(np.prod(a.shape[2:])))


def _twice(f, a, b):
    a, b = wide(a), wide(b)
    with np.errstate(all="ignore"):
        return f(a, b), f(np.abs(a), np.abs(b))


def conv(x, w, stride, padding, dilation, groups=1):
    """x [N, C, spatial], w [K, C / groups, kernel]; padding: (in front, behind) of each axis."""
    kernel = w.shape[2:]
    sizes = zip(x.shape[2:], kernel, stride, padding, dilation)
    out = [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]

    def f(x, w):
        x = np.pad(x, [(0, 0), (0, 0), *padding])
        y = np.zeros((len(x), groups, len(w) // groups, int(np.prod(out))), x.dtype)
        for tap in np.ndindex(*kernel):
            seen = _grouped(x[_steps(tap, stride, dilation, out)], groups)
            y += np.matmul(w[(..., *tap)].reshape(groups, -1, w.shape[1]), seen)
        return y.reshape(len(x), len(w), *out)

    return _twice(f, x, w)


def conv_input_gradient(dy, w, size, stride, padding, dilation, groups=1):
    """The gradient for an input of spatial sizes `size`: each element of dy scattered to the inputs that it saw. The
    transposed convolution of dy, too."""
    out = dy.shape[2:]

    def f(dy, w):
        dx = np.zeros((len(dy), w.shape[1] * groups, *(n + sum(p) for n, p in zip(size, padding))), dy.dtype)
        for tap in np.ndindex(*w.shape[2:]):
            back = w[(..., *tap)].reshape(groups, len(w) // groups, w.shape[1]).transpose(0, 2, 1)
            at = _steps(tap, stride, dilation, out)
            dx[at] += np.matmul(back, _grouped(dy, groups)).reshape(dx[at].shape)
        return dx[(..., *(slice(p[0], p[0] + n) for n, p in zip(size, padding)))]

    return _twice(f, dy, w)


def conv_weight_gradient(x, dy, kernel, stride, padding, dilation, groups=1):
    """The gradient for a weight [K, C / groups, kernel]."""

    def f(x, dy):
        x = np.pad(x, [(0, 0), (0, 0), *padding])
        dw = np.zeros((dy.shape[1], x.shape[1] // groups, *kernel), x.dtype)
        for tap in np.ndindex(*kernel):
            seen = _grouped(x[_steps(tap, stride, dilation, dy.shape[2:])], groups)
            each = np.matmul(_grouped(dy, groups), seen.transpose(0, 1, 3, 2)).sum(0)
            dw[(..., *tap)] = each.reshape(dw.shape[:2])
        return dw

    return _twice(f, x, dy)


# ---- 3x3 convolution by minimal filtering: for the magnitudes of its intermediate results ----


def _winograd_matrices(m):
    """(B^T, G, A^T) of F(m x m, 3x3), by Lagrange's formula from the finite points and infinity."""
    points = {2: (0, 1, -1), 4: (0, 0.6875, -0.6875, 1.5, -1.5)}[m]
    n = m + 2
    BT, G, AT = np.zeros((n, n)), np.zeros((n, 3)), np.zeros((m, n))
    for i, p in enumerate(points):
        others = [q for q in points if q != p]
        BT[i, : n - 1] = np.poly(others)[::-1]
        G[i] = wide(p) ** np.arange(3) / np.prod([p - q for q in others])
        AT[:, i] = p ** np.arange(m)
    BT[-1] = np.poly(points)[::-1]
    G[-1, 2] = AT[-1, -1] = 1
    return wide(BT), wide(G), wide(AT)


def _tiles(x, m, size, counts):
    """[N, C, H, W] -> [tile rows, tile columns, size, size, N, C]: tiles m apart, zeros beyond the image."""
    room = [max(0, m * (c - 1) + size - n) for c, n in zip(counts, x.shape[2:])]
    x = np.pad(x, [(0, 0), (0, 0), *((0, r) for r in room)])
    out = np.empty((*counts, size, size, *x.shape[:2]), x.dtype)
    for h, w in np.ndindex(*counts):
        out[h, w] = x[:, :, m * h : m * h + size, m * w : m * w + size].transpose(2, 3, 0, 1)
    return out


def _shifted(x, padding):
    """x with `padding` zeros in front of both spatial axes; cut if negative."""
    p = max(padding, 0)
    return np.pad(x, [(0, 0), (0, 0), (p, 0), (p, 0)])[:, :, p - padding :, p - padding :]


def _both(matrix, x):
    """matrix x matrix^T over axes 2 and 3."""
    return np.einsum("ia,jb,hwab...->hwij...", matrix, matrix, x)


def winograd(m, x, w, padding, out):
    """conv with stride 1 and one group, by F(m x m, 3x3): (result, magnitude of all that is summed on the way)."""
    counts = [-(-n // m) for n in out]

    def f(x, w, BT, G, AT):
        V = _both(BT, _tiles(_shifted(x, padding), m, m + 2, counts))
        U = np.einsum("ia,jb,kcab->ijck", G, G, w)
        Y = _both(AT, np.matmul(V, U))  # [tile rows, tile columns, m, m, N, K]
        Y = Y.transpose(4, 5, 0, 2, 1, 3).reshape(len(x), len(w), m * counts[0], m * counts[1])
        return Y[:, :, : out[0], : out[1]]

    operands = wide(x), wide(w), *_winograd_matrices(m)
    return f(*operands), f(*(np.abs(t) for t in operands))


def winograd_weight(m, x, dy, padding):
    """The gradient for the weight [K, C, 3, 3], likewise."""
    counts = [-(-n // m) for n in dy.shape[2:]]

    def f(x, dy, BT, G, AT):
        V = _both(BT, _tiles(_shifted(x, padding), m, m + 2, counts))
        D = _both(AT.T, _tiles(dy, m, m, counts))
        S = np.matmul(D.swapaxes(-1, -2), V).sum((0, 1))  # [point, point, K, C]
        return np.einsum("ia,jb,ijkc->kcab", G, G, S)

    operands = wide(x), wide(dy), *_winograd_matrices(m)
    return f(*operands), f(*(np.abs(t) for t in operands))


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


def class_loss(x, target, weight=None, smoothing=0.0, log_probs=False):
    """(each row's loss, the sum of its terms' magnitudes, its weight): 0 where target < 0."""
    lp = wide(x) if log_probs else softmax(x, log=True)
    w = np.ones(x.shape[1]) if weight is None else wide(weight)
    rows, t = np.arange(len(x)), np.maximum(target, 0)
    losses = -(1 - smoothing) * w[t] * lp[rows, t] - smoothing / x.shape[1] * (lp * w).sum(1)
    size = (1 - smoothing) * w[t] * np.abs(lp[rows, t]) + smoothing / x.shape[1] * np.abs(lp * w).sum(1)
    live = target >= 0
    return losses * live, size * live, w[t] * live


def class_loss_backward(x, target, dy, weight=None, smoothing=0.0, log_probs=False):
    """(d (sum_i dy_i loss_i) / dx, the sum of the terms' magnitudes)."""
    w = np.ones(x.shape[1]) if weight is None else wide(weight)
    rows, t = np.arange(len(x)), np.maximum(target, 0)
    onehot = np.zeros_like(wide(x))
    onehot[rows, t] = (1 - smoothing) * w[t]
    parts = onehot + smoothing / x.shape[1] * w
    p = np.zeros_like(wide(x)) if log_probs else softmax(x)
    g = (wide(dy) * (target >= 0))[:, None]
    total = p * parts.sum(1, keepdims=True)
    return g * (total - parts), np.abs(g) * (total + parts)


def bag(x, index, start, weight, mode):
    """(result of each bag, the sum of its terms' magnitudes, flat positions of the largest or -1)."""
    y = np.zeros((len(start) - 1, x.shape[1]), wide(x).dtype)
    size, where = np.zeros_like(y), np.full(y.shape, -1)
    for b in range(len(y)):
        at = [i for i in range(start[b], start[b + 1]) if index[i] >= 0]
        if not at:
            continue
        rows = wide(x)[index[at]]
        if mode == "max":
            best = np.where(np.isnan(rows).any(0), np.isnan(rows).argmax(0), np.argmax(rows, 0))
            y[b] = rows[best, np.arange(x.shape[1])]
            where[b] = index[at][best] * x.shape[1] + np.arange(x.shape[1])
        else:
            terms = rows if weight is None else rows * wide(weight)[at][:, None]
            by = len(at) if mode == "mean" else 1
            y[b], size[b] = terms.sum(0) / by, np.abs(terms).sum(0) / by
    return y, size, where


# ---- optimizers: one step from (p, g, state), with torch's options and names; state None: the first ----
#
# Each gives (p, state) after the step; state holds the arrays and the counters. Nothing but operators and functions of
# NumPy, so that tolerance.Tracked can go through in place of arrays.


def _gradient(p, g, lr, weight_decay, maximize, decoupled=False):
    """(p, g) with weight decay."""
    g = -g if maximize else g
    if weight_decay and decoupled:
        return p * (1 - lr * weight_decay), g
    return p, g + weight_decay * p if weight_decay else g


def _means(state, g, betas):
    """(t, m, v, m / (1 - b1^t), v / (1 - b2^t)), with all that Adam and its kin keep."""
    state = state or {"step": 0, "exp_avg": 0 * g, "exp_avg_sq": 0 * g}
    t = state["step"] + 1
    m = betas[0] * state["exp_avg"] + (1 - betas[0]) * g
    v = betas[1] * state["exp_avg_sq"] + (1 - betas[1]) * g * g if "exp_avg_sq" in state else None
    return t, m, v, m / (1 - betas[0] ** t), None if v is None else v / (1 - betas[1] ** t)


def sgd(p, g, state, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize)
    if not momentum:
        return p - lr * g, {}
    b = momentum * state["momentum_buffer"] + (1 - dampening) * g if state and state["step"] else g
    return p - lr * (g + momentum * b if nesterov else b), {
        "step": (state["step"] if state else 0) + 1,
        "momentum_buffer": b,
    }


def adam(
    p,
    g,
    state,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0,
    amsgrad=False,
    maximize=False,
    decoupled_weight_decay=False,
):
    p, g = _gradient(p, g, lr, weight_decay, maximize, decoupled_weight_decay)
    t, m, v, mean, square = _means(state, g, betas)
    after = {"step": t, "exp_avg": m, "exp_avg_sq": v}
    if amsgrad:
        top = np.maximum(state["max_exp_avg_sq"] if state else 0 * g, v)
        after["max_exp_avg_sq"] = top
        square = top / (1 - betas[1] ** t)
    return p - lr * mean / (np.sqrt(square) + eps), after


def adamw(p, g, state, weight_decay=1e-2, **options):
    return adam(p, g, state, weight_decay=weight_decay, decoupled_weight_decay=True, **options)


def adamax(p, g, state, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize)
    state = state or {"step": 0, "exp_avg": 0 * g, "exp_inf": 0 * g}
    t, m, _, mean, _ = _means(state, g, betas)
    u = np.maximum(betas[1] * state["exp_inf"], np.abs(g) + eps)
    return p - lr * mean / u, {"step": t, "exp_avg": m, "exp_inf": u}


def nadam(
    p,
    g,
    state,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
):
    p, g = _gradient(p, g, lr, weight_decay, maximize, decoupled_weight_decay)
    t, m, v, _, square = _means(state, g, betas)
    mu, after = (betas[0] * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
    product = (state["mu_product"] if state else 1.0) * mu
    step = after * m / (1 - product * after) + (1 - mu) * g / (1 - product)
    state = {"step": t, "mu_product": product, "exp_avg": m, "exp_avg_sq": v}
    return p - lr * step / (np.sqrt(square) + eps), state


def radam(
    p,
    g,
    state,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0,
    decoupled_weight_decay=False,
    maximize=False,
):
    p, g = _gradient(p, g, lr, weight_decay, maximize, decoupled_weight_decay)
    t, m, v, mean, _ = _means(state, g, betas)
    b = betas[1]
    most = 2 / (1 - b) - 1
    r = most - 2 * t * b**t / (1 - b**t)
    if r > 5:
        rectified = np.sqrt((r - 4) * (r - 2) * most / ((most - 4) * (most - 2) * r))
        mean = mean * float(rectified * np.sqrt(1 - b**t)) / (np.sqrt(v) + eps)
    return p - lr * mean, {"step": t, "exp_avg": m, "exp_avg_sq": v}


def lion(p, g, state, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize, True)
    state = state or {"step": 0, "exp_avg": 0 * g}
    m = state["exp_avg"]
    step = np.sign(betas[0] * m + (1 - betas[0]) * g)
    return p - lr * step, {"step": state["step"] + 1, "exp_avg": betas[1] * m + (1 - betas[1]) * g}


def adagrad(p, g, state, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize)
    state = state or {"step": 0, "sum": 0 * g + initial_accumulator_value}
    s = state["sum"] + g * g
    return p - lr / (1 + state["step"] * lr_decay) * (g / (np.sqrt(s) + eps)), {"step": state["step"] + 1, "sum": s}


def rmsprop(p, g, state, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize)
    state = state or {"step": 0, "square_avg": 0 * g, "momentum_buffer": 0 * g, "grad_avg": 0 * g}
    v = alpha * state["square_avg"] + (1 - alpha) * g * g
    after, mean = {"step": state["step"] + 1, "square_avg": v}, v
    if centered:
        m = after["grad_avg"] = state["grad_avg"] + (1 - alpha) * (g - state["grad_avg"])
        mean = v - m * m
    d = g / (np.sqrt(mean) + eps)
    if momentum:
        d = after["momentum_buffer"] = momentum * state["momentum_buffer"] + d
    return p - lr * d, after


def adadelta(p, g, state, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize)
    state = state or {"step": 0, "square_avg": 0 * g, "acc_delta": 0 * g}
    v = rho * state["square_avg"] + (1 - rho) * g * g
    d = np.sqrt(state["acc_delta"] + eps) / np.sqrt(v + eps) * g
    u = rho * state["acc_delta"] + (1 - rho) * d * d
    return p - lr * d, {"step": state["step"] + 1, "square_avg": v, "acc_delta": u}


def rprop(p, g, state, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50), maximize=False):
    p, g = _gradient(p, g, lr, 0, maximize)
    state = state or {"step": 0, "prev": 0 * g, "step_size": 0 * g + lr}
    turn = np.sign(g) * np.sign(state["prev"])
    factor = np.where(turn > 0, etas[1], np.where(turn < 0, etas[0], 1))
    step = np.minimum(np.maximum(state["step_size"] * factor, step_sizes[0]), step_sizes[1])
    g = np.where(turn < 0, 0, g)
    return p - np.sign(g) * step, {"step": state["step"] + 1, "prev": g, "step_size": step}


def asgd(p, g, state, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0, maximize=False):
    p, g = _gradient(p, g, lr, weight_decay, maximize)
    state = state or {"step": 0, "eta": lr, "mu": 1.0, "ax": 0 * g}
    eta, t = state["eta"], state["step"] + 1
    p = p * (1 - lambd * eta) - eta * g
    ax = p if state["mu"] == 1 else state["ax"] + state["mu"] * (p - state["ax"])
    return p, {"step": t, "eta": lr / (1 + lambd * lr * t) ** alpha, "mu": 1 / max(1, t - t0), "ax": ax}


def adasecant(
    p,
    g,
    state,
    lr=1.0,
    decay=0.95,
    gamma_clip=1.8,
    start_var_reduction=0,
    delta_clip=None,
    use_adagrad=False,
    eps=1e-7,
    weight_decay=0,
    maximize=False,
):
    """The authors' code of 2015 (adasecant_wshp_paper, learning_rule.py), a line of it for a line."""
    p, g = _gradient(p, g, lr, weight_decay, maximize, True)
    old = state or {"step": 0, **dict.fromkeys(ADASECANT, 0 * g + eps)}
    if not state:
        old |= dict.fromkeys(("mean_delta", "mean_square_delta", "sum_square_grad"), 0 * g)
        old["tau"] = 0 * g + 2.1 * (1 + eps)
        old |= {"tau": 0 * g + 2.1 * (1 + eps)} | dict.fromkeys(
            ("mean_delta", "mean_square_delta", "sum_square_grad"), 0 * g
        )
    keep, share = 1 - 1 / old["tau"], 1 / old["tau"]
    g = g / (np.sqrt(np.sum(g * g)) + eps)
    first = old["step"] == 0
    msdx, mdx = (g * g, g) if first else (old["mean_square_delta"], old["mean_delta"])
    msg = decay * old["mean_square_grad"] + (1 - decay) * (g * g)
    mg = decay * old["mean_grad"] + (1 - decay) * g
    before = old["corrected_grad"]
    numerator = keep * old["gamma_numerator"] + share * ((g - before) * (before - mg)) ** 2
    denominator = keep * old["gamma_denominator"] + share * ((mg - g) * (before - mg)) ** 2
    gamma = np.sqrt(old["gamma_numerator"]) / np.sqrt(old["gamma_denominator"] + eps)
    gamma = gamma if gamma_clip is None else np.minimum(gamma, gamma_clip)
    corrected = g
    if start_var_reduction is not None and old["step"] >= start_var_reduction:
        corrected = (g + gamma * mg) / (1 + gamma)
    a = g - old["grad"]
    curvature = keep * old["mean_curvature"] + share * a
    square = keep * old["mean_square_curvature"] + share * (a * a)
    delta = -lr * (np.sqrt(msdx + eps) / np.sqrt(square + eps) - old["mean_curvature_delta"] / (square + eps))
    if delta_clip is not None:
        delta = np.minimum(np.maximum(delta, -delta_clip), delta_clip)
    delta = delta * corrected
    after = {}
    if use_adagrad:
        after["sum_square_grad"] = old["sum_square_grad"] + corrected * corrected
        delta = delta / np.maximum(np.sqrt(after["sum_square_grad"]), 1)
    tau = (1 - mdx * mdx / (msdx + eps)) * old["tau"] + (1 + eps)
    far = np.abs(g - mg) > 2 * np.sqrt(np.maximum(msg - mg * mg, 0))
    far = np.logical_or(far, np.abs(a - curvature) > 2 * np.sqrt(np.maximum(square - curvature * curvature, 0)))
    tau = np.minimum(np.maximum(np.where(far, 2.2, tau), 1.5), 1e8)
    after |= {
        "step": old["step"] + 1,
        "tau": tau,
        "mean_grad": mg,
        "mean_square_grad": msg,
        "gamma_numerator": numerator,
        "gamma_denominator": denominator,
        "mean_curvature_delta": keep * old["mean_curvature_delta"] + share * (delta * a),
        "mean_curvature": curvature,
        "mean_square_curvature": square,
        "mean_delta": keep * old["mean_delta"] + share * delta,
        "mean_square_delta": keep * msdx + share * (delta * delta),
        "corrected_grad": corrected,
        "grad": g,
    }
    return p + delta, after


ADASECANT = (
    "mean_grad",
    "mean_square_grad",
    "gamma_numerator",
    "gamma_denominator",
    "mean_curvature_delta",
    "mean_curvature",
    "mean_square_curvature",
    "corrected_grad",
    "grad",
)
OPTIMIZERS = {
    "SGD": sgd,
    "ASGD": asgd,
    "Adam": adam,
    "AdamW": adamw,
    "Adamax": adamax,
    "NAdam": nadam,
    "RAdam": radam,
    "Lion": lion,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
    "Adadelta": adadelta,
    "Rprop": rprop,
    "AdaSecant": adasecant,
}


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


# ---- pooling: a window is the list of its positions along each axis, and of its size with padding ----


def pool_axis(n, kernel, stride, padding, dilation=1, ceil_mode=False):
    """[(positions within the image, elements up to the end of the padding)] of the windows along an axis of n."""
    windows, start = [], -padding
    while True:
        taps = [start + i * dilation for i in range(kernel)]
        beyond = taps[-1] - (n + padding - 1)  # by so much the window sticks out of the padded axis
        if beyond > 0 and not (ceil_mode and beyond < stride and start < n):
            return windows
        padded = sum(start + i < n + padding for i in range(kernel))
        windows.append(([t for t in taps if 0 <= t < n], padded))
        start += stride


def pool_adaptive_axis(n, m):
    """Window o is the elements [i, i + 1) that overlap [o n / m, (o + 1) n / m)."""
    taps = [[i for i in range(n) if (i + 1) * m > o * n and i * m < (o + 1) * n] for o in range(m)]
    return [(t, len(t)) for t in taps]


def _pool_windows(size, axes):
    """(index of the output, flat positions of its window in order, size with padding) of each output."""
    for at in np.ndindex(*[len(a) for a in axes]):
        chosen = [a[i] for a, i in zip(axes, at)]
        grid = np.meshgrid(*[np.array(c[0], int) for c in chosen], indexing="ij")
        yield at, np.ravel_multi_index([g.ravel() for g in grid], size), int(np.prod([c[1] for c in chosen]))


def pool_max(x, axes):
    """(maxima, flat positions): the first of equal elements, or the last NaN."""
    flat, shape = x.reshape(*x.shape[:2], -1), (*x.shape[:2], *[len(a) for a in axes])
    y, where = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    for at, window, _ in _pool_windows(x.shape[2:], axes):
        v = flat[..., window]
        nan = np.isnan(v)
        last = len(window) - 1 - np.argmax(nan[..., ::-1], -1)
        pick = np.where(nan.any(-1), last, np.argmax(v, -1))
        y[(..., *at)] = np.take_along_axis(v, pick[..., None], -1)[..., 0]
        where[(..., *at)] = window[pick]
    return y, where


def _pool_divisor(window, padded, include_pad, divisor):
    return divisor if divisor is not None else padded if include_pad else len(window)


def pool_avg(x, axes, include_pad=True, divisor=None):
    """(means, means of |x|)."""
    flat, shape = wide(x).reshape(*x.shape[:2], -1), (*x.shape[:2], *[len(a) for a in axes])
    y, magnitude = np.empty(shape, flat.dtype), np.empty(shape, flat.dtype)
    for at, window, padded in _pool_windows(x.shape[2:], axes):
        v, by = flat[..., window], _pool_divisor(window, padded, include_pad, divisor)
        y[(..., *at)], magnitude[(..., *at)] = v.sum(-1) / by, np.abs(v).sum(-1) / abs(by)
    return y, magnitude


def pool_max_backward(dy, where, size, order=1):
    """dx in dy's precision, added to output by output, in order (-1: from the last): to be met bit for bit."""
    dx = np.zeros((*dy.shape[:2], int(np.prod(size))), dy.dtype)
    for n, c in np.ndindex(*dy.shape[:2]):
        for to, g in list(zip(where[n, c].ravel(), dy[n, c].ravel()))[::order]:
            dx[n, c, to] += g
    return dx.reshape(*dy.shape[:2], *size)


def pool_avg_backward(dy, axes, size, include_pad=True, divisor=None, precision=wide, order=1):
    """(dx, the same of |dy|, how many windows an element is in), output by output in order (-1: from the last)."""
    dy = precision(dy)
    dx = np.zeros((*dy.shape[:2], int(np.prod(size))), dy.dtype)
    magnitude, count = np.zeros_like(dx), np.zeros(dx.shape[2], int)
    for at, window, padded in list(_pool_windows(size, axes))[::order]:
        by = dy.dtype.type(_pool_divisor(window, padded, include_pad, divisor))
        g = (dy[(..., *at)] / by)[..., None]
        dx[..., window] += g
        magnitude[..., window] += np.abs(g)
        count[window] += 1
    return dx.reshape(*dy.shape[:2], *size), magnitude.reshape(*dy.shape[:2], *size), count.reshape(size)


# ---- recurrent layers: one step each, from the state before it ----


def rnn_order(sizes, reverse=False):
    """(step, its rows, rows of the step before for those that continue) in the order in which a direction goes."""
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    former, order = None, range(len(sizes))
    for t in reversed(order) if reverse else order:
        go_on = 0 if former is None else min(sizes[t], sizes[former])
        before = np.arange(go_on) + (0 if former is None else starts[former])
        yield t, np.arange(starts[t], starts[t + 1]), before
        former = t


def rnn_products(h, w_hh, b_hh):
    """(W_hh h + b_hh of every gate [n, G, H], the same of magnitudes)."""
    h, w, b = wide(h), wide(w_hh), wide(b_hh)
    shape = (len(h), -1, w.shape[1])
    return (h @ w.T + b).reshape(shape), (np.abs(h) @ np.abs(w).T + np.abs(b)).reshape(shape)


def rnn_gate(name, a):
    """sigmoid, tanh or relu."""
    return OPS[name](wide(a), None, None, 0, 0)


def lstm_backward(i, f, g, o, c, c_before, dh, dc):
    """(gradients of the gates before their activation [n, 4, H], gradient of c); dc: what later steps say about c."""
    t = np.tanh(c)
    dc = dc + dh * o * (1 - t * t)
    grads = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)]
    return np.stack(grads, 1), dc


def gru_backward(r, z, n, hidden, h_before, dh):
    """(gradients of the gates as they came from x, and from h [n, 3, H]; dh for the step before, less the product)."""
    dn = dh * (1 - z) * (1 - n * n)
    dz, dr = dh * (h_before - n) * z * (1 - z), dn * hidden * r * (1 - r)
    return np.stack([dr, dz, dn], 1), np.stack([dr, dz, dn * r], 1), dh * z


def recurrent(mode, x, sizes, h0, c0, directions):
    """A layer as its definition says, in the precision given: (y [rows, D H], h_n [D, B, H], c_n)."""
    outputs, last_h, last_c = [], [], []
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    for d, (w_ih, w_hh, b_ih, b_hh) in enumerate(directions):
        hidden = w_hh.shape[1]
        y = np.zeros((len(x), hidden), x.dtype)
        h, c = h0[d].copy(), c0[d].copy()
        for _, rows, _ in rnn_order(sizes, d == 1):
            n = len(rows)
            a = np.split(x[rows] @ w_ih.T + b_ih, len(w_hh) // hidden, 1)
            b = np.split(h[:n] @ w_hh.T + b_hh, len(w_hh) // hidden, 1)
            if mode == "LSTM":
                i, f, g, o = (p + q for p, q in zip(a, b))
                c[:n] = sigmoid(f) * c[:n] + sigmoid(i) * np.tanh(g)
                h[:n] = sigmoid(o) * np.tanh(c[:n])
            elif mode == "GRU":
                r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
                h[:n] = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h[:n]
            else:
                h[:n] = np.tanh(a[0] + b[0]) if mode == "RNN_TANH" else np.maximum(a[0] + b[0], 0)
            y[rows] = h[:n]
        outputs.append(y)
        last_h.append(h)
        last_c.append(c)
    return np.concatenate(outputs, 1), np.stack(last_h), np.stack(last_c)


# ---- normalization: x is [N, P, C], the group (n, g) the points times the channels of g ----


def _by_group(v, geometry):
    n, p, c, g = geometry
    return v.reshape(n, p, g, c // g)


def norm_statistics(x, geometry, eps, rms=False):
    """(mean, variance, 1 / sqrt(variance + eps)) of the groups [N, G]; with rms the mean is 0."""
    v = _by_group(wide(x), geometry)
    mean = v.mean((1, 3), keepdims=True) * (0 if rms else 1)
    var = ((v - mean) ** 2).mean((1, 3))
    return mean[:, 0, :, 0], var, 1 / np.sqrt(var + eps)


def _of_points(stat, geometry):
    """A number per group as [N, 1, C]."""
    n, _, c, g = geometry
    return np.repeat(wide(stat).reshape(n, 1, g), c // g, 2)


def norm(x, mean, rstd, geometry, weight=None, bias=None, relu=False):
    """(y, xhat) of [N, P, C] from the groups' statistics."""
    n, p, c, _ = geometry
    xhat = (wide(x).reshape(n, p, c) - _of_points(mean, geometry)) * _of_points(rstd, geometry)
    y = xhat * (1 if weight is None else wide(weight)) + (0 if bias is None else wide(bias))
    return np.where(y <= 0, 0, y) if relu else y, xhat


def norm_backward(x, dy, mean, rstd, geometry, weight=None, rms=False, fixed=False):
    """(dx, dweight, dbias) and the magnitudes of their sums: of |terms| instead of terms."""
    n, p, c, _ = geometry
    _, xhat = norm(x, mean, rstd, geometry)
    r, dy = _of_points(rstd, geometry), wide(dy).reshape(n, p, c)
    q = dy * (1 if weight is None else wide(weight))

    def average(v):
        return _of_points(_by_group(v, geometry).mean((1, 3)), geometry)

    s, sx = (0 if rms or fixed else average(q)), (0 if fixed else average(q * xhat))
    size, size_x = (0 if rms or fixed else average(np.abs(q))), (0 if fixed else average(np.abs(q * xhat)))
    dx = r * (q - s - xhat * sx), r * (np.abs(q) + size + np.abs(xhat) * size_x)
    dweight = (dy * xhat).sum((0, 1)), np.abs(dy * xhat).sum((0, 1))
    return dx, dweight, (dy.sum((0, 1)), np.abs(dy).sum((0, 1)))


def lrn(x, size, alpha, beta, k, dy=None):
    """Local response normalization of rows [rows, C]; with dy, (dx by the Jacobian of each row, its magnitude)."""
    x = wide(x)
    c = np.arange(x.shape[1])
    window = ((c >= c[:, None] - size // 2) & (c <= c[:, None] + (size - 1) // 2)).astype(x.dtype)
    s = k + alpha / size * (x * x) @ window.T
    if dy is None:
        return x * s**-beta
    dx, magnitude = np.zeros_like(x), np.zeros_like(x)
    for r in range(x.shape[0]):  # dy_c / dx_j
        direct = np.diag(s[r] ** -beta)
        through = np.outer(x[r] * beta * s[r] ** (-beta - 1), x[r]) * (2 * alpha / size * window)
        g = wide(dy)[r]
        dx[r], magnitude[r] = g @ (direct - through), np.abs(g) @ (direct + np.abs(through))
    return dx, magnitude


# ---- padding: where each element of the result stands in the input (flat), or -1 ----

NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad_positions(shape, pad, mode):
    """`pad` as functional.pad's."""
    at = np.arange(int(np.prod(shape))).reshape(shape)
    ends = [(0, 0)] * (len(shape) - len(pad) // 2) + list(zip(pad[::2], pad[1::2]))[::-1]
    if mode == "circular":  # of what is left, as torch's
        at = at[tuple(slice(max(-f, 0), n - max(-b, 0)) for n, (f, b) in zip(at.shape, ends))]
        ends = [(max(f, 0), max(b, 0)) for f, b in ends]
    more = [(max(front, 0), max(behind, 0)) for front, behind in ends]
    at = np.pad(at, more, NUMPY_MODES[mode], **({"constant_values": -1} if mode == "constant" else {}))
    return at[tuple(slice(max(-f, 0), n - max(-b, 0)) for n, (f, b) in zip(at.shape, ends))]


def pad(x, pad, mode="constant", value=0):
    at = pad_positions(x.shape, pad, mode)
    return np.where(at < 0, x.dtype.type(value), x.reshape(-1)[at] if x.size else x.dtype.type(value))


def pad_backward(dy, shape, pad, mode="constant", order=1):
    """dx in dy's precision, added to output by output, in order (-1: from the last): to be met bit for bit."""
    at = pad_positions(shape, pad, mode).reshape(-1)[::order]
    dx = np.zeros(int(np.prod(shape)), dy.dtype)
    np.add.at(dx, at[at >= 0], dy.reshape(-1)[::order][at >= 0])
    return dx.reshape(shape)


# ---- interpolation: a matrix along each axis ----


def _keys(d, a):
    """Cubic convolution, R. Keys, 1981, equation 4 with a free slope a at 1."""
    d = np.abs(d)
    inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
    outer = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0))


def resample_axis(n, m, mode, align_corners=False, factor=None, antialias=False):
    """The matrix [m, n] of interpolation along an axis, in long double."""
    o = np.arange(m)
    if mode.startswith("nearest"):
        step = np.float32(1 / factor if factor else n / m)
        at = (o.astype(np.float32) + np.float32(0.5 if mode == "nearest-exact" else 0)) * step
        return np.eye(n, dtype=np.longdouble)[np.minimum(np.floor(at).astype(int), n - 1)]
    if n == m and (antialias or mode == "linear"):
        return np.eye(n, dtype=np.longdouble)
    one = np.longdouble(1)
    step = one / np.longdouble(factor) if factor else n * one / m
    if align_corners:
        step = (n - 1) * one / (m - 1) if m > 1 else 0 * one
    if antialias:
        center, wide = step * (o + one / 2) - one / 2, max(step, one)
        d = (np.arange(n) - center[:, None]) / wide
        w = _keys(d, -0.5) if mode == "cubic" else np.maximum(1 - np.abs(d), 0)
        return w / w.sum(1, keepdims=True)
    p = step * o if align_corners else step * (o + one / 2) - one / 2
    if mode == "linear":
        return np.maximum(1 - np.abs(np.clip(p, 0, n - 1)[:, None] - np.arange(n)), 0)
    beyond = np.arange(-3, n + 4)  # the ends go on
    w = _keys(np.minimum(p, n)[:, None] - beyond, -0.75)
    return w @ np.eye(n)[np.clip(beyond, 0, n - 1)]


def resample(x, matrices):
    """(y, the same of magnitudes, how many terms each has)."""
    y, size = wide(x), np.abs(wide(x))
    terms = np.ones(())
    for axis, matrix in enumerate(matrices, 2):
        y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
        size = np.moveaxis(np.tensordot(np.abs(matrix), size, (1, axis)), 0, axis)
        terms = terms[..., None] * np.count_nonzero(matrix, axis=1)
    return y, size, terms


# ---- affine resampling ----


def affine(x, matrix, size, fill=0.0, hole=None):
    """Bit for bit: positions and weights in double, products and sums in the dtype, one after the other."""
    n, _, h, w = x.shape
    y = np.empty((n, x.shape[1], *size), x.dtype)
    r, c = np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in size), indexing="ij")
    for k in range(n):
        fractions, firsts = [], []
        for m, extent in zip(matrix[k], (h, w)):
            at = m[0] * r + m[1] * c + m[2] + (extent - 1) / 2
            at = np.clip(at, 0, extent - 1) if fill == "edge" else np.clip(at, -1, extent)
            firsts.append(np.floor(at).astype(int))
            fractions.append(at - np.floor(at))
        blank = np.zeros(size, bool)
        if hole is not None:
            top, bottom, left, right = hole[k]
            blank[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
        value = x.dtype.type(0 if fill == "edge" else fill)
        outside, taps = np.zeros(size), []
        for a in (0, 1):
            for b in (0, 1):
                i, j = firsts[0] + a, firsts[1] + b
                f, g = (q if one else 1 - q for q, one in zip(fractions, (a, b)))
                within = (i >= 0) & (i < h) & (j >= 0) & (j < w) & ~blank
                outside += np.where(within, 0, f * g)
                taps.append(
                    (np.where(within, f * g, 0).astype(x.dtype), np.where(within, i, 0), np.where(within, j, 0))
                )
        base = np.where(outside > 0, value * outside.astype(x.dtype), x.dtype.type(-0.0))
        base = np.where(blank, value, base)
        for p in range(x.shape[1]):
            total = base
            for weight, i, j in taps:
                with np.errstate(invalid="ignore"):
                    total = np.where(weight != 0, total + weight * x[k, p, i, j], total)
            y[k, p] = total
    return y
