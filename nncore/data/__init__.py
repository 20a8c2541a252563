"""Data: the digits that come with the library, splits, and batches.

>>> from nncore import data
>>> x, y = data.load_digits()
>>> train, test = data.stratified_split(y)
>>> len(train), len(test)
(1438, 359)
"""

import math
from importlib import resources

import numpy as np

from nncore._ops._check import as_tensor, integer, number
from nncore._random import Generator, permutation
from nncore._tensor import Tensor

__all__ = ["Batches", "batches", "load_digits", "plain_split", "stratified_split"]


def load_digits():
    """The UCI handwritten digits: 1,797 images of 8 x 8 pixels. Source and license: DIGITS.md beside this file.

    Returns:
        (x, y): x float32 [1797, 64], pixel values 0 to 16, row by row; y int64 [1797], the digit, 0 to 9.

    >>> x, y = load_digits()
    >>> x.shape, y.shape, float(x.max()), int(y.max())
    ((1797, 64), (1797,), 16.0, 9)
    """
    with resources.files("nncore.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["x"].astype(np.float32), arrays["y"].astype(np.int64)


# ---- splits ----


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


# ---- batches ----


class Batches:
    """What `batches` gives: each iteration goes through the arrays once, in tuples of Tensors."""

    def __init__(self, arrays, batch_size, shuffle, generator):
        self._tensors, self._size, self._shuffle, self._generator = arrays, batch_size, shuffle, generator

    def __len__(self):
        """Number of batches."""
        return -(-len(self._tensors[0]) // self._size)

    def __iter__(self):
        n, size = len(self._tensors[0]), self._size
        order = permutation(n, self._generator) if self._shuffle else None
        for at in range(0, n, size):
            rows = slice(at, at + size) if order is None else order[at : at + size]
            yield tuple(t[rows] for t in self._tensors)


def batches(*arrays, batch_size=32, shuffle=False, seed=None):
    """Tuples of batches of arrays that belong together, sample by sample.

    Args:
        *arrays: arrays or Tensors [n, ...] of one n. They are converted once; unshuffled batches are views.
        batch_size: samples per batch (the last batch may be smaller), or None for all of them.
        shuffle: a new random order in each iteration.
        seed: of the orders; None draws from the default generator (`nncore.manual_seed`).

    Returns:
        An iterable with a length; each iteration is one pass over the samples.

    Raises:
        ValueError: no array, different lengths, or an argument out of range.
        TypeError: an array that does not hold numbers.

    >>> loader = batches(np.zeros((5, 2)), np.arange(5), batch_size=2)
    >>> len(loader), [y.tolist() for x, y in loader]
    (3, [[0, 1], [2, 3], [4]])
    """
    if not arrays:
        raise ValueError("arrays: expected at least one, got none")
    tensors = [a.detach() if isinstance(a, Tensor) else as_tensor(a, f"arrays[{i}]") for i, a in enumerate(arrays)]
    lengths = [t.shape[0] if t.ndim else 0 for t in tensors]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise ValueError(f"arrays: expected one length >= 1, got shapes {', '.join(str(t.shape) for t in tensors)}")
    size = lengths[0] if batch_size is None else integer(batch_size, "batch_size", 1)
    return Batches(tensors, size, bool(shuffle), None if seed is None else Generator(seed))
