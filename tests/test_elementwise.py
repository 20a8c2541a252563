"""Elementwise operations and copies between types: every op of csrc/ops.def against its oracle, in every layout."""

import functools
import itertools
import math

import numpy as np
import pytest

from nncore._core import elementwise, runtime, tensor

from . import reference, shapes, tolerance

DTYPES, dtype_code, from_array = tensor.DTYPES, tensor.dtype_code, tensor.from_array

ALL = sorted(reference.OPS)
SCALARS = dict.fromkeys(
    ("clamp", "clamp_backward", "hardtanh_backward"), (-0.5, 0.75)
)  # (s, t) where (1.3, 0.4) will not do
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, np.inf, -np.inf, np.nan)
LARGE = (1e30, -1e30, 1e-30, -1e-30, 88.0, -88.0, 3e38, 1.2e-38)  # for one operand: the range of float32


def run(name, *operands, s=None, t=None, out=None):
    """The op on arrays; s and t as SCALARS says."""
    x = [from_array(o) for o in operands] + [None] * (3 - len(operands))
    given = scalars(name)
    y = elementwise.ewise(runtime.OPS[name], *x, given[0] if s is None else s, given[1] if t is None else t, out)
    return np.asarray(y)


def scalars(name):
    return SCALARS.get(name, (1.3, 0.4))


def arity(name):
    return max(1, runtime.OP_ARITY[name])


def check(name, operands, s=None, t=None):
    given = scalars(name)
    s, t = given[0] if s is None else s, given[1] if t is None else t
    y = reference.elementwise(name, operands, s, t)
    tolerance.close(
        run(name, *operands, s=s, t=t), y, tolerance.elementwise(name, y, operands, s, t), f"{name}({s}, {t})"
    )


def numbers(rng, n, count, dtype):
    """Normal numbers, some of them equal to each other, some zero; no denormals."""
    x = [rng.standard_normal(n).astype(dtype) for _ in range(count)]
    for v in x[1:]:
        same = rng.random(n) < 0.1
        v[same] = x[0][same]
    for v in x:
        v[rng.random(n) < 0.05] = 0
    return x


def test_every_op_has_an_oracle():
    """A new op fails here until it has an oracle and a bound; reference.py must stand alone."""
    assert set(runtime.OPS) == set(reference.OPS) == set(tolerance.ROUNDINGS)
    with open(reference.__file__) as f:
        imports = [line.split() for line in f if line.lstrip().startswith(("import ", "from "))]
    assert imports == [["import", "numpy", "as", "np"]]


@pytest.mark.parametrize("name", ALL)
def test_values(isa, dtype, rng, name):
    """Random numbers, and all combinations of special values, within the rounding that the formula costs."""
    check(name, numbers(rng, 2000, arity(name), dtype))
    check(name, [np.abs(x) for x in numbers(rng, 2000, arity(name), dtype)])
    grid = np.meshgrid(*[np.array(SPECIAL, dtype)] * arity(name))
    check(name, [g.ravel() for g in grid])
    if arity(name) == 1:
        check(name, [np.array(LARGE, dtype)])


@pytest.mark.parametrize("name", ["scale", "add_scalar", "rsub_scalar", "rdiv_scalar", "fill", "mse_backward"])
def test_special_scalars(isa, dtype, name):
    """Scalars that are zero, infinite or NaN."""
    values = [g.ravel() for g in np.meshgrid(*[np.array(SPECIAL, dtype)] * arity(name))]
    for s in SPECIAL:
        for t in (0.0, np.inf, np.nan):
            check(name, values, s, t)


@pytest.mark.parametrize("s", [0.0, -0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -0.5, 2.5, np.inf, -np.inf, np.nan])
def test_powers(isa, dtype, rng, s):
    """C's pow, in all its special cases."""
    x = np.concatenate([np.array(SPECIAL), rng.standard_normal(100)]).astype(dtype)
    check("pow_scalar", [x], s)
    check("pow", [x, np.full_like(x, s)])


@pytest.mark.parametrize("limits", [(-np.inf, 0.5), (0.5, np.inf), (1.0, -1.0), (0.0, 0.0)])
def test_clamp_limits(isa, dtype, limits):
    """Open limits, an empty interval (then the upper limit wins), a point."""
    x = np.array(SPECIAL, dtype)
    low, high = limits
    expected = np.where(np.isnan(x), x, np.minimum(np.maximum(x, dtype.type(low)), dtype.type(high)))
    assert np.array_equal(run("clamp", x, s=low, t=high), expected, equal_nan=True)
    inside = np.where((x >= low) & (x <= high), 1, 0).astype(dtype)
    assert np.array_equal(run("clamp_backward", np.ones_like(x), x, s=low, t=high), inside)


def test_denormals_count_as_zero(isa, dtype):
    """Denormal operands and results are zero, and the caller's own arithmetic keeps its denormals."""
    info = np.finfo(dtype)
    x = np.array([info.tiny / 4, -info.tiny / 4], dtype)
    assert (x != 0).all()
    assert not run("scale", x, s=2.0**10).any()
    assert not run("scale", np.array([info.tiny], dtype), s=0.25).any()
    assert run("sqrt", np.abs(x)).tolist() == [0, 0]
    assert np.array_equal(run("reciprocal", x), [np.inf, -np.inf])
    assert (x * dtype.type(0.5) != 0).all()  # the caller's floating-point state is as it was


@pytest.mark.parametrize("name", ALL)
def test_lengths_and_guards(isa, dtype, rng, name):
    """Rows of any length, in memory of any stride: nothing outside of the result is written, and an element has the
    same bits wherever it stands."""
    _, lanes = shapes.tile(dtype)
    sizes = shapes.lengths(dtype)
    x = numbers(rng, max(sizes), arity(name), dtype)
    whole = run(name, *x)
    for n in sizes:
        for layout in ("row-major", "every second", "backwards"):
            guarded = shapes.Guarded((n,), dtype, layout)
            run(name, *[v[:n] for v in x], out=guarded.tensor)
            guarded.check(f"{name}, {n} elements, {layout}")
            tolerance.same_bits(guarded.array, whole[:n], f"{name}, {n} elements, {layout}")
        shapes.prime((n,), dtype)
        y = elementwise.ewise(
            runtime.OPS[name], *[from_array(v[:n]) for v in x], *[None] * (3 - len(x)), *scalars(name)
        )
        shapes.check_slack(y, name)
        tolerance.same_bits(np.asarray(y), whole[:n], name)
    tolerance.same_bits(run(name, *[v[lanes - 1 :] for v in x]), whole[lanes - 1 :], f"{name}, from another position")


@pytest.mark.parametrize("name", ALL)
def test_layouts(isa, dtype, rng, name):
    """Operands and results of any strides give the bits of row-major ones; operands are only read."""
    shape = (3, 5, 7)
    x = [v.reshape(shape) for v in numbers(rng, 105, arity(name), dtype)]
    y = run(name, *x)
    for layout, make in shapes.LAYOUTS.items():
        z = [make(v) for v in x]
        tolerance.same_bits(run(name, *z), y, f"{name} {layout}")
        for i in range(len(x)):
            tolerance.same_bits(z[i], x[i], f"operand {i} of {name} {layout}")
            one = [*x[:i], z[i], *x[i + 1 :]]
            tolerance.same_bits(run(name, *one), y, f"{name}, operand {i} {layout}")
    for layout in ("column-major", "every second", "backwards", "every third backwards"):
        guarded = shapes.Guarded(shape, dtype, layout)
        run(name, *x, out=guarded.tensor)
        guarded.check(f"{name} into {layout}")
        tolerance.same_bits(guarded.array, y, f"{name} into {layout}")


@pytest.mark.parametrize("name", [n for n in ALL if runtime.OP_ARITY[n] > 1])
def test_broadcasting(isa, dtype, rng, name):
    """Operands with axes of size 1, missing axes, and strides of 0."""
    for forms in (
        ((4, 1, 6), (5, 1), (6,)),
        ((), (3, 300), (1,)),
        ((2, 3), (), (3,)),
        ((1, 1), (4, 1), (1, 9)),
        ((0, 3), (3,), (1, 1)),
    ):
        x = [np.asarray(numbers(rng, int(np.prod(f)), 1, dtype)[0].reshape(f)) for f in forms[: arity(name)]]
        full = [np.ascontiguousarray(v) for v in np.broadcast_arrays(*x)]
        y = run(name, *full)
        tolerance.same_bits(run(name, *x), y, f"{name} {forms}")
        tolerance.same_bits(run(name, *np.broadcast_arrays(*x)), y, f"{name} {forms}, strides of 0")


@pytest.mark.parametrize("name", ALL)
def test_in_place(isa, dtype, rng, name):
    """The result may be one of the operands."""
    for n in (7, 300, shapes.CHUNK + 5):
        x = numbers(rng, n, arity(name), dtype)
        y = run(name, *x)
        for i in range(len(x)):
            z = [v.copy() for v in x]
            run(name, *z, out=from_array(z[i]))
            tolerance.same_bits(z[i], y, f"{name} into operand {i}")


def test_many_dimensions(isa, dtype, rng):
    """8 dimensions, none of which can be merged with its neighbour."""
    base = rng.standard_normal((2, 4, 2, 4, 2, 4, 2, 6)).astype(dtype)
    x = base[:, ::2, :, ::2, :, ::2, :, ::3]
    tolerance.same_bits(run("add", x, x[::-1]), x + x[::-1])
    tolerance.same_bits(run("add", x, x.transpose(6, 7, 4, 5, 2, 3, 0, 1)), x + x.transpose(6, 7, 4, 5, 2, 3, 0, 1))
    with pytest.raises(ValueError, match="at most 8"):
        from_array(np.zeros((1,) * 9, dtype))


@pytest.mark.parametrize("n", shapes.around(shapes.STAGE, shapes.CHUNK, 2 * shapes.CHUNK))
def test_chunks(isa, dtype, rng, n):
    """Lengths around the staging buffer and the parallel chunk, contiguous, staged and broadcast."""
    a, b = numbers(rng, n, 2, dtype)
    for x in (a, shapes.LAYOUTS["every second"](a), shapes.LAYOUTS["backwards"](a)):
        for layout in ("row-major", "every second"):
            guarded = shapes.Guarded((n,), dtype, layout)
            run("sub", x, b, out=guarded.tensor)
            guarded.check(f"{n}")
            tolerance.same_bits(guarded.array, a - b, f"{n}")
    tolerance.same_bits(run("sub", a, b[:1]), a - b[:1])


@pytest.mark.parametrize("name", ALL)
def test_threads(isa, dtype, rng, name):
    """1, 2, 3 and 7 threads give the same bits and all take part: row-major, strided, and summed."""
    n = 4 * shapes.CHUNK + 17
    chunks = -(-n // shapes.CHUNK)
    x = numbers(rng, n, arity(name), dtype)
    strided = [shapes.LAYOUTS["backwards"](v) for v in x]
    runtime.set_num_threads(1)
    y = run(name, *x)
    operands = [from_array(v) for v in x[:2]]
    total = np.asarray(elementwise.ewise_sum(runtime.OPS[name], *operands, s=1.3)) if arity(name) < 3 else None
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(run(name, *x), y, f"{name}, {threads} threads")
        assert runtime.threads_used(True) == min(threads, chunks)
        tolerance.same_bits(run(name, *strided), y, f"{name}, {threads} threads, strided")
        if total is not None:
            runtime.threads_used(True)
            again = np.asarray(elementwise.ewise_sum(runtime.OPS[name], *operands, s=1.3))
            assert runtime.threads_used(True) == min(threads, chunks)
            tolerance.same_bits(again, total, f"sum of {name}, {threads} threads")


@pytest.mark.parametrize("name", [n for n in ALL if runtime.OP_ARITY[n] < 3])
def test_sums(isa, dtype, rng, name):
    """scale * the sum of the op over all elements, of any length and layout; NaN and infinity arrive."""
    _, lanes = shapes.tile(dtype)
    scale = 0.37
    for n in [*shapes.lengths(dtype), *shapes.around(shapes.STAGE, shapes.CHUNK), 5 * shapes.CHUNK + 3]:
        x = [np.abs(v) + dtype.type(0.1) for v in numbers(rng, n, arity(name), dtype)]
        ref = reference.elementwise(name, x, 1.3, 0.0)
        error = tolerance.elementwise(name, ref, x, 1.3, 0.0).sum() if n else 0
        magnitude = np.abs(ref).sum()
        for layout in ("row-major", "backwards"):
            y = elementwise.ewise_sum(
                runtime.OPS[name], *[from_array(shapes.LAYOUTS[layout](v)) for v in x], scale=scale, s=1.3
            )
            bound = scale * (tolerance.ewise_sum(n, n, lanes, magnitude, dtype) + error)
            tolerance.close(np.asarray(y), np.asarray(ref.sum() * scale), bound, f"sum of {name} over {n}, {layout}")


def test_sums_of_strided_rows(isa, dtype, rng):
    """Rows that cannot be merged, and broadcasting."""
    _, lanes = shapes.tile(dtype)
    a = rng.standard_normal((900, 6, 5)).astype(dtype)[:, ::2, :3]
    b = rng.standard_normal((3, 1)).astype(dtype)
    ref = reference.elementwise("mse", [a, b])
    bound = tolerance.ewise_sum(a.size, 3, lanes, ref.sum(), dtype) + tolerance.elementwise("mse", ref, [a, b]).sum()
    y = elementwise.ewise_sum(runtime.OPS["mse"], from_array(a), from_array(b))
    tolerance.close(np.asarray(y), np.asarray(ref.sum()), bound)


def test_sums_of_nan_and_infinity(isa, dtype):
    """One NaN anywhere makes the sum NaN, one infinity makes it infinite; of nothing the sum is 0."""
    for n in (5, 70, 300, shapes.CHUNK + 9):
        for bad in (np.nan, np.inf, -np.inf):
            for at in {0, n // 2, n - 1}:
                x = np.ones(n, dtype)
                x[at] = bad
                y = elementwise.ewise_sum(runtime.OPS["copy"], from_array(x)).item()
                assert np.isnan(y) if np.isnan(bad) else y == bad
    assert elementwise.ewise_sum(runtime.OPS["copy"], from_array(np.empty(0, dtype))).item() == 0


# ---- copies between types ----


def test_fill(isa, dtype):
    """fill writes all of a strided tensor and nothing else; +-0, NaN and infinities as they are."""
    for layout in ("row-major", "column-major", "every second", "backwards"):
        for shape in ((), (0,), (5,), (3, 37), (300, 2)):
            for value in (1.5, -0.0, np.nan, -np.inf):
                guarded = shapes.Guarded(shape, dtype, layout)
                elementwise.fill(guarded.tensor, value)
                guarded.check(f"{shape} {layout}")
                tolerance.same_bits(guarded.array, np.full(shape, value, dtype))


VALUES = [0, 1, -1, 7, -100, 2**24 + 1, -(2**30) - 1, 123456789]


@pytest.mark.parametrize("source", DTYPES, ids=str)
@pytest.mark.parametrize("target", DTYPES, ids=str)
def test_cast(isa, rng, source, target):
    """Each of the 16 pairs of types, in any layout, as NumPy converts."""
    values = np.concatenate([np.array(VALUES), rng.integers(-1000, 1000, 112)]).astype(np.float64)
    if source.kind == "f":
        values[8:] += 0.75
        if target.kind != "i":
            values[8:13] = [np.nan, np.inf, -np.inf, -0.0, 3.5e37]
    a = values.astype(source).reshape(2, 3, 20)
    expected = a.astype(target)
    for name, layout in shapes.LAYOUTS.items():
        if source.kind == "b" and name == "one element off":
            continue  # there is no misaligned byte
        x = layout(a)
        tolerance.same_bits(np.asarray(elementwise.cast(from_array(x), dtype_code(target))), expected, name)
        for out in ("row-major", "column-major", "every second", "backwards"):
            guarded = shapes.Guarded(a.shape, target, out)
            elementwise.copy_into(guarded.tensor, from_array(x))
            guarded.check(f"{name} into {out}")
            tolerance.same_bits(guarded.array, expected, f"{name} into {out}")


def test_copies_keep_bits(isa, dtype):
    """Equal types copy bits: denormals and NaN payloads too."""
    bits = np.array(
        [1, 0x7FABCDEF, 0x80000001, 0x7FA00001, 0xFFC12345], np.uint32 if dtype == np.float32 else np.uint64
    )
    if dtype == np.float64:
        bits[1:] = [0x7FFABCDEF0123456, 0x8000000000000001, 0x7FF4000000000001, 0xFFF8123456789ABC]
    for n in (1, 5, 50):
        x = np.tile(bits, n).view(dtype)
        y = np.asarray(elementwise.cast(from_array(x), dtype_code(dtype)))
        assert np.array_equal(y.view(bits.dtype), x.view(bits.dtype))
        z = np.asarray(elementwise.contiguous(from_array(x[::-1])))
        assert np.array_equal(z.view(bits.dtype), x[::-1].view(bits.dtype))


def test_copy_transposes(isa, dtype, rng):
    """Rows and columns of fewer, as many and more numbers than vectors have; nothing beside them is written."""
    for n, m in itertools.product((2, 7, 16, 17, 40), (3, 8, 25, 70)):
        x = rng.standard_normal((2, n, m)).astype(dtype)
        guarded = shapes.Guarded((2, m, n), dtype)
        elementwise.copy_into(guarded.tensor, from_array(x.transpose(0, 2, 1)))
        guarded.check(f"{n} x {m}")
        tolerance.same_bits(guarded.array, x.transpose(0, 2, 1))


def test_copy_broadcasts(isa, dtype, rng):
    """copy_into repeats axes of size 1 and missing ones; a shape that does not fit is an error."""
    for shape in ((), (5,), (1, 5), (4, 1), (1, 1, 5), (3, 4, 1)):
        src = rng.standard_normal(shape).astype(dtype)
        guarded = shapes.Guarded((3, 4, 5), dtype, "every second")
        elementwise.copy_into(guarded.tensor, from_array(src))
        guarded.check(f"{shape}")
        tolerance.same_bits(guarded.array, np.broadcast_to(src, (3, 4, 5)))
    for shape in ((4,), (3, 4), (2, 3, 4, 5), (1, 3, 4, 5)):
        with pytest.raises(ValueError, match="cannot be broadcast"):
            elementwise.copy_into(shapes.Guarded((3, 4, 5), dtype).tensor, from_array(np.zeros(shape, dtype)))


@pytest.mark.parametrize(
    "source,target", [("float32", "float64"), ("float64", "int64"), ("bool", "float32"), ("int64", "int64")]
)
def test_cast_threads(rng, source, target):
    """The threads that copy do not matter, and all take part."""
    x = rng.integers(0, 100, 5 * shapes.CHUNK + 3).astype(source)
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        y = elementwise.cast(from_array(x), dtype_code(target))
        assert runtime.threads_used(True) == min(threads, 6)
        tolerance.same_bits(np.asarray(y), x.astype(target))
        tolerance.same_bits(
            np.asarray(elementwise.cast(from_array(x[::-2]), dtype_code(target))), x[::-2].astype(target)
        )


# ---- errors ----


def test_errors(dtype):
    """Mismatched operands and results are refused before anything is written."""
    ewise, op = elementwise.ewise, runtime.OPS
    a, b = from_array(np.ones((2, 3), dtype)), from_array(np.ones((2, 4), dtype))
    other = from_array(np.ones((2, 3), "float64" if dtype == np.float32 else "float32"))
    with pytest.raises(ValueError, match="broadcast"):
        ewise(op["add"], a, b)
    with pytest.raises(TypeError, match="one dtype"):
        ewise(op["add"], a, other)
    with pytest.raises(TypeError, match="floating"):
        ewise(op["neg"], from_array(np.ones(3, np.int64)))
    for out in (b, other, from_array(np.ones(3, dtype)), from_array(np.ones((1, 2, 3), dtype))):
        with pytest.raises(ValueError, match="out"):
            ewise(op["neg"], a, out=out)
        assert (np.asarray(out) == 1).all()
    fixed = np.ones((2, 3), dtype)
    fixed.flags.writeable = False
    for write in (
        functools.partial(ewise, op["neg"], a, out=from_array(fixed)),
        functools.partial(elementwise.copy_into, from_array(fixed), a),
        functools.partial(elementwise.fill, from_array(fixed), 2.0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert (fixed == 1).all()


def test_writes_are_counted(dtype):
    """Every write through the library bumps the version, so that stale packs and saved tensors are noticed."""
    t = from_array(np.ones(3, dtype))
    for write in (
        lambda: elementwise.ewise(runtime.OPS["neg"], t, out=t),
        lambda: elementwise.copy_into(t, from_array(np.zeros(3, dtype))),
        lambda: elementwise.fill(t, 1.0),
    ):
        before = t._storage.version
        write()
        assert t._storage.version == before + 2  # before and after: a pack made meanwhile holds neither


def test_zero(isa, dtype):
    """Zeros of any size, and nothing behind them."""
    code = tensor.dtype_code(dtype)
    for n in (0, 1, 3, shapes.CHUNK - 1, shapes.CHUNK + 5, 3 * shapes.CHUNK + 1):
        shapes.prime((n,), dtype)
        t = tensor.new_zeros((n,), code)
        assert not np.asarray(t).any()
        shapes.check_slack(t, "zero")


def test_channels_last_without_a_copy():
    """Where both orders are one in memory, only the tag changes; elsewhere it is a copy of the same values."""
    for shape in ((2, 1, 3, 4), (2, 3, 1, 1), (1, 1, 5), (2, 1, 2, 3, 2), (2, 3, 2, 2), (1, 3, 4)):
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        t = from_array(x)
        y = elementwise.channels_last(t)
        assert (y._storage is t._storage) == (shape[1] == 1 or np.prod(shape[2:]) == 1)
        assert not t.channels_last
        assert y.channels_last
        assert y.strides[1] == 1
        axes = (0, *range(2, x.ndim))
        assert [y.strides[i] for i in axes] == [math.prod((*shape[max(i + 1, 2) :], shape[1])) for i in axes]
        tolerance.same_bits(np.asarray(y), x)
        part = from_array(np.stack([x, x], -1))._view(shape, tuple(2 * s // 4 for s in x.strides), 0)
        assert elementwise.channels_last(part)._storage is not part._storage
        tolerance.same_bits(np.asarray(elementwise.channels_last(part)), x)


COVERS = {"ewise": test_values, "cast": test_cast, "zero": test_zero}
