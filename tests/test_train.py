"""fit, evaluate and predict."""

import math
import subprocess
import sys

import numpy as np
import pytest

import nncore
from nncore import data, nn, optim, train
from nncore._core import runtime


def blobs(n=120, classes=3, seed=0):
    """Points around distinct centres: separable by a small network."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, 4)).astype(np.float32) + 4 * np.eye(classes, 4, dtype=np.float32)[y]
    return x, y


def network(seed=0, dropout=0.0, classes=3):
    nncore.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, classes))


def without_time(history):
    return {k: v for k, v in history.items() if k != "samples_per_second"}


def test_history_has_every_figure_of_every_epoch():
    x, y = blobs()
    h = train.fit(network(), x, y, epochs=4, lr=0.01, metrics=["accuracy"], validation_data=(x, y), seed=1)
    assert set(h) == {"loss", "accuracy", "val_loss", "val_accuracy", "samples_per_second"}
    assert all(len(v) == 4 for v in h.values())
    assert h.epochs == 4
    assert h["loss"][-1] < h["loss"][0]
    assert h["val_accuracy"][-1] > 0.9
    assert min(h["samples_per_second"]) > 0
    assert h.last()["val_loss"] == h["val_loss"][-1]


def test_epoch_loss_is_the_mean_over_samples():
    x, y = np.zeros((5, 1), np.float32), np.array([1, 1, 1, 1, 6], np.float32)
    h = train.fit(nn.Identity(), x, y, loss=_constant_loss, optimizer=_frozen(), batch_size=4, shuffle=False)
    assert h["loss"] == [pytest.approx((4 * 1 + 36) / 5)]  # batches of 4 and 1 samples: means 1 and 36


_weight = nn.Parameter([0.0])


def _constant_loss(output, target):
    return (output[:, 0] + _weight * 0 - target).square().mean()


def _frozen():
    return optim.SGD([_weight], lr=0.0)


def test_one_step_is_the_textbook_one():
    # y = w x + b at w = 1, b = 0, x = 2, target 5: loss 9, dw = -12, db = -6
    net = nn.Linear(1, 1)
    net.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
    h = train.fit(net, [[2.0]], [[5.0]], loss="mse", optimizer="sgd", lr=0.1, statistics=True)
    assert h["loss"] == [9.0]
    assert net.weight.item() == pytest.approx(2.2)
    assert net.bias.item() == pytest.approx(0.6)
    assert h["weight/grad_mean"] == [-12.0]
    assert h["bias/grad_norm"] == [6.0]


def test_statistics_of_parameters_and_gradients():
    x, y = blobs()
    net = network()
    h = train.fit(net, x, y, epochs=3, batch_size=None, statistics=True, seed=0)
    names = [n for n, _ in net.named_parameters()]
    figures = ("mean", "std", "norm", "grad_mean", "grad_std", "grad_norm")
    assert {f"{n}/{s}" for n in names for s in figures} < set(h)
    for name, w in net.state_dict().items():
        assert h[f"{name}/mean"][-1] == pytest.approx(w.mean(), abs=1e-6)
        assert h[f"{name}/std"][-1] == pytest.approx(w.std(), rel=1e-5)
        assert h[f"{name}/norm"][-1] == pytest.approx(np.sqrt((w**2).sum()), rel=1e-5)
        assert len(h[f"{name}/grad_norm"]) == 3
        assert all(v > 0 for v in h[f"{name}/grad_norm"])


def test_unused_parameters_have_no_gradient_statistics():
    net = network()
    net.unused = nn.Parameter([1.0, 2.0])
    net.forward = lambda x: nn.Sequential.forward(nn.Sequential(*list(net)), x)
    h = train.fit(net, *blobs(), statistics=True)
    assert h["unused/grad_norm"] == [None]
    assert h["unused/mean"] == [1.5]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_seed_same_numbers_on_any_threads(dropout):
    x, y = blobs()
    found = []
    for threads, threshold in ((1, -1), (2, -1), (2, 0)):
        nncore.set_num_threads(threads)
        runtime.set_parallel_threshold(threshold)
        net = network(3, dropout)
        h = train.fit(net, x, y, epochs=3, metrics="accuracy", validation_data=(x, y), statistics=True, seed=7)
        found.append((without_time(h), net.state_dict()))
        if threshold == 0:
            assert runtime.threads_used() == 2  # the test did share work
        runtime.threads_used()
    for history, state in found[1:]:
        assert history == found[0][0]
        assert all((state[k] == found[0][1][k]).all() for k in state)


def test_another_seed_gives_other_numbers():
    x, y = blobs()
    losses = {tuple(train.fit(network(3), x, y, seed=s, epochs=2)["loss"]) for s in (1, 2)}
    assert len(losses) == 2


def test_the_seed_leaves_the_default_generator_alone():
    nncore.manual_seed(5)
    before = nncore.get_rng_state()
    train.fit(network(5, 0.5), *blobs(), seed=1)
    after = nncore.get_rng_state()
    nncore.manual_seed(5)
    network(5, 0.5)
    assert after == nncore.get_rng_state() != before  # only the initialization has drawn


def test_unshuffled_full_batches_need_no_seed():
    x, y = blobs()
    runs = []
    for _ in range(2):
        net = network(1)
        state = nncore.get_rng_state()
        runs.append(train.fit(net, x, y, batch_size=None, shuffle=False, epochs=3)["loss"])
        assert nncore.get_rng_state() == state
    assert runs[0] == runs[1]


def test_arrays_tensors_and_dtypes():
    x, y = blobs()
    losses = [
        train.fit(network(1), xs, ys, seed=0)["loss"]
        for xs, ys in (
            (x, y),
            (x.astype(np.float64), y.astype(np.uint8)),
            (nncore.from_numpy(x), nncore.from_numpy(y)),
            (x.tolist(), y.tolist()),
        )
    ]
    assert losses[1:] == losses[:-1]
    net = network(1).double()
    assert train.fit(net, x, y, seed=0)["loss"][0] == pytest.approx(losses[0][0], rel=1e-3)
    assert train.predict(net, x).dtype == np.float64


def test_regression_with_one_dimensional_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 3
    net = nn.Linear(3, 1)
    h = train.fit(net, x, y, loss="mse", lr=0.1, epochs=30, metrics=["mae", "r2"], validation_data=(x, y), seed=0)
    assert h["val_r2"][-1] > 0.99
    assert h["val_mae"][-1] < 0.1
    assert train.evaluate(net, x, y[:, None], loss=nn.MSELoss())["loss"] == pytest.approx(h["val_loss"][-1])


def test_integer_targets_serve_the_squared_error():
    for loss in ("mse", nn.MSELoss()):
        assert train.evaluate(nn.Identity(), [[1.0], [2.0]], [[1], [4]], loss=loss)["loss"] == 2.0


def test_optimizers_by_name_and_as_objects():
    x, y = blobs()
    net = network(2)
    by_object = train.fit(net, x, y, optimizer=optim.SGD(net.parameters(), lr=0.1), seed=0, epochs=2)["loss"]
    assert by_object == train.fit(network(2), x, y, optimizer="sgd", lr=0.1, seed=0, epochs=2)["loss"]
    with pytest.raises(ValueError, match="lr: "):
        train.fit(net, x, y, optimizer=optim.SGD(net.parameters()), lr=0.1)


def test_metrics_are_functions_too():
    x, y = blobs()

    def share_of_zeros(output, target):
        assert output.shape == (120, 3)  # the whole epoch at once
        return (target == 0).float().mean()

    h = train.fit(network(), x, y, metrics=share_of_zeros, seed=0)
    assert h["share_of_zeros"] == [pytest.approx(1 / 3)]


def test_r2_and_accuracy_by_hand():
    t = nncore.tensor
    assert train.r2(t([1.0, 2.0, 4.0]), t([1.0, 2.0, 3.0])) == pytest.approx(1 - 1 / 2)
    assert train.r2(t([1.0, 1.0]), t([1.0, 1.0])) == 1.0
    assert train.r2(t([1.0, 2.0]), t([1.0, 1.0])) == 0.0
    assert train.accuracy(t([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), t([1, 1, 1])) == pytest.approx(2 / 3)
    assert train.accuracy(t([[0.1, 0.9]]), t([[0.0, 1.0]])) == 1.0  # targets as probabilities
    with pytest.raises(ValueError, match="target: "):
        train.r2(t([1.0, 2.0]), t([1.0]))
    with pytest.raises(ValueError, match="target: "):
        train.accuracy(t([[1.0, 2.0]]), t([1, 0]))


def test_callbacks_see_logs_and_can_stop():
    x, y = blobs()
    seen, batches = [], []

    class Watch:
        def on_epoch_end(self, epoch, logs):
            seen.append((epoch, sorted(logs)))
            logs.clear()  # its own copy
            return epoch == 1

        def on_batch_end(self, batch, logs):
            batches.append((batch, logs["loss"]))

    h = train.fit(network(), x, y, epochs=9, batch_size=50, callbacks=[Watch(), lambda epoch, logs: None])
    assert seen == [(0, ["loss", "samples_per_second"]), (1, ["loss", "samples_per_second"])]
    assert h.epochs == 2
    assert [b for b, _ in batches] == [0, 1, 2, 0, 1, 2]
    assert train.fit(network(), x, y, epochs=3, callbacks=lambda epoch, logs: True).epochs == 1


def test_modes_are_restored_and_gradients_dropped():
    x, y = blobs()
    net = network(0, 0.5)
    net[2].eval()
    modes = []
    train.fit(net, x, y, validation_data=(x, y), callbacks=lambda epoch, logs: modes.append(net[2].training))
    assert modes == [True]  # training, also after a validation
    assert net.training
    assert not net[2].training
    assert all(p.grad is None for p in net.parameters())
    net.train()
    a, b = train.predict(net, x), train.predict(net, x)
    assert a.tolist() == b.tolist()  # no dropout
    assert net[2].training
    assert not a.requires_grad


def test_modes_and_generator_are_restored_after_a_failure():
    net = network().eval()
    state = nncore.get_rng_state()

    def fail(epoch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(net, *blobs(), callbacks=fail, seed=1)
    assert not net.training
    assert nncore.get_rng_state() == state


def test_fit_records_under_no_grad():
    x, y = blobs()
    with nncore.no_grad():
        h = train.fit(network(), x, y, lr=0.01, epochs=3)
    assert h["loss"][-1] < h["loss"][0]


def test_predictions_do_not_depend_on_the_batch_size():
    x, y = blobs()
    net = network()
    whole = train.predict(net, x, batch_size=None).numpy()
    for size in (1, 7, 64):
        assert (train.predict(net, x, batch_size=size).numpy() == whole).all()
        assert train.evaluate(net, x, y, batch_size=size) == train.evaluate(net, x, y, batch_size=None)


def test_divergence_names_what_to_lower():
    x, y = blobs()
    with pytest.raises(FloatingPointError, match=r"epoch \d+, batch \d+.*lower lr"):
        train.fit(nn.Linear(4, 1), x, 1.0 * y, loss="mse", optimizer="sgd", lr=1e6, epochs=100)


@pytest.mark.parametrize("which, value", [("x", math.nan), ("y", math.inf)])
def test_bad_data_is_named_instead(which, value):
    arrays = {"x": np.ones((6, 2), np.float32), "y": np.ones((6, 1), np.float32)}
    arrays[which][4, 0] = value
    with pytest.raises(ValueError, match=f"{which}: NaN or infinite values in sample 4"):
        train.fit(nn.Linear(2, 1), **arrays, loss="mse", batch_size=2)


def _named(name):
    def metric(output, target):
        return 5.0

    metric.__name__ = name
    return metric


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"model": 3}, TypeError, "model: .*int"),
        ({"x": np.zeros((0, 4))}, ValueError, "x: .*sample"),
        ({"x": "text"}, TypeError, "x: "),
        ({"y": [0, 1]}, ValueError, r"y: expected 120 targets.*\(2,\)"),
        ({"loss": "hinge"}, ValueError, "loss: .*cross_entropy.*hinge"),
        ({"loss": 3}, TypeError, "loss: .*int"),
        ({"optimizer": "adamx"}, ValueError, "optimizer: .*adamx"),
        ({"optimizer": 3}, TypeError, "optimizer: .*int"),
        ({"lr": -1.0}, ValueError, "lr: .*-1"),
        ({"epochs": 0}, ValueError, "epochs: .*0"),
        ({"epochs": 2.0}, TypeError, "epochs: .*float"),
        ({"batch_size": 0}, ValueError, "batch_size: .*0"),
        ({"metrics": "f1"}, ValueError, "metrics: .*f1"),
        ({"metrics": [3]}, TypeError, "metrics: .*int"),
        ({"metrics": 3}, TypeError, "metrics: .*int"),
        ({"metrics": [lambda o, t: 1.0, lambda o, t: 2.0]}, ValueError, "metrics: two are named '<lambda>'"),
        ({"metrics": _named("loss")}, ValueError, "metrics: 'loss' is the name of"),
        ({"metrics": ["accuracy", _named("val_accuracy")]}, ValueError, "metrics: 'val_accuracy' is the name of"),
        ({"callbacks": [3]}, TypeError, "callbacks: .*int"),
        ({"callbacks": 3}, TypeError, "callbacks: .*int"),
        ({"validation_data": 3}, TypeError, "validation_data: "),
        ({"validation_data": (np.zeros((2, 4)), [0])}, ValueError, r"validation_data\[1\]: "),
        ({"seed": -1}, ValueError, "seed: .*-1"),
        ({"y": None}, TypeError, "y: expected targets"),
        ({"x": data.DataLoader(data.TensorDataset([[1.0]], [1]))}, TypeError, "y: expected None beside a DataLoader"),
        ({"validation_split": 1.0}, ValueError, "validation_split: .*1"),
        ({"validation_split": "a"}, TypeError, "validation_split: .*str"),
        ({"validation_split": 0.5, "validation_data": ([], [])}, ValueError, "validation_split: .*validation_data"),
        ({"penalty": 3}, TypeError, "penalty: .*int"),
        ({"clip_norm": -1}, ValueError, "clip_norm: .*-1"),
        ({"clip_value": "a"}, TypeError, "clip_value: .*str"),
        ({"max_steps": 0}, ValueError, "max_steps: .*0"),
        ({"max_seconds": -1}, ValueError, "max_seconds: .*-1"),
        ({"target_loss": "a"}, TypeError, "target_loss: .*str"),
        ({"min_change": -1}, ValueError, "min_change: .*-1"),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(change, error, words):
    x, y = blobs()
    net = network()
    before, state = net.state_dict(), nncore.get_rng_state()
    with pytest.raises(error, match=words):
        train.fit(**({"model": net, "x": x, "y": y} | change))
    assert all((before[k] == v).all() for k, v in net.state_dict().items())
    assert nncore.get_rng_state() == state


def test_a_loss_must_be_one_number():
    with pytest.raises(ValueError, match=r"loss: .*\(32,\)"):
        train.fit(network(), *blobs(), loss=nn.CrossEntropyLoss(reduction="none"))


def test_progress_goes_to_stderr(capsys):
    train.fit(network(), *blobs(), epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "batch/s" in err or "%" in err


def test_importing_the_library_imports_no_tqdm_and_no_safetensors():
    code = (
        "import sys, nncore, nncore.train, nncore.data, nncore.cli; print(*{'tqdm', 'safetensors'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_digits_are_learned():
    x, y = data.load_digits()
    rows, held = data.stratified_split(y)
    nncore.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    train.fit(net, x[rows] / 16, y[rows], lr=0.005, epochs=10, seed=0)
    assert train.evaluate(net, x[held] / 16, y[held], metrics="accuracy")["accuracy"] > 0.95


# ---- loaders ----


def test_loaders_give_what_arrays_give():
    x, y = blobs()
    want = train.fit(network(1), x, y, epochs=2, batch_size=16, seed=3, validation_data=(x, y), metrics="accuracy")
    pairs = data.TensorDataset(x, y)
    for loader in (
        pairs,
        data.DataLoader(pairs, 16, shuffle=True),
        data.DataLoader(pairs, 16, shuffle=True, prefetch=2),
    ):
        for held in (pairs, data.DataLoader(pairs, 7), (x, y)):
            options = {"epochs": 2, "batch_size": 16, "seed": 3, "validation_data": held, "metrics": "accuracy"}
            h = train.fit(network(1), loader, **options)
            assert without_time(h) == without_time(want)
    net = network(1)
    figures = train.evaluate(net, x, y, metrics="accuracy")
    assert train.evaluate(net, data.DataLoader(pairs, 11), metrics="accuracy") == figures
    for loader in (data.DataLoader(pairs, 11), data.DataLoader(data.TensorDataset(x), 11)):
        assert (train.predict(net, loader).numpy() == train.predict(net, x).numpy()).all()


def test_loaders_of_other_things_are_refused():
    x, _ = blobs()
    with pytest.raises(TypeError, match=r"x: expected a loader of pairs"):
        train.fit(network(), data.DataLoader(data.TensorDataset(x), 8))
    with pytest.raises(ValueError, match="x: the loader gave no batch"):
        train.fit(network(), data.DataLoader(data.TensorDataset(x, x), 500, drop_last=True))
    with pytest.raises(TypeError, match="validation_split: only for arrays"):
        train.fit(network(), data.DataLoader(data.TensorDataset(x, x)), validation_split=0.5)
    bad = x.copy()
    bad[5] = math.nan
    loader = data.DataLoader(data.TensorDataset(bad, x), 4, transform=lambda a, b: (a, b))
    with pytest.raises(ValueError, match="x: NaN or infinite values in sample 5"):
        train.fit(nn.Linear(4, 4), loader, loss="mse")
    whole = data.DataLoader([(a, b) for a, b in zip(bad, x)], 4)
    with pytest.raises(ValueError, match="x: NaN or infinite values in sample 1 of the batch"):
        train.fit(nn.Linear(4, 4), whole, loss="mse")


def test_validation_split_is_the_end_of_the_arrays():
    x, y = blobs()
    want = train.fit(network(1), x[:90], y[:90], validation_data=(x[90:], y[90:]), seed=1, epochs=2)
    for xs, ys in ((x, y), (nncore.tensor(x), nncore.tensor(y)), (x.tolist(), y.tolist())):
        h = train.fit(network(1), xs, ys, validation_split=0.25, seed=1, epochs=2)
        assert without_time(h) == without_time(want)
    assert "val_loss" not in train.fit(network(), x, y, validation_split=0.0)
    assert "val_loss" in train.fit(network(), x[:2], y[:2], validation_split=0.01)
    with pytest.raises(ValueError, match="validation_split: one sample"):
        train.fit(network(), x[:1], y[:1], validation_split=0.5)


# ---- what ends a training ----


def test_batch_stochastic_and_mini_batch():
    x, y = blobs(12)
    for size, steps in ((None, 1), (12, 1), (1, 12), (5, 3)):
        h = train.fit(network(), x, y, epochs=2, batch_size=size)
        assert (h.steps, h.stopped, h.epochs) == (2 * steps, "epochs", 2)


def test_max_steps_ends_within_an_epoch():
    x, y = np.ones((10, 1), np.float32), np.arange(10, dtype=np.float32)
    options = {"loss": _constant_loss, "optimizer": _frozen(), "batch_size": 2, "shuffle": False, "epochs": 9}
    h = train.fit(nn.Identity(), x, y, max_steps=8, validation_data=(x, y), **options)
    assert (h.steps, h.stopped, h.epochs) == (8, "max_steps", 2)
    assert h["loss"] == pytest.approx([((y - 1) ** 2).mean(), ((y[:6] - 1) ** 2).mean()])  # of the samples seen
    assert len(h["val_loss"]) == 2
    assert train.fit(network(), *blobs(), epochs=None, max_steps=3).steps == 3


def test_the_other_ends():
    x, y = blobs()
    h = train.fit(network(), x, y, lr=0.01, epochs=None, target_loss=0.1, seed=0)
    assert h.stopped == "target_loss"
    assert h["loss"][-1] <= 0.1 < h["loss"][-2]
    h = train.fit(network(), x, y, lr=0.01, epochs=None, min_change=0.01, seed=0)
    assert h.stopped == "min_change"
    changes = np.abs(np.diff(h["loss"]))
    assert changes[-1] <= 0.01 < changes[:-1].min()
    h = train.fit(network(), x, y, epochs=None, max_seconds=0)
    assert (h.stopped, h.steps) == ("max_seconds", 1)
    assert train.fit(network(), x, y, epochs=None, callbacks=lambda e, logs: e == 2).stopped == "callback"


@pytest.mark.parametrize("name", sorted(train.OPTIMIZERS))
def test_every_optimizer_trains(name):
    """By name; L-BFGS evaluates a batch several times, and its loss is that of the first."""
    x, y = blobs()
    net = network()
    before = train.evaluate(net, x, y)["loss"]
    h = train.fit(net, x, y, optimizer=name, epochs=8, batch_size=None, seed=0)
    assert h["loss"][0] == before
    assert h["loss"][-1] < before
    assert h.steps == 8


# ---- regularization ----


def test_the_penalty_is_part_of_the_loss():
    net = nn.Linear(1, 1)
    net.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
    options = {"loss": "mse", "optimizer": "sgd", "lr": 0.1, "validation_data": ([[2.0]], [[5.0]])}
    h = train.fit(net, [[2.0]], [[5.0]], penalty=lambda m: 0.5 * nn.utils.l1_penalty(m.parameters()), **options)
    assert h["loss"] == [9.5]
    assert net.weight.item() == pytest.approx(1 + 1.2 - 0.05)  # as in the textbook's step, less 0.1 0.5 sign(w)
    assert net.bias.item() == pytest.approx(0.6)
    rest = 5 - 2 * net.weight.item() - net.bias.item()
    error = 8 * 5 * 2.0**-24  # of a difference of fives
    assert h["val_loss"] == [pytest.approx(rest**2, abs=2 * abs(rest) * error)]


def test_clipping():
    for options, want in (({"clip_norm": 1.0}, (12, 6)), ({"clip_value": 1.0}, (1, 1)), ({}, (12, 6))):
        net = nn.Linear(1, 1)
        net.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
        train.fit(net, [[2.0]], [[5.0]], loss="mse", optimizer="sgd", lr=0.1, **options)
        scale = 1 / math.hypot(12, 6) if "clip_norm" in options else 1
        assert net.weight.item() == pytest.approx(1 + 0.1 * want[0] * scale, rel=1e-5)
        assert net.bias.item() == pytest.approx(0.1 * want[1] * scale, rel=1e-5)


# ---- the recorded step ----


@pytest.mark.parametrize("name", ["adam", "sgd", "rprop"])
def test_compile_changes_no_bit(name):
    """Dropout, batch normalization, a smaller last batch, schedules, clipping, a penalty, statistics, metrics."""
    x, y = blobs(50)
    found = []
    for compile in (False, True):
        nncore.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        h = train.fit(
            net, x, y, optimizer=name, epochs=6, batch_size=16, seed=2, metrics="accuracy", validation_data=(x, y),
            statistics=True, compile=compile, clip_norm=0.5, clip_value=0.1,
            penalty=lambda m: 1e-3 * nn.utils.l1_penalty(m.parameters()),
            callbacks=[
                train.LearningRateSchedule(lambda o: optim.lr_scheduler.ExponentialLR(o, 0.7), on="batch"),
                train.MaxNorm(1.5),
            ],
        )  # fmt: skip
        found.append((without_time(h), net.state_dict()))
        if compile:
            assert all(p.grad is None for p in net.parameters())
    assert found[0][0] == found[1][0]
    assert all((found[0][1][k] == v).all() for k, v in found[1][1].items())


def test_compile_replays(monkeypatch):
    made = []

    def spy(fn, **options):
        made.append(nncore.compile(fn, **options))
        return made[0]

    monkeypatch.setattr(train, "compiled", spy)
    train.fit(network(), *blobs(), batch_size=30, epochs=5, compile=True)
    assert made[0].plan.replays == 18


def test_compile_reports_divergence_and_what_it_cannot_record():
    x, y = blobs()
    options = {"loss": "mse", "optimizer": "sgd", "lr": 1e6, "epochs": 100, "compile": True}
    with pytest.raises(FloatingPointError, match="lower lr"):
        train.fit(nn.Linear(4, 1), x, 1.0 * y, **options)
    with pytest.raises(nncore.RecordError):
        train.fit(network(), x, y, optimizer="lbfgs", compile=True)
