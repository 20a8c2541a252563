"""Softmax and dropout. (ReLU, tanh and sigmoid are elementwise: arithmetic.py.)"""

from nncore import _random, _tape
from nncore._core import reduction, rng
from nncore._core.elementwise import contiguous, ewise
from nncore._core.runtime import OPS
from nncore._ops._check import as_float, axis, number
from nncore._ops.shape import transpose


def _softmax(log, name, doc):
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

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


softmax = _softmax(False, "softmax", "e^x / sum of e^x along axis `dim`, the last by default; cannot overflow.")
log_softmax = _softmax(True, "log_softmax", "x - log of the sum of e^x along axis `dim`, the last by default.")


def dropout(input, p=0.5, training=True):
    """Zeroes elements with probability p and scales the others by 1 / (1 - p), in training. Srivastava et al., 2014.

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
    if p == 1:
        return _tape.record(
            ewise(OPS["fill"], x, None, None, 0.0),
            "dropout",
            (x,),
            lambda dy: (ewise(OPS["fill"], dy, None, None, 0.0),),
        )
    seed, stream = _random.default_generator.next_stream()

    def backward(dy):  # the same mask, from the same counter
        return (rng.dropout(contiguous(dy), p, seed, stream),)

    return _tape.record(rng.dropout(x, p, seed, stream), "dropout", (x,), backward)
