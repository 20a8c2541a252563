"""Tensor against NumPy: construction, views, indexing, reductions, comparisons, operators, memory."""

import copy
import gc
import math
import pickle

import numpy as np
import pytest

import nncore
from nncore import Tensor, no_grad

F32, F64, I64, BOOL = (np.dtype(d) for d in ("float32", "float64", "int64", "bool"))
DTYPES = [F32, F64, I64, BOOL]
SHAPES = [(), (1,), (5,), (0,), (2, 3), (3, 0, 2), (4, 1, 3), (2, 3, 4, 2), (1, 2, 1, 2, 1, 2, 1, 2)]


def array(rng, shape, dtype=F64):
    a = rng.integers(-4, 5, shape)
    return np.asarray(a > 0 if dtype == BOOL else a, dtype)


def same(t, a):
    """Same shape, dtype and bits (a NaN is a NaN)."""
    b = t.numpy()
    assert b.shape == a.shape, f"shape {b.shape}, expected {a.shape}"
    assert b.dtype == a.dtype, f"dtype {b.dtype}, expected {a.dtype}"
    np.testing.assert_array_equal(b, a)


# ---- construction ----


@pytest.mark.parametrize(
    "data, dtype, shape",
    [
        (1, I64, ()),
        (1.5, F32, ()),
        (True, BOOL, ()),
        ([1, 2], I64, (2,)),
        ([1, 2.5], F32, (2,)),
        ([True, False], BOOL, (2,)),
        ([[1.0], [2.0]], F32, (2, 1)),
        ([], F32, (0,)),
        ([[], []], F32, (2, 0)),
        ((1, 2), I64, (2,)),
        (np.float64(1.5), F64, ()),
        (np.float32(1.5), F32, ()),
        (np.int32(3), I64, ()),
        (np.bool_(True), BOOL, ()),
        (np.zeros((2, 0)), F64, (2, 0)),
        (np.float16([1.5]), F32, (1,)),
        (np.uint8([7]), I64, (1,)),
        (np.array([3], ">f4"), F32, (1,)),
        (range(3), I64, (3,)),
        (np.array([3], ">i8"), I64, (1,)),
        (np.zeros(2, np.uint64), I64, (2,)),
    ],
)
def test_tensor_dtypes(data, dtype, shape):
    t = nncore.tensor(data)
    assert t.dtype == dtype
    assert t.shape == shape
    np.testing.assert_array_equal(t.numpy(), np.asarray(data))


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("source", [*DTYPES, np.dtype(np.uint8), np.dtype(np.float16)])
def test_conversions(source, to):
    a = np.array([0, 1, 3, 2], source)
    for t in (nncore.tensor(a, dtype=to), nncore.tensor(a.tolist(), dtype=to), nncore.tensor(nncore.tensor(a), to)):
        same(t, a.astype(to))
    same(nncore.tensor(a).to(to), a.astype(to))


def test_explicit_float64_keeps_python_floats():
    """Python floats are float64: they pass through float32 only where the result is float32."""
    assert nncore.tensor(0.1, dtype=F64).item() == 0.1
    assert nncore.tensor([0.1], dtype="float64").item() == 0.1
    assert nncore.tensor([16777217.0], dtype=I64).item() == 16777217
    t = nncore.zeros(2, dtype=F64)
    t.copy_([0.1, 0.2])
    assert t.tolist() == [0.1, 0.2]
    t[0] = 0.3
    t[[1]] = [0.4]
    assert t.tolist() == [0.3, 0.4]
    assert (t == [0.3, 0.4]).tolist() == [True, True]
    assert (t[0] == 0.3).item()
    assert (nncore.zeros(1, dtype=F64) + [0.1]).item() == 0.1
    assert (0.1 + nncore.zeros(1, dtype=F64)).item() == 0.1
    assert nncore.full((1,), 0.1, dtype=F64).item() == 0.1
    assert nncore.zeros(1, dtype=F64).fill_(0.1).item() == 0.1
    assert nncore.where([True], nncore.zeros(1, dtype=F64) + 1, 0.1).dtype == F64


def test_float_to_integer_truncates():
    a = np.array([-2.7, -0.5, 0.5, 2.7])
    assert nncore.tensor(a).long().tolist() == [-2, 0, 0, 2]
    assert nncore.tensor(a).bool().tolist() == [True] * 4
    assert nncore.tensor([0.0, -0.0, float("nan")]).bool().tolist() == [False, False, True]


def test_large_integers_survive():
    big = [2**62 + 1, -(2**62) - 1, 2**53 + 1]
    t = nncore.tensor(big)
    assert t.tolist() == big
    assert t[[2, 0]].tolist() == [big[2], big[0]]
    assert t.clone().tolist() == big
    assert nncore.cat([t, t[:1]]).tolist() == [*big, big[0]]
    assert t.fill_(big[0]).tolist() == [big[0]] * 3


def test_tensor_copies_and_from_numpy_shares():
    a = np.zeros(3, F32)
    t, s = nncore.tensor(a), nncore.from_numpy(a)
    a[1] = 5
    assert t.tolist() == [0.0, 0.0, 0.0]
    assert s.tolist() == [0.0, 5.0, 0.0]
    s[0] = 2.0
    assert a.tolist() == [2.0, 5.0, 0.0]
    u = nncore.tensor(s)
    s[2] = 9.0
    assert u.tolist() == [2.0, 5.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_numpy_layouts(rng, dtype):
    a = array(rng, (4, 6), dtype)
    for v in (a.T, a[::2], a[:, ::-1], a[1:, 3:], a[:0], np.broadcast_to(a[0], (3, 6)), a[2, 3, ...]):
        v = np.asarray(v)
        t = nncore.from_numpy(v)
        same(t, v)
        assert np.shares_memory(t.numpy(), a) or v.size == 0
        same(t.clone(), v)


def test_from_numpy_read_only():
    a = np.arange(3.0)
    a.flags.writeable = False
    t = nncore.from_numpy(a)
    for write in (lambda: t.fill_(1), lambda: t.__setitem__(0, 1), lambda: t.__setitem__([0], 1), lambda: t.add_(1)):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert not t.numpy().flags.writeable
    assert a.tolist() == [0.0, 1.0, 2.0]


def test_unaligned_and_structured_arrays():
    raw = np.zeros(3, np.dtype([("pad", np.int8), ("x", np.float32)]))
    raw["x"] = [1, 2, 3]
    assert nncore.tensor(raw["x"]).tolist() == [1.0, 2.0, 3.0]
    assert (nncore.zeros(3) + raw["x"]).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="array"):
        nncore.from_numpy(raw["x"])


def test_creation():
    same(nncore.zeros(2, 3), np.zeros((2, 3), F32))
    same(nncore.zeros((2, 3), dtype=I64), np.zeros((2, 3), I64))
    same(nncore.ones([2], dtype="bool"), np.ones(2, bool))
    same(nncore.full((2, 1), 2.5, dtype=F64), np.full((2, 1), 2.5))
    same(nncore.zeros(), np.zeros((), F32))
    same(nncore.zeros_like(nncore.ones(2, dtype=I64)), np.zeros(2, I64))
    same(nncore.ones_like(nncore.zeros(2, 3), dtype=F64), np.ones((2, 3)))
    same(nncore.arange(3), np.arange(3))
    same(nncore.arange(1, 2, 0.25), np.arange(1, 2, 0.25, dtype=F32))
    same(nncore.arange(5, 0, -2), np.arange(5, 0, -2))
    same(nncore.arange(3, dtype=F64), np.arange(3.0))
    same(nncore.arange(3.0), np.arange(3, dtype=F32))
    assert nncore.empty(2, 0).shape == (2, 0)
    assert nncore.zeros(2, requires_grad=True).requires_grad
    assert nncore.ones(2, requires_grad=True).is_leaf
    assert nncore.tensor([1.0], requires_grad=True).requires_grad
    assert nncore.rand(2, 3).dtype == F32
    assert nncore.randn(2, dtype=F64).dtype == F64
    assert sorted(nncore.randperm(9).tolist()) == list(range(9))


# ---- views of NumPy ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_round_trip(rng, shape, dtype):
    a = array(rng, shape, dtype)
    t = nncore.tensor(a)
    same(t, a)
    assert t.ndim == t.dim() == a.ndim
    assert t.numel() == a.size
    assert t.size() == a.shape
    assert t.element_size() == a.itemsize
    assert [t.size(i) for i in range(a.ndim)] == list(a.shape)
    assert np.asarray(t).dtype == a.dtype
    assert t.tolist() == a.tolist()
    assert t.is_contiguous()


def test_numpy_shares_memory():
    t = nncore.zeros(2, 2)
    a = t.numpy()
    a[0, 1] = 3
    t[1] = 4.0
    assert t.tolist() == a.tolist() == [[0.0, 3.0], [4.0, 4.0]]
    assert np.asarray(t).base is not None
    b = np.array(t)
    b[...] = 9
    assert t[0, 0].item() == 0.0
    assert np.asarray(t, dtype=F64).dtype == F64


def test_parameters_arrays_are_read_only():
    p = nncore.nn.Parameter([[1.0, 2.0]])
    for t in (p, p.detach(), p.detach().T, p.detach()[0]):
        assert not t.numpy().flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            t.numpy()[...] = 1
    p[0, 0] = 5.0
    assert p.numpy()[0, 0] == 5.0  # an old view would see it as well: it is the same memory


def test_buffer_protocol():
    t = nncore.tensor([[1.0, 2.0], [3.0, 4.0]])
    m = memoryview(t)
    assert (m.format, m.shape, m.strides, m.readonly) == ("f", (2, 2), (8, 4), False)
    assert bytes(t.T) == np.asarray(t.T).tobytes()
    m = memoryview(t.T)
    assert (m.shape, m.strides) == ((2, 2), (4, 8))
    assert b"".join([t]) == np.asarray(t).tobytes()
    for view in (t.T, t[:, 0], nncore.zeros(1).expand(1000)):  # a flat request cannot be met: no bytes beyond the end
        with pytest.raises((BufferError, TypeError)):
            b"".join([view])


# ---- memory lifetime ----


def test_views_outlive_their_base():
    t = nncore.tensor(np.arange(1000.0))
    view, array_ = t[10:20], t.numpy()
    del t
    gc.collect()
    junk = [nncore.full((1000,), -1.0, dtype=F64) for _ in range(10)]
    assert view.tolist() == list(np.arange(10.0, 20.0))
    assert array_.tolist() == list(np.arange(1000.0))
    del junk


def test_array_outlives_tensor_and_tensor_outlives_array():
    a = nncore.full((1000,), 7.0).numpy()
    t = nncore.from_numpy(np.full(1000, 8.0))
    gc.collect()
    junk = [(nncore.zeros(1000), np.zeros(1000)) for _ in range(10)]
    assert (a == 7).all()
    assert (t.numpy() == 8).all()
    del junk


def test_memory_is_returned():
    gc.collect()
    before = nncore.memory_stats()["in_use"]
    t = nncore.zeros(100_000)
    views = [t[i:] for i in range(50)]
    a = t.numpy()
    assert nncore.memory_stats()["in_use"] >= before + 400_000
    del t, views
    assert nncore.memory_stats()["in_use"] >= before + 400_000
    del a
    assert nncore.memory_stats()["in_use"] == before


# ---- indexing ----


def random_key(rng, shape, arrays):
    """A random index for a shape: integers, slices, None, Ellipsis and, if wanted, integer or bool arrays."""
    key, ellipsis_at = [], rng.integers(-4, len(shape) + 1)
    common = rng.integers(1, 4)
    for d, n in enumerate(shape):
        if d == ellipsis_at:
            key.append(Ellipsis)
            d_end = rng.integers(d, len(shape) + 1)
            for m in shape[d_end:]:
                key.append(entry(rng, m, arrays, common))
            return tuple(key)
        if rng.random() < 0.15:
            key.append(None)
        if rng.random() < 0.1:
            break
        key.append(entry(rng, n, arrays, common))
    return tuple(key)


def entry(rng, n, arrays, common):
    kind = rng.integers(0, 6 if arrays else 3)
    if kind == 0 and n:
        return int(rng.integers(-n, n))
    if kind <= 2 or not n:
        start, stop = (None if rng.random() < 0.3 else int(v) for v in rng.integers(-n - 2, n + 3, 2))
        return slice(start, stop, [None, 1, 2, -1, -2, 3][rng.integers(0, 6)])
    if kind == 3:
        return rng.integers(-n, n, common)
    if kind == 4:
        return rng.integers(-n, n, (2, common)).tolist()
    mask = np.zeros(n, bool)
    mask[rng.permutation(n)[: min(common, n)]] = True
    return mask if mask.sum() == common else rng.integers(-n, n, common)


def as_tensors(key):
    return tuple(nncore.tensor(k) if isinstance(k, np.ndarray) else k for k in key)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arrays", [False, True])
def test_random_indices(rng, dtype, arrays):
    checked = 0
    for _ in range(600):
        shape = tuple(rng.integers(0, 5, rng.integers(1, 5)))
        a = array(rng, shape, dtype)
        key = random_key(rng, shape, arrays)
        t = nncore.tensor(a)
        if rng.random() < 0.5:  # a view with other strides
            a, t = a.T, t.T
            key = random_key(rng, a.shape, arrays)
        want = a[key]
        same(t[key], want)
        if arrays:
            same(t[as_tensors(key)], want)
        checked += want.size > 0
    assert checked > 200


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("arrays", [False, True])
def test_random_assignments(rng, dtype, arrays):
    checked = 0
    for _ in range(600):
        shape = tuple(rng.integers(0, 5, rng.integers(1, 5)))
        a = array(rng, shape, dtype)
        t = nncore.tensor(a)
        if rng.random() < 0.5:
            a, t = a.T, t.T
        key = random_key(rng, a.shape, arrays)
        target = a[key]
        part = target.shape[rng.integers(0, target.ndim + 1) :]
        part = tuple(1 if rng.random() < 0.3 else n for n in part)  # broadcast
        value = array(rng, part, dtype) + 10
        if rng.random() < 0.3:
            value = value.ravel()[0] if value.size else dtype.type(10)
        before = a.copy()
        a[key] = value
        t[key] = value if rng.random() < 0.5 else nncore.tensor(value)
        same(t, a)
        checked += not np.array_equal(before, a)
    assert checked > 200


@pytest.mark.parametrize("dtype", [I64, BOOL])
def test_assignment_to_integers(rng, dtype):
    for _ in range(100):
        a = array(rng, (3, 4, 2), dtype)
        t, key = nncore.tensor(a), random_key(rng, a.shape, False)
        value = array(rng, a[key].shape, dtype)
        a[key] = value
        t[key] = value
        same(t, a)
    with pytest.raises(TypeError, match="index"):
        t[[0, 1]] = 1


def test_repeated_indices_in_assignment():
    """The last one wins, as NumPy's."""
    a = np.zeros(3)
    t = nncore.tensor(a)
    a[[0, 1, 0]] = [1, 2, 3]
    t[[0, 1, 0]] = [1, 2, 3]
    same(t, a)


def test_overlapping_assignment():
    """The value is read as if before anything was written."""
    for move in (
        lambda x: x.__setitem__(slice(1, None), x[:-1]), lambda x: x.__setitem__(slice(None, -1), x[1:]),
        lambda x: x.__setitem__(slice(None), x[::-1]), lambda x: x.__setitem__(np.arange(50) // 2, x),
    ):  # fmt: skip
        a = np.arange(50.0)
        t = nncore.tensor(a)
        move(a)
        move(t)
        same(t, a)
    m = nncore.tensor(np.arange(64.0).reshape(8, 8))
    m.copy_(m.T)
    assert m.tolist() == np.arange(64.0).reshape(8, 8).T.tolist()
    m[...] = m
    assert m.tolist() == np.arange(64.0).reshape(8, 8).T.tolist()


@pytest.mark.parametrize(
    "key",
    [
        4,
        -5,
        (0, 3),
        (0, 0, 0),
        [4],
        [[-5]],
        (slice(None), [3]),
        (..., ...),
        1.0,
        "a",
        ([0, 1], [0, 1, 2]),
        np.zeros(3, bool),
        [0.5],
    ],
)
def test_wrong_indices(key):
    a, t = np.zeros((4, 3)), nncore.zeros(4, 3)
    with pytest.raises(IndexError):
        a[key]
    with pytest.raises(IndexError):
        t[key]
    with pytest.raises(IndexError):
        t[key] = 1.0
    assert not t.numpy().any()


def test_floating_tensors_are_no_indices():
    with pytest.raises(IndexError, match="int64 or bool"):
        nncore.zeros(3)[nncore.zeros(2)]
    with pytest.raises(TypeError):
        [1, 2, 3][nncore.tensor(1.0)]
    assert [1, 2, 3][nncore.tensor(1)] == 2


def test_views_share_memory():
    t = nncore.tensor(np.arange(24.0).reshape(2, 3, 4))
    for v in (
        t[1],
        t[:, 1:],
        t[..., ::2],
        t[None],
        t[::-1],
        t.T,
        t.transpose(0, 1),
        t.permute(1, 2, 0),
        t.reshape(6, 4),
        t.view(-1),
        t.flatten(),
        t.unsqueeze(0),
        t.squeeze(),
        t.expand(5, 2, 3, 4),
        t.detach(),
        *t.split(1),
        t.t() if t.ndim < 3 else t,
    ):
        assert v._storage is t._storage
    v = t[1]
    v[0, 0] = -1.0
    assert t[1, 0, 0].item() == -1.0
    assert t[[1]]._storage is not t._storage
    assert t.clone()._storage is not t._storage
    assert t.T.reshape(-1)._storage is not t._storage


# ---- shapes ----


def test_reshape():
    a = np.arange(24.0).reshape(2, 3, 4)
    t = nncore.tensor(a)
    for shape in [(24,), (-1,), (6, -1), (2, 3, 4), (4, 1, 6), (1, 24, 1)]:
        same(t.reshape(shape), a.reshape(shape))
        same(t.view(*shape), a.reshape(shape))
        same(nncore.reshape(t.T, shape), a.T.reshape(shape))
    same(nncore.zeros(0, 3).reshape(3, 0), np.zeros((3, 0), F32))
    same(nncore.zeros(0, 3).reshape(-1, 3), np.zeros((0, 3), F32))
    same(nncore.ones(1).reshape(()), np.ones((), F32))
    for bad in [(5,), (-1, 5), (-1, -1), (-2, 12), (24, 0)]:
        with pytest.raises(ValueError, match="shape"):
            t.reshape(bad)
    with pytest.raises(ValueError, match="shape"):
        nncore.zeros(0, 3).reshape(0, -1)


def test_transposes():
    a = np.arange(24.0).reshape(2, 3, 4)
    t = nncore.tensor(a)
    same(t.T, a.T)
    same(t.permute(2, 0, 1), a.transpose(2, 0, 1))
    same(t.permute((-1, 0, 1)), a.transpose(2, 0, 1))
    same(t.transpose(0, -1), a.swapaxes(0, -1))
    same(t[0].t(), a[0].T)
    same(t[0, 0].t(), a[0, 0])
    same(nncore.tensor(1.0).T, np.float32(1).reshape(()))
    assert not t.T.is_contiguous()
    same(t.T.contiguous(), a.T)
    assert t.contiguous() is t
    assert t.strides == (12, 4, 1)
    for bad in [(0, 1), (0, 0, 1), (0, 1, 1, 2)]:
        with pytest.raises(ValueError, match="dims"):
            t.permute(bad)
    with pytest.raises(IndexError, match="dim1"):
        t.transpose(0, 3)


def test_expand_squeeze_flatten():
    a = np.arange(3.0).reshape(3, 1)
    t = nncore.tensor(a)
    same(t.expand(2, 3, 4), np.broadcast_to(a, (2, 3, 4)))
    same(t.expand(-1, 2), np.broadcast_to(a, (3, 2)))
    same(t.expand(3, 0), np.zeros((3, 0)))
    same(t.squeeze(), a.squeeze())
    same(t.squeeze(0), a)
    same(t.squeeze(-1), a[:, 0])
    same(t.unsqueeze(0), a[None])
    same(t.unsqueeze(-1), a[..., None])
    same(nncore.tensor(1.0).unsqueeze(0), np.ones(1, F32))
    same(nncore.zeros(2, 3, 4).flatten(1), np.zeros((2, 12), F32))
    same(nncore.zeros(2, 3, 4).flatten(0, 1), np.zeros((6, 4), F32))
    same(nncore.tensor(1.0).flatten(), np.ones(1, F32))
    for bad in [(2,), (2, 2), (-1, 3, 1), (4, 3, -2)]:
        with pytest.raises(ValueError, match="shape"):
            t.expand(bad)
    with pytest.raises(ValueError, match="start_dim"):
        nncore.zeros(2, 3).flatten(1, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_joining_and_splitting(rng, dtype):
    a, b = array(rng, (2, 3), dtype), array(rng, (2, 1), dtype)
    s, t = nncore.tensor(a), nncore.tensor(b)
    same(nncore.cat([s, t, s], 1), np.concatenate([a, b, a], 1))
    same(nncore.cat([s.T, t.T], -2), np.concatenate([a.T, b.T], 0))
    same(nncore.cat([s, s[:0]]), a)
    same(nncore.stack([s, s], 1), np.stack([a, a], 1))
    same(nncore.stack([s, s], -1), np.stack([a, a], -1))
    for got, want in zip(s.split(2, 1), np.split(a, [2], 1), strict=True):
        same(got, want)
    for got, want in zip(nncore.split(s, [1, 0, 2], -1), np.split(a, [1, 1], 1), strict=True):
        same(got, want)
    assert [p.shape for p in nncore.zeros(5, 2).split(2)] == [(2, 2), (2, 2), (1, 2)]


# ---- reductions ----


AXES = [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2), ()]


@pytest.mark.parametrize("dim", AXES)
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "max", "min"])
def test_reductions(rng, name, dim):
    if name in ("max", "min") and isinstance(dim, tuple):
        with pytest.raises(TypeError, match="dim"):
            getattr(nncore.zeros(2, 2, 2), name)(dim)
        return
    a = rng.standard_normal((4, 3, 5))
    for view in (lambda x: x, lambda x: x.T, lambda x: x[::2, :, ::-1]):
        x, t = view(a), view(nncore.tensor(a))
        for keep in (False, True):
            extra = {"ddof": 1} if name in ("var", "std") else {}
            if dim == () and name in ("var", "std"):
                continue  # deviation of one number: NaN, tested below
            want = np.asarray(getattr(np, name)(x, axis=dim, keepdims=keep, **extra))
            got = getattr(t, name)(dim, keepdim=keep)
            if name in ("max", "min") and dim is not None:
                got, index = got
                arg = getattr(np, f"arg{name}")(x, axis=dim)
                same(index, np.expand_dims(arg, dim) if keep else arg)
                same(getattr(t, f"arg{name}")(dim, keepdim=keep), np.expand_dims(arg, dim) if keep else arg)
            if name in ("max", "min") and dim is None and keep:
                continue  # over all elements keepdim has no meaning, as torch's max()
            assert got.shape == want.shape
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-13, atol=1e-14)
    if dim is None and name in ("max", "min"):
        assert getattr(nncore.tensor(a), f"arg{name}")().item() == getattr(np, f"arg{name}")(a)


def test_axis_order_does_not_matter():
    t = nncore.tensor(np.arange(24.0).reshape(2, 3, 4))
    assert t.sum((0, -1)).tolist() == t.sum([2, 0]).tolist()
    with pytest.raises(ValueError, match="dim"):
        t.sum((0, -3))


@pytest.mark.parametrize("dtype", [I64, BOOL])
def test_integer_sums(rng, dtype):
    a = array(rng, (3, 4), dtype)
    same(nncore.tensor(a).sum(), np.asarray(a.sum()))
    same(nncore.tensor(a).sum(1), a.sum(1))
    same(nncore.tensor(a).sum(0, keepdim=True), a.sum(0, keepdims=True))


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_and_nan_in_extremes(name):
    """The first of equals, and NaN beats everything (the first NaN), as NumPy's and torch's."""
    nan = float("nan")
    a = np.array([[1.0, 3, 3, 1], [nan, 1, 2, nan], [2, 2, nan, 0], [-math.inf, math.inf, math.inf, -math.inf]])
    for x, t in ((a, nncore.tensor(a)), (a.T, nncore.tensor(a).T), (np.tile(a, 9), nncore.tensor(np.tile(a, 9)))):
        for d in (0, 1):
            values, index = getattr(t, name)(d)
            same(values, getattr(np, name)(x, axis=d))
            same(index, getattr(np, f"arg{name}")(x, axis=d))
    assert math.isnan(getattr(nncore.tensor(a), name)().item())
    assert getattr(nncore.tensor(a), f"arg{name}")().item() == 4


def test_nan_in_sums():
    t = nncore.tensor([[1.0, float("nan")], [1.0, 2.0], [math.inf, -math.inf]])
    assert [math.isnan(v) for v in t.sum(1).tolist()] == [True, False, True]
    assert math.isnan(t.mean().item())


def test_empty_reductions():
    t = nncore.zeros(0, 3)
    same(t.sum(), np.zeros((), F32))
    same(t.sum(0), np.zeros(3, F32))
    same(t.sum(1), np.zeros(0, F32))
    same(t.mean(1), np.zeros(0, F32))
    same(t.max(1)[0], np.zeros(0, F32))
    assert math.isnan(t.mean().item())
    assert all(math.isnan(v) for v in t.mean(0).tolist())
    assert all(math.isnan(v) for v in t.var(0).tolist())
    for fn in (lambda: t.max(), lambda: t.max(0), lambda: t.argmin(), lambda: t.argmax(0)):
        with pytest.raises(ValueError, match="input"):
            fn()
    assert math.isnan(nncore.tensor(1.0).var().item())
    assert nncore.tensor(2.0).std(correction=0).item() == 0.0


def test_reductions_of_zero_dimensions():
    t = nncore.tensor(2.5)
    assert t.sum().item() == t.sum(0).item() == t.sum(-1).item() == t.mean().item() == t.max().item() == 2.5
    values, index = t.max(0)
    assert (values.item(), index.item(), values.shape) == (2.5, 0, ())
    assert t.argmax().item() == t.argmax(0).item() == 0
    with pytest.raises(IndexError, match="dim"):
        t.sum(1)


# ---- comparisons ----


COMPARISONS = ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_comparisons(rng, op, dtype):
    a, b = array(rng, (3, 4), dtype), array(rng, (4,), dtype)
    s, t = nncore.tensor(a), nncore.tensor(b)
    want = getattr(a, op)(b)
    same(getattr(s, op)(t), want)
    same(getattr(s.T, op)(t[:3]), getattr(a.T, op)(b[:3]))
    same(getattr(s, op)(b), want)
    same(getattr(s, op)(b.tolist()), want)
    for scalar in (0, 1, 0.5, -1.5, True, np.float32(1), np.int64(2)):
        same(getattr(s, op)(scalar), getattr(a, op)(scalar))
    assert not getattr(s, op)(t).requires_grad


def test_reflected_comparisons():
    t = nncore.tensor([1.0, 2.0, 3.0])
    assert (t > 2).tolist() == [False, False, True]
    assert (np.array([3.0, 2.0, 1.0]) >= t).tolist() == [True, True, False]
    assert (t == [1.0, 0.0, 3.0]).tolist() == [True, False, True]


def test_comparisons_with_nan_and_infinity():
    nan, inf = float("nan"), math.inf
    a = np.array([nan, nan, inf, -inf, 1.0, 0.0])
    b = np.array([nan, 1.0, inf, inf, nan, -0.0])
    for op in COMPARISONS:
        for dtype in (F32, F64):
            x, y = a.astype(dtype), b.astype(dtype)
            same(getattr(nncore.tensor(x), op)(nncore.tensor(y)), getattr(x, op)(y))


def test_comparisons_of_kinds():
    i, f = nncore.tensor([1, 2, 3]), nncore.tensor([1.0, 2.5, 3.0])
    assert (i == f).tolist() == [True, False, True]
    assert (f > i).tolist() == [False, True, False]
    assert (nncore.tensor([True, False]) == nncore.tensor([1, 1])).tolist() == [True, False]
    assert (nncore.tensor([2**52 + 1]) > 2**52).tolist() == [True]
    assert (f == "x") is False
    assert (f != None) is True  # noqa: E711
    with pytest.raises(TypeError, match="float32"):
        f == f.double()  # noqa: B015
    with pytest.raises(TypeError):
        f < "x"  # noqa: B015


# ---- operators ----


def test_operators_with_arrays_on_either_side(rng):
    a, b = rng.standard_normal((3, 4)).astype(F32), rng.uniform(1, 2, (3, 4)).astype(F32)
    s = nncore.tensor(b)
    for name in ("add", "sub", "mul", "truediv", "pow"):
        left, right = f"__{name}__", f"__r{name}__"
        base = np.abs(a) if name == "pow" else a
        for other in (base, nncore.tensor(base), base.astype(F64), base.tolist()):
            got = getattr(s, left)(other)
            assert isinstance(got, Tensor)
            assert got.dtype == F32
            np.testing.assert_allclose(got.numpy(), getattr(b, left)(base), rtol=1e-6)
        np.testing.assert_allclose(getattr(s, right)(base).numpy(), getattr(base, left)(b), rtol=1e-6)
    for got in (
        a + s,
        a * s,
        a - s,
        a / s,
        a @ s.T,
        2 * s,
        np.float32(2) * s,
        np.float64(2) * s,
        np.int64(2) * s,
        [1.0] * 4 + s,
    ):
        assert isinstance(got, Tensor)
        assert got.dtype == F32
    np.testing.assert_allclose((a - s).numpy(), a - b, rtol=1e-6)
    np.testing.assert_allclose((a / s).numpy(), a / b, rtol=1e-6)
    np.testing.assert_allclose((a @ s.T).numpy(), a @ b.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((np.float64(3) / s).numpy(), 3 / b, rtol=1e-6)
    np.testing.assert_allclose((2 - s).numpy(), 2 - b, rtol=1e-6)
    np.testing.assert_allclose((-s).numpy(), -b)
    np.testing.assert_allclose(abs(nncore.tensor(a)).numpy(), np.abs(a))


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("scalar", [2, 2.5, True, np.float32(0.5), np.int64(3)])
def test_scalars_keep_the_dtype(dtype, scalar):
    t = nncore.tensor(np.array([1.0, 2.0], dtype))
    for got in (
        t + scalar,
        scalar + t,
        t * scalar,
        t - scalar,
        scalar - t,
        t / scalar,
        scalar / t,
        t**scalar,
        t.add(scalar, alpha=2),
    ):
        assert got.dtype == dtype
    assert (t + scalar).tolist() == [1.0 + float(scalar), 2.0 + float(scalar)]


def test_division_by_a_scalar_is_division():
    """Not multiplication by the reciprocal: x / 3 has the bits of NumPy's."""
    a = np.arange(1, 200, dtype=F32)
    same(nncore.tensor(a) / 3, a / F32.type(3))


def test_dtypes_do_not_mix():
    x, y, i = nncore.ones(2), nncore.ones(2, dtype=F64), nncore.ones(2, dtype=I64)
    for op in (
        lambda: x + y,
        lambda: x * y,
        lambda: x @ y,
        lambda: x.maximum(y),
        lambda: x + i,
        lambda: nncore.cat([x, y]),
    ):
        with pytest.raises(TypeError, match="dtype"):
            op()
    with pytest.raises(TypeError, match="float"):
        i + 1
    with pytest.raises(TypeError, match="float"):
        i.exp()


def test_foreign_operands_are_left_to_their_class():
    class Odd:
        def __radd__(self, other):
            return "mine"

    assert nncore.ones(1) + Odd() == "mine"
    for op in (lambda t: t + "a", lambda t: t * None, lambda t: {} - t):
        with pytest.raises(TypeError):
            op(nncore.ones(1))


def test_augmented_assignment_writes_in_place():
    t = nncore.tensor([1.0, 2.0])
    same_object, view = t, t[:1]
    t += 1
    t -= [0.5, 0.5]
    t *= nncore.tensor([2.0, 4.0])
    t /= 2
    assert t is same_object
    assert t.tolist() == [1.5, 5.0]
    assert view.tolist() == [1.5]
    with pytest.raises(ValueError, match="broadcast"):
        view += nncore.ones(3)


def test_broadcast_error_names_the_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2,\)"):
        nncore.ones(2, 3) + nncore.ones(2)


@pytest.mark.parametrize(
    "s, t",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((1, 2, 3), (5, 3, 4)),
        ((2, 1, 2, 3), (5, 3, 4)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
        ((2, 3), (3, 0)),
        ((0, 2, 3), (3, 4)),
        ((0, 2, 3), (0, 3, 4)),
        ((1, 2, 3), (0, 3, 4)),
        ((7, 0), (0,)),
        ((0,), (0,)),
    ],
)
def test_matmul_shapes(rng, s, t, isa):
    a, b = rng.standard_normal(s), rng.standard_normal(t)
    got, want = nncore.tensor(a) @ nncore.tensor(b), np.asarray(a @ b)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-13, atol=1e-13)


# ---- items, truth, text, copies ----


def test_item():
    assert nncore.tensor([[2.5]]).item() == 2.5
    assert type(nncore.tensor(1).item()) is int
    assert type(nncore.tensor(1.0).item()) is float
    assert nncore.tensor(True).item() is True
    assert float(nncore.tensor([1.5])) == 1.5
    assert int(nncore.tensor(1.7)) == 1
    assert nncore.tensor([[1, 2]])[0, 1].item() == 2
    for fn in (lambda t: t.item(), float, int, bool):
        with pytest.raises(ValueError, match=r"shape|ambiguous"):
            fn(nncore.ones(2))
        with pytest.raises(ValueError, match=r"shape|ambiguous"):
            fn(nncore.ones(0))


def test_truth():
    assert nncore.tensor(2.0)
    assert not nncore.tensor([0.0])
    assert nncore.tensor(True)
    assert bool(nncore.tensor(float("nan")))


def test_iteration_and_length():
    t = nncore.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(t) == 2
    assert [row.tolist() for row in t] == t.tolist()
    assert len(nncore.zeros(0, 3)) == 0
    assert list(nncore.zeros(0, 3)) == []
    for fn in (len, list):
        with pytest.raises(TypeError, match="without dimensions"):
            fn(nncore.tensor(1.0))
    assert {t: 1}[t] == 1  # hashed by identity


@pytest.mark.parametrize(
    "t, text",
    [
        (lambda: nncore.tensor(1.5), "tensor(1.5)"),
        (lambda: nncore.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: nncore.tensor([True]), "tensor([ True], dtype=bool)"),
        (lambda: nncore.tensor([1.0], dtype=F64), "tensor([1.], dtype=float64)"),
        (lambda: nncore.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: nncore.tensor([1.0], requires_grad=True).exp(), "tensor([2.7182817], grad_fn=exp)"),
        (lambda: nncore.nn.Parameter([1.0]), "Parameter(tensor([1.], requires_grad=True))"),
        (lambda: nncore.zeros(2, 2), "tensor([[0., 0.],\n        [0., 0.]])"),
    ],
)
def test_repr(t, text):
    assert repr(t()) == text


def test_repr_of_large_tensors_is_short():
    assert len(repr(nncore.zeros(1000, 1000))) < 1000
    assert "..." in repr(nncore.zeros(5000))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies(rng, dtype, how):
    a = array(rng, (3, 4), dtype)
    for t in (nncore.tensor(a), nncore.tensor(a).T, nncore.tensor(a)[:, 1], nncore.tensor(a)[:0]):
        c = how(t)
        assert type(c) is Tensor
        same(c, t.numpy())
        assert c._storage is not t._storage
    if dtype in (F32, F64):
        w = nncore.tensor(a, requires_grad=True)
        assert how(w).requires_grad
        p = how(nncore.nn.Parameter(a))
        assert type(p) is nncore.nn.Parameter
        assert not p.numpy().flags.writeable
        assert p.requires_grad
        assert not how(nncore.nn.Parameter(a, requires_grad=False)).requires_grad


def test_deepcopy_copies_gradients_and_keeps_sharing():
    w = nncore.tensor([1.0], requires_grad=True)
    (w * 2).backward()
    a, b = copy.deepcopy([w, w])
    assert a is b
    assert a.grad.item() == 2.0
    a.grad.zero_()
    assert w.grad.item() == 2.0


# ---- writing ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_methods(dtype):
    t = nncore.zeros(2, 3, dtype=dtype)
    assert t.copy_([1, 0, 1]) is t
    same(t, np.array([[1, 0, 1]] * 2, dtype))
    assert t.fill_(1) is t
    same(t, np.ones((2, 3), dtype))
    assert t.zero_() is t
    same(t, np.zeros((2, 3), dtype))
    t.copy_(nncore.ones(2, 1, dtype=F64))
    same(t, np.ones((2, 3), dtype))
    for bad in (nncore.ones(2), np.ones((3, 2)), np.ones((1, 2, 3))):
        with pytest.raises(ValueError, match="value"):
            t.copy_(bad)
    with pytest.raises(TypeError, match="value"):
        t.fill_("1")


def test_grad_attribute():
    w = nncore.tensor([1.0, 2.0], requires_grad=True)
    w.grad = nncore.ones(2)
    (w * 2).backward([1.0, 1.0])
    assert w.grad.tolist() == [3.0, 3.0]
    with pytest.raises(TypeError, match="grad"):
        w.grad = np.ones(2, F32)
    with pytest.raises(ValueError, match="grad"):
        w.grad = nncore.ones(3)
    with pytest.raises(ValueError, match="grad"):
        w.grad = nncore.ones(2, dtype=F64)
    w.grad = None
    assert w.grad is None


def test_dimensions_are_limited_to_eight():
    t = nncore.zeros(*[1] * 8)
    for fn in (
        lambda: nncore.zeros(*[1] * 9),
        lambda: t.unsqueeze(0),
        lambda: t[None],
        lambda: nncore.stack([t]),
        lambda: t.expand(*[1] * 9),
        lambda: t.reshape(*[1] * 9),
        lambda: nncore.tensor(np.zeros((1,) * 9)),
        lambda: nncore.from_numpy(np.zeros((1,) * 9)),
        lambda: t[np.zeros((1, 1), int)],
        lambda: t[:, np.zeros((1, 1), int)],
        lambda: t + np.zeros((1,) * 9),
    ):
        with pytest.raises(ValueError, match=r"at most 8|8 are possible"):
            fn()


def test_softmax_edges():
    x = nncore.tensor([[1000.0, 1000.0, -1000.0], [0.0, -math.inf, 0.0]])
    assert x.softmax().tolist() == [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]
    assert x.softmax(0).shape == (2, 3)
    np.testing.assert_allclose(x.log_softmax()[0].numpy(), [-math.log(2), -math.log(2), -2000 - math.log(2)], rtol=1e-6)
    assert nncore.zeros(0, 3).softmax().shape == (0, 3)
    assert nncore.zeros(3, 0).softmax().shape == (3, 0)
    assert np.isnan(nncore.tensor([float("nan"), 1.0]).softmax().numpy()).all()


def test_nan_passes_through():
    nan = nncore.tensor([float("nan")])
    for fn in (
        Tensor.relu,
        Tensor.abs,
        Tensor.tanh,
        Tensor.sigmoid,
        Tensor.exp,
        Tensor.log,
        Tensor.sqrt,
        Tensor.square,
        Tensor.neg,
    ):
        assert math.isnan(fn(nan).item()), fn
    assert math.isnan(nan.clamp(0, 1).item())
    assert math.isnan(nan.maximum(nncore.ones(1)).item())
    assert math.isnan(nncore.ones(1).minimum(nan).item())
    assert math.isnan((nan * 0).item())


def test_random_numbers_are_written_into_views_only():
    """Writing a slice leaves its surroundings alone."""
    t = nncore.zeros(4, 5)
    with no_grad():
        nncore.nn.init.normal_(t[1:3, ::2])
    assert (t.numpy()[1:3, ::2] != 0).all()
    assert not t.numpy()[[0, 3]].any()
    assert not t.numpy()[:, 1::2].any()
