"""Parameter: a tensor that a module learns."""

from nncore._core import elementwise
from nncore._ops._check import as_float
from nncore._tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor that modules register when it is assigned to an attribute.

    Its memory is its own (the data is copied if somebody else could write to it), and NumPy views of it are
    read-only: `copy_`, `p[...] = value`, optimizers and `load_state_dict` write, and every write is counted.

    Args:
        data: Tensor or array of floats.
        requires_grad: False freezes it.

    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __new__(cls, data=None, requires_grad=True):
        self = super().__new__(cls)
        if data is not None:
            source = as_float(data, "data")
            self._copy_meta(elementwise.cast(source, source._code))
            self._restore()
            self.requires_grad = bool(requires_grad)
        return self

    def __init__(self, data=None, requires_grad=True):
        pass

    def _restore(self):
        self._storage.tracked = True

    def __repr__(self):
        return "Parameter(" + super().__repr__() + ")"

    def _convert(self, code):
        """Changes dtype in place (Module.double); the old memory stays with whoever still refers to it."""
        if self._code != code:
            self._copy_meta(elementwise.cast(self, code))
            self._restore()
            self.grad = None
