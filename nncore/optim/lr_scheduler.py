"""Schedules of learning rates, with torch.optim.lr_scheduler's names, arguments and numbers.

A scheduler sets `lr` of its optimizer's groups when it is made (epoch 0) and at every `step()`, which follows the
optimizer's. Schedules that multiply the current rate can be combined: each sees what the others did. Warm-up:

>>> from nncore import nn, optim
>>> from nncore.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
>>> opt = optim.SGD([nn.Parameter([1.0])], lr=1.0)
>>> warm, cool = LinearLR(opt, 0.25, total_iters=3), CosineAnnealingLR(opt, T_max=4)
>>> schedule = SequentialLR(opt, [warm, cool], milestones=[3])
>>> rates = []
>>> for epoch in range(7):
...     rates.append(round(opt.param_groups[0]["lr"], 3))
...     opt.step()
...     schedule.step()
>>> rates
[0.25, 0.5, 0.75, 1.0, 0.854, 0.5, 0.146]
"""

import math
import types
import warnings
from bisect import bisect_right
from collections import Counter

from nncore._ops._check import integer, number, one_of
from nncore.optim.optimizer import Optimizer

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


def _optimizer(optimizer):
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
    return optimizer


def _each(value, name, optimizer, check=number):
    """One value per parameter group, from one or from a list of them."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, tuple | list) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{name}: expected one or {groups} (one per parameter group), got {len(values)}")
    for v in values:
        check(v, name)
    return values


def _function(f, name):
    if not callable(f):
        raise TypeError(f"{name}: expected a function, got {type(f).__name__}")


def _set_momentum(group, value):
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _cycled_momentum(optimizer, base, most, last_epoch):
    """Checks that the momentum, or Adam's b1, can be cycled, and starts it; (smallest, largest) of each group."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("cycle_momentum: the optimizer has neither momentum nor betas")
    base, most = _each(base, "base_momentum", optimizer), _each(most, "max_momentum", optimizer)
    if last_epoch == -1:
        for low, high, group in zip(base, most, optimizer.param_groups):
            _set_momentum(group, high)
            group["max_momentum"], group["base_momentum"] = high, low
    return base, most


class LRScheduler:
    """Base of the schedulers: subclasses define `get_lr`, the rates at `last_epoch`.

    Args:
        optimizer: Optimizer whose rates are set.
        last_epoch: -1 to start from the optimizer's `lr` (which becomes `initial_lr` of the groups); else the epoch
            from which to go on, with groups that have an `initial_lr`.

    Attributes:
        last_epoch: number of steps made.
        base_lrs: initial rate of each group.

    Raises:
        TypeError: the optimizer is none. ValueError: last_epoch is given and a group has no `initial_lr`.

    >>> from nncore import nn, optim
    >>> class Halving(LRScheduler):
    ...     def get_lr(self):
    ...         return [lr / 2**self.last_epoch for lr in self.base_lrs]
    >>> schedule = Halving(optim.SGD([nn.Parameter([1.0])], lr=0.8))
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.4]
    """

    _not_saved = ("optimizer",)

    def __init__(self, optimizer, last_epoch=-1):
        self.optimizer = _optimizer(optimizer)
        integer(last_epoch, "last_epoch", -1)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(f"last_epoch: going on from {last_epoch} needs 'initial_lr' in parameter group {i}")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self):
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self):
        """The rate of each group at `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def get_last_lr(self):
        """The rate of each group, as the last step set it."""
        return self._last_lr

    def step(self):
        """Counts an epoch (or a batch, as the schedule is meant) and sets the rates."""
        if self._step_count == 1 and not self.optimizer._stepped:
            warnings.warn(
                "scheduler.step() came before optimizer.step(): the first rate of the schedule was not used",
                stacklevel=2,
            )
        self._step_count += 1
        self.last_epoch += 1
        self._set(self.get_lr())

    def _set(self, rates):
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = self._rates()

    def _rates(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def _times(self, factor):
        return [lr * factor for lr in self._rates()]

    def _restart(self):
        """Sets the rates of epoch 0 (SequentialLR, when this schedule's turn comes)."""
        self.last_epoch = 0
        self._set(self._closed_form() if hasattr(self, "_closed_form") else self.get_lr())

    def _undo(self):
        """Takes back the step of the constructor (SequentialLR)."""
        self.last_epoch -= 1

    def state_dict(self):
        """{name: value} of everything but the optimizer; functions are saved only if they are objects with a state."""
        return {k: _saved(v) for k, v in self.__dict__.items() if k not in self._not_saved}

    def load_state_dict(self, state_dict):
        """Restores what `state_dict` gave. The optimizer's own state_dict holds the rates.

        Raises:
            TypeError: state_dict is no dict.
            ValueError: it lacks names that this scheduler has; nothing has been changed.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"state_dict: expected a dict, got {type(state_dict).__name__}")
        own = self.__dict__.keys() - set(self._not_saved)
        if own - state_dict.keys():
            raise ValueError(f"state_dict: {sorted(own - state_dict.keys())} missing; it is another scheduler's state")
        for k in own:
            self.__dict__[k] = _loaded(self.__dict__[k], state_dict[k])


def _saved(v):
    if isinstance(v, LRScheduler):
        return v.state_dict()
    if isinstance(v, list):
        return [_saved(x) for x in v]
    if callable(v):
        return None if isinstance(v, types.FunctionType | types.BuiltinFunctionType) else dict(v.__dict__)
    return v.copy() if isinstance(v, dict) else v


def _loaded(own, v):
    if isinstance(own, LRScheduler):
        own.load_state_dict(v)
        return own
    if isinstance(own, list) and any(callable(x) or isinstance(x, LRScheduler) for x in own):
        return [_loaded(x, y) for x, y in zip(own, v, strict=True)]
    if callable(own):
        if v is not None:
            own.__dict__.update(v)
        return own
    return list(v) if isinstance(v, list) else v.copy() if isinstance(v, dict) else v


class LambdaLR(LRScheduler):
    """initial_lr * lr_lambda(epoch).

    Args:
        optimizer: Optimizer.
        lr_lambda: function of the epoch, or one for each parameter group.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = LambdaLR(optim.SGD([nn.Parameter([1.0])], lr=0.8), lambda epoch: 0.5**epoch)
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.4]
    """

    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        self.lr_lambdas = _each(lr_lambda, "lr_lambda", _optimizer(optimizer), _function)
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [base * f(self.last_epoch) for f, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]


class MultiplicativeLR(LRScheduler):
    """lr <- lr * lr_lambda(epoch).

    Args:
        optimizer: Optimizer.
        lr_lambda: function of the epoch, or one for each parameter group.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = MultiplicativeLR(optim.SGD([nn.Parameter([1.0])], lr=0.8), lambda epoch: 0.5)
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.4]
    """

    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        self.lr_lambdas = _each(lr_lambda, "lr_lambda", _optimizer(optimizer), _function)
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self._is_initial:
            return self._rates()
        return [lr * f(self.last_epoch) for f, lr in zip(self.lr_lambdas, self._rates(), strict=True)]


class StepLR(LRScheduler):
    """lr <- lr * gamma every step_size epochs.

    Args:
        optimizer: Optimizer.
        step_size: epochs between changes.
        gamma: factor.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = StepLR(optim.SGD([nn.Parameter([1.0])], lr=0.5), step_size=1)
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.05]
    """

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        self.step_size, self.gamma = integer(step_size, "step_size", 1), number(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return self._times(self.gamma) if self.last_epoch and self.last_epoch % self.step_size == 0 else self._rates()

    def _closed_form(self):
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """lr <- lr * gamma at each of the milestones.

    Args:
        optimizer: Optimizer.
        milestones: epochs; one that is named twice counts twice.
        gamma: factor.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = MultiStepLR(optim.SGD([nn.Parameter([1.0])], lr=0.5), milestones=[1, 80])
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.05]
    """

    def __init__(self, optimizer, milestones, gamma=0.1, last_epoch=-1):
        if not hasattr(milestones, "__iter__"):
            raise TypeError(f"milestones: expected an iterable of integers, got {type(milestones).__name__}")
        self.milestones = Counter(integer(m, "milestones") for m in milestones)
        self.gamma = number(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        times = self.milestones[self.last_epoch]
        return self._times(self.gamma**times) if times else self._rates()

    def _closed_form(self):
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """lr * factor for the first total_iters epochs.

    Args:
        optimizer: Optimizer.
        factor: within [0, 1].
        total_iters: epochs.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> ConstantLR(optim.SGD([nn.Parameter([1.0])], lr=0.5), factor=0.5).get_last_lr()
    [0.25]
    """

    def __init__(self, optimizer, factor=1.0 / 3, total_iters=5, last_epoch=-1):
        self.factor, self.total_iters = number(factor, "factor", 0, 1), integer(total_iters, "total_iters", 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch == 0:
            return self._times(self.factor)
        return self._times(1.0 / self.factor) if self.last_epoch == self.total_iters else self._rates()

    def _closed_form(self):
        return [base * (1 if self.last_epoch >= self.total_iters else self.factor) for base in self.base_lrs]


class LinearLR(LRScheduler):
    """lr times a factor that goes from start_factor to end_factor in total_iters equal steps: warm-up, by default.

    Args:
        optimizer: Optimizer.
        start_factor: within (0, 1].
        end_factor: within [0, 1].
        total_iters: epochs.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = LinearLR(optim.SGD([nn.Parameter([1.0])], lr=1.0), 0.5, total_iters=2)
    >>> schedule.get_last_lr()
    [0.5]
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.75]
    """

    def __init__(self, optimizer, start_factor=1.0 / 3, end_factor=1.0, total_iters=5, last_epoch=-1):
        self.start_factor = number(start_factor, "start_factor", 0, 1, low_open=True)
        self.end_factor = number(end_factor, "end_factor", 0, 1)
        self.total_iters = integer(total_iters, "total_iters", 1)
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch == 0:
            return self._times(self.start_factor)
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        rise = self.end_factor - self.start_factor
        return self._times(1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))

    def _closed_form(self):
        part = min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * (self.start_factor + (self.end_factor - self.start_factor) * part) for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """lr <- lr * gamma every epoch.

    Args:
        optimizer: Optimizer.
        gamma: factor.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = ExponentialLR(optim.SGD([nn.Parameter([1.0])], lr=0.8), gamma=0.5)
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.4]
    """

    def __init__(self, optimizer, gamma, last_epoch=-1):
        self.gamma = number(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return self._rates() if self._is_initial else self._times(self.gamma)

    def _closed_form(self):
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """initial_lr (1 - epoch / total_iters)^power until total_iters, then 0.

    Args:
        optimizer: Optimizer.
        total_iters: epochs.
        power: exponent.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = PolynomialLR(optim.SGD([nn.Parameter([1.0])], lr=0.8), total_iters=4)
    >>> schedule.optimizer.step(); schedule.step(); round(schedule.get_last_lr()[0], 4)
    0.6
    """

    def __init__(self, optimizer, total_iters=5, power=1.0, last_epoch=-1):
        self.total_iters, self.power = integer(total_iters, "total_iters", 1), number(power, "power")
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        now, before = (1.0 - epoch / self.total_iters for epoch in (self.last_epoch, self.last_epoch - 1))
        return self._times((now / before) ** self.power)

    def _closed_form(self):
        part = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * part**self.power for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """eta_min + (initial_lr - eta_min) (1 + cos(pi epoch / T_max)) / 2. Loshchilov, Hutter, "SGDR", ICLR 2017,
    without the restarts: the rate rises again after T_max, as torch's.

    Args:
        optimizer: Optimizer.
        T_max: epochs to the minimum.
        eta_min: smallest rate.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = CosineAnnealingLR(optim.SGD([nn.Parameter([1.0])], lr=0.8), T_max=2)
    >>> schedule.optimizer.step(); schedule.step(); round(schedule.get_last_lr()[0], 4)
    0.4
    """

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        self.T_max, self.eta_min = integer(T_max, "T_max", 1), number(eta_min, "eta_min")
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self._is_initial:
            return self._rates()
        if self._step_count == 1 and self.last_epoch > 0:
            return self._closed_form()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # it stood at the minimum: no ratio to take
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for base, lr in zip(self.base_lrs, self._rates(), strict=True)]
        now, before = (1 + math.cos(math.pi * epoch / self.T_max) for epoch in (self.last_epoch, self.last_epoch - 1))
        return [now / before * (lr - self.eta_min) + self.eta_min for lr in self._rates()]

    def _closed_form(self):
        part = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * part for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """eta_min + (initial_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2, where T_cur counts the epochs since the last
    restart and T_i, the epochs between restarts, is T_0 at first and T_mult times longer after each. Loshchilov,
    Hutter, ICLR 2017.

    Args:
        optimizer: Optimizer.
        T_0: epochs to the first restart.
        T_mult: integer >= 1.
        eta_min: smallest rate.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = CosineAnnealingWarmRestarts(optim.SGD([nn.Parameter([1.0])], lr=0.8), T_0=2)
    >>> schedule.optimizer.step(); schedule.step(); schedule.step(); schedule.get_last_lr()
    [0.8]
    """

    def __init__(self, optimizer, T_0, T_mult=1, eta_min=0.0, last_epoch=-1):
        self.T_0, self.T_mult = integer(T_0, "T_0", 1), integer(T_mult, "T_mult", 1)
        self.eta_min = number(eta_min, "eta_min")
        self.T_i, self.T_cur = self.T_0, last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        part = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * part for base in self.base_lrs]

    def _restart(self):
        self.step(0)

    def step(self, epoch=None):
        """The next epoch; or a given one, also between two (batch i of n: epoch + i / n)."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            number(epoch, "epoch", 0)
            self.T_i, self.T_cur = self.T_0, epoch
            while self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())


class CyclicLR(LRScheduler):
    """The rate goes linearly from base_lr to max_lr in step_size_up batches and back in step_size_down; the momentum
    (or Adam's b1) goes the other way. Smith, WACV 2017.

    Args:
        optimizer: Optimizer.
        base_lr, max_lr: smallest and largest rate, or one for each parameter group.
        step_size_up, step_size_down: batches of a half cycle; None: as up.
        mode: 'triangular'; 'triangular2': half the height after each cycle; 'exp_range': height times gamma^batches.
        gamma: for 'exp_range'.
        scale_fn: function that gives the height's factor, in place of mode.
        scale_mode: what scale_fn takes: 'cycle', counted from 1, or 'iterations'.
        cycle_momentum: whether the momentum is changed.
        base_momentum, max_momentum: its bounds, or one for each parameter group.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> schedule = CyclicLR(optim.SGD([nn.Parameter([1.0])]), 0.5, 1.0, step_size_up=2)
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [0.75]
    """

    def __init__(
        self,
        optimizer,
        base_lr,
        max_lr,
        step_size_up=2000,
        step_size_down=None,
        mode="triangular",
        gamma=1.0,
        scale_fn=None,
        scale_mode="cycle",
        cycle_momentum=True,
        base_momentum=0.8,
        max_momentum=0.9,
        last_epoch=-1,
    ):
        base_lrs = _each(base_lr, "base_lr", _optimizer(optimizer))
        self.max_lrs = _each(max_lr, "max_lr", optimizer)
        up = number(step_size_up, "step_size_up", 0, low_open=True)
        down = up if step_size_down is None else number(step_size_down, "step_size_down", 0, low_open=True)
        self.total_size, self.step_ratio = up + down, up / (up + down)
        if scale_fn is None:
            one_of(mode, "mode", ("triangular", "triangular2", "exp_range"))
            scale_mode = "iterations" if mode == "exp_range" else "cycle"
        else:
            _function(scale_fn, "scale_fn")
        self.mode, self.gamma = mode, number(gamma, "gamma")
        self.scale_mode = one_of(scale_mode, "scale_mode", ("cycle", "iterations"))
        self._scale_fn_custom = scale_fn
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums, self.max_momentums = _cycled_momentum(
                optimizer, base_momentum, max_momentum, last_epoch
            )
        if last_epoch == -1:
            for lr, group in zip(base_lrs, optimizer.param_groups):
                group["lr"] = lr
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x):
        """The factor of the cycle's height."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return {"triangular": lambda: 1.0, "triangular2": lambda: 2.0 ** (1 - x), "exp_range": lambda: self.gamma**x}[
            self.mode
        ]()

    def get_lr(self):
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            groups = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in groups:
                _set_momentum(group, high - (high - low) * height)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]


class OneCycleLR(LRScheduler):
    """One cycle over the whole training: the rate rises from max_lr / div_factor to max_lr, then falls to the former
    divided by final_div_factor; the momentum (or Adam's b1) goes the other way. Smith, Topin, "Super-Convergence",
    2018.

    Args:
        optimizer: Optimizer.
        max_lr: largest rate, or one for each parameter group.
        total_steps: batches of the training; or epochs and steps_per_epoch, whose product it is.
        pct_start: part of the steps in which the rate rises, within [0, 1].
        anneal_strategy: 'cos' or 'linear'.
        cycle_momentum: whether the momentum is changed.
        base_momentum, max_momentum: its bounds, or one for each parameter group.
        div_factor, final_div_factor: see above.
        three_phase: fall to the first rate in as many steps as it rose, and then to the last.
        last_epoch: see LRScheduler.

    Raises:
        ValueError: also by `step`, beyond total_steps.

    >>> from nncore import nn, optim
    >>> schedule = OneCycleLR(optim.SGD([nn.Parameter([1.0])]), max_lr=1.0, total_steps=10)
    >>> schedule.optimizer.step(); schedule.step(); schedule.step(); schedule.get_last_lr()
    [1.0]
    """

    def __init__(
        self,
        optimizer,
        max_lr,
        total_steps=None,
        epochs=None,
        steps_per_epoch=None,
        pct_start=0.3,
        anneal_strategy="cos",
        cycle_momentum=True,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=25.0,
        final_div_factor=1e4,
        three_phase=False,
        last_epoch=-1,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps: give it, or epochs and steps_per_epoch")
            total_steps = integer(epochs, "epochs", 1) * integer(steps_per_epoch, "steps_per_epoch", 1)
        self.total_steps = integer(total_steps, "total_steps", 1)
        rise = number(pct_start, "pct_start", 0, 1) * total_steps
        self._anneal_func_type = one_of(anneal_strategy, "anneal_strategy", ("cos", "linear"))
        names = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
        up = (rise - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        down = [(total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        if three_phase:
            down = [
                (2 * rise - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        self._schedule_phases = [dict(zip(names, phase)) for phase in (up, *down)]
        most = _each(max_lr, "max_lr", _optimizer(optimizer))
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            number(value, name, 0, low_open=True)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            _cycled_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for lr, group in zip(most, optimizer.param_groups):
                group["initial_lr"], group["max_lr"] = lr / div_factor, lr
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def _between(self, start, end, part):
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)
        return (end - start) * part + start

    def get_lr(self):
        step, start = self.last_epoch, 0.0
        if step > self.total_steps:
            raise ValueError(f"total_steps: the schedule has {self.total_steps} steps, and this is step {step}")
        for phase in self._schedule_phases:
            if step <= phase["end_step"] or phase is self._schedule_phases[-1]:
                break
            start = phase["end_step"]
        part = (step - start) / (phase["end_step"] - start)
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            for g in groups:
                _set_momentum(g, self._between(g[phase["start_momentum"]], g[phase["end_momentum"]], part))
        return [self._between(g[phase["start_lr"]], g[phase["end_lr"]], part) for g in groups]


class ReduceLROnPlateau(LRScheduler):
    """lr <- max(lr * factor, min_lr) when a quantity has not improved for more than `patience` epochs.

    Args:
        optimizer: Optimizer.
        mode: 'min' or 'max': what is better.
        factor: below 1.
        patience: epochs without improvement that are borne.
        threshold: by how much it must improve, relative to the best value ('rel') or absolutely ('abs').
        threshold_mode: 'rel' or 'abs'.
        cooldown: epochs after a reduction that do not count.
        min_lr: smallest rate, or one for each parameter group.
        eps: smaller changes of the rate are not made.

    >>> from nncore import nn, optim
    >>> schedule = ReduceLROnPlateau(optim.SGD([nn.Parameter([1.0])], lr=0.8), factor=0.5, patience=1)
    >>> for loss in (1.0, 0.5, 0.5, 0.5):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.4]
    """

    def __init__(
        self,
        optimizer,
        mode="min",
        factor=0.1,
        patience=10,
        threshold=1e-4,
        threshold_mode="rel",
        cooldown=0,
        min_lr=0,
        eps=1e-8,
    ):
        self.optimizer = _optimizer(optimizer)
        self.mode = one_of(mode, "mode", ("min", "max"))
        self.factor = number(factor, "factor", 0, 1, high_open=True)
        self.patience, self.cooldown = integer(patience, "patience", 0), integer(cooldown, "cooldown", 0)
        self.threshold = number(threshold, "threshold")
        self.threshold_mode = one_of(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.default_min_lr = None if isinstance(min_lr, tuple | list) else number(min_lr, "min_lr", 0)
        self.min_lrs, self.eps = _each(min_lr, "min_lr", optimizer), number(eps, "eps", 0)
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = self.last_epoch = 0
        self._last_lr = self._rates()

    def _better(self, a):
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * a > sign * self.best * (1.0 + sign * self.threshold)
        return sign * a > sign * (self.best + sign * self.threshold)

    @property
    def in_cooldown(self):
        """Whether a reduction was made not long ago."""
        return self.cooldown_counter > 0

    def step(self, metrics):
        """Takes the epoch's value (a number, or a tensor of one element) and reduces the rates if it is time."""
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._rates()

    def _reduce(self):
        groups = self.optimizer.param_groups
        if len(self.min_lrs) < len(groups) and self.default_min_lr is not None:  # a group came later
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, least in zip(groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr


def _of_one_optimizer(schedulers, optimizer):
    if not isinstance(schedulers, tuple | list) or not schedulers:
        raise TypeError("schedulers: expected a non-empty list of schedulers")
    for s in schedulers:
        if not isinstance(s, LRScheduler):
            raise TypeError(f"schedulers: expected schedulers, got {type(s).__name__}")
        if isinstance(s, ReduceLROnPlateau):
            raise ValueError("schedulers: ReduceLROnPlateau takes a value at each step, and cannot be one of several")
        if s.optimizer is not (schedulers[0].optimizer if optimizer is None else optimizer):
            raise ValueError("schedulers: they are of different optimizers")
    return list(schedulers)


class ChainedScheduler(LRScheduler):
    """Several schedulers that all step, one after the other: their factors multiply.

    Args:
        schedulers: list of schedulers of one optimizer.
        optimizer: that optimizer.

    >>> from nncore import nn, optim
    >>> opt = optim.SGD([nn.Parameter([1.0])], lr=0.8)
    >>> schedule = ChainedScheduler([ConstantLR(opt, 0.5, total_iters=9), ExponentialLR(opt, 0.5)])
    >>> opt.step(); schedule.step(); schedule.get_last_lr()
    [0.2]
    """

    def __init__(self, schedulers, optimizer=None):
        self._schedulers = _of_one_optimizer(schedulers, optimizer)
        self.optimizer = schedulers[0].optimizer
        self._last_lr = self._rates()

    def _initial_step(self):
        for s in self._schedulers:
            s._initial_step()
        self._last_lr = self._rates()

    def step(self):
        """Steps all."""
        for s in self._schedulers:
            s.step()
        self._last_lr = self._rates()

    def _undo(self):
        for s in self._schedulers:
            s._undo()


class SequentialLR(LRScheduler):
    """One scheduler after the other: the i-th from milestone i-1 on, where it starts from its epoch 0.

    Args:
        optimizer: Optimizer.
        schedulers: list of schedulers of this optimizer.
        milestones: epochs at which the next one takes over, one less than schedulers.
        last_epoch: see LRScheduler.

    >>> from nncore import nn, optim
    >>> opt = optim.SGD([nn.Parameter([1.0])], lr=0.8)
    >>> schedule = SequentialLR(opt, [ConstantLR(opt, 0.5), ExponentialLR(opt, 0.5)], milestones=[1])
    >>> schedule.get_last_lr()
    [0.4]
    >>> opt.step(); schedule.step(); schedule.get_last_lr()
    [0.8]
    """

    def __init__(self, optimizer, schedulers, milestones, last_epoch=-1):
        self.optimizer = _optimizer(optimizer)
        self._schedulers = _of_one_optimizer(schedulers, optimizer)
        if not isinstance(milestones, tuple | list) or len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"milestones: expected {len(schedulers) - 1}, one less than schedulers, got {milestones!r}"
            )
        self._milestones = [integer(m, "milestones", 0) for m in milestones]
        self.last_epoch = integer(last_epoch, "last_epoch", -1) + 1
        for s in self._schedulers[1:]:
            if isinstance(s, ChainedScheduler | SequentialLR):
                raise ValueError(f"schedulers: {type(s).__name__} has no epoch 0 to start from at a milestone")
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for s in self._schedulers:  # each has made its first step: only one of them is meant to
            s._undo()
        self._initial_step()

    def _initial_step(self):
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self):
        """Steps the scheduler whose turn it is."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            scheduler._restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def _undo(self):
        for s in self._schedulers:
            s._undo()
