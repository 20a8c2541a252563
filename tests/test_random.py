"""Random numbers: the Philox stream bit for bit against a Python one, distributions, and dropout's mask."""

import numpy as np
import pytest

import nncore
from nncore import _random
from nncore._core import rng as kernels
from nncore._core import runtime, tensor

from . import reference, shapes, tolerance

from_array = tensor.from_array

GROUPS_PER_CHUNK = shapes.RANDOM_CHUNK
SEEDS = [(0, 0), (1, 2), (2**64 - 1, 2**64 - 1), (0x0123456789ABCDEF, 2**32)]


def fill(n, dtype, seed, stream, dist=kernels.UNIFORM, a=0.0, b=1.0):
    """n numbers; held to write nothing else."""
    guarded = shapes.Guarded((n,), dtype)
    kernels.fill_random(guarded.tensor, dist, a, b, seed, stream)
    guarded.check(f"{n} random numbers")
    return guarded.array


def sizes(dtype):
    group = 64 if dtype == np.float32 else 32
    return [
        0,
        1,
        15,
        16,
        17,
        *shapes.around(group, 2 * group, GROUPS_PER_CHUNK * group),
        3 * GROUPS_PER_CHUNK * group + 5,
    ]


def test_philox_known_answers():
    """The reference itself: known answers of Philox4x32 with 7 rounds (here) and 10 (Random123's own tests)."""
    zero, ones = (0, 0, 0, 0), (0xFFFFFFFF,) * 4

    def words(counter, key, rounds):
        return [int(w) for w in reference.philox4x32(counter, key, rounds)]

    assert words(zero, (0, 0), 7) == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]
    assert words(zero, (0, 0), 10) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words(ones, ones[:2], 10) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi, (0xA4093822, 0x299F31D0), 10) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("seed,stream", SEEDS)
def test_uniform_is_the_stream(isa, dtype, seed, stream):
    """Uniform numbers on [0, 1) are the stream's bits, for every length: so they are the same on every ISA."""
    for n in sizes(dtype):
        tolerance.same_bits(fill(n, dtype, seed, stream), reference.uniform(n, dtype, seed, stream), f"{n}")


def test_first_numbers(isa):
    """The very first word of seed 0, stream 0 is the known answer's."""
    assert fill(1, "float32", 0, 0)[0] == np.float32((0x5F6FB709 >> 8) * 2.0**-24)
    assert fill(1, "float64", 0, 0)[0] == ((0x5F6FB709 << 32 | 0x0D893F64) >> 11) * 2.0**-53


@pytest.mark.parametrize(
    "low,high", [(-1.0, 1.0), (-0.5, 0.25), (1.0, 2.0), (1000.0, 1001.0), (-3e-3, 1e-2), (0.1, 0.4), (-1e30, 1e30)]
)
def test_uniform_interval(isa, dtype, low, high):
    """a + u (b - a), never as large as b, the same bits on every ISA."""
    n = 300_000
    x = fill(n, dtype, 5, 1, a=low, b=high)
    u = reference.wide(reference.uniform(n, dtype, 5, 1))
    a, width = dtype.type(low), dtype.type(high - low)
    bound = np.finfo(dtype).eps * (np.abs(u * float(width)) + abs(low))
    tolerance.close(x, float(a) + u * float(width), bound)
    assert x.min() >= a
    assert x.max() < dtype.type(high), f"{(x >= dtype.type(high)).sum()} of {n} numbers are not below {high}"
    runtime.set_isa(runtime.isas()[0])
    tolerance.same_bits(x, fill(n, dtype, 5, 1, a=low, b=high), "on another ISA")


def test_uniform_moments(dtype):
    """Mean, variance and the counts of 64 bins, each within 5 standard deviations of what they estimate."""
    n = 1_000_000
    x = reference.wide(fill(n, dtype, 12, 34))
    assert abs(x.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(x.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)  # variance of (x - 1/2)^2
    counts = np.bincount((x * 64).astype(int), minlength=64)
    chi2 = ((counts - n / 64) ** 2).sum() / (n / 64)
    assert abs(chi2 - 63) < 5 * np.sqrt(2 * 63)
    pairs = np.mean((x[1:] - 0.5) * (x[:-1] - 0.5))
    assert abs(pairs) < 5 / 12 / np.sqrt(n)


@pytest.mark.parametrize("seed,stream", SEEDS)
def test_normal_is_the_stream(isa, dtype, seed, stream):
    """Box and Muller's transform of the stream, within the rounding of its logarithm, root, sine and product."""
    eps = np.finfo(dtype).eps
    for n in sizes(dtype):
        for mean, std in ((0.0, 1.0), (-3.0, 0.25)):
            y, r = reference.normal(n, dtype, seed, stream)
            # log within 1 ulp, root, scaling; 2 pi and its product, up to pi/4; sine's polynomial; sum
            bound = eps * (8 * r * std + abs(mean))
            tolerance.close(fill(n, dtype, seed, stream, kernels.NORMAL, mean, std), mean + std * y, bound, f"{n}")


def test_normal_moments(dtype):
    """The first four moments within 5 standard deviations of their estimates; tails as far as they should reach."""
    n = 1_000_000
    x = reference.wide(fill(n, dtype, 7, 8, kernels.NORMAL))
    assert np.isfinite(x).all()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 5 * np.sqrt(variance / n), power
    beyond = 6.3342e-5  # P(|x| > 4)
    assert abs((np.abs(x) > 4).mean() - beyond) < 5 * np.sqrt(beyond / n)


@pytest.mark.parametrize("dist", [kernels.UNIFORM, kernels.NORMAL], ids=["uniform", "normal"])
def test_an_element_depends_on_its_position_alone(isa, dtype, dist):
    """A longer call begins with the shorter one's numbers; another seed or stream shares none of them."""
    whole = fill(5000, dtype, 3, 4, dist)
    for n in (1, 33, 64, 65, 4000):
        tolerance.same_bits(fill(n, dtype, 3, 4, dist), whole[:n])
    for seed, stream in ((3, 5), (4, 4), (3 + 2**32, 4), (3, 4 + 2**32), (4, 3)):
        other = fill(5000, dtype, seed, stream, dist)
        assert (other == whole).sum() <= 2  # chance: about 5000 / 2^24
    assert len(np.unique(whole)) >= 5000 - 5


@pytest.mark.parametrize("dist", [kernels.UNIFORM, kernels.NORMAL], ids=["uniform", "normal"])
def test_threads(isa, dtype, dist):
    """1, 2, 3 and 7 threads give the same bits and all take part."""
    per = GROUPS_PER_CHUNK * (64 if dtype == np.float32 else 32)
    n = 5 * per + 3
    runtime.set_num_threads(1)
    x = fill(n, dtype, 1, 1, dist)
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(fill(n, dtype, 1, 1, dist), x)
        assert runtime.threads_used(True) == min(threads, 6)


# ---- dropout ----


def dropout(x, p, seed, stream):
    shapes.prime(x.shape, x.dtype)
    y = kernels.dropout(from_array(x), p, seed, stream)
    shapes.check_slack(y, "dropout")
    return np.asarray(y)


@pytest.mark.parametrize("p", [0.5, 0.1, 0.9, 1 / 65536, 0.99999])
def test_dropout_mask(isa, dtype, rng, p):
    """Exactly the elements that the stream keeps, times 1 / (1 - p): the same on every ISA."""
    for n in (0, 1, 16, *shapes.around(32, 128), GROUPS_PER_CHUNK * 128 + 130):
        x = rng.standard_normal(n).astype(dtype)
        keep = reference.dropout_keep(n, p, 9, 2**40 + 1)
        expected = x * np.where(keep, dtype.type(1 / (1 - p)), dtype.type(0))
        tolerance.same_bits(dropout(x, p, 9, 2**40 + 1), expected, f"{n}")


def test_dropout_of_nan_and_infinity(isa, dtype):
    """Dropped ones leave NaN, as times 0; kept ones stay."""
    x = np.tile(np.array([np.nan, np.inf, -np.inf, -0.0], dtype), 100)
    keep = reference.dropout_keep(400, 0.5, 1, 1)
    y = dropout(x, 0.5, 1, 1)
    assert np.array_equal(np.isnan(y), ~np.isfinite(x) & ~keep | np.isnan(x))
    assert np.array_equal(y[keep], 2 * x[keep], equal_nan=True)
    assert np.isnan(dropout(x[:3], 1.0, 1, 1)).all()


def test_dropout_rate(dtype):
    """The share that stays is 1 - p within 5 standard deviations, in each of the places of a group."""
    n = 128 * 8000
    for p in (0.5, 0.2):
        kept = dropout(np.ones(n, dtype), p, 6, 6) != 0
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n) + 1 / 65536
        places = kept.reshape(-1, 128).mean(0)
        assert np.abs(places - (1 - p)).max() < 6 * np.sqrt(p * (1 - p) / 8000)


def test_dropout_backward_has_the_same_mask(isa, dtype, rng):
    """The gradient is kept where the value was, in an input of any layout."""
    a = rng.standard_normal((30, 41)).astype(dtype)
    for make in shapes.LAYOUTS.values():
        nncore.manual_seed(4)
        x = from_array(make(a)).detach().requires_grad_()
        seed, stream = nncore.get_rng_state()
        y = nncore.nn.functional.dropout(x, 0.3, True)
        dy = rng.standard_normal(a.shape).astype(dtype)
        y.backward(from_array(make(dy)))
        keep = reference.dropout_keep(a.size, 0.3, seed, stream + 1).reshape(a.shape)
        scale = dtype.type(1 / 0.7)
        mask = np.where(keep, scale, dtype.type(0))
        tolerance.same_bits(y.detach().numpy(), a * mask)
        tolerance.same_bits(x.grad.numpy(), dy * mask)


def test_dropout_threads_and_layouts(isa, dtype, rng):
    """Threads do not matter, nor do the input's strides."""
    n = 5 * GROUPS_PER_CHUNK * 128 + 3
    x = rng.standard_normal(n).astype(dtype)
    y = dropout(x, 0.4, 2, 3)
    tolerance.same_bits(dropout(shapes.LAYOUTS["backwards"](x), 0.4, 2, 3), y)
    tolerance.same_bits(dropout(shapes.LAYOUTS["read-only"](x), 0.4, 2, 3), y)
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(dropout(x, 0.4, 2, 3), y)
        assert runtime.threads_used(True) == min(threads, 6)


# ---- the generator ----


def test_each_call_takes_a_stream_of_its_own():
    """Draws differ from each other, repeat from a seed, and go on from a saved state."""
    nncore.manual_seed(11)
    first = [nncore.rand(50).tolist(), nncore.randn(50).tolist(), nncore.rand(50).tolist()]
    state = nncore.get_rng_state()
    after = nncore.rand(50).tolist()
    assert first[0] != first[2]
    nncore.manual_seed(11)
    assert [nncore.rand(50).tolist(), nncore.randn(50).tolist(), nncore.rand(50).tolist()] == first
    nncore.set_rng_state(state)
    assert nncore.rand(50).tolist() == after
    g = nncore.Generator(11)
    assert nncore.rand(50, generator=g).tolist() == first[0]


@pytest.mark.parametrize(
    "state, error, words",
    [
        (5, TypeError, "state: .*5"),
        ((1,), TypeError, r"state: .*\(1,\)"),
        ((1, 2, 3), TypeError, "state"),
        ("ab", TypeError, "state"),
        ((1, -1), ValueError, "state: .*-1"),
        ((1, 2**63), ValueError, "state: .*9223372036854775808"),
        ((1, 2.0), TypeError, "state: .*float"),
        ((-1, 2), ValueError, "seed: .*-1"),
        (("a", 1), TypeError, "seed: .*str"),
    ],
)
def test_bad_states_change_nothing(state, error, words):
    g = nncore.Generator(3)
    nncore.rand(2, generator=g)
    with pytest.raises(error, match=words):
        g.set_state(state)
    assert g.get_state() == (3, 1)
    g.set_state([7, 2**63 - 1])
    nncore.rand(2, generator=g)


def test_permutation():
    """Every order comes from a seed, and every place is equally likely."""
    g = nncore.Generator(5)
    for n in (0, 1, 2, 1000):
        assert sorted(_random.permutation(n, g)) == list(range(n))
    first = np.bincount([_random.permutation(5, g)[0] for _ in range(2000)], minlength=5)
    assert np.abs(first - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_written_tensors_are_counted():
    """Filling bumps the version; read-only memory is refused."""
    t = from_array(np.zeros(4, np.float32))
    before = t._storage.version
    kernels.fill_random(t, kernels.UNIFORM, 0, 1, 0, 0)
    assert t._storage.version > before
    a = np.zeros(4, np.float32)
    a.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.fill_random(from_array(a), kernels.UNIFORM, 0, 1, 0, 0)


COVERS = {"random": test_uniform_is_the_stream, "dropout": test_dropout_mask}
