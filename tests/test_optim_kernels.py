"""The fused updates, one step at a time over several steps, on memory that the tests own; norms and clipping."""

import itertools
import math

import numpy as np
import pytest

from nncore import optim
from nncore._core import optim as kernels
from nncore._core import runtime, tensor

from . import reference, shapes, tolerance

from_array = tensor.from_array

STEPS = 4
SIZES = ([1], [7, 1, 64, 33], [0, 5, 0], [shapes.CHUNK - 1, 2, shapes.CHUNK + 3], [40000])


def grid(**options):
    return [dict(zip(options, values)) for values in itertools.product(*options.values())]


def valid(o):
    return not (o["nesterov"] and (o["momentum"] == 0 or o["dampening"])) and not (o["dampening"] and not o["momentum"])


BOOL = (False, True)
OPTIONS = {
    "SGD": [
        o
        for o in grid(
            lr=(0.1,), momentum=(0, 0.9), dampening=(0, 0.3), weight_decay=(0, 0.01), nesterov=BOOL, maximize=BOOL
        )
        if valid(o)
    ],
    "ASGD": grid(lr=(0.1,), lambd=(0, 0.01), t0=(0, 2, 1e6), weight_decay=(0, 0.1), maximize=BOOL),
    "Adam": grid(lr=(0.01,), betas=((0.9, 0.999), (0.0, 0.5)), weight_decay=(0, 0.1), amsgrad=BOOL, maximize=BOOL)
    + [{"decoupled_weight_decay": True, "weight_decay": 0.1, "eps": 1e-3}],
    "AdamW": [{}, {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}],
    "Adamax": grid(lr=(0.01,), eps=(1e-8, 0.1), weight_decay=(0, 0.1), maximize=BOOL),
    "NAdam": grid(weight_decay=(0, 0.1), decoupled_weight_decay=BOOL, momentum_decay=(4e-3, 1), maximize=BOOL),
    # of these b2, the step is rectified always from the 6th step on, from the 2nd, and never
    "RAdam": grid(betas=((0.9, 0.999), (0.9, 0.8), (0.9, 0.5)), weight_decay=(0, 0.1), decoupled_weight_decay=BOOL),
    "Lion": grid(lr=(0.01,), betas=((0.9, 0.99), (0.5, 0.0)), weight_decay=(0, 0.1), maximize=BOOL),
    "Adagrad": grid(lr_decay=(0, 0.1), initial_accumulator_value=(0, 0.5), weight_decay=(0, 0.1), maximize=BOOL),
    "RMSprop": grid(alpha=(0.99, 0.5), momentum=(0, 0.9), centered=BOOL, weight_decay=(0, 0.1)) + [{"maximize": True}],
    "Adadelta": grid(rho=(0.9, 0.5), eps=(1e-6, 0.1), weight_decay=(0, 0.1), maximize=BOOL),
    "Rprop": grid(etas=((0.5, 1.2), (0.1, 3.0)), step_sizes=((1e-6, 50), (0.005, 0.011)), maximize=BOOL),
    "AdaSecant": grid(
        use_adagrad=BOOL, start_var_reduction=(0, 2, None), delta_clip=(None, 0.5), gamma_clip=(1.8, None)
    )
    + [{"lr": 0.1, "weight_decay": 0.1}, {"maximize": True}],
}


class Problem:
    """Parameters with gradients and states, as arrays in guarded memory with tensors on them, and an optimizer.

    `gap` elements lie between neighbours: with 0 they are merged into one chunk, if the update allows it."""

    def __init__(self, rng, sizes, dtype, kind="SGD", options=None, gap=0):
        self.rng, self.dtype = rng, dtype
        self.size = sum(sizes) + gap * len(sizes)
        ends = np.cumsum([n + gap for n in sizes])
        self.views = [slice(end - gap - n, end - gap) for n, end in zip(sizes, ends)]
        self.holes = np.ones(self.size, bool)
        for v in self.views:
            self.holes[v] = False
        self.memory = {}
        self.params, grads = self.place("p"), self.place("g")
        for p, g in zip(self.params, grads):
            p.grad = g
        self.new_values("p")
        self.options = options or {}
        self.opt = getattr(optim, kind)(self.params, **self.options)
        group = self.opt.param_groups[0]
        self.arrays = self.opt._arrays(group)
        states = {name: self.place(name, value) for name, value in self.arrays.items()}
        for i, p in enumerate(self.params):
            if states:
                self.opt.state[p] = {**self.opt._counters(group), **{name: t[i] for name, t in states.items()}}

    def place(self, name, value=0.0):
        """Guarded memory for one array of each parameter, filled with a value: the tensors."""
        g = self.memory[name] = shapes.Guarded((self.size,), self.dtype)
        for v in self.views:
            g.array[v] = value
        return [from_array(g.array[v]) for v in self.views]

    def new_values(self, name):
        for v in self.views:
            self.memory[name].array[v] = self.rng.standard_normal(v.stop - v.start)

    def values(self, name):
        """Of all parameters together."""
        return np.concatenate([self.memory[name].array[v] for v in self.views])

    def everything(self):
        return [self.values(name) for name in self.memory]

    def step(self):
        self.new_values("g")
        self.opt.step()

    def checked_step(self, what):
        """A step that is the oracle's, within the bounds that the formula has, and writes nothing else."""
        self.new_values("g")
        before = {name: g.array.copy() for name, g in self.memory.items()}
        state = dict(self.opt.state.get(self.params[0], {}))
        self.opt.step()
        oracle = reference.OPTIMIZERS[type(self.opt).__name__]
        for i, v in enumerate(self.views):
            numbers = {n: tolerance.Tracked(before[n][v]) for n in before}
            old = {n: numbers.get(n, x) for n, x in state.items()}
            if state and state["step"] == 0:
                old = None  # the oracle knows where to start
            p, after = oracle(numbers["p"], numbers["g"], old, **self.options)
            for name in {"p", *self.arrays}:
                want = p if name == "p" else after[name]
                got = self.memory[name].array[v]
                tolerance.close(got, want.value, want.error, f"{name} of parameter {i} at {what}")
                loose = ~(want.error <= 0.01 * np.abs(want.value) + 1e-3)
                assert loose.sum() <= 2 + 0.01 * loose.size, f"{name} at {what}: bounds that say nothing"
            for name in after.keys() - self.arrays.keys():
                assert self.opt.state[self.params[i]][name] == pytest.approx(after[name], rel=1e-14)
        tolerance.same_bits(self.memory["g"].array, before["g"], what)
        for name, g in self.memory.items():
            g.check(what)
            tolerance.same_bits(g.array[self.holes], before[name][self.holes], what)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", OPTIONS)
def test_updates(isa, dtype, rng, kind, sizes):
    """Every optimizer, its options combined, over several steps, for few and many parameters."""
    for options in OPTIONS[kind] if sizes == SIZES[1] else OPTIONS[kind][-1:]:
        problem = Problem(rng, sizes, dtype, kind, options, gap=3)
        for step in range(STEPS):
            problem.checked_step(f"step {step} of {options}")


@pytest.mark.parametrize("kind", OPTIONS)
def test_late_steps(dtype, rng, kind):
    """At step 100000, where biases have gone and schedules have run."""
    problem = Problem(rng, [37], dtype, kind, OPTIONS[kind][0])
    problem.step()
    for s in problem.opt.state.values():
        s["step"] = 99_999
    problem.checked_step("a late step")


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_merging_and_position_do_not_matter(isa, dtype, rng, kind, sizes):
    """Neighbours in memory (updated as one stretch), strangers, and parameters alone: the same bits."""
    state = rng.bit_generator.state

    def run(gap, alone=False):
        rng.bit_generator.state = state
        problem = Problem(rng, sizes, dtype, kind, OPTIONS[kind][-1], gap)
        for _ in range(2):
            problem.new_values("g")
            for p in problem.params if alone else [None]:
                if alone:
                    problem.opt.param_groups[0]["params"] = [p]
                problem.opt.step()
        return problem.everything()

    together = run(0)
    for other in (run(5), run(1, alone=True)):
        for a, b in zip(other, together, strict=True):
            tolerance.same_bits(a, b)


@pytest.mark.parametrize("kind", OPTIONS)
def test_threads(isa, dtype, rng, kind):
    """1, 2, 3 and 7 threads give the same bits and all take part, whatever the parameters' sizes."""
    sizes = [3 * shapes.CHUNK + 5, 1, 700, 2 * shapes.CHUNK]
    chunks = -(-sum(sizes) // shapes.CHUNK)
    state, results = rng.bit_generator.state, []
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.set_parallel_threshold(0.0)
        rng.bit_generator.state = state
        problem = Problem(rng, sizes, dtype, kind, OPTIONS[kind][-1], gap=2)
        for _ in range(2):
            runtime.threads_used(True)
            problem.step()
            assert runtime.threads_used(True) >= min(threads, chunks)
        results.append(problem.everything())
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            tolerance.same_bits(a, b)


@pytest.mark.parametrize("kind", OPTIONS)
def test_nan(isa, dtype, rng, kind):
    """A NaN in a gradient reaches its own element and stays there; AdaSecant's norm carries it to the whole array."""
    problem = Problem(rng, [50, 20], dtype, kind, OPTIONS[kind][0])
    problem.new_values("g")
    problem.memory["g"].array[17] = np.nan
    problem.opt.step()
    hit = np.arange(50) if kind == "AdaSecant" else np.array([17])
    for _ in range(2):
        assert np.flatnonzero(np.isnan(problem.values("p"))).tolist() == hit.tolist()
        problem.step()


@pytest.mark.parametrize("kind", OPTIONS)
def test_zero_gradient(isa, dtype, rng, kind):
    """Nothing is divided by 0: a gradient that was always 0 leaves its parameter as it is.
    (AdaSecant's means begin at eps.)"""
    options = {"lambd": 0} if kind == "ASGD" else {}
    if "weight_decay" in OPTIONS[kind][0] or kind == "AdamW":
        options["weight_decay"] = 0
    problem = Problem(rng, [37], dtype, kind, options)
    p = problem.values("p")
    for _ in range(3):
        problem.opt.step()
        if kind == "AdaSecant":
            assert np.abs(problem.values("p") - p).max() < 1e-5
        else:
            tolerance.same_bits(problem.values("p"), p)


class Numbers:
    """What an optimizer gives to a kernel call: the numbers of its step."""

    def __init__(self, **numbers):
        self.numbers = numbers

    def apply(self, address):
        kernels.set_scalars(address, **self.numbers)


def plain(params, lr=0.1):
    kernels.update("sgd", params, [None], None, Numbers(lr=lr))


def test_strided_gradients(isa, dtype, rng):
    """A gradient of any layout gives the bits of a row-major one."""
    p, g = (rng.standard_normal((6, 7)).astype(dtype) for _ in range(2))
    results = []
    for make in shapes.LAYOUTS.values():
        t = from_array(p.copy())
        t.grad = from_array(make(g))
        plain([t])
        results.append(np.asarray(t))
    for r in results[1:]:
        tolerance.same_bits(r, results[0])


@pytest.mark.parametrize("layout", ["column-major", "every second", "backwards"])
def test_strided_parameters(dtype, rng, layout):
    """A parameter that is not row-major is refused, and nothing is written."""
    p, g = (rng.standard_normal((5, 6)).astype(dtype) for _ in range(2))
    guarded = shapes.Guarded(p.shape, dtype, layout)
    guarded.array[...] = p
    t = guarded.tensor
    t.grad = from_array(g)
    with pytest.raises(ValueError, match="row-major"):
        plain([t])
    tolerance.same_bits(guarded.array, p)
    guarded.check(layout)


def test_writes_are_counted(rng):
    """An update bumps every parameter's version; read-only memory is refused and nothing is updated."""
    problem = Problem(rng, [3, 4], np.float32)
    params = problem.params
    before = [p._storage.version for p in params]
    problem.step()
    assert [p._storage.version for p in params] == [v + 1 for v in before]
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    t = from_array(fixed)
    t.grad = from_array(np.ones(3, np.float32))
    values = problem.values("p")
    with pytest.raises(ValueError, match="read-only"):
        plain([params[0], t])
    tolerance.same_bits(problem.values("p"), values)


def test_no_parameters():
    """An empty list is nothing to do."""
    plain([])
    kernels.update("adam", [], [[], [], None], None, Numbers(lr=0.1))
    kernels.clip_value([], 1.0)
    assert kernels.norms([], 2.0).shape == (0,)


def test_tracked_bounds_are_bounds(rng):
    """The error bounds hold for float32 arithmetic as NumPy does it, and are not far from it."""
    a, b = (rng.standard_normal(10_000).astype(np.float32) for _ in range(2))
    for f in (
        lambda a, b: a * b - a / (b * b + 1),
        lambda a, b: np.sqrt(np.abs(a - b)) * np.maximum(a, 0.25),
        lambda a, b: np.where(a * b > 0, a + b, a - b) ** 2,
        lambda a, b: np.sign(a) * (b - a * 0.3),
    ):
        want, got = f(tolerance.Tracked(a), tolerance.Tracked(b)), f(a, b)
        assert got.dtype == np.float32
        tolerance.close(got, want.value, want.error)
        error = np.abs(got - want.value)
        assert want.error.mean() <= 30 * error.mean()


# ---- norms and clipping ----


def norm_oracle(x, p):
    x = np.abs(reference.wide(x))
    return x.max(initial=0) if p == math.inf else (x**p).sum()


@pytest.mark.parametrize("p", [2.0, 1.0, math.inf, 3.0, 0.5])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_norms(isa, dtype, rng, sizes, p):
    """Sums of |x|^p in double: a piece has 1024 additions in a row at most; then trees. pow is within 1 ulp."""
    arrays = [rng.standard_normal(n).astype(dtype) for n in sizes]
    got = np.asarray(kernels.norms([from_array(a) for a in arrays], p))
    assert got.dtype == np.float64
    for a, s in zip(arrays, got):
        want = norm_oracle(a, p)
        tolerance.close(s, want, 0 if p == math.inf else (shapes.CHUNK / 16 + 4 + 16 + 2) * 2.0**-53 * want)


def test_norms_do_not_depend_on_threads_or_layout(isa, dtype, rng):
    """The bits are the same; and in float32, for any instruction set: the squares are exact."""
    arrays = [rng.standard_normal(n).astype(dtype) for n in (5 * shapes.CHUNK + 3, 10, shapes.CHUNK)]
    tensors = [from_array(a) for a in arrays]
    runtime.set_parallel_threshold(0.0)
    for p in (2.0, 1.0, math.inf):
        results = []
        for threads in (1, 2, 7):
            runtime.set_num_threads(threads)
            results.append(np.asarray(kernels.norms(tensors, p)).copy())
        alone = np.concatenate([np.asarray(kernels.norms([t], p)) for t in tensors])
        for r in (*results[1:], alone):
            tolerance.same_bits(r, results[0])
    x = rng.standard_normal((30, 40)).astype(dtype)
    expected = kernels.norms([from_array(x)], 2.0)
    for make in shapes.LAYOUTS.values():
        tolerance.same_bits(kernels.norms([from_array(make(x))], 2.0), expected)


def test_norms_of_great_and_strange_numbers(isa):
    """Squares of float32 do not overflow; NaN and infinity come out."""
    big = np.full(100, 1e30, np.float32)
    assert np.asarray(kernels.norms([from_array(big)], 2.0))[0] == pytest.approx(1e62, rel=1e-6)
    for at in (0, 17, 49):
        x = np.ones(50, np.float32)
        x[at] = np.nan
        y = np.ones(50, np.float32)
        y[at] = -np.inf
        for p in (2.0, 1.0, math.inf, 3.0):
            nan, inf = np.asarray(kernels.norms([from_array(x), from_array(y)], p))
            assert np.isnan(nan)
            assert inf == np.inf


@pytest.mark.parametrize("layout", ["row-major", "column-major", "every second"])
def test_clip(isa, dtype, rng, layout):
    """In place, in any layout, to half an ulp; nothing else is written."""
    values = [rng.standard_normal(s).astype(dtype) for s in ((5, 7), (40, 50), (3, 0))]
    for most in (0.5, 100.0):
        guarded = [shapes.Guarded(v.shape, dtype, layout) for v in values]
        for g, v in zip(guarded, values):
            g.array[...] = v
        kernels.clip_value([g.tensor for g in guarded], most)
        for g, v in zip(guarded, values):
            tolerance.same_bits(g.array, np.clip(v, dtype.type(-most), dtype.type(most)))
            g.check()
            g.array[...] = v
        norm = np.array(2.5)
        kernels.clip_norm([g.tensor for g in guarded], from_array(norm), most)
        for g, v in zip(guarded, values):
            scale = dtype.type(min(1, most / (2.5 + 1e-6)))
            tolerance.same_bits(g.array, v * scale)
            g.check()


def test_clip_lets_nan_through(isa, dtype):
    x = np.array([1, np.nan, np.inf, -np.inf], dtype)
    kernels.clip_value([from_array(x)], 2.0)
    tolerance.same_bits(x, np.array([1, np.nan, 2, -2], dtype))
    kernels.clip_norm([from_array(x)], from_array(np.array(np.nan)), 2.0)
    assert np.isnan(x).all()


UPDATES = [
    "sgd",
    "asgd",
    "adam",
    "adamax",
    "nadam",
    "radam",
    "lion",
    "adagrad",
    "rmsprop",
    "adadelta",
    "rprop",
    "adasecant",
]
COVERS = {**dict.fromkeys(UPDATES, test_updates), "norms": test_norms, "clip_norm": test_clip, "clip_value": test_clip}
