"""Callbacks of `train.fit`: what happens at the beginnings and ends of training, epochs and batches."""

import math
import os

from nncore._model_file import save_weights
from nncore._ops._check import integer, number, one_of
from nncore.nn.utils import max_norm_
from nncore.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

EVENTS = ("train_begin", "train_end", "epoch_begin", "epoch_end", "batch_begin", "batch_end")


class Callback:
    """Base of callbacks, with Keras's names: a subclass defines what it needs.

    `epoch` and `batch` count from 0, batches anew in each epoch. `logs` is a dict of the values there are by then:
    after a batch its loss, after an epoch and at the end what History collects of the epoch; else it is empty. Training
    stops after a batch, or after an epoch, whose method returned True.

    Attributes:
        model, optimizer: those that are trained; `fit` sets them.

    >>> class Count(Callback):
    ...     steps = 0
    ...     def on_batch_end(self, batch, logs):
    ...         self.steps += 1
    ...         return self.steps == 5
    >>> from nncore import nn, train
    >>> count = Count()
    >>> h = train.fit(nn.Linear(1, 1), [[1.0], [2.0]], [1.0, 2.0], loss="mse", epochs=9, batch_size=1, callbacks=count)
    >>> count.steps, h.epochs, h.stopped
    (5, 3, 'callback')
    """

    model = optimizer = None

    def on_train_begin(self, logs):
        """Before the first epoch."""

    def on_train_end(self, logs):
        """After the last epoch, unless training failed."""

    def on_epoch_begin(self, epoch, logs):
        """Before the epoch's first batch."""

    def on_epoch_end(self, epoch, logs):
        """After the epoch's last batch, and its validation."""

    def on_batch_begin(self, batch, logs):
        """Before the batch's step."""

    def on_batch_end(self, batch, logs):
        """After the batch's step."""


class Callbacks:
    """Several callbacks, as one. A function is one that is called after each epoch."""

    def __init__(self, callbacks, model=None, optimizer=None):
        self._methods = {event: [] for event in EVENTS}
        for c in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
            found = {e: m for e in EVENTS if (m := getattr(c, f"on_{e}", None)) is not None}
            if not found:
                if not callable(c):
                    raise TypeError(
                        f"callbacks: expected functions or objects with on_epoch_end, got {type(c).__name__}"
                    )
                found = {"epoch_end": c}
            for event, method in found.items():
                if getattr(method, "__func__", None) is not getattr(Callback, f"on_{event}"):
                    self._methods[event].append(method)
            if isinstance(c, Callback):
                c.model, c.optimizer = model, optimizer

    def __call__(self, event, *args):
        """Calls all, each with its own copy of the logs; whether one returned True."""
        *at, logs = args
        answers = [method(*at, dict(logs)) for method in self._methods[event]]
        return any(a is True for a in answers)


class _Monitor:
    """The best of a value that the logs have, so far."""

    def __init__(self, name, mode, min_delta=0.0):
        if not isinstance(name, str):
            raise TypeError(f"monitor: expected the name of a value, got {type(name).__name__}")
        if one_of(mode, "mode", ("auto", "min", "max")) == "auto":
            mode = "max" if name.endswith(("accuracy", "r2")) else "min"
        self.name, self._sign = name, 1 if mode == "max" else -1
        self._delta = number(min_delta, "min_delta", 0)
        self.best = -self._sign * math.inf

    def read(self, logs):
        if self.name not in logs:
            hint = "; fit needs validation_data" if self.name.startswith("val_") else ""
            raise ValueError(f"monitor: expected one of {sorted(logs)}, got {self.name!r}{hint}")
        return logs[self.name]

    def improved(self, logs):
        """Whether the value is better than the best by more than min_delta; then it is the best."""
        value = self.read(logs)
        if not self._sign * (value - self.best) > self._delta:
            return False
        self.best = value
        return True


class EarlyStopping(Callback):
    """Stops when a value has not improved for some epochs, and gives the model its best weights back. Prechelt, "Early
    stopping - but when?", 1998; Keras's.

    Args:
        monitor: name of the value: 'val_loss', 'loss', 'val_accuracy', ...
        min_delta: a change of at most this is no improvement.
        patience: epochs without improvement after which training stops.
        mode: 'min' or 'max': what is better; 'auto': 'max' for accuracy and r2, else 'min'.
        restore_best_weights: at the end, set parameters and buffers to what they were after the best epoch.

    Attributes:
        best: the best value.
        best_epoch: the epoch that it is from.
        stopped_epoch: the epoch after which training was stopped, or None.

    >>> from nncore import data, nn, train
    >>> x, y = data.load_digits()
    >>> stop = EarlyStopping(patience=2)
    >>> h = train.fit(nn.Linear(64, 10), x / 16, y, lr=0.1, epochs=99, validation_split=0.2, seed=0, callbacks=stop)
    >>> h.stopped, h.epochs == stop.best_epoch + 3, min(h["val_loss"]) == stop.best
    ('callback', True, True)
    """

    def __init__(self, monitor="val_loss", min_delta=0.0, patience=0, mode="auto", restore_best_weights=True):
        self._arguments = monitor, mode, min_delta
        self._monitor = _Monitor(*self._arguments)
        self.patience = integer(patience, "patience", 0)
        self.restore_best_weights = bool(restore_best_weights)
        self.best_epoch = self.stopped_epoch = self._weights = None

    @property
    def best(self):
        """The best value."""
        return self._monitor.best

    def on_train_begin(self, logs):
        """Forgets an earlier training."""
        self._monitor = _Monitor(*self._arguments)
        self.best_epoch = self.stopped_epoch = self._weights = None
        self._waited = 0

    def on_epoch_end(self, epoch, logs):
        """Compares; True when patience is at its end."""
        self._waited += 1
        if self._monitor.improved(logs):
            self.best_epoch, self._waited = epoch, 0
            if self.restore_best_weights:
                self._weights = self.model.state_dict()
        elif self._waited >= self.patience:
            self.stopped_epoch = epoch
            return True
        return False

    def on_train_end(self, logs):
        """Gives the best weights back."""
        if self._weights is not None:
            self.model.load_state_dict(self._weights)
            self._weights = None


class ModelCheckpoint(Callback):
    """Saves the model's weights after epochs, with `save_weights`: at every moment the file holds all of an epoch's.

    Args:
        path: file name; {epoch} (from 1) and names of values are filled in:
            'run-{epoch:02d}-{val_loss:.3f}.safetensors'.
        monitor, mode: as EarlyStopping's.
        save_best_only: only after epochs in which the value is the best so far.

    Attributes:
        saved: the file names that were written.

    >>> import os, tempfile
    >>> from nncore import nn, train
    >>> net = nn.Linear(1, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save = ModelCheckpoint(os.path.join(folder, "{epoch}.safetensors"))
    ...     h = train.fit(net, [[1.0], [2.0]], [1.0, 2.0], loss="mse", epochs=2, callbacks=save)
    ...     found = sorted(os.listdir(folder)), train.load_weights(save.saved[-1], net)
    >>> found
    (['1.safetensors', '2.safetensors'], ([], []))
    """

    def __init__(self, path, monitor="val_loss", save_best_only=False, mode="auto"):
        self.path, self.save_best_only, self.saved = os.fspath(path), bool(save_best_only), []
        self._monitor = _Monitor(monitor, mode)

    def on_epoch_end(self, epoch, logs):
        """Writes the file."""
        if self.save_best_only and not self._monitor.improved(logs):
            return
        try:
            path = self.path.format(epoch=epoch + 1, **logs)
        except (KeyError, IndexError, ValueError) as e:
            raise ValueError(
                f"path: {self.path!r} has fields that are not there ({e}); expected {sorted(logs)}"
            ) from None
        save_weights(path, self.model)
        self.saved.append(path)


class LearningRateSchedule(Callback):
    """Steps a scheduler of `nncore.optim.lr_scheduler`.

    Args:
        scheduler: scheduler of the optimizer that `fit` is given, or a function of the optimizer that makes one, anew
            for each training.
        on: 'epoch' or 'batch': after what it steps (OneCycleLR and the like: 'batch').
        monitor: the value that ReduceLROnPlateau is given.

    Attributes:
        scheduler: the one that is stepped; None before a function has made it.
        rates: the first group's rate in each epoch (batch), before the step.

    >>> from nncore import nn, optim, train
    >>> halve = LearningRateSchedule(lambda optimizer: optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    >>> h = train.fit(nn.Linear(1, 1), [[1.0], [2.0]], [1.0, 2.0], loss="mse", lr=0.1, epochs=3, callbacks=halve)
    >>> halve.rates
    [0.1, 0.05, 0.025]
    """

    def __init__(self, scheduler, on="epoch", monitor="val_loss"):
        if not isinstance(scheduler, LRScheduler) and (isinstance(scheduler, type) or not callable(scheduler)):
            name = scheduler.__name__ if isinstance(scheduler, type) else type(scheduler).__name__
            raise TypeError(
                f"scheduler: expected a scheduler or a function of the optimizer that makes one, got {name}"
            )
        self._given, self.on, self.rates = scheduler, one_of(on, "on", ("epoch", "batch")), []
        self.scheduler = scheduler if isinstance(scheduler, LRScheduler) else None
        self._monitor = _Monitor(monitor, "auto")

    def on_train_begin(self, logs):
        """Makes the scheduler, if a function was given."""
        if not isinstance(self._given, LRScheduler):
            made = self._given(self.optimizer)
            if not isinstance(made, LRScheduler):
                raise TypeError(f"scheduler: expected the function to make a scheduler, got {type(made).__name__}")
            self.scheduler, self.rates = made, []
        if self.scheduler.optimizer is not self.optimizer:
            raise ValueError("scheduler: it is another optimizer's than the one that fit uses")

    def _step(self, logs):
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self._monitor.read(logs))
        else:
            self.scheduler.step()

    def on_epoch_end(self, epoch, logs):
        """Steps, if on='epoch'."""
        if self.on == "epoch":
            self._step(logs)

    def on_batch_end(self, batch, logs):
        """Steps, if on='batch'."""
        if self.on == "batch":
            self._step(logs)


class MaxNorm(Callback):
    """After each step, limits the norm of the weights that come into each unit: `nn.utils.max_norm_`.

    Args:
        max_norm: > 0.
        parameters: the parameters to limit, or None: all of the optimizer's with at least two axes (weights, not
            biases).

    >>> from nncore import nn, train
    >>> net = nn.Linear(1, 1)
    >>> h = train.fit(net, [[1.0]], [9.0], loss="mse", optimizer="sgd", lr=0.5, epochs=3, callbacks=MaxNorm(2.0))
    >>> net.weight.item() <= 2.0
    True
    """

    def __init__(self, max_norm, parameters=None):
        self.max_norm = number(max_norm, "max_norm", 0, low_open=True)
        self._parameters = None if parameters is None else list(parameters)

    def on_batch_end(self, batch, logs):
        """Scales."""
        found = self._parameters
        if found is None:
            found = [p for group in self.optimizer.param_groups for p in group["params"] if p.ndim > 1]
        max_norm_(found, self.max_norm)
