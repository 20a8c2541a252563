"""Activations as modules."""

from nncore._core.tensor import new_empty
from nncore._ops._check import as_float, float_code, integer, number, one_of
from nncore.nn import functional as F
from nncore.nn.init import constant_
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


class ReLU(Module):
    """max(x, 0), elementwise; the gradient at 0 is 0. Nair, Hinton, ICML 2010.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> ReLU()(nncore.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.relu(input)


class Sigmoid(Module):
    """1 / (1 + e^-x), elementwise: the logistic unit of Rumelhart, Hinton, Williams, Nature, 1986.

    >>> import nncore
    >>> Sigmoid()(nncore.tensor([0.0])).tolist()
    [0.5]
    """

    def forward(self, input):
        return F.sigmoid(input)


class Tanh(Module):
    """(e^x - e^-x) / (e^x + e^-x), elementwise. LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998.

    >>> import nncore
    >>> Tanh()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.tanh(input)


class ReLU6(Module):
    """min(max(x, 0), 6). Krizhevsky, 2010.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> ReLU6()(nncore.tensor([-1.0, 9.0])).tolist()
    [0.0, 6.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.relu6(input)


class SELU(Module):
    """1.0507 (x where x > 0, else 1.6733 (e^x - 1)). Klambauer et al., NIPS 2017.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> SELU()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.selu(input)


class SiLU(Module):
    """x sigmoid(x), elementwise; the limit at -inf is 0. Elfwing, Uchibe, Doya, 2017; Ramachandran, Zoph, Le, 2017.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> SiLU()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.silu(input)


class Mish(Module):
    """x tanh(log(1 + e^x)), elementwise; the limit at -inf is 0. Misra, BMVC 2020.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Mish()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.mish(input)


class Hardsigmoid(Module):
    """min(max(x + 3, 0), 6) / 6, elementwise. Courbariaux, Bengio, David, 2015.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Hardsigmoid()(nncore.tensor([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.hardsigmoid(input)


class Hardswish(Module):
    """x min(max(x + 3, 0), 6) / 6, elementwise. Howard et al., ICCV 2019.

    Args:
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Hardswish()(nncore.tensor([-4.0, 4.0])).tolist()
    [0.0, 4.0]
    """

    def __init__(self, inplace=False):
        super().__init__()

    def forward(self, input):
        return F.hardswish(input)


class Softsign(Module):
    """x / (1 + |x|), elementwise. Bergstra et al., 2009.

    >>> import nncore
    >>> Softsign()(nncore.tensor([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """

    def forward(self, input):
        return F.softsign(input)


class LogSigmoid(Module):
    """log(1 / (1 + e^-x)), elementwise; cannot overflow.

    >>> import nncore
    >>> LogSigmoid()(nncore.tensor([-1000.0])).tolist()
    [-1000.0]
    """

    def forward(self, input):
        return F.logsigmoid(input)


class Tanhshrink(Module):
    """x - tanh(x), elementwise.

    >>> import nncore
    >>> Tanhshrink()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.tanhshrink(input)


class Heaviside(Module):
    """1 where x > 0, 0 where x < 0, `values` at 0: the neuron of McCulloch and Pitts, 1943. Its gradient is 0.

    Args:
        values: number, the step's value at 0.

    >>> import nncore
    >>> Heaviside()(nncore.tensor([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, values=0.0):
        super().__init__()
        self.values = number(values, "values")

    def forward(self, input):
        return F.heaviside(input, self.values)

    def extra_repr(self):
        return f"values={self.values}"


class LeakyReLU(Module):
    """x where x > 0, else negative_slope x. Maas, Hannun, Ng, ICML 2013.

    Args:
        negative_slope: number.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> LeakyReLU(0.5)(nncore.tensor([-2.0, 3.0])).tolist()
    [-1.0, 3.0]
    """

    def __init__(self, negative_slope=0.01, inplace=False):
        super().__init__()
        self.negative_slope = number(negative_slope, "negative_slope")

    def forward(self, input):
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x where x > 0, else a x with a learned slope a. He et al., ICCV 2015.

    Args:
        num_parameters: 1 slope for all, or C, one for each channel.
        init: number, what the slopes start from.
        dtype: float32 (default) or float64.

    Shape:
        input [N, C, ...] -> output of the same shape.

    Attributes:
        weight: the slopes, [num_parameters].

    >>> import nncore
    >>> PReLU()(nncore.tensor([-2.0, 3.0])).tolist()
    [-0.5, 3.0]
    """

    def __init__(self, num_parameters=1, init=0.25, *, dtype="float32"):
        super().__init__()
        self.num_parameters, self.init = integer(num_parameters, "num_parameters", 1), number(init, "init")
        self.weight = Parameter(new_empty((self.num_parameters,), float_code(dtype)))
        self.reset_parameters()

    def reset_parameters(self):
        """Sets every slope to `init`."""
        constant_(self.weight, self.init)

    def forward(self, input):
        return F.prelu(input, self.weight)

    def extra_repr(self):
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """x where x > 0, else a x: in training a is uniform on [lower, upper), drawn for each element; in evaluation it is
    their mean. Xu, Wang, Chen, Li, 2015.

    Args:
        lower, upper: numbers, lower <= upper.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> RReLU(0.25, 0.75).eval()(nncore.tensor([-2.0, 3.0])).tolist()
    [-1.0, 3.0]
    """

    def __init__(self, lower=1.0 / 8, upper=1.0 / 3, inplace=False):
        super().__init__()
        self.lower = number(lower, "lower")
        self.upper = number(upper, "upper", self.lower)

    def forward(self, input):
        return F.rrelu(input, self.lower, self.upper, self.training)

    def extra_repr(self):
        return f"lower={self.lower}, upper={self.upper}"


class Hardtanh(Module):
    """x limited to [min_val, max_val]; the gradient is 0 at the limits, too. Collobert, 2004.

    Args:
        min_val, max_val: numbers, min_val < max_val.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Hardtanh()(nncore.tensor([-2.0, 0.5])).tolist()
    [-1.0, 0.5]
    """

    def __init__(self, min_val=-1.0, max_val=1.0, inplace=False):
        super().__init__()
        self.min_val = number(min_val, "min_val")
        self.max_val = number(max_val, "max_val", self.min_val, low_open=True)

    def forward(self, input):
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self):
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ELU(Module):
    """x where x > 0, else alpha (e^x - 1). Clevert, Unterthiner, Hochreiter, ICLR 2016.

    Args:
        alpha: number.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> ELU()(nncore.tensor([0.0, 3.0])).tolist()
    [0.0, 3.0]
    """

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__()
        self.alpha = number(alpha, "alpha")

    def forward(self, input):
        return F.elu(input, self.alpha)

    def extra_repr(self):
        return f"alpha={self.alpha}"


class CELU(Module):
    """max(x, 0) + min(0, alpha (e^(x/alpha) - 1)): ELU with a continuous derivative. Barron, 2017.

    Args:
        alpha: number, not 0.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> CELU()(nncore.tensor([0.0, 3.0])).tolist()
    [0.0, 3.0]
    """

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__()
        self.alpha = number(alpha, "alpha")
        if self.alpha == 0:
            raise ValueError("alpha: expected a number other than 0, got 0")

    def forward(self, input):
        return F.celu(input, self.alpha)

    def extra_repr(self):
        return f"alpha={self.alpha}"


class GELU(Module):
    """x P(x), P the distribution function of the standard normal distribution; or its form with tanh,
    x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Hendrycks, Gimpel, 2016. The limit at -inf is 0.

    Args:
        approximate: 'none' or 'tanh'.

    >>> import nncore
    >>> GELU()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, approximate="none"):
        super().__init__()
        self.approximate = one_of(approximate, "approximate", ("none", "tanh"))

    def forward(self, input):
        return F.gelu(input, self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + e^(beta x)) / beta, and x where beta x > threshold. Dugas et al., NIPS 2000.

    Args:
        beta: number, not 0.
        threshold: number; the difference to x is e^-threshold / beta there.

    >>> import nncore
    >>> Softplus()(nncore.tensor([1000.0])).tolist()
    [1000.0]
    """

    def __init__(self, beta=1.0, threshold=20.0):
        super().__init__()
        self.beta, self.threshold = number(beta, "beta"), number(threshold, "threshold")
        if self.beta == 0:
            raise ValueError("beta: expected a number other than 0, got 0")

    def forward(self, input):
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self):
        return f"beta={self.beta}, threshold={self.threshold}"


class Softshrink(Module):
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0. Donoho, 1995.

    Args:
        lambd: number >= 0.

    >>> import nncore
    >>> Softshrink()(nncore.tensor([-2.0, 0.25])).tolist()
    [-1.5, 0.0]
    """

    def __init__(self, lambd=0.5):
        super().__init__()
        self.lambd = number(lambd, "lambd", 0)

    def forward(self, input):
        return F.softshrink(input, self.lambd)

    def extra_repr(self):
        return f"{self.lambd}"


class Hardshrink(Module):
    """x where |x| > lambd, else 0. Donoho, Johnstone, 1994.

    Args:
        lambd: number.

    >>> import nncore
    >>> Hardshrink()(nncore.tensor([-2.0, 0.25])).tolist()
    [-2.0, 0.0]
    """

    def __init__(self, lambd=0.5):
        super().__init__()
        self.lambd = number(lambd, "lambd")

    def forward(self, input):
        return F.hardshrink(input, self.lambd)

    def extra_repr(self):
        return f"{self.lambd}"


class Threshold(Module):
    """x where x > threshold, else value.

    Args:
        threshold, value: numbers.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Threshold(1.0, -3.0)(nncore.tensor([0.5, 2.0])).tolist()
    [-3.0, 2.0]
    """

    def __init__(self, threshold, value, inplace=False):
        super().__init__()
        self.threshold, self.value = number(threshold, "threshold"), number(value, "value")

    def forward(self, input):
        return F.threshold(input, self.threshold, self.value)

    def extra_repr(self):
        return f"threshold={self.threshold}, value={self.value}"


class GLU(Module):
    """a sigmoid(b), a and b the halves of x along an axis. Dauphin, Fan, Auli, Grangier, ICML 2017.

    Args:
        dim: the axis, whose size is even.

    >>> import nncore
    >>> GLU()(nncore.tensor([3.0, 0.0])).tolist()
    [1.5]
    """

    def __init__(self, dim=-1):
        super().__init__()
        self.dim = integer(dim, "dim")

    def forward(self, input):
        return F.glu(input, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class Softmax(Module):
    """e^x / sum of e^x along an axis. Bridle, NIPS 1989.

    Args:
        dim: the axis; the last by default.

    >>> import nncore
    >>> Softmax(dim=-1)(nncore.tensor([[1.0, 1.0]])).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, dim=-1):
        super().__init__()
        self.dim = -1 if dim is None else integer(dim, "dim")

    def forward(self, input):
        return F.softmax(input, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """x - log of the sum of e^x along an axis.

    Args:
        dim: the axis; the last by default.

    >>> import nncore
    >>> LogSoftmax()(nncore.tensor([[3.0]])).tolist()
    [[0.0]]
    """

    def forward(self, input):
        return F.log_softmax(input, self.dim)


class Softmin(Softmax):
    """e^-x / sum of e^-x along an axis: softmax(-x).

    Args:
        dim: the axis; the last by default.

    >>> import nncore
    >>> Softmin()(nncore.tensor([2.0, 2.0])).tolist()
    [0.5, 0.5]
    """

    def forward(self, input):
        return F.softmin(input, self.dim)


class Softmax2d(Module):
    """Softmax over the channels at each point of images [N, C, H, W] or [C, H, W].

    Raises:
        ValueError: the input has another number of dimensions.

    >>> import nncore
    >>> Softmax2d()(nncore.zeros(1, 2, 1, 1)).tolist()
    [[[[0.5]], [[0.5]]]]
    """

    def forward(self, input):
        x = as_float(input)
        if x.ndim not in (3, 4):
            raise ValueError(f"input: expected images [N, C, H, W] or [C, H, W], got shape {x.shape}")
        return F.softmax(x, -3)


class Dropout(Module):
    """In training, zeroes elements with probability p and scales the rest by 1 / (1 - p); nothing in evaluation.
    Srivastava et al., JMLR 2014.

    Args:
        p: probability of an element to be zeroed, 0 to 1, to a resolution of 1/65536.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Dropout(0.5).eval()(nncore.tensor([1.0])).tolist()
    [1.0]
    """

    def __init__(self, p=0.5, inplace=False):
        super().__init__()
        self.p = number(p, "p", 0, 1)

    def forward(self, input):
        return F.dropout(input, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class Flatten(Module):
    """Axes start_dim..end_dim joined into one.

    Args:
        start_dim: first axis, 1 by default: [N, ...] -> [N, features].
        end_dim: last axis.

    >>> import nncore
    >>> Flatten()(nncore.zeros(5, 2, 3)).shape
    (5, 6)
    """

    def __init__(self, start_dim=1, end_dim=-1):
        super().__init__()
        self.start_dim, self.end_dim = integer(start_dim, "start_dim"), integer(end_dim, "end_dim")

    def forward(self, input):
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """The input itself. Arguments are ignored, as torch's.

    >>> Identity()(3)
    3
    """

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, input):
        return input
