"""NaN and infinities pass every operation; denormals are flushed; the caller's floating-point state is its own."""

import ctypes
import ctypes.util
import platform

import numpy as np
import pytest
from nncore._core.tensor import from_array

import nncore
from nncore import nn
from nncore._core import elementwise, runtime

from . import test_gradients, tolerance
from .gradcheck import outputs_of
from .test_determinism import all_cases
from .test_threads import python

NAN, INF = float("nan"), float("inf")

# ---- the caller's state ----

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="flags of x86")
UPWARD, DOWNWARD, TO_ZERO = 0x800, 0x400, 0xC00


class Rounding:
    """The caller's rounding mode within a `with` block."""

    def __init__(self, mode):
        self.libm, self.mode = ctypes.CDLL(ctypes.util.find_library("m")), mode

    def __enter__(self):
        self.before = self.libm.fegetround()
        assert self.libm.fesetround(self.mode) == 0
        return self

    def now(self):
        return self.libm.fegetround()

    def __exit__(self, *error):
        self.libm.fesetround(self.before)


INPUTS = np.random.default_rng(0).standard_normal((2, 90, 90)).astype(np.float32)


def work():
    """Rounded results of kernels of several kinds, from inputs that are there before the mode is set."""
    a, b = (nncore.from_numpy(x) for x in INPUTS)
    y = a @ b
    return [t.numpy() for t in (y, y.softmax(-1), y.sum(0), (a * b / 3).tanh(), y.var(), a.exp().sum())]


def denormals_work():
    """Whether this thread's own arithmetic keeps them."""
    return (np.array([np.finfo(np.float32).tiny], np.float32) * np.float32(0.5))[0] != 0


@x86
@pytest.mark.parametrize("mode", [UPWARD, DOWNWARD, TO_ZERO])
def test_rounding_mode_of_the_caller(isa, mode):
    """It is not that of the kernels, on whatever thread, and is still in force after them."""
    expected = work()
    for threads in (1, 3):
        runtime.set_num_threads(threads)
        runtime.set_parallel_threshold(0.0)
        with Rounding(mode) as rounding:
            got = work()
            assert rounding.now() == mode
        for a, b in zip(got, expected, strict=True):
            tolerance.same_bits(a, b, f"{threads} threads")


@x86
def test_workers_started_under_another_mode():
    """Threads inherit the state of the one that starts them: not so here."""
    code = """
from nncore.tests.test_floating_point import Rounding, UPWARD, work
from nncore._core import runtime
expected = work()
runtime.set_num_threads(3)
runtime.set_parallel_threshold(0.0)
with Rounding(UPWARD):
    got = work()
assert runtime.threads_used() == 3
print(all(a.tobytes() == b.tobytes() for a, b in zip(got, expected)))
""".replace("nncore.tests", __package__)
    assert python(code) == "True"


@x86
def test_state_after_errors(isa):
    """A call that raises leaves the caller's state as it was, before and after a kernel has run."""
    x = nncore.tensor([[1.0, 2.0]], requires_grad=True)

    def failing_backward(dy):
        raise RuntimeError("in backward")

    def record():
        y = nncore._tape.record((x * 2).detach(), "failing", (x,), failing_backward)
        y.backward([[1.0, 1.0]])

    for wrong, error in (
        (lambda: x @ x, ValueError),
        (lambda: nn.Linear(3, 2)(x), ValueError),
        (lambda: nncore.zeros(2**45).exp(), (MemoryError, ValueError)),
        (lambda: x[5], IndexError),
        (record, RuntimeError),
    ):
        with Rounding(DOWNWARD) as rounding:
            with pytest.raises(error):
                wrong()
            assert rounding.now() == DOWNWARD
        assert denormals_work()


@x86
def test_traps_of_the_caller():
    """A process that has invalid operations and divisions by 0 trap is not killed by ours."""
    code = """
import ctypes, ctypes.util, nncore
x = nncore.tensor([-1.0, 0.0] * 20000)
libm = ctypes.CDLL(ctypes.util.find_library("m"))
libm.feenableexcept(0x1 | 0x4 | 0x8)
y, z, v = x.log(), 1 / x, x.exp()
libm.fedisableexcept(0x3d)
print(y[0].item(), z[1].item())
"""
    assert python(code) == "nan inf"


def test_denormals_are_flushed_on_every_thread(isa, dtype):
    """As operands and as results, for each operation that rounds; the caller's own are kept."""
    tiny = np.finfo(dtype).tiny
    runtime.set_parallel_threshold(0.0)
    n = 5 * 16384
    for threads in (1, 3):
        runtime.set_num_threads(threads)
        for name, operands in {
            "mul": (np.full(n, tiny), np.full(n, 0.5)),
            "add": (np.full(n, tiny / 4), np.full(n, tiny / 2)),
            "sub": (np.full(n, tiny * 1.5), np.full(n, tiny)),
            "div": (np.full(n, tiny), np.full(n, 4.0)),
        }.items():
            a, b = (from_array(v.astype(dtype)) for v in operands)
            runtime.threads_used(True)
            y = elementwise.ewise(runtime.OPS[name], a, b)
            assert runtime.threads_used(True) == threads
            assert not y.numpy().any(), name
        m = from_array(np.full((64, 64), tiny * 2, dtype))
        assert not nncore.matmul(m, from_array(np.full((64, 64), 0.001, dtype))).numpy().any()
        assert denormals_work()


# ---- NaN and infinities ----

# Where a NaN in an input may leave a result that depends on that input a number: operation -> why. Gradients may, where
# the operation selects: its derivative is taken from the side that a comparison with NaN takes.
SELECTS = "gradients of a selection go where the selection went"
PIECES = "a comparison picks the piece whose derivative it is, and NaN is greater than nothing"
NUMBERS_IN_GRADIENTS = {
    "leaky_relu": PIECES,
    "rrelu": PIECES,
    "relu6": PIECES,
    "hardtanh": PIECES,
    "elu": PIECES,
    "celu": PIECES,
    "selu": PIECES,
    "hardsigmoid": PIECES,
    "hardswish": PIECES,
    "softshrink": PIECES,
    "hardshrink": PIECES,
    "threshold": PIECES,
    "prelu": PIECES,
    "hinge_embedding_loss": PIECES,
    "margin_ranking_loss": PIECES,
    "triplet_margin_loss": PIECES,
    "multi_margin_loss": PIECES,
    "multilabel_margin_loss": PIECES,
    "CELU": PIECES,
    "ELU": PIECES,
    "Hardshrink": PIECES,
    "Hardsigmoid": PIECES,
    "Hardswish": PIECES,
    "Hardtanh": PIECES,
    "LeakyReLU": PIECES,
    "PReLU": PIECES,
    "ReLU6": PIECES,
    "SELU": PIECES,
    "Softshrink": PIECES,
    "Threshold": PIECES,
    "RReLU": PIECES,
    "HingeEmbeddingLoss": PIECES,
    "MultiLabelMarginLoss": PIECES,
    "MultiMarginLoss": PIECES,
    "MarginRankingLoss": PIECES,
    "maxout": SELECTS,
    "Maxout": SELECTS,
    "embedding_bag": SELECTS,
    "EmbeddingBag": SELECTS,
    "pairwise_distance inf": SELECTS,
    "relu": "relu' is 1 unless y <= 0",
    "clamp": "clamp' is 0 unless the element is within the limits",
    "maximum": SELECTS,
    "minimum": SELECTS,
    "max": SELECTS,
    "min": SELECTS,
    "max_pool1d": SELECTS,
    "max_pool2d": SELECTS,
    "max_pool3d": SELECTS,
    "adaptive_max_pool1d": SELECTS,
    "adaptive_max_pool2d": SELECTS,
    "adaptive_max_pool3d": SELECTS,
    "MaxPool1d": SELECTS,
    "MaxPool2d": SELECTS,
    "MaxPool3d": SELECTS,
    "AdaptiveMaxPool1d": SELECTS,
    "AdaptiveMaxPool2d": SELECTS,
    "AdaptiveMaxPool3d": SELECTS,
    "ReLU": "as relu",
    "RNN relu": "as relu",
    "RNNCell relu": "as relu",
    "pow": "a^0 has the derivative 0, and 0^b",
    "__pow__": "as pow",
}
NUMBERS = {
    "pow": "NaN^0 is 1, as in IEEE 754",
    "__pow__": "as pow",
}


def exempt(name, table):
    """Whether a table has 'relu' for 'Tensor.relu step', or 'RNN relu' for 'nn.RNN relu packed'."""
    words = name.split(".", 1)[1].split(" ")
    return words[0] in table or " ".join(words[:2]) in table


def values(fn, arrays):
    nncore.manual_seed(1)
    with nncore.no_grad():
        return np.concatenate([y.numpy().ravel() for y in outputs_of(fn, [tensor_of(a) for a in arrays])])


def tensor_of(a):
    return a if isinstance(a, nncore.Tensor) else nncore.tensor(a)


def gradients(fn, arrays, seed=0):
    """Gradients of all inputs and parameters, for a fixed cotangent."""
    rng = np.random.default_rng(seed)
    leaves = [a if isinstance(a, nncore.Tensor) else nncore.tensor(a, requires_grad=True) for a in arrays]
    wanted = [t for t in leaves if t.requires_grad]
    if isinstance(fn, nn.Module):
        fn.zero_grad()
        wanted += [p for p in fn.parameters() if p.requires_grad]
    nncore.manual_seed(1)
    for y in outputs_of(fn, leaves):
        if y.requires_grad:
            y.backward(rng.standard_normal(y.shape), retain_graph=True)
    return np.concatenate([np.zeros(t.shape).ravel() if t.grad is None else t.grad.numpy().ravel() for t in wanted])


def with_element(arrays, k, at, value):
    """The arrays, with one element of the k-th replaced."""
    out = list(arrays)
    out[k] = np.array(arrays[k], np.float64)
    out[k].flat[at] = value
    return out


def elements(arrays):
    """Elements of each floating array, all or some: (array, position)."""
    for k, a in enumerate(arrays):
        if not isinstance(a, nncore.Tensor) and a.size:
            yield from ((k, at) for at in np.random.default_rng(5).permutation(a.size)[:24])


OTHERS = (-3.7, 0.9, 100.0)  # finite values by which an element's influence is found


def influence(fn, results, arrays, k, at):
    """Which results change with one element."""
    base = results(fn, arrays)
    touched = np.zeros(base.shape, bool)
    for other in OTHERS:
        with np.errstate(all="ignore"):
            y = results(fn, with_element(arrays, k, at, other))
        same = (y == base) | (np.isnan(y) & np.isnan(base))
        touched |= ~same
    return touched


@pytest.mark.parametrize("name", [*test_gradients.CASES, *test_gradients.MODULES])
def test_nan_propagates(name):
    """Every result that depends on an element is NaN if that element is."""
    fn, arrays = next((build(), arrays) for n, build, arrays in all_cases() if n == name)
    seen = 0
    if not list(elements(arrays)):
        pytest.skip("takes indices only")
    for k, at in elements(arrays):
        touched = influence(fn, values, arrays, k, at)
        y = values(fn, with_element(arrays, k, at, NAN))
        if not exempt(name, NUMBERS):
            assert np.isnan(y[touched]).all(), f"input {k}, element {at}: {(~np.isnan(y[touched])).sum()} numbers"
        seen += touched.sum()
    assert seen, "no element has an influence: nothing is shown"


@pytest.mark.parametrize(
    "name",
    [n for n in [*test_gradients.CASES, *test_gradients.MODULES] if not exempt(n, NUMBERS_IN_GRADIENTS | NUMBERS)],
)
def test_nan_propagates_into_gradients(name):
    """Every gradient that depends on an element is NaN if that element is, with the exceptions above."""
    fn, arrays = next((build(), arrays) for n, build, arrays in all_cases() if n == name)
    for k, at in elements(arrays):
        touched = influence(fn, gradients, arrays, k, at)
        g = gradients(fn, with_element(arrays, k, at, NAN))
        assert np.isnan(g[touched]).all(), f"input {k}, element {at}: {(~np.isnan(g[touched])).sum()} numbers"


@pytest.mark.parametrize("name", [*test_gradients.CASES, *test_gradients.MODULES])
def test_infinity_propagates(name):
    """Where a huge number gives a huge result, an infinity gives no finite one; where it does not matter how huge, an
    infinity gives the same."""
    fn, arrays = next((build(), arrays) for n, build, arrays in all_cases() if n == name)
    for k, at in elements(arrays):
        for sign in (1, -1):
            huge = values(fn, with_element(arrays, k, at, sign * 1e100))
            more = values(fn, with_element(arrays, k, at, sign * 1e150))
            y = values(fn, with_element(arrays, k, at, sign * INF))
            grows = (np.abs(huge) > 1e40) | ~np.isfinite(more)
            assert not np.isfinite(y[grows]).any(), f"input {k}, element {at}: {np.isfinite(y[grows]).sum()} numbers"
            settled = (huge == more) & np.isfinite(more)
            assert ((y == huge) | np.isnan(y))[settled].all(), f"input {k}, element {at}"


def test_the_exceptions_are_operations():
    """Each exception names one that is there, with a reason."""
    names = [*test_gradients.CASES, *test_gradients.MODULES]
    for table in (NUMBERS, NUMBERS_IN_GRADIENTS):
        assert [key for key in table if not any(exempt(n, {key}) for n in names)] == []
        assert all(table.values())


COVERS = {}
