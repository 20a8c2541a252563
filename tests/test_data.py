"""The digits, the splits and the batches."""

import numpy as np
import pytest

import nncore
from nncore import data


def test_digits_are_the_published_ones():
    x, y = data.load_digits()
    assert x.shape == (1797, 64)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert x[0, :8].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]  # the first row of the first image, a zero
    assert x.sum() == 561718
    x[:] = 0
    assert data.load_digits()[0].sum() == 561718  # a fresh copy each time


def test_stratified_split_keeps_shares_and_covers_everything():
    _, y = data.load_digits()
    train, test = data.stratified_split(y, 0.2, seed=3)
    assert sorted([*train, *test]) == list(range(1797))
    assert len(test) == round(1797 * 0.2)
    assert (np.abs(np.bincount(y[test]) - 0.2 * np.bincount(y)) < 1).all()


def test_splits_depend_on_the_seed_alone():
    _, y = data.load_digits()
    nncore.manual_seed(1)
    first = data.stratified_split(y, 0.2, seed=5)[1], data.plain_split(100, 0.3, seed=5)[1]
    nncore.manual_seed(2)
    again = data.stratified_split(y, 0.2, seed=5)[1], data.plain_split(100, 0.3, seed=5)[1]
    other = data.stratified_split(y, 0.2, seed=6)[1], data.plain_split(100, 0.3, seed=6)[1]
    assert all((a == b).all() for a, b in zip(first, again))
    assert not any((a == b).all() for a, b in zip(first, other))


def test_small_classes_keep_a_training_sample():
    y = np.array(["a", "b", "b", "c", "c", "c"])
    train, _ = data.stratified_split(y, 0.9)
    assert set(y[train]) == {"a", "b", "c"}
    assert len(data.stratified_split(np.arange(10) // 2, 0.2)[1]) == 2  # five classes of two: two of them give one


def test_no_split_at_fraction_zero():
    assert len(data.plain_split(7, 0)[1]) == len(data.stratified_split([0, 1], 0)[1]) == 0


def test_plain_split_sizes():
    train, test = data.plain_split(10, 0.25, seed=1)
    assert (len(train), len(test)) == (8, 2)
    assert sorted([*train, *test]) == list(range(10))
    assert len(data.plain_split(1, 0.9)[0]) == 1  # training keeps at least one


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: data.stratified_split([0.5, 1.5]), TypeError, "y: .*float"),
        (lambda: data.stratified_split([]), (ValueError, TypeError), "y: "),
        (lambda: data.stratified_split([[1, 2]]), ValueError, r"y: .*\(1, 2\)"),
        (lambda: data.stratified_split([1, 2], 1.0), ValueError, "test_fraction: .*1"),
        (lambda: data.plain_split(0), ValueError, "n: .*0"),
        (lambda: data.plain_split(5, -0.1), ValueError, "test_fraction: .*-0.1"),
        (lambda: data.plain_split(5, seed=-1), ValueError, "seed: .*-1"),
        (lambda: data.batches(), ValueError, "arrays: "),
        (lambda: data.batches(np.zeros(3), np.zeros(4)), ValueError, r"arrays: .*\(3,\).*\(4,\)"),
        (lambda: data.batches(np.zeros((0, 2))), ValueError, "arrays: "),
        (lambda: data.batches(np.zeros(3), batch_size=0), ValueError, "batch_size: .*0"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_batches_go_through_everything_together():
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    loader = data.batches(x, np.arange(10), batch_size=4, shuffle=True, seed=1)
    assert len(loader) == 3
    seen = list(loader)
    assert [len(y) for _, y in seen] == [4, 4, 2]
    order = [i for _, y in seen for i in y.tolist()]
    assert sorted(order) == list(range(10))
    assert order != list(range(10))
    assert all(xb.tolist() == x[yb.numpy()].tolist() for xb, yb in seen)


def test_batches_shuffle_anew_and_repeat_with_the_seed():
    def orders(seed):
        loader = data.batches(np.arange(30), batch_size=None, shuffle=True, seed=seed)
        return [batch.tolist() for _ in range(2) for (batch,) in loader]

    first, second = orders(1)
    assert first != second
    assert orders(1) == [first, second]
    assert orders(2)[0] != first


def test_unshuffled_batches_are_views_in_order():
    x = nncore.arange(5).float()
    parts = [b for (b,) in data.batches(x, batch_size=2)]
    assert [p.tolist() for p in parts] == [[0, 1], [2, 3], [4]]
    x[0] = 9
    assert parts[0].tolist() == [9, 1]
