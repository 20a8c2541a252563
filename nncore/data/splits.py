"""Splits into what a model is trained on and what is held out.

>>> train, test = stratified_split([0, 0, 0, 0, 1, 1, 1, 1], test_fraction=0.25)
>>> len(train), len(test)
(6, 2)
"""

import math

import numpy as np

from nncore._ops._check import integer, number
from nncore._random import Generator, permutation


def _fraction(test_fraction):
    return number(test_fraction, "test_fraction", 0, 1, high_open=True)


def plain_split(n, test_fraction=0.2, seed=0):
    """A random split of n samples, the same for the same seed: round(n test_fraction) of them are held out.

    Args:
        n: number of samples.
        test_fraction: share to hold out, 0 <= test_fraction < 1.
        seed: of the random order.

    Returns:
        (train, test): int64 index arrays, each ascending; together 0..n-1.

    Raises:
        ValueError, TypeError: an argument is out of range.

    >>> train, test = plain_split(10)
    >>> len(train), len(test), sorted([*train, *test]) == list(range(10))
    (8, 2, True)
    """
    n, fraction = integer(n, "n", 1), _fraction(test_fraction)
    order = permutation(n, Generator(seed))
    held = min(round(n * fraction), n - 1)
    return np.sort(order[held:]), np.sort(order[:held])


def stratified_split(y, test_fraction=0.2, seed=0):
    """A random split that keeps each class's share, the same for the same seed.

    A class of m samples gives floor(m test_fraction) of them; what is then missing from round(n test_fraction) comes
    one each from the classes with the largest remainders. Every class keeps at least one sample for training.

    Args:
        y: [n] class labels: integers, strings or bools.
        test_fraction: share to hold out, 0 <= test_fraction < 1.
        seed: of the random order.

    Returns:
        (train, test): int64 index arrays, each ascending; together 0..n-1.

    Raises:
        ValueError: y is empty or has not one dimension, or test_fraction or seed is out of range.
        TypeError: y holds no labels (floats have no classes: use `plain_split`).

    >>> train, test = stratified_split(["a"] * 10 + ["b"] * 20)
    >>> len(test), int((test < 10).sum())
    (6, 2)
    """
    y = np.asarray(y)
    if y.dtype.kind not in "iubU":
        raise TypeError(f"y: expected integers, strings or bools as class labels, got dtype {y.dtype}; use plain_split")
    if y.ndim != 1 or y.size == 0:
        raise ValueError(f"y: expected labels of shape [n], n >= 1, got shape {y.shape}")
    fraction, generator = _fraction(test_fraction), Generator(seed)
    _, which = np.unique(y, return_inverse=True)
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    counts = [min(math.floor(len(m) * fraction), len(m) - 1) for m in members]
    by_remainder = sorted(range(len(members)), key=lambda c: counts[c] - len(members[c]) * fraction)
    for c in by_remainder[: max(0, round(y.size * fraction) - sum(counts))]:
        counts[c] = min(counts[c] + 1, len(members[c]) - 1)
    held = np.zeros(y.size, np.bool_)
    for m, count in zip(members, counts):
        held[m[permutation(len(m), generator)[:count]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
