"""Sequences of different lengths, as recurrent layers take them: torch.nn.utils.rnn's names and semantics.

A batch is either padded (one tensor, as long as the longest sequence) or packed: the steps one after the other, and of
each only the sequences that are still running, longest first. A recurrent layer spends no time on padding that way.
"""

from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from nncore._ops._check import INT64, as_float, as_tensor, constant, integer, is_number, one_of
from nncore._ops.shape import cat, getitem, reshape
from nncore._tensor import Tensor, full

__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """A batch of sequences, step after step. Made by `pack_padded_sequence` and `pack_sequence`; recurrent layers take
    and return it.

    Attributes:
        data: [sum of lengths, *], the steps one after the other, of each the sequences that reach it, longest first.
        batch_sizes: int64 [longest length], how many those are.
        sorted_indices: int64 [B], which sequence of the batch each was; None: they came sorted.
        unsorted_indices: int64 [B], the inverse: where each sequence of the batch went.

    Raises:
        ValueError: the sizes rise, end below 1, or do not add up to the rows of data.

    >>> import nncore
    >>> p = pack_sequence([nncore.tensor([1.0, 2.0, 3.0]), nncore.tensor([4.0, 5.0])])
    >>> p.data.tolist(), p.batch_sizes.tolist()
    ([1.0, 4.0, 2.0, 5.0, 3.0], [2, 2, 1])
    """

    __slots__ = ()

    def __new__(cls, data, batch_sizes=None, sorted_indices=None, unsorted_indices=None):
        data = as_tensor(data, "data")
        sizes = _integers(batch_sizes, "batch_sizes")
        counts = sizes.tolist()
        if not counts or counts[-1] < 1 or any(a < b for a, b in pairwise(counts)):
            raise ValueError(f"batch_sizes: expected numbers >= 1 that do not rise, got {counts}")
        if data.ndim == 0 or data.shape[0] != sum(counts):
            raise ValueError(f"data: expected {sum(counts)} rows, as many as batch_sizes says, got shape {data.shape}")
        order, inverse = sorted_indices, unsorted_indices
        if order is None and inverse is None:
            return super().__new__(cls, data, sizes, None, None)
        order = _permutation(order, "sorted_indices", counts[0]) if order is not None else None
        inverse = _permutation(inverse, "unsorted_indices", counts[0]) if inverse is not None else _inverse(order)
        return super().__new__(cls, data, sizes, order if order is not None else _inverse(inverse), inverse)


def _integers(x, name):
    t = as_tensor(x, name)
    if t._code != INT64 or t.ndim != 1:
        raise TypeError(f"{name}: expected integers in one dimension, got {t.dtype} of shape {t.shape}")
    return t


def _permutation(x, name, n):
    t = _integers(x, name)
    if sorted(t.tolist()) != list(range(n)):
        raise ValueError(f"{name}: expected a permutation of 0 to {n - 1}, got {t.tolist()}")
    return t


def _inverse(order):
    inverse = [0] * len(order)
    for i, b in enumerate(order.tolist()):
        inverse[b] = i
    return constant(inverse, INT64)


def _lengths(lengths, longest, batch, name="lengths"):
    values = _integers(lengths, name).tolist()
    if len(values) != batch:
        raise ValueError(f"{name}: expected {batch} of them, one per sequence, got {len(values)}")
    if any(not 0 < n <= longest for n in values):
        raise ValueError(f"{name}: expected lengths from 1 to {longest}, got {values}")
    return values


def _places(positions, batch_first):
    """Rows by step and sequence as an index."""
    return constant(np.ascontiguousarray(positions.T if batch_first else positions), INT64)


def pack_padded_sequence(input, lengths, batch_first=False, enforce_sorted=True):
    """Padded sequences, packed.

    Args:
        input: [T, B, *], or [B, T, *] with batch_first.
        lengths: B integers from 1 to T, a list or a Tensor.
        batch_first: see input.
        enforce_sorted: the sequences must come longest first; else they are sorted, which the result remembers.

    Returns:
        PackedSequence.

    Raises:
        ValueError: input has fewer than two dimensions, or a length is wrong or out of order.

    >>> import nncore
    >>> x = nncore.tensor([[1.0, 0.0], [2.0, 3.0]])
    >>> pack_padded_sequence(x, [1, 2], batch_first=True, enforce_sorted=False).data.tolist()
    [2.0, 1.0, 3.0]
    """
    x = as_float(input)
    if x.ndim < 2:
        raise ValueError(f"input: expected at least 2 dimensions, got shape {x.shape}")
    batch, longest = x.shape[:2] if batch_first else x.shape[1::-1]
    values = _lengths(lengths, longest, batch)
    if not batch:
        raise ValueError("input: expected at least one sequence")
    order = None
    if not enforce_sorted:
        order = sorted(range(batch), key=lambda b: -values[b])
        values = [values[b] for b in order]
    elif any(a < b for a, b in pairwise(values)):
        raise ValueError(f"lengths: expected the longest first, got {values}; or pass enforce_sorted=False")
    steps = np.arange(values[0])[:, None]
    running = steps < np.array(values)
    columns = np.arange(batch) if order is None else np.array(order)
    positions = columns * longest + steps if batch_first else steps * batch + columns
    data = getitem(reshape(x, (batch * longest, *x.shape[2:])), constant(positions[running], INT64))
    sizes = constant(np.count_nonzero(running, axis=1), INT64)
    return PackedSequence(data, sizes, None if order is None else constant(order, INT64))


def pad_packed_sequence(sequence, batch_first=False, padding_value=0.0, total_length=None):
    """The inverse of `pack_padded_sequence`.

    Args:
        sequence: PackedSequence.
        batch_first: the result is [B, T, *], else [T, B, *].
        padding_value: what stands beyond the end of a sequence.
        total_length: T, at least the longest length, which is the default.

    Returns:
        (padded, lengths): in the order in which the sequences were packed; int64 [B].

    Raises:
        TypeError: sequence is no PackedSequence.
        ValueError: total_length is too small.

    >>> import nncore
    >>> p = pack_sequence([nncore.tensor([1.0, 2.0, 3.0]), nncore.tensor([4.0, 5.0])])
    >>> padded, lengths = pad_packed_sequence(p, batch_first=True)
    >>> padded.tolist(), lengths.tolist()
    ([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]], [3, 2])
    """
    _packed_argument(sequence, "sequence")
    counts = sequence.batch_sizes.tolist()
    longest = len(counts) if total_length is None else integer(total_length, "total_length")
    if longest < len(counts):
        raise ValueError(f"total_length: expected at least the longest length {len(counts)}, got {total_length}")
    if not is_number(padding_value):
        raise TypeError(f"padding_value: expected a number, got {type(padding_value).__name__}")
    lengths = np.count_nonzero(np.array(counts)[:, None] > np.arange(counts[0]), axis=0)
    places = np.arange(counts[0])
    if sequence.unsorted_indices is not None:
        places = np.asarray(sequence.unsorted_indices)
    lengths = lengths[places]
    starts = np.array([0, *accumulate(counts)][:-1] + [0] * (longest - len(counts)))
    positions = starts[:, None] + places
    data, padding = sequence.data, np.arange(longest)[:, None] >= lengths
    if padding.any():
        row = full((1, *data.shape[1:]), padding_value, dtype=data.dtype)
        positions[padding] = data.shape[0]
        data = cat([data, row])
    return getitem(data, _places(positions, batch_first)), constant(lengths, INT64)


def pad_sequence(sequences, batch_first=False, padding_value=0.0, padding_side="right"):
    """Sequences [L_i, *] as one padded tensor [T, B, *], or [B, T, *] with batch_first; T is the longest L_i.

    Args:
        sequences: list of Tensors that differ in their first size only.
        padding_value: what fills the rest.
        padding_side: 'right' (behind a sequence) or 'left'.

    Raises:
        ValueError: there is no sequence, or other sizes or dtypes differ.

    >>> import nncore
    >>> pad_sequence([nncore.tensor([1.0, 2.0]), nncore.tensor([3.0])], batch_first=True).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    one_of(padding_side, "padding_side", ("right", "left"))
    if not is_number(padding_value):
        raise TypeError(f"padding_value: expected a number, got {type(padding_value).__name__}")
    seqs = _sequences(sequences)
    lengths = [s.shape[0] for s in seqs]
    longest, starts = max(lengths), [0, *accumulate(lengths)][:-1]
    steps = np.arange(longest)[:, None]
    if padding_side == "left":
        steps = steps - (longest - np.array(lengths))
    inside = (steps >= 0) & (steps < np.array(lengths))
    positions = np.where(inside, steps + np.array(starts), sum(lengths))
    row = full((1, *seqs[0].shape[1:]), padding_value, dtype=seqs[0].dtype)
    return getitem(cat([*seqs, row]), _places(positions, batch_first))


def unpad_sequence(padded_sequences, lengths, batch_first=False):
    """The inverse of `pad_sequence`: a list of the first lengths[i] steps of each sequence.

    >>> import nncore
    >>> [s.tolist() for s in unpad_sequence(nncore.tensor([[1.0, 3.0], [2.0, 0.0]]), [2, 1])]
    [[1.0, 2.0], [3.0]]
    """
    x = as_float(padded_sequences, "padded_sequences")
    if x.ndim < 2:
        raise ValueError(f"padded_sequences: expected at least 2 dimensions, got shape {x.shape}")
    batch, longest = x.shape[:2] if batch_first else x.shape[1::-1]
    values = _lengths(lengths, longest, batch)
    return [getitem(x, (i, slice(n)) if batch_first else (slice(n), i)) for i, n in enumerate(values)]


def pack_sequence(sequences, enforce_sorted=True):
    """Sequences [L_i, *], packed: `pack_padded_sequence(pad_sequence(sequences), lengths, False, enforce_sorted)`.

    >>> import nncore
    >>> pack_sequence([nncore.ones(2, 3), nncore.ones(4, 3)], enforce_sorted=False).data.shape
    (6, 3)
    """
    seqs = _sequences(sequences)
    return pack_padded_sequence(pad_sequence(seqs), [s.shape[0] for s in seqs], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences):
    """The inverse of `pack_sequence`: a list of the sequences.

    >>> import nncore
    >>> p = pack_sequence([nncore.tensor([1.0, 2.0]), nncore.tensor([3.0])])
    >>> [s.tolist() for s in unpack_sequence(p)]
    [[1.0, 2.0], [3.0]]
    """
    padded, lengths = pad_packed_sequence(_packed_argument(packed_sequences, "packed_sequences"), batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


def _packed_argument(x, name):
    if not isinstance(x, PackedSequence):
        raise TypeError(f"{name}: expected a PackedSequence, got {type(x).__name__}")
    return x


def _sequences(sequences):
    if isinstance(sequences, Tensor) or not isinstance(sequences, list | tuple):
        raise TypeError(f"sequences: expected a list of Tensors, got {type(sequences).__name__}")
    if not sequences:
        raise ValueError("sequences: expected at least one")
    seqs = [as_float(s, "sequences") for s in sequences]
    for s in seqs:
        if s.ndim == 0 or s.shape[1:] != seqs[0].shape[1:] or s._code != seqs[0]._code:
            raise ValueError(
                f"sequences: expected {seqs[0].dtype} and sizes that differ in the first only, got {s.dtype} of shape "
                f"{s.shape} beside {seqs[0].shape}"
            )
    return seqs
