"""Timing that can be believed: verify, then time, alternating with the peers in one run; medians and ratios.

The machine's FMA peak and copy bandwidth are measured in the same run as whatever is divided by them, and results
go to JSON together with machine, compiler and versions.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

import nncore
from nncore._core import runtime

RESULTS = Path(__file__).parent / "results"


def cpu_name():
    """The CPU's model name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine():
    """What every result file says about where it was made."""
    try:
        compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, IndexError):
        compiler = "unknown"
    return {
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "compiler": compiler,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": getattr(torch(), "__version__", None),
        "nncore": nncore.__version__,
        "isa": runtime.get_isa(),
    }


def torch():
    """The torch module, or None if it is not installed."""
    try:
        import torch as t

        return t
    except ImportError:
        return None


def set_threads(n):
    """Everybody's threads, so that peers have the same."""
    nncore.set_num_threads(n)
    if torch():
        torch().set_num_threads(n)
    try:
        import threadpoolctl

        threadpoolctl.threadpool_limits(n, user_api="blas")
    except ImportError:
        pass


def peaks():
    """FLOP/s of FMAs in float32 and float64 on one thread, and copy bandwidth (read + written) of L2, L3 and memory."""
    return {
        "fma_f32": runtime.probe_fma(0, 0.1),
        "fma_f64": runtime.probe_fma(1, 0.1),
        "copy_l2": runtime.probe_copy(1 << 18),
        "copy_l3": runtime.probe_copy(1 << 22),
        "copy_memory": runtime.probe_copy(1 << 28, 0.2),
    }


def compare(candidates, rounds=7, seconds=0.02):
    """Seconds per call of each candidate: {name: function} -> {name: median}. The candidates take turns, so that a
    slow phase of the machine meets all of them; each turn is long enough for the clock."""
    repeats = {}
    for name, fn in candidates.items():
        fn()
        n, t = 1, 0.0
        while True:
            t = time.perf_counter()
            for _ in range(n):
                fn()
            t = time.perf_counter() - t
            if t > seconds / 4 or n > 1 << 20:
                break
            n *= 2
        repeats[name] = max(1, int(n * seconds / max(t, 1e-9)))
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, fn in candidates.items():
            t = time.perf_counter()
            for _ in range(repeats[name]):
                fn()
            times[name].append((time.perf_counter() - t) / repeats[name])
    return {name: statistics.median(t) for name, t in times.items()}


def save(kind, rows, extra=None):
    """Writes benchmarks/results/<kind>-<date>-<isa>.json and says so."""
    RESULTS.mkdir(exist_ok=True)
    about = machine()
    path = RESULTS / f"{kind}-{about['date']}-{about['isa']}.json"
    text = json.dumps({"machine": about, **(extra or {}), "rows": rows}, indent=1)
    path.write_text(text + "\n")
    print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}", file=sys.stderr)


def table(rows, columns):
    """Prints rows (dicts) under columns (title, key, format)."""
    cells = [[title for title, _, _ in columns]]
    for r in rows:
        cells.append([fmt.format(r[key]) if r.get(key) is not None else "-" for _, key, fmt in columns])
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(c.rjust(w) for c, w in zip(row, widths)))
