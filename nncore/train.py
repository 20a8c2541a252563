"""Training: `fit`, `evaluate` and `predict` for any module, and the model files of the command line.

>>> import nncore
>>> from nncore import data, nn, train
>>> x, y = data.load_digits()
>>> g = nncore.manual_seed(0)
>>> net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
>>> history = train.fit(net, x / 16, y, epochs=10, lr=0.01, metrics="accuracy", seed=0)
>>> history["accuracy"][-1] > 0.95
True
>>> train.predict(net, x[:3] / 16).argmax(1).tolist()
[0, 1, 2]
"""

import contextlib
import math
import time

import numpy as np

from nncore import optim
from nncore._grad import enable_grad, no_grad
from nncore._model_file import NetworkSpec, TrainedModel, load_model, save_model
from nncore._ops._check import FLOAT32, as_tensor, integer, one_of
from nncore._ops.reduction import argmax
from nncore._ops.shape import cat, reshape
from nncore._random import default_generator
from nncore._tensor import Tensor
from nncore.data import batches
from nncore.nn import functional as F
from nncore.nn.loss import MSELoss
from nncore.nn.module import Module

__all__ = [
    "History",
    "NetworkSpec",
    "TrainedModel",
    "evaluate",
    "fit",
    "load_model",
    "make_optimizer",
    "predict",
    "save_model",
]

EVALUATION_BATCH = 1024  # samples per forward pass where no gradient is needed; results do not depend on it


# ---- losses, metrics and optimizers by name ----


def _like(output, target):
    """The target under the output's shape where they differ by a last axis of size 1: [N] and [N, 1]."""
    long, short = (output, target) if output.ndim > target.ndim else (target, output)
    return reshape(target, output.shape) if long.shape == (*short.shape, 1) else target


def _mse(output, target):
    return F.mse_loss(output, _like(output, target))


LOSSES = {"cross_entropy": F.cross_entropy, "mse": _mse}


def accuracy(output, target):
    """The share of samples whose largest output (along axis 1) is at the target's class.

    Args:
        output: [N, C, ...] logits or probabilities.
        target: [N, ...] int64 classes, or class probabilities of the output's shape.

    >>> import nncore
    >>> accuracy(nncore.tensor([[1.0, 0.0], [0.0, 1.0]]), nncore.tensor([0, 0]))
    0.5
    """
    found = argmax(output, 1)
    wanted = argmax(target, 1) if target._floating and target.shape == output.shape else target
    if found.shape != wanted.shape:
        raise ValueError(f"target: expected classes of shape {found.shape}, got {target.shape}")
    return (found == wanted).sum().item() / found.numel()


def mae(output, target):
    """The mean of |output - target|.

    Args:
        output, target: of one shape ([N] and [N, 1] go together).

    >>> import nncore
    >>> mae(nncore.tensor([1.0, 2.0]), nncore.tensor([1.0, 4.0]))
    1.0
    """
    return (output - _numbers(output, target)).abs().mean().item()


def r2(output, target):
    """Coefficient of determination: 1 - sum (target - output)^2 / sum (target - mean target)^2, with one mean per
    column; for a constant target 1 if every output is right, else 0.

    Args:
        output, target: [N] or [N, K] ([N] and [N, 1] go together).

    >>> import nncore
    >>> r2(nncore.tensor([1.0, 2.0, 3.0]), nncore.tensor([1.0, 2.0, 3.0]))
    1.0
    """
    target = _numbers(output, target)
    residual = (target - output).square().sum().item()
    total = (target - target.mean(0, keepdim=True)).square().sum().item()
    return 1 - residual / total if total != 0 else float(residual == 0)


def _numbers(output, target):
    """The target as numbers to subtract from the output."""
    target = _like(output, target).to(output.dtype)
    if target.shape != output.shape:
        raise ValueError(f"target: expected the output's shape {output.shape}, got {target.shape}")
    return target


METRICS = {"accuracy": accuracy, "mae": mae, "r2": r2}
OPTIMIZERS = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}


def make_optimizer(name, params, **options):
    """An optimizer by name.

    Args:
        name: 'adam', 'adamw' or 'sgd'.
        params: what the optimizer's class takes.
        **options: its other arguments; those that are None keep their defaults.

    Raises:
        ValueError, TypeError: the name is unknown, or an option is out of range.

    >>> from nncore import nn
    >>> make_optimizer("sgd", nn.Linear(2, 1).parameters(), lr=0.5, momentum=None)
    SGD(lr=0.5, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False)
    """
    one_of(name, "optimizer", tuple(OPTIMIZERS))
    return OPTIMIZERS[name](params, **{k: v for k, v in options.items() if v is not None})


def _resolve_loss(loss):
    if isinstance(loss, str):
        return LOSSES[one_of(loss, "loss", tuple(LOSSES))]
    if not callable(loss):
        raise TypeError(f"loss: expected a name, a module or a function, got {type(loss).__name__}")
    return loss


def _resolve_metrics(metrics):
    """{name: function}."""
    found = {}
    for m in metrics if isinstance(metrics, list | tuple) else [metrics]:
        if isinstance(m, str):
            found[m] = METRICS[one_of(m, "metrics", tuple(METRICS))]
        elif callable(m):
            found[getattr(m, "__name__", type(m).__name__)] = m
        else:
            raise TypeError(f"metrics: expected names or functions, got {type(m).__name__}")
    return found


# ---- data and modes ----


def _inputs(model, x, name):
    """x as a Tensor outside the graph; arrays in the module's dtype."""
    if isinstance(x, Tensor):
        x = x.detach()
    else:
        codes = [p._code for p in model.parameters() if p._floating]
        x = as_tensor(x, name, codes[0] if codes else FLOAT32)
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one sample, shape [N, ...], got shape {x.shape}")
    return x


def _pair(model, x, y, loss, x_name="x", y_name="y"):
    """Samples and targets as Tensors. Floating target arrays take the samples' dtype; so do integers that the squared
    error needs as numbers."""
    x = _inputs(model, x, x_name)
    t = y.detach() if isinstance(y, Tensor) else as_tensor(y, y_name)
    if t._floating:
        convert = x._floating and not isinstance(y, Tensor)
    else:
        convert = loss is _mse or isinstance(loss, MSELoss)
    if convert:
        t = t.to(x.dtype)
    elif not t._floating:
        t = t.long()
    if t.ndim == 0 or t.shape[0] != x.shape[0]:
        raise ValueError(f"{y_name}: expected {x.shape[0]} targets, one per sample of {x_name}, got shape {t.shape}")
    return x, t


def _module(model):
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    return model


@contextlib.contextmanager
def _mode(model, training):
    """The model in a mode; every module is back in its own afterwards."""
    former = [(m, m.training) for m in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for m, was in former:
            object.__setattr__(m, "training", was)


def _number(value, name):
    """A loss or a metric as a Python float."""
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"{name}: expected one number per batch, got shape {value.shape}")
    return float(value)


# ---- prediction and evaluation ----


def predict(model, x, batch_size=EVALUATION_BATCH):
    """The model's outputs in evaluation mode, without a graph. They do not depend on batch_size.

    Args:
        model: Module.
        x: samples, array or Tensor [N, ...]; arrays are converted to the model's dtype.
        batch_size: samples per forward pass, or None for all at once.

    Returns:
        Tensor [N, ...] of outputs.

    Raises:
        ValueError, TypeError: an argument is not as described.

    >>> import nncore
    >>> from nncore import nn
    >>> predict(nn.Linear(3, 2), nncore.zeros(5, 3)).shape
    (5, 2)
    """
    x = _inputs(_module(model), x, "x")
    with _mode(model, False), no_grad():
        return cat([model(xb) for (xb,) in batches(x, batch_size=batch_size)])


def _evaluate(model, x, y, loss, metrics, batch_size):
    output = predict(model, x, batch_size)
    with no_grad():
        logs = {"loss": _number(loss(output, y), "loss")}
        return logs | {name: _number(metric(output, y), name) for name, metric in metrics.items()}


def evaluate(model, x, y, *, loss="cross_entropy", metrics=(), batch_size=EVALUATION_BATCH):
    """Loss and metrics over a data set, in evaluation mode and without a graph.

    Args:
        model: Module.
        x, y: samples and targets, arrays or Tensors [N, ...].
        loss, metrics: as `fit`'s.
        batch_size: samples per forward pass, or None; the figures do not depend on it.

    Returns:
        {'loss': number, metric: number, ...}.

    Raises:
        ValueError, TypeError: an argument is not as described.

    >>> import nncore
    >>> from nncore import nn
    >>> evaluate(nn.Identity(), nncore.tensor([[1.0], [2.0]]), [1.0, 4.0], loss="mse", metrics="mae")
    {'loss': 2.0, 'mae': 1.0}
    """
    loss, metrics = _resolve_loss(loss), _resolve_metrics(metrics)
    x, y = _pair(_module(model), x, y, loss)
    return _evaluate(model, x, y, loss, metrics, batch_size)


# ---- training ----


class History(dict):
    """What `fit` returns: {name: list of one value per epoch}.

    `loss`, each metric, `samples_per_second`; with validation data `val_loss` and `val_<metric>`; with statistics, for
    each parameter, `<parameter>/mean`, `/std`, `/norm` and `/grad_mean`, `/grad_std`, `/grad_norm`.

    >>> h = History(); h.append({"loss": 2.0}); h.append({"loss": 1.0})
    >>> h["loss"], h.epochs, h.last()
    ([2.0, 1.0], 2, {'loss': 1.0})
    """

    def append(self, logs):
        """Adds an epoch's values."""
        for name, value in logs.items():
            self.setdefault(name, []).append(value)

    @property
    def epochs(self):
        """Number of epochs."""
        return len(self.get("loss", ()))

    def last(self):
        """{name: value} of the last epoch."""
        return {name: values[-1] for name, values in self.items() if values}


def _statistics(model):
    """Mean, standard deviation and Euclidean norm of each parameter and of its gradient (None without one)."""
    found = {}
    with no_grad():
        for name, p in model.named_parameters():
            for prefix, t in (("", p.detach()), ("grad_", p.grad)):
                some = t is not None and t.numel()
                found[f"{name}/{prefix}mean"] = t.mean().item() if some else None
                found[f"{name}/{prefix}std"] = t.std(correction=0).item() if some else None
                found[f"{name}/{prefix}norm"] = t.square().sum().sqrt().item() if some else None
    return found


def _diverged(value, epoch, batch, x, y):
    """The error for a loss that is no finite number, with its likeliest cause."""
    where = f"epoch {epoch + 1}, batch {batch + 1}: the loss is {value:g}"
    for name, t in (("x", x), ("y", y)):
        finite = np.isfinite(t.numpy()).reshape(t.shape[0], -1).all(1)
        if not finite.all():
            return ValueError(f"{where}; {name}: NaN or infinite values in sample {int(np.argmin(finite))}")
    return FloatingPointError(f"{where}: training diverged; lower lr, or scale x and y to mean 0 and std 1")


def _hooks(callbacks):
    """(functions for the end of an epoch, functions for the end of a batch)."""
    epoch_end, batch_end = [], []
    for c in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
        at_epoch, at_batch = getattr(c, "on_epoch_end", None), getattr(c, "on_batch_end", None)
        if at_epoch is None and at_batch is None:
            if not callable(c):
                raise TypeError(f"callbacks: expected functions or objects with on_epoch_end, got {type(c).__name__}")
            at_epoch = c
        epoch_end += [at_epoch] if at_epoch is not None else []
        batch_end += [at_batch] if at_batch is not None else []
    return epoch_end, batch_end


class _Bar:
    """A progress bar over all batches, or nothing."""

    def __init__(self, wanted, total):
        self._bar = None
        if wanted:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="batch", leave=False)
            self.step = self._bar.update

    def step(self):
        pass

    def show(self, logs):
        if self._bar is not None:
            self._bar.set_postfix({k: v for k, v in logs.items() if k.endswith("loss")}, refresh=False)

    def close(self):
        if self._bar is not None:
            self._bar.close()


def fit(
    model,
    x,
    y,
    *,
    loss="cross_entropy",
    optimizer="adam",
    lr=None,
    epochs=1,
    batch_size=32,
    validation_data=None,
    metrics=(),
    seed=None,
    shuffle=True,
    callbacks=(),
    statistics=False,
    progress=False,
):
    """Trains a model: for each batch, gradients of the loss and one step of the optimizer.

    The same seed and the same initial parameters give the same numbers, on any number of threads. The model trains in
    training mode and is validated in evaluation mode; afterwards each module is back in its own mode, and gradients
    are dropped.

    Args:
        model: Module.
        x: samples, array or Tensor [N, ...]; arrays are converted to the model's dtype, once.
        y: targets, array or Tensor [N, ...]: int64 classes for 'cross_entropy', numbers for 'mse' ([N] serves for
            outputs [N, 1]).
        loss: 'cross_entropy', 'mse', or a module or function (output, target) -> Tensor of one element, the mean over
            the batch.
        optimizer: 'adam', 'adamw', 'sgd', or an Optimizer of the model's parameters.
        lr: learning rate for an optimizer given by name; None: its default.
        epochs: passes over the samples.
        batch_size: samples per step, or None for all of them.
        validation_data: (x, y) to evaluate after each epoch.
        metrics: 'accuracy', 'mae', 'r2', functions (output, target) -> number, or a list of these. They see the
            outputs of the whole epoch at once (in training, those from before each batch's step).
        seed: of shuffling and dropout; nncore's default generator is left as it was. None: it is drawn from.
        shuffle: a new order of the samples in each epoch.
        callbacks: functions (epoch, logs), called after each epoch, or objects with methods
            `on_epoch_end(epoch, logs)` or `on_batch_end(batch, logs)`. Training stops after an epoch whose function
            returns True. `logs` is a dict of the values that History collects; after a batch, its loss.
        statistics: record mean, standard deviation and norm of every parameter, and of its gradient in the last
            batch, after each epoch.
        progress: show a progress bar (tqdm) on stderr.

    Returns:
        History. Its `loss` is the mean over samples of the losses of the batches.

    Raises:
        ValueError, TypeError: an argument is not as described; nothing has been changed then.
        FloatingPointError: the loss became NaN or infinite.

    >>> import nncore
    >>> from nncore import nn
    >>> x = nncore.arange(8).float().reshape(8, 1) / 8
    >>> h = fit(nn.Linear(1, 1), x, 3 * x + 1, loss="mse", lr=0.1, epochs=100, batch_size=None, metrics="r2")
    >>> h["loss"][-1] < 0.01 and h["r2"][-1] > 0.9
    True
    """
    _module(model)
    loss, metrics = _resolve_loss(loss), _resolve_metrics(metrics)
    x, y = _pair(model, x, y, loss)
    if validation_data is not None:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise TypeError("validation_data: expected a pair (x, y)")
        held_x, held_y = _pair(model, *validation_data, loss, "validation_data[0]", "validation_data[1]")
    epochs = integer(epochs, "epochs", 1)
    epoch_end, batch_end = _hooks(callbacks)
    if isinstance(optimizer, str):
        optimizer = make_optimizer(optimizer, model.parameters(), lr=lr)
    elif not isinstance(optimizer, optim.Optimizer):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {type(optimizer).__name__}")
    elif lr is not None:
        raise ValueError("lr: only for an optimizer given by name; this Optimizer has its own")
    loader = batches(x, y, batch_size=batch_size, shuffle=shuffle)  # orders come from the default generator
    former = default_generator.get_state()
    if seed is not None:
        # Streams far from the first ones, which initialization takes if it was seeded with the same number.
        default_generator.manual_seed(seed).set_state((seed, 1 << 32))

    history, n = History(), x.shape[0]
    bar = _Bar(progress, epochs * len(loader))
    try:
        with _mode(model, True), enable_grad():
            for epoch in range(epochs):
                start = time.perf_counter()
                total, outputs, targets = 0.0, [], []
                for i, (xb, yb) in enumerate(loader):
                    optimizer.zero_grad()
                    output = model(xb)
                    batch_loss = loss(output, yb)
                    value = _number(batch_loss, "loss")
                    if not math.isfinite(value):
                        raise _diverged(value, epoch, i, x, y)
                    batch_loss.backward()
                    optimizer.step()
                    total += value * xb.shape[0]
                    if metrics:
                        outputs.append(output.detach())
                        targets.append(yb)
                    for call in batch_end:
                        call(i, {"loss": value})
                    bar.step()
                logs = {"loss": total / n}
                with no_grad():
                    if metrics:
                        output, target = cat(outputs), cat(targets)
                        logs |= {name: _number(metric(output, target), name) for name, metric in metrics.items()}
                rate = n / max(time.perf_counter() - start, 1e-9)
                if validation_data is not None:
                    held = _evaluate(model, held_x, held_y, loss, metrics, EVALUATION_BATCH)
                    logs |= {"val_" + name: value for name, value in held.items()}
                logs["samples_per_second"] = rate
                bar.show(logs)
                if statistics:
                    logs |= _statistics(model)
                history.append(logs)
                answers = [call(epoch, dict(logs)) for call in epoch_end]
                if any(a is True for a in answers):
                    break
    finally:
        bar.close()
        optimizer.zero_grad()
        if seed is not None:
            default_generator.set_state(former)
    return history
