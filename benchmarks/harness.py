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
import tempfile
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
    """Everybody's threads, so that peers have the same; whether NumPy's are among them."""
    nncore.set_num_threads(n)
    if torch():
        torch().set_num_threads(n)
    try:
        import threadpoolctl
    except ImportError:
        return n == os.cpu_count()
    threadpoolctl.threadpool_limits(n, user_api="blas")
    return True


def peaks():
    """FLOP/s of FMAs in float32 and float64 on one thread, and copy bandwidth (read + written) of L2, L3 and memory."""
    return {
        "fma_f32": runtime.probe_fma(0, 0.1),
        "fma_f64": runtime.probe_fma(1, 0.1),
        "copy_l2": runtime.probe_copy(1 << 18),
        "copy_l3": runtime.probe_copy(1 << 22),
        "copy_memory": runtime.probe_copy(1 << 28, 0.2),
    }


class Peer:
    """A library in another environment, asked through a process of benchmarks/peer.py on `threads` CPUs."""

    def __init__(self, library, python, threads):
        cpus = set(sorted(os.sched_getaffinity(0))[:threads])
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self.name = library
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [python, str(Path(__file__).parent / "peer.py"), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | dict.fromkeys(names, str(threads)),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )

    def _ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name}: the worker ended; run benchmarks/peer.py {self.name} to see why")
        return json.loads(answer)

    def prepare(self, op, *inputs, **options):
        """Readies the peer for an operation on arrays, and gives its result; None if it has no such operation."""
        files = [f"{self.folder.name}/{i}.npy" for i in range(len(inputs))]
        for file, array in zip(files, inputs):
            np.save(file, np.ascontiguousarray(array))
        request = {"op": op, "inputs": files, "options": options, "result": f"{self.folder.name}/result.npy"}
        answer = self._ask(request)
        return np.load(answer["result"]) if "result" in answer else None

    def seconds(self, calls):
        """Seconds of `calls` calls of what was prepared last."""
        return self._ask({"calls": calls})["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def _seconds(candidate, calls):
    if isinstance(candidate, Peer):
        return candidate.seconds(calls)
    start = time.perf_counter()
    for _ in range(calls):
        candidate()
    return time.perf_counter() - start


def compare(candidates, rounds=7, seconds=0.02, pause=0.0):
    """Seconds per call of each candidate: {name: function or prepared Peer} -> {name: median}. The candidates take
    turns, so that a slow phase of the machine meets all of them; each turn is long enough for the clock. What takes
    seconds has fewer rounds, at least 3. `pause`: seconds before each turn, in which the last one's threads go to sleep
    (OpenBLAS's spin for 0.1 s after their work, on the core that the next candidate's second thread would have)."""
    repeats, total = {}, 0.0
    for name, candidate in candidates.items():
        _seconds(candidate, 1)
        n = 1
        while (t := _seconds(candidate, n)) < seconds / 4 and n < 1 << 20:
            n *= 2
        repeats[name] = max(1, int(n * seconds / max(t, 1e-9)))
        total += t * repeats[name] / n
    rounds = min(rounds, max(3, int(4 / total)))
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            time.sleep(pause)
            times[name].append(_seconds(candidate, repeats[name]) / repeats[name])
    return {name: statistics.median(t) for name, t in times.items()}


def geomean(values):
    """(v1 v2 ... vn)^(1/n)."""
    return float(np.exp(np.mean(np.log(values))))


def save(kind, rows, extra=None):
    """Writes benchmarks/results/<kind>-<date>-<isa>.json and says so."""
    RESULTS.mkdir(exist_ok=True)
    about = machine()
    path = RESULTS / f"{kind}-{about['date']}-{about['isa']}.json"
    text = json.dumps({"machine": about, **(extra or {}), "rows": rows}, indent=1)
    path.write_text(text + "\n")
    print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}", file=sys.stderr)


def table(rows, columns, markdown=False):
    """Prints rows (dicts) under columns (title, key, format); columns without any value are left out."""
    columns = [c for c in columns if any(r.get(c[1]) not in (None, "") for r in rows)]
    cells = [[title for title, _, _ in columns]]
    for r in rows:
        cells.append([fmt.format(r[key]) if r.get(key) is not None else "-" for _, key, fmt in columns])
    if markdown:
        cells.insert(1, ["---"] * len(columns))
        for row in cells:
            print("| " + " | ".join(row) + " |")
        return
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))))
