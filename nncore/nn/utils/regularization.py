"""Limits on parameters: the L1 penalty in the loss, and the max-norm constraint after a step."""

from nncore._grad import no_grad
from nncore._ops._check import axis, number
from nncore.nn.utils.clip_grad import _list


def l1_penalty(parameters):
    """sum |p| over all elements of the parameters. Added to the loss with a factor, it drives weights to exactly 0
    (Tibshirani, "Regression shrinkage and selection via the lasso", 1996); its gradient is the sign, 0 at 0.

    Args:
        parameters: a floating tensor or an iterable of them, of one dtype.

    Returns:
        A tensor without dimensions, through which gradients flow.

    Raises:
        ValueError, TypeError: parameters are none.

    >>> import nncore
    >>> w = nncore.nn.Parameter([3.0, -4.0])
    >>> loss = 0.5 * l1_penalty(w)
    >>> loss.backward(); loss.item(), w.grad.tolist()
    (3.5, [0.5, -0.5])
    """
    found = _floating(parameters)
    if not found:
        raise ValueError("parameters: expected at least one, got none")
    total = found[0].abs().sum()
    for p in found[1:]:
        total = total + p.abs().sum()
    return total


def max_norm_(parameters, max_norm, dim=0):
    """Scales slices of parameters in place so that the Euclidean norm of each is at most max_norm:
    w <- w min(1, max_norm / |w|). Srebro, Rennie, Jaakkola, NIPS 2004; with dropout: Srivastava et al., JMLR 15, 2014.

    Args:
        parameters: a floating tensor or an iterable of them; to be called after the optimizer's step.
        max_norm: > 0.
        dim: the axis that counts the slices. 0: the weights that come into one unit of Linear, into one channel of a
            convolution, or one row of an Embedding.

    Raises:
        ValueError, TypeError: an argument makes no sense; nothing has been changed then.

    >>> import nncore
    >>> w = nncore.nn.Parameter([[3.0, 4.0], [0.3, 0.4]])
    >>> max_norm_(w, 1.0)
    >>> [[round(v, 4) for v in row] for row in w.tolist()]
    [[0.6, 0.8], [0.3, 0.4]]
    """
    limit = number(max_norm, "max_norm", 0, low_open=True)
    found = [(p, axis(dim, p.ndim)) for p in _floating(parameters)]
    with no_grad():
        for p, d in found:
            others = tuple(i for i in range(p.ndim) if i != d)
            square = p.detach().double().square()  # in double: squares of float32 do not overflow
            norm = (square.sum(others, keepdim=True) if others else square).sqrt()
            p.mul_((limit / norm).clamp(max=1.0).to(p.dtype))


def _floating(parameters):
    found = _list(parameters, "parameters")
    if not all(p._floating for p in found):
        raise TypeError("parameters: expected floating tensors")
    return found
