"""nncore.profile and plan.summary: what each kernel is, its time, the trace file; and that nothing else changes."""

import ctypes
import doctest
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest

import nncore
from nncore import nn, no_grad, optim
from nncore._core import describe as described
from nncore._core import runtime
from nncore.nn import functional as F

from .test_compile import batches, bits, classifier, randn

COLUMNS = ("shape", "dtype", "calls", "us each", "GFLOP/s", "GB/s", "% peak", "threads")


def of(events, *kernels):
    """Names and FLOP of the events of these kernels."""
    return sorted((e.name, e.flop) for e in events if e.name in kernels)


def work(events):
    """Names, FLOP and bytes of events."""
    return [(e.name, e.flop, e.bytes) for e in events]


def profiled(f, *args):
    with nncore.profile() as prof:
        f(*args)
    return prof


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_work_of_kernels(dtype, isa):
    """FLOP and bytes by hand."""
    w = np.dtype(dtype).itemsize
    x, y = randn(6, 5, dtype=dtype), randn(5, 7, dtype=dtype)
    image, filters = randn(2, 3, 8, 8, dtype=dtype), randn(4, 3, 3, 3, dtype=dtype)
    with no_grad():
        assert work(profiled(lambda: x @ y).events) == [("gemm", 2 * 6 * 5 * 7, w * (30 + 35 + 42))]
        assert work(profiled(lambda: x + x[:1]).events) == [("ewise add", 30, w * (30 + 5 + 30))]
        assert work(profiled(x.sum, 1).events) == [("reduce sum", 30, w * (30 + 6))]
        assert work(profiled(x.exp).events) == [("ewise exp", 30, w * 60)]
        assert work(profiled(lambda: x.to(np.int64)).events) == [("cast", 0, 30 * (w + 8))]
        found = profiled(F.conv2d, image, filters).events
        conv = [e for e in found if e.name.split(" ")[0] in ("conv", "winograd")]
        assert [e.flop for e in conv] == [2 * 2 * 4 * 36 * 27]
        assert conv[0].bytes == w * (2 * 3 * 64 + 2 * 4 * 36 + 4 * 27)
        assert "2x3x8x8 -> 4x6x6" in conv[0].shape
    model = nn.Linear(5, 7).to(dtype)
    optimizer = optim.Adam(model.parameters())
    model(x).sum().backward()
    (step,) = [e for e in profiled(optimizer.step).events if e.name == "adam"]
    assert step.bytes == w * 42 * 7, "p, two states: read and written; the gradient: read"


def test_every_kernel_is_described():
    """No kernel ends at the last line of describe: it gives no shape to arguments of zeros but for the probes."""
    zeros = ctypes.create_string_buffer(1 << 14)
    unknown = set()
    for number, name in enumerate(runtime.KERNELS):
        if name == "bag":
            continue  # reads an array
        found = described.describe(number, 0, ctypes.addressof(zeros))
        if not found[1]:
            unknown.add(name)
    assert unknown == {"probe_fma", "probe_copy"}


def test_bags_are_described():
    weight = randn(9, 4)
    with no_grad():
        found = profiled(F.embedding_bag, nncore.tensor([[1, 2, 3], [4, 5, 6]]), weight).events
    assert ("bag", 6 * 4, 4 * 4 * (6 + 2) + 8 * 6) in work(found)


def test_eager_and_replayed_do_the_same_work():
    """Forward, backward and update: what does the work is there as often, with equal work."""
    fn, _, _ = classifier()()
    x, y = batches(1)[0]
    fn(x, y)
    eager = profiled(fn, x, y)
    step = nncore.compile(classifier()()[0])
    for _ in range(3):
        step(x, y)
    replayed = profiled(step, x, y)
    assert replayed.events[0].name == "index", "the classes are checked before anything else"
    kernels = ("gemm", "cross_entropy", "cross_entropy_backward", "adam")
    assert of(eager.events, *kernels) == of(replayed.events, *kernels)
    assert {e.name for e in eager.events} >= {"ewise tanh", *kernels}
    assert all(a.end <= b.start for a, b in zip(eager.events, eager.events[1:])), "one after the other"
    assert all(a.end == b.start for a, b in zip(replayed.events[1:], replayed.events[2:]))
    assert all(e.end >= e.start and e.threads >= 1 for e in eager.events + replayed.events)
    assert all(e.where[0].endswith("test_compile.py") for e in eager.events + replayed.events[1:])
    assert step.plan.replays == 2


def test_bits_do_not_change():
    seen = []
    for profile in (False, True):
        nncore.manual_seed(3)
        fn, model, optimizer = classifier()()
        step = nncore.compile(fn)
        prof = nncore.profile()
        if profile:
            prof.__enter__()
        try:
            losses = [bits(f(*args)) for args in batches(4) for f in (fn, step)]
        finally:
            if profile:
                prof.__exit__()
        seen.append((losses, bits(model.state_dict()), bits(optimizer.state_dict()["state"])))
        assert step.plan.replays == 2
        assert bool(prof.events) == profile
    assert seen[0] == seen[1]


def test_table():
    x, y = randn(64, 32), randn(32, 48)
    with nncore.profile() as prof, no_grad():
        for _ in range(3):
            z = x @ y
        z.exp()
        (x[:32] @ y).exp()
    lines = prof.table().splitlines()
    assert all(c in lines[0] for c in COLUMNS)
    assert len(lines) == 1 + 4 + 1
    assert lines[-1].startswith("6 kernels:")
    inside = sum(e.end - e.start for e in prof.events) / 1e3
    assert f"{inside:.1f} us of" in lines[-1]
    times = [float(re.split(r"  +", row)[4]) for row in lines[1:-1]]
    assert times == sorted(times, reverse=True)
    assert sum(times) == pytest.approx(inside, abs=0.05 * 5)
    by_kernel = prof.table(sort_by="calls", group_by_shape=False).splitlines()
    assert [re.split(r"  +", row)[0] for row in by_kernel[1:-1]] == ["gemm", "ewise exp"]
    assert len(prof.table(row_limit=1).splitlines()) == 3
    for sort_by in ("mean", "flop", "bytes", "peak", "name"):
        assert len(prof.table(sort_by).splitlines()) == 6
    with pytest.raises(ValueError, match="sort_by"):
        prof.table("speed")
    assert "0 kernels" in nncore.profile().table()


def check_trace(path):
    """The trace of a file, whose slices are complete events as the format's description has them."""
    trace = json.loads(path.read_text())
    assert trace.keys() == {"traceEvents", "displayTimeUnit"}
    for e in trace["traceEvents"]:
        for key, kind in {"name": str, "pid": int, "tid": int, "args": dict}.items():
            assert isinstance(e[key], kind)
        if e["ph"] == "X":
            assert isinstance(e["cat"], str)
            assert min(e["ts"], e["dur"]) >= 0
        else:
            assert (e["ph"], e["name"]) in (("M", "process_name"), ("M", "thread_name"))
    return [e for e in trace["traceEvents"] if e["ph"] == "X"]


def test_chrome_trace(tmp_path):
    """Kernels lie within the replay that they belong to, and fill it."""
    fn, *_ = classifier()()
    step = nncore.compile(fn)
    x, y = batches(1)[0]
    with nncore.profile() as prof:
        for _ in range(4):
            step(x, y)
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(path)
    slices = check_trace(path)
    replays = [e for e in slices if e["cat"] == "plan"]
    kernels = [e for e in slices if e["cat"] == "kernel"]
    assert len(replays) == step.plan.replays == 2
    assert len(kernels) == len(prof.events)
    for r in replays:
        inside = [k for k in kernels if r["ts"] <= k["ts"] < r["ts"] + r["dur"]]
        assert len(inside) >= len(step.plan) == r["args"]["kernels"]
        assert sum(k["dur"] for k in inside) == pytest.approx(r["dur"], rel=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_export_leaves_the_old_file(tmp_path):
    path = tmp_path / "missing" / "trace.json"
    with pytest.raises(ValueError, match="missing"):
        nncore.profile().export_chrome_trace(path)
    assert list(tmp_path.iterdir()) == []


def test_threads(tmp_path):
    """Kernels of all Python threads, each under its own."""
    x = randn(30, 30)

    def run():
        for _ in range(50):
            x @ x

    with nncore.profile() as prof:
        threads = [threading.Thread(target=run) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(prof.events) == 150
    assert len({e.thread for e in prof.events}) <= 3
    prof.export_chrome_trace(tmp_path / "t.json")
    assert len(check_trace(tmp_path / "t.json")) == 150


def test_one_at_a_time():
    x = randn(2, 2)
    with nncore.profile() as outer:
        x + x
        with pytest.raises(RuntimeError, match="another"), nncore.profile():
            pass
        x + x
    x + x
    assert len(outer.events) == 2


def test_summary():
    """One line for each kernel, in order; what it counts is what a profile counts."""
    fn, *_ = classifier()()
    step = nncore.compile(fn)
    x, y = batches(1)[0]
    step(x, y)
    assert "no kernels yet" in step.plan.summary()
    step(x, y)
    prof = profiled(step, x, y)
    lines = step.plan.summary().splitlines()
    assert len(lines) == 1 + len(step.plan) + 1
    assert all(c in lines[0] for c in ("kernel", "shape", "FLOP", "bytes", "threads", "arena", "line"))
    names = [re.split(r"  +", row.strip())[1] for row in lines[1:-1]]
    assert names == [e.name for e in prof.events][-len(names) :]
    assert all("test_compile.py:" in row for row in lines[1:-1])
    assert re.search(r"\b0\+\d+", lines[1] + lines[2]), "the arena begins at 0"
    assert "1 replays" in lines[-1]


def test_the_guide():
    """The examples of docs/compile.md."""
    path = Path(nncore.__file__).parent.parent / "docs" / "compile.md"
    if not path.exists():
        pytest.skip("no source checkout: the documents are not installed")
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert not failed
    assert tried > 10
