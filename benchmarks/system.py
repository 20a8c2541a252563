"""What the kernels stand on: page faults, resident memory, huge pages, the size at which a second thread pays, scaling,
CPU time of idle threads, other thread pools in the process. `make bench-system`, which also runs benchmarks.busy.

`python -m benchmarks.system faults idle` prints some sections only.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import nncore
from benchmarks import harness
from benchmarks.busy import STEPS
from nncore import nn
from nncore._core import dense, elementwise, reduction, runtime

ROOT = Path(__file__).parent.parent


def python(code, *arguments):
    """Last line that a fresh interpreter prints."""
    call = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip().splitlines()[-1]


def minor_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ---- memory ----


def faults(steps=200):
    """Page faults of warm eager training steps."""
    rows = []
    libs = {"nncore": nncore} | ({"torch": harness.torch()} if harness.torch() else {})
    for threads in (1, 2):
        harness.set_threads(threads)
        for net, build in STEPS.items():
            row = {"net": net, "threads": threads}
            for lib, module in libs.items():
                step = build(module)
                for _ in range(30):
                    step()
                n = max(20, min(steps, int(1.5 / _seconds(step))))
                before = minor_faults()
                for _ in range(n):
                    step()
                row |= {lib: (minor_faults() - before) / n, "steps": n}
            rows.append(row)
    print("page faults of one warm training step")
    columns = [("net", "net", "{}"), ("threads", "threads", "{}"), ("nncore", "nncore", "{:.2f}")]
    harness.table(rows, [*columns, ("torch", "torch", "{:.1f}")])
    return rows


def _seconds(fn):
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def random_shapes(steps=10_000):
    """Resident memory over training steps whose batch, width and image change every time."""
    rng = np.random.default_rng(0)
    rows, most = [], 0
    for i in range(steps):
        batch, width, side = (int(v) for v in rng.integers((1, 1, 6), (257, 513, 25)))
        net = nn.Sequential(nn.Linear(width, int(rng.integers(1, 513))), nn.ReLU())
        net(nncore.randn(batch, width)).sum().backward()
        if i % 4 == 0:
            conv = nn.Sequential(nn.Conv2d(3, int(rng.integers(1, 33)), 3), nn.ReLU(), nn.MaxPool2d(2))
            conv(nncore.randn(1 + batch // 8, 3, side, side)).sum().backward()
        most = max(most, nncore.memory_stats()["in_use"])
        if i + 1 in (steps // 100, steps // 10, steps // 2, steps):
            s = nncore.memory_stats()
            rows.append({"steps": i + 1, "rss": resident() >> 10, "cached": s["cached"] >> 10, "peak": most >> 10})
    nncore.empty_cache()
    rows.append({"steps": "empty_cache", "rss": resident() >> 10, "cached": nncore.memory_stats()["cached"] >> 10})
    print("\nKiB after training steps of random shapes")
    columns = [("steps", "steps", "{}"), ("resident", "rss", "{}"), ("cached", "cached", "{}")]
    harness.table(rows, [*columns, ("in use between steps, at most", "peak", "{}")])
    return rows


HUGE = """
import ctypes, sys, time, statistics
if sys.argv[1] == "off": ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
import numpy as np, nncore, resource
from nncore._core import dense, runtime, tensor
nncore.set_num_threads(1)
def touch():
    nncore.empty_cache()
    before, t = resource.getrusage(0).ru_minflt, time.perf_counter()
    nncore.zeros(1 << 24)
    return time.perf_counter() - t, resource.getrusage(0).ru_minflt - before
first = [touch() for _ in range(7)]
a = nncore.randn(1024, 1024)
b = nncore.randn(1024, 1024)
table, rows = nncore.randn(100_000, 64), np.random.default_rng(0).integers(0, 100_000, 100_000)
def median(f):
    t = []
    for _ in range(15):
        s = time.perf_counter(); f(); t.append(time.perf_counter() - s)
    return statistics.median(t)
copy = runtime.probe_copy(1 << 26, 0.2) / 1e9
gemm = median(lambda: dense.matmul(a, b.T))
gather = median(lambda: table[rows])
print(statistics.median(f[0] for f in first) * 1e3, min(f[1] for f in first), copy, gemm * 1e3, gather * 1e3)
"""


def huge_pages():
    """The same with and without transparent huge pages, each in a process of its own, taking turns."""
    found = {"on": [], "off": []}
    for _ in range(3):
        for state, runs in found.items():
            runs.append([float(v) for v in python(HUGE, state).split()])
    rows = []
    for state, runs in found.items():
        keys = "touch", "faults", "copy", "gemm", "gather"
        rows.append({"huge": state, **dict(zip(keys, map(statistics.median, zip(*runs))))})
    print("\nhuge pages: fresh 64 MiB of zeros; copy of 64 MiB; 1024^3 product; 100,000 random rows of 256 bytes")
    columns = [("huge pages", "huge", "{}"), ("fresh ms", "touch", "{:.2f}"), ("faults", "faults", "{:.0f}")]
    columns += [("copy GB/s", "copy", "{:.1f}"), ("product ms", "gemm", "{:.2f}"), ("rows ms", "gather", "{:.2f}")]
    harness.table(rows, columns)
    return rows


# ---- threads ----


def pairs():
    """(class, size, function) around the sizes at which a second thread begins to pay."""
    tensor = nncore.randn

    for n in (2, 3, 4, 6, 8, 12, 16, 24, 32, 64):
        x, y = tensor(n * 8192), tensor(n * 8192)
        yield "add", x.numel(), lambda x=x, y=y: elementwise.ewise(runtime.OPS["add"], x, y)
    for n in (2, 3, 4, 6, 8, 12, 16, 24, 48):
        x = tensor(n * 8192)
        yield "exp", x.numel(), lambda x=x: elementwise.ewise(runtime.OPS["exp"], x)
    for n in (1, 2, 4, 8, 12, 16, 32, 64, 128, 256):
        x = tensor(n * 32, 256)
        yield "sum of rows", x.numel(), lambda x=x: reduction.reduce(reduction.SUM, x, 1, 2)
    for n in (1, 2, 3, 4, 6, 8, 12, 16, 32, 48):
        x = tensor(n * 16, 256)
        yield "softmax", x.numel(), lambda x=x: reduction.softmax(x, False)
    for n in (24, 32, 48, 64, 80, 96, 128, 160, 192):
        a, b = tensor(n, n), tensor(n, n)
        yield "GEMM", n, lambda a=a, b=b: dense.matmul(a, b)


def awake(fn, rounds=9, seconds=0.002):
    """Seconds of one call after another, on 1 thread and on 2; medians, taking turns."""
    n = max(3, int(seconds / _warm(fn)))
    times = {1: [], 2: []}
    for _ in range(rounds):
        for threads, t in times.items():
            runtime.set_num_threads(threads)
            fn()
            start = time.perf_counter()
            for _ in range(n):
                fn()
            t.append((time.perf_counter() - start) / n)
    return [statistics.median(t) for t in times.values()]


def asleep(fn, rounds=25):
    """The same of single calls, each so long after the last one that the team has gone to sleep."""
    times = {1: [], 2: []}
    for _ in range(rounds):
        for threads, t in times.items():
            runtime.set_num_threads(threads)
            end = time.perf_counter() + 400e-6
            while time.perf_counter() < end:
                pass
            t.append(_seconds(fn))
    return [statistics.median(t) for t in times.values()]


def _warm(fn):
    runtime.set_num_threads(1)
    fn()
    return min(_seconds(fn) for _ in range(5))


def break_even():
    """Where a second thread begins to pay, and where the library begins to use it."""
    rows = []
    for kind, size, fn in pairs():
        row = {"class": kind, "size": size}
        for state, measure in (("awake", awake), ("asleep", asleep)):
            runtime.set_parallel_threshold(1.0)
            one, two = measure(fn)
            runtime.set_parallel_threshold(-1)
            row |= {f"{state}_us": one * 1e6, f"{state}_gain": one / two, f"{state}_used": _used(fn, state)}
        rows.append(row)
    print("\nsecond thread: gain if forced, and whether the library uses it")
    columns = [("class", "class", "{}"), ("size", "size", "{}")]
    for state in ("awake", "asleep"):
        columns += [(f"{state}: us on 1", f"{state}_us", "{:.1f}"), ("gain", f"{state}_gain", "{:.2f}")]
        columns += [("used", f"{state}_used", "{}")]
    harness.table(rows, columns)
    print("\nsize from which two threads win, and from which they are used")
    found = []
    for kind in dict.fromkeys(r["class"] for r in rows):
        mine = [r for r in rows if r["class"] == kind]
        row = {"class": kind}
        for state in ("awake", "asleep"):
            wins = [i for i, r in enumerate(mine) if all(s[f"{state}_gain"] > 1.03 for s in mine[i:])]
            used = [r for r in mine if r[f"{state}_used"] == "yes"]
            row |= {f"{state}_wins": mine[wins[0]]["size"] if wins else None}
            row |= {f"{state}_from": used[0]["size"] if used else None}
            row |= {f"{state}_at": used[0][f"{state}_us"] if used else None}
        found.append(row)
    columns = [("class", "class", "{}")]
    for state in ("awake", "asleep"):
        columns += [(f"{state}: wins from", f"{state}_wins", "{}"), ("used from", f"{state}_from", "{}")]
        columns += [("us there", f"{state}_at", "{:.1f}")]
    harness.table(found, columns)
    return rows


def _used(fn, state):
    """Whether two threads take part by the tuned threshold, the team awake or asleep."""
    runtime.set_num_threads(2)
    found = False
    for _ in range(5):
        runtime.set_parallel_threshold(0)
        elementwise.ewise(runtime.OPS["neg"], _WAKE)  # both have met: the team is awake
        runtime.set_parallel_threshold(-1)
        if state == "asleep":
            time.sleep(1e-3)
        runtime.threads_used(True)
        for _ in range(20 if state == "awake" else 1):
            fn()
        found |= runtime.threads_used(True) > 1
    return "yes" if found else "-"


_WAKE = nncore.zeros(1 << 16)


def scaling():
    """Two threads on large work."""
    rng = np.random.default_rng(0)
    a, b = nncore.randn(1024, 1024), nncore.randn(1024, 1024)
    conv, images = nn.Conv2d(64, 64, 3, padding=1), nncore.randn(8, 64, 56, 56)
    linear, x = nn.Linear(1024, 1024), nncore.randn(256, 1024)
    big, logits = nncore.randn(1 << 18), nncore.randn(1024, 1000)
    far = nncore.randn(1 << 25)
    dy = nncore.tensor(rng.standard_normal((256, 1024), dtype=np.float32))

    def backward():
        y = linear(x)
        y.backward(dy)

    work = {
        "product 1024^3": lambda: dense.matmul(a, b),
        "linear 256 x 1024 x 1024, both ways": backward,
        "conv 3x3, 64 to 64, 8 x 56 x 56": lambda: conv(images),
        "exp of 1 MiB": lambda: elementwise.ewise(runtime.OPS["exp"], big),
        "softmax 1024 x 1000": lambda: reduction.softmax(logits, False),
        "sum of 1 MiB": lambda: reduction.reduce(reduction.SUM, big, 0, 1),
        "copy of 128 MiB (memory)": lambda: elementwise.ewise(runtime.OPS["neg"], far),
    }
    rows = []
    for name, fn in work.items():
        one, two = awake(fn, 7, 0.03)
        rows.append({"work": name, "ms": one * 1e3, "gain": one / two})
    print("\ntwo threads on large work")
    harness.table(rows, [("work", "work", "{}"), ("ms on 1", "ms", "{:.3f}"), ("x on 2", "gain", "{:.2f}")])
    return rows


IDLE = """
import os, sys, time
lib = sys.argv[1]
import numpy as np
if lib == "nncore":
    import nncore as t
    f, x = t.exp, t.randn(1 << 22)
    t.set_num_threads(2)
elif lib == "torch":
    import torch as t
    t.set_num_threads(2)
    f, x = t.exp, t.randn(1 << 22)
else:
    x = np.ones((1024, 1024), np.float32)
    f = lambda x: x @ x
def cpu():
    total = 0
    for task in set(os.listdir("/proc/self/task")) - {str(os.getpid())}:
        total += int(open(f"/proc/self/task/{task}/schedstat").read().split()[0])
    return total / 1e6
from time import sleep
found = []
for _ in range(5):
    f(x)
    readings = [cpu()]
    for wait in (0.003, 0.1):
        sleep(wait)
        readings.append(cpu())
    found.append((readings[1] - readings[0], readings[2] - readings[1]))
print(sorted(found)[2][0], sorted(f[1] for f in found)[2])
"""


def idle():
    """CPU time of the other threads of the process after its last call of a kernel."""
    rows = []
    for lib in ["nncore", "numpy"] + (["torch"] if harness.torch() else []):
        soon, later = (float(v) for v in python(IDLE, lib).split())
        rows.append({"lib": lib, "soon": soon, "later": later})
    print("\nCPU ms burnt by all threads but the caller's after the last call")
    columns = [
        ("library", "lib", "{}"),
        ("within 3 ms", "soon", "{:.2f}"),
        ("in the 100 ms after that", "later", "{:.2f}"),
    ]
    harness.table(rows, columns)
    return rows


def beside():
    """A step beside other thread pools of the same process, called in turn."""
    harness.set_threads(2)
    step = STEPS["784-1024-1024-10"](nncore)
    a = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    others = {"alone": lambda: None, "after NumPy's product": lambda: a @ a}
    if harness.torch():
        t = harness.torch()
        b = t.from_numpy(a)
        others["after torch's product"] = lambda: b @ b
    rows = []
    times = {name: [] for name in others}
    for _ in range(25):
        for name, other in others.items():
            other()
            times[name].append(_seconds(step))
    for name, t in times.items():
        rows.append({"beside": name, "ms": statistics.median(t) * 1e3})
        rows[-1]["ratio"] = rows[-1]["ms"] / rows[0]["ms"]
    print("\na step of 784-1024-1024-10 on 2 threads, beside other thread pools of the process")
    harness.table(rows, [("step", "beside", "{}"), ("ms", "ms", "{:.2f}"), ("x alone", "ratio", "{:.2f}")])
    return rows


SECTIONS = {fn.__name__: fn for fn in (faults, random_shapes, huge_pages, break_even, scaling, idle, beside)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=", ".join(SECTIONS) + "; all of them if none is named")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.sections) - SECTIONS.keys():
        parser.error(f"sections: expected some of {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    found = {name: SECTIONS[name]() for name in args.sections or SECTIONS}
    if not args.no_save:
        harness.save("system", found)


if __name__ == "__main__":
    main()
