"""Every backward against central differences, in float64."""

import zlib

import numpy as np
import pytest

import nncore
from nncore import Tensor, _tape, nn
from nncore.nn import functional as F

from .gradcheck import gradcheck

CASES = {}  # name -> (function, arrays)


def case(name, fn, *arrays):
    """A gradient check of what `name` says before its first blank."""
    assert name not in CASES, name
    CASES[name] = fn, arrays


class R:
    """Arrays that depend on nothing but their shape and a salt."""

    @staticmethod
    def normal(*shape, salt=0):
        return np.random.default_rng(zlib.crc32(repr((shape, salt)).encode())).standard_normal(shape)

    @staticmethod
    def positive(*shape, salt=0):
        return np.random.default_rng(zlib.crc32(repr((shape, salt)).encode())).uniform(0.5, 2.0, shape)

    @staticmethod
    def apart(*shape, salt=0):
        """Distinct values at least 0.1 apart and from 0: no kink of max, abs or relu is near."""
        n = int(np.prod(shape))
        rng = np.random.default_rng(zlib.crc32(repr((shape, salt)).encode()))
        return (0.1 * rng.permutation(n) - 0.05 * n + 0.05 * (n % 2) + 0.025).reshape(shape)


N, P, A = R.normal, R.positive, R.apart

# ---- elementwise ----

for _name, _make in {
    "neg": N, "abs": A, "exp": N, "log": P, "sqrt": P, "square": N, "tanh": N, "sigmoid": N, "relu": A,
}.items():  # fmt: skip
    _fn = getattr(nncore, _name)
    case(f"nncore.{_name}", _fn, _make(3, 5))
    case(f"Tensor.{_name}", lambda x, n=_name: getattr(x, n)(), _make(17))
    case(f"Tensor.{_name} transposed", lambda x, n=_name: getattr(x.T, n)(), _make(4, 3))
    case(f"Tensor.{_name} 0-d", lambda x, n=_name: getattr(x, n)(), _make(1)[0] + 0.3)
    case(f"Tensor.{_name} step", lambda x, n=_name: getattr(x[:, ::2], n)(), _make(3, 7))
case("Tensor.reciprocal", lambda x: x.reciprocal(), P(3, 4))
case("Tensor.__neg__", lambda x: -x, N(4))
case("Tensor.__abs__", lambda x: abs(x), A(4))
for _name in ("relu", "sigmoid", "tanh"):
    case(f"F.{_name}", getattr(F, _name), A(2, 9))

_SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((3, 1), (1, 4)),
    ((2, 3, 4), (3, 1)),
    ((), (3,)),
    ((5,), ()),
    ((1,), (2, 1, 3)),
]
for _name, _make in {"add": N, "sub": N, "mul": N, "div": P, "maximum": A, "minimum": A, "pow": P}.items():
    _fn = getattr(nncore, _name)
    for _s, _t in _SHAPES:
        _other = _make(*_t, salt=9) + (0.0123 if _make is A else 0)  # the two are never equal: no kink
        case(f"nncore.{_name} {_s} {_t}", _fn, _make(*_s), _other)
    case(f"Tensor.{_name}", lambda x, y, n=_name: getattr(x, n)(y), _make(3, 2), _make(3, 2, salt=1) + 0.0123)
    case(
        f"Tensor.{_name} transposed",
        lambda x, y, n=_name: getattr(x.T, n)(y),
        _make(3, 2),
        _make(2, 3, salt=1) + 0.0123,
    )
    case(f"Tensor.{_name} constant", lambda x, n=_name: getattr(x, n)(np.full((3, 2), 0.0123)), _make(3, 2))
    if _name not in ("maximum", "minimum"):
        case(f"Tensor.{_name} scalar", lambda x, n=_name: getattr(x, n)(1.7), _make(3, 2))
    case(f"nncore.{_name} self", lambda x, f=_fn: f(x, x * x * 0.3), _make(3, 2))  # one leaf on both sides
case("Tensor.add alpha", lambda x, y: x.add(y, alpha=-2.5), N(3), N(2, 3))
case("Tensor.sub alpha", lambda x, y: x.sub(y, alpha=3), N(3), N(2, 3))
case("Tensor.__add__", lambda x, y: x + y + 1.5, N(3), N(2, 3))
case("Tensor.__radd__", lambda x: 1.5 + (np.ones(3) + x), N(3))
case("Tensor.__sub__", lambda x, y: x - y - 2, N(3), N(2, 3))
case("Tensor.__rsub__", lambda x: 1.5 - (np.ones(3) - x) * 2, N(3))
case("Tensor.__mul__", lambda x, y: x * y * 0.5, N(3), N(2, 3))
case("Tensor.__rmul__", lambda x: 0.5 * (N(3, salt=4) * x), N(3))
case("Tensor.__truediv__", lambda x, y: x / y / 3, N(3), P(2, 3))
case("Tensor.__rtruediv__", lambda x: 2 / x + np.ones(3) / x, P(3))
case("Tensor.__pow__", lambda x, y: x**y + x**3, P(3), N(2, 3))
case("Tensor.__rpow__", lambda x: 2.5**x, N(3))
for _e in (0.5, 1, 2, 3, -1, -2, 2.7):
    case(f"nncore.pow exponent {_e}", lambda x, e=_e: nncore.pow(x, e), P(5))
case("Tensor.pow negative base", lambda x: x.pow(3), -P(5))
case("Tensor.clamp", lambda x: x.clamp(-0.5, 0.7), A(6, 5))
case("Tensor.clamp min", lambda x: x.clamp(min=-0.3), A(5, 3))
case("Tensor.clamp max", lambda x: x.clamp(max=0.2), A(5, 3))
case("nncore.clamp", lambda x: nncore.clamp(x, -0.2, 0.2), A(4, 3))
_mask = np.random.default_rng(1).random((2, 3)) < 0.5
_mask[0, 0], _mask[1, 1] = True, False
case("nncore.where", lambda x, y: nncore.where(_mask, x, y), N(2, 3), N(2, 3, salt=1))
case("nncore.where broadcast", lambda x, y: nncore.where(_mask, x, y), N(3), N(2, 1))
case("nncore.where wider condition", lambda x, y: nncore.where(_mask[:, None], x, y), N(3), N(3, salt=1))
case("nncore.where scalar", lambda x: nncore.where(_mask, x, 0.0) + nncore.where(_mask, 1.0, x) * 2, N(2, 3))

# ---- reductions ----

_DIMS = [None, 0, 1, -1, (0, 1), (0, 2), (-1, 0), (0, 1, 2)]
for _name in ("sum", "mean", "var", "std"):
    for _d in _DIMS:
        for _k in (False, True):
            case(
                f"nncore.{_name} {_d} {_k}",
                lambda x, n=_name, d=_d, k=_k: getattr(nncore, n)(x, d, keepdim=k),
                N(3, 4, 2),
            )
    case(f"Tensor.{_name}", lambda x, n=_name: getattr(x, n)(), N(7))
    case(f"Tensor.{_name} transposed", lambda x, n=_name: getattr(x.permute(2, 0, 1), n)(1), N(3, 4, 2))
    case(f"Tensor.{_name} long", lambda x, n=_name: getattr(x, n)(0), N(300, 2))
case("Tensor.var correction", lambda x: x.var(1, correction=0), N(3, 4))
case("Tensor.std correction", lambda x: x.std(0, correction=2, keepdim=True), N(5, 2))
case("Tensor.sum 0-d", lambda x: x.sum() * 3, np.array(1.3))
for _name in ("max", "min"):
    for _d in (None, 0, 1, -1):
        for _k in (False, True):
            _fn = lambda x, n=_name, d=_d, k=_k: getattr(nncore, n)(x, d, keepdim=k)
            case(f"nncore.{_name} {_d} {_k}", _fn, A(4, 3, 2))
    case(f"Tensor.{_name}", lambda x, n=_name: getattr(x, n)(1), A(3, 9))
    case(f"Tensor.{_name} transposed", lambda x, n=_name: getattr(x.T, n)(0)[0], A(3, 9))

# ---- shapes ----

case("Tensor.reshape", lambda x: x.reshape(2, -1) * N(2, 6), N(3, 4))
case("Tensor.reshape transposed", lambda x: x.T.reshape(-1) * N(12), N(3, 4))
case("Tensor.view", lambda x: x.view(4, 3) * N(4, 3), N(3, 4))
case("nncore.reshape", lambda x: nncore.reshape(x, (6, 2)) * N(6, 2), N(3, 4))
case("Tensor.flatten", lambda x: x.flatten(1) * N(2, 12), N(2, 3, 4))
case("nncore.flatten", lambda x: nncore.flatten(x, 0, 1) * N(6, 4), N(2, 3, 4))
case("F.flatten", lambda x: F.flatten(x) * N(24), N(2, 3, 4))
case("F.flatten 0-d", lambda x: F.flatten(x) * 2, np.array(0.7))
case("Tensor.permute", lambda x: x.permute(2, 0, 1) * N(4, 2, 3), N(2, 3, 4))
case("nncore.permute", lambda x: nncore.permute(x, (1, 2, 0)) * N(3, 4, 2), N(2, 3, 4))
case("Tensor.transpose", lambda x: x.transpose(0, -1) * N(4, 3, 2), N(2, 3, 4))
case("nncore.transpose", lambda x: nncore.transpose(x, 1, 2) * N(2, 4, 3), N(2, 3, 4))
case("Tensor.t", lambda x: x.t() * N(3, 2), N(2, 3))
case("Tensor.T", lambda x: x.T * N(4, 3, 2), N(2, 3, 4))
case("Tensor.unsqueeze", lambda x: x.unsqueeze(1) * N(2, 5, 3), N(2, 3))
case("nncore.unsqueeze", lambda x: nncore.unsqueeze(x, -1) * N(2, 3, 4), N(2, 3))
case("Tensor.squeeze", lambda x: x.squeeze() * N(2, 3), N(2, 1, 3, 1))
case("nncore.squeeze", lambda x: nncore.squeeze(x, 1) * N(2, 3, 1), N(2, 1, 3, 1))
case("Tensor.expand", lambda x: x.expand(4, 3, 2) * N(4, 3, 2), N(3, 1))
case("Tensor.expand -1", lambda x: x.expand(-1, 5), N(3, 1))
case("Tensor.clone", lambda x: x.clone(), N(2, 3))
case("Tensor.contiguous", lambda x: x.T.contiguous() * N(3, 2), N(2, 3))
case("nncore.cat", lambda x, y: nncore.cat([x, y, x], 0) * N(7, 3), N(2, 3), N(3, 3))
case("nncore.cat last", lambda x, y: nncore.cat((x, y), -1), N(2, 3), N(2, 1))
case("nncore.cat transposed", lambda x, y: nncore.cat((x.T, y), 1) * N(3, 5), N(2, 3), N(3, 3))
case("nncore.cat one", lambda x: nncore.cat([x]), N(2, 3))
case("nncore.cat empty part", lambda x: nncore.cat([x, nncore.zeros(0, 3, dtype="float64")]), N(2, 3))
case("nncore.stack", lambda x, y: nncore.stack([x, y, y]) * N(3, 2, 3), N(2, 3), N(2, 3, salt=1))
case("nncore.stack last", lambda x, y: nncore.stack([x, y], -1) * N(2, 3, 2), N(2, 3), N(2, 3, salt=1))
case("nncore.split", lambda x: nncore.split(x, 2), N(5, 3))
case("Tensor.split", lambda x: x.split([1, 3], 1), N(2, 4))
case("Tensor.split one part used", lambda x: x.split(2)[1], N(5, 2))

# ---- indexing ----

_rows = np.array([2, 0, 2, 2, -1])
_bools = np.array([True, False, True, True])
for _id, _key in {
    "integer": 1,
    "negative": -1,
    "slice": slice(1, 3),
    "step": slice(None, None, 2),
    "backwards": slice(None, None, -1),
    "none": (None, 1),
    "ellipsis": (..., 0),
    "mixed": (slice(None), None, slice(1, None), -1),
    "repeated rows": _rows,
    "list": [0, 0, 1],
    "matrix of rows": np.array([[0, 1], [1, 3]]),
    "bool rows": _bools,
    "bool columns": (slice(None), np.array([True, False, True])),
    "two arrays": ([0, 1, 1], [2, 2, 2]),
    "array and slice": (_rows, slice(0, 2)),
    "slice and array": (slice(1, None), [0, 0, 2]),
    "outer": (np.array([[0], [3]]), np.array([1, 1])),
    "array between": (1, slice(None), np.array([1, 0, 0])),
    "full mask": np.arange(24).reshape(4, 3, 2) % 3 == 0,
    "tensor": nncore.tensor(_rows),
    "0-d array": np.array(2),
}.items():
    case(f"Tensor.__getitem__ {_id}", lambda x, k=_key: x[k], N(4, 3, 2))
    case(f"Tensor.__getitem__ {_id} of a transpose", lambda x, k=_key: x.permute(1, 2, 0)[k], N(2, 4, 3))
case("Tensor.__iter__", lambda x: tuple(row * (i + 1) for i, row in enumerate(x)), N(3, 2))

# ---- products ----

for _s, _t in [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((2, 5, 2, 3), (5, 3, 4)),
    ((2, 1, 2, 3), (5, 3, 4)),
    ((2, 5, 2, 3), (3, 4)),
    ((2, 3), (2, 5, 3, 1)),
    ((1, 1), (1, 1)),
    ((9, 17), (17, 33)),
]:
    case(f"nncore.matmul {_s} {_t}", nncore.matmul, N(*_s), N(*_t, salt=1))
case("Tensor.matmul", lambda x, y: x.matmul(y), N(2, 3), N(3, 2))
case("Tensor.matmul transposed", lambda x, y: x.T.matmul(y.T), N(3, 2), N(4, 3))
case("Tensor.matmul transposed batch", lambda x, y: x.transpose(1, 2) @ y.permute(2, 1, 0), N(4, 3, 2), N(5, 3, 4))
case("Tensor.__matmul__", lambda x, y: x @ y @ x, N(3, 2), N(2, 3))
case("Tensor.__rmatmul__", lambda x: N(4, 3) @ x, N(3, 2))
for _s in [(3,), (2, 3), (2, 4, 3), (2, 1, 4, 3)]:
    case(f"F.linear {_s}", F.linear, N(*_s), N(5, 3), N(5))
case("F.linear without bias", F.linear, N(2, 3), N(5, 3))
case("F.linear transposed", lambda x, w, b: F.linear(x.T, w.T, b[::2]), N(3, 2), N(3, 4), N(8))

# ---- softmax, losses ----

for _name in ("softmax", "log_softmax"):
    for _d in (0, 1, -1):
        case(f"F.{_name} {_d}", lambda x, n=_name, d=_d: getattr(F, n)(x, d), N(3, 4, 2))
    case(f"Tensor.{_name}", lambda x, n=_name: getattr(x, n)(), N(5))
    case(f"nncore.{_name}", lambda x, n=_name: getattr(nncore, n)(x.T, -1), N(3, 19))


def _dropout(fn):
    def seeded(x):
        nncore.manual_seed(3)
        return fn(x)

    return seeded


case("F.dropout", _dropout(lambda x: F.dropout(x, 0.4)), N(13, 17))
case("F.dropout transposed", _dropout(lambda x: F.dropout(x.T, 0.7)), N(13, 17))
case("F.dropout off", lambda x: F.dropout(x, 0.4, False) * 2, N(3))
case("F.dropout at 0", lambda x: F.dropout(x, 0.0) * 2, N(3))

_classes = {
    (3,): np.array(1), (4, 3): np.array([0, 2, 2, 1]), (1, 5): np.array([4]), (2, 3, 4): np.arange(8).reshape(2, 4) % 3,
    (2, 3, 2, 2): np.arange(8).reshape(2, 2, 2) % 3, (5, 1): np.zeros(5, int),
}  # fmt: skip
for _s, _t in _classes.items():
    for _r in ("mean", "sum", "none"):
        if _s != (5, 1):  # one class: the loss is 0 whatever the logits
            case(f"F.cross_entropy {_s} {_r}", lambda x, t=_t, r=_r: F.cross_entropy(x, t, reduction=r), N(*_s))
            _p = np.exp(N(*_s, salt=3))
            case(f"F.cross_entropy {_s} {_r} soft", lambda x, p, r=_r: F.cross_entropy(x, p, reduction=r), N(*_s), _p)
        case(f"F.nll_loss {_s} {_r}", lambda x, t=_t, r=_r: F.nll_loss(x, t, reduction=r), N(*_s))
case("F.cross_entropy transposed", lambda x: F.cross_entropy(x.T, [0, 1, 1]), N(4, 3))
case("F.cross_entropy large logits", lambda x: F.cross_entropy(x * 50, [0, 1, 1]), N(3, 4))
for _r in ("mean", "sum", "none"):
    case(f"F.mse_loss {_r}", lambda x, t, r=_r: F.mse_loss(x, t, reduction=r), N(3, 4), N(3, 4, salt=1))
case("F.mse_loss transposed", lambda x, t: F.mse_loss(x.T, t), N(3, 4), N(4, 3))
case("F.mse_loss self", lambda x: F.mse_loss(x, x * x), N(3, 4))
case("F.mse_loss 0-d", F.mse_loss, np.array(0.3), np.array(1.2))

# ---- activations ----

for _name, _make, _calls in (
    ("leaky_relu", A, [(), (0.3,), (-0.5,)]),
    ("rrelu", A, [(), (0.1, 0.6)]),
    ("relu6", lambda *s: 3 * A(*s), [()]),
    ("hardtanh", A, [(), (-0.7, 0.4)]),
    ("elu", A, [(), (2.0,), (-1.5,)]),
    ("celu", A, [(), (0.6,), (-1.5,)]),
    ("selu", A, [()]),
    ("gelu", lambda *s: 2 * N(*s), [(), ("tanh",)]),
    ("silu", lambda *s: 2 * N(*s), [()]),
    ("mish", lambda *s: 2 * N(*s), [()]),
    ("softplus", N, [(), (2.0, 30.0), (1.5, 0.31)]),
    ("softsign", A, [()]),
    ("hardsigmoid", lambda *s: 3 * A(*s), [()]),
    ("hardswish", lambda *s: 3 * A(*s), [()]),
    ("logsigmoid", N, [()]),
    ("tanhshrink", lambda *s: 2 * N(*s), [()]),
    ("softshrink", A, [(), (0.21,)]),
    ("hardshrink", A, [(), (0.21,)]),
    ("threshold", A, [(0.11, -3.0)]),
    ("glu", N, [(), (0,), (1,)]),
    ("softmin", N, [(), (0,)]),
    ("maxout", A, [(2,), (3, -1), (2, 0), (1,)]),
):
    for _c in _calls:
        case(f"F.{_name} {_c}", lambda x, n=_name, c=_c: getattr(F, n)(x, *c), _make(4, 4, 6))
    _fn = lambda x, n=_name, c=_calls[0]: getattr(F, n)(x.permute(1, 2, 0), *c)
    case(f"F.{_name} transposed", _fn, _make(4, 2, 6))
for _s, _w in (((3, 4), (4,)), ((2, 3, 2, 2), (3,)), ((5,), (1,)), ((2, 3, 2), (1,))):
    case(f"F.prelu {_s} {_w}", F.prelu, A(*_s), N(*_w, salt=1))
case("F.prelu 0-d", F.prelu, np.array(-0.7), N(1))
case("F.prelu transposed", lambda x, w: F.prelu(x.T, w), A(3, 4), N(3, salt=1))


case("F.rrelu training", _dropout(lambda x: F.rrelu(x, 0.1, 0.9, True)), A(13, 17))
case("F.rrelu training transposed", _dropout(lambda x: F.rrelu(x.T, 0.1, 0.9, True)), A(13, 17))

# ---- more losses ----

_signs = np.sign(N(3, 4, salt=7))
_p, _q = 1 / (1 + np.exp(-N(3, 4, salt=5))), 1 / (1 + np.exp(-N(3, 4, salt=6)))
_labels = np.array([[1, 3, -1, 0], [0, -1, -1, -1], [2, 2, 1, -1]])
_factors = P(4, salt=3)
for _r in ("mean", "sum", "none"):
    for _name, _x, _t, _options in (
        ("l1_loss", A(3, 4), A(3, 4, salt=1) + 0.0123, [{}]),
        ("rmse_loss", A(3, 4), A(3, 4, salt=1) + 0.0123, [{}]),
        ("huber_loss", 3 * A(3, 4), A(3, 4, salt=1) + 0.0123, [{}, {"delta": 0.4}]),
        ("smooth_l1_loss", 3 * A(3, 4), A(3, 4, salt=1) + 0.0123, [{}, {"beta": 0.4}, {"beta": 0}]),
        ("binary_cross_entropy", _p, _q, [{}, {"weight": _factors}]),
        (
            "binary_cross_entropy_with_logits",
            3 * A(3, 4),
            _q,
            [{}, {"weight": _factors}, {"pos_weight": _factors}, {"weight": _factors, "pos_weight": _factors}],
        ),
        ("kl_div", N(3, 4), _q, [{}]),
        ("poisson_nll_loss", _p, 3 * _q, [{}, {"full": True}, {"log_input": False}, {"log_input": False, "eps": 0.1}]),
        ("soft_margin_loss", 3 * N(3, 4), N(3, 4, salt=2), [{}]),
    ):
        for _o in _options:
            _fn = lambda x, t, n=_name, o={**_o, "reduction": _r}: getattr(F, n)(x, t, **o)
            case(f"F.{_name} {_r} {list(_o)} {list(_o.values())[:1]}", _fn, _x, _t)
    case(
        f"F.kl_div log_target {_r}",
        lambda x, t, r=_r: F.kl_div(x, t, reduction=r, log_target=True),
        N(3, 4),
        N(3, 4, salt=1),
    )
    for _v in ((3, 4), (3, 1), (3,)):
        case(
            f"F.gaussian_nll_loss {_r} {_v}",
            lambda x, t, v, r=_r: F.gaussian_nll_loss(x, t, v, reduction=r),
            N(3, 4),
            N(3, 4, salt=1),
            P(*_v, salt=2),
        )
    case(
        f"F.hinge_embedding_loss {_r}",
        lambda x, r=_r: F.hinge_embedding_loss(x, _signs, 0.31, reduction=r),
        A(3, 4),
    )
    case(
        f"F.margin_ranking_loss {_r}",
        lambda x, y, r=_r: F.margin_ranking_loss(x, y, _signs, 0.3, reduction=r),
        A(3, 4),
        2 * A(3, 4, salt=1) + 0.0123,
    )
    case(
        f"F.cosine_embedding_loss {_r}",
        lambda x, y, r=_r: F.cosine_embedding_loss(x, y, _signs[0], -0.3, reduction=r),
        N(4, 3),
        N(4, 3, salt=1),
    )
    for _d in (1.0, 2.0, 3.0, np.inf):
        case(
            f"F.triplet_margin_loss {_r} {_d}",
            lambda a, p, n, d=_d, r=_r: F.triplet_margin_loss(a, p, n, 2.5, d, swap=d == 2, reduction=r),
            A(3, 4),
            A(3, 4, salt=1) + 0.0123,
            A(3, 4, salt=2) + 0.0321,
        )
    for _d in (1, 2):
        case(
            f"F.multi_margin_loss {_r} {_d}",
            lambda x, d=_d, r=_r: F.multi_margin_loss(x, [1, 0, 3], d, 0.71, _factors if d == 2 else None, reduction=r),
            A(3, 4),
        )
    case(
        f"F.multilabel_margin_loss {_r}",
        lambda x, r=_r: F.multilabel_margin_loss(x, _labels, reduction=r),
        0.37 * A(3, 4),
    )
    case(
        f"F.multilabel_soft_margin_loss {_r}",
        lambda x, t, r=_r: F.multilabel_soft_margin_loss(x, t, _factors, reduction=r),
        N(3, 4),
        _q,
    )
    for _s, _t in (((5, 4), [1, 2, 3, 1, 0]), ((2, 4, 3), [[1, 2, 2], [0, 3, 1]])):
        for _o in (
            {"weight": _factors},
            {"ignore_index": 1},
            {"label_smoothing": 0.3},
            {"weight": _factors, "ignore_index": 2, "label_smoothing": 0.2},
        ):
            _fn = lambda x, t=_t, o={**_o, "reduction": _r}: F.cross_entropy(x, t, **o)
            case(f"F.cross_entropy {_s} {_r} {list(_o)}", _fn, N(*_s))
            if "ignore_index" not in _o:
                _fn = lambda x, t, o={**_o, "reduction": _r}: F.cross_entropy(x, t, **o)
                case(f"F.cross_entropy soft {_s} {_r} {list(_o)}", _fn, N(*_s), np.exp(N(*_s, salt=3)))
            if "label_smoothing" not in _o:
                _fn = lambda x, t=_t, o={**_o, "reduction": _r}: F.nll_loss(x, t, **o)
                case(f"F.nll_loss {_s} {_r} {list(_o)}", _fn, N(*_s))
case("F.kl_div batchmean", lambda x, t: F.kl_div(x, t, reduction="batchmean"), N(3, 4), _q)
case("F.multi_margin_loss one", lambda x: F.multi_margin_loss(x, 2), 0.1 * N(4))
case("F.l1_loss transposed", lambda x, t: F.l1_loss(x.T, t), A(3, 4), A(4, 3, salt=1) + 0.0123)

# ---- embeddings ----

_ids, _flat, _starts = np.array([[1, 4, 1], [0, 2, 4]]), np.array([3, 1, 1, 0, 4, 1]), np.array([0, 2, 2, 5])
case("F.embedding", lambda w: F.embedding(_ids, w), N(5, 3))
case("F.embedding padding", lambda w: F.embedding(_ids, w, 3), N(5, 3))
case("F.embedding transposed", lambda w: F.embedding(_ids, w.T), N(3, 5))
for _mode in ("sum", "mean", "max"):
    for _pad in (None, 1):
        _make = A if _mode == "max" else N
        _fn = lambda w, m=_mode, p=_pad: F.embedding_bag(_ids, w, mode=m, padding_idx=p)
        case(f"F.embedding_bag {_mode} {_pad}", _fn, _make(5, 3))
        _fn = lambda w, m=_mode, p=_pad: F.embedding_bag(_flat, w, _starts, mode=m, padding_idx=p)
        case(f"F.embedding_bag offsets {_mode} {_pad}", _fn, _make(5, 3))
case(
    "F.embedding_bag weighted",
    lambda w, f: F.embedding_bag(_flat, w, _starts, mode="sum", per_sample_weights=f, padding_idx=0),
    N(5, 3),
    N(6),
)

# ---- convolutions ----

# (input, weight, stride, padding, dilation, groups)
for _s, _w, *_o in [
    ((2, 2, 6), (3, 2, 3)),
    ((2, 2, 6), (3, 2, 3), 2, 1),
    ((2, 6), (3, 2, 2), 3, 2, 2),
    ((1, 4, 5), (4, 2, 2), 1, "same", 1, 2),
    ((2, 3, 5), (6, 1, 3), 1, "valid", 1, 3),
    ((2, 2, 5), (3, 2, 1), 2),
    ((1, 2, 4, 5), (3, 2, 3, 2)),
    ((2, 2, 4, 3), (2, 2, 2, 3), (2, 1), (1, 2)),
    ((1, 2, 5, 4), (2, 2, 2, 2), 1, "same", (2, 1)),
    ((2, 4, 3, 4), (2, 2, 2, 2), 2, 1, 1, 2),
    ((2, 3, 4, 4), (3, 1, 3, 3), 1, 1, 1, 3),
    ((3, 4, 3), (2, 3, 1, 1)),
    ((2, 2, 4, 5), (3, 2, 1, 1), (2, 3)),
    ((1, 1, 5, 5), (2, 1, 2, 2), 3),
    ((1, 2, 3, 3, 4), (2, 2, 2, 2, 2)),
    ((2, 2, 2, 3, 3), (2, 1, 2, 1, 3), (1, 2, 1), 1, 1, 2),
    ((1, 3, 3, 3), (2, 1, 2, 2, 2), 2, (0, 1, 2), (1, 1, 2)),
]:
    _n = f"conv{len(_w) - 2}d"
    _b = N(_w[0], salt=2)
    case(f"F.{_n} {_s} {_w} {_o}", lambda x, w, b, n=_n, o=_o: getattr(F, n)(x, w, b, *o), N(*_s), N(*_w, salt=1), _b)
# (input, weight, stride, padding, output_padding, groups, dilation)
for _s, _w, *_o in [
    ((2, 2, 4), (2, 3, 3)),
    ((2, 2, 4), (2, 3, 3), 2, 1, 1),
    ((4, 3), (4, 2, 2), 3, 0, 2, 2),
    ((1, 2, 4), (2, 2, 2), 1, 1, 0, 1, 3),
    ((1, 2, 3, 2), (2, 3, 2, 3)),
    ((2, 2, 3, 2), (2, 2, 3, 2), (2, 3), (1, 0), (0, 2)),
    ((2, 2, 2, 3), (2, 1, 2, 2), 3, 0, 0, 2),
    ((2, 2, 3), (2, 2, 1, 1), 2),
    ((1, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    ((2, 2, 2, 1, 2), (2, 1, 2, 2, 1), (2, 1, 3), (1, 0, 0), (1, 0, 2), 2),
]:
    _n, _k = f"conv_transpose{len(_w) - 2}d", _w[1] * (_o[3] if len(_o) > 3 else 1)
    _b = N(_k, salt=2)
    case(f"F.{_n} {_s} {_w} {_o}", lambda x, w, b, n=_n, o=_o: getattr(F, n)(x, w, b, *o), N(*_s), N(*_w, salt=1), _b)
case("F.conv2d without bias", F.conv2d, N(1, 2, 4, 4), N(2, 2, 2, 2))
case("F.conv_transpose2d without bias", F.conv_transpose2d, N(1, 2, 3, 3), N(2, 2, 2, 2))
case("F.conv1d transposed", lambda x, w, b: F.conv1d(x.T, w.transpose(0, 2), b[::2]), N(6, 2), N(2, 2, 3), N(6))
case("F.conv2d used twice", lambda x, w: F.conv2d(F.conv2d(x, w, padding=1).tanh(), w), N(1, 2, 4, 4), N(2, 2, 3, 3))
case("F.conv2d and elsewhere", lambda x, w: F.conv2d(x, w, padding="same").sigmoid() * x, N(2, 2, 3, 4), N(2, 2, 3, 3))

# ---- pooling ----

for _n, _s in ((1, (7,)), (2, (5, 6)), (3, (3, 4, 3))):
    _max, _avg = getattr(F, f"max_pool{_n}d"), getattr(F, f"avg_pool{_n}d")
    case(f"F.max_pool{_n}d", lambda x, f=_max: f(x, 2), A(2, 3, *_s))
    case(f"F.max_pool{_n}d overlapping", lambda x, f=_max: f(x, 3, 1, 1), A(2, 2, *_s))
    case(f"F.max_pool{_n}d dilated", lambda x, f=_max: f(x, 2, 2, 1, 2, True), A(1, 2, *_s))
    case(f"F.max_pool{_n}d indices", lambda x, f=_max: f(x, 2, return_indices=True), A(2, 2, *_s))
    case(f"F.max_pool{_n}d unbatched", lambda x, f=_max: f(x, 2, 1, return_indices=True), A(3, *_s))
    case(f"F.max_pool{_n}d transposed", lambda x, f=_max: f(x.transpose(0, 1), 2), A(3, 2, *_s))
    case(f"F.avg_pool{_n}d", lambda x, f=_avg: f(x, 2), N(2, 3, *_s))
    case(f"F.avg_pool{_n}d overlapping", lambda x, f=_avg: f(x, 3, 1, 1), N(2, 2, *_s))
    case(f"F.avg_pool{_n}d partial", lambda x, f=_avg: f(x, 3, 2, 1, True, False), N(1, 2, *_s))
    case(f"F.avg_pool{_n}d unbatched", lambda x, f=_avg: f(x, 2, 1), N(3, *_s))
    case(f"F.avg_pool{_n}d transposed", lambda x, f=_avg: f(x.transpose(0, 1), 2), N(3, 2, *_s))
    if _n > 1:
        case(f"F.avg_pool{_n}d divisor", lambda x, f=_avg: f(x, 2, divisor_override=-3), N(2, 2, *_s))
    for _kind, _make in (("avg", N), ("max", A)):
        _fn = getattr(F, f"adaptive_{_kind}_pool{_n}d")
        case(f"F.adaptive_{_kind}_pool{_n}d", lambda x, f=_fn: f(x, 2), _make(2, 3, *_s))
        case(f"F.adaptive_{_kind}_pool{_n}d global", lambda x, f=_fn: f(x, 1), _make(2, 3, *_s))
        case(f"F.adaptive_{_kind}_pool{_n}d larger", lambda x, f=_fn: f(x, 5), _make(1, 2, *_s))
    case(f"F.adaptive_max_pool{_n}d indices", lambda x, f=_fn: f(x, 2, True), A(3, *_s))

# ---- normalization ----

_mean, _var = N(3, salt=7), P(3, salt=7)
for _s in ((6, 3), (4, 3, 5), (2, 3, 2, 3), (2, 3, 2, 2, 2)):
    _w, _b = N(3, salt=2), N(3, salt=3)
    case(f"F.batch_norm {_s}", lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=0.1), N(*_s), _w, _b)
    case(f"F.batch_norm {_s} evaluation", lambda x, w, b: F.batch_norm(x, _mean, _var, w, b), N(*_s), _w, _b)
    case(f"F.group_norm {_s}", lambda x, w, b: F.group_norm(x, 1, w, b, 0.1), N(*_s), _w, _b)
    if len(_s) > 2:
        case(f"F.instance_norm {_s}", lambda x, w, b: F.instance_norm(x, None, None, w, b, eps=0.1), N(*_s), _w, _b)
        case(f"F.local_response_norm {_s}", lambda x: F.local_response_norm(x, 2, 1.5, 0.75, 1.2), N(*_s))
case("F.batch_norm plain", lambda x: F.batch_norm(x, None, None, training=True), N(5, 2))
case("F.batch_norm evaluation plain", lambda x: F.batch_norm(x, _mean, _var), N(5, 3))
case("F.batch_norm transposed", lambda x, w: F.batch_norm(x.T, None, None, w, None, True, eps=0.1), N(2, 5), N(2))
case(
    "F.batch_norm running",
    lambda x: F.batch_norm(x, nncore.zeros(3).double(), nncore.ones(3).double(), training=True, eps=0.1),
    N(4, 3),
)
case("F.batch_norm fold", lambda x, w: F.batch_norm(x, None, None, w, None, True, eps=0.1), N(19, 3), N(3))
case("F.instance_norm evaluation", lambda x: F.instance_norm(x, _mean, _var, use_input_stats=False), N(2, 3, 4))
case("F.group_norm groups", lambda x, w, b: F.group_norm(x, 2, w, b, 0.1), N(2, 4, 3, 2), N(4), N(4, salt=1))
case("F.group_norm rows", lambda x, w, b: F.group_norm(x, 2, w, b, 0.1), N(3, 8), N(8), N(8, salt=1))
for _s, _k in (((4, 5), 1), ((2, 3, 4), 1), ((2, 3, 4), 2), ((7,), 1), ((2, 19), 1)):
    _tail = _s[len(_s) - _k :]
    case(
        f"F.layer_norm {_s} {_k}",
        lambda x, w, b, p=_tail: F.layer_norm(x, p, w, b, 0.1),
        N(*_s),
        N(*_tail),
        N(*_tail, salt=1),
    )
    case(f"F.rms_norm {_s} {_k}", lambda x, w, p=_tail: F.rms_norm(x, p, w, 0.1), N(*_s), N(*_tail))
case("F.layer_norm plain", lambda x: F.layer_norm(x, 4, eps=0.1), N(3, 4))
case("F.rms_norm plain", lambda x: F.rms_norm(x, 4), N(3, 4))
case(
    "F.layer_norm channels-last",
    lambda x, w, b: F.layer_norm(F.avg_pool2d(x, 1), (3, 2, 2), w, b, 0.1),
    N(2, 3, 2, 2),
    N(3, 2, 2),
    N(3, 2, 2, salt=1),
)
case("F.local_response_norm window", lambda x: F.local_response_norm(x, 5, 2.0, 1.25, 0.7), N(2, 7, 3))

# ---- padding ----

for _mode in ("constant", "reflect", "replicate", "circular"):
    case(f"F.pad {_mode}", lambda x, m=_mode: F.pad(x, (2, 1, 1, 3), m), N(2, 4, 3))
    case(f"F.pad {_mode} less", lambda x, m=_mode: F.pad(x, (-1, 2, 1, -2), m), N(2, 4, 3))
    case(f"F.pad {_mode} transposed", lambda x, m=_mode: F.pad(x.T, (1, 2, 2, 0), m), N(4, 3))
    case(
        f"F.pad {_mode} of a convolution",
        lambda x, w, m=_mode: F.pad(F.conv2d(x, w), (1, 2, 2, 1), m),
        N(2, 2, 4, 5),
        N(3, 2, 2, 3),
    )
case("F.pad value", lambda x: F.pad(x, (1, 1, 0, 0, 2, 0), value=3.0), N(2, 2, 3))

# ---- interpolation ----

for _name, _shape, _options in (
    ("nearest", (2, 3, 4), {"size": 7}),
    ("nearest", (2, 3, 4, 3), {"scale_factor": (2, 1.5)}),
    ("nearest-exact", (1, 2, 3, 2, 2), {"size": (4, 2, 3)}),
    ("linear", (2, 3, 4), {"size": 7}),
    ("linear", (2, 3, 4), {"size": 3, "align_corners": True}),
    ("bilinear", (2, 3, 4, 3), {"scale_factor": (2, 1.5)}),
    ("bilinear", (2, 3, 4, 3), {"size": 7, "align_corners": True}),
    ("bilinear", (1, 2, 6, 5), {"size": (2, 3), "antialias": True}),
    ("bicubic", (2, 3, 4, 3), {"size": (3, 7)}),
    ("bicubic", (1, 2, 6, 5), {"size": (2, 3), "antialias": True}),
    ("trilinear", (1, 2, 3, 2, 2), {"scale_factor": 1.7, "recompute_scale_factor": True}),
    ("area", (2, 3, 4, 3), {"size": (2, 5)}),
):
    case(
        f"F.interpolate {_name} {_shape} {_options}",
        lambda x, m=_name, o=_options: F.interpolate(x, mode=m, **o),
        N(*_shape),
    )
case("F.interpolate transposed", lambda x: F.interpolate(x.permute(2, 3, 0, 1), 4, mode="bilinear"), N(3, 2, 2, 3))

# ---- depthwise convolutions ----

case("F.conv1d depthwise", lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2, 5), N(2, 5, 9), N(5, 1, 3), N(5))
case("F.conv2d depthwise", lambda x, w, b: F.conv2d(x, w, b, 1, 1, 1, 5), N(2, 5, 4, 6), N(5, 1, 3, 3), N(5))
case("F.conv2d multiplier", lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 3), N(2, 3, 5, 4), N(6, 1, 3, 2), N(6))
case("F.conv2d narrow groups", lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 3), N(2, 6, 5, 4), N(6, 2, 3, 3), N(6))
case("F.conv3d depthwise", lambda x, w: F.conv3d(x, w, None, (1, 2, 1), 1, 1, 3), N(1, 3, 3, 4, 3), N(3, 1, 2, 3, 2))
case(
    "F.conv_transpose2d depthwise",
    lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 4),
    N(1, 4, 3, 4),
    N(4, 1, 3, 3),
    N(4),
)
case(
    "F.conv_transpose2d strided bias",
    lambda x, w, b: F.conv_transpose2d(x, w, b[::2]),
    N(1, 2, 3, 3),
    N(2, 3, 2, 2),
    N(6),
)

# ---- modules: parameters are checked too ----


def _double(build):
    """A net in float64 from a fixed seed; built when the test runs, so that a broken layer fails only its test."""

    def make():
        nncore.manual_seed(5)
        return build().double()

    return make


MODULES = {
    "nn.Linear": (_double(lambda: nn.Linear(3, 4)), (N(5, 3),)),
    "nn.Linear no bias": (_double(lambda: nn.Linear(3, 4, bias=False)), (N(2, 5, 3),)),
    "nn.ReLU": (_double(nn.ReLU), (A(3, 4),)),
    "nn.Sigmoid": (_double(nn.Sigmoid), (N(3, 4),)),
    "nn.Tanh": (_double(nn.Tanh), (N(3, 4),)),
    "nn.Softmax": (_double(lambda: nn.Softmax(1)), (N(3, 4),)),
    "nn.LogSoftmax": (_double(lambda: nn.LogSoftmax(0)), (N(3, 4),)),
    "nn.Dropout eval": (_double(lambda: nn.Dropout(0.5).eval()), (N(3, 4),)),
    "nn.Flatten": (_double(nn.Flatten), (N(2, 3, 4),)),
    "nn.Identity": (_double(nn.Identity), (N(2, 3),)),
    "nn.Sequential": (_double(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))), (N(4, 3),)),
    "nn.Sequential with softmax": (
        _double(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3), nn.LogSoftmax())),
        (N(4, 2, 3),),
    ),
    "nn.Conv1d": (_double(lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1)), (N(2, 2, 6),)),
    "nn.Conv1d same": (_double(lambda: nn.Conv1d(2, 2, 2, padding="same", bias=False)), (N(2, 5),)),
    "nn.Conv2d": (_double(lambda: nn.Conv2d(2, 3, (3, 2), padding=1, dilation=(1, 2))), (N(1, 2, 4, 3),)),
    "nn.Conv2d groups": (_double(lambda: nn.Conv2d(4, 2, 2, groups=2)), (N(2, 4, 3, 3),)),
    "nn.Conv3d": (_double(lambda: nn.Conv3d(2, 2, 2, stride=(1, 2, 1))), (N(1, 2, 3, 3, 2),)),
    "nn.ConvTranspose1d": (_double(lambda: nn.ConvTranspose1d(2, 3, 3, 2, 1, output_padding=1)), (N(2, 2, 3),)),
    "nn.ConvTranspose2d": (_double(lambda: nn.ConvTranspose2d(2, 2, (3, 2), stride=2)), (N(1, 2, 3, 2),)),
    "nn.ConvTranspose2d groups": (_double(lambda: nn.ConvTranspose2d(2, 4, 2, groups=2, dilation=2)), (N(1, 2, 2, 3),)),
    "nn.ConvTranspose3d": (_double(lambda: nn.ConvTranspose3d(2, 1, 2, stride=(1, 2, 1))), (N(1, 2, 2, 2, 2),)),
    "nn.Sequential of convolutions": (
        _double(
            lambda: nn.Sequential(
                nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2, 2), nn.Flatten(), nn.Linear(8, 2)
            )
        ),
        (N(2, 1, 4, 4),),
    ),
    "nn.MSELoss": (_double(nn.MSELoss), (N(3, 2), N(3, 2, salt=1))),
    "nn.CrossEntropyLoss": (_double(nn.CrossEntropyLoss), (N(3, 4), nncore.tensor([0, 3, 1]))),
    "nn.NLLLoss": (_double(lambda: nn.NLLLoss(reduction="sum")), (N(3, 4), nncore.tensor([0, 3, 1]))),
}
for _n, _s in ((1, (5,)), (2, (3, 2)), (3, (2, 2, 3))):
    for _name, _build in (
        (f"BatchNorm{_n}d", lambda n=_n: getattr(nn, f"BatchNorm{n}d")(3, eps=0.1)),
        (f"BatchNorm{_n}d eval", lambda n=_n: getattr(nn, f"BatchNorm{n}d")(3).eval()),
        (f"InstanceNorm{_n}d", lambda n=_n: getattr(nn, f"InstanceNorm{n}d")(3, affine=True, eps=0.1)),
    ):
        MODULES[f"nn.{_name}"] = _double(_build), (N(2, 3, *_s),)
MODULES |= {
    "nn.GroupNorm": (_double(lambda: nn.GroupNorm(2, 4, eps=0.1)), (N(2, 4, 3),)),
    "nn.LayerNorm": (_double(lambda: nn.LayerNorm((3, 4), eps=0.1)), (N(2, 3, 4),)),
    "nn.RMSNorm": (_double(lambda: nn.RMSNorm(4, eps=0.1)), (N(2, 3, 4),)),
    "nn.LocalResponseNorm": (_double(lambda: nn.LocalResponseNorm(3, 1.0)), (N(2, 4, 3),)),
}
for _n, _s in ((1, (7,)), (2, (5, 6)), (3, (3, 4, 3))):
    for _name, _make, _options in (
        ("MaxPool", A, {"kernel_size": 3, "stride": 1, "padding": 1}),
        ("AvgPool", N, {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ("AdaptiveAvgPool", N, {"output_size": 2}),
        ("AdaptiveMaxPool", A, {"output_size": 2, "return_indices": True}),
    ):
        _build = lambda c=f"{_name}{_n}d", o=_options: getattr(nn, c)(**o)
        MODULES[f"nn.{_name}{_n}d"] = _double(_build), (_make(2, 2, *_s),)
    for _name, _options in (
        ("ConstantPad", {"padding": 1, "value": 2.0}),
        ("ZeroPad", {"padding": (2, -1) * _n}),
        ("ReflectionPad", {"padding": (2, 1) * _n}),
        ("ReplicationPad", {"padding": (2, 1) * _n}),
        ("CircularPad", {"padding": (2, 1) * _n}),
    ):
        _build = lambda c=f"{_name}{_n}d", o=_options: getattr(nn, c)(**o)
        MODULES[f"nn.{_name}{_n}d"] = _double(_build), (N(2, 2, *_s),)
for _mode in ("reflect", "replicate", "circular"):
    _build = lambda m=_mode: nn.Conv2d(2, 2, (3, 2), padding=(1, 2), padding_mode=m)
    MODULES[f"nn.Conv2d {_mode}"] = _double(_build), (N(1, 2, 4, 3),)


class _Run(nn.Module):
    """A recurrent layer as a function of tensors: input, h_0 and, for an LSTM, c_0 -> its results, flat. `lengths`:
    packed on the way."""

    def __init__(self, net, lengths=None):
        super().__init__()
        self.net, self.lengths = net, lengths

    def forward(self, x, *state):
        hx = state if len(state) == 2 else state[0] if state else None
        if self.lengths:
            x = nn.utils.rnn.pack_padded_sequence(x, self.lengths, enforce_sorted=False)
        y, last = self.net(x, hx) if isinstance(self.net, nn.RNNBase) else (self.net(x, hx), ())
        if self.lengths:
            y = y.data
        y = y if isinstance(y, tuple) else (y,)
        return (*y, *(last if isinstance(last, tuple) else (last,)))


for _name, _make, _n in (
    ("RNN", nn.RNN, 1),
    ("RNN relu", lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k), 1),
    ("LSTM", nn.LSTM, 2),
    ("GRU", nn.GRU, 1),
):
    _states = lambda *s, n=_n: tuple(N(*s, salt=7 + i) for i in range(n))
    for _more, _build, _arrays in (
        ("", lambda m: _Run(m(3, 4)), (N(3, 2, 3), *_states(1, 2, 4))),
        (" no state", lambda m: _Run(m(3, 2, bias=False)), (N(3, 2, 3),)),
        (" no batch", lambda m: _Run(m(3, 2)), (N(3, 3), *_states(1, 2))),
        (
            " two layers, two directions",
            lambda m: _Run(m(3, 2, num_layers=2, bidirectional=True, batch_first=True)),
            (N(2, 3, 3), *_states(4, 2, 2)),
        ),
        (
            " packed",
            lambda m: _Run(m(2, 3, bidirectional=True), [2, 4, 1, 2]),
            (N(4, 4, 2, salt=1), *_states(2, 4, 3)),
        ),
    ):
        MODULES[f"nn.{_name}{_more}"] = _double(lambda b=_build, m=_make: b(m)), _arrays
MODULES["nn.RNNCell"] = _double(lambda: _Run(nn.RNNCell(3, 4))), (N(2, 3), N(2, 4))
MODULES["nn.RNNCell relu"] = _double(lambda: _Run(nn.RNNCell(3, 4, nonlinearity="relu"))), (N(3), N(4))
MODULES["nn.LSTMCell"] = _double(lambda: _Run(nn.LSTMCell(3, 4))), (N(2, 3), N(2, 4), N(2, 4, salt=1))
MODULES["nn.GRUCell"] = _double(lambda: _Run(nn.GRUCell(3, 4, bias=False))), (N(2, 3), N(2, 4))


for _name, _make, _arguments in (
    ("CELU", A, (0.7,)), ("ELU", A, ()), ("GELU", N, ()), ("GLU", N, ()), ("Hardshrink", A, ()),
    ("Hardsigmoid", lambda *s: 3 * A(*s), ()), ("Hardswish", lambda *s: 3 * A(*s), ()), ("Hardtanh", A, ()),
    ("LeakyReLU", A, ()), ("LogSigmoid", N, ()), ("Mish", N, ()), ("PReLU", A, (4,)), ("ReLU6", A, ()), ("SELU", A, ()),
    ("SiLU", N, ()), ("Softmin", N, ()), ("Softplus", N, ()), ("Softshrink", A, (0.21,)), ("Softsign", A, ()),
    ("Tanhshrink", N, ()), ("Threshold", A, (0.11, 2.0)),
):  # fmt: skip
    MODULES[f"nn.{_name}"] = _double(lambda n=_name, a=_arguments: getattr(nn, n)(*a)), (_make(3, 4),)
MODULES["nn.RReLU"] = _double(lambda: nn.RReLU().eval()), (A(3, 4),)
MODULES["nn.Softmax2d"] = _double(nn.Softmax2d), (N(2, 3, 2, 2),)
MODULES["nn.Maxout"] = _double(lambda: nn.Maxout(3, 2, 4)), (N(5, 3),)


class _Machines(nn.Module):
    """An RBM or a DBN with all that its parameters enter, and weights that matter."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        for i, p in enumerate(net.parameters()):
            p.copy_(N(*p.shape, salt=i))

    def forward(self, v):
        found = [self.net(v)]
        for rbm in getattr(self.net, "rbms", [self.net]):
            h = rbm(v)
            found += [rbm.reconstruct(v), rbm.free_energy(v), rbm.energy(v, h)]
            v = h
        return tuple(found)


MODULES["nn.RBM"] = _double(lambda: _Machines(nn.RBM(4, 3))), (N(5, 4),)
MODULES["nn.RBM gaussian"] = _double(lambda: _Machines(nn.RBM(4, 3, "gaussian"))), (N(5, 4),)
MODULES["nn.DBN"] = _double(lambda: _Machines(nn.DBN([3, 4, 2]))), (N(5, 3),)
MODULES["nn.Embedding"] = _double(lambda: nn.Embedding(5, 3, 0)), (nncore.tensor([[1, 4], [1, 2]]),)
MODULES["nn.EmbeddingBag"] = (
    _double(lambda: nn.EmbeddingBag(5, 3, mode="sum")),
    (nncore.tensor([1, 4, 1]), nncore.tensor([0, 1]), N(3)),
)
for _name, _x, _t, _arguments in (
    ("BCELoss", _p, _q, {"weight": _factors}), ("BCEWithLogitsLoss", A(3, 4), _q, {"pos_weight": _factors}),
    ("HuberLoss", A(3, 4), A(3, 4, salt=1) + 0.0123, {"delta": 0.4}), ("KLDivLoss", N(3, 4), _q, {}),
    ("L1Loss", A(3, 4), A(3, 4, salt=1) + 0.0123, {}), ("PoissonNLLLoss", N(3, 4), _q, {"full": True}),
    ("RMSELoss", A(3, 4), A(3, 4, salt=1) + 0.0123, {}), ("SoftMarginLoss", N(3, 4), N(3, 4, salt=1), {}),
    ("SmoothL1Loss", A(3, 4), A(3, 4, salt=1) + 0.0123, {"beta": 0.4}),
    ("MultiLabelSoftMarginLoss", N(3, 4), _q, {"weight": _factors}),
    ("HingeEmbeddingLoss", A(3, 4), nncore.tensor(_signs), {"margin": 0.31}),
    ("MultiLabelMarginLoss", 0.37 * A(3, 4), nncore.tensor(_labels), {}),
    ("MultiMarginLoss", 0.37 * A(3, 4), nncore.tensor([1, 0, 3]), {"p": 2, "weight": _factors}),
):  # fmt: skip
    MODULES[f"nn.{_name}"] = _double(lambda n=_name, a=_arguments: getattr(nn, n)(**a)), (_x, _t)
MODULES["nn.CrossEntropyLoss smoothed"] = (
    _double(lambda: nn.CrossEntropyLoss(_factors, ignore_index=3, label_smoothing=0.1)),
    (N(3, 4), nncore.tensor([0, 3, 1])),
)
MODULES["nn.GaussianNLLLoss"] = _double(lambda: nn.GaussianNLLLoss(full=True)), (N(3, 4), N(3, 4, salt=1), P(3, 4))
MODULES["nn.MarginRankingLoss"] = (
    _double(lambda: nn.MarginRankingLoss(0.3)),
    (A(3, 4), 2 * A(3, 4, salt=1) + 0.0123, nncore.tensor(_signs)),
)
MODULES["nn.CosineEmbeddingLoss"] = (
    _double(lambda: nn.CosineEmbeddingLoss(-0.3)),
    (N(4, 3), N(4, 3, salt=1), nncore.tensor(_signs[0])),
)
MODULES["nn.TripletMarginLoss"] = (
    _double(lambda: nn.TripletMarginLoss(2.5, swap=True)),
    (A(3, 4), A(3, 4, salt=1) + 0.0123, A(3, 4, salt=2) + 0.0321),
)
MODULES |= {
    "nn.Bilinear": (_double(lambda: nn.Bilinear(3, 2, 4)), (N(5, 3), N(5, 2, salt=1))),
    "nn.Bilinear no bias": (_double(lambda: nn.Bilinear(3, 2, 1, bias=False)), (N(2, 2, 3), N(2, 2, 2, salt=1))),
    "nn.CosineSimilarity": (_double(lambda: nn.CosineSimilarity(0)), (N(3, 4), N(3, 4, salt=1))),
    "nn.PairwiseDistance": (_double(lambda: nn.PairwiseDistance(3.0)), (N(3, 4), N(3, 4, salt=1))),
    "nn.Unflatten": (_double(lambda: nn.Unflatten(1, (2, -1))), (N(3, 6),)),
    "nn.PixelShuffle": (_double(lambda: nn.PixelShuffle(2)), (N(2, 4, 2, 3),)),
    "nn.Upsample": (_double(lambda: nn.Upsample(scale_factor=2.5, mode="bicubic")), (N(2, 3, 3, 2),)),
    "nn.UpsamplingNearest2d": (_double(lambda: nn.UpsamplingNearest2d(5)), (N(2, 3, 3, 2),)),
    "nn.UpsamplingBilinear2d": (_double(lambda: nn.UpsamplingBilinear2d((5, 3))), (N(2, 3, 3, 2),)),
    "nn.PixelUnshuffle": (_double(lambda: nn.PixelUnshuffle(2)), (N(2, 1, 4, 2),)),
    "nn.Dropout1d eval": (_double(lambda: nn.Dropout1d().eval()), (N(2, 3, 2),)),
    "nn.Dropout2d eval": (_double(lambda: nn.Dropout2d().eval()), (N(2, 3, 2, 1),)),
    "nn.Dropout3d eval": (_double(lambda: nn.Dropout3d().eval()), (N(2, 3, 1, 2, 1),)),
    "nn.AlphaDropout eval": (_double(lambda: nn.AlphaDropout().eval()), (N(2, 3),)),
    "nn.FeatureAlphaDropout eval": (_double(lambda: nn.FeatureAlphaDropout().eval()), (N(2, 3),)),
    "nn.GaussianNoise eval": (_double(lambda: nn.GaussianNoise().eval()), (N(2, 3),)),
}
MODULES |= {
    "utils.weight_norm": (_double(lambda: nn.utils.weight_norm(nn.Linear(3, 4))), (N(5, 3),)),
    "utils.weight_norm whole": (_double(lambda: nn.utils.weight_norm(nn.Conv1d(2, 3, 2), dim=None)), (N(2, 2, 4),)),
    "utils.spectral_norm": (_double(lambda: nn.utils.spectral_norm(nn.Linear(3, 4)).eval()), (N(5, 3),)),
    "utils.spectral_norm transposed": (
        _double(lambda: nn.utils.spectral_norm(nn.ConvTranspose1d(2, 3, 2)).eval()),
        (N(2, 2, 4),),
    ),
}
NOTHING_TO_SCALE = {n for n in MODULES if n.endswith(" eval")} | {"nn.Identity"}  # they give it back
for _name, _shape in (
    ("dropout1d", (2, 5, 3)),
    ("dropout2d", (2, 5, 2, 2)),
    ("dropout3d", (2, 5, 1, 2, 2)),
    ("alpha_dropout", (4, 5)),
    ("feature_alpha_dropout", (2, 5, 3)),
):
    case(f"F.{_name}", _dropout(lambda x, name=_name: getattr(F, name)(x, 0.4, True)), N(*_shape))
case("F.gaussian_noise", _dropout(lambda x: F.gaussian_noise(x, 0.4) ** 2), N(4, 5))
case("F.gaussian_noise transposed", _dropout(lambda x: F.gaussian_noise(x.T, 0.4) ** 2), N(4, 5))
case("utils.l1_penalty", lambda a, b: nn.utils.l1_penalty([a, b]), A(4, 5), A(3, salt=1))
case("F.bilinear", F.bilinear, N(2, 3), N(2, 2, salt=1), N(4, 3, 2, salt=2), N(4, salt=3))
case("F.cosine_similarity", F.cosine_similarity, N(3, 4), N(3, 4, salt=1))
case("F.cosine_similarity broadcast", lambda a, b: F.cosine_similarity(a, b, -1), N(2, 1, 4), N(3, 4, salt=1))
case("F.cosine_similarity short", lambda a, b: F.cosine_similarity(a, b, 0, eps=9.0), N(4), N(4, salt=1))
for _order in (1.0, 2.0, 3.0, float("inf")):
    case(f"F.pairwise_distance {_order}", lambda a, b, p=_order: F.pairwise_distance(a, b, p), N(3, 4), N(4, salt=1))
case("F.pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), N(1, 2, 8, 1, 2))
case("F.pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 3), N(2, 3, 6))
case("Tensor.unflatten", lambda x: x.unflatten(-1, (2, 3)), N(2, 6))

case("utils.parameters_to_vector", lambda a, b: nn.utils.parameters_to_vector([a, b]), N(2, 3), N(4))

# Sequences of different lengths: what moves where is worked out on the way, so that they stand in no other table.
_rnn = nn.utils.rnn
UTILITIES = {
    "utils.rnn.pad_sequence": (lambda a, b: _rnn.pad_sequence([a, b], padding_value=2.0), N(2, 3), N(4, 3)),
    "utils.rnn.unpad_sequence": (lambda x: tuple(_rnn.unpad_sequence(x, [2, 3])), N(3, 2)),
    "utils.rnn.pack_padded_sequence": (lambda x: _rnn.pack_padded_sequence(x, [2, 3], False, False).data, N(3, 2, 2)),
    "utils.rnn.pack_sequence": (lambda a, b: _rnn.pack_sequence([a, b], False).data, N(2, 3), N(4, 3)),
    "utils.rnn.PackedSequence": (lambda x: _rnn.PackedSequence(x, [2, 1]).data * 2, N(3, 2)),
    "utils.rnn.pad_packed_sequence": (lambda x: _rnn.pad_packed_sequence(_rnn.PackedSequence(x, [2, 1]))[0], N(3, 2)),
    "utils.rnn.unpack_sequence": (lambda x: tuple(_rnn.unpack_sequence(_rnn.PackedSequence(x, [2, 1]))), N(3, 2)),
}

EXEMPT = {
    **dict.fromkeys(("nn.ModuleDict", "nn.ParameterList", "nn.ParameterDict"), "a container without a forward"),
    "Tensor.register_hook": "computes nothing: test_hooks",
    "Tensor.retain_grad": "as Tensor.register_hook",
    "nn.RNNBase": "the base class of RNN, LSTM and GRU",
    "F.heaviside": "the gradient is 0: test_activations",
    "nn.Heaviside": "as F.heaviside",
    "nn.Perceptron": "learns by its own rule, its gradient is 0",
    "F.one_hot": "integers have no gradient",
    "nn.Module": "the base class computes nothing",
    "nn.ModuleList": "a container without a forward",
    "Tensor.detach": "leaves the graph: test_autograd",
    "Tensor.to": "test_casts_pass_gradients: rounding to float32 is no function for finite differences",
    "Tensor.float": "as Tensor.to",
    "Tensor.double": "as Tensor.to",
    "Tensor.long": "integers have no gradient",
    "Tensor.bool": "bools have no gradient",
    "Tensor.argmax": "integers have no gradient",
    "Tensor.argmin": "integers have no gradient",
    "nncore.argmax": "integers have no gradient",
    "nncore.argmin": "integers have no gradient",
}
for _name in (
    "numpy",
    "item",
    "tolist",
    "backward",
    "requires_grad_",
    "is_contiguous",
    "dim",
    "size",
    "element_size",
    "numel",
):
    EXEMPT[f"Tensor.{_name}"] = "no operation"
for _name in (
    "shape",
    "strides",
    "ndim",
    "dtype",
    "requires_grad",
    "grad",
    "is_leaf",
    "grad_fn",
    "output_nr",
    "channels_last",
):
    EXEMPT[f"Tensor.{_name}"] = "an attribute"
for _name in ("copy_", "fill_", "zero_", "add_", "sub_", "mul_", "div_"):
    EXEMPT[f"Tensor.{_name}"] = "writes leaves, outside the graph"


@pytest.mark.parametrize("name", CASES)
def test_operation(name, isa):
    fn, arrays = CASES[name]
    gradcheck(fn, *arrays)


@pytest.mark.parametrize("name", MODULES)
def test_module(name, isa):
    build, arrays = MODULES[name]
    gradcheck(build(), *arrays)


@pytest.mark.parametrize("name", UTILITIES)
def test_utility(name):
    fn, *arrays = UTILITIES[name]
    gradcheck(fn, *arrays)


def scaled(factor):
    """`record` with every backward off by a factor."""
    honest = _tape.record

    def record(out, name, inputs, backward, saved=()):
        def wrong(*dys):
            return tuple(None if g is None else g * factor for g in backward(*dys))

        return honest(out, name, inputs, wrong, saved)

    return record


@pytest.mark.parametrize("name", [*CASES, *MODULES])
def test_one_percent_is_noticed(name, monkeypatch):
    """No entry is a check that cannot fail: a gradient 1 % off turns each one red."""
    fn, arrays = CASES[name] if name in CASES else (MODULES[name][0](), MODULES[name][1])
    if name in NOTHING_TO_SCALE:
        pytest.skip("records no operation: the input itself")
    monkeypatch.setattr(_tape, "record", scaled(1.01))
    with pytest.raises(AssertionError, match=r"error .* >"):
        gradcheck(fn, *arrays)


def test_scaled_by_one_passes(monkeypatch):
    """The mutation above is the factor's doing, not the wrapper's."""
    monkeypatch.setattr(_tape, "record", scaled(1.0))
    gradcheck(lambda x: (x.exp() * x).sum(0), N(3, 2))


def test_gradcheck_refuses_a_zero_gradient():
    with pytest.raises(AssertionError, match="numeric gradient is zero"):
        gradcheck(lambda x: x * 0, N(3))


def test_gradcheck_sees_a_missing_gradient():
    with pytest.raises(AssertionError, match="no gradient arrived"):
        gradcheck(lambda x, y: x + y.detach(), N(3), N(3, salt=1))


def test_gradcheck_sees_a_constant_offset(monkeypatch):
    """A backward that is not linear in the cotangent."""
    tiny = 1e-12  # below the tolerance of the differences

    def op(x):
        return _tape.record((x.detach() * 2), "odd", (x,), lambda dy: (dy * 2 + tiny,))

    with pytest.raises(AssertionError, match="not linear"):
        gradcheck(op, N(3))


def test_dropout_module_in_training():
    layer = nn.Dropout(0.5)
    gradcheck(_dropout(layer), N(5, 7))


def test_custom_module_with_shared_parameters():
    """A parameter used twice, in a net with a branch: gradients of both uses add up."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a
            self.scale = nn.Parameter(np.array([0.3, 1.1, -0.4]))

        def forward(self, x):
            h = self.a(x).tanh()
            return self.b(h) * self.scale + h * x

    gradcheck(Net().double(), N(4, 3))


def test_casts_pass_gradients():
    x = nncore.tensor([0.5, -1.25], requires_grad=True)
    (x.double() * 3).backward([1.0, 2.0])
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3.0, 6.0]
    y = nncore.tensor([0.5, -1.25], dtype=nncore.float64, requires_grad=True)
    (y.float() * 2 + y.to(nncore.float32)).backward([1.0, 2.0])
    assert y.grad.dtype == np.float64
    assert y.grad.tolist() == [3.0, 6.0]
    assert not x.long().requires_grad
    assert not x.bool().requires_grad


def test_ties_share_the_gradient():
    """At a tie: max over all elements and maximum share, max along an axis gives all to the first."""
    x = nncore.tensor([1.0, 3.0, 3.0], requires_grad=True)
    x.max().backward()
    assert x.grad.tolist() == [0.0, 0.5, 0.5]
    x.grad = None
    x.max(0)[0].backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    x.grad = None
    x.min(0, keepdim=True)[0].backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    y = nncore.tensor([1.0, 3.0, 4.0], requires_grad=True)
    x.grad = None
    x.maximum(y).backward([1.0, 1.0, 1.0])
    assert x.grad.tolist() == [0.5, 0.5, 0.0]
    assert y.grad.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("fn", [Tensor.relu, Tensor.abs])
def test_gradient_at_zero_is_zero(fn):
    x = nncore.tensor([0.0, -0.0], requires_grad=True)
    fn(x).backward([1.0, 1.0])
    assert x.grad.tolist() == [0.0, 0.0]


def test_power_at_zero():
    """torch's values: d/da a^0 = 0, d/db 0^b = 0 for b >= 0."""
    a = nncore.tensor([0.0, 2.0], requires_grad=True)
    b = nncore.tensor([0.0, 0.0], requires_grad=True)
    (a**b).backward([1.0, 1.0])
    assert a.grad.tolist() == [0.0, 0.0]
    assert b.grad.tolist() == [0.0, pytest.approx(np.log(2), rel=1e-6)]
    a.grad = None
    (a**0).backward([1.0, 1.0])
    assert a.grad.tolist() == [0.0, 0.0]


def test_constant_inputs_get_no_gradient():
    x = nncore.tensor(N(3))
    w = nncore.tensor(N(3, salt=1), requires_grad=True)
    (x * w / x + w).backward(np.ones(3))
    assert x.grad is None
    np.testing.assert_allclose(w.grad.numpy(), np.full(3, 2.0))


def test_everything_is_checked():
    """Each public operation, method and module has a gradient check or a reason why not."""
    covered = {n.split(" ")[0] for n in [*CASES, *MODULES]}
    public = {f"F.{n}" for n in F.__all__}
    public |= {f"Tensor.{n}" for n in dir(Tensor) if not n.startswith("_")}
    operators = ("add", "sub", "mul", "truediv", "pow", "matmul")
    public |= {f"Tensor.__{n}__" for n in operators} | {f"Tensor.__r{n}__" for n in operators}
    public |= {"Tensor.__neg__", "Tensor.__abs__", "Tensor.__getitem__", "Tensor.__iter__"}
    public |= {
        f"nn.{n}" for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Module)
    }
    public |= {
        f"nncore.{n}" for n, v in vars(nncore).items()
        if not n.startswith("_") and callable(v) and getattr(v, "__module__", "").startswith("nncore._ops")
    }  # fmt: skip
    assert len(public) > 100
    assert sorted(public - covered - EXEMPT.keys()) == []
    assert sorted(EXEMPT.keys() & covered) == [], "exempt, yet checked"
    assert sorted(EXEMPT.keys() - public) == [], "exempt, yet unknown"
    assert all(EXEMPT.values())
