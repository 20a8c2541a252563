"""Matrix products: against the oracle at every edge of the tile and the blocks, and bit for bit against themselves."""

import numpy as np
import pytest

import nncore
from nncore._core import dense, elementwise, runtime, tensor

from . import reference, shapes, tolerance

from_array = tensor.from_array

ACTIVATIONS = {
    "none": (-1, lambda z: z),
    "relu": (runtime.OPS["relu"], lambda z: np.maximum(z, 0)),
    "tanh": (runtime.OPS["tanh"], np.tanh),
    "sigmoid": (runtime.OPS["sigmoid"], lambda z: 1 / (1 + np.exp(-z))),
}


def matrices(rng, m, n, k, dtype):
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


def product(a, b):
    """dense.matmul of two arrays, as an array; held to write nothing beyond its result."""
    shape = (*(a if a.ndim == 3 else b).shape[:-2], a.shape[-2], b.shape[-1])
    shapes.prime(shape, a.dtype)
    y = dense.matmul(from_array(a), from_array(b))
    shapes.check_slack(y, "matmul")
    return np.asarray(y)


def check(a, b, what):
    y, magnitude = reference.matmul(a, b)
    tolerance.close(product(a, b), y, tolerance.gemm(a.shape[-1], magnitude, a.dtype), what)


def linear(x, w, bias=None, act=-1):
    return np.asarray(dense.linear(from_array(x), from_array(w), None if bias is None else from_array(bias), act))


def test_every_edge_of_the_tile(isa, dtype, rng):
    """M, N and K around the micro-tile, each operand plain and transposed: the four packing and reading paths."""
    for m, n, k in shapes.gemm_grid(dtype):
        a, b = matrices(rng, m, n, k, dtype)
        y, magnitude = reference.matmul(a, b)
        bound = tolerance.gemm(k, magnitude, dtype)
        for x in (a, np.asfortranarray(a)):
            for z in (b, np.asfortranarray(b)):
                tolerance.close(product(x, z), y, bound, f"{m}x{n}x{k} {x.strides} {z.strides}")


def test_every_edge_of_the_blocks(isa, dtype, rng):
    """Around the blocks of M, N and K, and around the sizes from which operands are packed."""
    for m, n, k in shapes.gemm_blocks(dtype):
        a, b = matrices(rng, m, n, k, dtype)
        y, magnitude = reference.matmul(a, b)
        bound = tolerance.gemm(k, magnitude, dtype)
        tolerance.close(product(a, b), y, bound, f"{m}x{n}x{k}")
        at = np.asfortranarray(a)
        tolerance.close(product(at, np.asfortranarray(b)), y, bound, f"{m}x{n}x{k} transposed")
        tolerance.same_bits(product(at, b), product(a, b), f"{m}x{n}x{k} a transposed")


def test_turned(isa, dtype, rng):
    """Few columns, and few rows of a deep product, where vectors run along the rows of A: the bits of a row alone."""
    NR, lanes = shapes.tile(dtype)
    MR, KC, act = shapes.MR, shapes.KC_BYTES // dtype.itemsize, ACTIVATIONS["tanh"][0]
    sizes = [(m, n, k) for m in (lanes, NR - 1, 2 * NR + lanes) for n in (1, MR // 2, MR, MR + 1) for k in (3, KC + 3)]
    sizes += [(m, 2 * m + d, k) for m in (lanes, NR) for d in (0, 1) for k in (128, 300)]
    for m, n, k in sizes:
        a, b = matrices(rng, m, n, k, dtype)
        y, magnitude = reference.matmul(a, b)
        bound = tolerance.gemm(k, magnitude, dtype)
        for x in (a, np.asfortranarray(a)):
            for z in (b, np.asfortranarray(b)):
                got = product(x, z)
                tolerance.close(got, y, bound, f"{m}x{n}x{k} {x.strides} {z.strides}")
                tolerance.same_bits(got[-1:], product(x[-1:], z), f"the last row of {m}x{n}x{k}")
        w, bias = np.ascontiguousarray(b.T), rng.standard_normal(n).astype(dtype)
        tolerance.same_bits(linear(a, w, bias, act)[-1:], linear(a[-1:], w, bias, act), f"linear {m}x{n}x{k}")


def test_striped(isa, dtype, rng):
    """Few rows, and a B whose rows span much memory, read in stripes: the bits of the same B close together."""
    NR, _ = shapes.tile(dtype)
    span, step, columns = (1 << 24) // dtype.itemsize, shapes.STRIPE_STEP, shapes.STRIPE_PANELS * NR
    for n, k in ((columns + NR + 5, step), (columns - NR, step + 1), (columns, 2 * step), (3, 4 * step + 1), (NR, 1)):
        far = np.zeros((k, span // k + 1), dtype)[:, :n]
        far[...] = rng.standard_normal((k, n))
        near = far.copy()
        for m in (1, 2, shapes.MR + 1, *shapes.around(2 * shapes.MR), *shapes.around(shapes.STRIPE_M)):
            a = rng.standard_normal((m, k)).astype(dtype)
            tolerance.same_bits(product(a, far), product(a, near), f"{m}x{n}x{k}")


def test_layouts(isa, dtype, rng):
    """Any strides of the operands, also 0 and negative, give the bits of row-major ones; inputs stay as they are."""
    NR, _ = shapes.tile(dtype)
    for m, n, k in (
        (7, NR + 3, 5),
        (50, 2 * NR + 1, 70),
        (1, NR - 1, 9),
        (5, 1, 9),
        (5, 9, 1),
        (1, 1, 9),
        (1, 9, 1),
        (9, 1, 1),
    ):
        a, b = matrices(rng, m, n, k, dtype)
        y = product(a, b)
        for name, layout in shapes.LAYOUTS.items():
            x, z = layout(a), layout(b)
            what = f"{m}x{n}x{k} {name}"
            tolerance.same_bits(product(x, b), y, what)
            tolerance.same_bits(product(a, z), y, what)
            tolerance.same_bits(product(x, z), y, what)
            tolerance.same_bits(x, a, what)
            tolerance.same_bits(z, b, what)
        row, column = np.broadcast_to(a[:1], a.shape), np.broadcast_to(b[:, :1], b.shape)
        tolerance.same_bits(product(row, b), product(row.copy(), b), "rows of stride 0")
        tolerance.same_bits(product(a, column), product(a, column.copy()), "columns of stride 0")


def test_windows_of_larger_matrices(isa, dtype, rng):
    """Leading dimensions beyond the width: what lies beside the operands (NaN here) is not read into results."""
    NR, _ = shapes.tile(dtype)
    for m, n, k in ((7, NR + 3, 5), (50, NR + 1, 70), (9, 3 * NR, 66)):
        a, b = matrices(rng, m, n, k, dtype)
        y = product(a, b)
        big_a, big_b = (np.full((s + 9, t + 7), np.nan, dtype) for s, t in (a.shape, b.shape))
        big_a[4 : 4 + m, 3 : 3 + k] = a
        big_b[4 : 4 + k, 3 : 3 + n] = b
        tolerance.same_bits(product(big_a[4 : 4 + m, 3 : 3 + k], big_b[4 : 4 + k, 3 : 3 + n]), y)


def test_batches(isa, dtype, rng):
    """A batch is its products one by one, bit for bit, also when one side is shared or strided."""
    NR, _ = shapes.tile(dtype)
    for m, n, k in ((7, NR + 1, 5), (49, 9, 66), (1, 3, 4)):
        a = rng.standard_normal((3, m, k)).astype(dtype)
        b = rng.standard_normal((3, k, n)).astype(dtype)
        one = np.stack([product(a[i], b[i]) for i in range(3)])
        tolerance.same_bits(product(a, b), one)
        tolerance.same_bits(product(a[::-1], b[::-1]), one[::-1])
        tolerance.same_bits(product(np.ascontiguousarray(a.transpose(1, 0, 2)).transpose(1, 0, 2), b), one)
        tolerance.same_bits(product(a[0], b), np.stack([product(a[0], b[i]) for i in range(3)]))
        tolerance.same_bits(product(a, b[0]), np.stack([product(a[i], b[0]) for i in range(3)]))
    assert product(a[:0], b[:0]).shape == (0, 1, 3)


def test_nan_and_infinity(isa, dtype, rng):
    """A NaN or infinity in a row of A (a column of B) reaches its whole row (column) and nothing else."""
    NR, _ = shapes.tile(dtype)
    for m, n, k in ((8, NR + 3, 7), (50, NR + 3, 70)):
        a, b = matrices(rng, m, n, k, dtype)
        y = product(a, b)
        for bad in (np.nan, np.inf, -np.inf):
            x, z = a.copy(), b.copy()
            x[3, 2] = bad
            z[k - 1, n - 1] = bad
            got = product(x, z)
            rest = np.ones((m, n), bool)
            rest[3, :] = rest[:, n - 1] = False
            assert not np.isfinite(got[~rest]).any()
            tolerance.close(got, reference.matmul(x, z)[0], np.inf, f"{bad}")
            tolerance.same_bits(got[rest], y[rest], f"{bad}")
        x = a.copy()
        x[0, 0] = np.inf
        z = b.copy()
        z[0, 0] = 0
        assert np.isnan(product(x, z)[0, 0])


def test_epilogue(isa, dtype, rng):
    """act(x w^T + b): the activation comes once, after the last block of K, with the bits of the separate op."""
    NR, _ = shapes.tile(dtype)
    KC, KB = shapes.KC_BYTES // dtype.itemsize, shapes.KB_BYTES // dtype.itemsize
    eps = np.finfo(dtype).eps
    for m, n, k in (
        (1, 1, 3),
        (7, NR + 1, KC + 5),
        (50, NR - 1, 33),
        (3, NR + 3, KB + 2),
        (4, NR + 1, 0),
        (0, 5, 4),
        (4, 0, 4),
    ):
        x, w = rng.standard_normal((m, k)).astype(dtype), (rng.standard_normal((n, k)) / np.sqrt(k + 1)).astype(dtype)
        bias = rng.standard_normal(n).astype(dtype)
        z, magnitude = reference.matmul(x, w.T)
        for b in (None, bias):
            zb = z if b is None else z + b
            bound = tolerance.gemm(k, magnitude, dtype) + eps * np.abs(zb)
            plain = linear(x, w, b)
            for name, (act, f) in ACTIVATIONS.items():
                shapes.prime((m, n), dtype)
                t = dense.linear(from_array(x), from_array(w), None if b is None else from_array(b), act)
                shapes.check_slack(t, name)
                y = f(zb)  # all are 1-Lipschitz, and have at most 2 ulp of error of their own
                tolerance.close(t.numpy(), y, bound + 2 * eps * np.abs(y), f"{name} {m}x{n}x{k} bias {b is not None}")
                if name != "none":
                    op = elementwise.ewise(runtime.OPS[name], from_array(plain))
                    tolerance.same_bits(t.numpy(), np.asarray(op), name)


def test_one_row_alone(isa, dtype, rng):
    """A sample alone gives the bits it gives in a batch of any size: forward, and the gradient for its input."""
    NR, _ = shapes.tile(dtype)
    KB = shapes.KB_BYTES // dtype.itemsize
    for n, k in ((NR + 5, 70), (3 * NR + 1, 9), (1, 300), (shapes.PACK_A_MIN_N + 1, 65), (NR + 1, KB + 3)):
        x = rng.standard_normal((100, k)).astype(dtype)
        w, bias = rng.standard_normal((n, k)).astype(dtype), rng.standard_normal(n).astype(dtype)
        dy = rng.standard_normal((100, n)).astype(dtype)
        y, dx = linear(x, w, bias), product(dy, w)
        for m in (1, 2, 5, 6, 7, 13, 47, 48, 97):
            what = f"{m} rows of 100, {n}x{k}"
            tolerance.same_bits(linear(x[:m], w, bias), y[:m], what)
            tolerance.same_bits(linear(x[-m:], w, bias), y[-m:], what)
            tolerance.same_bits(product(dy[:m], w), dx[:m], what)
            tolerance.same_bits(product(np.asfortranarray(x)[:m], w.T), product(x, w.T)[:m], what)


def test_one_column_alone(isa, dtype, rng):
    """An output feature does not depend on how many others there are."""
    NR, _ = shapes.tile(dtype)
    a, b = matrices(rng, 50, 3 * NR + 2, 70, dtype)
    y = product(a, b)
    for n in (1, NR - 1, NR, NR + 1, 2 * NR + 3):
        tolerance.same_bits(product(a, b[:, :n]), y[:, :n])
        tolerance.same_bits(product(a[:5], b[:, -n:]), y[:5, -n:])


def packs(parameter):
    """The packed copies held for a parameter's current version."""
    storage = parameter._storage
    return [p for version, p in (storage.packs or {}).values() if p is not None and version == storage.version]


def test_packed_weights(isa, dtype, rng):
    """A weight used twice at one version is packed, with the same bits; after a write the new values count."""
    NR, _ = shapes.tile(dtype)
    KC, KB = shapes.KC_BYTES // dtype.itemsize, shapes.KB_BYTES // dtype.itemsize
    for n, k in ((1, 1), (NR, 4), (NR + 1, KC + 1), (2 * NR + 1, 70), (3, KB + 5), (2, 0)):
        values = rng.standard_normal((n, k)).astype(dtype)
        w = nncore.nn.Parameter(values)
        for m in (1, 7, 50):
            x = rng.standard_normal((m, k)).astype(dtype)
            y = linear(x, values)
            for use in range(3):
                tolerance.same_bits(np.asarray(dense.linear(from_array(x), w)), y, f"use {use} of {n}x{k}")
        assert packs(w), f"{n}x{k}"
        with nncore.no_grad():
            w.copy_(-values)
        assert not packs(w)
        for use in range(3):
            got = np.asarray(dense.linear(from_array(x), w))
            tolerance.same_bits(got, linear(x, -values), f"use {use} after a write")
        with nncore.no_grad():
            w[0] = 2.0
        for use in range(3):
            new = -values
            new[0] = 2
            tolerance.same_bits(
                np.asarray(dense.linear(from_array(x), w)), linear(x, new), f"use {use} after an assignment"
            )


def test_packed_both_ways(isa, dtype, rng):
    """Forward packs w^T, the gradient for the input packs w: neither takes the other's copy, nor another ISA's."""
    NR, _ = shapes.tile(dtype)
    values = rng.standard_normal((NR + 1, NR + 1)).astype(dtype)  # square, so that only the strides differ
    w, x = nncore.nn.Parameter(values), rng.standard_normal((7, NR + 1)).astype(dtype)
    for _ in range(3):
        tolerance.same_bits(np.asarray(dense.linear(from_array(x), w)), linear(x, values))
        tolerance.same_bits(np.asarray(dense.matmul(from_array(x), w)), product(x, values))
    assert len(packs(w)) == 2
    for other in runtime.isas():
        runtime.set_isa(other)
        for _ in range(3):
            tolerance.same_bits(
                np.asarray(dense.linear(from_array(x), w)), linear(x, values), f"packed by {isa}, used by {other}"
            )


@pytest.mark.parametrize(
    "m,n,k",
    [(1, 600, 70), (200, 70, 40), (500, 3, 70), (50, 300, 700), (7, 1, 5), (100, 900, 5000), (760, 192, 70)],
)
def test_threads(isa, dtype, rng, m, n, k):
    """1, 2, 3 and 7 threads give the same bits, and all of them take part where the work can be cut."""
    a, b = matrices(rng, m, n, k, dtype)
    runtime.set_num_threads(1)
    at, bt = np.asfortranarray(a), np.asfortranarray(b)
    plain, transposed = product(a, b), product(at, bt)
    runtime.set_parallel_threshold(0.0)
    NR, _ = shapes.tile(dtype)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(product(a, b), plain, f"{threads} threads")
        used = runtime.threads_used(True)
        # cut into rows of MR and panels of NR, the work has at least this many pieces
        assert used >= min(threads, max(-(-m // shapes.MC), min(-(-n // NR), threads)))
        tolerance.same_bits(product(at, b), plain, f"{threads} threads, a transposed")
        tolerance.same_bits(product(at, bt), transposed, f"{threads} threads, transposed")


def test_packing_by_threads(isa, dtype, rng):
    """The packed copy is the same whoever packs it."""
    n, k = 700, 90
    values, x = rng.standard_normal((n, k)).astype(dtype), rng.standard_normal((2, k)).astype(dtype)
    expected = linear(x, values)
    runtime.set_parallel_threshold(0.0)
    for threads in (2, 3, 7):
        runtime.set_num_threads(threads)
        w = nncore.nn.Parameter(values)
        runtime.threads_used(True)
        for _ in range(2):
            got = np.asarray(dense.linear(from_array(x), w))
        assert packs(w)
        assert runtime.threads_used(True) == threads
        tolerance.same_bits(got, expected)


COVERS = {"gemm": test_every_edge_of_the_tile, "gemm_pack": test_packed_weights}
