"""Matrix products."""

from nncore import _tape
from nncore._core import dense
from nncore._core.elementwise import contiguous
from nncore._core.reduction import SUM, reduce
from nncore._ops import shape
from nncore._ops._check import as_float, as_tensor, row_major
from nncore._ops.arithmetic import add, crosswise, sum_to


def _swap(t):
    """The last two axes exchanged, as a view."""
    return t._view((*t.shape[:-2], t.shape[-1], t.shape[-2]), (*t.strides[:-2], t.strides[-1], t.strides[-2]), 0)


def _product(a, b):
    """a @ b for at least 2 dimensions each, broadcasting the leading ones."""
    if b.ndim == 2 and a.ndim > 2:  # one product with all rows
        rows = 1
        for n in a.shape[:-1]:
            rows *= n
        a2 = contiguous(a)._view((rows, a.shape[-1]), (a.shape[-1], 1), 0)
        y = dense.matmul(a2, b)
        shape = (*a.shape[:-1], b.shape[-1])
        return y._view(shape, row_major(shape), 0)
    if a.ndim <= 3 and b.ndim <= 3 and (a.ndim < 3 or b.ndim < 3 or a.shape[0] == b.shape[0]):
        return dense.matmul(a, b)
    lead = _broadcast(a.shape[:-2], b.shape[:-2])
    count = 1
    for n in lead:
        count *= n
    flat = []
    for t in (a, b):
        skip = len(lead) - (t.ndim - 2)
        steps = tuple(0 if i < skip or t.shape[i - skip] == 1 else t.strides[i - skip] for i in range(len(lead)))
        t = contiguous(t._view((*lead, *t.shape[-2:]), (*steps, *t.strides[-2:]), 0))
        m, n = t.shape[-2:]
        flat.append(t._view((count, m, n), (m * n, n, 1), 0))
    y = dense.matmul(*flat)
    shape = (*lead, a.shape[-2], b.shape[-1])
    return y._view(shape, row_major(shape), 0)


def _broadcast(p, q):
    n = max(len(p), len(q))
    p, q = (1,) * (n - len(p)) + p, (1,) * (n - len(q)) + q
    if any(i != j and 1 not in (i, j) for i, j in zip(p, q)):
        raise ValueError(f"other: leading dimensions {q} cannot be broadcast with {p}")
    return tuple(j if i == 1 else i for i, j in zip(p, q))


def matmul(input, other):
    """Matrix product, with NumPy's rules: vectors are rows or columns, leading dimensions broadcast.

    Args:
        input: [..., M, K] or [K].
        other: [..., K, N] or [K], of the same dtype.

    Returns:
        [..., M, N], without M or N for a vector.

    Raises:
        ValueError: the inner sizes differ, or the leading ones cannot be broadcast.

    >>> import nncore
    >>> matmul(nncore.ones(2, 3), nncore.ones(3, 4)).shape
    (2, 4)
    """
    a = as_float(input)
    b = as_tensor(other, "other", a._code)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"other: matmul needs at least one dimension each, got {a.shape} and {b.shape}")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ValueError(f"other: expected {a.shape[-1]} rows to match {a.shape}, got shape {b.shape}")
    if a.ndim > 1 and b.ndim > 1:
        _broadcast(a.shape[:-2], b.shape[:-2])
    if a.ndim == 1 or b.ndim == 1:
        from nncore._ops.shape import reshape

        a2 = reshape(a, (1, -1)) if a.ndim == 1 else a
        b2 = reshape(b, (-1, 1)) if b.ndim == 1 else b
        y = matmul(a2, b2)
        shape = y.shape[:-2] + (() if a.ndim == 1 else y.shape[-2:-1]) + (() if b.ndim == 1 else y.shape[-1:])
        return reshape(y, shape)

    # Y = A B:  dA = dY B^T,  dB = A^T dY
    def backward(dy):
        da = db = None
        if a.requires_grad:
            da = sum_to(_product(dy, _swap(b)), a.shape)
        if b.requires_grad:
            if b.ndim == 2 and a.ndim > 2:
                k, n = b.shape
                rows = dy.numel() // n if n else 0
                flat = contiguous(a)._view((rows, k), (k, 1), 0)
                db = dense.matmul(_swap(flat), contiguous(dy)._view((rows, n), (n, 1), 0))
            else:
                db = sum_to(_product(_swap(a), dy), b.shape)
        return da, db

    return _tape.record(_product(a, b), "matmul", (a, b), backward, crosswise(a, b))


def bilinear(input1, input2, weight, bias=None):
    """y_o = x1^T W_o x2 + b_o.

    Args:
        input1: [*, I]; input2: [*, J].
        weight: [O, I, J].
        bias: [O] or None.

    Returns:
        [*, O].

    >>> import nncore
    >>> bilinear(nncore.ones(5, 3), nncore.ones(5, 2), nncore.ones(4, 3, 2)).tolist()[0]
    [6.0, 6.0, 6.0, 6.0]
    """
    w = as_float(weight, "weight")
    if w.ndim != 3:
        raise ValueError(f"weight: expected shape [out_features, in1_features, in2_features], got {w.shape}")
    n, i, j = w.shape
    a, b = as_tensor(input1, "input1", w._code), as_tensor(input2, "input2", w._code)
    for x, name, size in ((a, "input1", i), (b, "input2", j)):
        if x.ndim == 0 or x.shape[-1] != size:
            raise ValueError(f"{name}: expected the last dimension to be {size}, got shape {x.shape}")
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError(f"input2: shape {b.shape} does not go with input1's {a.shape}")
    # rows x (o, j) by one product, then over j for each row
    rows = linear(a, shape.reshape(shape.permute(w, 0, 2, 1), n * j, i))
    y = matmul(shape.reshape(rows, (*a.shape[:-1], n, j)), shape.unsqueeze(b, -1))
    y = shape.squeeze(y, -1)
    if bias is None:
        return y
    bias = as_tensor(bias, "bias", w._code)
    if bias.shape != (n,):
        raise ValueError(f"bias: expected shape ({n},), got {bias.shape}")
    return add(y, bias)


def linear(input, weight, bias=None):
    """y = x W^T + b.

    Args:
        input: [*, I]; an array is converted to the weight's dtype.
        weight: [O, I].
        bias: [O] or None.

    Returns:
        [*, O].

    Raises:
        ValueError: a shape does not fit.
        TypeError: a Tensor of another dtype than the weight's.

    >>> import nncore
    >>> linear(nncore.ones(5, 3), nncore.ones(2, 3)).shape
    (5, 2)
    """
    w = as_float(weight, "weight")
    x = as_tensor(input, "input", w._code)
    if w.ndim != 2:
        raise ValueError(f"weight: expected shape [out_features, in_features], got {w.shape}")
    out_features, in_features = w.shape
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ValueError(f"input: expected the last dimension to be in_features = {in_features}, got shape {x.shape}")
    b = None
    if bias is not None:
        b = as_tensor(bias, "bias", w._code)
        if b.shape != (out_features,):
            raise ValueError(f"bias: expected shape ({out_features},), got {b.shape}")
    y = dense.linear(x, w, b)

    # Y = X W^T + b:  dX = dY W,  dW = dY^T X,  db = sum of dY over rows
    def backward(dy):
        rows = 1
        for n in x.shape[:-1]:
            rows *= n
        dy2 = contiguous(dy)._view((rows, out_features), (out_features, 1), 0)
        dx = dw = db = None
        if x.requires_grad:
            dx = dense.matmul(dy2, w)
            dx = dx._view(x.shape, row_major(x.shape), 0)
        if w.requires_grad:
            dw = dense.matmul(_swap(dy2), contiguous(x)._view((rows, in_features), (in_features, 1), 0))
        if b is not None and b.requires_grad:
            db = reduce(SUM, dy2, 0, 1)[0]
        return dx, dw, db

    return _tape.record(y, "linear", (x, w, b), backward, crosswise(x, w))
