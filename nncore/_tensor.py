"""Tensor: the array that users hold. Its methods are the operations of nncore._ops."""

import weakref

import numpy as np

from nncore import _tape
from nncore._core import elementwise
from nncore._core.tensor import TensorBase, dtype_code, from_array, item, new_empty, new_zeros, set_tensor_type
from nncore._grad import RemovableHandle
from nncore._ops import activation, arithmetic, linear, reduction, shape
from nncore._ops._check import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT64,
    OPERANDS,
    as_array,
    as_tensor,
    axis,
    constant,
    is_number,
    not_frozen,
    shape_arg,
    shared,
)

float32, float64, int64, bool_ = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_)


class Tensor(TensorBase):
    """An n-dimensional array (n <= 8) of float32, float64, int64 or bool, that can take part in autograd.

    Make one with `nncore.tensor` (a copy), `nncore.from_numpy` (shared memory), `nncore.zeros`, `nncore.randn`, ...
    Arithmetic broadcasts as NumPy's; operands must have one dtype, except that Python numbers fit everywhere.
    Views (slices, transposes, reshapes of row-major tensors) share memory.

    Attributes:
        shape, ndim, dtype, strides: as NumPy's; strides are counted in elements.
        requires_grad: whether gradients flow here.
        grad: the accumulated gradient, or None. Only leaves (tensors that no operation made) collect one.
        grad_fn: the operation that made the tensor, or None.

    >>> import nncore
    >>> x = nncore.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """

    __slots__ = ("__weakref__",)
    __array_ufunc__ = None  # array + tensor is ours to compute

    # ---- to and from Python and NumPy ----

    def numpy(self):
        """A NumPy array on the same memory: read-only for parameters and for results of recorded operations, so that
        every write to them is known (write with `copy_` or `p[...] = value`)."""
        return np.asarray(memoryview(self))

    def __array__(self, dtype=None, copy=None):
        a = self.numpy()
        if dtype is not None and np.dtype(dtype) != a.dtype:
            return a.astype(dtype)
        return a.copy() if copy else a

    def item(self):
        """The only element, as a Python number.

        Raises:
            ValueError: unless the tensor has exactly one element.
        """
        return item(self)

    def tolist(self):
        """Nested lists of Python numbers."""
        return self.numpy().tolist()

    def __float__(self):
        return float(item(self))

    def __int__(self):
        return int(item(self))

    def __bool__(self):
        if self.numel() != 1:
            raise ValueError(f"the truth value of a tensor of shape {self.shape} is ambiguous")
        return bool(item(self))

    def __index__(self):
        if self._code != INT64 or self.numel() != 1:
            raise TypeError("only an int64 tensor of one element can be an index")
        return item(self)

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("a tensor without dimensions has no length")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        kind = f", dtype={self.dtype}" if self._code in (FLOAT64, BOOL) else ""
        tail = (
            f", grad_fn={self.grad_fn.name}"
            if self.grad_fn is not None
            else ", requires_grad=True" * self.requires_grad
        )
        return f"tensor({text}{kind}{tail})"

    __hash__ = object.__hash__

    def __reduce__(self):
        if self.grad_fn is not None:
            raise RuntimeError("only leaf tensors can be pickled or deep-copied; use detach()")
        return _rebuild, (type(self), self.numpy().copy(), self.requires_grad)

    def __deepcopy__(self, memo):
        make, args = self.__reduce__()
        new = make(*args)
        if self.grad is not None:
            new.grad = self.grad.detach().clone()
        memo[id(self)] = new
        return new

    # ---- autograd ----

    def backward(self, gradient=None, retain_graph=False):
        """Adds the derivative of <gradient, self> to `.grad` of every leaf that requires one.

        Args:
            gradient: Tensor or array of this shape; may be left out for a tensor of one element (then it is 1).
            retain_graph: keep the graph, so that backward can be called again.

        Raises:
            RuntimeError: if no operation leading here was recorded, the graph has been freed by an earlier call,
                or a tensor that backward needs was changed in place.

        >>> import nncore
        >>> w = nncore.tensor(3.0, requires_grad=True)
        >>> (w * w).backward()
        >>> w.grad.item()
        6.0
        """
        if not self.requires_grad:
            raise RuntimeError("backward: the tensor does not require grad and has no graph")
        if gradient is None:
            if self.numel() != 1:
                raise ValueError(f"gradient: needed for a tensor of more than one element, shape {self.shape}")
            gradient = new_empty(self.shape, self._code)
            elementwise.fill(gradient, 1.0)
        else:
            gradient = as_tensor(gradient, "gradient", self._code)
            if gradient.shape != self.shape:
                raise ValueError(f"gradient: expected shape {self.shape}, got {gradient.shape}")
        _tape.backward(self, gradient, retain_graph)

    def register_hook(self, hook):
        """Calls a function with the gradient of this tensor each time `backward` has worked it out.

        Args:
            hook: function of the gradient (not to be written to), which may return another one to go on with, or None.

        Returns:
            A handle with `remove()`.

        Raises:
            RuntimeError: no gradient flows here.

        >>> import nncore
        >>> w = nncore.tensor(3.0, requires_grad=True)
        >>> handle = w.register_hook(lambda grad: grad * 10)
        >>> (w * w).backward(); w.grad.item()
        60.0
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: the tensor does not require grad")
        return RemovableHandle(_tape.hooks_of(self), hook)

    def retain_grad(self):
        """Keeps the gradient of a result in `.grad`, too, which otherwise only leaves do.

        Raises:
            RuntimeError: if the tensor does not require a gradient.

        >>> import nncore
        >>> x = nncore.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * 2
        >>> y.retain_grad()
        >>> (y * y).sum().backward(); y.grad.tolist()
        [4.0, 8.0]
        """
        if not self.requires_grad:
            raise RuntimeError("retain_grad: the tensor does not require grad")
        if self.grad_fn is not None:
            mine = weakref.ref(self)  # the graph must not keep its results

            def keep(grad):
                t = mine()
                if t is not None:
                    t.grad = grad.clone() if t.grad is None else t.grad + grad

            _tape.hooks_of(self)["retain_grad"] = keep

    def detach(self):
        """The same memory outside the graph."""
        return self._alias()

    def requires_grad_(self, requires_grad=True):
        """Sets `requires_grad`; returns the tensor."""
        self.requires_grad = requires_grad
        return self

    # ---- dtype and memory ----

    def to(self, dtype):
        """In another dtype; itself if it has it already."""
        return arithmetic.to_dtype(self, dtype_code(dtype))

    def float(self):
        """As float32."""
        return arithmetic.to_dtype(self, FLOAT32)

    def double(self):
        """As float64."""
        return arithmetic.to_dtype(self, FLOAT64)

    def long(self):
        """As int64, rounding towards zero."""
        return arithmetic.to_dtype(self, INT64)

    def bool(self):
        """As bool: whether each element is not 0."""
        return arithmetic.to_dtype(self, BOOL)

    def clone(self):
        """A row-major copy; gradients flow through it."""
        return shape.clone(self)

    def contiguous(self):
        """Itself if row-major, else a row-major copy."""
        return self if self._contiguous else shape.clone(self)

    def is_contiguous(self):
        """Whether the elements lie in row-major order without gaps."""
        return self._contiguous

    def dim(self):
        """Number of dimensions."""
        return self.ndim

    def size(self, dim=None):
        """The shape, or one size."""
        return self.shape if dim is None else self.shape[axis(dim, self.ndim)]

    def element_size(self):
        """Bytes of one element."""
        return self.dtype.itemsize

    # ---- writing in place: leaves and tensors outside the graph ----

    def copy_(self, src):
        """Writes src, broadcast and converted to this dtype; returns the tensor."""
        src = src if isinstance(src, TensorBase) else as_tensor(as_array(src, "src", self._code), "src")
        shape.writable(self, src)
        shape.write(self, src)
        return self

    def fill_(self, value):
        """Writes one number everywhere; returns the tensor."""
        if not is_number(value):
            raise TypeError(f"value: expected a number, got {type(value).__name__}")
        return self.copy_(shared(as_array(value, "value", self._code)))

    def zero_(self):
        """Writes zeros; returns the tensor."""
        return self.fill_(0)

    def _inplace(self, name, other):
        shape.writable(self, other if isinstance(other, TensorBase) else None)
        with_grad = _tape.set_enabled(False)
        try:
            self.copy_(getattr(arithmetic, name)(self, other))
        finally:
            _tape.set_enabled(with_grad)
        return self

    def add_(self, other):
        """self += other; returns the tensor."""
        return self._inplace("add", other)

    def sub_(self, other):
        """self -= other; returns the tensor."""
        return self._inplace("sub", other)

    def mul_(self, other):
        """self *= other; returns the tensor."""
        return self._inplace("mul", other)

    def div_(self, other):
        """self /= other; returns the tensor."""
        return self._inplace("div", other)

    def __setitem__(self, key, value):
        shape.setitem(self, key, value)

    def __getitem__(self, key):
        return shape.getitem(self, key)

    # ---- operators ----

    def __add__(self, other):
        return _or_not(arithmetic.add, self, other)

    def __radd__(self, other):
        return _or_not(arithmetic.add, other, self)

    def __sub__(self, other):
        return _or_not(arithmetic.sub, self, other)

    def __rsub__(self, other):
        return _or_not(arithmetic.sub, other, self)

    def __mul__(self, other):
        return _or_not(arithmetic.mul, self, other)

    def __rmul__(self, other):
        return _or_not(arithmetic.mul, other, self)

    def __truediv__(self, other):
        return _or_not(arithmetic.div, self, other)

    def __rtruediv__(self, other):
        return _or_not(arithmetic.div, other, self)

    def __pow__(self, other):
        return _or_not(arithmetic.pow, self, other)

    def __rpow__(self, other):
        return _or_not(arithmetic.pow, other, self)

    def __matmul__(self, other):
        return _or_not(linear.matmul, self, other)

    def __rmatmul__(self, other):
        return linear.matmul(as_tensor(other, "input", self._code), self)

    def __neg__(self):
        return arithmetic.neg(self)

    def __abs__(self):
        return arithmetic.abs(self)

    def _in_graph(self):
        """Whether writing here would break the graph: then `h += x` makes a new h."""
        return self.grad_fn is not None and _tape.is_grad_enabled()

    def __iadd__(self, other):
        return NotImplemented if self._in_graph() else self.add_(other)

    def __isub__(self, other):
        return NotImplemented if self._in_graph() else self.sub_(other)

    def __imul__(self, other):
        return NotImplemented if self._in_graph() else self.mul_(other)

    def __itruediv__(self, other):
        return NotImplemented if self._in_graph() else self.div_(other)

    def __eq__(self, other):
        return _or_not(arithmetic.eq, self, other)

    def __ne__(self, other):
        return _or_not(arithmetic.ne, self, other)

    def __lt__(self, other):
        return _or_not(arithmetic.lt, self, other)

    def __le__(self, other):
        return _or_not(arithmetic.le, self, other)

    def __gt__(self, other):
        return _or_not(arithmetic.gt, self, other)

    def __ge__(self, other):
        return _or_not(arithmetic.ge, self, other)

    # ---- operations as methods ----

    def add(self, other, *, alpha=1):
        """self + alpha * other."""
        return arithmetic.add(self, other, alpha=alpha)

    def sub(self, other, *, alpha=1):
        """self - alpha * other."""
        return arithmetic.sub(self, other, alpha=alpha)

    def mul(self, other):
        """self * other."""
        return arithmetic.mul(self, other)

    def div(self, other):
        """self / other."""
        return arithmetic.div(self, other)

    def pow(self, exponent):
        """self ** exponent."""
        return arithmetic.pow(self, exponent)

    def neg(self):
        """-self."""
        return arithmetic.neg(self)

    def abs(self):
        """|self|; the gradient at 0 is 0."""
        return arithmetic.abs(self)

    def exp(self):
        """e ** self, within 1 ULP in float32."""
        return arithmetic.exp(self)

    def log(self):
        """Natural logarithm, within 1 ULP in float32: -inf at 0, NaN below."""
        return arithmetic.log(self)

    def sqrt(self):
        """Square root."""
        return arithmetic.sqrt(self)

    def square(self):
        """self * self."""
        return arithmetic.square(self)

    def reciprocal(self):
        """1 / self."""
        return arithmetic.reciprocal(self)

    def tanh(self):
        """Hyperbolic tangent, within 2 ULP in float32."""
        return arithmetic.tanh(self)

    def sigmoid(self):
        """1 / (1 + e^-self), within 2 ULP in float32."""
        return arithmetic.sigmoid(self)

    def relu(self):
        """max(self, 0); the gradient at 0 is 0."""
        return arithmetic.relu(self)

    def maximum(self, other):
        """Elementwise larger; NaN if either is."""
        return arithmetic.maximum(self, other)

    def minimum(self, other):
        """Elementwise smaller; NaN if either is."""
        return arithmetic.minimum(self, other)

    def clamp(self, min=None, max=None):
        """Limited to [min, max]."""
        return arithmetic.clamp(self, min, max)

    def matmul(self, other):
        """Matrix product; leading dimensions broadcast, as NumPy's."""
        return linear.matmul(self, other)

    def softmax(self, dim=-1):
        """e^x / sum e^x along an axis."""
        return activation.softmax(self, dim)

    def log_softmax(self, dim=-1):
        """x - log sum e^x along an axis."""
        return activation.log_softmax(self, dim)

    def unflatten(self, dim, sizes):
        """An axis as several; one of the sizes may be -1."""
        return shape.unflatten(self, dim, sizes)

    def sum(self, dim=None, keepdim=False):
        """Sum over axes (all by default). Integers and bools give int64."""
        return reduction.sum(self, dim, keepdim)

    def mean(self, dim=None, keepdim=False):
        """Mean over axes (all by default)."""
        return reduction.mean(self, dim, keepdim)

    def var(self, dim=None, correction=1, keepdim=False):
        """Variance over axes, divided by n - correction."""
        return reduction.var(self, dim, correction, keepdim)

    def std(self, dim=None, correction=1, keepdim=False):
        """Standard deviation over axes."""
        return reduction.std(self, dim, correction, keepdim)

    def max(self, dim=None, keepdim=False):
        """The largest element; along an axis: (values, indices of the first)."""
        return reduction.max(self, dim, keepdim)

    def min(self, dim=None, keepdim=False):
        """The smallest element; along an axis: (values, indices of the first)."""
        return reduction.min(self, dim, keepdim)

    def argmax(self, dim=None, keepdim=False):
        """Index of the first largest element, along an axis or of the flattened tensor."""
        return reduction.argmax(self, dim, keepdim)

    def argmin(self, dim=None, keepdim=False):
        """Index of the first smallest element, along an axis or of the flattened tensor."""
        return reduction.argmin(self, dim, keepdim)

    def reshape(self, *sizes):
        """The same elements under another shape; one size may be -1. A view if the tensor is row-major."""
        return shape.reshape(self, *sizes)

    def view(self, *sizes):
        """As reshape."""
        return shape.reshape(self, *sizes)

    def flatten(self, start_dim=0, end_dim=-1):
        """Axes start_dim..end_dim joined into one."""
        return shape.flatten(self, start_dim, end_dim)

    def permute(self, *dims):
        """Axes in another order: a view."""
        return shape.permute(self, *dims)

    def transpose(self, dim0, dim1):
        """Two axes exchanged: a view."""
        return shape.transpose(self, dim0, dim1)

    def t(self):
        """The transpose of a matrix: a view."""
        if self.ndim > 2:
            raise ValueError(f"t: expected at most 2 dimensions, got shape {self.shape}")
        return shape.transpose(self, 0, -1) if self.ndim == 2 else self

    @property
    def T(self):
        """Axes in reverse order: a view."""
        return shape.permute(self, *range(self.ndim - 1, -1, -1)) if self.ndim else self

    def unsqueeze(self, dim):
        """A new axis of size 1."""
        return shape.unsqueeze(self, dim)

    def squeeze(self, dim=None):
        """Without axes of size 1 (all, or one)."""
        return shape.squeeze(self, dim)

    def expand(self, *sizes):
        """Axes of size 1 repeated, without a copy; -1 keeps a size."""
        return shape.expand(self, *sizes)

    def split(self, size, dim=0):
        """Views of `size` slices each along an axis."""
        return shape.split(self, size, dim)


def _or_not(op, a, b):
    """op(a, b), leaving operands that are no numbers to their own class."""
    return op(a, b) if isinstance(a, OPERANDS) and isinstance(b, OPERANDS) else NotImplemented


def _rebuild(cls, array, requires_grad):
    t = cls.__new__(cls)
    source = elementwise.cast(from_array(array), dtype_code(array.dtype))
    t._copy_meta(source)
    if requires_grad:
        t.requires_grad = True
    t._restore()
    return t


Tensor._restore = lambda self: None  # Parameter marks its memory
set_tensor_type(Tensor)


# ---- making tensors ----


def tensor(data, dtype=None, requires_grad=False):
    """A tensor with a copy of the data. Python floats make float32, NumPy arrays keep their dtype.

    Args:
        data: number, nested lists, NumPy array or Tensor.
        dtype: float32, float64, int64 or bool.
        requires_grad: whether it collects a gradient.

    Raises:
        TypeError: data is not numeric, or the dtype is not one of the four.

    >>> tensor([1.0, 2.0])
    tensor([1., 2.])
    """
    code = None if dtype is None else dtype_code(dtype)
    source = data.detach() if isinstance(data, Tensor) else shared(as_array(data, "data", code))
    t = elementwise.cast(source, source._code if code is None else code)
    if requires_grad:
        t.requires_grad = True
    return t


def from_numpy(array):
    """A tensor on the array's own memory (float32, float64, int64 or bool).

    >>> import numpy as np
    >>> a = np.zeros(2, np.float32)
    >>> t = from_numpy(a); a[0] = 5
    >>> t.tolist()
    [5.0, 0.0]
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array: expected a NumPy array, got {type(array).__name__}")
    dtype_code(array.dtype, "array")
    not_frozen("array")
    return from_array(array)


def zeros(*size, dtype=float32, requires_grad=False):
    """A tensor of zeros.

    >>> zeros(2, 2).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    t = new_zeros(shape_arg(size, "size"), dtype_code(dtype))
    return t.requires_grad_() if requires_grad else t


def full(size, fill_value, dtype=float32, requires_grad=False):
    """A tensor of one number.

    >>> full((2,), 3.5).tolist()
    [3.5, 3.5]
    """
    t = new_empty(shape_arg((size,), "size"), dtype_code(dtype)).fill_(fill_value)
    return t.requires_grad_() if requires_grad else t


def ones(*size, dtype=float32, requires_grad=False):
    """A tensor of ones.

    >>> ones(2).tolist()
    [1.0, 1.0]
    """
    return full(shape_arg(size, "size"), 1, dtype, requires_grad)


def empty(*size, dtype=float32):
    """A tensor with undefined contents.

    >>> empty(3).shape
    (3,)
    """
    return new_empty(shape_arg(size, "size"), dtype_code(dtype))


def zeros_like(input, dtype=None):
    """Zeros of another tensor's shape and dtype."""
    return new_zeros(input.shape, input._code if dtype is None else dtype_code(dtype))


def ones_like(input, dtype=None):
    """Ones of another tensor's shape and dtype."""
    return full(input.shape, 1, input.dtype if dtype is None else dtype)


def arange(start, end=None, step=1, dtype=None):
    """start, start + step, ... below end.

    >>> arange(3).tolist()
    [0, 1, 2]
    """
    a = np.arange(start, end, step) if end is not None else np.arange(0, start, step)
    code = dtype_code(dtype if dtype is not None else (int64 if a.dtype.kind == "i" else float32))
    return elementwise.cast(constant(a, code), code)
