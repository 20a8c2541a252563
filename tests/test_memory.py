"""The caching allocator: alignment, reuse, statistics, limits."""

import gc
import sys
import threading

import numpy as np
import pytest

import nncore
from nncore._core import runtime, tensor

from . import shapes, test_threads

from_array, new_empty, new_zeros = tensor.from_array, tensor.new_empty, tensor.new_zeros

SIZES = [0, 1, 15, 16, 17, 64, 65, 100, 1000, 16384, 100_003, 1 << 19, (1 << 19) + 1, 3_000_001]  # float32 elements


@pytest.fixture(autouse=True)
def _no_garbage():
    """Nothing of former tests is released while one counts bytes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


stats = runtime.memory_stats


def test_alignment():
    """Every tensor begins at a multiple of 64 bytes, whatever its size and its neighbours'."""
    kept = [new_empty((n,), code) for n in SIZES * 2 for code in range(4)]
    assert all(np.asarray(t).ctypes.data % 64 == 0 for t in kept)


def test_blocks_do_not_overlap():
    """What is written to one tensor is not seen in another, up to the last element."""
    kept = [new_empty((n,), 2) for n in SIZES * 3 if n]
    for i, t in enumerate(kept):
        np.asarray(t)[:] = i
    for i, t in enumerate(kept):
        assert (np.asarray(t) == i).all()


def test_statistics():
    """in_use follows allocations and releases exactly; peak is the highest since the last reset."""
    before = stats()["in_use"]
    runtime.reset_peak_memory()
    assert stats()["peak"] == before
    a = new_empty((1000,), 0)
    b = new_empty((500_000,), 1)
    grown = stats()["in_use"] - before
    assert 4_004_000 <= grown <= 4_004_000 * 1.25
    assert stats()["peak"] - before == grown
    del b
    assert 4000 <= stats()["in_use"] - before <= 5000
    assert stats()["peak"] - before == grown
    del a
    assert stats()["in_use"] == before
    runtime.reset_peak_memory()
    assert stats()["peak"] == before
    assert nncore.memory_stats() == stats()


def test_waste_is_bounded():
    """A block is at most a quarter larger than what was asked for (small ones: one line of 64 bytes)."""
    if not shapes.slack_is_visible():
        pytest.skip("this build gives every block its own size")
    for n in (*range(1, 3000, 7), *(2**k + d for k in range(12, 22) for d in (-1, 0, 1))):
        before = runtime.memory_stats()["in_use"]
        t = new_empty((n,), 3)
        grown = runtime.memory_stats()["in_use"] - before
        assert n <= grown <= max(n * 1.25 + 1, n + 63)
        assert grown % 64 == 0
        del t
        assert runtime.memory_stats()["in_use"] == before


@pytest.mark.parametrize("n", [1, 100, 5000, 600_000, 5_000_000])
def test_freed_blocks_are_used_again(n):
    """The same size again takes the same memory: neither in use nor cached grows."""
    if not shapes.slack_is_visible():
        pytest.skip("this build keeps no blocks")
    nncore.empty_cache()  # room for the block: a full cache gives up its oldest
    t = new_empty((n,), 0)
    address = np.asarray(t).ctypes.data
    held = stats()
    del t
    free = stats()
    assert free["in_use"] + free["cached"] == held["in_use"] + held["cached"]
    assert free["cached"] > held["cached"]
    for _ in range(5):
        t = new_empty((n,), 0)
        assert np.asarray(t).ctypes.data == address
        assert stats() == held | {"peak": stats()["peak"]}
        del t
        assert stats()["cached"] == free["cached"]


def test_steady_steps_ask_the_system_for_nothing():
    """After two training steps, further ones neither use nor cache more."""
    net = nncore.nn.Sequential(nncore.nn.Linear(20, 300), nncore.nn.ReLU(), nncore.nn.Linear(300, 10))
    optimizer = nncore.optim.Adam(net.parameters())
    x, y = nncore.randn(64, 20), np.arange(64) % 10
    sizes = []
    for _ in range(6):
        loss = nncore.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        del loss
        s = stats()
        sizes.append(s["in_use"] + s["cached"])
    assert len(set(sizes[2:])) == 1, sizes


def conv_net():
    nn = nncore.nn
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 49, 10))


def mlp():
    nn = nncore.nn
    return nn.Sequential(
        nn.Flatten(), nn.Linear(256, 300), nn.ReLU(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 10)
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts Linux's page faults")
@pytest.mark.parametrize("net", [mlp, conv_net])
@pytest.mark.parametrize("threads", [1, 2])
def test_steady_steps_fault_no_page(net, threads):
    """50 warm training steps touch no page that the process did not have. (The system may take pages away to move
    them, and Python's own heap may grow: so one of several runs.)"""
    import resource

    if not shapes.slack_is_visible():
        pytest.skip("this build keeps no blocks")
    runtime.set_num_threads(threads)
    net = net()
    optimizer = nncore.optim.Adam(net.parameters())
    x, y = nncore.randn(64, 1, 16, 16), nncore.tensor(np.arange(64) % 10)

    def steps(n):
        for _ in range(n):
            optimizer.zero_grad()
            nncore.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    steps(10)
    found = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        steps(50)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        if found[-1] == 0:
            return
    raise AssertionError(f"page faults in 50 steps: {found}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_random_shapes_leave_a_bounded_process():
    """Steps of ever other sizes: after the first ones the process hardly grows, and nothing stays in use. (A process
    of its own; 10,000 steps: benchmarks/system.py.)"""
    code = """
import gc, numpy as np, nncore
from nncore import nn
rng = np.random.default_rng(0)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def steps(n):
    for _ in range(n):
        batch, width, side = (int(v) for v in rng.integers((1, 1, 6), (200, 400, 40)))
        net = nn.Sequential(nn.Linear(width, int(rng.integers(1, 400))), nn.ReLU())
        net(nncore.randn(batch, width)).sum().backward()
        net = nn.Sequential(nn.Conv2d(2, int(rng.integers(1, 20)), 3), nn.Tanh(), nn.MaxPool2d(2))
        net(nncore.randn(1 + batch // 4, 2, side, side)).sum().backward()
    del net
    gc.collect()
steps(300)
before, used, peak = resident(), nncore.memory_stats()["in_use"], nncore.memory_stats()["peak"]
steps(900)
print(resident() - before, nncore.memory_stats()["in_use"] - used, peak)
"""
    grown, in_use, peak = (int(v) for v in test_threads.python(code).split())
    assert in_use == 0
    assert grown < 4 * peak + (32 << 20), f"grew by {grown >> 20} MiB; at most {peak >> 20} MiB were in use at once"


def test_empty_cache():
    """Large cached blocks go back to the system; tensors in use are untouched."""
    if not shapes.slack_is_visible():
        pytest.skip("this build keeps no blocks")
    kept = new_zeros((3_000_000,), 0)
    np.asarray(kept)[:] = 7
    for n in (1 << 19, 2_000_000, 3_000_000, 3_000_001, 7_000_000):  # float32: from 2 MiB up
        t = new_empty((n,), 0)
        np.asarray(t)[:] = 1
        del t
    before = stats()
    runtime.empty_cache()
    after = stats()
    assert before["cached"] - after["cached"] >= 4 * (1 << 19)
    assert after["cached"] < 64 << 20  # slabs for small blocks stay
    assert after["in_use"] == before["in_use"]
    assert (np.asarray(kept) == 7).all()
    nncore.empty_cache()
    t = new_empty((3_000_000,), 0)
    np.asarray(t)[:] = 2
    assert (np.asarray(kept) == 7).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_every_block_goes_back():
    """Blocks that share a mapping with others give their pages back too, and serve again as blocks of their size."""
    if not shapes.slack_is_visible():
        pytest.skip("this build keeps no blocks")

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096

    sizes = (20_000, 100_000, 400_000)  # float32: from 80 kB to 1.6 MB
    kept = [new_zeros((n,), 0) for n in sizes]
    nncore.empty_cache()
    before = stats()["cached"]
    blocks = [new_zeros((n,), 0) for n in sizes for _ in range(60)]
    full = resident()
    del blocks
    assert stats()["cached"] - before >= 4 * 60 * sum(sizes)
    nncore.empty_cache()
    assert stats()["cached"] <= before
    assert full - resident() > 0.8 * 4 * 60 * sum(sizes)
    blocks = [new_empty((n,), 0) for n in sizes for _ in range(60)]
    for i, t in enumerate(blocks):
        np.asarray(t)[:] = i
    assert all((np.asarray(t) == i).all() for i, t in enumerate(blocks))
    assert not any(np.asarray(t).any() for t in kept)
    del blocks
    nncore.empty_cache()


def test_the_cache_does_not_grow_without_end():
    """Freed memory beyond the highest use so far (and 256 MiB) is returned at once."""
    if not shapes.slack_is_visible():
        pytest.skip("this build keeps no blocks")
    runtime.empty_cache()
    runtime.reset_peak_memory()
    limit = max(stats()["in_use"] + (80 << 20), 256 << 20)
    for k in range(12):  # each of a class of its own, so that none can be used again
        t = new_empty(((20 << 20) + k * (5 << 20),), 3)
        del t
        assert stats()["cached"] <= limit + (80 << 20)
    runtime.empty_cache()


def test_too_much_is_an_error():
    """More than there can be is a MemoryError (or a ValueError for sizes beyond all measure), not a small block: sizes
    whose product overflows must not wrap around."""
    before = stats()["in_use"]
    for shape in ((2**45,), (2**50,), (2**61,), (2**62 + 1,), (2**32, 2**32), (2**33, 2**31), (2**40, 2**40, 2**40)):
        for code in range(4):
            for make in (new_empty, new_zeros):
                with pytest.raises((MemoryError, ValueError)):
                    make(shape, code)
    for shape in ((-1,), (3, -1), (-1, -1)):
        with pytest.raises(ValueError, match="negative"):
            new_empty(shape, 0)
    with pytest.raises(ValueError, match="at most 8"):
        new_empty((1,) * 9, 0)
    assert stats()["in_use"] == before


def test_borrowed_memory_is_not_counted():
    """A tensor on an array's memory costs none, keeps the array alive, and lets it go."""
    import weakref

    class Array(np.ndarray):
        pass

    a = np.zeros(100_000, np.float32).view(Array)
    alive = weakref.ref(a)
    before = stats()["in_use"]
    t = from_array(a)
    assert stats()["in_use"] == before
    del a
    gc.collect()
    assert alive() is not None
    assert np.asarray(t).sum() == 0
    del t
    gc.collect()
    assert alive() is None


def test_arrays_keep_tensors_alive():
    """A NumPy view of a tensor outlives the tensor's name; its block is not handed out meanwhile."""
    a = np.asarray(new_zeros((1000,), 0))
    for _ in range(3):
        np.asarray(new_empty((1000,), 0))[:] = 5
    assert not a.any()


def test_threads_share_the_heap():
    """8 threads that allocate, write, check and release at once never meet in one block."""
    before = stats()["in_use"]
    wrong = []

    def caller(i):
        rng = np.random.default_rng(i)
        for _ in range(200):
            kept = [new_empty((int(n),), 2) for n in rng.integers(1, 3000, 5)]
            for t in kept:
                np.asarray(t)[:] = i
            if not all((np.asarray(t) == i).all() for t in kept):
                wrong.append(i)

    callers = [threading.Thread(target=caller, args=(i,)) for i in range(8)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert not wrong
    assert stats()["in_use"] == before


COVERS = {}
