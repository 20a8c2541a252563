"""Callbacks of fit."""

import os

import numpy as np
import pytest

import nncore
from nncore import nn, optim, train
from nncore.optim import lr_scheduler

from .test_train import blobs, network


class Scripted(train.Callback):
    """Puts given values in the place of the model's only weight, epoch by epoch."""

    def __init__(self, values):
        self.values = values

    def on_epoch_begin(self, epoch, logs):
        with nncore.no_grad():
            self.model.weight.copy_(np.full((1, 1), self.values[epoch]))


def scripted(values, *callbacks, **options):
    """(model, history) of epochs whose loss is (weight - 0)^2, the weights being scripted."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = optim.SGD(model.parameters(), lr=options.pop("lr", 0.0))
    options |= {"loss": "mse", "epochs": len(values), "validation_data": ([[1.0]], [[0.0]])}
    h = train.fit(model, [[1.0]], [[0.0]], optimizer=optimizer, callbacks=[Scripted(values), *callbacks], **options)
    return model, h


def test_events_in_order():
    seen = []

    class Watch(train.Callback):
        def on_train_begin(self, logs):
            seen.append(("train_begin", logs, self.model, self.optimizer))

        def on_train_end(self, logs):
            seen.append(("train_end", sorted(logs)))

        def on_epoch_begin(self, epoch, logs):
            seen.append(("epoch_begin", epoch, logs))

        def on_epoch_end(self, epoch, logs):
            seen.append(("epoch_end", epoch, sorted(logs)))
            logs.clear()  # its own copy

        def on_batch_begin(self, batch, logs):
            seen.append(("batch_begin", batch, logs))

        def on_batch_end(self, batch, logs):
            seen.append(("batch_end", batch, sorted(logs)))

    class Some:
        def on_batch_begin(self, batch, logs=None):
            seen.append("some")

    model = nn.Linear(1, 1)
    optimizer = optim.SGD(model.parameters())
    train.fit(
        model,
        [[1.0]] * 3,
        [1.0] * 3,
        loss="mse",
        optimizer=optimizer,
        batch_size=2,
        epochs=2,
        callbacks=[Watch(), Some()],
    )
    names = ["loss", "samples_per_second"]
    epoch = [e for b in (0, 1) for e in (("batch_begin", b, {}), "some", ("batch_end", b, ["loss"]))]
    assert seen == [
        ("train_begin", {}, model, optimizer),
        ("epoch_begin", 0, {}),
        *epoch,
        ("epoch_end", 0, names),
        ("epoch_begin", 1, {}),
        *epoch,
        ("epoch_end", 1, names),
        ("train_end", names),
    ]


def test_a_batch_can_end_the_training():
    class Stop(train.Callback):
        def on_batch_end(self, batch, logs):
            return batch == 1

    ended = []
    h = train.fit(network(), *blobs(), batch_size=40, epochs=5, callbacks=[Stop(), lambda e, logs: ended.append(e)])
    assert (h.stopped, h.steps, h.epochs, ended) == ("callback", 2, 1, [0])


def test_early_stopping_and_the_best_weights():
    values = [5.0, 3.0, 4.0, 2.0, 2.5, 2.25, 2.125, 1.0]
    for patience, epochs, best in ((0, 3, 1), (1, 3, 1), (2, 6, 3), (3, 7, 3), (4, 8, 7)):
        stop = train.EarlyStopping(patience=patience)
        model, h = scripted(values, stop)
        assert (h.epochs, stop.best_epoch, stop.best) == (epochs, best, values[best] ** 2)
        assert model.weight.item() == values[best]
        assert stop.stopped_epoch == (None if epochs == 8 else epochs - 1)
        assert h.stopped == ("epochs" if epochs == 8 else "callback")
        model, h = scripted(values, train.EarlyStopping(patience=patience, restore_best_weights=False))
        assert model.weight.item() == values[epochs - 1]


def test_early_stopping_may_be_used_again():
    stop = train.EarlyStopping(patience=1)
    scripted([1.0, 2.0, 3.0], stop)
    model, h = scripted([9.0, 8.0, 7.0], stop)
    assert (h.epochs, stop.best, model.weight.item()) == (3, 49.0, 7.0)


def test_what_counts_as_better():
    assert scripted([2.0, 1.99, 1.98, 1.0], train.EarlyStopping(min_delta=0.1))[1].epochs == 2
    assert scripted([2.0, 1.9, 1.8, 1.0], train.EarlyStopping(min_delta=0.1))[1].epochs == 4
    up = [1.0, 2.0, 3.0, 2.0]
    assert scripted(up, train.EarlyStopping(mode="max"))[1].epochs == 4
    assert scripted(up, train.EarlyStopping(mode="min"))[1].epochs == 2
    stop = train.EarlyStopping("accuracy", patience=9)
    train.fit(network(), *blobs(), epochs=3, callbacks=stop, metrics="accuracy")
    assert 0 < stop.best <= 1  # 'auto': larger is better


def test_batch_statistics_are_restored():
    """Buffers belong to the best weights."""
    x, y = blobs()
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    seen = []
    stop = train.EarlyStopping("loss", mode="max", patience=2)  # the first epoch is the best
    train.fit(net, x, y, lr=0.05, epochs=5, callbacks=[stop, lambda e, logs: seen.append(net.state_dict())], seed=0)
    state = net.state_dict()
    assert stop.best_epoch == 0
    assert all((state[k] == v).all() for k, v in seen[0].items())
    assert (seen[-1]["1.running_mean"] != seen[0]["1.running_mean"]).any()


def test_an_unknown_monitor_is_named():
    for callback in (train.EarlyStopping(), train.ModelCheckpoint("unused", save_best_only=True)):
        with pytest.raises(
            ValueError, match=r"monitor: expected one of \['loss', .*'val_loss'; fit needs validation_data"
        ):
            train.fit(network(), *blobs(), callbacks=callback)


# ---- checkpoints ----


def test_checkpoints(tmp_path):
    values = [3.0, 4.0, 2.0, 5.0]
    every = train.ModelCheckpoint(tmp_path / "e{epoch:02d}-{val_loss:.1f}")
    best = train.ModelCheckpoint(tmp_path / "best", save_best_only=True)
    worst = train.ModelCheckpoint(tmp_path / "worst", save_best_only=True, mode="max")
    scripted(values, every, best, worst)
    names = ["e01-9.0", "e02-16.0", "e03-4.0", "e04-25.0"]
    assert [os.path.basename(p) for p in every.saved] == names
    assert (len(best.saved), len(worst.saved)) == (2, 3)
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "best", "worst"])
    model = nn.Linear(1, 1, bias=False)
    for name, value in (("best", 2.0), ("worst", 5.0), *zip(names, values)):
        assert train.load_weights(tmp_path / name, model) == ([], [])
        assert model.weight.item() == value


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w"
    train.save_weights(path, nn.Linear(2, 2))
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        train.save_weights(path, nn.Linear(2, 2))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w"]


def test_weights_files_are_checked(tmp_path):
    path, net = tmp_path / "w.safetensors", nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    train.save_weights(path, net)
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    train.load_weights(path, other)
    assert all((net.state_dict()[k] == v).all() for k, v in other.state_dict().items())
    assert train.load_weights(path, nn.Sequential(nn.Linear(2, 3)), strict=False)[1][0].startswith("1.")
    for model, words in (
        (nn.Linear(2, 3), "missing names"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "shape"),
    ):
        before = model.state_dict()
        with pytest.raises(ValueError, match=rf"w\.safetensors: .*{words}"):
            train.load_weights(path, model)
        assert all((before[k] == v).all() for k, v in model.state_dict().items())
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:-1], content[:20]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"w\.safetensors: not a safetensors file"):
            train.load_weights(path, net)
    header = b'{"weight":{"dtype":"BF16","shape":[1,1],"data_offsets":[0,2]}}  '
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80?")
    with pytest.raises(ValueError, match=r"w\.safetensors: tensors of type BF16"):
        train.load_weights(path, nn.Linear(1, 1, bias=False))
    with pytest.raises(FileNotFoundError):
        train.load_weights(tmp_path / "nothing", net)
    for call in (train.save_weights, train.load_weights):
        with pytest.raises(TypeError, match="model: "):
            call(path, 3)


def test_checkpoint_paths_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"path: .*\{nothing\}.*expected"):
        scripted([1.0], train.ModelCheckpoint(tmp_path / "{nothing}"))
    with pytest.raises(ValueError, match="does not exist"):
        scripted([1.0], train.ModelCheckpoint(tmp_path / "no" / "where"))


# ---- schedules ----


def test_schedules_step_after_epochs_or_batches():
    x, y = blobs(12)
    for on, count in (("epoch", 3), ("batch", 6)):
        schedule = train.LearningRateSchedule(lambda o: lr_scheduler.StepLR(o, 2, 0.1), on=on)
        train.fit(network(), x, y, lr=1.0, optimizer="sgd", epochs=3, batch_size=6, callbacks=schedule)
        assert schedule.rates == pytest.approx([10.0 ** -(i // 2) for i in range(count)])
    net = network()
    optimizer = optim.SGD(net.parameters(), lr=0.5)
    schedule = train.LearningRateSchedule(lr_scheduler.ExponentialLR(optimizer, 0.5))
    train.fit(net, x, y, optimizer=optimizer, epochs=2, callbacks=schedule)
    assert (schedule.rates, optimizer.param_groups[0]["lr"]) == ([0.5, 0.25], 0.125)


def test_a_function_makes_a_schedule_for_each_training():
    x, y = blobs(12)
    schedule = train.LearningRateSchedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5))
    assert schedule.scheduler is None
    for _ in range(2):
        train.fit(network(), x, y, lr=1.0, optimizer="sgd", epochs=2, callbacks=schedule)
        assert schedule.rates == [1.0, 0.5]


def test_plateaus():
    schedule = train.LearningRateSchedule(lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1, eps=0))
    scripted([3.0, 2.0, 2.0, 2.0, 2.0, 2.0], schedule, lr=2.0**-20)
    assert [r * 2**20 for r in schedule.rates] == [1, 1, 1, 1, 0.5, 0.5]


# ---- max-norm ----


def test_max_norm_holds_after_every_step():
    x, y = blobs()
    net, norms = network(), []
    biases = net[0].bias.detach().clone()

    class Look(train.Callback):
        def on_batch_end(self, batch, logs):
            norms.extend(np.sqrt((w.detach().numpy() ** 2).sum(1)).max() for w in (net[0].weight, net[3].weight))

    options = {"optimizer": "sgd", "lr": 0.5, "epochs": 2, "seed": 0}
    train.fit(net, x, y, callbacks=[train.MaxNorm(0.7), Look()], **options)
    assert max(norms) == pytest.approx(0.7, rel=1e-5)
    assert (net[0].bias.detach().numpy() != biases.numpy()).any()
    norms.clear()
    train.fit(network(), x, y, callbacks=[train.MaxNorm(0.7, [net[0].weight]), Look()], **options)
    free = network()
    train.fit(free, x, y, callbacks=train.MaxNorm(0.7, [free[0].weight]), **options)
    assert np.sqrt((free[3].weight.detach().numpy() ** 2).sum(1)).max() > 0.75


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: train.EarlyStopping(monitor=3), TypeError, "monitor: .*int"),
        (lambda: train.EarlyStopping(mode="up"), ValueError, "mode: .*up"),
        (lambda: train.EarlyStopping(patience=-1), ValueError, "patience: .*-1"),
        (lambda: train.EarlyStopping(min_delta=-1), ValueError, "min_delta: .*-1"),
        (lambda: train.ModelCheckpoint(3), TypeError, "int"),
        (lambda: train.ModelCheckpoint("a", mode=3), ValueError, "mode: .*3"),
        (lambda: train.LearningRateSchedule(3), TypeError, "scheduler: .*int"),
        (lambda: train.LearningRateSchedule(lr_scheduler.StepLR), TypeError, "scheduler: .*StepLR"),
        (lambda: train.LearningRateSchedule(lambda o: o, on="step"), ValueError, "on: .*step"),
        (lambda: train.MaxNorm(0), ValueError, "max_norm: .*0"),
        (lambda: train.MaxNorm("a"), TypeError, "max_norm: .*str"),
    ],
)
def test_bad_arguments_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_schedules_of_others_are_refused():
    other = lr_scheduler.ConstantLR(optim.SGD([nn.Parameter([1.0])], lr=0.1))
    with pytest.raises(ValueError, match="scheduler: it is another optimizer's"):
        scripted([1.0], train.LearningRateSchedule(other))
    with pytest.raises(TypeError, match=r"scheduler: .*SGD"):
        scripted([1.0], train.LearningRateSchedule(lambda o: o))
    plateau = train.LearningRateSchedule(lambda o: lr_scheduler.ReduceLROnPlateau(o), monitor="f1")
    with pytest.raises(ValueError, match="monitor: "):
        scripted([1.0], plateau)
