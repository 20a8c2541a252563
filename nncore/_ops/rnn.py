"""Recurrent layers: one operation per layer, over all steps and both directions."""

from nncore import _tape
from nncore._core import dense
from nncore._core import rnn as kernels
from nncore._core.elementwise import contiguous, ewise
from nncore._core.reduction import SUM, reduce
from nncore._core.rnn import GRU, LSTM, RNN_RELU, RNN_TANH
from nncore._core.runtime import OPS
from nncore._core.tensor import new_empty
from nncore._ops.activation import dropout
from nncore._ops.linear import _swap
from nncore._ops.shape import cat, getitem

CELLS = {"RNN_TANH": RNN_TANH, "RNN_RELU": RNN_RELU, "LSTM": LSTM, "GRU": GRU}
NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


def _add(a, b):
    return b if a is None else ewise(OPS["add"], a, b)


def _check(mode, x, sizes, h0, c0, directions):
    """Raises unless everything fits: the kernels trust the sizes."""
    hidden, size = directions[0][1].shape[-1], x.shape[-1]
    rows = GATES[mode] * hidden
    for direction in directions:
        for name, p, shape in zip(NAMES, direction, ((rows, size), (rows, hidden), (rows,), (rows,))):
            if p is not None and p._code != x._code:
                raise TypeError(f"{name}: expected {x.dtype} as the input's, got {p.dtype}")
            if p is not None and p.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {p.shape}")
    batch = int(sizes[0])
    for name, t in (("h_0", h0), ("c_0", c0)):
        if t is not None and t._code != x._code:
            raise TypeError(f"{name}: expected {x.dtype} as the input's, got {t.dtype}")
        if t is not None and t.shape != (len(directions), batch, hidden):
            raise ValueError(f"{name}: expected shape {(len(directions), batch, hidden)} per layer, got {t.shape}")


def _rows(t, first, end):
    """Rows [first, end) of a matrix, as a view."""
    return t._view((end - first, t.shape[1]), t.strides, first * t.strides[0])


def equal_steps(steps, rows):
    """The sizes of steps of equally many rows."""
    return kernels.steps(steps, rows)


def layer(mode, x, sizes, h0, c0, directions):
    """One layer, with its directions' outputs side by side.

    Args:
        mode: a name of CELLS.
        x: [rows, I], the rows of one step after the other; those of a step are its sequences, longest first.
        sizes: int64 [T], T > 0: the rows of each step, not rising, and x.shape[0] in all.
        h0, c0: [D, B, H] or None (zeros), B = sizes[0]; c0 of an LSTM only.
        directions: D tuples (weight_ih [G H, I], weight_hh [G H, H], bias_ih [G H] or None, bias_hh), the second for
            the way back.

    Returns:
        (y [rows, D H], h_n [D, B, H], c_n [D, B, H] or None). x is floating and has two dimensions.
    """
    sizes = kernels.checked_sizes(sizes, x.shape[0])
    _check(mode, x, sizes, h0, c0, directions)
    cell = CELLS[mode]
    hidden, many = directions[0][1].shape[1], len(directions)
    batch = int(sizes[0])
    inputs = (x, h0, c0, *(p for direction in directions for p in direction))
    keep = _tape.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    x = contiguous(x)
    first_h, first_c = (None if t is None else contiguous(t) for t in (h0, c0))
    y = new_empty((x.shape[0], many * hidden), x._code)
    hn = new_empty((many, batch, hidden), x._code)
    cn = new_empty((many, batch, hidden), x._code) if cell == LSTM else None
    held = []
    for d, (w_ih, w_hh, b_ih, b_hh) in enumerate(directions):
        gates = dense.linear(x, w_ih, b_ih)
        held.append((gates, kernels.forward(cell, d, gates, w_hh, b_hh, first_h, first_c, sizes, keep, y, hn, cn)))

    # dG, the gradient of the gates:  dX = dG W_ih,  dW_ih = dG^T X,  dW_hh = dG^T H_before,  db = sum of dG over rows.
    # Where h0 is 0, H_before has rows of zeros: those of the first step.
    def backward(dy, dhn, dcn=None):
        dy, dhn, dcn = (None if t is None else contiguous(t) for t in (dy, dhn, dcn))
        wanted = [t is not None and t.requires_grad for t in inputs]
        dx = None
        dh0, dc0 = (new_empty(t.shape, x._code) if w else None for t, w in zip((h0, c0), wanted[1:]))
        grads = []
        for d, ((w_ih, w_hh, *_), (gates, more)) in enumerate(zip(directions, held)):
            dgates, drecurrent, before = kernels.backward(
                cell, d, gates, more, w_hh, first_h, first_c, sizes, y, dy, dhn, dcn, dh0, dc0
            )
            want_w_ih, want_w_hh, want_b_ih, want_b_hh = wanted[3 + 4 * d : 7 + 4 * d]
            if wanted[0]:
                dx = _add(dx, dense.matmul(dgates, w_ih))
            db_ih = reduce(SUM, dgates, 0, 1)[0] if want_b_ih or want_b_hh else None
            grads.append(dense.matmul(_swap(dgates), x) if want_w_ih else None)
            first, end = 0, x.shape[0]
            if h0 is None and d == 0:
                first = batch
            elif h0 is None and len(sizes) * batch == end:
                end -= batch
            later = _rows(drecurrent, first, end), _rows(before, first, end)
            grads.append(dense.matmul(_swap(later[0]), later[1]) if want_w_hh else None)
            grads.append(db_ih if want_b_ih else None)
            same = drecurrent is dgates
            grads.append((db_ih if same else reduce(SUM, drecurrent, 0, 1)[0]) if want_b_hh else None)
        return dx, dh0, dc0, *grads

    saved = tuple(t for t in (x, first_h, first_c, y, *(w for p in directions for w in p[:2])) if t is not None)
    outputs = (y, hn) if cn is None else (y, hn, cn)
    return (*_tape.record(outputs, mode.lower(), inputs, backward, saved), None)[:3]


def stack(mode, x, sizes, h0, c0, layers, p, training):
    """Layers one above the other, with dropout of probability p between them.

    Args:
        mode, x, sizes: as layer's.
        h0, c0: [L D, B, H] or None.
        layers: for each of the L layers, its directions as layer's.

    Returns:
        (y [rows, D H] of the last layer, h_n [L D, B, H], c_n or None).
    """
    many, last = len(layers[0]), []
    for i, directions in enumerate(layers):
        h, c = (t if t is None or len(layers) == 1 else getitem(t, slice(i * many, (i + 1) * many)) for t in (h0, c0))
        x, hn, cn = layer(mode, x if i == 0 else dropout(x, p, training), sizes, h, c, directions)
        last.append((hn, cn))
    if len(last) == 1:
        return x, hn, cn
    return x, cat([h for h, _ in last]), None if cn is None else cat([c for _, c in last])
