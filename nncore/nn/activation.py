"""Activations as modules."""

from nncore._ops._check import integer, number
from nncore.nn import functional as F
from nncore.nn.module import Module


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
    """1 / (1 + e^-x), elementwise.

    >>> import nncore
    >>> Sigmoid()(nncore.tensor([0.0])).tolist()
    [0.5]
    """

    def forward(self, input):
        return F.sigmoid(input)


class Tanh(Module):
    """(e^x - e^-x) / (e^x + e^-x), elementwise.

    >>> import nncore
    >>> Tanh()(nncore.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, input):
        return F.tanh(input)


class Softmax(Module):
    """e^x / sum of e^x along an axis.

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
