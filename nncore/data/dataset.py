"""Data sets: numbered samples, under the names of torch.utils.data."""

import math

import numpy as np

from nncore._ops._check import as_array, as_tensor, integer, is_number
from nncore._random import permutation
from nncore._tensor import Tensor


class Dataset:
    """Base of data sets: samples with numbers 0 to len - 1. Subclasses define `__len__` and `__getitem__`.

    A sample is a number, an array, a Tensor, or a tuple, list or dict of them. Any object with the two methods serves a
    `DataLoader`; this class need not be its base.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, i):
    ...         return float(i), i * i
    >>> [s for s in Squares()]
    [(0.0, 0), (1.0, 1), (2.0, 4)]
    """

    _draws = True  # a sample may take random numbers

    def __len__(self):
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def __getitem__(self, index):
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def __iter__(self):
        return (self[i] for i in range(len(self)))


class TensorDataset(Dataset):
    """Arrays that belong together: sample i is the tuple of their i-th elements.

    Args:
        *arrays: arrays or Tensors [n, ...] of one n. Arrays of float32, float64, int64 and bool, and Tensors, are not
            copied; small integers (images of uint8) stay as they are, and become int64 batch by batch.

    Raises:
        ValueError: no array, or different lengths.
        TypeError: an array that does not hold numbers.

    >>> pairs = TensorDataset(np.zeros((5, 2)), np.arange(5))
    >>> len(pairs), pairs[3][1].item()
    (5, 3)
    """

    _draws = False

    def __init__(self, *arrays):
        if not arrays:
            raise ValueError("arrays: expected at least one, got none")
        self.tensors = tuple(_stored(a, f"arrays[{i}]") for i, a in enumerate(arrays))
        lengths = [t.shape[0] if t.ndim else 0 for t in self.tensors]
        if len(set(lengths)) != 1 or lengths[0] == 0:
            found = ", ".join(str(tuple(t.shape)) for t in self.tensors)
            raise ValueError(f"arrays: expected one length >= 1, got shapes {found}")

    def __len__(self):
        return self.tensors[0].shape[0]

    def __getitem__(self, index):
        return self._rows(index)

    def _rows(self, rows):
        """A batch: a slice gives views, an index array copies."""
        return tuple(t[rows] if isinstance(t, Tensor) else as_tensor(np.asarray(t[rows])) for t in self.tensors)


def _stored(a, name):
    """A Tensor, or an array of small integers as it is."""
    if isinstance(a, Tensor):
        return a.detach()
    if isinstance(a, np.ndarray) and a.dtype.kind in "iu" and a.dtype.itemsize < 8:
        return a
    return as_tensor(as_array(a, name), name)


class Subset(Dataset):
    """Some samples of a data set.

    Args:
        dataset: data set.
        indices: integers from 0 to len(dataset) - 1, in any order.

    Raises:
        ValueError, TypeError: indices are no such integers.

    >>> odd = Subset(TensorDataset(np.arange(6)), [1, 3, 5])
    >>> len(odd), odd[1][0].item()
    (3, 3)
    """

    def __init__(self, dataset, indices):
        self.dataset, n = sized(dataset), len(dataset)
        self.indices = np.asarray(indices)
        if self.indices.size == 0:
            self.indices = self.indices.astype(np.int64)
        if self.indices.dtype.kind not in "iu":
            raise TypeError(f"indices: expected integers, got dtype {self.indices.dtype}")
        if self.indices.ndim != 1:
            raise ValueError(f"indices: expected shape [n], got {self.indices.shape}")
        outside = self.indices[(self.indices < 0) | (self.indices >= n)]
        if outside.size:
            raise ValueError(f"indices: expected 0 to {n - 1}, got {outside[0]}")

    @property
    def _draws(self):
        return draws(self.dataset)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[int(self.indices[index])]

    def _rows(self, rows):
        return rows_of(self.dataset, self.indices[rows])


def random_split(dataset, lengths, generator=None):
    """Subsets without common samples, in a random order.

    Args:
        dataset: data set.
        lengths: sizes that add up to len(dataset), or fractions that add up to 1; of these each part gets the floor of
            its share, and the first ones one sample more until none is left.
        generator: `nncore.Generator`, or None for the default one.

    Returns:
        List of Subset.

    Raises:
        ValueError, TypeError: lengths are no such numbers.

    >>> import nncore
    >>> parts = random_split(TensorDataset(np.arange(10)), [0.75, 0.25], nncore.Generator(0))
    >>> [len(p) for p in parts], sorted(x.item() for p in parts for x, in p) == list(range(10))
    ([8, 2], True)
    """
    n = len(sized(dataset))
    if not isinstance(lengths, tuple | list) or not lengths or not all(is_number(v) for v in lengths):
        raise TypeError(f"lengths: expected a list of sizes or fractions, got {lengths!r}")
    if any(isinstance(v, float | np.floating) for v in lengths):
        if min(lengths) < 0 or not math.isclose(math.fsum(lengths), 1):
            raise ValueError(f"lengths: expected fractions that add up to 1, got {lengths}")
        sizes = [math.floor(n * v) for v in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [integer(v, "lengths", 0) for v in lengths]
        if sum(sizes) != n:
            raise ValueError(f"lengths: expected sizes that add up to {n}, got {lengths}")
    order, ends = permutation(n, generator), [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends)]


# ---- what a loader needs ----


def sized(dataset):
    """The data set, if it is one."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"dataset: expected an object with __len__ and __getitem__, got {type(dataset).__name__}; for arrays: "
            "TensorDataset"
        )
    return dataset


def draws(dataset):
    """Whether a sample may take random numbers."""
    return getattr(dataset, "_draws", True)


def rows_of(dataset, rows):
    """A batch: the samples with the numbers in a slice or an index array, stacked."""
    if isinstance(dataset, TensorDataset | Subset):
        return dataset._rows(rows)
    numbers = range(len(dataset))[rows] if isinstance(rows, slice) else rows.tolist()
    return collate([dataset[i] for i in numbers])


def collate(samples):
    """Samples of one structure as a batch: numbers and arrays are stacked, tuples, lists and dicts field by field.

    >>> x, y = collate([([1.0, 2.0], 0), ([3.0, 4.0], 1)])
    >>> x[0].tolist(), y.tolist()
    ([1.0, 3.0], [0, 1])
    """
    first = samples[0]
    if isinstance(first, tuple | list):
        if any(len(s) != len(first) for s in samples):
            raise ValueError(f"dataset: samples of {len(first)} and of other numbers of fields cannot be one batch")
        fields = [collate([s[i] for s in samples]) for i in range(len(first))]
        return tuple(fields) if isinstance(first, tuple) else fields
    if isinstance(first, dict):
        return {k: collate([s[k] for s in samples]) for k in first}
    if is_number(first):
        return as_tensor(as_array(samples, "dataset"))
    arrays = [np.asarray(s) for s in samples]
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise ValueError(f"dataset: samples of shapes {' and '.join(map(str, sorted(shapes)))} cannot be one batch")
    return as_tensor(as_array(np.stack(arrays), "dataset"))
