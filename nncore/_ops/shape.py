"""Views, copies and indexing."""

import math
import operator

import numpy as np

from nncore import _tape
from nncore._core import elementwise, indexing
from nncore._core.elementwise import contiguous, copy_into
from nncore._core.tensor import OutOfRange, TensorBase, from_array, new_empty, new_zeros
from nncore._ops._check import BOOL, FLOAT32, FLOAT64, INT64, as_tensor, axis, integer, not_frozen, row_major, shape_arg
from nncore._ops.arithmetic import sum_to


def _dense_view(t, shape):
    """Contiguous t under another shape of the same number of elements."""
    return t._view(shape, row_major(shape), 0)


def reshape(input, *shape):
    """The same elements in row-major order under another shape; one size may be -1."""
    x = as_tensor(input)
    shape = shape_arg(shape)
    known, missing = 1, [i for i, n in enumerate(shape) if n == -1]
    for n in shape:
        if n < -1:
            raise ValueError(f"shape: sizes must be -1 or at least 0, got {shape}")
        known *= n if n != -1 else 1
    if len(missing) > 1:
        raise ValueError(f"shape: only one size may be -1, got {shape}")
    if missing and known and x.numel() % known == 0:
        shape = tuple(x.numel() // known if n == -1 else n for n in shape)
    elif missing or known != x.numel():
        raise ValueError(f"shape: cannot view {x.shape} ({x.numel()} elements) as {shape}")
    y = _dense_view(contiguous(x), shape)
    return _tape.record(y, "reshape", (x,), lambda dy: (_dense_view(contiguous(dy), x.shape),))


def flatten(input, start_dim=0, end_dim=-1):
    """Axes start_dim..end_dim joined into one; a view if the tensor is row-major.

    >>> import nncore
    >>> flatten(nncore.zeros(2, 3, 4), 1).shape
    (2, 12)
    """
    x = as_tensor(input)
    first, last = axis(start_dim, x.ndim, "start_dim"), axis(end_dim, x.ndim, "end_dim")
    if first > last:
        raise ValueError(f"start_dim: {start_dim} comes after end_dim {end_dim}")
    size = 1
    for n in x.shape[first : last + 1]:
        size *= n
    return reshape(x, (*x.shape[:first], size, *x.shape[last + 1 :]))


def unflatten(input, dim, sizes):
    """An axis as several; one of the sizes may be -1.

    >>> import nncore
    >>> unflatten(nncore.zeros(2, 12), 1, (3, -1)).shape
    (2, 3, 4)
    """
    x = as_tensor(input)
    d = axis(dim, x.ndim)
    if not isinstance(sizes, (tuple, list)) or not sizes or x.ndim == 0:
        raise ValueError(f"sizes: expected the sizes that axis {d} of {x.shape} is cut into, got {sizes!r}")
    sizes = shape_arg(sizes, "sizes")
    n, known = x.shape[d], 1
    for s in sizes:
        known *= s if s != -1 else 1
    if sizes.count(-1) > 1 or min(sizes) < -1 or (n % known if -1 in sizes and known else n != known):
        raise ValueError(f"sizes: {sizes} do not make {n}")
    sizes = tuple(n // known if s == -1 else s for s in sizes)
    return reshape(x, (*x.shape[:d], *sizes, *x.shape[d + 1 :]))


def _image(input, name):
    x = as_tensor(input)
    if x.ndim < 3:
        raise ValueError(f"{name}: expected [*, C, H, W], got shape {x.shape}")
    return x, x.shape[:-3], x.shape[-3:]


def pixel_shuffle(input, upscale_factor):
    """[*, C r^2, H, W] -> [*, C, H r, W r]: groups of r^2 channels become r x r pixels. Shi et al., CVPR 2016.

    >>> import nncore
    >>> pixel_shuffle(nncore.arange(4.0).reshape(4, 1, 1), 2).tolist()
    [[[0.0, 1.0], [2.0, 3.0]]]
    """
    x, lead, (c, h, w) = _image(input, "input")
    r = integer(upscale_factor, "upscale_factor", 1)
    if c % (r * r):
        raise ValueError(f"input: {c} channels are no multiple of upscale_factor^2 = {r * r}")
    y = permute(reshape(x, -1, c // (r * r), r, r, h, w), 0, 1, 4, 2, 5, 3) if x.numel() else x
    return reshape(y, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input, downscale_factor):
    """[*, C, H r, W r] -> [*, C r^2, H, W]: pixel_shuffle's inverse.

    >>> import nncore
    >>> pixel_unshuffle(nncore.arange(4.0).reshape(1, 2, 2), 2).shape
    (4, 1, 1)
    """
    x, lead, (c, h, w) = _image(input, "input")
    r = integer(downscale_factor, "downscale_factor", 1)
    if h % r or w % r:
        raise ValueError(f"input: {h} x {w} pixels are no multiples of downscale_factor = {r}")
    y = permute(reshape(x, -1, c, h // r, r, w // r, r), 0, 1, 3, 5, 2, 4) if x.numel() else x
    return reshape(y, (*lead, c * r * r, h // r, w // r))


def permute(input, *dims):
    """Axes in another order: a view.

    >>> import nncore
    >>> permute(nncore.zeros(2, 3, 4), 2, 0, 1).shape
    (4, 2, 3)
    """
    x = as_tensor(input)
    dims = tuple(axis(d, x.ndim, "dims") for d in shape_arg(dims, "dims"))
    if sorted(dims) != list(range(x.ndim)):
        raise ValueError(f"dims: expected each of {x.ndim} axes once, got {dims}")
    inverse = [0] * x.ndim
    for i, d in enumerate(dims):
        inverse[d] = i

    def view(t, order):
        return t._view(tuple(t.shape[d] for d in order), tuple(t.strides[d] for d in order), 0)

    return _tape.record(view(x, dims), "permute", (x,), lambda dy: (view(dy, inverse),))


def transpose(input, dim0, dim1):
    """Two axes exchanged: a view."""
    x = as_tensor(input)
    order = list(range(x.ndim))
    a, b = axis(dim0, x.ndim, "dim0"), axis(dim1, x.ndim, "dim1")
    if x.ndim:
        order[a], order[b] = order[b], order[a]
    return permute(x, order)


def unsqueeze(input, dim):
    """A new axis of size 1 at `dim`: a view."""
    x = as_tensor(input)
    d = axis(dim, x.ndim + 1)
    return reshape(x, (*x.shape[:d], 1, *x.shape[d:]))


def squeeze(input, dim=None):
    """Without axes of size 1: all, or one."""
    x = as_tensor(input)
    if dim is None:
        return reshape(x, tuple(n for n in x.shape if n != 1))
    d = axis(dim, x.ndim)
    return reshape(x, x.shape[:d] + x.shape[d + 1 :]) if x.ndim and x.shape[d] == 1 else x


def expand(input, *shape):
    """Broadcast view: sizes of 1 are repeated without a copy; -1 keeps a size."""
    x = as_tensor(input)
    shape = shape_arg(shape)
    lead = len(shape) - x.ndim
    if lead < 0:
        raise ValueError(f"shape: {shape} has fewer dimensions than {x.shape}")
    old, strides = (1,) * lead + x.shape, (0,) * lead + x.strides
    new = tuple(o if n == -1 and i >= lead else n for i, (n, o) in enumerate(zip(shape, old)))
    for n, o in zip(new, old):
        if n < 0 or (o not in (1, n)):
            raise ValueError(f"shape: cannot expand {x.shape} to {shape}")
    y = x._view(new, tuple(0 if o == 1 else s for o, s in zip(old, strides)), 0)
    return _tape.record(y, "expand", (x,), lambda dy: (sum_to(dy, x.shape),))


def clone(input):
    """A row-major copy, through which gradients flow."""
    x = as_tensor(input)
    return _tape.record(elementwise.cast(x, x._code), "clone", (x,), lambda dy: (dy,))


def cat(tensors, dim=0):
    """Tensors that agree in all sizes but one, joined along that axis."""
    if not isinstance(tensors, (tuple, list)) or not tensors:
        raise TypeError(f"tensors: expected a non-empty list or tuple of tensors, got {type(tensors).__name__}")
    ts = tuple(as_tensor(t, "tensors") for t in tensors)
    first = ts[0]
    d = axis(dim, first.ndim)
    if first.ndim == 0:
        raise ValueError("tensors: tensors without dimensions cannot be joined; use stack")
    for t in ts[1:]:
        if t._code != first._code:
            raise TypeError(f"tensors: expected one dtype, got {first.dtype} and {t.dtype}")
        if t.ndim != first.ndim or t.shape[:d] + t.shape[d + 1 :] != first.shape[:d] + first.shape[d + 1 :]:
            raise ValueError(f"tensors: shapes {first.shape} and {t.shape} differ outside of axis {d}")
    total = sum(t.shape[d] for t in ts)
    y = new_empty((*first.shape[:d], total, *first.shape[d + 1 :]), first._code)

    def parts(whole):
        at = 0
        for t in ts:
            yield whole._view(t.shape, whole.strides, at * whole.strides[d])
            at += t.shape[d]

    for part, t in zip(parts(y), ts):
        copy_into(part, t)
    return _tape.record(y, "cat", ts, lambda dy: tuple(parts(dy)))


def stack(tensors, dim=0):
    """Tensors of one shape, along a new axis."""
    if not isinstance(tensors, (tuple, list)) or not tensors:
        raise TypeError(f"tensors: expected a non-empty list or tuple of tensors, got {type(tensors).__name__}")
    return cat([unsqueeze(t, dim) for t in tensors], dim)


# ---- indexing ----


def _basic(x, key):
    """The view that integers, slices, None and Ellipsis select, or None if the key holds arrays."""
    key = key if isinstance(key, tuple) else (key,)
    shape, strides, offset, d = [], [], 0, 0
    given = sum(k is not None and k is not Ellipsis for k in key)
    if sum(k is Ellipsis for k in key) > 1:
        raise OutOfRange("an index can only have a single ellipsis")
    for k in key:
        if k is None:
            shape.append(1)
            strides.append(0)
        elif k is Ellipsis:
            for _ in range(x.ndim - given):
                shape.append(x.shape[d])
                strides.append(x.strides[d])
                d += 1
        elif isinstance(k, slice):
            if d >= x.ndim:
                raise OutOfRange(f"too many indices for a tensor of {x.ndim} dimensions")
            start, stop, step = k.indices(x.shape[d])
            n = len(range(start, stop, step))
            shape.append(n)
            strides.append(x.strides[d] * step)
            offset += start * x.strides[d] if n else 0
            d += 1
        elif isinstance(k, (bool, np.bool_)) or not hasattr(k, "__index__") or getattr(k, "ndim", 0):
            return None
        else:
            if d >= x.ndim:
                raise OutOfRange(f"too many indices for a tensor of {x.ndim} dimensions")
            i, n = operator.index(k), x.shape[d]
            if not -n <= i < n:
                raise OutOfRange(f"index {i} is out of range for axis {d} of size {n}")
            offset += (i % n) * x.strides[d]
            d += 1
    shape += x.shape[d:]
    strides += x.strides[d:]
    return x._view(tuple(shape), tuple(strides), offset)


def _as_index(k):
    """One index array, for NumPy's rules to combine."""
    if isinstance(k, TensorBase):
        if k._code not in (INT64, BOOL):
            raise OutOfRange(f"tensors used as indices must be int64 or bool, got {k.dtype}")
        return np.asarray(k)
    return k


def _fixed(k):
    """An integer without dimensions as an int: backward reads the key again, and must not see a later change."""
    scalar = isinstance(k, (np.ndarray, TensorBase)) and k.ndim == 0 and k.dtype.kind in "iu"
    return operator.index(k) if scalar else k


def _rows(x, key):
    """_selection by one integer array, or by int64 tensors of one shape, for the first axes; None by other keys."""
    if isinstance(key, list):
        key = np.asarray(key)
    if isinstance(key, np.ndarray) and key.dtype.kind in "iu":
        key = from_array(key.astype(np.int64))
    key = key if isinstance(key, tuple) else (key,)
    if len(key) > x.ndim or not all(isinstance(k, TensorBase) and k._code == INT64 for k in key):
        return None
    if any(k.shape != key[0].shape for k in key):
        return None
    rows = None
    for k, n in zip(key, x.shape, strict=False):
        rows = indexing.checked_index(k, n, "index", True, after=rows)
    return rows, math.prod(x.shape[len(key) :]), rows.shape + x.shape[len(key) :]


def _selection(x, key):
    """(flat int64 positions of rows, elements per row, shape of the result) for an index with arrays."""
    rows = _rows(x, key)
    if rows is not None:
        return rows
    key = tuple(_as_index(k) for k in key) if isinstance(key, tuple) else _as_index(key)
    positions = np.arange(x.numel(), dtype=np.int64).reshape(x.shape)[key]
    return from_array(np.ascontiguousarray(positions)), 1, positions.shape


def _key(key):
    """The key as it is used and kept."""
    for k in key if isinstance(key, tuple) else (key,):
        if isinstance(k, np.ndarray):
            not_frozen("index")
    return tuple(map(_fixed, key)) if isinstance(key, tuple) else _fixed(key)


def getitem(input, key):
    """x[key] with NumPy's rules: a view for integers, slices, None and Ellipsis; a copy for index arrays."""
    x = as_tensor(input)
    key = _key(key)
    y = _basic(x, key)
    if y is not None:

        def backward(dy):
            dx = new_zeros(x.shape, x._code)
            copy_into(_basic(dx, key), dy)
            return (dx,)

        return _tape.record(y, "getitem", (x,), backward)
    rows = None if x._code == BOOL else _rows(x, key)
    if rows is None and not x._floating:  # the kernels move numbers by rows; the rest of integers is NumPy's to move
        return as_tensor(np.asarray(x)[tuple(map(_as_index, key)) if isinstance(key, tuple) else _as_index(key)])
    index, inner, shape = rows or _selection(x, key)
    y = indexing.gather(contiguous(x), index, inner, shape)

    def scatter(dy):
        dx = new_zeros(x.shape, x._code)
        indexing.scatter_add(dx, index, contiguous(dy), inner)
        return (dx,)

    return _tape.record(y, "getitem", (x,), scatter)


def setitem(x, key, value):
    """x[key] = value, with NumPy's rules; counted as a write."""
    value = as_tensor(value, "value", x._code if not isinstance(value, TensorBase) and x._floating else None)
    writable(x, value)
    key = _key(key)
    view = _basic(x, key)
    if view is not None:
        write(view, value)
        return
    if x._code not in (FLOAT32, FLOAT64):
        raise TypeError(f"index: assignment by index arrays needs a floating tensor, this one is {x.dtype}")
    index, inner, shape = _selection(x, key)
    rows = new_empty(shape, x._code)
    copy_into(rows, value)
    if x._contiguous:
        indexing.scatter(x, index, rows, inner)
    else:
        dense = contiguous(x)
        indexing.scatter(dense, index, rows, inner)
        copy_into(x, dense)


def write(x, value):
    """x[...] = value; a value in the same memory is copied first, so that it is read before anything is written."""
    if value._storage is x._storage:
        value = elementwise.cast(value, value._code)
    copy_into(x, value)


def writable(x, value=None):
    """Raises unless writing into x keeps the graph true."""
    if _tape.is_grad_enabled():
        if x.grad_fn is not None:
            raise RuntimeError("cannot write into the result of a recorded operation; use detach() or no_grad()")
        if value is not None and value.requires_grad:
            raise RuntimeError(
                "cannot write a tensor that requires grad into another: its gradient would be lost; use detach()"
            )


def split(input, size, dim=0):
    """Views of `size` slices each along an axis (the last may be smaller), or of the sizes in a list."""
    x = as_tensor(input)
    d = axis(dim, x.ndim)
    n = x.shape[d]
    if isinstance(size, (list, tuple)):
        sizes = [integer(s, "size", 0) for s in size]
        if sum(sizes) != n:
            raise ValueError(f"size: sizes {sizes} do not add up to {n}")
    else:
        step = integer(size, "size", 1)
        sizes = [min(step, n - i) for i in range(0, n, step)] or [0]
    out, at = [], 0
    for s in sizes:
        out.append(getitem(x, (slice(None),) * d + (slice(at, at + s),)))
        at += s
    return tuple(out)
