"""Recurrent layers and cells."""

import math
import warnings

from nncore._core.tensor import new_empty
from nncore._ops import rnn as ops
from nncore._ops._check import as_tensor, float_code, integer, number, one_of
from nncore._ops.shape import getitem, reshape, transpose
from nncore.nn import init
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter
from nncore.nn.utils.rnn import PackedSequence


def _pair(hx):
    """(h, c) of an LSTM's hx, or of None."""
    if hx is None:
        return None, None
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        raise TypeError(f"hx: expected a tuple (h_0, c_0), got {type(hx).__name__}")
    return tuple(hx)


def _state(t, name, shape, code):
    """An initial state as a tensor of this dtype and shape; None stays."""
    if t is None:
        return None
    t = as_tensor(t, name, code)
    if t.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {t.shape}")
    return t


class _Recurrent(Module):
    """What layers and cells share: sizes, parameters and their initialization."""

    _mode = ""

    def __init__(self, input_size, hidden_size, bias):
        super().__init__()
        self.input_size = integer(input_size, "input_size", 1)
        self.hidden_size = integer(hidden_size, "hidden_size", 1)
        self.bias = bool(bias)

    def _add(self, suffix, input_size, dtype):
        """Registers the four parameters of one layer and direction."""
        code = float_code(dtype)
        rows = ops.GATES[self._mode] * self.hidden_size
        for name, shape in zip(ops.NAMES, ((rows, input_size), (rows, self.hidden_size), (rows,), (rows,))):
            wanted = self.bias or not name.startswith("bias")
            self.register_parameter(name + suffix, Parameter(new_empty(shape, code)) if wanted else None)

    def reset_parameters(self):
        """Draws the parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters(recurse=False):
            init.uniform_(p, -bound, bound)


class RNNBase(_Recurrent):
    """Base of RNN, LSTM and GRU: layers, directions, padded and packed input.

    Args:
        mode: 'RNN_TANH', 'RNN_RELU', 'LSTM' or 'GRU'; the rest as RNN's.
    """

    def __init__(
        self,
        mode,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        proj_size=0,
        *,
        dtype="float32",
    ):
        super().__init__(input_size, hidden_size, bias)
        self.mode = self._mode = one_of(mode, "mode", tuple(ops.CELLS))
        self.num_layers = integer(num_layers, "num_layers", 1)
        self.batch_first, self.bidirectional = bool(batch_first), bool(bidirectional)
        self.dropout = number(dropout, "dropout", 0, 1)
        self.proj_size = integer(proj_size, "proj_size", 0)
        if self.proj_size:
            raise ValueError(f"proj_size: projections are not offered, expected 0, got {proj_size}")
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"dropout: there is none after the last layer, so {dropout} has no effect with num_layers=1",
                stacklevel=3,
            )
        self._suffixes = [
            [f"_l{layer}{way}" for way in ("", "_reverse")[: 1 + self.bidirectional]]
            for layer in range(self.num_layers)
        ]
        for layer, suffixes in enumerate(self._suffixes):
            for suffix in suffixes:
                self._add(suffix, self.hidden_size * len(suffixes) if layer else self.input_size, dtype)
        self.reset_parameters()

    @property
    def all_weights(self):
        """For each layer and direction, the list of its parameters."""
        found = [[getattr(self, n + s) for n in ops.NAMES] for suffixes in self._suffixes for s in suffixes]
        return [[p for p in parameters if p is not None] for parameters in found]

    def flatten_parameters(self):
        """Does nothing: here for torch's users. Weights are packed when they are used."""

    def forward(self, input, hx=None):
        h0, c0 = _pair(hx) if self.mode == "LSTM" else (hx, None)
        packed = input if isinstance(input, PackedSequence) else None
        x = as_tensor(packed.data if packed else input, "input", self.weight_ih_l0._code)
        alone = packed is None and x.ndim == 2
        if x.ndim != (2 if packed or alone else 3) or x.shape[-1] != self.input_size:
            batch = "B, T" if self.batch_first else "T, B"
            expected = "rows [*" if packed else f"[{batch}, I] or [T"
            raise ValueError(f"input: expected {expected}, I] with I = {self.input_size}, got shape {x.shape}")
        steps, batch, sizes = self._sizes(packed, x, alone)
        if steps == 0:
            raise ValueError(f"input: expected at least one step, got shape {x.shape}")
        if packed is None and not alone:
            x = reshape(transpose(x, 0, 1) if self.batch_first else x, (steps * batch, self.input_size))
        states = self.num_layers * (1 + self.bidirectional)
        shape = (states, self.hidden_size) if alone else (states, batch, self.hidden_size)
        h0, c0 = _state(h0, "h_0", shape, x._code), _state(c0, "c_0", shape, x._code)
        if packed and packed.sorted_indices is not None:
            h0, c0 = (t if t is None else getitem(t, (slice(None), packed.sorted_indices)) for t in (h0, c0))
        if alone:
            h0, c0 = (t if t is None else reshape(t, (states, 1, self.hidden_size)) for t in (h0, c0))
        layers = [[tuple(getattr(self, n + s) for n in ops.NAMES) for s in suffixes] for suffixes in self._suffixes]
        y, *last = ops.stack(self.mode, x, sizes, h0, c0, layers, self.dropout, self.training)
        if packed and packed.sorted_indices is not None:
            last = [t if t is None else getitem(t, (slice(None), packed.unsorted_indices)) for t in last]
        if packed:
            y = PackedSequence(y, *packed[1:])
        elif alone:
            last = [t if t is None else reshape(t, shape) for t in last]
        else:
            y = reshape(y, (steps, batch, y.shape[-1]))
            y = transpose(y, 0, 1) if self.batch_first else y
        return y, (tuple(last) if self.mode == "LSTM" else last[0])

    def _sizes(self, packed, x, alone):
        """(steps, sequences, sizes of the steps)"""
        if packed:
            return packed.batch_sizes.shape[0], int(packed.batch_sizes[0]), packed.batch_sizes
        if alone:
            steps, batch = x.shape[0], 1
        else:
            steps, batch = x.shape[1::-1] if self.batch_first else x.shape[:2]
        return steps, batch, ops.equal_steps(steps, batch)

    def extra_repr(self):
        text = f"input_size={self.input_size}, hidden_size={self.hidden_size}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False}
        return text + "".join(f", {n}={getattr(self, n)}" for n, v in defaults.items() if getattr(self, n) != v)


class RNN(RNNBase):
    """Elman network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh). Elman, 1990.

    Args:
        input_size: I, the size of x_t.
        hidden_size: H, the size of h_t.
        num_layers: L; a layer's input is the output of the one before.
        nonlinearity: 'tanh' or 'relu'.
        bias: whether there are b_ih and b_hh.
        batch_first: input and output are [B, T, *] instead of [T, B, *]; states are not concerned.
        dropout: probability with which outputs between layers are dropped in training.
        bidirectional: D = 2, a second pass from the end (each sequence's own); its outputs stand beside the first's.
        dtype: float32 (default) or float64.

    Shape:
        input [T, B, I], [T, I] (no batch) or a PackedSequence; hx, the initial states, [L D, B, H] or None (zeros) ->
        (output [T, B, D H], the last layer's h_t; h_n [L D, B, H], each layer's and direction's last). Without a batch
        all lack B.

    Attributes:
        weight_ih_l0: [G H, I], or [G H, D H] in layers above; G = 1 here, 4 in LSTM, 3 in GRU. `_l1` is the next layer,
            `_l0_reverse` the second direction.
        weight_hh_l0: [G H, H].
        bias_ih_l0, bias_hh_l0: [G H]. All are initialized uniformly on (-1/sqrt(H), 1/sqrt(H)), as torch's.

    Raises:
        ValueError: a shape does not fit, or there is no step.
        TypeError: a Tensor of another dtype than the weights'.

    >>> import nncore
    >>> from nncore import nn
    >>> y, h = nn.RNN(3, 4)(nncore.ones(5, 2, 3))
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        nonlinearity="tanh",
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        *,
        dtype="float32",
    ):
        mode = "RNN_" + one_of(nonlinearity, "nonlinearity", ("tanh", "relu")).upper()
        more = num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(mode, input_size, hidden_size, *more, dtype=dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self):
        return super().extra_repr() + (", nonlinearity=relu" if self.mode == "RNN_RELU" else "")


class LSTM(RNNBase):
    """Long short-term memory. Hochreiter, Schmidhuber, 1997; with forget gates: Gers, Schmidhuber, Cummins, 2000.

        i, f, o = sigmoid(W_i* x + b_i* + W_h* h + b_h*),  g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        c' = f c + i g,  h' = o tanh(c')

    Arguments, shapes and attributes as RNN's, with rows of the weights in the order i, f, g, o; proj_size must be 0.
    hx is a tuple (h_0, c_0), and the result (output, (h_n, c_n)).

    >>> import nncore
    >>> from nncore import nn
    >>> y, (h, c) = nn.LSTM(3, 4, num_layers=2, bidirectional=True)(nncore.ones(5, 2, 3))
    >>> y.shape, h.shape, c.shape
    ((5, 2, 8), (4, 2, 4), (4, 2, 4))
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        proj_size=0,
        *,
        dtype="float32",
    ):
        more = num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__("LSTM", input_size, hidden_size, *more, dtype=dtype)


class GRU(RNNBase):
    """Gated recurrent unit. Cho et al., EMNLP 2014, with the reset gate behind the product, as cuDNN and torch have it.

        r, z = sigmoid(W_i* x + b_i* + W_h* h + b_h*),  n = tanh(W_in x + b_in + r (W_hn h + b_hn))
        h' = (1 - z) n + z h

    Arguments, shapes and attributes as RNN's, with rows of the weights in the order r, z, n.

    >>> import nncore
    >>> from nncore import nn
    >>> y, h = nn.GRU(3, 4, batch_first=True)(nncore.ones(2, 5, 3))
    >>> y.shape, h.shape
    ((2, 5, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        *,
        dtype="float32",
    ):
        more = num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("GRU", input_size, hidden_size, *more, dtype=dtype)


class _Cell(_Recurrent):
    """One step of one layer."""

    def __init__(self, input_size, hidden_size, bias, dtype):
        super().__init__(input_size, hidden_size, bias)
        self._add("", self.input_size, dtype)
        self.reset_parameters()

    def _step(self, input, h, c=None):
        """(h', c' or None)"""
        x = as_tensor(input, "input", self.weight_ih._code)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(f"input: expected [B, I] or [I] with I = {self.input_size}, got shape {x.shape}")
        shape = (*x.shape[:-1], self.hidden_size)
        h, c = _state(h, "h_0", shape, x._code), _state(c, "c_0", shape, x._code)
        batch = 1 if x.ndim == 1 else x.shape[0]
        h, c = (t if t is None else reshape(t, (1, batch, self.hidden_size)) for t in (h, c))
        weights = tuple(getattr(self, n) for n in ops.NAMES)
        x = reshape(x, (batch, self.input_size))
        y, _, c = ops.layer(self._mode, x, ops.equal_steps(1, batch), h, c, [weights])
        return reshape(y, shape), c if c is None else reshape(c, shape)

    def forward(self, input, hx=None):
        return self._step(input, hx)[0]

    def extra_repr(self):
        bias = "" if self.bias else ", bias=False"
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}{bias}"


class RNNCell(_Cell):
    """One step of RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether there are b_ih and b_hh.
        nonlinearity: 'tanh' or 'relu'.
        dtype: float32 (default) or float64.

    Shape:
        input [B, I] or [I]; hx [B, H] or [H], or None (zeros) -> h' like hx.

    Attributes:
        weight_ih [G H, I], weight_hh [G H, H], bias_ih, bias_hh [G H]: as RNN's; G = 1, 4 in LSTMCell, 3 in GRUCell.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.RNNCell(3, 4)(nncore.ones(2, 3)).shape
    (2, 4)
    """

    def __init__(self, input_size, hidden_size, bias=True, nonlinearity="tanh", *, dtype="float32"):
        mode = "RNN_" + one_of(nonlinearity, "nonlinearity", ("tanh", "relu")).upper()
        self._mode = mode
        super().__init__(input_size, hidden_size, bias, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self):
        return super().extra_repr() + (", nonlinearity=relu" if self.nonlinearity == "relu" else "")


class LSTMCell(_Cell):
    """One step of LSTM. Arguments, shapes and attributes as RNNCell's; hx is a tuple (h, c), and so is the result.

    >>> import nncore
    >>> from nncore import nn
    >>> h, c = nn.LSTMCell(3, 4)(nncore.ones(2, 3))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    _mode = "LSTM"

    def __init__(self, input_size, hidden_size, bias=True, *, dtype="float32"):
        super().__init__(input_size, hidden_size, bias, dtype)

    def forward(self, input, hx=None):
        return self._step(input, *_pair(hx))


class GRUCell(_Cell):
    """One step of GRU. Arguments, shapes and attributes as RNNCell's.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.GRUCell(3, 4)(nncore.ones(2, 3), nncore.zeros(2, 4)).shape
    (2, 4)
    """

    _mode = "GRU"

    def __init__(self, input_size, hidden_size, bias=True, *, dtype="float32"):
        super().__init__(input_size, hidden_size, bias, dtype)
