"""Elementwise arithmetic with broadcasting."""

import numpy as np

from nncore import _tape
from nncore._core import elementwise, reduction
from nncore._core.elementwise import ewise
from nncore._core.runtime import OPS
from nncore._core.tensor import TensorBase
from nncore._ops._check import BOOL, FLOAT32, FLOAT64, INT64, as_array, as_float, as_tensor, constant, is_number, number


def sum_to(g, shape):
    """g summed over the axes along which `shape` was broadcast to g's shape."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    if lead:
        g, _ = reduction.reduce(reduction.SUM, g, 0, lead)
    for i in range(len(shape) - 1, -1, -1):
        if shape[i] == 1 and g.shape[i] != 1:
            g, _ = reduction.reduce(reduction.SUM, g, i, i + 1)
            g = g._view((*g.shape[:i], 1, *g.shape[i:]), (*g.strides[:i], 1, *g.strides[i:]), 0)
    return g


def crosswise(a, b):
    """What the backward of a product reads: each factor for the other's gradient only."""
    return tuple(t for t, other in ((a, b), (b, a)) if other.requires_grad)


def _unary(name, doc, saves="input"):
    """An elementwise function whose backward kernel `name_backward` takes dy and the input (or the output)."""
    op, back, of_result = OPS[name], OPS[name + "_backward"], saves == "output"

    def apply(input):
        return _tape.unary(name, op, back, as_float(input), of_result)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


square = _unary("square", "x * x, elementwise.")
abs = _unary("abs", "|x|, elementwise; the gradient at 0 is 0.")
sqrt = _unary("sqrt", "Square root, elementwise; NaN below 0.", "output")
reciprocal = _unary("reciprocal", "1 / x, elementwise.", "output")
tanh = _unary("tanh", "(e^x - e^-x) / (e^x + e^-x), elementwise; within 2 ULP in float32.", "output")
sigmoid = _unary("sigmoid", "1 / (1 + e^-x), elementwise; within 2 ULP in float32.", "output")
relu = _unary("relu", "max(x, 0), elementwise; the gradient at 0 is 0. Nair, Hinton, ICML 2010.", "output")


def neg(input):
    """-x, elementwise."""
    x = as_float(input)
    return _tape.record(ewise(OPS["neg"], x), "neg", (x,), lambda dy: (ewise(OPS["neg"], dy),))


def exp(input):
    """e^x, elementwise; within 1 ULP in float32. Results below the smallest normal number are 0."""
    return _tape.unary("exp", OPS["exp"], OPS["mul"], as_float(input), True)


def log(input):
    """Natural logarithm, elementwise; within 1 ULP in float32. -inf at 0, NaN below."""
    return _tape.unary("log", OPS["log"], OPS["div"], as_float(input), False)


# ---- two operands ----


def _pair(a, b):
    """Both as floating tensors of one dtype; an array takes the tensor's dtype."""
    if isinstance(a, TensorBase):
        return as_float(a), as_tensor(b, "other", a._code if not isinstance(b, TensorBase) else None)
    if isinstance(b, TensorBase):
        return as_tensor(a, "input", b._code), as_float(b, "other")
    a = as_float(a)
    return a, as_tensor(b, "other", a._code)


def _by_scalar(name, x, s, back):
    x = as_float(x)
    return _tape.record(ewise(OPS[name], x, None, None, s), name, (x,), back)


def add(input, other, *, alpha=1):
    """input + alpha * other, broadcast.

    Args:
        input, other: Tensors of one dtype, arrays, or numbers (one of them at least a Tensor or array).
        alpha: number.

    Raises:
        ValueError: the shapes cannot be broadcast.
        TypeError: the dtypes differ, or one is not floating.

    >>> import nncore
    >>> add(nncore.ones(2), 1).tolist()
    [2.0, 2.0]
    """
    if alpha != 1:
        other = other * alpha if is_number(other) else mul(_pair(input, other)[1], alpha)
    if is_number(other):
        return _by_scalar("add_scalar", input, float(other), lambda dy: (dy,))
    if is_number(input):
        return add(other, input)
    a, b = _pair(input, other)

    def backward(dy):
        return sum_to(dy, a.shape), sum_to(dy, b.shape)

    return _tape.record(ewise(OPS["add"], a, b), "add", (a, b), backward)


def sub(input, other, *, alpha=1):
    """input - alpha * other, broadcast; arguments and errors as add's."""
    if alpha != 1:
        other = other * alpha if is_number(other) else mul(_pair(input, other)[1], alpha)
    if is_number(other):
        return _by_scalar("add_scalar", input, -float(other), lambda dy: (dy,))
    if is_number(input):
        return _by_scalar("rsub_scalar", other, float(input), lambda dy: (ewise(OPS["neg"], dy),))
    a, b = _pair(input, other)

    def backward(dy):
        return sum_to(dy, a.shape), ewise(OPS["neg"], sum_to(dy, b.shape)) if b.requires_grad else None

    return _tape.record(ewise(OPS["sub"], a, b), "sub", (a, b), backward)


def mul(input, other):
    """input * other, broadcast; arguments and errors as add's."""
    if is_number(other):
        s = float(other)
        return _by_scalar("scale", input, s, lambda dy: (ewise(OPS["scale"], dy, None, None, s),))
    if is_number(input):
        return mul(other, input)
    a, b = _pair(input, other)

    def backward(dy):
        return (
            sum_to(ewise(OPS["mul"], dy, b), a.shape) if a.requires_grad else None,
            sum_to(ewise(OPS["mul"], dy, a), b.shape) if b.requires_grad else None,
        )

    return _tape.record(ewise(OPS["mul"], a, b), "mul", (a, b), backward, crosswise(a, b))


def div(input, other):
    """input / other, broadcast; arguments and errors as add's."""
    if is_number(other):
        x, s = as_float(input), float(other)
        y = ewise(OPS["div"], x, constant(s, x._code))
        return _tape.record(y, "div", (x,), lambda dy: (ewise(OPS["div"], dy, constant(s, dy._code)),))
    if is_number(input):
        b, s = as_float(other, "other"), float(input)
        y = ewise(OPS["rdiv_scalar"], b, None, None, s)
        return _tape.record(y, "div", (b,), lambda dy: (ewise(OPS["div_backward_b"], dy, y, b),), (y, b))
    a, b = _pair(input, other)
    y = ewise(OPS["div"], a, b)

    def backward(dy):
        return (
            sum_to(ewise(OPS["div"], dy, b), a.shape) if a.requires_grad else None,
            sum_to(ewise(OPS["div_backward_b"], dy, y, b), b.shape) if b.requires_grad else None,
        )

    return _tape.record(y, "div", (a, b), backward, (y, b))


_POWERS = {2: square, 1: lambda x: mul(x, 1.0), 0.5: sqrt, -1: reciprocal}


def pow(input, exponent):
    """input ** exponent, elementwise and broadcast, with the special cases of C's pow."""
    if is_number(exponent):
        special = _POWERS.get(exponent)
        if special is not None:
            return special(input)
        x, s = as_float(input), float(exponent)
        y = ewise(OPS["pow_scalar"], x, None, None, s)
        if s == 0:
            return _tape.record(y, "pow", (x,), lambda dy: (ewise(OPS["scale"], dy, None, None, 0.0),))
        return _tape.record(y, "pow", (x,), lambda dy: (ewise(OPS["pow_scalar_backward"], dy, x, None, s),), (x,))
    if is_number(input):
        b = as_float(exponent, "exponent")
        input = constant(float(input), b._code)
    a, b = _pair(input, exponent)
    y = ewise(OPS["pow"], a, b)

    def backward(dy):
        da = db = None
        if a.requires_grad:  # b a^(b-1)
            da = sum_to(ewise(OPS["pow_backward_a"], dy, a, b), a.shape)
        if b.requires_grad:  # y log a
            db = sum_to(ewise(OPS["pow_backward_b"], dy, a, y), b.shape)
        return da, db

    return _tape.record(y, "pow", (a, b), backward, (a, b, y))


def _extreme(name, doc):
    op, back = OPS[name], OPS[name + "_backward"]

    def apply(input, other):
        a, b = _pair(input, other)

        def backward(dy):  # where both are equal, each gets half
            return (
                sum_to(ewise(back, dy, a, b), a.shape) if a.requires_grad else None,
                sum_to(ewise(back, dy, b, a), b.shape) if b.requires_grad else None,
            )

        return _tape.record(ewise(op, a, b), name, (a, b), backward, (a, b))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


maximum = _extreme(
    "maximum", "Elementwise larger of two, broadcast; NaN if either is. Equal elements share the gradient."
)
minimum = _extreme(
    "minimum", "Elementwise smaller of two, broadcast; NaN if either is. Equal elements share the gradient."
)


def clamp(input, min=None, max=None):
    """x limited to [min, max]; the gradient is 0 outside.

    Args:
        input: Tensor or array.
        min, max: numbers; one of them may be None.

    >>> import nncore
    >>> clamp(nncore.tensor([-2.0, 0.5]), min=0).tolist()
    [0.0, 0.5]
    """
    x = as_float(input)
    if min is None and max is None:
        raise ValueError("min: give min or max")
    low = -np.inf if min is None else number(min, "min")
    high = np.inf if max is None else number(max, "max")
    y = ewise(OPS["clamp"], x, None, None, low, high)
    return _tape.record(y, "clamp", (x,), lambda dy: (ewise(OPS["clamp_backward"], dy, x, None, low, high),), (x,))


def where(condition, input, other):
    """input where condition holds, else other; broadcast.

    Args:
        condition: bool Tensor or array.
        input, other: Tensors of one dtype, arrays or numbers.

    >>> import nncore
    >>> where(nncore.tensor([True, False]), 1.0, 2.0).tolist()
    [1.0, 2.0]
    """
    c = as_tensor(condition, "condition")
    if c._code != BOOL:
        raise TypeError(f"condition: expected bool, got {c.dtype}")
    if is_number(input) and is_number(other):
        input = constant(input, FLOAT32)
    if is_number(input):
        input = constant(float(input), as_float(other, "other")._code)
    if is_number(other):
        other = constant(float(other), as_float(input)._code)
    a, b = _pair(input, other)
    c = elementwise.cast(c, a._code)
    zero = constant(0.0, a._code)

    def backward(dy):
        return (
            sum_to(ewise(OPS["where"], c, dy, zero), a.shape) if a.requires_grad else None,
            sum_to(ewise(OPS["where"], c, zero, dy), b.shape) if b.requires_grad else None,
        )

    return _tape.record(ewise(OPS["where"], c, a, b), "where", (a, b), backward)


def _comparison(name):
    op = OPS[name]

    def compare(input, other):
        """A bool tensor; integers and bools are compared as float64, exact up to 2^53."""
        a = as_tensor(input)
        wide = FLOAT64 if a._code == FLOAT64 else None  # Python floats are float32, except beside float64
        if is_number(other):
            b = constant(float(other), a._code if a._floating else FLOAT64)
        else:
            b = other if isinstance(other, TensorBase) else as_tensor(as_array(other, "other", wide), "other")
        if a._code != b._code:
            if isinstance(other, TensorBase) and isinstance(input, TensorBase) and a._floating and b._floating:
                raise TypeError(f"other: expected dtype {a.dtype}, got {b.dtype}")
            code = a._code if a._floating and b.ndim == 0 else FLOAT64
            a, b = (t if t._code == code else elementwise.cast(t, code) for t in (a, b))
        elif not a._floating:
            a, b = elementwise.cast(a, FLOAT64), elementwise.cast(b, FLOAT64)
        return elementwise.cast(ewise(op, a, b), BOOL)

    return compare


eq, ne, lt, le, gt, ge = (_comparison(n) for n in ("eq", "ne", "lt", "le", "gt", "ge"))


def to_dtype(input, code):
    """input in another dtype; the gradient is converted back."""
    x = as_tensor(input)
    if x._code == code:
        return x
    y = elementwise.cast(x, code)
    if code in (INT64, BOOL) or not x._floating:
        return y
    assert code in (FLOAT32, FLOAT64)
    return _tape.record(y, "to", (x,), lambda dy: (elementwise.cast(dy, x._code),))
