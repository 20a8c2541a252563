"""Operations under the names of torch.nn.functional. Arrays or Tensors in, Tensors out.

    relu(input)  sigmoid(input)  tanh(input)     elementwise
    softmax(input, dim=-1)                       e^x / sum e^x along dim
    log_softmax(input, dim=-1)                   x - log sum e^x along dim
    dropout(input, p=0.5, training=True)         zeroes with probability p, scales the rest by 1 / (1 - p)
    flatten(input, start_dim=0, end_dim=-1)      axes joined
    linear(input, weight, bias=None)             x [*, I], weight [O, I], bias [O]: x weight^T + bias, [*, O]
    cross_entropy(input, target, *, reduction)      -log softmax(input)[target], from logits
    nll_loss(input, target, *, reduction)           -input[target]
    mse_loss(input, target, *, reduction)           (input - target)^2

Each raises ValueError or TypeError, naming the argument, for shapes, dtypes and values it cannot take.

>>> import nncore
>>> relu(nncore.tensor([-1.0, 1.0])).tolist()
[0.0, 1.0]
"""

from nncore._ops.activation import dropout, log_softmax, softmax
from nncore._ops.arithmetic import relu, sigmoid, tanh
from nncore._ops.linear import linear
from nncore._ops.loss import cross_entropy, mse_loss, nll_loss
from nncore._ops.shape import flatten

__all__ = [
    "cross_entropy",
    "dropout",
    "flatten",
    "linear",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
