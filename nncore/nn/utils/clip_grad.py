"""Limits on gradients, between backward() and step()."""

import math

from nncore._core.tensor import TensorBase
from nncore._ops import clip
from nncore._ops._check import FLOAT32, number


def _list(tensors, name):
    found = [tensors] if isinstance(tensors, TensorBase) else list(tensors) if hasattr(tensors, "__iter__") else None
    if found is None or not all(isinstance(t, TensorBase) for t in found):
        raise TypeError(f"{name}: expected a tensor or an iterable of tensors")
    return found


def _gradients(parameters):
    return [p.grad for p in _list(parameters, "parameters") if p.grad is not None]


def _total_norm(tensors, norm_type, error_if_nonfinite):
    p = number(norm_type, "norm_type", 0, low_open=True)
    norm, result = clip.total_norm(tensors, p, max((t._code for t in tensors), default=FLOAT32))
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise ValueError(f"error_if_nonfinite: the norm of order {p:g} is {norm.item()}")
    return norm, result


def get_total_norm(tensors, norm_type=2.0, error_if_nonfinite=False):
    """The norm of all elements of the tensors together: (sum |x|^p)^(1/p), or the largest |x|.

    The sum is taken in double, in an order fixed by the shapes; squares of float32 do not overflow.

    Args:
        tensors: a floating tensor or an iterable of them.
        norm_type: p > 0; inf for the largest.
        error_if_nonfinite: raise if the norm is NaN or infinite.

    Returns:
        A tensor without dimensions, of the widest dtype among the tensors; 0 for none.

    Raises:
        ValueError, TypeError: norm_type or tensors make no sense; the norm is not finite, if asked.

    >>> import nncore
    >>> get_total_norm([nncore.tensor([3.0]), nncore.tensor([[4.0]])]).item()
    5.0
    """
    found = _list(tensors, "tensors")
    if not all(t._floating for t in found):
        raise TypeError("tensors: expected floating tensors")
    return _total_norm(found, norm_type, error_if_nonfinite)[1]


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scales the gradients in place so that their norm, taken together, is at most max_norm:
    g <- g min(1, max_norm / (norm + 1e-6)). Pascanu, Mikolov, Bengio, ICML 2013, in torch's form.

    Args:
        parameters: a tensor or an iterable of them; those without gradient are left out.
        max_norm: >= 0.
        norm_type: p > 0; inf for the largest.
        error_if_nonfinite: raise, and change nothing, if the norm is NaN or infinite; else it goes into the gradients.

    Returns:
        The norm before, a tensor without dimensions.

    Raises:
        ValueError, TypeError: an argument makes no sense; the norm is not finite, if asked.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0, 1.0])
    >>> (w * nncore.tensor([30.0, 40.0])).sum().backward()
    >>> clip_grad_norm_([w], max_norm=5.0).item()
    50.0
    >>> [round(g, 4) for g in w.grad.tolist()]
    [3.0, 4.0]
    """
    number(max_norm, "max_norm", 0)
    gradients = _gradients(parameters)
    norm, result = _total_norm(gradients, norm_type, error_if_nonfinite)
    clip.clip_norm_(gradients, norm, float(max_norm))
    return result


def clip_grad_value_(parameters, clip_value):
    """Limits every element of the gradients to [-clip_value, clip_value], in place.

    Args:
        parameters: a tensor or an iterable of them; those without gradient are left out.
        clip_value: >= 0.

    Raises:
        ValueError, TypeError: an argument makes no sense.

    >>> import nncore
    >>> w = nncore.nn.Parameter([1.0, 1.0])
    >>> (w * nncore.tensor([3.0, -4.0])).sum().backward()
    >>> clip_grad_value_(w, 0.5)
    >>> w.grad.tolist()
    [0.5, -0.5]
    """
    number(clip_value, "clip_value", 0)
    clip.clip_value_(_gradients(parameters), float(clip_value))
