"""Optimizers against torch's formulas in NumPy float64, and everything around the formulas."""

import itertools

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore.nn import functional as F

from . import reference


def trajectory(kind):
    """(p, gradients, options) -> p after a step with each, in the precision of p, by the oracle of one step."""

    def oracle(p, grads, **options):
        state = None
        for g in grads:
            p, state = reference.OPTIMIZERS[kind](p, np.asarray(g), state, **options)
        return p

    return oracle


KINDS = {kind: (getattr(optim, kind), trajectory(kind)) for kind in reference.OPTIMIZERS}
DECAYING = [k for k in KINDS if k != "Rprop"]  # those that have weight decay

VARIANTS = [
    ("SGD", {}),
    ("SGD", {"lr": 0.0}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True, "maximize": True}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 2, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.6), "eps": 1e-3}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "maximize": True, "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.1, "betas": (0.0, 0.0)}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
    ("AdamW", {"lr": 0.1, "maximize": True}),
    ("AdamW", {"weight_decay": 0}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.1, "betas": (0.5, 0.6), "eps": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.1, "betas": (0.5, 0.6), "weight_decay": 0.1, "momentum_decay": 1, "maximize": True}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Lion", {}),
    ("Lion", {"lr": 0.1, "betas": (0.5, 0.6), "weight_decay": 0.1, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 0.1}),
    ("Adagrad", {"maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.5, "momentum": 0.9, "centered": True, "weight_decay": 0.1, "eps": 0.1}),
    ("RMSprop", {"momentum": 0.5, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.5, "eps": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.1, "etas": (0.1, 3.0), "step_sizes": (0.05, 0.2), "maximize": True}),
    ("AdaSecant", {}),
    ("AdaSecant", {"lr": 0.5, "decay": 0.5, "gamma_clip": None, "start_var_reduction": 2, "use_adagrad": True}),
    ("AdaSecant", {"delta_clip": 0.5, "start_var_reduction": None, "weight_decay": 0.1, "maximize": True}),
]
IDS = [f"{k} {o}" for k, o in VARIANTS]
SHAPES = [(3,), (4, 5), (), (2, 0), (1,), (33, 7)]


def drive(opt, params, grads):
    """Steps with given gradients: grads[step][i] for params[i], None for none."""
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else nncore.tensor(np.asarray(g, p.dtype))
        opt.step()


def problem(dtype=np.float64, shapes=SHAPES, steps=6, seed=0):
    rng = np.random.default_rng(seed)
    start = [rng.standard_normal(s).astype(dtype) for s in shapes]
    grads = [[rng.standard_normal(s).astype(dtype) for s in shapes] for _ in range(steps)]
    return start, [nn.Parameter(a) for a in start], grads


@pytest.mark.parametrize("kind, options", VARIANTS, ids=IDS)
def test_formula(kind, options, isa):
    """In float64, to a few roundings per step; in float32, the same to its precision."""
    make, oracle = KINDS[kind]
    for dtype in (np.float64, np.float32):
        start, params, grads = problem(dtype)
        drive(make(params, **options), params, grads)
        tolerance = 100 * np.finfo(dtype).eps
        for i, p in enumerate(params):
            want = oracle(start[i].astype(np.float64), [g[i].astype(np.float64) for g in grads], **options)
            assert p.dtype == dtype
            np.testing.assert_allclose(p.numpy(), want, rtol=tolerance, atol=tolerance)
            if options.get("lr") == 0.0:
                assert np.array_equal(p.numpy(), start[i])
            elif p.numel() > 1:  # one that steps by signs may be back
                assert not np.array_equal(p.numpy(), start[i])


@pytest.mark.parametrize("kind", KINDS)
def test_zero_gradients(kind):
    """A zero gradient is a gradient: Adam's 0 / (0 + eps) is 0, not NaN."""
    start, params, _ = problem()
    options = {"Rprop": {}, "ASGD": {"lambd": 0}}.get(kind, {"weight_decay": 0})
    drive(KINDS[kind][0](params, lr=0.1, **options), params, [[np.zeros(s) for s in SHAPES]] * 3)
    for a, p in zip(start, params):
        if kind == "AdaSecant":  # its mean gradient starts at eps
            np.testing.assert_allclose(p.numpy(), a, rtol=0, atol=1e-6)
        else:
            assert np.array_equal(p.numpy(), a)


def test_nan_gradients_stay_visible():
    for make, _ in KINDS.values():
        p = nn.Parameter([1.0, 2.0])
        drive(make([p], lr=0.1), [p], [[[float("nan"), 1.0]]])
        assert np.isnan(p.numpy()).tolist() == [True, make is optim.AdaSecant]  # whose norm is of the whole array


@pytest.mark.parametrize("kind", DECAYING)
def test_groups(kind):
    """Each group has its own options; what a group leaves out takes the default."""
    make, oracle = KINDS[kind]
    start, params, grads = problem()
    opt = make(
        [{"params": params[:2], "lr": 0.5}, {"params": params[2], "weight_decay": 0.2}, {"params": params[3:]}], lr=0.01
    )
    assert [g["lr"] for g in opt.param_groups] == [0.5, 0.01, 0.01]
    assert [g["weight_decay"] for g in opt.param_groups] == [
        opt.defaults["weight_decay"],
        0.2,
        opt.defaults["weight_decay"],
    ]
    drive(opt, params, grads)
    for i, p in enumerate(params):
        options = {"lr": 0.5} if i < 2 else {"lr": 0.01, "weight_decay": 0.2} if i == 2 else {"lr": 0.01}
        np.testing.assert_allclose(
            p.numpy(), oracle(start[i], [g[i] for g in grads], **options), rtol=1e-13, atol=1e-13
        )


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"Rprop", "ASGD"}))
def test_options_may_change_between_steps(kind):
    make, _ = KINDS[kind]
    start, params, grads = problem(steps=2)
    opt = make(params, lr=0.1)
    drive(opt, params, grads[:1])
    middle = [p.numpy().copy() for p in params]
    opt.param_groups[0]["lr"] = 0.0
    if kind == "AdamW":
        opt.param_groups[0]["weight_decay"] = 0.0
    drive(opt, params, grads[1:])
    for a, m, p in zip(start, middle, params):
        assert np.array_equal(p.numpy(), m)
        assert a.size == 0 or not np.array_equal(a, m)


def test_rprop_and_asgd_keep_the_step_size():
    """Rprop's lr is the first step only; ASGD takes eta from the step before."""
    for kind, after in (("Rprop", [0.9, 0.78]), ("ASGD", [0.9, 0.8, 0.8])):
        p = nn.Parameter(np.array([1.0]))
        opt = KINDS[kind][0]([p], lr=0.1, **({"lambd": 0} if kind == "ASGD" else {}))
        for want in after:
            drive(opt, [p], [[[1.0]]])
            opt.param_groups[0]["lr"] = 0.0
            np.testing.assert_allclose(p.numpy(), [want], rtol=1e-14)


def test_amsgrad_may_be_switched_on():
    p = nn.Parameter(np.array([1.0]))
    opt = optim.Adam([p])
    drive(opt, [p], [[[1.0]]])
    opt.param_groups[0]["amsgrad"] = True
    drive(opt, [p], [[[1.0]]])
    state = opt.state[p]
    assert state["step"] == 2
    assert state["max_exp_avg_sq"].item() == state["exp_avg_sq"].item()


def test_momentum_may_be_switched_on():
    p = nn.Parameter(np.array([1.0]))
    opt = optim.SGD([p], lr=0.1)
    drive(opt, [p], [[[1.0]]])
    opt.param_groups[0]["momentum"] = 0.5
    drive(opt, [p], [[[1.0]], [[1.0]]])
    np.testing.assert_allclose(p.numpy(), [1 - 0.1 - 0.1 - 0.15], rtol=1e-14)


@pytest.mark.parametrize("kind", DECAYING)
def test_parameters_without_gradient_are_left_alone(kind):
    """Neither moved nor counted: the first step with a gradient is a first step (Adam's bias correction)."""
    make, oracle = KINDS[kind]
    start, params, grads = problem(shapes=[(3,), (2, 2)], steps=5)
    sparse = [[g[0], g[1] if k in (2, 4) else None] for k, g in enumerate(grads)]
    opt = make(params, lr=0.1, weight_decay=0.1)
    drive(opt, params, sparse[:2])
    assert np.array_equal(params[1].numpy(), start[1])
    assert params[1] not in opt.state
    drive(opt, params, sparse[2:])
    for i in range(2):
        want = oracle(start[i], [g[i] for g in sparse if g[i] is not None], lr=0.1, weight_decay=0.1)
        np.testing.assert_allclose(params[i].numpy(), want, rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_late_group(kind):
    make, oracle = KINDS[kind]
    start, params, grads = problem(shapes=[(3,), (2, 2)], steps=4)
    opt = make([params[0]], lr=0.1)
    drive(opt, params[:1], [g[:1] for g in grads[:2]])
    opt.add_param_group({"params": [params[1]], "lr": 0.2})
    drive(opt, params, grads[2:])
    np.testing.assert_allclose(params[0].numpy(), oracle(start[0], [g[0] for g in grads], lr=0.1), rtol=1e-13)
    np.testing.assert_allclose(params[1].numpy(), oracle(start[1], [g[1] for g in grads[2:]], lr=0.2), rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_dtypes(kind):
    make, oracle = KINDS[kind]
    start, params, grads = problem(shapes=[(5,), (5,)], steps=3)
    params[0] = nn.Parameter(start[0].astype(np.float32))
    drive(make(params, lr=0.1), params, grads)
    for i, tolerance in enumerate((1e-5, 1e-13)):
        want = oracle(start[i], [g[i] for g in grads], lr=0.1)
        np.testing.assert_allclose(params[i].numpy(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_tied_weights_step_once(kind):
    nncore.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    net[2].weight = net[0].weight
    opt = KINDS[kind][0](net.parameters(), lr=0.1)
    assert len(opt.param_groups[0]["params"]) == 1
    before = net[0].weight.numpy().copy()
    net(np.ones((2, 3))).square().sum().backward()
    g = net[0].weight.grad.numpy().copy()
    opt.step()
    np.testing.assert_allclose(net[2].weight.numpy(), KINDS[kind][1](before, [g], lr=0.1), rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_parameters(kind):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    net[0].requires_grad_(False)
    opt = KINDS[kind][0](net.parameters(), lr=0.1)
    before = net.state_dict()
    for _ in range(3):
        opt.zero_grad()
        net(np.ones((2, 3))).sum().backward()
        opt.step()
    after = net.state_dict()
    assert [np.array_equal(before[n], after[n]) for n in before] == [True, True, False, False]


def test_gradient_layouts():
    """A gradient that is a view is read in its own order."""
    for make, oracle in KINDS.values():
        p = nn.Parameter(np.zeros((2, 3)))
        g = np.arange(6.0).reshape(3, 2)
        p.grad = nncore.tensor(g).T
        make([p], lr=0.1).step()
        np.testing.assert_allclose(p.numpy(), oracle(np.zeros((2, 3)), [g.T], lr=0.1), rtol=1e-13, atol=1e-15)


def test_leaf_tensors_may_be_optimized():
    w = nncore.tensor([1.0, 2.0], requires_grad=True)
    opt = optim.SGD([w], lr=0.5)
    (w * w).sum().backward()
    opt.step()
    assert w.tolist() == [0.0, 0.0]


def test_views_that_are_not_row_major_are_refused():
    """The update runs over memory in one stretch: a strided leaf would have its neighbours written."""
    base = nncore.ones(4, 6)
    for make, _ in KINDS.values():
        for w in (base.T, base[1:3, ::2]):
            with pytest.raises(ValueError, match="params"):
                make([w.requires_grad_()])
        opt = make([base[1:3].requires_grad_()], lr=0.1)  # rows in a stretch are fine
        opt.param_groups[0]["params"][0].grad = nncore.ones(2, 6)
        opt.step()
        a = base.numpy()
        assert (a[1:3] != 1).all()
        assert (a[[0, 3]] == 1).all()
        base.fill_(1)


@pytest.mark.parametrize("kind", KINDS)
def test_dtype_changed_under_the_optimizer(kind):
    """State of the old dtype is refused, not written past its end."""
    net = nn.Linear(3, 3)
    opt = KINDS[kind][0](net.parameters(), lr=0.1, **({"momentum": 0.9} if kind == "SGD" else {}))
    net(np.ones((2, 3))).sum().backward()
    opt.step()
    net.double()
    net(np.ones((2, 3))).sum().backward()
    before = net.state_dict()
    with pytest.raises(TypeError, match="state"):
        opt.step()
    for n, a in net.state_dict().items():
        assert np.array_equal(a, before[n])


# ---- saving ----


@pytest.mark.parametrize("kind, options", VARIANTS, ids=IDS)
def test_state_dict_continues_bit_for_bit(kind, options):
    make, _ = KINDS[kind]
    _, a, grads = problem(np.float32, steps=8)
    opt_a = make(a, **options)
    drive(opt_a, a, grads[:4])
    b = [nn.Parameter(p) for p in a]
    opt_b = make(b, lr=0.77)
    opt_b.load_state_dict(opt_a.state_dict())
    assert opt_b.param_groups[0]["lr"] == opt_a.param_groups[0]["lr"]
    drive(opt_a, a, grads[4:])
    drive(opt_b, b, grads[4:])
    for p, q in zip(a, b):
        assert np.array_equal(p.numpy(), q.numpy())


def test_state_dict_has_torchs_names_and_copies():
    _, params, grads = problem(shapes=[(3,), (2,)], steps=2)
    opt = optim.Adam([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}])
    drive(opt, params, grads)
    state = opt.state_dict()
    assert set(state) == {"state", "param_groups"}
    assert [g["params"] for g in state["param_groups"]] == [[0], [1]]
    assert [g["lr"] for g in state["param_groups"]] == [1e-3, 0.5]
    assert set(state["state"]) == {0, 1}
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["state"][0]["step"] == 2
    state["state"][0]["exp_avg"][...] = 0
    state["param_groups"][0]["lr"] = 9
    assert opt.state[params[0]]["exp_avg"].numpy().any()
    assert opt.param_groups[0]["lr"] == 1e-3
    sgd = optim.SGD([params[0]], momentum=0.9)
    drive(sgd, params[:1], [grads[0][:1]])
    assert "momentum_buffer" in sgd.state_dict()["state"][0]


def test_loaded_state_is_a_copy():
    _, params, grads = problem(shapes=[(3,)], steps=1)
    opt = optim.Adam(params)
    drive(opt, params, grads)
    state = opt.state_dict()
    twin = optim.Adam(params)
    twin.load_state_dict(state)
    state["state"][0]["exp_avg"][...] = 5
    assert not (twin.state[params[0]]["exp_avg"].numpy() == 5).any()


def break_sizes(s):
    s["param_groups"][0]["params"].append(7)


def break_shape(s):
    s["state"][0]["exp_avg"] = np.ones(9)


def break_number(s):
    s["state"][5] = s["state"][0]


def break_option(s):
    s["param_groups"][0]["lr"] = -1.0


def break_value(s):
    s["state"][0]["exp_avg_sq"] = "squares"


@pytest.mark.parametrize(
    "change, error",
    [
        (break_sizes, ValueError),
        (break_shape, ValueError),
        (break_number, ValueError),
        (break_option, ValueError),
        (break_value, TypeError),
    ],
)
def test_load_state_dict_changes_nothing_on_error(change, error):
    _, params, grads = problem(shapes=[(3,), (2,)], steps=1)
    opt = optim.Adam(params)
    drive(opt, params, grads)
    state = opt.state_dict()
    state["param_groups"][0]["eps"] = 0.5
    change(state)
    before = opt.state_dict()
    with pytest.raises(error):
        opt.load_state_dict(state)
    after = opt.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i in (0, 1):
        for name, value in before["state"][i].items():
            assert np.array_equal(after["state"][i][name], value)


# ---- step, zero_grad, text ----


def test_closure():
    p = nn.Parameter([3.0])
    opt = optim.SGD([p], lr=0.25)
    calls = []

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        calls.append(nncore.is_grad_enabled())
        return loss

    with nncore.no_grad():  # recording is on inside the closure, as torch's
        assert opt.step(closure).item() == 9.0
    assert calls == [True]
    assert p.item() == 1.5
    assert opt.step() is None


def test_zero_grad():
    p, q = nn.Parameter([3.0]), nn.Parameter([1.0])
    opt = optim.SGD([p, q])
    (p * 2).backward()
    held = p.grad
    opt.zero_grad(set_to_none=False)
    assert p.grad is held
    assert held.item() == 0.0
    assert q.grad is None
    opt.zero_grad()
    assert p.grad is None


def test_step_without_any_gradient():
    for make, _ in KINDS.values():
        p = nn.Parameter([3.0])
        opt = make([p])
        opt.step()
        assert p.item() == 3.0
        assert opt.state == {}


def test_repr():
    assert repr(optim.SGD([nn.Parameter([1.0])], lr=0.5)).startswith("SGD(lr=0.5, momentum=0")


def test_merged_neighbours_are_the_same_update(isa):
    """Parameters that lie side by side in memory are updated in one stretch, with the bits of separate updates."""
    rng = np.random.default_rng(0)
    flat, grad = (
        nncore.tensor(rng.standard_normal(100).astype(np.float32)),
        nncore.tensor(rng.standard_normal(100).astype(np.float32)),
    )
    edges = [0, 7, 8, 40, 41, 100]
    for make, _ in KINDS.values():
        views = [flat[a:b].requires_grad_() for a, b in itertools.pairwise(edges)]
        alone = [nn.Parameter(v.detach()) for v in views]
        opts = make(views, lr=0.1), [make([p], lr=0.1) for p in alone]
        for _ in range(3):
            for (a, b), v, p in zip(itertools.pairwise(edges), views, alone):
                v.grad, p.grad = grad[a:b], grad[a:b].clone()
            for opt in (opts[0], *opts[1]):
                opt.step()
        for v, p in zip(views, alone):
            assert np.array_equal(v.detach().numpy(), p.numpy())


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, lr=0.5, momentum=0.9), lambda p: optim.Adam(p, lr=0.05), lambda p: optim.AdamW(p, lr=0.05)],
)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_xor_is_learned(make, loss):
    nncore.manual_seed(1)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([0, 1, 1, 0])
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1 if loss == "mse" else 2))
    opt = make(net.parameters())
    first = None
    for _ in range(400):
        value = F.mse_loss(net(x), y[:, None]) if loss == "mse" else F.cross_entropy(net(x), y)
        first = value.item() if first is None else first
        opt.zero_grad()
        value.backward()
        opt.step()
    assert first > 0.1
    assert value.item() < 0.01
    out = net(x).detach()
    assert ((out.numpy()[:, 0] > 0.5) if loss == "mse" else out.argmax(1).numpy()).astype(int).tolist() == y.tolist()


def test_training_repeats_bit_for_bit():
    """With any number of threads, whatever ran before."""
    weights = []
    for threads in (1, 2, 1):
        nncore.set_num_threads(threads)
        nncore.manual_seed(3)
        net = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Dropout(0.2), nn.Linear(200, 5))
        opt = optim.Adam(net.parameters())
        x, y = nncore.randn(300, 30), np.arange(300) % 5
        for _ in range(5):
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
        weights.append(net.state_dict())
        nncore.randn(17)  # moves the generator
    for other in weights[1:]:
        for n, a in weights[0].items():
            assert np.array_equal(a, other[n])


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_clip_and_follow_the_schedule(kind):
    """A replayed step has the bits of an eager one: the optimizer's numbers, the clipping and the rate go with it."""

    def train(wrap):
        nncore.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        opt = KINDS[kind][0](net.parameters(), lr=0.05)
        schedule = optim.lr_scheduler.LinearLR(opt, 0.2, total_iters=6)

        @wrap
        def step(x, y):
            opt.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            nn.utils.clip_grad_value_(net.parameters(), 0.05)
            opt.step()
            return loss

        rng = np.random.default_rng(0)
        for _ in range(8):
            step(rng.standard_normal((5, 6)).astype(np.float32), rng.standard_normal((5, 2)).astype(np.float32))
            schedule.step()
        return net.state_dict()

    eager, compiled = train(lambda f: f), train(nncore.compile)
    for n in eager:
        assert np.array_equal(eager[n], compiled[n]), n


def test_lbfgs_is_not_compiled():
    w = nn.Parameter([1.0])
    opt = optim.LBFGS([w])
    with pytest.raises(RuntimeError, match="LBFGS"):
        nncore.compile(lambda x: opt.step(lambda: (w * x).sum()))(nncore.ones(1))


# ---- L-BFGS ----


def rosenbrock(w):
    """Of 10 numbers: 0 at (1, ..., 1), at the end of a bent valley."""
    return (100 * (w[1:] - w[:-1].square()).square() + (1 - w[:-1]).square()).sum()


def descend(opt, loss, steps):
    """The loss before each step; the closure is called under grad even when the caller is not."""

    def closure():
        opt.zero_grad()
        value = loss()
        value.backward()
        return value

    with nncore.no_grad():
        return [opt.step(closure).item() for _ in range(steps)]


def test_lbfgs_finds_the_minimum():
    """Of Rosenbrock's function, with the strong Wolfe line search; SGD is still far after as many gradients."""
    w = nn.Parameter(np.full(10, -0.5))
    opt = optim.LBFGS([w], line_search_fn="strong_wolfe", max_iter=100)
    descend(opt, lambda: rosenbrock(w), 2)
    np.testing.assert_allclose(w.numpy(), 1, atol=1e-4)
    evaluations = opt.state[w]["func_evals"]
    assert evaluations < 150
    v = nn.Parameter(np.full(10, -0.5))
    descend(optim.SGD([v], lr=1e-3), lambda: rosenbrock(v), evaluations)
    assert rosenbrock(v).item() > 1


def test_lbfgs_on_a_quadratic_of_two_dimensions():
    """With exact curvature along every step it ends in a few iterations, with and without line search."""
    for search in (None, "strong_wolfe"):
        w = nn.Parameter(np.array([3.0, -4.0]))
        opt = optim.LBFGS([w], line_search_fn=search)
        descend(opt, lambda w=w: (w * w * nncore.tensor(np.array([1.0, 30.0]))).sum(), 1)
        assert np.abs(w.numpy()).max() < 1e-6
        assert opt.state[w]["n_iter"] <= 20


def test_lbfgs_stops():
    """At a gradient of 0, by evaluations, and by iterations."""
    w = nn.Parameter(np.ones(3))
    opt = optim.LBFGS([w], max_iter=4, max_eval=3)
    descend(opt, lambda: rosenbrock(w), 1)
    assert opt.state[w]["func_evals"] == 1
    assert opt.state[w]["n_iter"] == 0
    v = nn.Parameter(np.full(3, -0.5))
    for options, evaluations in (({"max_iter": 4, "max_eval": 100}, 4), ({"max_iter": 50, "max_eval": 3}, 3)):
        opt = optim.LBFGS([v], **options)
        descend(opt, lambda: rosenbrock(v), 1)
        assert opt.state[v]["func_evals"] == evaluations


def test_lbfgs_history_is_limited():
    w = nn.Parameter(np.full(10, -0.5))
    opt = optim.LBFGS([w], line_search_fn="strong_wolfe", history_size=3)
    descend(opt, lambda: rosenbrock(w), 6)
    assert [len(opt.state[w][n]) for n in ("old_dirs", "old_stps", "ro")] == [3, 3, 3]
    assert rosenbrock(w).item() < 1e-2


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lbfgs_state_dict_continues_bit_for_bit(search, dtype):
    """Several parameters, one of them without gradient."""

    def make(values):
        params = [nn.Parameter(np.asarray(v, dtype)) for v in values]
        loss = lambda: rosenbrock(nncore.cat([params[0].reshape(-1), params[1]]))
        return params, optim.LBFGS(params, lr=0.5, max_iter=5, line_search_fn=search), loss

    a, opt_a, loss_a = make([np.full((2, 3), -0.5), np.zeros(4), np.ones(2)])
    descend(opt_a, loss_a, 2)
    b, opt_b, loss_b = make([p.numpy() for p in a])
    saved = opt_a.state_dict()
    opt_b.load_state_dict(saved)
    descend(opt_a, loss_a, 2), descend(opt_b, loss_b, 2)
    for p, q in zip(a, b):
        assert np.array_equal(p.numpy(), q.numpy())
    assert a[2].tolist() == [1, 1]
    assert not np.array_equal(saved["state"][0]["d"], opt_a.state[a[0]]["d"].numpy())
    saved["state"][0]["old_dirs"][0] = np.ones(3)
    before = opt_b.state_dict()["state"][0]["n_iter"]
    with pytest.raises(ValueError, match="old_dirs"):
        opt_b.load_state_dict(saved)
    assert opt_b.state[b[0]]["n_iter"] == before


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_nesterov_is_the_published_form(momentum):
    """Nesterov, 1983: a gradient step from the point y ahead, theta' = y - lr grad f(y), and the next point ahead,
    y' = theta' + mu (theta' - theta). Sutskever, Martens, Dahl, Hinton, ICML 2013, 3:
    v' = mu v - lr grad f(theta + mu v), theta' = theta + v'. SGD's parameter is the point ahead, y = theta + mu v; here
    of a quadratic, whose gradient is a product.

    Steps of up to 30 roundings each, which a stable iteration does not amplify beyond 1 / (1 - mu).
    """
    rng, lr, steps = np.random.default_rng(0), 0.05, 40
    a = rng.standard_normal((6, 6))
    a = a @ a.T / 6 + np.eye(6)
    start = rng.standard_normal(6)
    p = nn.Parameter(start)
    opt = optim.SGD([p], lr=lr, momentum=momentum, nesterov=momentum > 0)
    ahead, former = start.copy(), start.copy()  # 1983
    theta, v = start.copy(), np.zeros(6)  # 2013
    for _ in range(steps):
        p.grad = nncore.tensor(a @ p.detach().numpy())
        opt.step()
        point = ahead - lr * (a @ ahead)
        ahead, former = point + momentum * (point - former), point
        v = momentum * v - lr * (a @ (theta + momentum * v))
        theta = theta + v
        bound = 30 * steps / (1 - momentum) * np.finfo(np.float64).eps * np.abs(start).max()
        np.testing.assert_allclose(p.detach().numpy(), ahead, rtol=0, atol=bound)
        np.testing.assert_allclose(p.detach().numpy(), theta + momentum * v, rtol=0, atol=bound)
    assert np.abs(p.detach().numpy()).max() < np.abs(start).max()
