"""exp, log, tanh, sigmoid and the curved activations: the error in units in the last place over the whole range, limits
and special values.

benchmarks/ulp.py does the same for all 2^32 float32 arguments; here a sample of them, and of float64.
"""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from nncore._core import elementwise, runtime, tensor

from . import reference, tolerance

from_array = tensor.from_array

FUNCTIONS = sorted(tolerance.ULP)
GROWING = ("exp", "log", "sigmoid", "tanh")


def run(name, x):
    s, t = tolerance.ULP_SCALARS.get(name, (0, 0))
    return np.asarray(elementwise.ewise(runtime.OPS[name], from_array(x), None, None, s, t))


def patterns(dtype, count):
    """Floats whose bit patterns are evenly spaced over all there are: every exponent, both signs, NaN, infinities."""
    if dtype == np.float32:
        step = 2**32 // count | 1
        return np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    step = 2**64 // count | 1
    return (np.arange(count, dtype=np.uint64) * np.uint64(step)).view(np.float64)


def neighbours(points, dtype, reach):
    """The floats up to `reach` steps from each point."""
    ints = np.int32 if dtype == np.float32 else np.int64
    base = np.array(points, dtype).view(ints)
    return (base[:, None] + np.arange(-reach, reach + 1, dtype=ints)).reshape(-1).view(dtype)


# Where the sweep over all float32 found the largest errors: benchmarks/ulp.py.
WORST = {
    "exp": [-27.3694878, -5.17935276, -80.7236176, -5.87788439, 80.754776, 5.19912195],
    "log": [1.41331851, 0.698418558, 1.40141022, 0.968436301, 1.06359339, 1.12394869],
    "tanh": [0.628390193, 0.632138968, 0.0310358554, 0.00776717532, 0.555653036, 0.0309314579],
    "sigmoid": [-6.23769903, -4.8502965, -4.1572938, -3.4343338, -0.0003449918, -16.6393738],
    "elu": [-0.281410217],
    "softplus": [-0.7237854],
    "log_sigmoid": [0.7237854],
    "gelu": [-0.0659369752, -2.20015454, -1.85074544, 0.00371944904, -1.83075929],
    "silu": [-3.25109863, 0.0154010644, 0.00388642331, -91.8425827],
    "mish": [-3.25378418, -6.76323271],
    "tanhshrink": [0.177974701],
}


def edges(name, dtype):
    """Where a function changes its path or leaves the range."""
    info = np.finfo(dtype)
    log_max, log_min = float(np.log(np.longdouble(info.max))), float(np.log(np.longdouble(info.tiny)))
    halves = (np.arange(-24, 24) + 0.5) * np.log(2)  # the reduction's n changes at (n + 1/2) ln 2
    tiny = [info.tiny, -info.tiny, info.eps, -info.eps]
    if name == "exp":
        return [log_max, log_min, 1.0, -1.0, *tiny, *halves]
    if name == "log":
        return [
            1.0,
            np.sqrt(0.5),
            np.sqrt(2.0),
            2.0,
            0.5,
            np.e,
            info.max / 2,
            info.tiny * 2,
            *np.sqrt(0.5) * 2.0 ** np.arange(-8, 8),
        ]
    if name in ("tanh", "tanhshrink"):
        table = [3 / 32, 9.05, *(m * 2.0**e for e in range(-4, 4) for m in (1, 1.5))]  # intervals
        return [*tiny, 1.25, -1.25, 0.55, -0.55, 9.0, -9.0, 10.0, 19.06, 22.0, *table, *halves / 2]
    if name == "gelu":
        root = float(np.sqrt(-2 * np.log(np.longdouble(info.tiny))))
        return [
            *tiny,
            root,
            -root,
            14.0,
            -14.0,
            39.0,
            -39.0,
            3.0,
            -5.0,
            *np.sqrt(np.abs(2 * halves)),
            *-np.sqrt(np.abs(halves)),
        ]
    return [*tiny, log_max, -log_max, log_min, 16.6, 17.3, 36.7, 0.8813736, -0.8813736, *halves]


@functools.cache
def sample(name, dtype):
    """(arguments, the function of them one precision up). Denormal arguments count as 0."""
    count = 2_000_003 if dtype == np.float32 else 300_007
    dense = np.concatenate(
        [np.linspace(lo, hi, count // 8) for lo, hi in ((-1, 1), (0.4, 2.1), (-20, 20), (-110, 110), (-760, 720))]
    )
    x = np.concatenate(
        [patterns(dtype, count), dense.astype(dtype), neighbours(edges(name, dtype) + WORST[name], dtype, 300)]
    )
    flushed = np.where(np.abs(x) < np.finfo(dtype).tiny, np.copysign(dtype.type(0), x), x)
    return x, reference.elementwise(name, [flushed], *tolerance.ULP_SCALARS.get(name, (0, 0)))


def wide_enough(dtype):
    if np.finfo(reference.wide(np.zeros(1, dtype)).dtype).nmant < np.finfo(dtype).nmant + 8:
        pytest.skip("long double is no wider than float64 on this platform")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_ulp(isa, dtype, name):
    """The error over the whole range is within the bound that csrc/kernels/vmath.inc states."""
    wide_enough(dtype)
    x, y = sample(name, dtype)
    error = tolerance.ulps(run(name, x), y)
    worst = np.argmax(error)
    bound = tolerance.ulp(name, isa, dtype)
    assert error[worst] <= bound, f"{name}({x[worst]!r}): {error[worst]:.3f} ulp"


def test_the_bounds_are_those_stated():
    """What csrc/kernels/vmath.inc promises its readers is what is tested here (in a checkout)."""
    source = Path(__file__).resolve().parents[1] / "csrc" / "kernels" / "vmath.inc"
    if not source.exists():
        pytest.skip("no sources beside the tests")
    stated = re.findall(r"\b(\w+) (\d\.\d)\b", source.read_text().split("*/")[0])
    assert {name: float(ulp) for name, ulp in stated} == tolerance.ULP


@pytest.mark.parametrize("name", GROWING)
def test_monotonic(isa, dtype, name):
    """All these functions grow: so do their values, over arguments a few thousand floats apart."""
    x = np.sort(patterns(dtype, 500_009))
    x = x[~np.isnan(x) & (x >= 0 if name == "log" else True)]
    if name == "tanh":  # where it flattens, neighbours differ by less than an ulp, and an error of one may show
        x = x[(np.abs(x) < (8 if dtype == np.float32 else 17)) | np.isinf(x)]
    y = run(name, x)
    falls = np.flatnonzero(y[1:] < y[:-1])
    assert not falls.size, f"{name}: falls from {x[falls[0]]!r} to {x[falls[0] + 1]!r}"


def test_exact_values(isa, dtype):
    """Limits, exact points, saturation, and NaN."""
    inf, nan = np.inf, np.nan
    big = 90.0 if dtype == np.float32 else 711.0
    low = -104.0 if dtype == np.float32 else -746.0
    high = 1e30
    cases = {
        "exp": [(0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (nan, nan), (big, inf), (high, inf), (low, 0), (-high, 0)],
        "log": [(1, 0), (0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-1, nan), (-1e-30, nan), (nan, nan)],
        "tanh": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan), (23, 1), (-23, -1), (high, 1), (-high, -1)],
        "sigmoid": [(0, 0.5), (-0.0, 0.5), (inf, 1), (-inf, 0), (nan, nan), (40, 1), (high, 1), (low, 0), (-high, 0)],
        "elu": [(0, 0), (-0.0, 0), (inf, inf), (-inf, -1), (nan, nan), (high, high), (-high, -1), (5, 5)],
        "softplus": [(inf, inf), (-inf, 0), (nan, nan), (1000, 1000), (high, high), (low, 0), (-high, 0)],
        "log_sigmoid": [(inf, 0), (-inf, -inf), (nan, nan), (1000, 0), (-1000, -1000), (-high, -high), (high, 0)],
        "gelu": [(0, 0), (inf, inf), (-inf, 0), (nan, nan), (high, high), (-high, 0), (50, 50), (-50, 0)],
        "silu": [(0, 0), (inf, inf), (-inf, -0.0), (nan, nan), (high, high), (-high, -0.0), (1000, 1000)],
        "mish": [(0, 0), (inf, inf), (-inf, -0.0), (nan, nan), (high, high), (-high, -0.0), (1e4, 1e4), (-1e4, -0.0)],
        "tanhshrink": [(0, 0), (inf, inf), (-inf, -inf), (nan, nan), (high, high), (-high, -high), (100, 99)],
    }
    assert set(cases) == set(FUNCTIONS)
    for name, pairs in cases.items():
        x, y = (np.array(v, dtype) for v in zip(*pairs))
        for repeat in (1, 5):  # in whole vectors and in the rest of a row
            tolerance.same_bits(run(name, np.repeat(x, repeat)), np.repeat(y, repeat), name)
            for i in range(len(x)):
                tolerance.same_bits(run(name, x[i : i + 1]), y[i : i + 1], f"{name}({x[i]})")


def test_symmetry(isa, dtype, rng):
    """tanh is odd exactly; sigmoid(-x) is 1 - sigmoid(x) within the error of both."""
    x = np.concatenate([rng.standard_normal(5000) * 5, [1e-30, 30.0]]).astype(dtype)
    tolerance.same_bits(run("tanh", -x), -run("tanh", x))
    assert np.abs(reference.wide(run("sigmoid", x)) + run("sigmoid", -x) - 1).max() <= 2 * 2 * np.finfo(dtype).eps


def test_position_does_not_matter(isa, dtype):
    """A value is computed the same in any lane, in whole vectors and in the rest of a row."""
    for name in FUNCTIONS:
        x = sample(name, dtype)[0][-600:].copy()
        y = run(name, x)
        for start in range(0, 17):
            tolerance.same_bits(run(name, x[start : start + 40]), y[start : start + 40], f"{name} from {start}")
        one = np.concatenate([run(name, x[i : i + 1]) for i in range(0, 600, 7)])
        tolerance.same_bits(one, y[::7], f"{name} one by one")


COVERS = {}  # the functions have no kernel of their own: ewise, softmax, random and gemm's epilogue use them
