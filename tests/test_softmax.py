"""Softmax, log softmax and cross-entropy over rows, forward and backward."""

import numpy as np
import pytest

from nncore._core import indexing, reduction, runtime, tensor

from . import reference, shapes, tolerance

from_array = tensor.from_array

LOG = pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])


def forward(x, log):
    shapes.prime(x.shape, x.dtype)
    y = reduction.softmax(from_array(x), log)
    shapes.check_slack(y, f"softmax {x.shape}")
    return np.asarray(y)


def backward(y, dy, log):
    shapes.prime(y.shape, y.dtype)
    dx = reduction.softmax_backward(from_array(np.ascontiguousarray(y)), from_array(dy), log)
    shapes.check_slack(dx, f"softmax_backward {y.shape}")
    return np.asarray(dx)


def check(x, log, what=""):
    _, lanes = shapes.tile(x.dtype)
    y = reference.softmax(x, log)
    bound = (tolerance.log_softmax if log else tolerance.softmax)(x, y, lanes)
    tolerance.close(forward(x, log), y, bound, f"{what} {x.shape}")


def sizes(dtype):
    return [n for n in shapes.lengths(dtype) if n] + [2, 257, 1000]


@LOG
def test_rows(isa, dtype, rng, log):
    """Rows of any length, of moderate and of large spread."""
    for n in [*sizes(dtype), 9000]:
        for rows in (0, 1, 2, 37):
            x = rng.standard_normal((rows, n)).astype(dtype)
            if rows:
                check(x, log)
                check(x * dtype.type(50), log, "spread")
            else:
                assert forward(x, log).shape == (0, n)
    assert forward(np.zeros((3, 0), dtype), log).shape == (3, 0)
    check(rng.standard_normal((2, 3, 4, 5)).astype(dtype), log)


@LOG
def test_a_shift_changes_nothing(isa, dtype, rng, log):
    """Adding a constant to a row leaves its softmax: the error must not grow with the constant."""
    for shift in (100.0, -1000.0, 30000.0):
        # multiples of 2^-6, so that the shifted numbers are exact in both types
        x = np.round(rng.standard_normal((20, 33)) * 64) / 64
        check((x + shift).astype(dtype), log, f"shifted by {shift}")


@LOG
def test_extreme_rows(isa, dtype, log):
    """Huge differences, equal numbers, -inf among finite numbers."""
    inf = np.inf
    for n in (3, 40):
        rows = np.zeros((5, n), dtype)
        rows[0, 1] = 1e30
        rows[1, :] = -1e30
        rows[2, 0] = -inf
        rows[3, 1:] = -inf
        rows[4, 0] = -1e4
        y = forward(rows, log)
        expected = reference.softmax(rows, log)
        tolerance.close(
            y, expected, 8 * np.finfo(dtype).eps * np.maximum(1, np.where(np.isinf(expected), 0, np.abs(expected)))
        )
        if log:
            assert y[0, 1] == 0
            assert (y[3, 1:] == -inf).all()
        else:
            assert y[0, 1] == 1
            assert y[2, 0] == 0
            assert (y[3] == np.eye(1, n)).all()
        tolerance.same_bits(y[1], np.full(n, y[1, 0]))


@LOG
def test_nan_and_infinity(isa, dtype, rng, log):
    """A row with NaN or +inf, or of -inf only, is NaN throughout; its neighbours are as without it."""
    for n in (1, 5, 40):
        x = rng.standard_normal((7, n)).astype(dtype)
        clean = forward(x, log)
        for at in {0, n // 2, n - 1}:
            z = x.copy()
            z[1, at], z[3, at], z[5] = np.nan, np.inf, -np.inf
            y = forward(z, log)
            assert np.isnan(y[1::2]).all(), f"{n} {at}"
            tolerance.same_bits(y[::2], clean[::2])


@LOG
def test_backward(isa, dtype, rng, log):
    """dx from y and dy, for rows of any length."""
    _, lanes = shapes.tile(dtype)
    for n in sizes(dtype):
        x, dy = (rng.standard_normal((11, n)).astype(dtype) for _ in range(2))
        y = reference.softmax(x, log).astype(dtype)
        expected = reference.softmax_backward(y, dy, log)
        tolerance.close(backward(y, dy, log), expected, tolerance.softmax_backward(y, dy, lanes, log), f"{n}")
    assert backward(np.zeros((0, 5), dtype), np.zeros((0, 5), dtype), log).shape == (0, 5)


@LOG
def test_layouts(isa, dtype, rng, log):
    """Inputs of any strides give the bits of row-major ones, and are only read."""
    x, dy = (rng.standard_normal((3, 4, 19)).astype(dtype) for _ in range(2))
    y = forward(x, log)
    dx = backward(y, dy, log)
    for name, layout in shapes.LAYOUTS.items():
        z, dz = layout(x), layout(dy)
        tolerance.same_bits(forward(z, log), y, name)
        tolerance.same_bits(backward(y, dz, log), dx, name)
        tolerance.same_bits(z, x)
        tolerance.same_bits(dz, dy)


def cross_entropy(x, target, scale=1.0, per_row=False):
    loss, lse, _ = reduction.cross_entropy(from_array(x), from_array(target), scale, per_row)
    return np.asarray(loss), lse


def problem(rng, rows, n, dtype):
    return rng.standard_normal((rows, n)).astype(dtype), rng.integers(0, n, rows)


def row_bound(x, target, lanes):
    """Bound of each row's loss: that of log softmax at the target."""
    y = reference.softmax(x, log=True)
    return tolerance.log_softmax(x, y, lanes)[np.arange(len(x)), target]


def test_cross_entropy(isa, dtype, rng):
    """Losses of rows, their scaled sum, and log sum exp."""
    _, lanes = shapes.tile(dtype)
    for n in sizes(dtype):
        for rows in (1, 3, 200):
            x, target = problem(rng, rows, n, dtype)
            losses = reference.cross_entropy(x, target)
            bound = row_bound(x, target, lanes)
            shapes.prime((rows,), dtype)
            got, _ = cross_entropy(x, target, per_row=True)
            tolerance.close(got, losses, bound, f"{rows}x{n}")
            total, _ = cross_entropy(x, target, 0.3)
            eps = np.finfo(dtype).eps
            tolerance.close(
                total, np.asarray(0.3 * losses.sum()), 0.3 * (bound.sum() + eps * losses.sum()), f"sum of {rows}x{n}"
            )
    assert cross_entropy(np.zeros((0, 4), dtype), np.zeros(0, np.int64))[0] == 0
    assert np.isnan(cross_entropy(np.zeros((0, 4), dtype), np.zeros(0, np.int64), np.nan)[0])


def test_cross_entropy_of_shifted_and_extreme_rows(isa, dtype, rng):
    """Large logits, an impossible target (loss inf), NaN and +inf (loss NaN)."""
    _, lanes = shapes.tile(dtype)
    for shift in (100.0, -1000.0, 30000.0):
        x = (np.round(rng.standard_normal((20, 33)) * 64) / 64 + shift).astype(dtype)
        target = rng.integers(0, 33, 20)
        got, _ = cross_entropy(x, target, per_row=True)
        tolerance.close(got, reference.cross_entropy(x, target), row_bound(x, target, lanes), f"shifted by {shift}")
    x = np.zeros((4, 3), dtype)
    x[0, 1], x[1, 0], x[2, 0], x[3, 0] = -np.inf, np.nan, np.inf, 1e30
    got, _ = cross_entropy(x, np.array([1, 2, 1, 0]), per_row=True)
    tolerance.same_bits(got, np.array([np.inf, np.nan, np.nan, 0], dtype))


def test_cross_entropy_backward(isa, dtype, rng):
    """dx for one dy of all rows and for one of each; also for logits far from 0, whose shift must not cost digits."""
    _, lanes = shapes.tile(dtype)
    eps = np.finfo(dtype).eps
    for n in sizes(dtype):
        for shift in (0.0, 1000.0):
            x = (np.round(rng.standard_normal((13, n)) * 64) / 64 + shift).astype(dtype)
            target = rng.integers(0, n, 13)
            _, lse = cross_entropy(x, target)
            for dy in (np.array(0.7, dtype), rng.standard_normal(13).astype(dtype)):
                shapes.prime(x.shape, dtype)
                dx = reduction.cross_entropy_backward(from_array(x), from_array(target), lse, from_array(dy), 0.25)
                shapes.check_slack(dx, "cross_entropy_backward")
                each = np.broadcast_to(dy, (13,))
                expected = reference.cross_entropy_backward(x, target, each) * 0.25
                y = reference.softmax(x)
                onehot = np.zeros_like(y)
                onehot[np.arange(13), target] = 1
                # softmax by way of the logarithm: the error of log softmax is felt relatively
                relative = tolerance.log_softmax(x, reference.softmax(x, log=True), lanes) + 4 * eps
                bound = 0.25 * np.abs(reference.wide(each))[:, None] * (relative * y + 2 * eps * onehot)
                tolerance.close(np.asarray(dx), expected, bound, f"rows of {n}, shifted by {shift}")


@pytest.mark.parametrize("log_probs", [False, True])
def test_class_losses(isa, dtype, rng, log_probs):
    """Weights of classes, rows left out, smoothing and the weighted mean, of logits and of log probabilities."""
    _, lanes = shapes.tile(dtype)
    eps = np.finfo(dtype).eps
    for n in sizes(dtype):
        x, target = problem(rng, 13, n, dtype)
        x = -np.abs(x) if log_probs else x
        target[[2, 5]] = -1
        dy = rng.standard_normal(13).astype(dtype)
        weights = rng.uniform(0.5, 2, n).astype(dtype)
        for weight, smoothing in [(None, 0.0), (weights, 0.0)] + [(None, 0.3), (weights, 0.3)] * (not log_probs):
            w = None if weight is None else from_array(weight)
            arguments = from_array(x), from_array(target)
            expected, size, share = reference.class_loss(x, target, weight, smoothing, log_probs)
            got, lse, _ = reduction.cross_entropy(*arguments, 1.0, True, w, smoothing, log_probs)
            # each l_j has the error of log softmax; then products, the sum over classes and the two parts
            error = 0 if log_probs else tolerance.log_softmax(x, reference.softmax(x, log=True), lanes).max(1)
            bound = 4 * eps * size + (tolerance.row_terms(n, lanes) * eps * size if smoothing else 0) + error * 2
            tolerance.close(np.asarray(got), expected, bound, f"rows of {n}, {smoothing}")
            tolerance.same_bits(np.asarray(got)[[2, 5]], np.zeros(2, dtype))
            mean, _, total = reduction.cross_entropy(*arguments, 1.0, False, w, smoothing, log_probs, True)
            tolerance.close(np.asarray(total), share.sum(), 2 * eps * share.sum())
            tolerance.close(
                np.asarray(mean), expected.sum() / share.sum(), (bound.sum() + 4 * eps * size.sum()) / share.sum()
            )
            shapes.prime(x.shape, dtype)
            lse = None if log_probs else lse
            dx = reduction.cross_entropy_backward(*arguments, lse, from_array(dy), 0.5, w, smoothing, total)
            shapes.check_slack(dx, "cross_entropy_backward")
            want, size = reference.class_loss_backward(x, target, dy, weight, smoothing, log_probs)
            spread = 0 if log_probs else tolerance.log_softmax(x, reference.softmax(x, log=True), lanes)
            bound = size * (spread + (12 + tolerance.row_terms(n, lanes)) * eps)
            tolerance.close(
                np.asarray(dx), want * 0.5 / share.sum(), bound * 0.5 / share.sum(), f"dx of {n}, {smoothing}"
            )
    nothing = reduction.cross_entropy(*arguments[:1], from_array(np.full(13, -1)), 1.0, False, mean=True)[0]
    assert np.isnan(nothing.item())


@pytest.mark.parametrize("n", [3, 40, 1000, 9000])
def test_one_row_alone(isa, dtype, rng, n):
    """Every row has the bits it has in a batch: softmax, its backward, losses and their backward."""
    x, target = problem(rng, 9, n, dtype)
    dy = rng.standard_normal((9, n)).astype(dtype)
    losses, lse = cross_entropy(x, target, per_row=True)
    one = np.array(1, dtype)
    dx = np.asarray(reduction.cross_entropy_backward(from_array(x), from_array(target), lse, from_array(one), 1.0))
    for i in range(9):
        row = slice(i, i + 1)
        for log in (False, True):
            y = forward(x, log)
            tolerance.same_bits(forward(x[row], log), y[row])
            tolerance.same_bits(backward(y[row], dy[row], log), backward(y, dy, log)[row])
        loss, lse = cross_entropy(x[row], target[row], per_row=True)
        tolerance.same_bits(loss, losses[row])
        alone = reduction.cross_entropy_backward(from_array(x[row]), from_array(target[row]), lse, from_array(one), 1.0)
        tolerance.same_bits(np.asarray(alone), dx[row])


@pytest.mark.parametrize("rows,n", [(5000, 10), (40, 1000), (3, 9)])
def test_threads(isa, dtype, rng, rows, n):
    """1, 2, 3 and 7 threads give the same bits and all take part."""
    x, target = problem(rng, rows, n, dtype)
    dy = rng.standard_normal((rows, n)).astype(dtype)
    chunks = -(-rows // (1 + 8192 // (n + 1)))

    def everything():
        for log in (False, True):
            runtime.threads_used(True)
            y = forward(x, log)
            used.append(runtime.threads_used(True))
            yield y
            yield backward(y, dy, log)
            used.append(runtime.threads_used(True))
        loss, lse = cross_entropy(x, target, 1 / rows)
        used.append(runtime.threads_used(True))
        yield loss
        yield np.asarray(
            reduction.cross_entropy_backward(from_array(x), from_array(target), lse, from_array(loss), 0.5)
        )
        used.append(runtime.threads_used(True))

    used = []
    runtime.set_num_threads(1)
    expected = list(everything())
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        used.clear()
        for got, want in zip(everything(), expected, strict=True):
            tolerance.same_bits(got, want, f"{threads} threads")
        assert used == [min(threads, chunks)] * 6


def test_targets_are_checked():
    """An index outside of the classes is refused, with its place."""
    for bad in (-1, 3):
        with pytest.raises(ValueError, match="position 1"):
            indexing.checked_index(from_array(np.array([0, bad, 1])), 3, "target")
    given = np.array([0, 2, 1])
    copy = indexing.checked_index(from_array(given), 3, "target")
    given[:] = 7
    assert copy.tolist() == [0, 2, 1]


COVERS = {
    "softmax": test_rows,
    "softmax_backward": test_backward,
    "cross_entropy": test_cross_entropy,
    "cross_entropy_backward": test_cross_entropy_backward,
}
