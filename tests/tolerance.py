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
        i = np.unravel_index(np.argmin(same), same.shape)
        raise AssertionError(
            f"{what}: {(~same).sum()} of {same.size} differ; first at {tuple(map(int, i))}: {actual[i]!r}, "
            f"expected {expected[i]!r}"
        )


# ---- elementwise: roundings, and the magnitude that each is relative to ----

ULP = {"exp": 1.0, "log": 1.0, "tanh": 1.5, "sigmoid": 2.0}  # what csrc/kernels/vmath.inc promises
EXACT = 0, lambda y, a, b, c, s, t: 0
_result = lambda y, a, b, c, s, t: np.abs(y)
_felt = lambda base, exponent: np.where(base == 0, 0, np.abs(exponent * np.log(np.abs(base))))

# fmt: off
EXACT_OPS = ("fill", "copy", "neg", "abs", "relu", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge",
             "where", "clamp", "abs_backward", "relu_backward", "max_backward", "clamp_backward")
ROUNDED_OPS = ("square", "sqrt", "reciprocal", "scale", "add_scalar", "rsub_scalar", "rdiv_scalar", "add", "sub", "mul",
               "div")
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
    **{name: (ulp, _result) for name, ulp in ULP.items()},
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


# ---- optimizers: one step from the same numbers ----


def sgd(p, g, buf, lr, momentum, dampening, weight_decay, nesterov):
    """(bound for p, bound for buf). Every product and sum is a rounding of at most its magnitude."""
    eps = np.finfo(p.dtype).eps
    p, g, buf = (np.abs(reference.wide(x)) for x in (p, g, buf))
    g = g + weight_decay * p
    eg = 1.5 * eps * g  # wd and wd p + g
    eb = eg
    if momentum:
        b = momentum * buf + max(1.0, abs(1 - dampening)) * g
        eb = 3 * eps * b + eg
        g = g + momentum * b if nesterov else b
        eg = 3 * eps * g + (eg + momentum * eb if nesterov else eb)
    return lr * eg + 2 * eps * (p + lr * g), eb


def adam(p, g, m, v, after, lr, beta1, beta2, eps_, weight_decay, decoupled, step):
    """Bounds for (p, m, v); `after` is the oracle's (p, m, v)."""
    eps, tiny = np.finfo(p.dtype).eps, np.finfo(p.dtype).tiny
    _, m1, v1 = after
    p, g, m, v = (np.abs(reference.wide(x)) for x in (p, g, m, v))
    eg = 0 * g
    if weight_decay and not decoupled:
        g = g + weight_decay * p
        eg = 1.5 * eps * g
    em = 3 * eps * (beta1 * m + (1 - beta1) * g) + (1 - beta1) * eg
    ev = 4 * eps * (beta2 * v + (1 - beta2) * g * g) + 2 * (1 - beta2) * g * eg + tiny
    root = np.sqrt(1 - beta2**step)
    low = np.sqrt(np.maximum(v1 - ev, 0)) / root + eps_  # the smallest denominator within the error of v
    denominator = np.sqrt(v1) / root + eps_
    edenominator = denominator - low + 4 * eps * denominator
    scale = lr / (1 - beta1**step)
    update = scale * (np.abs(m1) + em) / low
    ep = scale * (em / low + np.abs(m1) * edenominator / (low * denominator)) + 3 * eps * (p + update)
    return ep, em, ev
