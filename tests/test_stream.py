"""Large results, which are written past the cache: the same bits as in parts that are not."""

import numpy as np
import pytest

import nncore
from nncore.nn import functional as F

ROWS, BYTES = 6144, 24 << 20  # NN_STREAM_BYTES
# numbers of a row beyond those that make BYTES: 3, and rows begin anywhere
OPERATIONS = {
    "relu": (0, lambda x, b: F.relu(x)),
    "add": (3, lambda x, b: x + b),
    "softmax": (3, lambda x, b: F.softmax(x, 1)),
    "log_softmax": (3, lambda x, b: F.log_softmax(x, 1)),
    "embedding": (3, lambda x, b: F.embedding(nncore.tensor(np.arange(x.shape[0])), x)),
    "layer_norm": (0, lambda x, b: F.layer_norm(x, (x.shape[1],), b, b)),
    "group_norm": (0, lambda x, b: F.group_norm(x.reshape(-1, 8, x.shape[1]), 4)),
    "conv": (0, lambda x, b: F.conv2d(x.reshape(-1, 16, 8, x.shape[1] // 4), b[:256].reshape(16, 16, 1, 1))),
    "group_norm of odd images": (3, lambda x, b: F.group_norm(x.reshape(-1, 8, x.shape[1]), 4)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_in_parts(isa, dtype, rng, name):
    extra, operation = OPERATIONS[name]
    n = BYTES // ROWS // dtype.itemsize + extra
    x, dy = (np.resize(rng.standard_normal(100003).astype(dtype), (ROWS, n)) for _ in range(2))
    b = nncore.from_numpy(rng.standard_normal(n).astype(dtype))

    def both(i, j):
        part = nncore.tensor(x[i:j], requires_grad=True)
        y = operation(part, b)
        y.backward(nncore.from_numpy(dy[i:j].reshape(y.shape)))
        return np.asarray(y.detach()).reshape(-1, n), np.asarray(part.grad)

    half = ROWS // 2
    for all_rows, upper, lower in zip(both(0, ROWS), both(0, half), both(half, ROWS)):
        assert all_rows.nbytes >= BYTES
        assert np.array_equal(all_rows[:half], upper)
        assert np.array_equal(all_rows[half:], lower)
