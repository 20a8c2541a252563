"""Training steps while another process spins on one of the CPUs, beside torch eager: `python -m benchmarks.busy`.

A step on n threads must not wait for a thread that the system has descheduled. Each library runs in a process of its
own; 1 and n threads take turns in short slices, so that both meet the same machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

import nncore
from benchmarks import harness
from benchmarks.steps import Work, adam, candidate, lenet5, mlp, state_of

SLICE = 0.25  # seconds of one number of threads before the next has its turn

NETS = (
    Work("12-24-3", mlp((12, 24, 3), "Tanh"), (32, 12), 3, adam),
    Work("LeNet-5", lenet5, (32, 1, 28, 28), 10, adam),
    Work("784-1024-1024-10", mlp((784, 1024, 1024, 10), "ReLU"), (256, 784), 10, adam),
)
STEPS = {work.name: lambda lib, work=work: candidate(lib, work, state_of(work)) for work in NETS}


def measure(name, step, threads, seconds):
    """Seconds of every step, per number of threads."""
    lib = harness.torch() if name == "torch" else nncore
    times = {n: [] for n in threads}
    for _ in range(max(1, round(seconds / SLICE))):
        for n in threads:
            lib.set_num_threads(n)
            step()  # the change of threads is not a step's doing
            end = time.perf_counter() + SLICE
            while (start := time.perf_counter()) < end:
                step()
                times[n].append(time.perf_counter() - start)
    return times


def worker(name, seconds, threads):
    """Prints the figures of one library as JSON."""
    rows = []
    for net, build in STEPS.items():
        step = build(harness.torch() if name == "torch" else nncore)
        for _ in range(20):
            step()
        for n, t in measure(name, step, threads, seconds).items():
            us = 1e6 * np.array(t)
            rows.append({"lib": name, "net": net, "threads": n, "steps": len(us), "mean": us.mean()})
            rows[-1] |= {f"p{q}": np.percentile(us, q) for q in (50, 99)}
    print(json.dumps(rows))


def spinner(cpu):
    """A process that never sleeps, on one CPU."""
    code = f"import os; os.sched_setaffinity(0, [{cpu}]); print(flush=True)\nwhile True: pass"
    p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    p.stdout.readline()
    return p


def run(libs, seconds, threads):
    """Rows of all libraries, on an idle and on a busy machine."""
    rows = []
    for busy in (False, True):
        other = spinner(max(os.sched_getaffinity(0))) if busy else None
        try:
            for lib in libs:
                call = [
                    sys.executable,
                    "-m",
                    "benchmarks.busy",
                    "--worker",
                    lib,
                    "--seconds",
                    str(seconds),
                    "--threads",
                ]
                out = subprocess.run([*call, *map(str, threads)], capture_output=True, text=True, check=True).stdout
                found = json.loads(out)
                alone = {r["net"]: r for r in found if r["threads"] == 1}
                for r in found:
                    r |= {"busy": busy, "ratio": r["mean"] / alone[r["net"]]["mean"]}
                    r["ratio99"] = r["p99"] / alone[r["net"]]["p99"]
                rows += found
        finally:
            if other:
                other.kill()
                other.wait()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="per net and number of threads")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--worker", choices=["nncore", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.seconds, args.threads)
        return
    rows = run(["nncore"] + (["torch"] if harness.torch() else []), args.seconds, args.threads)
    print("microseconds a step; ratios are to 1 thread of the same library on the same machine")
    for r in rows:
        r["machine"] = "busy" if r["busy"] else "idle"
    columns = [
        ("machine", "machine", "{}"),
        ("net", "net", "{}"),
        ("library", "lib", "{}"),
        ("threads", "threads", "{}"),
    ]
    columns += [("steps", "steps", "{}"), ("mean", "mean", "{:.0f}"), ("median", "p50", "{:.0f}")]
    columns += [
        ("99 %", "p99", "{:.0f}"),
        ("mean / 1 thread", "ratio", "{:.2f}"),
        ("99 % / 1 thread", "ratio99", "{:.2f}"),
    ]
    harness.table(rows, columns)
    if not args.no_save:
        harness.save("busy", rows)


if __name__ == "__main__":
    main()
