"""Every kernel against the machine and its peers: `make bench-kernels`.

For each shape and direction: milliseconds of the kernels alone, by a loop in C (runtime.time_kernels); GFLOP/s and GB/s
of the bytes that must move; the share of what the machine allows, which is the longer of flops / FMA peak and bytes /
bandwidth (of a copy, or of an update in place, of as much memory), all measured in this run; and the time of each peer
divided by ours, through Python on both sides and in turns. torch runs in this process (its default format and
channels_last), jax and onnxruntime in their own (--peer-python jax=/path/to/python).

Every result, ours and a peer's, is first held to a float64 computation within the bound of its rounding errors
(tests/tolerance.py); of large results, at random places. Convolutions start from channels-last tensors, as
between layers; weights are packed anew at each call, as in training, except for the form `packed`.

    python -m benchmarks.kernels --only gemm conv --match 3x3 --threads 1 2
"""

import argparse
import sys
from functools import cache

import numpy as np

import nncore
from benchmarks import harness
from benchmarks.cases import KINDS
from nncore._core import elementwise, runtime

# class: (share of what the machine allows in %, ratio to the best peer counted, whether the ratio holds for every row)
GOALS = {
    "GEMM >= 512 cubed": (92, 1.25, False),
    "GEMM 128 cubed": (85, 1.0, False),
    "GEMM 64 cubed": (75, 1.2, False),
    "GEMM 32 cubed": (50, 2.0, False),
    "skinny, M 16-128": (85, 1.3, False),
    "skinny, M 6-15": (75, 1.3, False),
    "skinny, M 1-4": (85, 1.3, False),
    "GEMM, DeepBench": (None, 0.97, True),
    "conv 3x3 forward": (92, 0.97, False),
    "conv 3x3 backward-data": (88, 1.0, False),
    "conv 3x3 backward-weights": (80, 1.0, False),
    "conv 3x3, Winograd": (100, 1.4, False),
    "conv 1x1, C >= 256": (90, 1.2, True),
    "conv 1x1, C 64-255": (80, 1.2, True),
    "conv stride 2": (82, 1.2, True),
    "first layers, K >= 32, forward": (75, 1.0, False),
    "first layers, K >= 32, backward": (75, 2.0, False),
    "first layer of LeNet-5, forward": (45, 1.0, False),
    "first layer of LeNet-5, backward": (45, 2.0, False),
    "depthwise": (85, 1.5, False),
    "pooling": (85, 1.5, False),
    "interpolation": (85, 1.5, False),
    "normalization": (85, 1.5, False),
    "LSTM/GRU, B >= 16, H >= 512, forward": (88, 1.08, False),
    "LSTM/GRU, B >= 16, H >= 512, forward+backward": (85, 1.15, False),
    "LSTM/GRU, B 16, H 128-256, forward": (75, 1.2, False),
    "LSTM/GRU, B 16, H 128-256, forward+backward": (70, 1.5, False),
    "LSTM/GRU, batch 1, H >= 256": (80, 2.0, False),
    "LSTM/GRU, batch 1, H < 256": (None, 2.0, False),
    "softmax, cross-entropy, elementwise": (85, 1.5, False),
    "Adam, AdamW": (85, 3.0, False),
    "other optimizers": (85, 1.0, False),
    "exp, tanh, sigmoid, log, gelu in L1": (None, 1.0, False),
}
TOTALS = {"forward": (87, 1.1), "backward": (80, 1.15)}  # of ResNet-50's layers
TOTALS_DEFAULT = {"forward": (None, 1.25), "backward": (None, 1.25)}  # with the default algorithm
PEERS = ("torch", "torch channels_last", "torch fused", "numpy", "jax", "onnxruntime")


# ---- a run ----


@cache
def bandwidth(stream, log2):
    """Bytes/s, read plus written, of a stream over 2^log2 bytes of memory. A copy also reads what it overwrites, unseen
    here; an update (x = 1 x) does not."""
    if stream == "copy":
        return runtime.probe_copy(1 << log2 - 1, 0.1 if log2 > 24 else 0.03)
    x = nncore.ones(1 << log2 - 2)
    scale = lambda: elementwise.ewise(runtime.OPS["scale"], x, None, None, 1.0, 0.0, x)
    [(_, seconds)] = runtime.time_kernels(scale, 0.02)
    return 2 * 2.0**log2 / seconds


def level(nbytes):
    """The power of two next to a number of bytes, between L1 and memory."""
    return min(29, max(13, round(np.log2(nbytes))))


def measure(case, threads, others, numpy_too, rounds):
    """The row of a case: verified, then timed. None if the default algorithm is the direct one."""
    rng = np.random.default_rng(0)
    if case.algorithm:
        nncore.set_conv_algorithm("direct" if case.algorithm == "direct" else "auto")
    work = case.build(rng)
    if not numpy_too:
        work.peers.pop("numpy", None)
    with nncore.set_grad_enabled("backward" in case.direction):
        y = work.ours()
        try:
            work.check(np.asarray(work.result() if work.result else y))
        except AssertionError as e:
            raise SystemExit(f"{case.name} {case.direction} {case.algorithm}: {e}") from None
        if "backward" not in case.direction:
            work.ours()  # inference: a parameter is packed at its second use, and kept
        peak = runtime.probe_fma(0, 0.004)
        kernels = runtime.time_kernels(work.ours, 0.01)
        peak = max(peak, runtime.probe_fma(0, 0.004)) * threads
        if case.algorithm == "default" and not any(name.startswith("winograd") for name, _ in kernels):
            return None
        candidates = {"nncore": work.ours, **work.peers}
        for name, peer in others.items():
            if work.job:
                op, inputs, options, check = work.job
                theirs = peer.prepare(op, *inputs, **options)
                if theirs is not None:
                    check(theirs)
                    candidates[name] = peer
        seconds = harness.compare(candidates, rounds, seconds=0.015)
    alone = sum(t for _, t in kernels)
    row = {"kind": case.kind, "name": case.name, "direction": case.direction, "algorithm": case.algorithm}
    row |= {"threads": threads, "classes": case.classes, "ms": alone * 1e3, "call_ms": seconds["nncore"] * 1e3}
    row |= {"flops": work.flops, "bytes": work.bytes, "kernels": [[name, t * 1e3] for name, t in kernels]}
    row["gflops"] = work.flops / alone / 1e9 if work.flops else None
    row["gbs"] = work.bytes / alone / 1e9 if work.bytes else None
    limits = {"fma": work.flops / peak}
    if work.bytes and threads == 1:  # bandwidth is measured on one thread
        rate = bandwidth(work.stream, level(work.resident or work.bytes))
        limits[work.stream] = work.bytes / rate + work.before / peak
    limit = max(limits, key=limits.get)
    if limits[limit]:
        row |= {"limit": limit, "limit_ms": limits[limit] * 1e3, "share": 100 * limits[limit] / alone}
    if case.layer:
        row |= {"net": case.layer.net, "count": case.layer.count, "c": case.layer.c}
    row["ratios"] = {name: t / seconds["nncore"] for name, t in seconds.items() if name != "nncore"}
    row["peer_ms"] = {name: t * 1e3 for name, t in seconds.items() if name != "nncore"}
    return row


def best_torch(row):
    """Our speed relative to torch's better format; for the DeepBench products and functions in L1, to the better of
    torch and NumPy."""
    names = ("torch", "torch channels_last") + (("numpy",) if row["kind"] in ("deepbench", "math") else ())
    found = [row["ratios"][n] for n in names if n in row["ratios"]]
    return min(found) if found else None


COLUMNS = [("", "name", "{}"), ("", "direction", "{}"), ("", "algorithm", "{}"), ("ms", "ms", "{:.3f}")]
COLUMNS += [("GFLOP/s", "gflops", "{:.1f}"), ("GB/s", "gbs", "{:.1f}"), ("%", "share", "{:.0f}"), ("of", "limit", "{}")]


def table(rows, markdown=False):
    """Prints rows of results, with a column for each peer that occurs."""
    peers = [p for p in PEERS if any(p in r["ratios"] for r in rows)]
    columns = COLUMNS + [(f"x {p}", p, "{:.2f}") for p in peers]
    harness.table([r | r["ratios"] for r in rows], columns, markdown)


def summary(rows):
    """A line for each class, and for ResNet-50's totals."""
    lines = []
    for name, (share_goal, ratio_goal, every) in GOALS.items():
        mine = [r for r in rows if name in r["classes"]]
        shares = [r["share"] for r in mine if r.get("share")]
        ratios = [x for r in mine if (x := best_torch(r)) is not None]
        if mine:
            line = {"class": name, "rows": len(mine)}
            if shares:
                line |= {"share": harness.geomean(shares), "share_min": min(shares), "share_goal": share_goal}
            if ratios:
                line |= {"ratio": harness.geomean(ratios), "ratio_min": min(ratios), "ratio_goal": ratio_goal}
            line["met"] = verdict(line, every)
            lines.append(line)
    return lines + list(resnet_totals(rows))


def verdict(line, every=False):
    short = []
    if line.get("share_goal") and line["share"] < line["share_goal"]:
        short.append("share")
    if line.get("ratio_goal") and line["ratio"] < line["ratio_goal"]:
        short.append("ratio")
    floor = 0.97 if line["class"] == "GEMM, DeepBench" else 1.0
    if every and line.get("ratio_min", floor) < floor:
        short.append("worst")
    return "short: " + ", ".join(short) if short else "met"


def resnet_totals(rows):
    """ResNet-50's layers weighted by how often the network has them, direct and by the default algorithm; without the
    first one's backward-data, which no training needs."""
    mine = [r for r in rows if r.get("net") == "ResNet-50" and (r["c"] > 3 or r["direction"] != "backward-data")]
    for which, goals in (("direct", TOTALS), ("default", TOTALS_DEFAULT)):
        if which == "default" and not any(r["algorithm"] == "default" for r in mine):
            continue
        for way, (share_goal, ratio_goal) in goals.items():
            chosen = {}
            for r in mine:
                if r["direction"].startswith(way) and (which == "default" or r["algorithm"] != "default"):
                    chosen[r["name"], r["direction"]] = r
            if len(chosen) != (20 if way == "forward" else 39):
                continue
            total = lambda value: sum(r["count"] * value(r) for r in chosen.values())
            line = {"class": f"ResNet-50 {way}, {which}", "rows": len(chosen)}
            line |= {"share": 100 * total(lambda r: r["limit_ms"]) / total(lambda r: r["ms"]), "share_goal": share_goal}
            peers = [p for p in ("torch", "torch channels_last") if all(p in r["peer_ms"] for r in chosen.values())]
            if peers:
                best = min(total(lambda r: r["peer_ms"][p]) for p in peers)
                line |= {"ratio": best / total(lambda r: r["call_ms"]), "ratio_goal": ratio_goal}
            line["met"] = verdict(line)
            yield line


SUMMARY = [
    ("class", "class", "{}"),
    ("rows", "rows", "{}"),
    ("% geomean", "share", "{:.0f}"),
    ("% min", "share_min", "{:.0f}"),
]
SUMMARY += [
    ("% goal", "share_goal", "{}"),
    ("x torch geomean", "ratio", "{:.2f}"),
    ("x torch min", "ratio_min", "{:.2f}"),
]
SUMMARY += [("x torch goal", "ratio_goal", "{}"), ("", "met", "{}")]


def report(rows, markdown=False):
    """Prints the classes against their goals and the ten worst rows by share and by ratio, per number of threads."""
    heading = "### {}" if markdown else "\n{}"
    for threads in sorted({r["threads"] for r in rows}):
        some = [r for r in rows if r["threads"] == threads]
        on = f"{threads} thread{'s' if threads > 1 else ''}"
        print(heading.format(f"Classes and goals, {on}") + "\n")
        harness.table(summary(some), SUMMARY, markdown)
        for text, value in (("share of the limit", lambda r: r.get("share")), ("ratio to torch", best_torch)):
            worst = sorted((r for r in some if value(r) is not None), key=value)[:10]
            print("\n" + heading.format(f"The ten worst by {text}, {on}") + "\n")
            table(worst, markdown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=KINDS, help="some kinds of kernels")
    parser.add_argument("--match", default="", help="only rows whose name or direction contains this")
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--peer-python", nargs="*", default=[], metavar="LIBRARY=PYTHON", help="jax, onnxruntime")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each library; 1: a quick look")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    peaks = harness.peaks()
    fma, *copy = (f"{peaks[key] / 1e9:.0f}" for key in ("fma_f32", "copy_l2", "copy_l3", "copy_memory"))
    print(
        f"{harness.cpu_name()}, {runtime.get_isa()}, float32, 1 thread: FMA peak {fma} GFLOP/s; copy, read + written,"
    )
    print(f"{copy[0]} GB/s in L2, {copy[1]} in L3, {copy[2]} in memory")
    rows = []
    for threads in args.threads:
        numpy_too = harness.set_threads(threads)
        others = {}
        for pair in args.peer_python:
            library, python = pair.split("=", 1)
            others[library] = harness.Peer(library, python, threads)
        for kind in args.only:
            found = []
            for case in KINDS[kind]():
                if args.match not in f"{case.name} {case.direction}":
                    continue
                if sys.stderr.isatty():
                    print(f"\r{case.name} {case.direction}".ljust(79)[:79], end="\r", file=sys.stderr)
                if row := measure(case, threads, others, numpy_too, args.rounds):
                    found.append(row)
            if found:
                print(f"\n{kind}, {threads} thread{'s' if threads > 1 else ''}")
                table(found)
            rows += found
        for peer in others.values():
            peer.close()
    report(rows)
    if not args.no_save:
        partial = args.only != list(KINDS) or args.match
        harness.save("kernels-" + "-".join(args.only) if partial else "kernels", rows, {"peaks": peaks})


if __name__ == "__main__":
    main()
