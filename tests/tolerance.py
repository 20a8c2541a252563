"""How far a kernel may be from its oracle: bounds derived from the number of roundings, not chosen.

A rounding changes a result by at most eps/2 of itself. Bounds count roundings on the longest path and take eps for
each, which leaves a factor of two for what the count neglects (second-order terms, the oracle's own rounding). Results
below the smallest normal number may be flushed to zero: every bound contains `tiny`.
"""

import numpy as np

from . import reference


def close(actual, expected, bound, what=""):
    """Fails unless |actual - expected| <= bound, NaN meets NaN, and infinities are equal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)  # beyond the range: infinity
        same = (rounded == actual) | (np.isnan(expected) & np.isnan(actual))
        error = np.abs(reference.wide(actual) - expected)
        good = same | (np.isfinite(rounded) & (error <= bound + np.finfo(actual.dtype).tiny))
    if not good.all():
        i = np.unravel_index(np.argmin(good), good.shape)
        limit = np.broadcast_to(bound, good.shape)[i]
        raise AssertionError(
            f"{what}: {(~good).sum()} of {good.size} wrong; first at {tuple(map(int, i))}: {actual[i]!r}, "
            f"expected {expected[i]!r}, error {error[i]:.3g}, bound {limit:.3g}"
        )


def same_bits(actual, expected, what=""):
    """Fails unless the arrays are the same bit for bit (any NaN is a NaN)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, expected {expected.dtype}"
    if actual.dtype.kind != "f":
        same = actual == expected
    else:
        bits = np.dtype(f"u{actual.dtype.itemsize}")
        a, e = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
        same = (a.view(bits) == e.view(bits)) | (np.isnan(a) & np.isnan(e))
    if not same.all():
        actual, expected, same = (np.atleast_1d(v) for v in (actual, expected, same))
        i = np.unravel_index(np.argmin(same), same.shape)
        raise AssertionError(
            f"{what}: {(~same).sum()} of {same.size} differ; first at {tuple(map(int, i))}: {actual[i]!r}, "
            f"expected {expected[i]!r}"
        )


# ---- elementwise: roundings, and the magnitude that each is relative to ----

# what csrc/kernels/vmath.inc promises, for the scalars s and t
ULP = {"exp": 1.0, "log": 1.0, "tanh": 1.5, "sigmoid": 2.0, "elu": 1.5, "softplus": 2.0, "log_sigmoid": 2.0,
       "gelu": 3.2, "silu": 3.0, "mish": 5.0, "tanhshrink": 4.0}  # fmt: skip
_GELU = {("avx2", 4): 2.7, ("avx2", 8): 2.7, ("avx512", 4): 2.0, ("avx512", 8): 2.7}  # where FMA takes part


def ulp(name, isa, dtype):
    """The bound on an instruction set."""
    return _GELU.get((isa, np.dtype(dtype).itemsize), ULP[name]) if name == "gelu" else ULP[name]


ULP_SCALARS = {"elu": (1.0, 1.0), "softplus": (1.0, np.inf)}
_v, _logs = reference._gelu_tanh_argument, reference._logs


def _gelu_terms(b):
    """P(-|b|) + |b| p(b), the terms of the derivative."""
    q, p = reference._normal(np.abs(b))
    return q + np.abs(b) * p


def _gelu_tanh_terms(b):
    """Of s (1 + b (1 - s) inner): the argument of s is felt |v| times; 1 - s has the error of s, not its own."""
    v, inner = _v(b)
    s, rest = _s(v), _s(-v)
    return s * (1 + np.abs(b) * rest * inner) * (8 + 3 * np.abs(v) * rest) + s * np.abs(b) * inner * (
        2 * s + 3 * np.abs(v) * s * rest
    )


EXACT = 0, lambda y, a, b, c, s, t: 0
_result = lambda y, a, b, c, s, t: np.abs(y)
_s = lambda x: 1 / (1 + np.exp(-x))
_lead = lambda a, s: np.abs(a * s)
_felt = lambda base, exponent: np.where(base == 0, 0, np.abs(exponent * np.log(np.abs(base))))

# fmt: off
EXACT_OPS = ("fill", "copy", "neg", "abs", "relu", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge",
             "where", "clamp", "abs_backward", "relu_backward", "max_backward", "clamp_backward",
             "heaviside", "hardtanh_backward", "hardshrink", "shrink_backward", "threshold", "threshold_backward")
ROUNDED_OPS = ("square", "sqrt", "reciprocal", "scale", "add_scalar", "rsub_scalar", "rdiv_scalar", "add", "sub", "mul",
               "div", "leaky_relu", "leaky_relu_backward", "prelu", "prelu_backward", "prelu_backward_weight",
               "softshrink", "l1", "l1_backward", "hinge_embedding_backward")
# fmt: on

# name: (roundings, magnitude). Magnitudes are those of the largest intermediate result where it can exceed the result.
ROUNDINGS = {
    **dict.fromkeys(EXACT_OPS, EXACT),
    **dict.fromkeys(ROUNDED_OPS, (0.5, _result)),
    "maximum_backward": EXACT,  # halves are exact
    "minimum_backward": EXACT,
    # the C library's pow is within 1 ulp, and a ulp is at most eps of the number
    "pow_scalar": (1, _result),
    "pow": (1, _result),
    "mse": (2, _result),  # (a - b)^2: one rounding of the difference, counted twice, and one of the square
    "square_backward": (0.5, _result),
    "sqrt_backward": (0.5, _result),  # dy * 0.5 is exact
    "reciprocal_backward": (1, _result),
    "tanh_backward": (1.5, lambda y, a, b, c, s, t: np.abs(a) * (1 + b * b)),
    "sigmoid_backward": (1.5, lambda y, a, b, c, s, t: np.abs(a * b) * (1 + np.abs(b))),
    # the exponent c - 1 is rounded, which b^(c-1) feels |(c - 1) log b| times
    "pow_scalar_backward": (1, lambda y, a, b, c, s, t: np.abs(y) * (2 + _felt(b, s - 1))),
    "div_backward_b": (1, _result),
    "pow_backward_a": (1, lambda y, a, b, c, s, t: np.abs(y) * (2 + _felt(b, c - 1))),
    "pow_backward_b": (2, _result),  # a c, log within 1 ulp, their product
    "mse_backward": (1.5, _result),
    **{name: (bound, _result) for name, bound in ULP.items()},
    # Activations. A rounded argument v of an exponential is felt |v| times; `12` and the like count the roundings of
    # the terms, whose sizes are written out where they can cancel.
    "elu": (1, lambda y, a, b, c, s, t: 2.5 * np.abs(y) + np.abs(s * a * t) * np.exp(np.minimum(a * t, 0))),
    "elu_backward": (1, lambda y, a, b, c, s, t: np.abs(y) * (3 + np.abs(np.minimum(b, 0) * t))),
    "selu": (4, _result),  # two constants, two products, expm1 within 1.5 ulp
    "selu_backward": (4, _result),
    "gelu_backward": (1, lambda y, a, b, c, s, t: np.abs(y) + np.abs(a) * 3 * _gelu_terms(b)),
    "gelu_tanh": (1, lambda y, a, b, c, s, t: np.abs(y) * (3.5 + 2 * np.abs(_v(a)[0]) * _s(-_v(a)[0]))),
    "gelu_tanh_backward": (1, lambda y, a, b, c, s, t: np.abs(y) + np.abs(a) * _gelu_tanh_terms(np.clip(b, -40, 40))),
    "silu_backward": (
        1,
        lambda y, a, b, c, s, t: np.abs(a) * _s(b) * (6 + 6 * np.abs(b) * _s(-b) + 2 * np.abs(b) * _s(b)),
    ),
    "mish_backward": (
        1,
        lambda y, a, b, c, s, t: np.abs(a) * 8 * (1 + np.abs(b)) * np.minimum(1, np.exp(np.minimum(b, 0))),
    ),
    "softplus": (1, lambda y, a, b, c, s, t: 3.5 * np.abs(y) + np.abs(a) * _s(a * s)),
    "softplus_backward": (1, lambda y, a, b, c, s, t: np.abs(y) * (3 + np.abs(b * s))),
    "softsign": (1.5, _result),
    "softsign_backward": (2.5, _result),
    "hardsigmoid": (1.5, _result),
    "hardsigmoid_backward": (1, _result),
    "hardswish": (2, _result),
    "hardswish_backward": (1, lambda y, a, b, c, s, t: np.abs(y) + np.abs(a) * (np.abs(b) / 3 + 0.5)),
    "log_sigmoid_backward": (2.5, _result),
    "tanhshrink_backward": (4, _result),
    "glu": (2.5, _result),
    "glu_backward_gate": (5.5, _result),
    # losses
    "huber": (4, _result),  # |d| - s / 2 is at least half of |d|
    "huber_backward": (1.5, _result),
    "bce": (1, lambda y, a, b, c, s, t: 2.5 * (np.abs(b * _logs(a)[0]) + np.abs((1 - b) * _logs(a)[1]))),
    "bce_backward": (3.5, _result),
    "bce_backward_target": (
        1,
        lambda y, a, b, c, s, t: 2.5 * _lead(a, s) * (np.abs(_logs(b)[0]) + np.abs(_logs(b)[1])),
    ),
    "bce_logits": (
        1,
        lambda y, a, b, c, s, t: (
            2.5 * (np.abs(b * np.maximum(0, -a)) + np.abs((1 - b) * np.maximum(0, a)) + np.log1p(np.exp(-np.abs(a))))
        ),
    ),
    "bce_logits_backward": (1, lambda y, a, b, c, s, t: 3.5 * _lead(a, s) * (_s(b) + np.abs(c))),
    "kl_div": (1, lambda y, a, b, c, s, t: 2.5 * (np.abs(np.where(b == 0, 0, b * np.log(b))) + np.abs(b * a))),
    "kl_div_backward": (1, _result),
    "kl_div_backward_target": (1, lambda y, a, b, c, s, t: 2.5 * _lead(a, s) * (np.abs(np.log(c)) + 1 + np.abs(b))),
    "kl_div_log": (2, _result),
    "kl_div_log_backward": (2, _result),
    "kl_div_log_backward_target": (
        1,
        lambda y, a, b, c, s, t: 3.5 * _lead(a, s) * np.exp(c) * (np.abs(c) + 1 + np.abs(b)),
    ),
    "poisson": (1, lambda y, a, b, c, s, t: np.abs(y) + np.abs(a) + np.abs(b) * (2 * np.abs(np.log(a + s)) + 1)),
    "poisson_backward": (1, lambda y, a, b, c, s, t: 2 * _lead(a, s) * (1 + 2 * np.abs(c / (b + t)))),
    "poisson_backward_target": (1, lambda y, a, b, c, s, t: _lead(a, s) * (2.5 * np.abs(np.log(b + t)) + 1)),
    "poisson_log": (1, lambda y, a, b, c, s, t: 2 * np.exp(a) + 1.5 * np.abs(b * a)),
    "poisson_log_backward": (1, lambda y, a, b, c, s, t: 2.5 * _lead(a, s) * (np.exp(b) + np.abs(c))),
    "product_backward_target": (1, _result),
    "hinge_embedding": (1, lambda y, a, b, c, s, t: np.abs(s) + 2 * np.abs(a)),
    "soft_margin": (1, lambda y, a, b, c, s, t: 2.5 * np.abs(y) + np.abs(a * b) * _s(-a * b)),
    "soft_margin_backward": (1, lambda y, a, b, c, s, t: np.abs(y) * (4 + np.abs(b * c))),
    "soft_margin_backward_target": (1, lambda y, a, b, c, s, t: np.abs(y) * (4 + np.abs(b * c))),
}


def elementwise(name, y, operands, s=0.0, t=0.0):
    """Bound for reference.elementwise's y."""
    dtype = operands[0].dtype.type
    count, magnitude = ROUNDINGS[name]
    x = [reference.wide(o) for o in np.broadcast_arrays(*operands)] + [None] * (3 - len(operands))
    with np.errstate(all="ignore"):
        size = magnitude(y, *x, reference.wide(dtype(s)), reference.wide(dtype(t)))
        # the relative error of the oracle itself, and second-order terms: 1 part in 64
        return np.where(np.isfinite(size), size, 0) * (count * np.finfo(dtype).eps * (1 + 1 / 64))


def ulps(actual, expected):
    """|actual - expected| in units in the last place of the expected number, which is one precision up.

    A result whose true value is below the normal range counts as 0 ulp if it is within `tiny` of it (it may be
    flushed), else as infinitely wrong. An infinite result is measured as 2^(emax + 1).
    """
    info = np.finfo(actual.dtype)
    y, ref = reference.wide(actual), np.asarray(expected)
    top = y.dtype.type(2) ** info.maxexp
    y, ref = (np.where(np.isinf(v), np.copysign(top, v), v) for v in (y, ref))
    beyond = (np.abs(ref) >= top) & (np.abs(y) >= top) & (np.sign(y) == np.sign(ref))
    size = np.ldexp(y.dtype.type(1), np.frexp(np.minimum(np.abs(ref), top / 2))[1] - info.nmant - 1)
    error = np.abs(y - ref) / np.maximum(size, info.smallest_subnormal)
    small = np.abs(ref) < info.tiny
    error = np.where(small, np.where(np.abs(y - ref) <= info.tiny, 0, np.inf), error)
    return np.where(beyond | (np.isnan(y) & np.isnan(ref)), 0, np.where(np.isnan(y) | np.isnan(ref), np.inf, error))


# ---- products ----


def gemm(K, magnitude, dtype):
    """C(i,j) is one chain of K products and additions, so K roundings if fused and 2 K if not, each of at most eps/2
    of a partial sum, which is at most sum |a||b|."""
    return (K + 2) * np.finfo(dtype).eps * magnitude + K * np.finfo(dtype).tiny


def conv(terms, magnitude, dtype, bias=0.0):
    """Each result is one chain of products and additions, and a bias is added to it with one rounding more."""
    return gemm(terms, magnitude + np.abs(bias), dtype)


def conv_weight(images, points, magnitude, dtype):
    """A chain over the points of the images of a piece; pieces, at most 16 and one per image, are added in order."""
    return gemm(images * points + min(images, 16), magnitude, dtype)


# Roundings of a value on its way through one axis of a transform, fused or not: of patch, filter and output, and of the
# transposed output and filter transforms; the constants of the filter transform count where they are rounded.
WINOGRAD = {2: ((1, 2, 2), (1, 2)), 4: ((3, 4, 4), (2, 6))}


def winograd(m, terms, magnitude, dtype, bias=0.0):
    """One chain over the channels, between transforms along two axes; `magnitude` is reference.winograd's."""
    return gemm(terms + 2 * sum(WINOGRAD[m][0]), magnitude + np.abs(bias), dtype)


def winograd_weight(m, tiles, magnitude, dtype):
    """A chain over the tiles, in up to 16 pieces, between transforms."""
    return gemm(tiles + 16 + 2 * (WINOGRAD[m][0][0] + sum(WINOGRAD[m][1])), magnitude, dtype)


# ---- pooling ----


def pool_avg(terms, magnitude, dtype):
    """A chain of `terms` additions, the first exact; the divisor's reciprocal is rounded, and the product."""
    return (terms + 1) * np.finfo(dtype).eps * magnitude


# ---- sums ----


def _row_depth(block, lanes):
    """Additions on the longest path of sum_row over a block: a chain in each of 4 vectors, then a tree."""
    return -(-block // (4 * lanes)) + 4 + 2 + int(np.log2(lanes))


def _total(depth, wide_depth, magnitude, dtype):
    return (depth * np.finfo(dtype).eps + wide_depth * np.finfo(np.float64).eps) * magnitude


def sum_rows(n, lanes, magnitude, dtype):
    """reduce along contiguous rows: blocks of 512, up to 128 of them added in double, pieces of 65536 as a tree."""
    blocks = min(128, -(-n // 512))
    pieces = max(1, -(-n // 65536))
    return _total(_row_depth(min(n, 512), lanes) + 2, blocks + 8 + np.log2(pieces), magnitude, dtype)


def sum_columns(n, magnitude, dtype):
    """reduce across rows: chains of 64, a tree over them, pieces of 4096 in double."""
    blocks = -(-min(n, 4096) // 64)
    return _total(min(n, 64) + np.log2(max(blocks, 1)) + 1 + 2, -(-n // 4096), magnitude, dtype)


def ewise_sum(n, run, lanes, magnitude, dtype):
    """Sums of an operation: blocks of 256 of a contiguous run, in double within chunks of 16384; chunks as a tree."""
    block = max(1, min(run, 256, n))
    chunks = max(1, -(-n // 16384))
    return _total(_row_depth(block, lanes) + 2, min(n, 16384) / block + 8 + np.log2(chunks), magnitude, dtype)


# ---- rows ----


def row_terms(n, lanes):
    """Roundings of a sum of n exponentials: a chain per lane, a tree over lanes, 1 ulp of each exponential, and the
    rounding of x - max, which is relative to max |x - max| and so kept apart."""
    return -(-n // lanes) + int(np.log2(lanes)) + 1 + 2


def softmax(x, y, lanes):
    """y is the oracle's softmax. The rounding of x - max is felt by e^(x - max) in proportion to |x - max|: its own
    and, by way of the sum, the average; to that, the sum's roundings, 1 ulp of e, the reciprocal and the product."""
    eps = np.finfo(x.dtype).eps
    x = reference.wide(x)
    spread = np.abs(x - x.max(-1, keepdims=True))
    average = (y * spread).sum(-1, keepdims=True)
    return eps * y * (row_terms(x.shape[-1], lanes) + 4 + spread + average)


def log_softmax(x, y, lanes):
    """(x - max) - log sum e^(x - max): the error is relative to the parts, not to |max|; a shift changes nothing."""
    eps = np.finfo(x.dtype).eps
    x = reference.wide(x)
    # each term of the sum has the relative error eps |x - max| at the weight e^(x - max): at most eps / e
    relative = row_terms(x.shape[-1], lanes) + 2
    parts = np.abs(x - x.max(-1, keepdims=True)) + np.log(x.shape[-1])
    return eps * (relative + 2 * parts + np.abs(y))


def softmax_backward(y, dy, lanes, log=False):
    """y (dy - sum dy y), or dy - e^y sum dy."""
    eps = np.finfo(y.dtype).eps
    n = y.shape[-1]
    y, dy = np.abs(reference.wide(y)) if not log else reference.wide(y), np.abs(reference.wide(dy))
    if log:
        return eps * (row_terms(n, lanes) + 3) * (np.exp(y) * dy.sum(-1, keepdims=True) + dy)
    return eps * (2 * row_terms(n, lanes) + 3) * y * (dy + (dy * y).sum(-1, keepdims=True))


# ---- normalization ----


def norm_depth(geometry, lanes):
    """Roundings of a group's sum: rows of a piece in blocks of 8 that are merged one after the other, at most 1024
    rows; or blocks of 512 along a row. What follows is in double."""
    _, p, c, g = geometry
    if p == 1:
        return _row_depth(min(c // g, 512), lanes) + 2
    return -(-min(p, 1024) // 8) + 2 + 4


def norm_statistics(x, var, rstd, geometry, lanes, eps):
    """(bound of the mean, bound of rstd). With A = max |x| of the group: a mean is a convex mean of block means, and
    each merge adds 3 roundings of at most A eps/2. The squares around a mean that is wrong by e are wrong by e^2, and
    those between blocks by 2 e |distance| each, on average at most 2 e deviation; every sum of squares rounds once per
    block."""
    n, p, c, g = geometry
    u, depth = np.finfo(x.dtype).eps, norm_depth(geometry, lanes)
    largest = np.abs(reference.wide(x)).reshape(n, p, g, c // g).max((1, 3))
    mean = u * (1.5 * depth + 4) * largest
    spread = (2 * depth + 12) * u * var + 4 * mean * np.sqrt(var) + 4 * mean**2
    low = np.maximum(var - spread, 0) + eps
    return mean, np.abs(1 / np.sqrt(low) - rstd) + 4 * u * rstd


def norm(y, xhat, weight, bias, dtype):
    """From given mean and rstd: x - mean, rstd weight or its products, and the sum with the bias."""
    u = np.finfo(dtype).eps
    return u * (3 * np.abs(xhat * (1 if weight is None else reference.wide(weight))) + 2 * np.abs(y)
                + np.abs(0 if bias is None else reference.wide(bias)))  # fmt: skip


def norm_backward(magnitude, geometry, lanes, dtype):
    """dx from given mean and rstd: the two sums, each term with 3 roundings more, and as many of their combination."""
    return (norm_depth(geometry, lanes) + 16) * np.finfo(dtype).eps * magnitude


def norm_parameters(magnitude, geometry, dtype):
    """Sums of dy xhat and of dy: over at most 1024 rows in blocks of 8, or 64 images of one point; the rest in
    double."""
    n, p, _, _ = geometry
    chain = min(n, 64) if p == 1 else -(-min(p, 1024) // 8) + 1 + 8
    return (chain + 6) * np.finfo(dtype).eps * magnitude


def lrn(magnitude, size, channels, s_range, beta, dtype):
    """Sums of squares over the window; e^(-beta log s), in which the argument's rounding counts |beta log s| times."""
    terms = min(size, 2 * channels)
    power = 4 + abs(beta) * (terms + 4) + 2 * abs(beta) * np.abs(np.log(s_range)).max()
    return np.finfo(dtype).eps * (2 * power + terms + 8) * magnitude


# ---- optimizers: one step from the same numbers, through formulas of many operations ----


class Tracked(np.lib.mixins.NDArrayOperatorsMixin):
    """Numbers with a bound of the error that a kernel's have at the same place of a formula.

    An oracle of reference.py that is given these instead of arrays gives them back: every product, quotient, sum and
    root adds eps of its result (it has half of that; the other half is for a kernel that groups a formula's factors
    otherwise), and passes on the errors of what it was made from. Python floats are scalars that the kernel rounds,
    ints are exact. A decision (>, sign, where) that the errors leave open has the error of taking the other side.
    """

    def __init__(self, value, error=0.0, dtype=None):
        self.value = reference.wide(value)
        info = np.finfo(value.dtype if dtype is None else dtype)
        self.dtype, self.eps, self.tiny = info.dtype, float(info.eps), float(info.tiny)
        self.error = np.broadcast_to(np.asarray(error, self.value.dtype), self.value.shape)

    def _lift(self, x):
        if isinstance(x, Tracked):
            return x
        exact = isinstance(x, int | np.integer)
        return Tracked(np.asarray(x, self.value.dtype), 0.0 if exact else self.eps * abs(x), self.dtype)

    def _result(self, value, error, rounded=True):
        return Tracked(
            value, error + (self.eps * np.abs(value) + self.tiny * (value != 0) if rounded else 0), self.dtype
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            return NotImplemented
        with np.errstate(all="ignore"):
            return getattr(self, f"_{ufunc.__name__}")(*map(self._lift, inputs))

    def __array_function__(self, func, types, args, kwargs):
        if func is np.sum:
            return self._sum(args[0])
        return args[0].choose(*args[1:]) if func is np.where else NotImplemented

    def _add(self, a, b):
        return self._result(a.value + b.value, a.error + b.error)

    def _subtract(self, a, b):
        return self._result(a.value - b.value, a.error + b.error)

    def _multiply(self, a, b):
        error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.error * b.error
        return self._result(a.value * b.value, error)

    def _divide(self, a, b):
        size, low = np.abs(b.value), np.abs(b.value) - b.error
        error = (np.abs(a.value) * b.error + size * a.error) / (size * low)
        return self._result(a.value / b.value, np.where(low > 0, error, np.where(b.error > 0, np.inf, 0)))

    def _power(self, a, b):
        assert b.value == 2
        return self._multiply(a, a)

    def _sqrt(self, a):
        y, low = np.sqrt(a.value), np.sqrt(np.maximum(a.value - a.error, 0))
        return self._result(y, np.maximum(np.sqrt(a.value + a.error) - y, y - low))

    def _negative(self, a):
        return self._result(-a.value, a.error, rounded=False)

    def _absolute(self, a):
        return self._result(np.abs(a.value), a.error, rounded=False)

    def _maximum(self, a, b):
        open_, larger = np.abs(a.value - b.value) <= a.error + b.error, a.value > b.value
        error = np.where(open_, np.maximum(a.error, b.error), np.where(larger, a.error, b.error))
        return self._result(np.maximum(a.value, b.value), error, rounded=False)

    def _minimum(self, a, b):
        return -self._maximum(-a, -b)

    def _sign(self, a):
        return self._result(np.sign(a.value), 2.0 * (np.abs(a.value) < a.error), rounded=False)

    def _sum(self, a):
        """Of squares, which the kernel sums in double: nothing is lost but the result's rounding to eps."""
        return self._result(np.sum(a.value), np.sum(a.error))

    def _greater(self, a, b):
        return Open(a.value > b.value, np.abs(a.value - b.value) < a.error + b.error, self)

    def _less(self, a, b):
        return self._greater(b, a)


class Open(np.lib.mixins.NDArrayOperatorsMixin):
    """Truth values, and whether errors leave them open."""

    def __init__(self, value, undecided, like):
        self.value, self.undecided, self.like = value, undecided, like

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        assert ufunc is np.logical_or
        a, b = inputs
        return Open(a.value | b.value, a.undecided | b.undecided, self.like)

    def __array_function__(self, func, types, args, kwargs):
        return self.choose(*args[1:]) if func is np.where else NotImplemented

    def choose(self, a, b):
        a, b = self.like._lift(a), self.like._lift(b)
        apart = np.abs(a.value - b.value) + np.maximum(a.error, b.error)
        error = np.where(self.undecided, apart, np.where(self.value, a.error, b.error))
        return self.like._result(np.where(self.value, a.value, b.value), error, rounded=False)


# ---- recurrent layers: each step from the kernel's own state before it ----


def rnn_gate(name, gates, magnitude, H, y, dtype):
    """y = f(gates + products): a chain of H products, b_hh and the gate's part from x (2 roundings more), felt through
    f, whose slope is at most 1 (sigmoid: 1/4), and f's own error."""
    eps = np.finfo(dtype).eps
    slope = 0.25 if name == "sigmoid" else 1
    return slope * (gemm(H + 1, magnitude, dtype) + eps * np.abs(gates)) + ULP.get(name, 0) * eps * np.abs(y)
