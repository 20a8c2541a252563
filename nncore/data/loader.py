"""DataLoader: batches of a data set, shuffled, transformed and made ahead in a thread."""

from collections import deque

from nncore._grad import no_grad
from nncore._ops._check import integer
from nncore._random import Generator, checked, drawing_from, permutation
from nncore.data.dataset import TensorDataset, draws, rows_of, sized


class DataLoader:
    """Batches of a data set; each iteration is one pass over its samples. torch.utils.data's.

    The numbers that a pass draws depend on the generator's state at its start alone, not on `prefetch`: the order is
    drawn then, and, if samples may draw (a transform, or a data set of your own), a seed; inside of data set and
    transform, nncore's default generator stands for one of that seed.

    Args:
        dataset: an object with `__len__` and `__getitem__`: `Dataset`.
        batch_size: samples per batch; the last one may be smaller. None: all of them.
        shuffle: a new random order in each pass.
        drop_last: leave out the last batch if it is smaller.
        generator: `nncore.Generator`, or None for the default one (`nncore.manual_seed`).
        transform: function of a batch that gives another one, called with its fields if it is a tuple:
            `nncore.data.augment`.
        prefetch: batches made ahead by a thread while one is used; 0: none.

    Attributes:
        dataset, batch_size, shuffle, drop_last, generator, transform, prefetch: the arguments.

    Raises:
        ValueError, TypeError: an argument is not as described.

    >>> import numpy as np
    >>> loader = DataLoader(TensorDataset(np.zeros((5, 2)), np.arange(5)), batch_size=2)
    >>> len(loader), [y.tolist() for x, y in loader]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(
        self, dataset, batch_size=1, shuffle=False, *, drop_last=False, generator=None, transform=None, prefetch=0
    ):
        self.dataset = sized(dataset)
        if len(dataset) == 0:
            raise ValueError("dataset: expected at least one sample, got none")
        self.batch_size = None if batch_size is None else integer(batch_size, "batch_size", 1)
        checked(generator)
        if transform is not None and not callable(transform):
            raise TypeError(f"transform: expected a function, got {type(transform).__name__}")
        self.shuffle, self.drop_last, self.generator, self.transform = (
            bool(shuffle),
            bool(drop_last),
            generator,
            transform,
        )
        self.prefetch = integer(prefetch, "prefetch", 0)

    def _starts(self):
        n = len(self.dataset)
        size = n if self.batch_size is None else self.batch_size
        return range(0, n - size + 1 if self.drop_last else n, size), size

    def __len__(self):
        """Number of batches."""
        return len(self._starts()[0])

    def __iter__(self):
        starts, size = self._starts()
        generator = checked(self.generator)
        order = permutation(len(self.dataset), generator) if self.shuffle else None
        own = generator.spawn() if self.transform is not None or draws(self.dataset) else None
        rows = (slice(i, i + size) if order is None else order[i : i + size] for i in starts)
        return self._ahead(rows, own) if self.prefetch else (self._batch(r, own) for r in rows)

    def _batch(self, rows, generator):
        with no_grad(), drawing_from(generator):
            batch = rows_of(self.dataset, rows)
            if self.transform is None:
                return batch
            return self.transform(*batch) if isinstance(batch, tuple) else self.transform(batch)

    def _ahead(self, rows, generator):
        from concurrent.futures import ThreadPoolExecutor

        pool, waiting = ThreadPoolExecutor(1, "nncore-loader"), deque()
        try:
            for r in rows:
                waiting.append(pool.submit(self._batch, r, generator))
                if len(waiting) > self.prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also of a pass that is left early
            pool.shutdown(cancel_futures=True)


def batches(*arrays, batch_size=32, shuffle=False, seed=None):
    """Tuples of batches of arrays that belong together, sample by sample: a DataLoader over a TensorDataset.

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

    >>> import numpy as np
    >>> loader = batches(np.zeros((5, 2)), np.arange(5), batch_size=2)
    >>> len(loader), [y.tolist() for x, y in loader]
    (3, [[0, 1], [2, 3], [4]])
    """
    generator = None if seed is None else Generator(seed)
    return DataLoader(TensorDataset(*arrays), batch_size, shuffle, generator=generator)
