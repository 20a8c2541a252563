"""Fully connected layers."""

import math

from nncore._core.tensor import new_empty
from nncore._grad import no_grad
from nncore._ops._check import as_tensor, float_code, integer, number
from nncore.nn import functional as F
from nncore.nn import init
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


class Bilinear(Module):
    """y_o = x1^T W_o x2 + b_o.

    Args:
        in1_features, in2_features: sizes I and J of the last dimensions of the inputs.
        out_features: size O of the last dimension of the output.
        bias: whether there is a b.
        dtype: float32 (default) or float64.

    Shape:
        inputs [*, I] and [*, J] -> output [*, O].

    Attributes:
        weight: [O, I, J], initialized uniformly on (-1/sqrt(I), 1/sqrt(I)), as torch's.
        bias: [O], initialized likewise, or None.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.Bilinear(3, 2, 4)(nncore.ones(5, 3), nncore.ones(5, 2)).shape
    (5, 4)
    """

    def __init__(self, in1_features, in2_features, out_features, bias=True, *, dtype="float32"):
        super().__init__()
        self.in1_features = integer(in1_features, "in1_features", 1)
        self.in2_features = integer(in2_features, "in2_features", 0)
        self.out_features = integer(out_features, "out_features", 0)
        code = float_code(dtype)
        self.weight = Parameter(new_empty((self.out_features, self.in1_features, self.in2_features), code))
        if bias:
            self.bias = Parameter(new_empty((self.out_features,), code))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draws the parameters anew."""
        bound = 1 / math.sqrt(self.in1_features)
        for p in (self.weight, self.bias):
            if p is not None:
                init.uniform_(p, -bound, bound)

    def forward(self, input1, input2):
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self):
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}"
        return f"{sizes}, out_features={self.out_features}, bias={self.bias is not None}"


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


class Maxout(Linear):
    """y_i = max over j < pieces of w_ij x + b_ij: the largest of several linear units. Goodfellow, Warde-Farley, Mirza,
    Courville, Bengio, ICML 2013. ReLU and leaky ReLU are cases of two pieces.

    Args:
        in_features: size I of the last dimension of the input.
        out_features: size O of the last dimension of the output.
        pieces: linear units per output.
        bias: whether there is a b.
        dtype: float32 (default) or float64.

    Shape:
        input [*, I] -> output [*, O].

    Attributes:
        weight: [O * pieces, I], the pieces of an output side by side; initialized as Linear's.
        bias: [O * pieces], or None.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.Maxout(3, 2, pieces=4)(nncore.ones(5, 3)).shape
    (5, 2)
    """

    def __init__(self, in_features, out_features, pieces=2, bias=True, *, dtype="float32"):
        outputs, self_pieces = integer(out_features, "out_features", 0), integer(pieces, "pieces", 1)
        super().__init__(in_features, outputs * self_pieces, bias, dtype=dtype)
        self.out_features, self.pieces = outputs, self_pieces

    def forward(self, input):
        return F.maxout(super().forward(input), self.pieces, -1)

    def extra_repr(self):
        return f"{super().extra_repr()}, pieces={self.pieces}"


class Perceptron(Module):
    """y = step(W x + b), the perceptron: step(z) is 1 for z > 0, else 0. F. Rosenblatt, "The perceptron: a
    probabilistic model for information storage and organization in the brain", Psychological Review 65, 1958.

    It learns by its own rule (`update`, `fit`), not by gradients, which are 0. If the classes can be separated by a
    hyperplane, the number of mistakes is at most (R / g)^2, R the length of the longest sample and g the distance of
    the nearest to a separating hyperplane through the origin (with a bias: of the samples with a 1 appended). Novikoff,
    1962.

    Args:
        in_features: size I of a sample.
        out_features: number O of neurons, each with a class of its own against the rest.
        bias: whether there is a b.
        dtype: float32 (default) or float64.

    Shape:
        input [*, I] -> output [*, O].

    Attributes:
        weight: [O, I], zero at first.
        bias: [O], zero at first, or None.

    >>> import nncore
    >>> from nncore import nn
    >>> x = nncore.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> neuron = nn.Perceptron(2)
    >>> neuron.fit(x, nncore.tensor([[0.0], [0.0], [0.0], [1.0]]))[-1]  # the logical "and"
    0
    >>> neuron(x).flatten().tolist()
    [0.0, 0.0, 0.0, 1.0]
    """

    def __init__(self, in_features, out_features=1, bias=True, *, dtype="float32"):
        super().__init__()
        self.in_features = integer(in_features, "in_features", 0)
        self.out_features = integer(out_features, "out_features", 1)
        code = float_code(dtype)
        self.weight = Parameter(new_empty((self.out_features, self.in_features), code))
        if bias:
            self.bias = Parameter(new_empty((self.out_features,), code))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Sets the parameters to zero."""
        for p in self.parameters():
            init.zeros_(p)

    def forward(self, input):
        return F.heaviside(F.linear(input, self.weight, self.bias))

    def update(self, input, target, lr=1.0):
        """Rosenblatt's rule for one sample: W += lr (t - y) x^T, b += lr (t - y).

        Args:
            input: x, [I].
            target: t, [O] (or [] for one neuron), 0 or 1.
            lr: number > 0.

        Returns:
            How many neurons were wrong.
        """
        x, t = self._samples(input, target, 1)
        return self._learn(x, t, number(lr, "lr", 0, low_open=True))

    def fit(self, input, target, max_epochs=1000, lr=1.0):
        """`update` with each sample in turn, until none is wrong for a whole epoch.

        Args:
            input: samples, [N, I].
            target: [N, O] (or [N] for one neuron), 0 or 1.
            max_epochs: integer >= 1.
            lr: number > 0.

        Returns:
            The number of mistakes in each epoch, a list: its last is 0 if the samples were separated.
        """
        x, t = self._samples(input, target, 2)
        epochs, lr, mistakes = integer(max_epochs, "max_epochs", 1), number(lr, "lr", 0, low_open=True), []
        for _ in range(epochs):
            mistakes.append(sum(self._learn(x[i], t[i], lr) for i in range(x.shape[0])))
            if not mistakes[-1]:
                break
        return mistakes

    def _samples(self, input, target, ndim):
        x, t = as_tensor(input, "input", self.weight._code), as_tensor(target, "target", self.weight._code)
        if x.ndim != ndim or x.shape[-1] != self.in_features:
            expected = f"[N, {self.in_features}]" if ndim == 2 else f"[{self.in_features}]"
            raise ValueError(f"input: expected shape {expected}, got {x.shape}")
        if self.out_features == 1 and t.shape == x.shape[:-1]:
            t = t.unsqueeze(-1)
        if t.shape != (*x.shape[:-1], self.out_features):
            raise ValueError(f"target: expected shape {(*x.shape[:-1], self.out_features)}, got {t.shape}")
        if ((t != 0) == (t != 1)).sum().item():
            raise ValueError("target: expected 0 and 1 only")
        return x.detach(), t.detach()

    def _learn(self, x, t, lr):
        with no_grad():
            error = t - self(x)
            wrong = (error != 0).sum().item()
            if wrong:
                step = error * lr
                self.weight.add_(step.unsqueeze(1) * x)
                if self.bias is not None:
                    self.bias.add_(step)
        return wrong

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
