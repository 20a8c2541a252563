"""nncore.compile: the bits of eager execution, what takes effect between calls, errors with their line, memory."""

import abc
import collections
import copy
import dataclasses
import enum
import functools
import gc
import itertools
import math
import pickle
import resource
import sys
import threading
import time
import types
import weakref

import numpy as np
import pytest
from nncore._core.record import active

import nncore
from nncore import RecordError, nn, no_grad, optim, train
from nncore._core import runtime
from nncore._ops import _check
from nncore.nn import functional as F

from . import test_gradients, test_optim
from .conftest import ISAS
from .shapes import slack_is_visible

CALLS = 5  # of each compiled function: two are recorded, three replayed


def bits(value):
    """A result, or any structure of tensors, as something that is equal for equal bits."""
    if isinstance(value, nncore.Tensor):
        a = value.detach().numpy()
        return a.dtype.str, a.shape, a.tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple | list):
        return tuple(map(bits, value))
    if isinstance(value, dict):
        return tuple((k if isinstance(k, str) else "", bits(v)) for k, v in value.items())
    return repr(value)


def state_of(things):
    """Parameters, buffers, gradients and optimizer states."""
    found = []
    for t in things:
        if isinstance(t, nn.Module):
            found += [t.state_dict(), [p.grad for p in t.parameters()]]
        elif isinstance(t, optim.Optimizer):
            found.append(t.state_dict()["state"])
        else:
            found += [t, t.grad]
    return bits([*found, *nncore.get_rng_state()])


def history(make, calls, between, compiled, options):
    """What can be observed after each call of a function made anew; and the function."""
    nncore.manual_seed(7)
    fn, *things = make()
    run = nncore.compile(fn, **options) if compiled else fn
    seen, plans = [], set()
    for i, args in enumerate(calls):
        if between is not None:
            between(i, *things)
        result = run(*args)
        if not compiled and not options.get("keep_grads"):
            for t in things:
                if isinstance(t, optim.Optimizer):
                    t.zero_grad()  # after an update, a compiled step leaves none
        seen.append((bits(result), state_of(things)))
        plans.add(run.plan if compiled else None)
    return seen, run, plans


def assert_agrees(make, calls, *, between=None, replays=None, **options):
    """Asserts that compiling changes nothing that can be observed; gives the compiled function.

    make: () -> (function, models, optimizers, tensors it works on); calls: the arguments of each call;
    between: called before each call with its number and what `make` gave.
    """
    want, *_ = history(make, calls, between, False, options)
    got, run, plans = history(make, calls, between, True, options)
    for i, (a, b) in enumerate(zip(want, got, strict=True)):
        assert a[0] == b[0], f"result of call {i}"
        assert a[1] == b[1], f"state after call {i}"
    assert sum(p.replays for p in plans) == (len(calls) - 2 if replays is None else replays)
    return run


def replayed(run):
    """Replays of all plans of a compiled function."""
    return sum(p.replays for p in run.plans)


def randn(*shape, dtype=np.float32, seed=0):
    return nncore.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def classes(n, k, seed=0):
    return nncore.tensor(np.random.default_rng(seed).integers(0, k, n))


def batches(n=CALLS, dtype=np.float32, rows=6, width=5, k=3):
    return [(randn(rows, width, dtype=dtype, seed=i), classes(rows, k, seed=i)) for i in range(n)]


def mlp(dtype=np.float32, width=5, k=3):
    return nn.Sequential(nn.Linear(width, 7), nn.Tanh(), nn.Linear(7, k)).to(dtype)


def classifier(net=mlp, make_optimizer=optim.Adam):
    """make: a step of a classifier with cross-entropy."""

    def make():
        model = net()
        optimizer = make_optimizer(model.parameters())

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step, model, optimizer

    return make


# ---- every operation, layer and optimizer ----


NEVER = {"F.dropout", "F.dropout1d", "F.dropout2d", "F.dropout3d", "F.alpha_dropout", "F.feature_alpha_dropout"}
NEVER |= {"F.gaussian_noise"}
# are seeded in the table (nn.Dropout is recorded below), and the table's bags have offsets, which are read
NEVER |= {"nn.EmbeddingBag"}

# What cannot be recorded, and what the error says.
REFUSED = {
    "F.dropout": "seed",
    "F.rrelu": "seed",
    "embedding_bag": "offsets",
    "EmbeddingBag": "offsets",
    "alpha_dropout": "seed",
    "gaussian_noise": "seed",
}


def cotangents_of(fn, arrays):
    with no_grad():
        out = fn(*arrays)
    out = out if isinstance(out, tuple | list) else (out,)
    return [randn(*t.shape, dtype=t.dtype, seed=i) for i, t in enumerate(out) if t.dtype.kind == "f"]


def pull(out, cotangents):
    """A number whose gradient is the cotangents'."""
    out = [t for t in (out if isinstance(out, tuple | list) else (out,)) if t.dtype.kind == "f"]
    total = None
    for t, c in zip(out, cotangents, strict=True):
        part = (t * c).sum()
        total = part if total is None else total + part
    return total


def assert_agrees_or_refuses(name, make):
    """assert_agrees, unless the function does what cannot be recorded; then the error says so."""
    try:
        assert_agrees(make, [()] * CALLS)
    except RecordError as e:
        expected = [m for part, m in REFUSED.items() if part in name]
        if not any(m in str(e) for m in expected):
            raise
        assert not active()
        return False
    return True


RECORDED = []
ON = list(zip(test_gradients.CASES, itertools.cycle(ISAS)))  # each on one of the instruction sets


@pytest.mark.parametrize("name, isa", ON, ids=[f"{n} {i}" for n, i in ON])
def test_operation(name, isa, monkeypatch):
    """Forward and backward of each operation; gradients are written anew by each call, and stay visible. The functions
    of the table use arrays of NumPy, which never change: here they may."""
    monkeypatch.setattr(_check, "record", types.SimpleNamespace(current=lambda: None))
    runtime.set_isa(isa)
    fn, arrays = test_gradients.CASES[name]
    cotangents = cotangents_of(fn, [nncore.tensor(np.asarray(a, np.float64)) for a in arrays])

    def make():
        leaves = [nncore.tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]

        def step():
            for x in leaves:
                x.grad = None
            out = fn(*leaves)
            pull(out, cotangents).backward()
            return out

        return step, *leaves

    if assert_agrees_or_refuses(name, make):
        RECORDED.append(name.split(" ")[0])


def of_dtype(value, dtype):
    """Floating tensors and arrays in this dtype, in tuples too."""
    if isinstance(value, tuple):
        return tuple(of_dtype(v, dtype) for v in value)
    value = value if isinstance(value, nncore.Tensor) else nncore.tensor(np.asarray(value))
    return value.to(dtype) if value.dtype.kind == "f" else value


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", test_gradients.MODULES)
def test_module(name, dtype, isa):
    """Each layer as a part of a training step, behind a scale that is trained too."""
    build, arrays = test_gradients.MODULES[name]
    args = tuple(of_dtype(a, dtype) for a in arrays)
    cotangents = cotangents_of(build().to(dtype), args)

    def make():
        model = build().to(dtype)
        scale = nn.Parameter(nncore.ones(1, dtype=dtype))
        optimizer = optim.SGD([*model.parameters(), scale], lr=0.01, momentum=0.9)

        def step():
            optimizer.zero_grad()
            out = model(args[0] * scale if args[0].dtype == dtype else args[0], *args[1:])
            out = scale * out if scale.grad_fn is None and args[0].dtype != dtype else out
            pull(out, cotangents).backward()
            optimizer.step()
            return out

        return step, model, scale, optimizer

    if assert_agrees_or_refuses(name, make):
        RECORDED.append(name.split(" ")[0])


def test_most_can_be_recorded():
    """The tests above are not passed by refusing."""
    if not RECORDED:
        pytest.skip("the tests above did not run")
    everything = {n.split(" ")[0] for n in [*test_gradients.CASES, *test_gradients.MODULES]}
    assert everything - set(RECORDED) <= NEVER


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind, options", test_optim.VARIANTS, ids=test_optim.IDS)
def test_optimizer(kind, options, dtype, isa):
    """Two groups; the state and the counters are those of eager steps."""

    def make_optimizer(parameters):
        p = list(parameters)
        return getattr(optim, kind)([{"params": p[:1]}, {"params": p[1:], "lr": 0.02}], **options)

    run = assert_agrees(classifier(lambda: mlp(dtype), make_optimizer), batches(8, dtype))
    assert run.plan.replays == 6


# ---- steps ----


def test_gan():
    """Two networks and two optimizers in one step, with noise drawn inside."""

    def make():
        g, d = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)), mlp(width=3, k=1)
        og, od = optim.Adam(g.parameters(), lr=0.01), optim.SGD(d.parameters(), lr=0.1, momentum=0.9)

        def step(real):
            fake = g(nncore.randn(4, 2))
            od.zero_grad()
            loss_d = ((d(real) - 1).square() + d(fake.detach()).square()).mean()
            loss_d.backward()
            od.step()
            og.zero_grad()
            loss_g = (d(fake) - 1).square().mean()
            loss_g.backward()
            og.step()
            od.zero_grad()
            return {"d": loss_d, "g": [loss_g, fake]}

        return step, g, d, og, od

    assert_agrees(make, [(randn(4, 3, seed=i),) for i in range(7)])


def test_shared_weights():
    def make():
        layer = nn.Linear(4, 4)
        net = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)
        optimizer = optim.Adam(net.parameters())

        def step(x):
            optimizer.zero_grad()
            loss = (net(x) @ layer.weight).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return step, net, optimizer

    assert_agrees(make, [(randn(3, 4, seed=i),) for i in range(6)])


def test_convnet(isa):
    """Images, channels-last inside; clipping; dropout."""

    def make():
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2, 2), nn.Tanh(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.4), nn.Linear(3, 3),
        )  # fmt: skip
        optimizer = optim.AdamW(net.parameters())

        def step(x, y):
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            nn.utils.clip_grad_value_(net.parameters(), 0.1)
            optimizer.step()
            return loss, norm

        return step, net, optimizer

    assert_agrees(make, [(randn(4, 2, 8, 8, seed=i), classes(4, 3, seed=i)) for i in range(6)])


def test_mixed_dtypes_are_clipped():
    """Norms of parameters of two dtypes go to one place, by kernels."""

    def make():
        a, b = nn.Linear(3, 2), nn.Linear(2, 2).double()
        optimizer = optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)

        def step(x):
            optimizer.zero_grad()
            b(a(x).double()).square().sum().backward()
            norm = nn.utils.clip_grad_norm_([*a.parameters(), *b.parameters()], 0.1)
            optimizer.step()
            return norm

        return step, a, b, optimizer

    assert_agrees(make, [(randn(4, 3, seed=i),) for i in range(5)])


def test_shapes_may_change():
    calls = [batches(1, rows=r)[0] for r in (6, 3, 6, 3, 6, 3, 6, 3, 0 + 1, 6)]
    assert_agrees(classifier(), calls, replays=10 - 5)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "betas", "maximize"])
def test_options_take_effect(name):
    values = {"lr": lambda i: 0.1 / (i + 1), "weight_decay": lambda i: 0.1 * i, "maximize": lambda i: i % 2 == 1}
    values["betas"] = lambda i: (0.5, 0.9 - 0.1 * i)

    def between(i, model, optimizer):
        optimizer.param_groups[0][name] = values[name](i)

    assert_agrees(classifier(), batches(6), between=between)


def test_options_that_need_other_state():
    """Momentum, or AMSGrad, switched on between calls: a new plan."""

    def between(i, model, optimizer):
        if i == 4:
            optimizer.param_groups[0]["amsgrad"] = True

    assert_agrees(classifier(), batches(8), between=between, replays=2 + 2)


def test_state_dicts_take_effect():
    other = mlp().state_dict()
    saved = {}

    def between(i, model, optimizer):
        if i == 2:
            saved["optimizer"] = copy.deepcopy(optimizer.state_dict())
        if i == 4:
            model.load_state_dict(other)
        if i == 5:
            optimizer.load_state_dict(saved["optimizer"])

    run = assert_agrees(classifier(), batches(9), between=between, replays=3 + 2)
    assert len(run.plans) == 1, "the plan for the former state never fits again"


OF_OPTIMIZERS = {
    "state": lambda w, v, o: setattr(o, "state", {}),
    "state cleared": lambda w, v, o: o.state.clear(),
    "state of one": lambda w, v, o: o.state.pop(w),
    "a tensor of the state": lambda w, v, o: o.state[w].update(exp_avg=nncore.zeros(3)),
    "a count": lambda w, v, o: [s.update(step=0) for s in o.state.values()],
    "a group": lambda w, v, o: o.param_groups.__setitem__(0, {**o.param_groups[0], "lr": 0.5}),
    "groups": lambda w, v, o: setattr(o, "param_groups", [{**o.param_groups[0], "lr": 0.5}]),
    "fewer parameters": lambda w, v, o: o.state.pop(o.param_groups[0]["params"].pop()),
    "other parameters": lambda w, v, o: (o.param_groups[0].update(params=[w]), o.state.pop(v)),
}


@pytest.mark.parametrize("name", OF_OPTIMIZERS)
def test_an_optimizer_s_state_and_groups_take_effect(name):
    def make():
        w, v = nn.Parameter(nncore.ones(3)), nn.Parameter(nncore.ones(3))
        optimizer = optim.Adam([w, v], lr=0.1)

        def step(x):
            w.grad = v.grad = None
            (w * w * v * x).sum().backward()
            optimizer.step()
            w.grad = v.grad = None

        return step, w, v, optimizer

    def between(i, w, v, optimizer):
        if i == 4:
            OF_OPTIMIZERS[name](w, v, optimizer)

    assert_agrees(make, [(randn(3, seed=i),) for i in range(8)], between=between, replays=6 if name == "a count" else 4)


def test_a_bad_option_changes_nothing():
    """In a replay, too, the error names it, and no group has been updated or counted."""
    w, v = nn.Parameter(nncore.ones(3)), nn.Parameter(nncore.ones(3))
    optimizer = optim.Adam([{"params": [w]}, {"params": [v], "lr": 0.1}])

    @nncore.compile
    def step(x):
        optimizer.zero_grad()
        (w * v * x).sum().backward()
        optimizer.step()

    for _ in range(4):
        step(nncore.ones(3))
    for option, bad, good in (("lr", "0.1", 0.2), ("betas", (0.9, "x"), (0.9, 0.99)), ("betas", (0.9,), (0.8, 0.9))):
        before = bits([w, v]), bits(optimizer.state_dict()["state"])
        optimizer.param_groups[1][option] = bad
        with pytest.raises((TypeError, ValueError), match=option):
            step(nncore.ones(3))
        assert before == (bits([w, v]), bits(optimizer.state_dict()["state"]))
        optimizer.param_groups[1][option] = good
        step(nncore.ones(3))
    assert step.plan.replays == 5


def test_train_and_eval():
    def between(i, model, optimizer):
        model.train(i not in (3, 4, 5))

    def net():
        return nn.Sequential(nn.Linear(5, 9), nn.Dropout(0.5), nn.Linear(9, 3))

    assert_agrees(classifier(net), batches(10), between=between, replays=10 - 4)


def test_freezing_takes_effect():
    def between(i, model, optimizer):
        if i in (3, 6):
            model[0].requires_grad_(i == 6)
            model.zero_grad()

    assert_agrees(classifier(), batches(9), between=between, replays=9 - 6)  # thawed ones are behind


def test_freezing_a_bare_tensor_takes_effect():
    def make():
        w = randn(3, 2, seed=9).requires_grad_()
        v = randn(2, 2, seed=8).requires_grad_()

        def step(x):
            w.grad = v.grad = None
            loss = (x @ w @ v).square().sum()
            loss.backward()
            return loss

        return step, w, v

    def between(i, w, v):
        if i == 3:
            v.requires_grad = False
            v.grad = None

    assert_agrees(make, [(randn(4, 3, seed=i),) for i in range(6)], between=between, replays=1 + 1)


def test_attributes_take_effect():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.factor = nn.Linear(5, 3), 2.0

        def forward(self, x):
            return self.layer(x) * self.factor

    def between(i, model, optimizer):
        model.factor = 2.0 if i < 3 else 3.0

    assert_agrees(classifier(Scaled), batches(7), between=between, replays=1 + 2)


def test_added_group():
    def make():
        a, b = nn.Linear(5, 5), nn.Linear(5, 3)
        optimizer = optim.Adam(a.parameters())

        def step(x, y):
            optimizer.zero_grad()
            b.zero_grad()
            loss = F.cross_entropy(b(a(x)), y)
            loss.backward()
            optimizer.step()
            b.zero_grad()
            return loss

        return step, a, b, optimizer

    def between(i, a, b, optimizer):
        if i == 3:
            optimizer.add_param_group({"params": list(b.parameters()), "lr": 0.1})

    assert_agrees(make, batches(7), between=between, replays=1 + 2)


def test_weights_written_between_inferences(isa):
    """Packed weights are packed anew after each write."""

    def make():
        model = nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
        return model, model

    def between(i, model):
        if i in (3, 5):
            model[0].weight.copy_(randn(40, 5, seed=i))
        if i == 6:
            model[2].weight[0] = 1.0

    nncore.manual_seed(0)
    with no_grad():
        assert_agrees(make, [(x,) for x, _ in batches(9)], between=between)


@pytest.mark.parametrize("layer", ["direct", "winograd", "depthwise", "few", "linear"])
def test_packing_anew_uses_the_plan_s_own_memory(isa, layer):
    """What packing reads besides the weight, and its scratch memory, are not the recorded call's: they are gone."""
    model = {
        "direct": lambda: nn.Conv2d(24, 40, (3, 2), stride=2),
        "winograd": lambda: nn.Conv2d(24, 40, 3, padding=1),
        "depthwise": lambda: nn.Conv2d(24, 24, 3, groups=24),
        "few": lambda: nn.Conv2d(24, 3, 3),
        "linear": lambda: nn.Linear(9, 70),
    }[layer]()
    x, infer = randn(2, 24, 11, 9, seed=1), nncore.compile(model)
    with no_grad():
        for seed in range(6):
            model.weight.copy_(randn(*model.weight.shape, seed=seed))
            for _ in range(2):
                found = infer(x)
                spoilt = [bytes([255] * n) for n in range(8, 512, 8) for _ in range(8)]  # reuses what was freed
                spoilt += [nncore.full((n,), math.nan) for n in (16, 1000, 50000, 300000)]
                assert bits(found) == bits(model(x))
                del spoilt
    assert infer.plan.replays == 10


def test_training_and_inference_of_one_model():
    nncore.manual_seed(3)
    fn, model, _optimizer = classifier()()
    step, infer = nncore.compile(fn), nncore.compile(model)
    x, y = batches(1)[0]
    for _ in range(6):
        step(x, y)
        with no_grad():
            assert bits(infer(x)) == bits(model(x))
    assert step.plan.replays == infer.plan.replays == 4


def test_gradients_accumulate_inside():
    def make():
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(xs, ys):
            optimizer.zero_grad()
            total = 0
            for x, y in zip(xs, ys):
                loss = F.cross_entropy(model(x), y) / len(xs)
                loss.backward()
                total = total + loss.detach()
            optimizer.step()
            return total

        return step, model, optimizer

    parts = [tuple(zip(*batches(3))), tuple(zip(*batches(3, rows=6)[::-1]))]
    assert_agrees(make, [parts[i % 2] for i in range(6)])


def test_gradients_accumulate_over_calls():
    """Nobody clears .grad between some calls: they add to it, where it is."""

    def make():
        model = mlp()

        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return step, model

    assert_agrees(make, batches(8), replays=8 - 3)

    def between(i, model):
        if i % 2 == 0:
            model.zero_grad()

    assert_agrees(make, batches(6), between=between, replays=2)


def test_gradients_accumulate_over_many_calls():
    """Wherever .grad is by then: one plan for the first gradient, one to add to it, one that updates."""
    seen = []
    for compiled in (False, True):
        nncore.manual_seed(0)
        model = mlp()
        optimizer = optim.Adam(model.parameters())

        def add(x, y, model=model):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        def last(x, y, add=add, optimizer=optimizer):
            loss = add(x, y)
            optimizer.step()
            optimizer.zero_grad()
            return loss

        add_, last_ = (nncore.compile(add), nncore.compile(last)) if compiled else (add, last)
        found, others = [], []
        for _i in range(8):
            found += [bits(add_(*args)) for args in batches(3)]
            others += [nncore.zeros(n) for n in (3, 7, 21, 35)]  # new gradients lie elsewhere
            found += [bits([p.grad for p in model.parameters()]), bits(last_(*batches(1)[0])), state_of([model])]
        seen.append(found)
    assert seen[0] == seen[1]
    assert [len(add_.plans), replayed(add_)] == [2, 8 * 3 - 4]
    assert [len(last_.plans), replayed(last_)] == [1, 8 - 2]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("clear", ["inside", "none", "zeros"])
def test_an_update_apart_from_backward(clear, clip):
    """Gradients of eager code are read where they are; memory that somebody else knows is another plan's."""
    seen = []
    for compiled in (False, True):
        nncore.manual_seed(0)
        model = mlp()
        optimizer = optim.Adam(model.parameters())

        def update(model=model, optimizer=optimizer):
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1) if clip else None
            optimizer.step()
            if clear == "inside":
                optimizer.zero_grad()
            return norm

        run = nncore.compile(update) if compiled else update
        found, kept = [], []
        for i, (x, y) in enumerate(batches(9)):
            if clear != "inside":
                optimizer.zero_grad(clear == "none")
            F.cross_entropy(model(x), y).backward()
            kept += [p.grad for p in model.parameters()] if i == 5 else []
            found += [bits(run()), state_of([model, optimizer]), bits(kept)]
        seen.append(found)
    assert seen[0] == seen[1]
    assert replayed(run) >= 9 - 4


def test_gradients_given_from_outside():
    """Assigned between calls, or inside; read before they are cleared."""

    def make():
        w, v, saved = nn.Parameter(randn(3)), nn.Parameter(randn(3)), randn(3, seed=4)
        w.grad, v.grad = nncore.ones(3), nncore.ones(3)
        optimizer = optim.SGD([w], lr=0.1)

        def step(x):
            norm = w.grad.square().sum()
            v.grad = saved
            optimizer.step()
            optimizer.zero_grad()
            (w * x).square().sum().backward()
            return norm

        return step, w, v

    def between(i, w, v):
        if i in (3, 5):
            w.grad = randn(3, seed=i)
        v.grad = randn(3, seed=i)

    assert_agrees(make, [(randn(3, seed=i),) for i in range(8)], between=between)


def test_an_update_before_its_backward():
    """Gradients made after the update stay for the next one."""

    def make():
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x, y):
            optimizer.step()
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return step, model

    assert_agrees(make, batches(7), replays=7 - 3)


def test_gradients_of_what_is_made_inside():
    """Tensors and layers made inside go with the call, and their gradients."""
    model = nn.Linear(3, 2)

    def attack(x, y):
        z = x.detach().clone().requires_grad_()
        F.cross_entropy(model(z), y).backward()
        model.zero_grad()
        return x + z.grad * 0.1

    def alias(x, y):
        z = x.detach().requires_grad_()
        F.cross_entropy(model(z), y).backward()
        model.zero_grad()
        return z.grad, x + z.grad.tanh()

    def kept(x, y):
        h = model(x)
        h.retain_grad()
        F.cross_entropy(h, y).backward()
        model.zero_grad()
        return h.grad

    def layer(x, y):
        head = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        F.cross_entropy(head(x), y).backward()
        return head[0].weight.grad, head[2].bias

    for f in (attack, alias, kept, layer):
        assert_agrees(lambda f=f: (f, model), [(randn(4, 3, seed=i), classes(4, 2, seed=i)) for i in range(6)])


@pytest.mark.parametrize("where", ["before", "after", "outside"])
def test_gradients_set_to_zero(where):
    """zero_grad(set_to_none=False) leaves what it leaves in eager code: zeros, to which later calls add."""

    def make():
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

        def step(x, y):
            if where == "before":
                optimizer.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if where == "after":
                model.zero_grad(set_to_none=False)
            return loss

        return step, model, optimizer

    def between(i, model, optimizer):
        if where == "outside":
            optimizer.zero_grad(set_to_none=False)

    seen = []
    for compiled in (False, True):
        nncore.manual_seed(7)
        step, model, optimizer = make()
        run, found = nncore.compile(step) if compiled else step, []
        for batch in batches(8):
            between(0, model, optimizer)
            found += [bits(run(*batch)), bits(optimizer.state_dict()["state"]), bits(model.state_dict())]
            found.append(bits([p.grad for p in model.parameters()]) if where == "after" else None)
        seen.append(found)
    assert seen[0] == seen[1]
    assert replayed(run) == 8 - 3


@pytest.mark.parametrize("inside", [True, False])
def test_zeros_of_unused_parameters(inside):
    """Parameters that one plan does not use keep moving by momentum and weight decay, as their gradients are zeros."""

    def make():
        heads = {"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}
        parameters = [p for h in heads.values() for p in h.parameters()]
        optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)

        def step(x, name):
            if inside:
                optimizer.zero_grad(set_to_none=False)
            loss = heads[name](x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        return step, parameters, optimizer

    seen, names = [], "aaaabababababbbbbbaaaa"
    for compiled in (False, True):
        nncore.manual_seed(3)
        step, parameters, optimizer = make()
        run, found = nncore.compile(step) if compiled else step, []
        x = nncore.randn(4, 3)
        for name in names:
            if not inside:
                optimizer.zero_grad(set_to_none=False)
            found += [bits(run(x, name)), bits(parameters)]
        seen.append(found)
    assert seen[0] == seen[1]
    assert sum(p.replays for p in run.plans) >= len(names) - 9


def test_rows_by_tensors():
    """Indices on the first axes, of integers too, are read by each replay, and checked."""

    def f(x, labels, i, j):
        return x[i], labels[i], x[i, j], labels[i, j], x[i, j, j], x[i, j].sum(), (x[i] + x[j]).sum()

    x, labels = randn(3, 4, 3), nncore.tensor(np.arange(12).reshape(3, 4))
    run = nncore.compile(f)
    for n in range(CALLS + 2):
        i, j = nncore.tensor([n % 3, -1, 0, -3, 2]), classes(5, 3, seed=n)
        want = [np.asarray(x)[np.asarray(i)], np.asarray(labels)[np.asarray(i)]]
        want += [np.asarray(a)[np.asarray(i), np.asarray(j)] for a in (x, labels)]
        want.append(np.asarray(x)[np.asarray(i), np.asarray(j), np.asarray(j)])
        got = run(x, labels, i, j)
        assert bits(got) == bits(f(x, labels, i, j))
        assert bits(list(got[:5])) == bits(want)
    assert run.plan.replays == CALLS
    for bad in (nncore.tensor([0, 1, 2, 3, 0]), nncore.tensor([0, 1, -4, 2, 0])):
        for args in ((x, labels, bad, j), (x, labels, j, bad)):
            with pytest.raises(IndexError, match=r"index: expected indices from -[34] to [23], got") as e:
                f(*args)
            with pytest.raises(IndexError, match="index: expected indices") as other:
                run(*args)
            assert str(e.value) == str(other.value)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_freezing_for_a_while(first):
    """Step counts that differ from then on are another plan's: each call is an eager one's, and later ones replay."""

    def make():
        w, v = nn.Parameter(nncore.ones(3)), nn.Parameter(nncore.ones(3))
        optimizer = optim.Adam([w, v])

        def step(x):
            optimizer.zero_grad()
            loss = (w * v * x).sum()
            loss.backward()
            optimizer.step()
            return loss

        return step, w, v, optimizer

    def between(i, w, v, optimizer):
        w.requires_grad = i != first

    run = assert_agrees(
        make, [(randn(3, seed=i),) for i in range(9)], between=between, replays=(9 - 3, 9 - 4, 9 - 5)[first]
    )
    assert run.plan.replays >= 4


def test_a_mistake_is_forgotten_two_calls_later():
    """What changed once is no reason to fail for ever."""
    numbers = iter([1.0, 2.0, 2.0, 2.0, 2.0])
    f = nncore.compile(lambda x: x * next(numbers))
    x = nncore.ones(2)
    f(x)
    with pytest.raises(RecordError, match="the same work"):
        f(x)
    assert [f(x).tolist() for _ in range(2)] == [[2.0, 2.0]] * 2
    assert f.plan.replays == 1


def test_arguments_that_share_memory_with_what_is_written():
    """A compiled function copies its arguments first; eager code would see the write."""
    state, other = nncore.zeros(2, 3), nncore.ones(3)
    array = np.zeros(3, np.float32)
    mine = nncore.from_numpy(array)

    def f(x):
        state.add_(1)
        mine.add_(2)
        return x + state

    given = (state, state[0], state.detach(), mine, array, array[::-1], np.asarray(state)[1])
    for bad in given:
        with pytest.raises(RecordError, match=r"argument: shares memory.*test_compile\.py"):
            nncore.compile(f)(bad)
    run = nncore.compile(f)
    for good in (other, nncore.ones(2, 3), np.ones(3, np.float32)):
        for _ in range(4):
            run(good)
        assert run.plan.replays == 2
    before = bits([state, mine])
    for bad in given:
        with pytest.raises(RecordError, match="argument: shares memory"):
            run(bad)
    assert bits([state, mine]) == before, "a replay fails before it changes anything"
    run(state[0].clone())
    assert run.plan.replays == 3


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_of_an_update(keep):
    run = assert_agrees(classifier(), batches(5), keep_grads=keep)
    assert run.plan.replays == 3


def test_former_gradients_do_not_stay():
    """A recorded update leaves none, also if eager code left some before."""
    fn, model, _ = classifier()()
    step = nncore.compile(fn)
    for _i in range(5):
        x, y = batches(1)[0]
        F.cross_entropy(model(x), y).backward()
        assert model[0].weight.grad is not None
        step(x, y)
        assert model[0].weight.grad is None
    assert step.plan.replays == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [np.float32, np.float64, np.float16])
def test_arrays_as_arguments(dtype, given):
    """Read at each call, of any floating dtype; the caller may reuse its buffers."""
    x, y = np.empty((6, 5), given), np.empty(6, np.int32)

    def between(i, *_):
        x[:] = np.random.default_rng(i).standard_normal(x.shape)
        y[:] = np.random.default_rng(i).integers(0, 3, 6)

    assert_agrees(classifier(lambda: mlp(dtype)), [(x, y)] * 6, between=between)


def test_constants_are_made_inside():
    """ones, full, zero_ and fill_ write the same number in every replay."""

    def make():
        state = nncore.zeros(3)

        def fn(x):
            y = x * nncore.full((3,), 2.5) + nncore.ones(3)
            before = state.clone()
            state.fill_(0.5).add_(y)
            return y.clone().zero_(), before

        return fn, state

    assert_agrees(make, [(nncore.full((3,), float(i)),) for i in range(CALLS)], replays=3)


def test_layouts_of_arguments():
    """Transposed, stepped and channels-last arguments, and no argument at all."""
    image = F.max_pool2d(randn(2, 3, 4, 4), 2)
    assert image.channels_last

    def make():
        w = nn.Parameter(nncore.ones(3, 2, 2))

        def step(a, b, image=None):
            w.grad = None
            loss = (a @ b).sum() * 1 if image is None else (image * w).square().sum() + (a @ b).sum()
            if image is not None:
                loss.backward()
            return loss, image

        return step, w

    a, b = randn(6, 8).T, randn(12, 5)[::2]
    assert_agrees(make, [(a, b)] * 4)
    run = assert_agrees(make, [(a, b, image)] * 4)
    assert run(a, b, image)[1].channels_last


def test_nested_arguments_and_results():
    def make():
        model = nn.Linear(3, 2)

        def step(batch, *, scale, names=("a", "b")):
            out = model(batch["x"][0]) * scale + batch["x"][1]
            return {names[0]: (out, out.sum()), names[1]: [batch["k"], None, "text"]}

        return lambda b: step(b, scale=0.5), model

    assert_agrees(make, [({"x": (randn(4, 3, seed=i), randn(4, 2, seed=i)), "k": 3},) for i in range(5)])


@dataclasses.dataclass(frozen=True)
class Losses:
    total: object
    parts: dict
    name: str = "x"


def typed(value):
    """A structure as something that is equal for equal bits and types."""
    mine = value.__dict__ if type(value).__dictoffset__ else {"a": value.a} if isinstance(value, Slots) else {}
    attributes = mine is value or {k: typed(v) for k, v in mine.items()}
    if dataclasses.is_dataclass(value):
        return type(value), [typed(getattr(value, f.name, "unset")) for f in dataclasses.fields(value)], attributes
    if isinstance(value, dict):
        items = [(k, typed(v)) for k, v in value.items()]
        return type(value), getattr(value, "default_factory", None), items, attributes
    return (type(value), [typed(v) for v in value], attributes) if isinstance(value, tuple | list) else bits(value)


def test_structures_keep_their_type():
    """Of arguments and of results; a dict of another type is another kind."""
    Pair = collections.namedtuple("Pair", "a b")

    def f(batch):
        parts = collections.defaultdict(list, {type(batch).__name__: [batch["x"] * 2]})
        parts["list"].append(batch["pair"].a)
        return collections.OrderedDict(b=Losses(batch["x"].sum(), parts), a=batch["pair"], c=dict(batch))

    run = nncore.compile(f)
    for kind in (dict, collections.OrderedDict):
        for i in range(CALLS):
            batch = kind(x=randn(3, seed=i), pair=Pair(randn(2, seed=i), 3))
            assert typed(run(batch)) == typed(f(batch))
        assert run.plan.replays == CALLS - 2


class ReadOnly(dict):
    def __setitem__(self, key, value):
        raise TypeError("read-only")

    update = __setitem__


class Attributes(dict):
    """Its entries are attributes, too."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__.update(items)


class Own(dict):
    """The same, in one dict."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


class Output(collections.OrderedDict):
    """The same, kept equal by its methods."""

    def __init__(self, **items):
        super().__init__()
        for k, v in items.items():
            self[k] = v

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        object.__setattr__(self, key, value)


class Slots(list):
    __slots__ = ("a", "unset")

    def __init__(self, a):
        super().__init__([a])
        self.a = a

    def __getattr__(self, name):
        raise KeyError(name)


class Named(collections.namedtuple("Named", "a")):
    """Another signature, and attributes."""

    def __new__(cls, *, a):
        made = super().__new__(cls, a)
        made.twice = [a, a]
        return made


@dataclasses.dataclass
class Fields:
    a: object
    unset: object = dataclasses.field(init=False)

    def __post_init__(self):
        self.same = self.a


def moved_to_end(a):
    made = collections.OrderedDict(a=a, b=3)
    made.move_to_end("a")
    return made


STRUCTURES = {
    "Counter": lambda a: collections.Counter(a=a, b=3),
    "defaultdict": lambda a: collections.defaultdict(int, a=a, b=3),
    "moved_to_end": moved_to_end,
    "ReadOnly": lambda a: ReadOnly(a=a),
    "Attributes": lambda a: Attributes(a=a, b=3),
    "Own": lambda a: Own(a=a),
    "Output": lambda a: Output(a=a, b=3),
    "Slots": Slots,
    "Named": lambda a: Named(a=a),
    "Fields": Fields,
    "Losses": lambda a: Losses(a, {"a": (a, 2)}),
}


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_structures_with_methods_of_their_own(make):
    """They are taken apart and put together without these, as arguments and as results; attributes follow as well."""
    values = [randn(3, seed=i) for i in range(CALLS)]
    back = nncore.compile(lambda x: make(x * 2))
    through = nncore.compile(lambda s: (s, s))
    for x in values:
        assert typed(back(x)) == typed(make(x * 2))
        assert typed(through(make(x))) == typed((make(x),) * 2)
    assert back.plan.replays == through.plan.replays == CALLS - 2
    assert len(through.plans) == 1


def test_attributes_of_arguments():
    """A tensor in one is read at each call, a number is part of the kind."""
    f = nncore.compile(lambda s: s.a * s.b)
    for kind in (Attributes, Own, Output):
        for b in (2, 3):
            for i in range(CALLS):
                assert bits(f(kind(a=randn(3, seed=i), b=b))) == bits(randn(3, seed=i) * b)
            assert f.plan.replays == CALLS - 2


scale = 2


@dataclasses.dataclass
class Scaled:
    x: object

    def value(self):
        return self.x * scale


def test_methods_of_dataclass_arguments(monkeypatch):
    """What they read by name is watched."""
    f = nncore.compile(lambda s: s.value())
    for factor in (2, 5):
        monkeypatch.setitem(globals(), "scale", factor)
        for i in range(CALLS):
            assert bits(f(Scaled(randn(3, seed=i)))) == bits(randn(3, seed=i) * factor)
        assert f.plan.replays == CALLS - 2


def test_attributes_of_dataclass_arguments_are_not_set():
    """The function has a copy: the caller would not see it."""

    @dataclasses.dataclass
    class Batch:
        x: object
        uses: int = 0

        @nncore.compile
        def use(self):
            self.uses += 1
            return self.x * 2

    batch = Batch(randn(3))
    with pytest.raises(RecordError, match="uses: changed inside a compiled function"):
        batch.use()
    assert batch.uses == 0


def test_dataclasses_compared_as_objects():
    """With eq=False an argument is given as it is: it may change, and is not kept alive."""

    @dataclasses.dataclass(eq=False)
    class Trainer:
        weight: object
        factor: int = 2

        @nncore.compile
        def __call__(self, x):
            return self.weight * x * self.factor

    trainer, x = Trainer(nncore.ones(3)), randn(3)
    for factor in (2, 3):
        trainer.factor = factor
        for _ in range(CALLS):
            assert bits(trainer(x)) == bits(x * factor)
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None


class Mode(enum.Enum):
    """Its class has a class of its own, as an ABC's has."""

    DOUBLE = (2, 1.5)

    def factor(self):
        return self.value[0]


class Base(abc.ABC, list):
    number = 3


class TupleMode(tuple, enum.Enum):
    PAIR = (2, 3)


def test_members_of_enums_and_classes_with_metaclasses():
    """Members are themselves, as arguments and as globals."""
    base = Base([nncore.ones(2)])

    def f(x, mode, pair, when):
        assert (mode, pair) == (Mode.DOUBLE, TupleMode.PAIR)  # members are equal if they are one
        return Base([x * mode.factor() + pair[1] * base.number + base[0] * when.tm_year])

    run = nncore.compile(f)
    for i in range(CALLS):
        args = randn(2, seed=i), Mode.DOUBLE, TupleMode.PAIR, time.gmtime(0)
        assert typed(run(*args)) == typed(f(*args))
    assert run.plan.replays == CALLS - 2


def test_structures_of_other_things():
    """The type is named: an attribute's too."""

    class Tagged(dict):
        pass

    tagged = Tagged(a=1)
    tagged.tags = {1}
    with pytest.raises(TypeError, match=r"argument: expected .*dataclasses of them, got an unhashable set"):
        nncore.compile(lambda s, x: x)(tagged, nncore.ones(3))
    with pytest.raises(RecordError, match="this one returned set"):
        nncore.compile(lambda x: tagged)(nncore.ones(3))
    tagged.tags = tagged
    circle = []
    circle.append(circle)
    for value in (tagged, circle):
        with pytest.raises(RecursionError):
            nncore.compile(lambda x, s: x)(nncore.ones(3), value)
        with pytest.raises(RecursionError):
            nncore.compile(lambda x, held=[value]: held[0])(nncore.ones(3))


def test_numbers_are_part_of_the_kind():
    """Other numbers, other plans; NaN is one number, and -0.0 is not 0.0."""
    f = nncore.compile(lambda x, s: x * s)
    x = nncore.ones(3)
    for s in (0.0, -0.0, float("nan"), 1, 1.0, True):
        for _ in range(4):
            s = float(str(s)) if isinstance(s, float) else s
            assert bits(f(x, s)) == bits(x * s)
        assert f.plan.replays == 2


def test_results_are_never_overwritten():
    """Neither those of recorded calls nor those of replays, nor a parameter or an argument handed back."""
    fn, model, _ = classifier()()

    def step(x, y):
        loss = fn(x, y)
        return loss, model[0].weight, x, model[0].bias[:2]

    run = nncore.compile(step)
    seen = []
    for args in batches(6):
        result = run(*args)
        seen.append((result, bits(result)))
        assert not any(t.requires_grad for t in result)
    for result, before in seen:
        assert bits(result) == before


def test_no_tensors_and_empty_ones():
    f = nncore.compile(lambda x: (x * 2, x.sum(), nncore.cat([x, x])))
    for rows in (0, 3):
        x = nncore.ones(rows, 4)
        for _ in range(4):
            assert bits(f(x)) == bits((x * 2, x.sum(), nncore.cat([x, x])))
        assert f.plan.replays == 2
    g = nncore.compile(lambda: None)
    assert [g() for _ in range(4)] == [None] * 4
    assert g.plan.replays == 2


# ---- names ----


def test_names_bound_to_others():
    """A closure's model and optimizer, a global's, an attribute's: the new one is used."""
    x, y = batches(1)[0]
    _fn, model, optimizer = classifier()()

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = nncore.compile(step)
    first = [run(x, y).item() for _ in range(4)]
    former, old = model, bits(model.state_dict())
    model = mlp()
    model.load_state_dict(mlp().state_dict())
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    before = bits(model.state_dict())
    assert run(x, y).item() not in first
    assert bits(model.state_dict()) != before
    assert bits(former.state_dict()) == old
    namespace = {"net": nn.Linear(2, 2), "inner": None}
    exec("def inner(x): return net(x)\ndef f(x): return inner(x)", namespace)
    f = nncore.compile(namespace["f"])
    x = randn(3, 2)
    for net in (namespace["net"], nn.Linear(2, 2)):
        namespace["net"] = net
        for _ in range(4):
            assert bits(f(x)) == bits(net(x))
        assert f.plan.replays == 2


def test_lists_of_others():
    """Models in a list, a dict or a tuple: the new one is used."""
    nets, named = [nn.Linear(2, 2), nn.Linear(2, 2)], {"a": nn.Linear(2, 2)}
    f = nncore.compile(lambda x: nets[1](nets[0](x)) + named["a"](x))
    x = randn(3, 2)
    for where, key in ((nets, 0), (named, "a"), (nets, 1)):
        for _ in range(4):
            assert bits(f(x)) == bits(nets[1](nets[0](x)) + named["a"](x))
        assert f.plan.replays == 2
        where[key] = nn.Linear(2, 2)


class Multiplied(nn.Module):
    """Its input times what all kinds of attributes hold."""

    def __init__(self):
        super().__init__()
        self.parameters_ = nn.ParameterList([nn.Parameter(nncore.ones(2))])
        self.named = nn.ParameterDict({"a": nn.Parameter(nncore.ones(2))})
        self.layers, self.by_name = nn.ModuleList([nn.Identity()]), nn.ModuleDict({"a": nn.Identity()})
        self.child, self.tensor = nn.Linear(2, 2), nncore.ones(2)
        self.numbers, self.tensors, self.inner = [1.0], {"a": nncore.ones(2)}, types.SimpleNamespace(factor=1.0)

    def forward(self, x):
        for p in self.parameters_:
            x = x * p
        for layer in self.layers:
            x = layer(x)
        x = self.by_name["a"](x * self.named["a"]) * self.child.bias
        return self.scaled(x * self.tensor * self.numbers[0] * self.tensors["a"])

    def scaled(self, x):
        return x * self.inner.factor


FIVES = nncore.full((2,), 5.0)
CHANGES = {
    "ParameterList": lambda m: m.parameters_.__setitem__(0, nn.Parameter(FIVES)),
    "append a parameter": lambda m: m.parameters_.append(nn.Parameter(FIVES)),
    "ParameterDict": lambda m: m.named.__setitem__("a", nn.Parameter(FIVES)),
    "ModuleList": lambda m: m.layers.__setitem__(0, nn.Threshold(9.0, 3.0)),
    "insert": lambda m: m.layers.insert(0, nn.Threshold(9.0, 3.0)),
    "ModuleDict": lambda m: m.by_name.__setitem__("a", nn.Threshold(9.0, 3.0)),
    "child not called": lambda m: setattr(m.child, "bias", nn.Parameter(FIVES)),
    "tensor": lambda m: setattr(m, "tensor", FIVES),
    "list": lambda m: m.numbers.__setitem__(0, 5.0),
    "dict": lambda m: m.tensors.update(a=FIVES),
    "new list": lambda m: (setattr(m, "numbers", [1.0]), m.numbers.__setitem__(0, 5.0)),
    "object": lambda m: setattr(m.inner, "factor", 5.0),
}
WRAPS = {
    "module": lambda m: m,
    "function": lambda m: lambda x: m(x),
    "bound": lambda m: m.forward,
    "partial": lambda m: functools.partial(Multiplied.forward, m),
    "default": lambda m: lambda x, net=m: net(x),
    "object": lambda m: Calling(m),
}


class Calling:
    """A callable object with slots."""

    __slots__ = ("__weakref__", "net")

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("wrap", WRAPS)
def test_whatever_a_module_holds_is_watched(wrap, change):
    model, x = Multiplied(), nncore.ones(2)
    run = nncore.compile(WRAPS[wrap](model))
    with no_grad():
        for _ in range(4):
            assert bits(run(x)) == bits(model(x))
        before = bits(model(x))
        CHANGES[change](model)
        assert bits(model(x)) != before
        for _ in range(4):
            assert bits(run(x)) == bits(model(x))
    assert run.plan.replays == 2


def test_what_other_objects_hold_is_watched():
    """Attributes of attributes, of classes, modules and slots, closures of decorators, globals of methods, numbers."""
    x = randn(3, 2)

    class Config:
        net = nn.Linear(2, 2)

    class Below(Config):
        pass

    class Own(Trainer):
        def again(self, x):
            return self.net(x)

    space = {"net": nn.Linear(2, 2), "nn": nn}
    exec("class Net(nn.Module):\n    def forward(self, x): return net(x)", space)
    module, number = types.ModuleType("users_module"), [1.0]
    module.net = nn.Linear(2, 2)
    nested, slots, holder = types.SimpleNamespace(a=types.SimpleNamespace()), Calling(nn.Linear(2, 2)), Own()
    nested.a.net = nn.Linear(2, 2)
    factor = 1.0

    def decorated(f):
        @functools.wraps(f)
        def wrapped(x):
            return f(number[0] * x)

        return wrapped

    def scaled():
        nonlocal factor
        factor += 1

    def tripled(before):
        Own.again = lambda self, x: before(self, x) * 3

    cases = {
        "nested": (lambda x: nested.a.net(x), lambda: setattr(nested.a, "net", nn.Linear(2, 2))),
        "class": (lambda x: Config.net(x), lambda: setattr(Config, "net", nn.Linear(2, 2))),
        "base": (lambda x: Below.net(x), lambda: setattr(Below, "net", nn.Linear(2, 2))),
        "module": (lambda x: module.net(x), lambda: setattr(module, "net", nn.Linear(2, 2))),
        "slots": (slots.__call__, lambda: setattr(slots, "net", nn.Linear(2, 2))),
        "wrapper": (decorated(lambda x: x * 2), lambda: number.__setitem__(0, number[0] + 1)),
        "global of a forward": (space["Net"](), lambda: space.update(net=nn.Linear(2, 2))),
        "string": (lambda x: getattr(nested.a, "net")(x), lambda: setattr(nested.a, "net", nn.Linear(2, 2))),  # noqa: B009
        "number": (lambda x: x * factor, scaled),
        "method": (lambda x: holder.again(x), lambda: tripled(Own.again)),
    }
    for name, (f, change) in cases.items():
        run = nncore.compile(f)
        with no_grad():
            for _ in range(2):
                for _ in range(4):
                    assert bits(run(x)) == bits(f(x)), name
                assert run.plan.replays == 2, name
                before = bits(f(x))
                change()
                assert bits(f(x)) != before, name
            assert bits(run(x)) == bits(f(x)), name


def test_what_is_not_named_is_not_watched():
    """A record that grows, and a number that only has the name of a method, make no new plans."""
    space = types.SimpleNamespace(net=nn.Linear(2, 2), item=0, losses=[])
    run = nncore.compile(lambda x: space.net(x).abs())
    for _ in range(6):
        run(randn(3, 2))
        space.losses.append(1.0)
        space.abs = len(space.losses)
    assert run.plan.replays == 4


def test_installed_packages_are_not_looked_into(monkeypatch):
    """But for the one that the compiled function is from."""
    package = types.ModuleType("users_package")
    package.__file__ = "/lib/site-packages/users_package.py"
    monkeypatch.setitem(sys.modules, package.__name__, package)
    exec("factor = 2.0\ndef scaled(x): return x * factor", vars(package))
    own, others = nncore.compile(package.scaled), nncore.compile(lambda x: package.scaled(x))
    for _ in range(4):
        own(FIVES), others(FIVES)
    package.factor = 3.0
    assert own(FIVES).tolist() == [15.0, 15.0]
    assert others(FIVES).tolist() == [10.0, 10.0]


@pytest.mark.parametrize("kind", ["list", "dict", "number", "attribute"])
def test_what_is_read_must_not_change_inside(kind):
    """A replay would not change it."""
    entries, named, space, n = [1], {}, types.SimpleNamespace(count=0), 0

    def f(x):
        nonlocal n
        if kind == "list":
            entries.append(1)
        elif kind == "dict":
            named[len(named)] = 1
        elif kind == "number":
            n += 1
        else:
            space.count += 1
        return x * 2

    with pytest.raises(RecordError, match=r"changed inside.*test_compile\.py"):
        nncore.compile(f)(nncore.ones(2))
    assert not active()


def test_check_finds_what_is_not_watched():
    """A set is not looked into, nor a list of more than 1000; recording every call finds that other memory is read."""
    for holder in ({nncore.ones(2)}, [nncore.ones(2), *range(1000)]):
        f = nncore.compile(lambda x, h=holder: x * next(iter(h)), check=True)
        for _ in range(3):
            f(nncore.ones(2))
        if isinstance(holder, set):
            holder.clear()
            holder.add(FIVES)
        else:
            holder[0] = FIVES
        with pytest.raises(RecordError, match="the same work"):
            f(nncore.ones(2))


def test_hooks_of_tensors_are_watched():
    """Those of parameters, and of tensors outside of any module."""

    def make():
        model, w = nn.Linear(2, 1), nncore.ones(2).requires_grad_()

        def step(x):
            model.zero_grad()
            w.grad = None
            (model(x) * w).sum().backward()

        step.handles = []
        return step, model, w

    def between(i, model, w):
        if i == 3:
            between.handles = [t.register_hook(lambda g: g * 10) for t in (model.bias, w)]
        if i == 6:
            for h in between.handles:
                h.remove()

    assert_agrees(make, [(randn(3, 2, seed=i),) for i in range(8)], between=between, replays=1 + 1 + 2)


def test_modes_that_fit_and_evaluate_restore():
    """A compiled model called within them goes on in the mode that they leave."""
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), nncore.ones(1, 2)
    infer = nncore.compile(model)

    def metric(output, target):
        infer(x)
        return 0.0

    def callback(epoch, logs):
        infer(x)

    for training in (True, False):
        model.train(training)
        for _ in range(4):
            train.evaluate(model, nncore.ones(4, 2), nncore.ones(4, 2), loss="mse", metrics=metric)
        train.fit(model, nncore.ones(4, 2), nncore.ones(4, 2), loss="mse", epochs=4, callbacks=callback)
        for _ in range(4):
            nncore.manual_seed(3)
            got = bits(infer(x))
            nncore.manual_seed(3)
            assert got == bits(model(x).detach())


def test_first_calls_take_turns():
    """Whatever is compiled of what shares a model: while one runs, for the first time, the others wait."""
    model = Multiplied()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    runs = (model.forward, functools.partial(model), model.child, Calling(model), lambda x: optimizer.zero_grad())
    inside = threading.Event()
    model.register_forward_pre_hook(lambda *_: (inside.set(), time.sleep(0.05), None)[2])
    for f in (model, *runs):
        first, second, done = nncore.compile(model), nncore.compile(f), []

        def call(first=first, done=done):
            first(nncore.ones(2))
            done.append("first")

        inside.clear()
        thread = threading.Thread(target=call)
        thread.start()
        inside.wait()
        second(nncore.ones(2))
        done.append("second")
        thread.join()
        assert done == ["first", "second"]


def test_arguments_are_not_kept_alive():
    """Instances of a class with a compiled method, and objects that are given: their plans go with them."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        @nncore.compile
        def run(self, x):
            return self.layer(x)

    given = nncore.compile(lambda net, x: net(x))
    for make, run in ((Net, lambda o, x: o.run(x)), (Trainer, lambda o, x: o.run(x)), (lambda: nn.Linear(2, 2), given)):
        alive = []
        for _ in range(3):
            o = make()
            alive.append(weakref.ref(o))
            for _ in range(4):
                run(o, nncore.ones(1, 2))
            del o
        gc.collect()
        assert [r() for r in alive] == [None] * 3
    assert len(Net.__dict__["run"].plans) == len(given.plans) == 1


def test_attributes_of_a_compiled_model_are_the_model_s():
    model = nn.Dropout(0.5)
    run = nncore.compile(model)
    run.p = 0.0
    assert model.p == run.p == 0.0
    run.extra = 1
    del run.extra
    assert not hasattr(model, "extra")


class Trainer:
    """A plain object with a compiled method."""

    def __init__(self):
        self.net = nn.Linear(2, 2)

    @nncore.compile
    def run(self, x):
        """Runs."""
        return self.net(x)


def test_methods():
    a, b = Trainer(), Trainer()
    x = randn(3, 2)
    for t in (a, b, a):
        t.net = nn.Linear(2, 2)
        for _ in range(4):
            assert bits(t.run(x)) == bits(t.net(x))
        assert t.run.plan.replays == 2
    assert Trainer.run.__doc__ == "Runs."
    bound = nncore.compile(a.net.forward)
    for _ in range(3):
        assert bits(bound(x)) == bits(a.net(x))


@nncore.compile(check=True)
def doubled(x):
    """Twice x."""
    return x * 2


def test_decorator_pickle_and_copies():
    assert doubled.__name__ == "doubled"
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    for _ in range(4):
        assert doubled(nncore.ones(2)).tolist() == [2.0, 2.0]
    assert doubled.plan.replays == 0, "check=True records every call"
    model = nncore.compile(mlp())
    x, _ = batches(1)[0]
    want = [model(x) for _ in range(3)]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert twin.plan is None
        assert [bits(twin(x)) for _ in range(3)] == [bits(w) for w in want]
        assert twin.plan.replays == 1
    twin = copy.deepcopy(model)
    next(twin.parameters()).zero_()
    assert bits(twin(x)) != bits(want[0])
    assert bits(model(x)) == bits(want[0])
    assert repr(model.state_dict().keys()) == repr(mlp().state_dict().keys())
    for bad in (3, None, "f"):
        if bad is not None:
            with pytest.raises(TypeError, match="fn"):
                nncore.compile(bad)


def test_compiled_inside_compiled():
    """The inner one is a part of the outer recording; an inner model still runs without gradients."""
    model = mlp()
    infer = nncore.compile(model)
    w = nn.Parameter(nncore.ones(3))

    def f(x):
        w.grad = None
        out = (infer(x) * w).sum()
        out.backward()
        return out

    outer = nncore.compile(f)
    x, _ = batches(1)[0]
    for _ in range(5):
        outer(x)
        assert model[0].weight.grad is None
        assert bits(w.grad) == bits(model(x).sum(0).detach())
    assert outer.plan.replays == 3
    assert infer.plan is None


# ---- errors ----


def run_source(source, calls=3, **names):
    """Runs `step` of a source until it fails; (the error, the number of the line that ends with '# here')."""
    namespace = {"nncore": nncore, "nn": nn, "F": F, "np": np, "optim": optim, **names}
    exec(compile(source, "users_code.py", "exec"), namespace)
    line = [i for i, text in enumerate(source.splitlines(), 1) if text.endswith("# here")]
    step = nncore.compile(namespace["step"])

    def fail():
        for _ in range(calls):
            step(namespace["x"])

    with pytest.raises(RecordError) as e:
        fail()
    assert step.plan.replays == 0
    return str(e.value), line[0] if line else None


MISTAKES = {
    "item": ("    return x * model(x).sum().item()  # here", "item"),
    "float": ("    return x * float(model(x).sum())  # here", "item"),
    "numpy": ("    y = model(x)\n    return x * float(y.detach().numpy().sum())  # here", "numpy"),
    "branch": ("    y = model(x).sum()\n    if y > 0:  # here\n        return y\n    return -y", "branch"),
    "print": ("    print(x)  # here\n    return x", "numpy"),
    "array": ("    y = model(x)\n    return y + np.ones(2, np.float32)  # here", "array of NumPy"),
    "tensor of an array": ("    return x + nncore.tensor(np.ones(2, np.float32))  # here", "array of NumPy"),
    "index": ("    return x[np.array([0, 1])]  # here", "array of NumPy"),
    "index in a tuple": ("    return x[:, np.arange(2)]  # here", "array of NumPy"),
    "assigned index": ("    y = x * 1\n    y[np.array([0])] = 2.0  # here\n    return y", "array of NumPy"),
    "memory of an array": ("    return x + nncore.from_numpy(np.ones(2, np.float32))  # here", "array of NumPy"),
    "plateau": ("    plateau.step(model(x).sum())  # here\n    return x", "item"),
    "lbfgs": (
        "    def closure():\n        loss = model(x).square().sum()\n        loss.backward()\n        return loss\n"
        "    return lbfgs.step(closure)  # here",
        "compile the closure",
    ),
    "number": ("    y = model(x)\n    return y * next(counter)  # here", "the same work"),
    "list": ("    y = model(x)\n    return y * nncore.tensor([float(next(counter))])  # here", "the same work"),
    "work": ("    y = model(x)\n    if next(counter) % 2:\n        y = y.exp()  # here\n    return y", "the same work"),
    "result": ("    return x, next(counter)", "returned other"),
    "outlives": ("    y = model(x)  # here\n    kept.append(y)\n    return x * 1", "outlives"),
    "attribute": ("    model.calls = next(counter)\n    return model(x)", "attribute"),
    "option": ("    adam.param_groups[0]['lr'] = 0.5\n    return train(x)", "option changed inside"),
    "scheduler": ("    y = train(x)\n    scheduler.step()\n    return y", "option changed inside"),
    "state": ("    adam.state = {}\n    return train(x)", "state changed inside"),
    "state cleared": ("    adam.state.clear()\n    return train(x)", "state changed inside"),
    "optimizer": (
        "    own = optim.Adam(model.parameters())\n    model(x).sum().backward()\n    own.step()  # here\n"
        "    own.zero_grad()\n    return x",
        "made inside",
    ),
    "copied optimizer": (
        "    own = copy.deepcopy(adam)\n    model(x).sum().backward()\n    own.step()\n    return x",
        "",
    ),
    "generator made inside": ("    return x + nncore.rand(2, generator=nncore.Generator(3))  # here", "seed"),
    "seed": ("    nncore.manual_seed(3)  # here\n    return nncore.randn(2)", "seed"),
    "shuffle": ("    return x[nncore.randperm(2)]  # here", "numpy"),
    "in place": ("    x.add_(1)\n    return x", "in place"),
    "type": ("    return {1, 2}", "set"),
    "generator": ("    yield x", "generator"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    """The message says what and where; eager code and later recordings go on as if nothing had been."""
    body, message = MISTAKES[name]
    model = nn.Linear(2, 2)
    source = f"\ndef step(x):\n{body}\n"
    names = {"plateau": optim.lr_scheduler.ReduceLROnPlateau(optim.SGD(model.parameters(), lr=0.1))}
    adam = optim.Adam(model.parameters())

    def train(x):
        adam.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        adam.step()
        return loss

    names |= {"adam": adam, "train": train, "scheduler": optim.lr_scheduler.ExponentialLR(adam, 0.5), "copy": copy}
    names |= {"lbfgs": optim.LBFGS(model.parameters()), "counter": iter(range(99)), "kept": []}
    text, line = run_source(source, model=model, x=randn(2, 2), **names)
    assert message in text
    assert line is None or f"(users_code.py, line {line})" in text, text
    assert not active()
    x = randn(2, 2)
    model(x).sum().backward()
    assert model.weight.grad is not None
    model.zero_grad()
    again = nncore.compile(model)
    for _ in range(4):
        assert bits(again(x)) == bits(model(x))
    assert again.plan.replays == 2


def test_gradients_that_nobody_clears():
    """Eager code adds them up, a plan drops them: an error that names backward. Clearing them outside will do."""

    def make():
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step, model, optimizer

    assert_agrees(make, batches(6), between=lambda i, model, optimizer: optimizer.zero_grad())
    assert_agrees(make, batches(6), between=lambda i, model, optimizer: model.zero_grad())
    assert_agrees(make, batches(6), keep_grads=True, replays=6 - 3)
    step, model, optimizer = make()
    run = nncore.compile(step)
    for cleared in (0, 1, 2, 4):  # calls that are preceded by zero_grad
        optimizer.zero_grad()
        run(*batches(1)[0])
        for args in batches(cleared):
            optimizer.zero_grad()
            run(*args)
        before = bits(model.state_dict()), bits(optimizer.state_dict()["state"])
        with pytest.raises(RecordError, match=r"zero_grad.*test_compile\.py"):
            run(*batches(1)[0])
        assert before == (bits(model.state_dict()), bits(optimizer.state_dict()["state"]))
    assert replayed(run) > 0


def test_a_mistake_leaves_gradients_and_optimizer_sane():
    fn, model, optimizer = classifier()()

    def wrong(x, y):
        loss = fn(x, y)
        return loss.item()

    x, y = batches(1)[0]
    with pytest.raises(RecordError, match=r"test_compile\.py|users_code|item"):
        nncore.compile(wrong)(x, y)
    assert all(p.grad is not None for p in model.parameters()), "as eager code leaves them"
    assert {s["step"] for s in optimizer.state.values()} == {1}
    step = nncore.compile(fn)
    for _ in range(4):
        step(x, y)
    assert step.plan.replays == 2
    assert {s["step"] for s in optimizer.state.values()} == {5}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("when", [0, 1, 2])
def test_exceptions_pass(error, when):
    """What fn raises while it is recorded reaches the caller, and nothing of the recording stays."""
    model, calls = mlp(), iter(range(99))

    def f(x):
        y = model(x)
        if next(calls) == when:
            raise error("mine")
        return y

    run = nncore.compile(f)
    x, _ = batches(1)[0]
    failed = 0
    for _ in range(5):
        try:
            assert bits(run(x)) == bits(model(x))
        except error:
            failed += 1
        assert not active()
    assert failed == (when < 2)
    assert run.plan.replays == 3 - failed


def test_arguments_are_checked():
    f = nncore.compile(lambda x: x * 2)
    with pytest.raises(ValueError, match=r"argument.*require grad"):
        f(nncore.ones(2).requires_grad_())
    with pytest.raises(TypeError, match=r"argument.*set"):
        f({1})
    assert f(nncore.ones(2)).tolist() == [2.0, 2.0]


def test_bad_classes_change_nothing():
    fn, model, optimizer = classifier()()
    step = nncore.compile(fn)
    x, y = batches(1)[0]
    for _ in range(4):
        step(x, y)
    before = bits(model.state_dict()), bits(optimizer.state_dict()["state"]), nncore.get_rng_state()
    with pytest.raises(IndexError, match=r"target.*got 3"):
        step(x, nncore.tensor([0, 1, 2, 3, 0, 0]))
    assert before == (bits(model.state_dict()), bits(optimizer.state_dict()["state"]), nncore.get_rng_state())
    step(x, y)
    assert step.plan.replays == 3


def test_bad_computed_indices():
    """Indices that are computed inside are checked where they are used: what comes later does not happen, and the plan
    goes on afterwards with the right numbers."""

    def make():
        table, layer = nn.Parameter(randn(4, 3)), nn.Linear(3, 2)
        optimizer = optim.Adam([table, *layer.parameters()], lr=0.1)
        second = optim.Adam(layer.parameters(), lr=0.1)

        def step(x):
            second.zero_grad()
            layer(x).square().sum().backward()
            second.step()
            optimizer.zero_grad()
            rows = (x[:, 0] * 1.0).to(np.int64)
            loss = F.dropout(layer(table[rows]), 0.5).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        return step, table, layer, optimizer, second

    def call(run, x):
        try:
            return bits(run(x))
        except IndexError as e:
            return str(e)

    good, bad = nncore.tensor([[0.0, 1, 2], [3.0, 1, 0]]), nncore.tensor([[0.0, 1, 2], [4.0, 1, 0]])
    seen = []
    for compiled in (False, True):
        nncore.manual_seed(5)
        step, *things = make()
        run = nncore.compile(step) if compiled else step
        found = []
        for x in (good, good, good, bad, good, bad, good):
            found.append(call(run, x))
            for t in things[2:] if not compiled or x is bad else ():
                t.zero_grad()
            found.append(state_of(things))
        seen.append(found)
    assert "from -4 to 3, got 4 at position 1" in seen[0][6]
    assert seen[0] == seen[1]
    assert run.plan.replays == 3


def test_bad_indices_that_are_copied():
    """Indices from outside that the function writes are checked after that."""
    kept, table = nncore.tensor([0, 0]), randn(4, 3)

    def f(x):
        kept.copy_(x)
        return table[kept]

    run = nncore.compile(f)
    for i in range(CALLS):
        assert bits(run(nncore.tensor([i % 4, 1]))) == bits(f(nncore.tensor([i % 4, 1])))
    for bad in ([0, 4], [1, 10**15]):
        with pytest.raises(IndexError, match=f"got {bad[1]} at position 1"):
            run(nncore.tensor(bad))
    assert bits(run(nncore.tensor([2, 3]))) == bits(table[nncore.tensor([2, 3])])
    assert run.plan.replays == CALLS - 1


def test_check_finds_late_changes():
    """check=True compares every call with the one before."""
    lines = [
        "",
        "def step(x):",
        "    call = next(calls)",
        "    y = x * 2",
        "    if call > 3:",
        "        y = y.exp()",
    ]
    source = "\n".join([*lines, "    return y"])
    namespace = {"calls": iter(range(1, 9))}
    exec(compile(source, "users_code.py", "exec"), namespace)
    step = nncore.compile(namespace["step"], check=True)
    for _ in range(3):
        step(nncore.ones(2))
    with pytest.raises(RecordError, match=r"the same work.*users_code\.py, line 6"):
        step(nncore.ones(2))
    assert step.plan.replays == 0


def test_schedulers_step_between():
    def make():
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.7)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        step.scheduler = scheduler
        return step, model, optimizer

    seen = []
    for compiled in (False, True):
        nncore.manual_seed(1)
        step, model, _ = make()
        run = nncore.compile(step) if compiled else step
        losses = []
        for args in batches(7):
            losses.append(bits(run(*args)))
            step.scheduler.step()
        seen.append((losses, bits(model.state_dict())))
    assert seen[0] == seen[1]
    assert run.plan.replays == 5


# ---- random numbers and numbers ----


def test_generators_at_one_position_are_told_apart():
    """By who drew, not by seed and position: also where backward draws once more."""

    def make():
        a, b = nncore.Generator(7), nncore.Generator(7)
        w = nn.Parameter(nncore.ones(9))

        def step():
            w.grad = None
            out = F.dropout(w, 0.5) * nncore.rand(9, generator=a) * F.dropout(w, 0.5) - nncore.rand(9, generator=b)
            out.sum().backward()
            return out

        return step, w, a, b

    seen = []
    for compiled in (False, True):
        nncore.manual_seed(7)
        step, w, a, b = make()
        run = nncore.compile(step) if compiled else step
        found = []
        for i in range(7):
            if i == 3:
                a.manual_seed(8)
            if i == 5:
                nncore.manual_seed(9)
            found.append((bits(run()), bits(w.grad), a.get_state(), b.get_state(), nncore.get_rng_state()))
        seen.append(found)
    assert seen[0] == seen[1]
    assert run.plan.replays == 5


def test_a_loader_s_numbers_in_a_compiled_transform():
    """Each pass of a loader draws from its own generator, in replays too."""
    fn = nncore.compile(lambda x: x + nncore.rand(1))
    data = nncore.data.TensorDataset(nncore.zeros(4, 1))
    seen = []
    for transform in (lambda x: x + nncore.rand(1), fn):
        nncore.manual_seed(1)
        seen.append([bits(b) for _ in range(4) for b in nncore.data.DataLoader(data, 2, transform=transform)])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 4
    assert fn.plan.replays == 6


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(2), np.bool_(True), np.float64("nan")])
def test_numbers_of_numpy(number):
    """They are numbers, as they are in eager code: a part of the kind, and of results."""

    def f(x, s):
        return x.reshape(2, -1) * s if s else x, s

    run = nncore.compile(f)
    for _ in range(4):
        assert bits(run(nncore.ones(4), number)) == bits(f(nncore.ones(4), number))
    assert run.plan.replays == 2
    run(nncore.ones(4), type(number)(0))
    assert run.plan.replays == 0


def test_ranges_are_made_inside():
    run = nncore.compile(lambda x: x + nncore.arange(3).float() + nncore.arange(1, 7, 2, dtype=np.float32))
    for i in range(4):
        assert run(nncore.full((3,), float(i))).tolist() == [1.0 + i, 4.0 + i, 7.0 + i]
    assert run.plan.replays == 2


# ---- threads and memory ----


@pytest.mark.parametrize("shared", [False, True])
def test_python_threads(shared):
    """Own models: own results. One model: the steps take turns, and none is lost."""
    made = [classifier()() for _ in range(1 if shared else 3)]
    optimizers = [m[2] for m in made]
    runs = [nncore.compile(made[0 if shared else i][0]) for i in range(3)]
    x, y = batches(1)[0]
    errors = []

    def work(run):
        try:
            for _ in range(200):
                run(x, y)
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(r,)) for r in runs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    for o in optimizers:
        assert {s["step"] for s in o.state.values()} == {600 if shared else 200}
    assert all(replayed(r) >= 190 for r in runs)


def test_threads_take_turns():
    """Compiled functions that share a model, an optimizer or a generator, in several threads at once: no step and no
    random stream is lost, inference sees the parameters of whole steps, and what shares nothing gives its own bits."""
    model, apart, generator = nn.Linear(3, 3, bias=False), mlp(), nncore.Generator(3)
    with no_grad():
        model.weight.copy_(nncore.ones(3, 3))
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    frozen = nncore.ones(3, 3)

    def train(x):
        """Each step subtracts 1 from all weights, by a gradient of 1."""
        optimizer.zero_grad()
        (model.weight * frozen).sum().backward()
        optimizer.step()
        return x.sum()

    def noise(x):
        return F.dropout(x, 0.5) + nncore.rand(3, generator=generator)

    steps, inferences, noises = nncore.compile(train), nncore.compile(model), nncore.compile(noise)
    other = nncore.compile(lambda x: train(x))
    alone = nncore.compile(apart)
    x, y = randn(2, 5), nncore.ones(1, 3)
    want, errors, calls, streams = bits(apart(x).detach()), [], 60, nncore.get_rng_state()[1]

    def infer(i):
        a = inferences(nncore.ones(1 + i % 3, 3)).tolist()
        assert len({v for row in a for v in row}) == 1, "all weights are of one step"

    def own(i):
        assert bits(alone(x)) == want

    work = [lambda i: steps(nncore.ones(1 + i % 2)), lambda i: other(y), infer, infer, lambda i: noises(y), own]
    work += [lambda i: noises(y)]

    def run(f):
        try:
            for i in range(calls):
                f(i)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(f,)) for f in work]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert model.weight.tolist() == [[1.0 - 2 * calls] * 3] * 3
    assert generator.get_state()[1] == 2 * calls
    assert nncore.get_rng_state()[1] - streams == 2 * calls
    assert all(replayed(f) >= calls - 10 for f in (steps, inferences, noises, other, alone))


def test_a_recording_belongs_to_its_thread():
    """What other threads compute, draw and change meanwhile, and what finalizers compute when garbage is collected, is
    done once, as in eager code, and not in replays."""
    log, weight, rows = nncore.zeros(1), nncore.ones(2).requires_grad_(), nncore.ones(2, 1)
    optimizer, generator = optim.SGD([weight], lr=1.0), nncore.Generator(5)

    def work():
        y = F.dropout(nncore.rand(2, generator=generator), 0.5).sum() + rows[nncore.tensor([1, 0])].sum()
        (y + (weight * log).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        log.add_(1.0)

    class Garbage:
        def __del__(self):
            work()

    def collect():
        garbage = Garbage()
        garbage.itself = garbage
        del garbage
        gc.collect()

    def elsewhere():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    for meanwhile in (collect, elsewhere):
        seen = []
        for wrap in (lambda f: f, nncore.compile):
            nncore.manual_seed(3)
            generator.manual_seed(5)
            with no_grad():
                log.fill_(0.0)
                weight.fill_(1.0)
            todo = iter([meanwhile, meanwhile, *[lambda: None] * CALLS])

            @wrap
            def f(x, todo=todo):
                y = F.dropout(x * 2, 0.5)
                next(todo)()
                return (y + nncore.rand(3)) * 3

            results = [bits(f(nncore.ones(3) * i)) for i in range(CALLS)]
            seen.append((results, bits([log, weight]), nncore.get_rng_state(), generator.get_state()))
            assert log.tolist() == [2.0]
        assert seen[0] == seen[1]
        assert f.plan.replays == CALLS - 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads(isa, dtype):
    """Threads may change between replays; the bits do not."""
    runtime.set_parallel_threshold(0)

    def net():
        return nn.Sequential(nn.Linear(40, 70), nn.ReLU(), nn.Linear(70, 9)).to(dtype)

    def between(i, *_):
        runtime.set_num_threads((1, 2, 3, 1, 3, 2, 1)[i])

    assert_agrees(classifier(net), batches(7, dtype, 50, 40, 9), between=between)


def test_sharing_is_tried_out(rng):
    """Of the first 16 replays the second 8 share nothing; what is found decides about the next ones; bits are equal."""
    runtime.set_num_threads(2)
    a, w = (nncore.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((128, 64), (64, 64)))

    @nncore.compile
    def f(x):
        return (x @ w).tanh() @ w

    expected, used = bits(f(a)), []
    f(a)
    for _ in range(40):
        runtime.threads_used(True)
        assert bits(f(a)) == expected
        used.append(runtime.threads_used(True))
    assert f.plan.replays == 40
    assert max(used[8:16]) == 1
    assert max(used[16:]) <= max(threads for *_, threads, _ in f.plan.work.describe())
    runtime.set_parallel_threshold(0)
    assert bits(f(a)) == expected
    assert runtime.threads_used(True) == 2


def test_no_page_faults():
    fn, *_ = classifier(lambda: mlp(width=300, k=10))()
    step = nncore.compile(fn)
    x, y = batches(1, rows=512, width=300, k=10)[0]
    for _ in range(20):
        step(x, y)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        step(x, y)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20
    assert step.plan.replays == 218


def resident_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def test_memory_is_bounded_over_many_shapes():
    """Plans that were not used for long go, and their memory with them."""
    f = nncore.compile(lambda x: (x.exp() * 2).sum())
    sizes, resident = [], []
    for n in range(1000):
        x = nncore.ones(1000 + n)
        for _ in range(3):
            f(x)
        assert f.plan.replays == 1
        if n in (200, 999):
            gc.collect()
            sizes.append(nncore.memory_stats()["in_use"])
            resident.append(resident_bytes())
    assert len(f.plans) == 64
    assert sizes[1] < 2 * sizes[0]
    if slack_is_visible():  # the address sanitizer keeps what was freed
        assert resident[1] < resident[0] + (8 << 20)
    f(nncore.ones(1999))
    assert f.plan.replays == 2, "the last ones stay"
    f(nncore.ones(1000))
    assert f.plan.replays == 0, "the first ones are gone"
    before = nncore.memory_stats()["in_use"]
    del f, x
    gc.collect()
    assert nncore.memory_stats()["in_use"] < before
