"""Activations and dropout. (ReLU, tanh and sigmoid are elementwise arithmetic: arithmetic.py.)

The derivative of each elementwise activation is an operation of csrc/ops.def too, which reads the input once more.
"""

from nncore import _random, _tape
from nncore._core import reduction, rng
from nncore._core.elementwise import contiguous, ewise
from nncore._core.runtime import OPS
from nncore._core.tensor import new_empty
from nncore._ops._check import as_float, as_tensor, axis, integer, number, one_of
from nncore._ops.arithmetic import neg, sum_to
from nncore._ops.reduction import max as max_
from nncore._ops.shape import permute, reshape


def _map(name, x, s=0.0, t=0.0, forward=None, backward=None):
    """The operation `name` of x with scalars s and t, and its derivative `name_backward`."""
    return _tape.unary(name, OPS[forward or name], OPS[backward or name + "_backward"], x, False, s, t)


def heaviside(input, values=0.0):
    """1 where x > 0, 0 where x < 0, `values` at 0: the neuron of McCulloch and Pitts, 1943. Its gradient is 0.

    Args:
        input: Tensor or array of floats.
        values: number, the step's value at 0.

    >>> import nncore
    >>> heaviside(nncore.tensor([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    x = as_float(input)
    y = ewise(OPS["heaviside"], x, None, None, number(values, "values"))
    return _tape.record(y, "heaviside", (x,), lambda dy: (ewise(OPS["fill"], dy, None, None, 0.0),))


def leaky_relu(input, negative_slope=0.01, inplace=False):
    """x where x > 0, else negative_slope x. Maas, Hannun, Ng, ICML 2013.

    Args:
        input: Tensor or array of floats.
        negative_slope: number.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> leaky_relu(nncore.tensor([-2.0, 3.0]), 0.5).tolist()
    [-1.0, 3.0]
    """
    return _map("leaky_relu", as_float(input), number(negative_slope, "negative_slope"))


def _slopes(x, weight):
    """weight [C] or [1] in the shape that broadcasts along axis 1 of x [N, C, ...]."""
    w = as_tensor(weight, "weight", x._code)
    channels = x.shape[1] if x.ndim > 1 else 1
    if w.ndim > 1 or w.numel() not in (1, channels):
        raise ValueError(f"weight: expected 1 slope or {channels} for an input of shape {x.shape}, got shape {w.shape}")
    return reshape(w, (w.numel(), *(1,) * (x.ndim - 2)) if x.ndim else ())


def prelu(input, weight):
    """x where x > 0, else a x with a learned slope a. He et al., ICCV 2015.

    Args:
        input: [N, C, ...] (or any shape, for one slope).
        weight: the slopes, [C] or [1].

    Raises:
        ValueError: there are neither 1 nor C slopes.

    >>> import nncore
    >>> prelu(nncore.tensor([[-2.0, -2.0]]), nncore.tensor([0.5, 0.25])).tolist()
    [[-1.0, -0.5]]
    """
    x = as_float(input)
    w = _slopes(x, weight)

    def backward(dy):
        dx = ewise(OPS["prelu_backward"], dy, x, w) if x.requires_grad else None
        dw = sum_to(ewise(OPS["prelu_backward_weight"], dy, x), w.shape) if w.requires_grad else None
        return dx, dw

    return _tape.record(ewise(OPS["prelu"], x, w), "prelu", (x, w), backward, (x, w))


def rrelu(input, lower=1.0 / 8, upper=1.0 / 3, training=False, inplace=False):
    """x where x > 0, else a x: in training a is uniform on [lower, upper), drawn for each element; else it is their
    mean. Xu, Wang, Chen, Li, 2015.

    Args:
        input: Tensor or array of floats.
        lower, upper: numbers, lower <= upper.
        training: whether slopes are drawn.
        inplace: accepted for torch's sake; the input is never overwritten.

    The slopes are a function of the generator's stream and the position, so backward draws them again.

    >>> import nncore
    >>> rrelu(nncore.tensor([-2.0, 3.0]), 0.25, 0.75).tolist()
    [-1.0, 3.0]
    """
    x = as_float(input)
    lower = number(lower, "lower")
    upper = number(upper, "upper", lower)
    if not training:
        return _map("rrelu", x, (lower + upper) / 2, 0.0, "leaky_relu", "leaky_relu_backward")
    stream = _random.default_generator.next_stream()

    def slopes():
        a = new_empty(x.shape, x._code)
        rng.fill_random(a, rng.UNIFORM, lower, upper, *stream)
        return a

    def backward(dy):
        return (ewise(OPS["prelu_backward"], dy, x, slopes()),)

    return _tape.record(ewise(OPS["prelu"], x, slopes()), "rrelu", (x,), backward, (x,))


def hardtanh(input, min_val=-1.0, max_val=1.0, inplace=False):
    """x limited to [min_val, max_val]; the gradient is 0 at the limits, too. Collobert, 2004.

    Args:
        input: Tensor or array of floats.
        min_val, max_val: numbers, min_val < max_val.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> hardtanh(nncore.tensor([-2.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    low = number(min_val, "min_val")
    return _map("hardtanh", as_float(input), low, number(max_val, "max_val", low, low_open=True), "clamp")


def relu6(input, inplace=False):
    """min(max(x, 0), 6). Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    >>> import nncore
    >>> relu6(nncore.tensor([-2.0, 3.0, 9.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    return hardtanh(input, 0.0, 6.0)


def elu(input, alpha=1.0, inplace=False):
    """x where x > 0, else alpha (e^x - 1); for alpha = 1 within 1.5 ULP in float32. Clevert, Unterthiner,
    Hochreiter, ICLR 2016.

    Args:
        input: Tensor or array of floats.
        alpha: number.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> [round(v, 4) for v in elu(nncore.tensor([-1.0, 2.0])).tolist()]
    [-0.6321, 2.0]
    """
    return _map("elu", as_float(input), number(alpha, "alpha"), 1.0)


def celu(input, alpha=1.0, inplace=False):
    """max(x, 0) + min(0, alpha (e^(x/alpha) - 1)): ELU with a continuous derivative. Barron, 2017.

    Args:
        input: Tensor or array of floats.
        alpha: number, not 0.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> [round(v, 4) for v in celu(nncore.tensor([-2.0, 2.0]), 2.0).tolist()]
    [-1.2642, 2.0]
    """
    a = number(alpha, "alpha")
    if a == 0:
        raise ValueError("alpha: expected a number other than 0, got 0")
    return _map("celu", as_float(input), a, 1 / a, "elu", "elu_backward")


def gelu(input, approximate="none"):
    """x P(x), P the distribution function of the standard normal distribution; within 3.2 ULP. Or with 'tanh',
    x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Hendrycks, Gimpel, 2016. The limit at -inf is 0.

    Args:
        input: Tensor or array of floats.
        approximate: 'none' or 'tanh'.

    >>> import nncore
    >>> [round(v, 4) for v in gelu(nncore.tensor([-1.0, 1.0])).tolist()]
    [-0.1587, 0.8413]
    """
    form = one_of(approximate, "approximate", ("none", "tanh"))
    return _map("gelu" if form == "none" else "gelu_tanh", as_float(input))


def softplus(input, beta=1.0, threshold=20.0):
    """log(1 + e^(beta x)) / beta, and x where beta x > threshold. Dugas et al., NIPS 2000.

    Args:
        input: Tensor or array of floats.
        beta: number, not 0.
        threshold: number; the difference to x is e^-threshold / beta there.

    >>> import nncore
    >>> [round(v, 4) for v in softplus(nncore.tensor([0.0, 1000.0])).tolist()]
    [0.6931, 1000.0]
    """
    b = number(beta, "beta")
    if b == 0:
        raise ValueError("beta: expected a number other than 0, got 0")
    return _map("softplus", as_float(input), b, number(threshold, "threshold"))


def softshrink(input, lambd=0.5):
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0. Donoho, IEEE Trans. Inf. Theory, 1995.

    Args:
        input: Tensor or array of floats.
        lambd: number >= 0.

    >>> import nncore
    >>> softshrink(nncore.tensor([-2.0, 0.25, 2.0])).tolist()
    [-1.5, 0.0, 1.5]
    """
    return _map("softshrink", as_float(input), number(lambd, "lambd", 0), backward="shrink_backward")


def hardshrink(input, lambd=0.5):
    """x where |x| > lambd, else 0. Donoho, Johnstone, Biometrika, 1994.

    Args:
        input: Tensor or array of floats.
        lambd: number.

    >>> import nncore
    >>> hardshrink(nncore.tensor([-2.0, 0.25, 2.0])).tolist()
    [-2.0, 0.0, 2.0]
    """
    return _map("hardshrink", as_float(input), number(lambd, "lambd"), backward="shrink_backward")


def threshold(input, threshold, value, inplace=False):
    """x where x > threshold, else value.

    Args:
        input: Tensor or array of floats.
        threshold, value: numbers.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> from nncore import tensor
    >>> from nncore.nn import functional as F
    >>> F.threshold(tensor([0.5, 2.0]), 1.0, -3.0).tolist()
    [-3.0, 2.0]
    """
    return _map("threshold", as_float(input), number(threshold, "threshold"), number(value, "value"))


def _plain(name, doc, inplace=False):
    if inplace:

        def apply(input, inplace=False):
            return _map(name, as_float(input))

    else:

        def apply(input):
            return _map(name, as_float(input))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


selu = _plain(
    "selu",
    "1.0507 (x where x > 0, else 1.6733 (e^x - 1)). Klambauer et al., NIPS 2017. inplace is accepted and ignored.",
    True,
)
silu = _plain(
    "silu",
    """x sigmoid(x), elementwise; within 3 ULP in float32; the limit at -inf is 0. inplace is accepted and ignored.

    Elfwing, Uchibe, Doya, 2017; as Swish: Ramachandran, Zoph, Le, 2017.
    """,
    True,
)
mish = _plain(
    "mish",
    """x tanh(log(1 + e^x)), elementwise; within 4 ULP in float32; the limit at -inf is 0. Misra, BMVC 2020.

    inplace is accepted and ignored.
    """,
    True,
)
hardsigmoid = _plain(
    "hardsigmoid",
    "min(max(x + 3, 0), 6) / 6, elementwise. Courbariaux, Bengio, David, 2015. inplace is accepted and ignored.",
    True,
)
hardswish = _plain(
    "hardswish",
    "x min(max(x + 3, 0), 6) / 6, elementwise. Howard et al., ICCV 2019. inplace is accepted and ignored.",
    True,
)
softsign = _plain("softsign", "x / (1 + |x|), elementwise; +-1 at infinity. Bergstra et al., 2009.")
logsigmoid = _plain("log_sigmoid", "log(1 / (1 + e^-x)), elementwise; within 2 ULP in float32, cannot overflow.")
logsigmoid.__name__ = logsigmoid.__qualname__ = "logsigmoid"
tanhshrink = _plain("tanhshrink", "x - tanh(x), elementwise; within 4 ULP in float32, near 0 too.")


def glu(input, dim=-1):
    """a sigmoid(b), a and b the halves of x along axis `dim`. Dauphin, Fan, Auli, Grangier, ICML 2017.

    Args:
        input: Tensor or array of floats whose size along `dim` is even.
        dim: axis.

    Raises:
        ValueError: the size is odd.

    >>> import nncore
    >>> glu(nncore.tensor([3.0, 0.0])).tolist()
    [1.5]
    """
    x = as_float(input)
    d = axis(dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if n % 2:
        raise ValueError(f"input: expected an even size along axis {d}, got shape {x.shape}")

    def halves(t):
        shape = (*t.shape[:d], n // 2, *t.shape[d + 1 :])
        return t._view(shape, t.strides, 0), t._view(shape, t.strides, n // 2 * t.strides[d])

    a, b = halves(x)

    def backward(dy):
        dx = new_empty(x.shape, x._code)
        da, db = halves(dx)
        ewise(OPS["glu"], dy, b, None, 0, 0, da)
        ewise(OPS["glu_backward_gate"], dy, a, b, 0, 0, db)
        return (dx,)

    return _tape.record(ewise(OPS["glu"], a, b), "glu", (x,), backward, (x,))


def maxout(input, pieces, dim=1):
    """The largest of each `pieces` neighbours along an axis: y_i = max over j < pieces of x_(pieces i + j). The
    gradient goes to the largest, the first of equals. Goodfellow, Warde-Farley, Mirza, Courville, Bengio, ICML 2013.

    Args:
        input: Tensor or array of floats, the size of axis `dim` a multiple of `pieces`.
        pieces: integer >= 1.
        dim: axis of the channels.

    Returns:
        The input's shape with size / pieces along `dim`.

    Raises:
        ValueError: pieces does not divide the size.

    >>> import nncore
    >>> maxout(nncore.tensor([[1.0, 5.0, -2.0, -3.0]]), 2).tolist()
    [[5.0, -2.0]]
    """
    x = as_float(input)
    k = integer(pieces, "pieces", 1)
    d = axis(dim, x.ndim)
    if x.ndim == 0 or x.shape[d] % k:
        raise ValueError(f"pieces: {k} does not divide the size of axis {d}, input of shape {x.shape}")
    if x.numel() == 0:
        return reshape(x, (*x.shape[:d], x.shape[d] // k, *x.shape[d + 1 :]))
    return max_(reshape(x, (*x.shape[:d], x.shape[d] // k, k, *x.shape[d + 1 :])), d + 1)[0]


def _softmax(log, name, doc):
    def apply(input, dim=-1):
        x = as_float(input)
        d = axis(dim, x.ndim)
        if x.ndim == 0:
            raise ValueError("input: expected at least one dimension")
        if d != x.ndim - 1:  # the axis last, the others as they are: for channels of images that is their memory
            order = [i for i in range(x.ndim) if i != d]
            return permute(apply(permute(x, *order, d)), *range(d), x.ndim - 1, *range(d, x.ndim - 1))
        y = reduction.softmax(x, log)

        def backward(dy):
            return (reduction.softmax_backward(y, dy, log),)

        return _tape.record(y, name, (x,), backward, (y,))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


def softmin(input, dim=-1):
    """e^-x / sum of e^-x along axis `dim`, the last by default: softmax(-x).

    >>> import nncore
    >>> softmin(nncore.tensor([2.0, 2.0])).tolist()
    [0.5, 0.5]
    """
    return softmax(neg(input), dim)


softmax = _softmax(False, "softmax", "e^x / sum of e^x along axis `dim`, the last by default; cannot overflow.")
log_softmax = _softmax(True, "log_softmax", "x - log of the sum of e^x along axis `dim`, the last by default.")


def dropout(input, p=0.5, training=True):
    """Zeroes elements with probability p and scales the others by 1 / (1 - p), in training; NaN and infinities that are
    dropped leave NaN. Srivastava et al., 2014.

    Args:
        input: Tensor or array of floats.
        p: 0 to 1, to a resolution of 1/65536.
        training: False gives the input back.

    The mask is a function of the generator's stream and the position, so backward computes it again.

    >>> import nncore
    >>> dropout(nncore.ones(3), training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    x = as_float(input)
    p = number(p, "p", 0, 1)
    if not training or p == 0:
        return x
    seed, stream = _random.default_generator.next_stream()

    def backward(dy):  # the same mask, from the same counter
        return (rng.dropout(contiguous(dy), p, seed, stream),)

    return _tape.record(rng.dropout(x, p, seed, stream), "dropout", (x,), backward)
