"""What every operation does with its arguments before anything is computed."""

import numpy as np

from nncore import _tape
from nncore._core import elementwise, record
from nncore._core.tensor import DTYPES, OutOfRange, TensorBase, dtype_code, from_array

FLOAT32, FLOAT64, INT64, BOOL = range(4)
_KINDS = {"f": FLOAT32, "i": INT64, "u": INT64, "b": BOOL}
# made once: `int | float` in a function is a new object at each call, which costs as much as a small operation
_BOOL = bool, np.bool_
_INTEGER = int, np.integer
_REAL = int, float, np.integer, np.floating, np.bool_
_ARRAY = np.ndarray, np.generic
OPERANDS = TensorBase, np.ndarray, list, tuple, *_REAL


def as_array(x, name, dtype=None):
    """x as an ndarray of one of the four dtypes (other floats become float32, other integers int64). With `dtype` (a
    code) Python floats keep their precision: the caller converts to it next."""
    if isinstance(x, _ARRAY):
        if isinstance(x, np.ndarray):
            not_frozen(name)
        a = np.asarray(x)
    else:
        try:
            a = np.asarray(x)
        except (ValueError, TypeError) as e:
            raise TypeError(f"{name}: expected a Tensor or an array of numbers, got {type(x).__name__} ({e})") from None
        if a.dtype == np.float64 and dtype is None:  # Python floats make float32 tensors
            a = a.astype(np.float32)
    if a.dtype in DTYPES:
        return a
    kind = _KINDS.get(a.dtype.kind)
    if kind is None or a.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected a Tensor or an array of numbers, got {type(x).__name__} of dtype {a.dtype}")
    if a.dtype == np.uint64 and a.size and a.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: values beyond the range of int64")
    return a.astype(DTYPES[kind])


def not_frozen(name):
    """Raises if an array of NumPy that was met here would be a constant of a plan."""
    if record.current() is not None:
        raise record.RecordError(
            f"{name}: an array of NumPy inside a compiled function would stay as it is now; pass it as an argument, or "
            "make it a tensor outside"
        )


def shared(array):
    """A Tensor on the array's memory, or on that of a copy if the strides are no multiples of the item size."""
    try:
        return from_array(array)
    except ValueError:
        return from_array(np.array(array, order="C"))


def as_tensor(x, name="input", dtype=None):
    """x as a Tensor. `dtype` (a code) is the dtype wanted of floating values: arrays are converted to it, a Tensor of
    another dtype is an error."""
    if isinstance(x, TensorBase):
        if dtype is not None and x._code != dtype:
            recording = record.current()
            if recording is not None and x._storage in recording.raw:
                return elementwise.cast(x, dtype)
            raise TypeError(f"{name}: expected dtype {DTYPES[dtype]}, got a Tensor of {x.dtype}; convert it explicitly")
        return x
    a = as_array(x, name, dtype)
    t = shared(a)
    if dtype is not None and t._code != dtype:
        t = elementwise.cast(t, dtype)
    elif a is x and _tape.is_grad_enabled():  # backward may read it, and buffers are reused
        t = elementwise.cast(t, t._code)
    return t


def constant(x, code):
    """A number, or an array that follows from shapes alone, as a Tensor."""
    a = np.asarray(x)
    return from_array(a if a.dtype == DTYPES[code] else a.astype(DTYPES[code]))


def as_float(x, name="input"):
    """x as a floating Tensor."""
    t = x if isinstance(x, TensorBase) else as_tensor(x, name)
    if not t._floating:
        raise TypeError(f"{name}: expected float32 or float64, got {t.dtype}; convert it with .float()")
    return t


def is_number(x):
    """A Python or NumPy scalar that is a real number."""
    return not isinstance(x, TensorBase) and isinstance(x, _REAL)  # mostly it is one


def number(x, name, low=None, high=None, low_open=False, high_open=False):
    """x as a float within bounds."""
    if not is_number(x) or isinstance(x, _BOOL):
        raise TypeError(f"{name}: expected a number, got {type(x).__name__}")
    v = float(x)
    bad = v != v
    bad |= low is not None and (v <= low if low_open else v < low)
    bad |= high is not None and (v >= high if high_open else v > high)
    if bad:
        left = "" if low is None else f" {'>' if low_open else '>='} {low:g}"
        right = "" if high is None else f" {'<' if high_open else '<='} {high:g}"
        both = " and" if left and right else ""
        raise ValueError(f"{name}: expected a number{left}{both}{right}, got {x!r}")
    return v


def integer(x, name, low=None):
    """x as an int, at least `low`."""
    if type(x) is int and (low is None or x >= low):
        return x
    if isinstance(x, _BOOL) or not isinstance(x, _INTEGER):
        raise TypeError(f"{name}: expected an integer, got {type(x).__name__}")
    if low is not None and x < low:
        raise ValueError(f"{name}: expected an integer >= {low}, got {x}")
    return int(x)


def axis(dim, ndim, name="dim"):
    """dim counted from the front; tensors without dimensions have one virtual axis, as torch's."""
    d = integer(dim, name)
    n = ndim or 1
    if not -n <= d < n:
        raise OutOfRange(f"{name}: expected {-n} to {n - 1} for a tensor of {ndim} dimensions, got {dim}")
    return d % n


def axes(dim, ndim, name="dim"):
    """Sorted tuple of distinct axes; None: all."""
    if dim is None:
        return tuple(range(ndim))
    if not isinstance(dim, (tuple, list)):
        dim = (dim,)
    found = sorted(axis(d, ndim, name) for d in dim)
    if len(set(found)) != len(found):
        raise ValueError(f"{name}: an axis appears twice in {tuple(dim)}")
    return tuple(found) if ndim else ()


def one_of(x, name, allowed):
    """x, which must be one of the strings."""
    if not isinstance(x, str) or x not in allowed:
        raise ValueError(f"{name}: expected {' or '.join(repr(a) for a in allowed)}, got {x!r}")
    return x


def row_major(shape):
    """Strides, in elements, of a dense array of this shape."""
    strides, n = [], 1
    for size in reversed(shape):
        strides.append(n)
        n *= size
    return tuple(reversed(strides))


def shape_arg(shape, name="shape"):
    """A tuple of sizes, from (2, 3) or from 2, 3."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = shape[0]
    return tuple([n if type(n) is int else integer(n, name) for n in shape])


def float_code(dtype, name="dtype"):
    """The code of float32 or float64."""
    code = dtype_code(dtype, name)
    if code > FLOAT64:
        raise TypeError(f"{name}: expected float32 or float64, got {np.dtype(dtype)}")
    return code
