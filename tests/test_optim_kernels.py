"""The fused optimizer updates against torch's formulas, one step at a time over several steps."""

import itertools

import numpy as np
import pytest

from nncore._core import optim, runtime, tensor

from . import reference, shapes, tolerance

from_array = tensor.from_array

STEPS = 4


class Problem:
    """Parameters with gradients and two states each, as arrays in guarded memory and tensors on them.

    `gap` elements lie between neighbours: with 0 they are merged into one chunk."""

    def __init__(self, rng, sizes, dtype, gap=0):
        self.rng, self.dtype = rng, dtype
        self.whole = [shapes.Guarded((sum(sizes) + gap * len(sizes),), dtype) for _ in range(4)]
        self.views = []
        at = 0
        for n in sizes:
            self.views.append(slice(at, at + n))
            at += n + gap
        for k, g in enumerate(self.whole):
            self.holes = np.ones(g.array.size, bool)
            for v in self.views:
                g.array[v] = rng.standard_normal(v.stop - v.start) if k < 2 else 0
                self.holes[v] = False
        self.before = [g.array.copy() for g in self.whole]
        self.tensors = [[from_array(g.array[v]) for v in self.views] for g in self.whole]
        for p, g in zip(*self.tensors[:2]):
            p.grad = g

    def new_gradients(self):
        for v in self.views:
            self.whole[1].array[v] = self.rng.standard_normal(v.stop - v.start)

    def arrays(self):
        """(p, g, state, state) of all parameters together."""
        return [np.concatenate([g.array[v] for v in self.views]) for g in self.whole]

    def check(self, what):
        """Nothing between, before and after the parameters has changed."""
        for g, before in zip(self.whole, self.before):
            g.check(what)
            tolerance.same_bits(g.array[self.holes], before[self.holes], what)


def sgd(problem, options, first):
    params, _, buffers, _ = problem.tensors
    optim.sgd(
        params,
        buffers if options["momentum"] else None,
        options["lr"],
        options["momentum"],
        options["dampening"],
        options["weight_decay"],
        options["nesterov"],
        options["maximize"],
        first,
    )


def adam(problem, options, step):
    params, _, m, v = problem.tensors
    optim.adam(params, m, v, *options.values(), step)


SIZES = ([1], [7, 1, 64, 33], [0, 5, 0], [shapes.CHUNK - 1, 2, shapes.CHUNK + 3], [40000])
SGD = [
    dict(zip(("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"), values))
    for values in itertools.product((0.1,), (0, 0.9), (0, 0.3), (0, 0.01), (False, True), (False, True))
    if not (values[4] and (values[1] == 0 or values[2] != 0)) and not (values[2] and not values[1])
]
ADAM = [
    dict(zip(("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled", "maximize"), values))
    for values in itertools.product((0.01,), (0.9, 0.0), (0.999,), (1e-8,), (0, 0.1), (False, True), (False, True))
] + [{"lr": 0.1, "beta1": 0.5, "beta2": 0.0, "eps": 1e-3, "weight_decay": 0.0, "decoupled": False, "maximize": False}]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sgd(isa, dtype, rng, sizes):
    """Every combination of options, over several steps, for few and many parameters."""
    for options in SGD:
        problem = Problem(rng, sizes, dtype, gap=3)
        for step in range(STEPS):
            problem.new_gradients()
            p, g, buf, _ = problem.arrays()
            expected = reference.sgd(p, g, buf, **options, first=step == 0)
            bounds = tolerance.sgd(p, g, buf, **{k: v for k, v in options.items() if k != "maximize"})
            sgd(problem, options, step == 0)
            after = problem.arrays()
            what = f"step {step} of {options}"
            tolerance.close(after[0], expected[0], bounds[0], what)
            tolerance.close(after[2], expected[1], bounds[1], what)
            tolerance.same_bits(after[1], g, what)
            problem.before[1] = problem.whole[1].array.copy()
            problem.check(what)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_adam(isa, dtype, rng, sizes):
    """Adam and AdamW, every combination of options, from the first step to one where the bias has gone."""
    for options in ADAM:
        problem = Problem(rng, sizes, dtype, gap=3)
        for step in (1, 2, 3, 100_000):
            problem.new_gradients()
            p, g, m, v = problem.arrays()
            expected = reference.adam(p, g, m, v, **options, step=step)
            given = [options[k] for k in ("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled")]
            bounds = tolerance.adam(p, g, m, v, expected, *given, step)
            adam(problem, options, step)
            after = problem.arrays()
            what = f"step {step} of {options}"
            for i, (got, want) in enumerate(zip((after[0], after[2], after[3]), expected)):
                tolerance.close(got, want, bounds[i], f"{'pmv'[i]} at {what}")
            tolerance.same_bits(after[1], g, what)
            problem.before[1] = problem.whole[1].array.copy()
            problem.check(what)


def updates(problem):
    """One step of each kernel."""
    sgd(problem, SGD[-1], False)
    adam(problem, ADAM[3], 2)
    return problem.arrays()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_merging_and_position_do_not_matter(isa, dtype, rng, sizes):
    """Neighbours in memory (updated as one stretch), strangers, and parameters alone: the same bits."""
    state = rng.bit_generator.state
    together = updates(Problem(rng, sizes, dtype, gap=0))
    rng.bit_generator.state = state
    apart = Problem(rng, sizes, dtype, gap=5)
    for a, b in zip(updates(apart), together):
        tolerance.same_bits(a, b)
    apart.check("apart")
    rng.bit_generator.state = state
    single = Problem(rng, sizes, dtype, gap=1)
    tensors = single.tensors
    for i in range(len(sizes)):
        single.tensors = [t[i : i + 1] for t in tensors]
        updates(single)
    for a, b in zip(single.arrays(), together):
        tolerance.same_bits(a, b)


def test_threads(isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits and all take part, whatever the parameters' sizes."""
    sizes = [3 * shapes.CHUNK + 5, 1, 700, 2 * shapes.CHUNK]
    chunks = -(-sum(sizes) // shapes.CHUNK)
    state = rng.bit_generator.state
    runtime.set_num_threads(1)
    expected = updates(Problem(rng, sizes, dtype, gap=2))
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        rng.bit_generator.state = state
        problem = Problem(rng, sizes, dtype, gap=2)
        for step in (lambda: sgd(problem, SGD[-1], False), lambda: adam(problem, ADAM[3], 2)):
            runtime.threads_used(True)
            step()
            assert runtime.threads_used(True) == min(threads, chunks)
        for a, b in zip(problem.arrays(), expected):
            tolerance.same_bits(a, b, f"{threads} threads")


def test_nan_and_infinity(isa, dtype, rng):
    """A NaN in a gradient reaches its own element of everything, and no other."""
    for update in (lambda q: sgd(q, SGD[-1], False), lambda q: adam(q, ADAM[0], 1)):
        problem = Problem(rng, [50], dtype)
        problem.whole[1].array[17] = np.nan
        update(problem)
        p, _, m, _ = problem.arrays()
        assert np.flatnonzero(np.isnan(p)).tolist() == np.flatnonzero(np.isnan(m)).tolist() == [17]


def test_zero_gradient(isa, dtype, rng):
    """Adam divides 0 by eps, not by 0: a gradient that was always 0 leaves its parameter as it is."""
    problem = Problem(rng, [37], dtype)
    problem.whole[1].array[:] = 0
    p = problem.arrays()[0]
    adam(problem, {**ADAM[0], "weight_decay": 0}, 1)
    tolerance.same_bits(problem.arrays()[0], p)


def test_strided_gradients(isa, dtype, rng):
    """A gradient of any layout gives the bits of a row-major one."""
    p, g = (rng.standard_normal((6, 7)).astype(dtype) for _ in range(2))
    results = []
    for make in shapes.LAYOUTS.values():
        t = from_array(p.copy())
        t.grad = from_array(make(g))
        optim.sgd([t], None, 0.1, 0, 0, 0.01, False, False, True)
        results.append(np.asarray(t))
    for r in results[1:]:
        tolerance.same_bits(r, results[0])


@pytest.mark.parametrize("layout", ["column-major", "every second", "backwards"])
def test_strided_parameters(dtype, rng, layout):
    """A parameter that is not row-major is updated where its elements are, or refused: never written elsewhere."""
    p, g = (rng.standard_normal((5, 6)).astype(dtype) for _ in range(2))
    guarded = shapes.Guarded(p.shape, dtype, layout)
    guarded.array[...] = p
    t = guarded.tensor
    t.grad = from_array(g)
    try:
        optim.sgd([t], None, 0.5, 0, 0, 0, False, False, True)
    except ValueError:
        tolerance.same_bits(guarded.array, p)
    else:
        tolerance.close(
            guarded.array, reference.wide(p) - 0.5 * reference.wide(g), np.finfo(dtype).eps * (np.abs(p) + np.abs(g))
        )
    guarded.check(layout)


def test_writes_are_counted(rng):
    """An update bumps every parameter's version; read-only memory is refused and nothing is updated."""
    problem = Problem(rng, [3, 4], np.float32)
    params = problem.tensors[0]
    before = [p._storage.version for p in params]
    sgd(problem, SGD[0], True)
    assert [p._storage.version for p in params] == [v + 1 for v in before]
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    t = from_array(fixed)
    t.grad = from_array(np.ones(3, np.float32))
    values = problem.arrays()[0]
    with pytest.raises(ValueError, match="read-only"):
        optim.sgd([params[0], t], None, 0.1, 0, 0, 0, False, False, True)
    tolerance.same_bits(problem.arrays()[0], values)


def test_no_parameters():
    """An empty list is nothing to do."""
    optim.sgd([], None, 0.1, 0, 0, 0, False, False, True)
    optim.adam([], [], [], 0.1, 0.9, 0.999, 1e-8, 0, False, False, 1)


COVERS = {"sgd": test_sgd, "adam": test_adam}
