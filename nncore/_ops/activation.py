"""Softmax and dropout. (ReLU, tanh and sigmoid are elementwise: arithmetic.py.)"""

from nncore import _random, _tape
from nncore._core import reduction, rng
from nncore._core.elementwise import contiguous, ewise
from nncore._core.runtime import OPS
from nncore._ops._check import as_float, axis, number
from nncore._ops.shape import transpose


def _softmax(log, name):
    def apply(input, dim=-1):
        x = as_float(input)
        d = axis(dim, x.ndim)
        if x.ndim == 0:
            raise ValueError("input: expected at least one dimension")
        if d != x.ndim - 1:
            return transpose(apply(transpose(x, d, -1)), d, -1)
        y = reduction.softmax(x, log)

        def backward(dy):
            return (reduction.softmax_backward(y, dy, log),)

        return _tape.record(y, name, (x,), backward, (y,))

    return apply


softmax = _softmax(False, "softmax")
log_softmax = _softmax(True, "log_softmax")


def dropout(input, p=0.5, training=True):
    x = as_float(input)
    p = number(p, "p", 0, 1)
    if not training or p == 0:
        return x
    if p == 1:
        return _tape.record(
            ewise(OPS["fill"], x, None, None, 0.0), "dropout", (x,), lambda dy: (ewise(OPS["fill"], dy, None, None, 0.0),)
        )
    seed, stream = _random.default_generator.next_stream()

    def backward(dy):  # the same mask, from the same counter
        return (rng.dropout(contiguous(dy), p, seed, stream),)

    return _tape.record(rng.dropout(x, p, seed, stream), "dropout", (x,), backward)
