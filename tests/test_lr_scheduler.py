"""Schedules of learning rates against their closed forms, alone and combined."""

import copy
import itertools
import math
import warnings

import numpy as np
import pytest

from nncore import nn, optim
from nncore.optim import lr_scheduler as ls

BASE = (0.5, 0.02)  # rates of two parameter groups


def optimizer(kind=optim.SGD, module=optim, parameter=lambda: nn.Parameter([1.0]), **options):
    groups = [{"params": [parameter()], "lr": lr} for lr in BASE]
    return kind(groups, **options)


def cosine(epoch, T, low=0.0):
    return lambda lr: low + (lr - low) * (1 + math.cos(math.pi * epoch / T)) / 2


def triangle(epoch, up, down):
    x = epoch % (up + down)
    return x / up if x <= up else 1 - (x - up) / down


def one_cycle(epoch, total, rise, values, anneal, three):
    """Through the corners (0, start), (peak, most), [(peak + peak, start)], (end, last)."""
    start, most, last = values
    corners = [(0, start), (rise * total - 1, most)]
    corners += [(2 * rise * total - 2, start)] * three + [(total - 1, last)]
    for (a, x), (b, y) in itertools.pairwise(corners):
        if epoch <= b or (b, y) == corners[-1]:
            part = (epoch - a) / (b - a)
            return y + (x - y) * ((1 + math.cos(math.pi * part)) / 2 if anneal == "cos" else 1 - part)


class Halving:
    """A schedule's function as an object with a state."""

    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 0.5 ** (epoch // 10)


# name: (make(module, optimizer), rate(initial, epoch))
SCHEDULES = {
    "LambdaLR": (lambda m, o: m.LambdaLR(o, lambda e: 0.95**e), lambda lr, e: lr * 0.95**e),
    "LambdaLR object": (lambda m, o: m.LambdaLR(o, Halving()), lambda lr, e: lr * 0.5 ** (e // 10)),
    "LambdaLR list": (
        lambda m, o: m.LambdaLR(o, [lambda e: 1 / (e + 1), lambda e: e]),
        lambda lr, e: lr / (e + 1) if lr == BASE[0] else lr * e,
    ),
    "MultiplicativeLR": (lambda m, o: m.MultiplicativeLR(o, lambda e: 0.95), lambda lr, e: lr * 0.95**e),
    "StepLR": (lambda m, o: m.StepLR(o, 7), lambda lr, e: lr * 0.1 ** (e // 7)),
    "StepLR gamma": (lambda m, o: m.StepLR(o, 10, gamma=0.5), lambda lr, e: lr * 0.5 ** (e // 10)),
    "MultiStepLR": (
        lambda m, o: m.MultiStepLR(o, [5, 20, 20, 41], gamma=0.5),
        lambda lr, e: lr * 0.5 ** sum(e >= k for k in (5, 20, 20, 41)),
    ),
    "ConstantLR": (lambda m, o: m.ConstantLR(o), lambda lr, e: lr / (3 if e < 5 else 1)),
    "ConstantLR options": (lambda m, o: m.ConstantLR(o, 0.25, 30), lambda lr, e: lr * (0.25 if e < 30 else 1)),
    "LinearLR": (lambda m, o: m.LinearLR(o), lambda lr, e: lr * (1 / 3 + 2 / 3 * min(e, 5) / 5)),
    "LinearLR options": (
        lambda m, o: m.LinearLR(o, 0.8, 0.1, 25),
        lambda lr, e: lr * (0.8 - 0.7 * min(e, 25) / 25),
    ),
    "ExponentialLR": (lambda m, o: m.ExponentialLR(o, 0.9), lambda lr, e: lr * 0.9**e),
    "PolynomialLR": (lambda m, o: m.PolynomialLR(o), lambda lr, e: lr * max(0, 1 - e / 5)),
    "PolynomialLR options": (
        lambda m, o: m.PolynomialLR(o, 50, 2.5),
        lambda lr, e: lr * max(0, 1 - e / 50) ** 2.5,
    ),
    "CosineAnnealingLR": (lambda m, o: m.CosineAnnealingLR(o, 80), lambda lr, e: cosine(e, 80)(lr)),
    "CosineAnnealingLR rising": (
        lambda m, o: m.CosineAnnealingLR(o, 11, eta_min=0.001),
        lambda lr, e: cosine(e, 11, 0.001)(lr),
    ),
    "CosineAnnealingWarmRestarts": (
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 9),
        lambda lr, e: cosine(e % 9, 9)(lr),
    ),
    "CosineAnnealingWarmRestarts T_mult": (
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 4, T_mult=2, eta_min=0.001),
        # restarts at 4, 12, 28, 60: 4 (2^n - 1)
        lambda lr, e: cosine(e - 4 * (2 ** int(math.log2(e / 4 + 1)) - 1), 4 * 2 ** int(math.log2(e / 4 + 1)), 0.001)(
            lr
        ),
    ),
    "CyclicLR": (
        lambda m, o: m.CyclicLR(o, 0.1, 0.9, step_size_up=8),
        lambda lr, e: 0.1 + 0.8 * triangle(e, 8, 8),
    ),
    "CyclicLR triangular2": (
        lambda m, o: m.CyclicLR(o, [0.1, 0.2], [0.9, 1.0], 8, 5, mode="triangular2", cycle_momentum=False),
        lambda lr, e: (0.1 if lr == BASE[0] else 0.2) + 0.8 * triangle(e, 8, 5) * 0.5 ** (e // 13),
    ),
    "CyclicLR exp_range": (
        lambda m, o: m.CyclicLR(o, 0.1, 0.9, 10, mode="exp_range", gamma=0.97),
        lambda lr, e: 0.1 + 0.8 * triangle(e, 10, 10) * 0.97**e,
    ),
    "CyclicLR scale_fn": (
        lambda m, o: m.CyclicLR(o, 0.1, 0.9, 10, scale_fn=lambda x: 1 / x, base_momentum=[0.1, 0.2]),
        lambda lr, e: 0.1 + 0.8 * triangle(e, 10, 10) / (1 + e // 20),
    ),
    "CyclicLR iterations": (
        lambda m, o: m.CyclicLR(o, 0.1, 0.9, 10, scale_fn=lambda x: 0.9**x, scale_mode="iterations"),
        lambda lr, e: 0.1 + 0.8 * triangle(e, 10, 10) * 0.9**e,
    ),
    "OneCycleLR": (
        lambda m, o: m.OneCycleLR(o, 1.0, total_steps=70),
        lambda lr, e: one_cycle(e, 70, 0.3, (1 / 25, 1, 1 / 25e4), "cos", False),
    ),
    "OneCycleLR linear": (
        lambda m, o: m.OneCycleLR(
            o,
            [1.0, 0.5],
            epochs=8,
            steps_per_epoch=10,
            pct_start=0.4,
            anneal_strategy="linear",
            div_factor=10.0,
            final_div_factor=100.0,
            max_momentum=[0.9, 0.8],
        ),
        lambda lr, e: (1 if lr == BASE[0] else 0.5) * one_cycle(e, 80, 0.4, (0.1, 1, 0.001), "linear", False),
    ),
    "OneCycleLR three phases": (
        lambda m, o: m.OneCycleLR(o, 1.0, total_steps=61, three_phase=True, cycle_momentum=False),
        lambda lr, e: one_cycle(e, 61, 0.3, (1 / 25, 1, 1 / 25e4), "cos", True),
    ),
    "ChainedScheduler": (
        lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.9)]),
        lambda lr, e: lr * (0.1 if e < 20 else 1) * 0.9**e,
    ),
    "SequentialLR": (
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.9)], [20]),
        lambda lr, e: lr * 0.1 if e < 20 else lr * 0.9 ** (e - 20),
    ),
    "warm-up": (
        lambda m, o: m.SequentialLR(
            o, [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, 60), m.StepLR(o, 3)], milestones=[5, 50]
        ),
        lambda lr, e: (
            lr * (0.1 + 0.9 * e / 5) if e < 5 else cosine(e - 5, 60)(lr) if e < 50 else lr * 0.1 ** ((e - 50) // 3)
        ),
    ),
    "restarts in a sequence": (
        lambda m, o: m.SequentialLR(o, [m.LinearLR(o), m.CosineAnnealingWarmRestarts(o, 10)], [6]),
        lambda lr, e: lr * (1 / 3 + 2 / 3 * min(e, 5) / 5) if e < 6 else cosine((e - 6) % 10, 10)(lr),
    ),
    "chain in a sequence": (
        lambda m, o: m.SequentialLR(
            o, [m.ChainedScheduler([m.ConstantLR(o, 0.5, 3), m.StepLR(o, 2)]), m.PolynomialLR(o, 30)], [8]
        ),
        lambda lr, e: lr * (0.5 if e < 3 else 1) * 0.1 ** (e // 2) if e < 8 else lr * max(0, 1 - (e - 8) / 30),
    ),
}
EPOCHS = 60


def rates(o):
    return [g["lr"] for g in o.param_groups]


def advance(o, s):
    """An epoch; the rates that the next one has."""
    o.step()
    s.step()
    assert s.get_last_lr() == rates(o)
    return rates(o)


@pytest.mark.parametrize("name", SCHEDULES)
def test_closed_form(name):
    """Over 60 epochs; a product of 60 factors is off by 60 roundings of each, a cosine near its minimum by more."""
    make, rate = SCHEDULES[name]
    o = optimizer(momentum=0.9)
    s = make(ls, o)
    found = [rates(o)] + [advance(o, s) for _ in range(EPOCHS)]
    expected = [[rate(lr, e) for lr in BASE] for e in range(EPOCHS + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    assert len({tuple(f) for f in found}) > 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_state_dict(name):
    """A schedule restored with its optimizer goes on as the one that was saved."""
    make, _ = SCHEDULES[name]
    o = optimizer(momentum=0.9)
    s = make(ls, o)
    for _ in range(25):
        advance(o, s)
    saved, groups = copy.deepcopy(s.state_dict()), o.state_dict()
    p = optimizer(momentum=0.9)
    t = make(ls, p)
    p.load_state_dict(groups)
    t.load_state_dict(saved)
    for _ in range(EPOCHS - 25):
        assert advance(o, s) == advance(p, t)
        assert [g["momentum"] for g in o.param_groups] == [g["momentum"] for g in p.param_groups]
    assert repr(saved) == repr(copy.deepcopy(saved)), "loading has changed what was loaded"


def test_last_epoch():
    """A schedule made in the middle goes on from there; it needs groups that know their initial rate."""
    for name, make in {
        "StepLR": lambda o, **k: ls.StepLR(o, 7, **k),
        "ExponentialLR": lambda o, **k: ls.ExponentialLR(o, 0.9, **k),
        "CosineAnnealingLR": lambda o, **k: ls.CosineAnnealingLR(o, 80, **k),
        "LambdaLR": lambda o, **k: ls.LambdaLR(o, lambda e: 0.95**e, **k),
    }.items():
        o = optimizer()
        s = make(o)
        for _ in range(9):
            advance(o, s)
        groups = [
            {"params": [nn.Parameter([1.0])], "lr": g["lr"], "initial_lr": g["initial_lr"]} for g in o.param_groups
        ]
        p = optim.SGD(groups)
        t = make(p, last_epoch=8)
        assert rates(p) == pytest.approx(rates(o), rel=1e-14), name
        for _ in range(20):
            np.testing.assert_allclose(advance(p, t), advance(o, s), rtol=1e-12)
    with pytest.raises(ValueError, match="initial_lr"):
        ls.StepLR(optimizer(), 7, last_epoch=3)


@pytest.mark.parametrize("kind, read", [(optim.SGD, lambda g: g["momentum"]), (optim.Adam, lambda g: g["betas"][0])])
def test_cycled_momentum(kind, read):
    """Falls while the rate rises; Adam's is b1, b2 stays."""
    o = optimizer(kind, **({"momentum": 0.5} if kind is optim.SGD else {"betas": (0.5, 0.77)}))
    s = ls.CyclicLR(o, 0.1, 0.9, 8, base_momentum=0.7, max_momentum=0.95)
    for e in range(1, 30):
        advance(o, s)
        assert [read(g) for g in o.param_groups] == pytest.approx([0.95 - 0.25 * triangle(e, 8, 8)] * 2, rel=1e-14)
    if kind is optim.Adam:
        assert o.param_groups[0]["betas"][1] == 0.77
    o = optimizer(kind, **({"momentum": 0.5} if kind is optim.SGD else {}))
    s = ls.OneCycleLR(o, 1.0, total_steps=40)
    for e in range(1, 40):
        advance(o, s)
        want = one_cycle(e, 40, 0.3, (0.95, 0.85, 0.95), "cos", False)
        assert [read(g) for g in o.param_groups] == pytest.approx([want] * 2, rel=1e-14)


def test_one_cycle_ends():
    o = optimizer(momentum=0.9)
    s = ls.OneCycleLR(o, 1.0, total_steps=3)
    for _ in range(3):
        advance(o, s)
    with pytest.raises(ValueError, match="total_steps"):
        s.step()


def test_warm_restarts_at_a_given_epoch():
    o = optimizer()
    s = ls.CosineAnnealingWarmRestarts(o, 4, T_mult=2)
    for e in (0, 0.5, 3.75, 4, 11.5, 12, 59, 2):
        s.step(e)
        n = int(math.log2(e / 4 + 1))
        want = cosine(e - 4 * (2**n - 1), 4 * 2**n)
        assert rates(o) == pytest.approx([want(lr) for lr in BASE], rel=1e-14)


PLATEAU = [5, 4, 3, 3, 3, 3, 2.9999, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, -1, -1, -1, -1, -1, -1, -1, math.nan, -2, -2]


def plateau(options, lr):
    """The rates after each value, with two patient epochs, by counting."""
    best, bad, rest, out = None, 0, 0, []
    sign = -1 if options.get("mode") == "max" else 1
    for v in PLATEAU:
        v *= sign
        margin = options.get("threshold", 1e-4) * (1 if options.get("threshold_mode") == "abs" else abs(best or 0))
        if options.get("threshold_mode") != "abs" and best is not None and best < 0:
            margin = -margin  # relative to a negative best, "better" is nearer to 0, as torch has it
        good = best is None or v < best - margin
        best, bad = (v, 0) if good else (best, bad + 1)
        if rest:
            rest, bad = rest - 1, 0
        if bad > 2:
            new = max(lr * options.get("factor", 0.1), options.get("min_lr", 0))
            lr = new if lr - new > 1e-8 else lr
            rest, bad = options.get("cooldown", 0), 0
        out.append(lr)
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factor": 0.5, "cooldown": 3},
        {"min_lr": 0.01},
        {"threshold": 0.3, "threshold_mode": "abs"},
        {"threshold": 0.3},
        {"mode": "max", "factor": 0.5},
        {"mode": "max", "threshold": 0.3, "threshold_mode": "abs"},
    ],
    ids=str,
)
def test_plateau(options):
    o = optimizer()
    s = ls.ReduceLROnPlateau(o, patience=2, **options)
    found = []
    for v in PLATEAU:
        s.step(-v if options.get("mode") == "max" else v)
        found.append(rates(o))
        assert s.get_last_lr() == rates(o)
    expected = list(zip(*[plateau({**options, "mode": "min"}, lr) for lr in BASE]))
    if options.get("mode") == "max" and "threshold_mode" not in options:
        return  # mirrored, a relative threshold is another one: against torch only
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert found[-1] != list(BASE)


def test_plateau_takes_late_groups_and_tensors():
    o = optimizer()
    s = ls.ReduceLROnPlateau(o, patience=0)
    s.step(nn.Parameter([1.0]))
    o.add_param_group({"params": [nn.Parameter([1.0])], "lr": 3.0})
    s.step(2.0)
    assert rates(o) == pytest.approx([BASE[0] / 10, BASE[1] / 10, 0.3])
    t = ls.ReduceLROnPlateau(o, patience=0)
    t.load_state_dict(s.state_dict())
    assert (t.best, t.last_epoch) == (1.0, 2)


def test_a_step_before_the_optimizers_is_a_warning():
    o = optimizer()
    s = ls.StepLR(o, 3)
    with pytest.warns(UserWarning, match=r"before optimizer\.step"):
        s.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s.step()
        o = optimizer()
        advance(o, ls.StepLR(o, 3))


def test_the_rates_are_used():
    p = nn.Parameter(np.array([1.0]))
    o = optim.SGD([p], lr=0.5)
    s = ls.StepLR(o, 1, gamma=0.5)
    for want in (0.5, 0.25, 0.125):
        p.grad = nn.Parameter(np.ones(1)).detach()
        o.step()
        s.step()
        assert p.item() == want


def test_other_schedulers_state():
    s = ls.StepLR(optimizer(), 3)
    before = s.state_dict()
    with pytest.raises(ValueError, match="state_dict"):
        s.load_state_dict(ls.ExponentialLR(optimizer(), 0.5).state_dict())
    assert s.state_dict() == before


o = optimizer(momentum=0.9)
plain = optimizer(optim.Adagrad)
BAD = [
    (lambda: ls.StepLR(None, 3), TypeError, "optimizer"),
    (lambda: ls.StepLR(o, 0), ValueError, "step_size"),
    (lambda: ls.StepLR(o, 2.5), TypeError, "step_size"),
    (lambda: ls.StepLR(o, 2, gamma="x"), TypeError, "gamma"),
    (lambda: ls.StepLR(o, 2, last_epoch=-2), ValueError, "last_epoch"),
    (lambda: ls.LambdaLR(o, 0.5), TypeError, "lr_lambda"),
    (lambda: ls.LambdaLR(o, [abs]), ValueError, "lr_lambda"),
    (lambda: ls.MultiplicativeLR(o, None), TypeError, "lr_lambda"),
    (lambda: ls.MultiStepLR(o, 5), TypeError, "milestones"),
    (lambda: ls.MultiStepLR(o, [1.5]), TypeError, "milestones"),
    (lambda: ls.ConstantLR(o, 1.5), ValueError, "factor"),
    (lambda: ls.LinearLR(o, 0), ValueError, "start_factor"),
    (lambda: ls.LinearLR(o, 0.5, 2), ValueError, "end_factor"),
    (lambda: ls.LinearLR(o, total_iters=0), ValueError, "total_iters"),
    (lambda: ls.ExponentialLR(o, None), TypeError, "gamma"),
    (lambda: ls.PolynomialLR(o, 0), ValueError, "total_iters"),
    (lambda: ls.CosineAnnealingLR(o, 0), ValueError, "T_max"),
    (lambda: ls.CosineAnnealingWarmRestarts(o, 0), ValueError, "T_0"),
    (lambda: ls.CosineAnnealingWarmRestarts(o, 1, 0), ValueError, "T_mult"),
    (lambda: ls.CosineAnnealingWarmRestarts(o, 1).step(-1), ValueError, "epoch"),
    (lambda: ls.CyclicLR(o, [0.1], 1.0), ValueError, "base_lr"),
    (lambda: ls.CyclicLR(o, 0.1, "a"), TypeError, "max_lr"),
    (lambda: ls.CyclicLR(o, 0.1, 1.0, 0), ValueError, "step_size_up"),
    (lambda: ls.CyclicLR(o, 0.1, 1.0, mode="square"), ValueError, "mode"),
    (lambda: ls.CyclicLR(o, 0.1, 1.0, scale_fn=2), TypeError, "scale_fn"),
    (lambda: ls.CyclicLR(o, 0.1, 1.0, scale_fn=abs, scale_mode="x"), ValueError, "scale_mode"),
    (lambda: ls.CyclicLR(plain, 0.1, 1.0), ValueError, "cycle_momentum"),
    (lambda: ls.OneCycleLR(o, 1.0), ValueError, "total_steps"),
    (lambda: ls.OneCycleLR(o, 1.0, epochs=3), ValueError, "total_steps"),
    (lambda: ls.OneCycleLR(o, 1.0, 0), ValueError, "total_steps"),
    (lambda: ls.OneCycleLR(o, 1.0, 9, pct_start=2.0), ValueError, "pct_start"),
    (lambda: ls.OneCycleLR(o, 1.0, 9, anneal_strategy="x"), ValueError, "anneal_strategy"),
    (lambda: ls.OneCycleLR(o, 1.0, 9, div_factor=0), ValueError, "div_factor"),
    (lambda: ls.OneCycleLR(o, [1.0], 9), ValueError, "max_lr"),
    (lambda: ls.ReduceLROnPlateau(o, "up"), ValueError, "mode"),
    (lambda: ls.ReduceLROnPlateau(o, factor=1.0), ValueError, "factor"),
    (lambda: ls.ReduceLROnPlateau(o, patience=-1), ValueError, "patience"),
    (lambda: ls.ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "threshold_mode"),
    (lambda: ls.ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "min_lr"),
    (lambda: ls.ChainedScheduler([]), TypeError, "schedulers"),
    (lambda: ls.ChainedScheduler([o]), TypeError, "schedulers"),
    (lambda: ls.ChainedScheduler([ls.ReduceLROnPlateau(o)]), ValueError, "schedulers"),
    (lambda: ls.ChainedScheduler([ls.StepLR(optimizer(), 1)], o), ValueError, "schedulers"),
    (lambda: ls.SequentialLR(o, [ls.StepLR(optimizer(), 1)], [1]), ValueError, "schedulers"),
    (lambda: ls.SequentialLR(plain, [ls.StepLR(plain, 1)], [1]), ValueError, "milestones"),
    (lambda: ls.SequentialLR(plain, [ls.StepLR(plain, 1)], None), ValueError, "milestones"),
    (lambda: ls.StepLR(plain, 1).load_state_dict([]), TypeError, "state_dict"),
]


@pytest.mark.parametrize("call, error, match", BAD, ids=[f"{i} {b[2]}" for i, b in enumerate(BAD)])
def test_bad_input(call, error, match):
    before = rates(o), [g["momentum"] for g in o.param_groups]
    with pytest.raises(error, match=match):
        call()
    assert (rates(o), [g["momentum"] for g in o.param_groups]) == before
