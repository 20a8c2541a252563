"""Where the time goes: `nncore.profile`, and the tables that it and `plan.summary` print."""

import os
import threading
from typing import NamedTuple

from nncore._core import runtime
from nncore._core.describe import describe
from nncore._core.record import where
from nncore._core.tensor import DTYPES
from nncore._ops._check import integer, one_of

SORTS = ("time", "mean", "calls", "flop", "bytes", "peak", "name")
_COPIES = (1 << 18, 1 << 22, 1 << 26)  # bytes copied to measure L2, L3 and memory
_peaks = {}


class Event(NamedTuple):
    """A kernel that ran."""

    name: str
    shape: str
    flop: int
    bytes: int
    dtype: str
    start: int  # ns
    end: int
    threads: int
    thread: int  # of Python
    where: tuple


def peaks():
    """(FLOP/s of each floating dtype, bytes/s of copies in L2, L3 and memory) of one thread, measured once for each
    instruction set."""
    isa = runtime.get_isa()
    if isa not in _peaks:
        _peaks[isa] = [runtime.probe_fma(d, 0.02) for d in (0, 1)], [runtime.probe_copy(n, 0.02) for n in _COPIES]
    return _peaks[isa]


def least_seconds(flop, moved, dtype, threads):
    """What so much work would take at the machine's peak."""
    fma, copies = peaks()
    level = next((c for n, c in zip(_COPIES, copies) if moved <= 2 * n), copies[-1])
    return max(flop / fma[dtype == "float64"], moved / level) / threads


def units(n):
    """A number with a metric prefix: 1.5 k, 20 M."""
    thousands = 0
    while n >= 999.5:
        n, thousands = n / 1000, thousands + 1
    return (f"{n:.0f}" if n >= 100 or n == int(n) else f"{n:.3g}") + ("", " k", " M", " G", " T", " P")[thousands]


def align(rows, left=()):
    """Rows of cells as lines: the columns named by number in `left` begin at one place, the others end there."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return lines


class profile:
    """Context manager that times every kernel: of eager code and of replays, on all Python threads.

    Results do not change. A kernel's time is its own, without Python. FLOP and bytes are those of its formula and
    of its arrays, each once; the share of peak is the time that they would take on as many threads as the work
    deserves, at the FMA rate and the copy bandwidth (of L2, L3 or memory, by size) that this machine has in one thread,
    over the time taken. The first table measures these, for about 0.1 s.

    Raises:
        RuntimeError: on entering, if another profile is being taken.

    >>> import nncore
    >>> x = nncore.ones(8, 4)
    >>> with nncore.profile() as prof:
    ...     y = (x @ x.T).relu()
    >>> [(e.name, e.shape, e.flop, e.bytes) for e in prof.events]
    [('gemm', '8x4 @ 4x8', 512, 512), ('ewise relu', '8x8', 64, 512)]
    >>> print(prof.table(sort_by="name"))  # doctest: +ELLIPSIS
    kernel ... shape ...
    """

    def __init__(self):
        self._events, self._replays, self._start, self._end = [], [], 0, 0

    def __enter__(self):
        if (former := runtime.set_witness(self)) is not None:
            runtime.set_witness(former)
            raise RuntimeError("profile: another one is being taken")
        self._start = runtime.clock()
        return self

    def __exit__(self, *exc):
        self._end = runtime.clock()
        runtime.set_witness(None)
        return False

    def ran(self, kernel, dtype, address, start, end, threads):
        """Told by the runtime after each kernel."""
        about = describe(kernel, dtype, address)
        self._events.append(Event(*about, DTYPES[dtype].name, start, end, threads, threading.get_ident(), where()))

    def replayed(self, plan, times):
        """Told by a plan after each replay: when each kernel began, and the last one ended."""
        self._replays.append((plan, times, threading.get_ident()))

    @property
    def events(self):
        """The kernels that ran, by start: tuples (name, shape, flop, bytes, dtype, start, end, threads, thread, where).
        Times are ns of one clock; thread is Python's; where is (file, line)."""
        found = list(self._events)
        for plan, times, thread in list(self._replays):
            for i, (name, shape, flop, moved, dtype, _, threads, line) in enumerate(plan.describe()):
                found.append(Event(name, shape, flop, moved, dtype, times[i], times[i + 1], threads, thread, line))
        return sorted(found, key=lambda e: e.start)

    def table(self, sort_by="time", row_limit=None, group_by_shape=True):
        """The kernels in a table: how often, how long, how fast.

        Args:
            sort_by: 'time' (of all calls), 'mean' (of one), 'calls', 'flop', 'bytes' (per second), 'peak' (share of it)
                or 'name'; largest first, but for names.
            row_limit: rows at most.
            group_by_shape: one row for each shape of a kernel, or one for the kernel.

        Returns:
            str.
        """
        one_of(sort_by, "sort_by", SORTS)
        groups = {}
        events = self.events
        for e in events:
            groups.setdefault((e.name, e.shape if group_by_shape else "", e.dtype), []).append(e)
        rows = []
        for (name, shape, dtype), found in groups.items():
            ns = sum(e.end - e.start for e in found) or 1
            row = {
                "name": name,
                "shape": shape,
                "dtype": dtype,
                "calls": len(found),
                "time": ns,
                "mean": ns / len(found),
            }
            row |= {"flop": sum(e.flop for e in found) / ns, "bytes": sum(e.bytes for e in found) / ns}
            least = sum(least_seconds(e.flop, e.bytes, dtype, e.threads) for e in found)
            rows.append(row | {"peak": least * 1e9 / ns, "threads": max(e.threads for e in found)})
        rows.sort(key=lambda r: r[sort_by], reverse=sort_by != "name")
        total = sum(r["time"] for r in rows) or 1
        cells = [
            ["kernel", "shape", "dtype", "calls", "us", "us each", "% time", "GFLOP/s", "GB/s", "% peak", "threads"]
        ]
        for r in rows if row_limit is None else rows[: integer(row_limit, "row_limit", 0)]:
            times = [f"{r['time'] / 1e3:.1f}", f"{r['mean'] / 1e3:.2f}", f"{100 * r['time'] / total:.1f}"]
            speed = [f"{r['flop']:.1f}", f"{r['bytes']:.1f}", f"{100 * r['peak']:.0f}", str(r["threads"])]
            cells.append([r["name"], r["shape"], r["dtype"], str(r["calls"]), *times, *speed])
        inside = sum(e.end - e.start for e in events) / 1e3
        lines = align(cells, left=(0, 1, 2))
        lines.append(f"{len(events)} kernels: {inside:.1f} us of {(self._end - self._start) / 1e3:.1f} us")
        return "\n".join(lines)

    def export_chrome_trace(self, path):
        """Writes the kernels as a file of trace events (JSON), for https://ui.perfetto.dev or chrome://tracing. After
        an error the file is as it was.

        Args:
            path: where to.

        Raises:
            ValueError: no file can be written there.
        """
        import json  # as late as this file: most never write one

        from nncore._model_file import write_atomically

        process, threads, found = os.getpid(), {}, []

        def slice_of(name, category, start, end, thread, **args):
            number = threads.setdefault(thread, len(threads) + 1)
            at = {"ts": (start - self._start) / 1e3, "dur": (end - start) / 1e3, "pid": process, "tid": number}
            found.append({"name": name, "cat": category, "ph": "X", **at, "args": args})

        for plan, times, thread in self._replays:
            slice_of("replay", "plan", times[0], times[-1], thread, kernels=len(plan))
        for e in self.events:
            about = {"shape": e.shape, "dtype": e.dtype, "FLOP": e.flop, "bytes": e.bytes, "threads": e.threads}
            slice_of(e.name, "kernel", e.start, e.end, e.thread, **about, where=f"{e.where[0]}:{e.where[1]}")
        names = [("process_name", 0, "nncore"), *[("thread_name", n, f"Python thread {n}") for n in threads.values()]]
        for name, number, value in names:
            found.append({"name": name, "ph": "M", "pid": process, "tid": number, "args": {"name": value}})
        text = json.dumps({"traceEvents": found, "displayTimeUnit": "ns"})
        write_atomically(path, text.encode())


__all__ = ["profile"]
