"""Data sets and their loader."""

import threading

import numpy as np
import pytest

import nncore
from nncore import data
from nncore._random import drawing_from


class Rows(data.Dataset):
    """Samples that take random numbers."""

    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"x": np.full(3, i, np.float32), "noise": nncore.rand(2), "pair": (i, [i * 0.5])}


def values(loader):
    return [[t.tolist() for t in batch] for batch in loader]


def test_sizes_and_drop_last():
    pairs = data.TensorDataset(np.arange(10), np.arange(10.0))
    for size, drop, lengths in (
        (1, False, [1] * 10),
        (4, False, [4, 4, 2]),
        (4, True, [4, 4]),
        (5, True, [5, 5]),
        (None, True, [10]),
        (20, False, [10]),
        (20, True, []),
    ):
        loader = data.DataLoader(pairs, size, drop_last=drop)
        assert [len(x) for x, _ in loader] == lengths
        assert len(loader) == len(lengths)
    assert data.DataLoader(pairs).batch_size == 1  # torch's


def test_orders_are_the_generator_s():
    pairs = data.TensorDataset(np.arange(20))

    def passes(seed, prefetch):
        loader = data.DataLoader(pairs, 3, shuffle=True, generator=nncore.Generator(seed), prefetch=prefetch)
        return [[i for (b,) in loader for i in b.tolist()] for _ in range(3)]

    nncore.manual_seed(1)
    state = nncore.get_rng_state()
    first = passes(5, 0)
    assert nncore.get_rng_state() == state
    assert all(sorted(p) == list(range(20)) for p in first)
    assert first[0] != first[1] != first[2]
    for prefetch in (1, 2, 50):
        assert passes(5, prefetch) == first
    assert passes(6, 0) != first


def test_small_integers_stay_small_until_they_are_a_batch():
    x = np.arange(24, dtype=np.uint8).reshape(6, 4)
    pairs = data.TensorDataset(x, np.zeros(6, np.int32))
    assert pairs.tensors[0] is x
    loader = data.DataLoader(pairs, 4, shuffle=True, generator=nncore.Generator(0))
    assert {b.dtype.name for batch in loader for b in batch} == {"int64"}
    assert sorted(v for xb, _ in loader for v in xb.flatten().tolist()) == list(range(24))
    assert pairs[2][0].tolist() == [8, 9, 10, 11]


def test_samples_are_stacked():
    for shuffle in (False, True):
        first = next(iter(data.DataLoader(Rows(), 4, shuffle=shuffle)))
        assert first["x"].shape == (4, 3)
        assert first["x"].dtype == np.float32
        number, (half,) = first["pair"]
        assert number.dtype == np.int64
        assert half.tolist() == [i / 2 for i in number.tolist()] == [x / 2 for x in first["x"][:, 0].tolist()]
    part = data.Subset(Rows(), [7, 2, 5])
    assert [b["pair"][0].tolist() for b in data.DataLoader(part, 2)] == [[7, 2], [5]]
    assert [s["pair"][0] for s in part] == [7, 2, 5]
    nested = data.Subset(data.Subset(data.TensorDataset(np.arange(10) * 2), [9, 8, 7, 1]), [3, 0])
    assert values(data.DataLoader(nested, 2)) == [[[2, 18]]]
    assert nested[0][0].item() == 2


def test_what_samples_draw_depends_on_the_seed_alone():
    """Samples and transforms draw from a generator of their pass: a thread changes nothing, whatever else is drawn."""

    def transform(batch):
        return batch["noise"] + nncore.rand(1)

    def run(prefetch, others):
        nncore.manual_seed(3)
        out = []
        loader = data.DataLoader(Rows(), 3, shuffle=True, transform=transform, prefetch=prefetch)
        for _ in range(2):
            for batch in loader:
                out.append(batch.tolist())
                for _ in range(others):
                    nncore.rand(1)
        return out, nncore.rand(1).item()

    want = run(0, 0)
    assert run(1, 0) == run(4, 0) == want
    assert len({str(b) for b in want[0]}) == 8
    others = [run(prefetch, 2)[0] for prefetch in (0, 1, 4)]
    assert others[0] == others[1] == others[2]
    assert others[0][:4] == want[0][:4]
    assert others[0][4:] != want[0][4:]  # the second pass begins from another state


def test_one_thread_s_generator_is_no_other_s():
    nncore.manual_seed(0)
    a, seen = nncore.Generator(9), []
    with drawing_from(a):
        inside = nncore.rand(1).item()
        other = threading.Thread(target=lambda: seen.append(nncore.rand(1).item()))
        other.start()
        other.join()
        with drawing_from(None):
            assert nncore.rand(1).item() != inside
    assert inside == nncore.rand(1, generator=nncore.Generator(9)).item()
    nncore.manual_seed(0)
    assert seen == [nncore.rand(1).item()]


def test_prefetch_works_ahead_and_ends():
    made, before = [], threading.active_count()
    release = threading.Event()

    class Slow(Rows):
        def __getitem__(self, i):
            made.append(i)
            if i == 2:
                release.set()
            return i

    batches = iter(data.DataLoader(Slow(), 1, prefetch=2))
    assert next(batches).tolist() == [0]
    assert release.wait(10)  # two more are made without being asked for
    batches.close()
    assert len(made) < 10
    assert threading.active_count() == before


def test_errors_of_samples_arrive_in_their_place():
    class Broken(Rows):
        def __getitem__(self, i):
            if i == 5:
                raise KeyError("five")
            return i

    for prefetch in (0, 1, 3):
        batches = iter(data.DataLoader(Broken(), 2, prefetch=prefetch))
        assert [next(batches).tolist(), next(batches).tolist()] == [[0, 1], [2, 3]]
        with pytest.raises(KeyError, match="five"):
            next(batches)


def test_no_graph_is_recorded():
    w = nncore.nn.Parameter([2.0])
    for prefetch in (0, 1):
        loader = data.DataLoader(
            data.TensorDataset(np.ones(4)), 2, transform=lambda x: x * w.double(), prefetch=prefetch
        )
        assert not any(b.requires_grad for b in loader)


def test_random_split():
    pairs = data.TensorDataset(np.arange(11))

    def split(*args):
        return [[x.item() for (x,) in part] for part in data.random_split(pairs, *args)]

    sizes = split([5, 0, 6], nncore.Generator(1))
    assert [len(p) for p in sizes] == [5, 0, 6]
    assert sorted(i for part in sizes for i in part) == list(range(11))
    assert sizes == split([5, 0, 6], nncore.Generator(1)) != split([5, 0, 6], nncore.Generator(2))
    assert [len(p) for p in split([0.5, 0.3, 0.2])] == [6, 3, 2]  # floors 5, 3, 2; the first gets the last sample
    nncore.manual_seed(4)
    assert split([11]) != split([11])


def test_stratified_subsets():
    x, y = data.load_digits()
    train, test = data.stratified_split(y)
    parts = [data.Subset(data.TensorDataset(x, y), rows) for rows in (train, test)]
    (got,) = [b for _, b in data.DataLoader(parts[1], None)]
    assert np.bincount(got.numpy()).tolist() == np.bincount(y[test]).tolist()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda d: data.DataLoader(3), TypeError, "dataset: .*int.*TensorDataset"),
        (lambda d: data.DataLoader([]), ValueError, "dataset: expected at least one"),
        (lambda d: data.DataLoader(d, 0), ValueError, "batch_size: .*0"),
        (lambda d: data.DataLoader(d, 2.0), TypeError, "batch_size: .*float"),
        (lambda d: data.DataLoader(d, prefetch=-1), ValueError, "prefetch: .*-1"),
        (lambda d: data.DataLoader(d, generator=3), TypeError, "generator: .*int"),
        (lambda d: data.DataLoader(d, transform=3), TypeError, "transform: .*int"),
        (lambda d: data.TensorDataset(), ValueError, "arrays: "),
        (lambda d: data.TensorDataset([1, 2], [1]), ValueError, r"arrays: .*\(2,\), \(1,\)"),
        (lambda d: data.TensorDataset(["a"]), TypeError, r"arrays\[0\]: "),
        (lambda d: data.TensorDataset(3), ValueError, r"arrays: "),
        (lambda d: data.Subset(d, [4]), ValueError, "indices: expected 0 to 3, got 4"),
        (lambda d: data.Subset(d, [-1]), ValueError, "indices: .*-1"),
        (lambda d: data.Subset(d, [0.5]), TypeError, "indices: .*float"),
        (lambda d: data.Subset(d, [[0]]), ValueError, r"indices: .*\(1, 1\)"),
        (lambda d: data.random_split(d, [1, 2]), ValueError, "lengths: .*add up to 4"),
        (lambda d: data.random_split(d, [0.5, 0.4]), ValueError, "lengths: .*add up to 1"),
        (lambda d: data.random_split(d, [-0.5, 1.5]), ValueError, "lengths: "),
        (lambda d: data.random_split(d, [5, -1]), ValueError, "lengths: .*-1"),
        (lambda d: data.random_split(d, 4), TypeError, "lengths: "),
        (lambda d: data.random_split(d, ["a"]), TypeError, "lengths: "),
        (
            lambda d: next(iter(data.DataLoader([np.zeros(2), np.zeros(3)], 2))),
            ValueError,
            r"dataset: .*\(2,\).*\(3,\)",
        ),
        (lambda d: next(iter(data.DataLoader([(1, 2), (1,)], 2))), ValueError, "dataset: .*fields"),
        (lambda d: next(iter(data.DataLoader(["a", "b"], 2))), TypeError, "dataset: "),
        (lambda d: len(data.Dataset()), NotImplementedError, "__len__"),
        (lambda d: data.Dataset()[0], NotImplementedError, "__getitem__"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(data.TensorDataset(np.arange(4)))
