"""Fully connected layers."""

from nncore._core.tensor import new_empty
from nncore._ops._check import float_code, integer
from nncore.nn import functional as F
from nncore.nn import init
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


class Linear(Module):
    """y = x W^T + b.

    Args:
        in_features: size I of the last dimension of the input.
        out_features: size O of the last dimension of the output.
        bias: whether there is a b.
        dtype: float32 (default) or float64.

    Shape:
        input [*, I] -> output [*, O].

    Attributes:
        weight: [O, I], initialized uniformly on (-1/sqrt(I), 1/sqrt(I)), as torch's.
        bias: [O], initialized likewise, or None.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.Linear(3, 2)(nncore.ones(5, 3)).shape
    (5, 2)
    """

    def __init__(self, in_features, out_features, bias=True, *, dtype="float32"):
        super().__init__()
        self.in_features = integer(in_features, "in_features", 0)
        self.out_features = integer(out_features, "out_features", 0)
        code = float_code(dtype)
        self.weight = Parameter(new_empty((self.out_features, self.in_features), code))
        if bias:
            self.bias = Parameter(new_empty((self.out_features,), code))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draws the parameters anew."""
        init.default_(self.weight, self.bias)

    def forward(self, input):
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
