"""Parameters as one vector, and back."""

from nncore._core.tensor import TensorBase
from nncore._grad import no_grad
from nncore._ops import shape


def _list(parameters):
    found = list(parameters) if hasattr(parameters, "__iter__") and not isinstance(parameters, TensorBase) else None
    if not found or not all(isinstance(p, TensorBase) for p in found):
        raise TypeError("parameters: expected a non-empty iterable of tensors")
    return found


def parameters_to_vector(parameters):
    """All elements of the parameters in one tensor [n]; gradients flow back.

    Args:
        parameters: iterable of tensors of one dtype.

    Raises:
        TypeError: none are given, or their dtypes differ.

    >>> from nncore import nn
    >>> parameters_to_vector(nn.Linear(3, 2).parameters()).shape
    (8,)
    """
    return shape.cat([shape.reshape(p, -1) for p in _list(parameters)])


def vector_to_parameters(vec, parameters):
    """Writes the elements of a vector into the parameters, in order.

    Args:
        vec: tensor [n], n being the number of elements of all parameters.
        parameters: iterable of tensors.

    Raises:
        TypeError: vec is no tensor, or parameters are none.
        ValueError: the sizes disagree; nothing has been written then.

    >>> import nncore
    >>> w = nncore.nn.Parameter([[1.0, 1.0]])
    >>> vector_to_parameters(nncore.tensor([5.0, 6.0]), [w])
    >>> w.tolist()
    [[5.0, 6.0]]
    """
    if not isinstance(vec, TensorBase):
        raise TypeError(f"vec: expected a Tensor, got {type(vec).__name__}")
    found = _list(parameters)
    total = sum(p.numel() for p in found)
    if vec.shape != (total,):
        raise ValueError(f"vec: expected shape ({total},), got {vec.shape}")
    at = 0
    with no_grad():
        for p in found:
            p.copy_(shape.reshape(vec[at : at + p.numel()], p.shape))
            at += p.numel()
