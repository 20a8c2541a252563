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
from nncore._callbacks import (
    Callback,
    Callbacks,
    EarlyStopping,
    LearningRateSchedule,
    MaxNorm,
    ModelCheckpoint,
)
from nncore._grad import enable_grad, no_grad
from nncore._model_file import NetworkSpec, TrainedModel, load_model, load_weights, save_model, save_weights
from nncore._ops._check import FLOAT32, as_tensor, integer, number, one_of
from nncore._ops.reduction import argmax
from nncore._ops.shape import cat, reshape
from nncore._plan import compile as compiled
from nncore._random import default_generator
from nncore._tensor import Tensor
from nncore.data import DataLoader, Dataset, TensorDataset
from nncore.nn import functional as F
from nncore.nn.loss import MSELoss
from nncore.nn.module import Module
from nncore.nn.utils import clip_grad_norm_, clip_grad_value_

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "LearningRateSchedule",
    "MaxNorm",
    "ModelCheckpoint",
    "NetworkSpec",
    "TrainedModel",
    "evaluate",
    "fit",
    "load_model",
    "load_weights",
    "make_optimizer",
    "predict",
    "save_model",
    "save_weights",
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
OPTIMIZERS = {
    name.lower(): kind
    for name, kind in vars(optim).items()
    if isinstance(kind, type) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer
}


def make_optimizer(name, params, **options):
    """An optimizer by name.

    Args:
        name: 'adam', 'sgd', 'rmsprop', ...: a class of `nncore.optim`, in lower case.
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
            name, m = m, METRICS[one_of(m, "metrics", tuple(METRICS))]
        elif callable(m):
            name = getattr(m, "__name__", type(m).__name__)
        else:
            raise TypeError(f"metrics: expected names or functions, got {type(m).__name__}")
        if name in ("loss", "samples_per_second") or name.startswith("val_"):
            raise ValueError(f"metrics: {name!r} is the name of another value of the history")
        if found.setdefault(name, m) is not m:
            raise ValueError(f"metrics: two are named {name!r}; give each function a __name__ of its own")
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


def _loader(model, x, y, loss, batch_size, shuffle=False, names=("x", "y")):
    """Batches (x, y): the loader given, or one over a data set or arrays."""
    if not isinstance(x, DataLoader | Dataset):
        if y is None:
            raise TypeError(f"{names[1]}: expected targets, unless {names[0]} is a DataLoader or a Dataset")
        return DataLoader(TensorDataset(*_pair(model, x, y, loss, *names)), batch_size, shuffle)
    if y is not None:
        raise TypeError(f"{names[1]}: expected None beside a {type(x).__name__}, which gives pairs")
    return x if isinstance(x, DataLoader) else DataLoader(x, batch_size, shuffle)


def _pairs(model, loader, loss):
    """The loader's batches as `_pair` gives them."""
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"x: expected a loader of pairs (x, y), got {type(batch).__name__} from it")
        yield _pair(model, *batch, loss)


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
            m.training = was  # which compiled functions notice


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
        x: samples, array or Tensor [N, ...]; arrays are converted to the model's dtype. Or a DataLoader, of samples or
            of tuples whose first field they are.
        batch_size: samples per forward pass, or None for all at once; a DataLoader has its own.

    Returns:
        Tensor [N, ...] of outputs.

    Raises:
        ValueError, TypeError: an argument is not as described.

    >>> import nncore
    >>> from nncore import nn
    >>> predict(nn.Linear(3, 2), nncore.zeros(5, 3)).shape
    (5, 2)
    """
    _module(model)
    if not isinstance(x, DataLoader):
        x = DataLoader(TensorDataset(_inputs(model, x, "x")), batch_size)
    with _mode(model, False), no_grad():
        return cat([model(_inputs(model, b[0] if isinstance(b, tuple | list) else b, "x")) for b in x])


def _evaluate(model, loader, loss, metrics):
    outputs, targets = [], []
    with _mode(model, False), no_grad():
        for xb, yb in _pairs(model, loader, loss):
            outputs.append(model(xb))
            targets.append(yb)
        output, target = cat(outputs), cat(targets)
        logs = {"loss": _number(loss(output, target), "loss")}
        return logs | {name: _number(metric(output, target), name) for name, metric in metrics.items()}


def evaluate(model, x, y=None, *, loss="cross_entropy", metrics=(), batch_size=EVALUATION_BATCH):
    """Loss and metrics over a data set, in evaluation mode and without a graph.

    Args:
        model: Module.
        x, y: samples and targets, arrays or Tensors [N, ...]; or x a DataLoader or Dataset of pairs.
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
    return _evaluate(model, _loader(_module(model), x, y, loss, batch_size), loss, metrics)


# ---- training ----


class History(dict):
    """What `fit` returns: {name: list of one value per epoch}.

    `loss`, each metric, `samples_per_second`; with validation data `val_loss` and `val_<metric>`; with statistics, for
    each parameter, `<parameter>/mean`, `/std`, `/norm` and `/grad_mean`, `/grad_std`, `/grad_norm`.

    Attributes:
        stopped: why training ended: 'epochs', 'max_steps', 'max_seconds', 'target_loss', 'min_change' or 'callback'.
        steps: steps of the optimizer.

    >>> h = History(); h.append({"loss": 2.0}); h.append({"loss": 1.0})
    >>> h["loss"], h.epochs, h.last()
    ([2.0, 1.0], 2, {'loss': 1.0})
    """

    stopped, steps = None, 0

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


def _diverged(value, epoch, batch, dataset, xb, yb):
    """The error for a loss that is no finite number, with its likeliest cause."""
    where = f"epoch {epoch + 1}, batch {batch + 1}: the loss is {value:g}"
    arrays, of = (dataset.tensors, "") if isinstance(dataset, TensorDataset) else ((xb, yb), " of the batch")
    for name, t in zip(("x", "y"), arrays):
        finite = np.isfinite(np.asarray(t)).reshape(t.shape[0], -1).all(1)
        if not finite.all():
            return ValueError(f"{where}; {name}: NaN or infinite values in sample {int(np.argmin(finite))}{of}")
    return FloatingPointError(f"{where}: training diverged; lower lr, or scale x and y to mean 0 and std 1")


class _Bar:
    """A progress bar over all batches, or nothing."""

    def __init__(self, wanted, total):
        self._bar = None
        if wanted:
            from tqdm import tqdm

            self._bar = tqdm(total=None if total == math.inf else total, unit="batch", leave=False)
            self.step = self._bar.update

    def step(self):
        pass

    def show(self, logs):
        if self._bar is not None:
            self._bar.set_postfix({k: v for k, v in logs.items() if k.endswith("loss")}, refresh=False)

    def close(self):
        if self._bar is not None:
            self._bar.close()


def _split(model, x, y, loss, share):
    """(x, y) without their last samples, and these."""
    if isinstance(x, DataLoader | Dataset):
        raise TypeError(f"validation_split: only for arrays, not for a {type(x).__name__}: split it with random_split")
    x, y = _pair(model, x, y, loss)
    n = x.shape[0]
    if n < 2:
        raise ValueError("validation_split: one sample cannot be split")
    at = n - min(max(1, round(n * share)), n - 1)
    return (x[:at], y[:at]), (x[at:], y[at:])


def _make_step(model, optimizer, loss, penalty, clip_norm, clip_value, seen):
    """A function of a batch: gradients, and one step of the optimizer. It returns what `seen` made of the loss, and the
    outputs, of the first evaluation (L-BFGS has several)."""

    def step(xb, yb):
        first = []

        def closure():
            optimizer.zero_grad()
            output = model(xb)
            value = loss(output, yb)
            if penalty is not None:
                value = value + penalty(model)
            if not first:
                first.extend((seen(value), output.detach()))
            value.backward()
            if clip_norm is not None:
                clip_grad_norm_(model.parameters(), clip_norm)
            if clip_value is not None:
                clip_grad_value_(model.parameters(), clip_value)
            return value

        optimizer.step(closure)
        return tuple(first)

    return step


def fit(
    model,
    x,
    y=None,
    *,
    loss="cross_entropy",
    optimizer="adam",
    lr=None,
    epochs=1,
    batch_size=32,
    validation_data=None,
    validation_split=0.0,
    metrics=(),
    seed=None,
    shuffle=True,
    callbacks=(),
    penalty=None,
    clip_norm=None,
    clip_value=None,
    max_steps=None,
    max_seconds=None,
    target_loss=None,
    min_change=None,
    statistics=False,
    progress=False,
    compile=False,
):
    """Trains a model by gradient descent: for each batch, gradients of the loss and one step of the optimizer.

    batch_size=None takes all samples for each step (batch gradient descent), 1 a single one (stochastic gradient
    descent: Robbins, Monro, 1951), a number between them a mini-batch.

    The same seed and the same initial parameters give the same numbers, on any number of threads. The model trains in
    training mode and is validated in evaluation mode; afterwards each module is back in its own mode, and gradients
    are dropped.

    Args:
        model: Module.
        x: samples, array or Tensor [N, ...]; arrays are converted to the model's dtype, once. Or a
            `nncore.data.DataLoader` or Dataset of pairs (x, y).
        y: targets, array or Tensor [N, ...]: int64 classes for 'cross_entropy', numbers for 'mse' ([N] serves for
            outputs [N, 1]).
        loss: 'cross_entropy', 'mse', or a module or function (output, target) -> Tensor of one element, the mean over
            the batch.
        optimizer: 'adam', 'sgd', 'rmsprop', ...: a class of `nncore.optim` in lower case, or an Optimizer of the
            model's parameters.
        lr: learning rate for an optimizer given by name; None: its default.
        epochs: passes over the samples, at most; None: any number, until something else ends the training.
        batch_size: samples per step, or None for all of them. A DataLoader has its own.
        validation_data: (x, y), or a DataLoader or Dataset, to evaluate after each epoch.
        validation_split: instead, the share of the samples, 0 <= share < 1, that is held out for it: the last ones.
        metrics: 'accuracy', 'mae', 'r2', functions (output, target) -> number, or a list of these, with names of their
            own. They see the outputs of the whole epoch at once (in training, those from before each batch's step).
        seed: of shuffling and dropout; nncore's default generator is left as it was. None: it is drawn from.
        shuffle: a new order of the samples in each epoch. A DataLoader has its own.
        callbacks: `Callback`s (`EarlyStopping`, `ModelCheckpoint`, `LearningRateSchedule`, `MaxNorm`, your own),
            objects with some of their methods, or functions (epoch, logs), called after each epoch. Training stops
            after an epoch or a batch whose method or function returns True.
        penalty: function (model) -> Tensor that is added to the loss: `lambda m: 1e-4 *
            nn.utils.l1_penalty(m.parameters())`.
        clip_norm, clip_value: limits on the gradients: `nn.utils.clip_grad_norm_`, `clip_grad_value_`.
        max_steps: steps of the optimizer, at most.
        max_seconds: stop after the step that ends later.
        target_loss: stop after an epoch whose loss is at most this.
        min_change: stop after an epoch whose loss differs from that of the one before by at most this.
        statistics: record mean, standard deviation and norm of every parameter, and of its gradient in the last
            batch, after each epoch.
        progress: show a progress bar (tqdm) on stderr.
        compile: record the step and replay it (`nncore.compile`): the same bits, and faster for small networks. A model
            that cannot be recorded raises RecordError; a loss that is not finite is seen after its step, not before.

    Returns:
        History. Its `loss` is the mean over samples of the losses of the batches, with the penalty; validation is
        without.

    Raises:
        ValueError, TypeError: an argument is not as described; nothing has been changed then.
        FloatingPointError: the loss became NaN or infinite.

    >>> import nncore
    >>> from nncore import nn
    >>> x = nncore.arange(8).float().reshape(8, 1) / 8
    >>> options = {"loss": "mse", "lr": 0.1, "batch_size": None, "metrics": "r2"}
    >>> h = fit(nn.Linear(1, 1), x, 3 * x + 1, epochs=None, target_loss=0.01, **options)
    >>> h["loss"][-1] <= 0.01 and h["r2"][-1] > 0.9, h.stopped
    (True, 'target_loss')
    """
    _module(model)
    loss, metrics = _resolve_loss(loss), _resolve_metrics(metrics)
    held = validation_data
    if number(validation_split, "validation_split", 0, 1, high_open=True):
        if held is not None:
            raise ValueError("validation_split: expected none beside validation_data")
        (x, y), held = _split(model, x, y, loss, validation_split)
    loader = _loader(model, x, y, loss, batch_size, shuffle)  # orders come from the default generator
    if held is not None and not isinstance(held, DataLoader | Dataset):
        if not isinstance(held, tuple | list) or len(held) != 2:
            raise TypeError("validation_data: expected a pair (x, y), a DataLoader or a Dataset")
        names = "validation_data[0]", "validation_data[1]"
        held = _loader(model, *held, loss, EVALUATION_BATCH, names=names)
    elif held is not None:
        held = _loader(model, held, None, loss, EVALUATION_BATCH)
    epochs = math.inf if epochs is None else integer(epochs, "epochs", 1)
    max_steps = math.inf if max_steps is None else integer(max_steps, "max_steps", 1)
    max_seconds = math.inf if max_seconds is None else number(max_seconds, "max_seconds", 0)
    target_loss = -math.inf if target_loss is None else number(target_loss, "target_loss")
    min_change = -math.inf if min_change is None else number(min_change, "min_change", 0)
    if penalty is not None and not callable(penalty):
        raise TypeError(f"penalty: expected a function of the model, got {type(penalty).__name__}")
    for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if value is not None:
            number(value, name, 0)
    Callbacks(callbacks)
    if isinstance(optimizer, str):
        optimizer = make_optimizer(optimizer, model.parameters(), lr=lr)
    elif not isinstance(optimizer, optim.Optimizer):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {type(optimizer).__name__}")
    elif lr is not None:
        raise ValueError("lr: only for an optimizer given by name; this Optimizer has its own")
    former = default_generator.get_state()
    if seed is not None:
        # Streams far from the first ones, which initialization takes if it was seeded with the same number.
        default_generator.manual_seed(seed).set_state((seed, 1 << 32))

    history, call, end = History(), Callbacks(callbacks, model, optimizer), time.perf_counter() + max_seconds
    at = ()  # the batch

    def checked(value):
        found = _number(value, "loss")
        if not math.isfinite(found):
            raise _diverged(found, history.epochs, i, loader.dataset, *at)
        return found

    options = model, optimizer, loss, penalty, clip_norm, clip_value
    if compile:
        recorded = compiled(_make_step(*options, lambda value: value.detach()), keep_grads=statistics)

        def step(xb, yb):
            value, output = recorded(xb, yb)
            return checked(value), output
    else:
        step = _make_step(*options, checked)
    bar = _Bar(progress, min(epochs * len(loader), max_steps))
    logs = {}
    try:
        with _mode(model, True), enable_grad():
            call("train_begin", {})
            while history.stopped is None:
                start, epoch = time.perf_counter(), history.epochs
                total, n, outputs, targets = 0.0, 0, [], []
                call("epoch_begin", epoch, {})
                for i, at in enumerate(_pairs(model, loader, loss)):
                    call("batch_begin", i, {})
                    value, output = step(*at)
                    history.steps += 1
                    total += value * at[0].shape[0]
                    n += at[0].shape[0]
                    if metrics:
                        outputs.append(output)
                        targets.append(at[1])
                    bar.step()
                    if call("batch_end", i, {"loss": value}):
                        history.stopped = "callback"
                    elif history.steps >= max_steps:
                        history.stopped = "max_steps"
                    elif time.perf_counter() >= end:
                        history.stopped = "max_seconds"
                    if history.stopped is not None:
                        break
                if n == 0:
                    raise ValueError("x: the loader gave no batch")
                logs = {"loss": total / n}
                with no_grad():
                    if metrics:
                        output, target = cat(outputs), cat(targets)
                        logs |= {name: _number(metric(output, target), name) for name, metric in metrics.items()}
                rate = n / max(time.perf_counter() - start, 1e-9)
                if held is not None:
                    found = _evaluate(model, held, loss, metrics)
                    logs |= {"val_" + name: value for name, value in found.items()}
                logs["samples_per_second"] = rate
                bar.show(logs)
                if statistics:
                    logs |= _statistics(model)
                before = history["loss"][-1] if epoch else math.inf
                history.append(logs)
                asked = call("epoch_end", epoch, logs)
                for reason, true in (
                    ("callback", asked),
                    ("target_loss", logs["loss"] <= target_loss),
                    ("min_change", abs(logs["loss"] - before) <= min_change),
                    ("epochs", history.epochs >= epochs),
                ):
                    if history.stopped is None and true:
                        history.stopped = reason
            call("train_end", logs)
    finally:
        bar.close()
        optimizer.zero_grad()
        if seed is not None:
            default_generator.set_state(former)
    return history
