"""GEMM: share of the one-thread FMA peak and ratio to NumPy and torch. `make bench`.

GFLOP/s and ratios are through Python on both sides. NT is the form of a linear layer (x W^T); `packed` is the same
with a weight that has not changed since its last use (inference).
"""

import argparse

import numpy as np

import nncore
from benchmarks import harness
from nncore import nn
from nncore._core import dense

SQUARES = [(n, n, n) for n in (32, 64, 128, 256, 512, 1024, 2048)]
SKINNY = [(m, 1024, 1024) for m in (1, 4, 16, 64, 256)]


def operands(form, m, n, k, rng):
    """(a [m,k], b [k,n]) as NumPy views whose memory has the layout of the form."""
    a = (
        rng.standard_normal((k, m), dtype=np.float32).T
        if form[0] == "T"
        else rng.standard_normal((m, k), dtype=np.float32)
    )
    b = (
        rng.standard_normal((n, k), dtype=np.float32).T
        if form[1] == "T"
        else rng.standard_normal((k, n), dtype=np.float32)
    )
    return a, b


def run(form, m, n, k, threads, peak, rng):
    """One row of the table, verified before it is timed."""
    packed = form == "packed"
    a, b = operands("NT" if packed else form, m, n, k, rng)
    ta, tb = nncore.from_numpy(a), nncore.from_numpy(b)
    if packed:
        weight = nn.Parameter(b.T)
        ours = lambda: dense.linear(ta, weight)
        ours()
    else:
        ours = lambda: dense.matmul(ta, tb)
    want = a.astype(np.float64) @ b.astype(np.float64)
    bound = (k + 2) * np.finfo(np.float32).eps * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    wrong = np.abs(ours().numpy() - want) > bound
    if wrong.any():
        raise SystemExit(f"{form} {m}x{n}x{k}: {wrong.sum()} wrong elements")
    candidates = {"nncore": ours, "numpy": lambda: a @ b}
    t = harness.torch()
    if t:
        pa, pb = t.from_numpy(a), t.from_numpy(b)
        candidates["torch"] = lambda: pa @ pb
    with nncore.no_grad():
        seconds = harness.compare(candidates)
    flops = 2.0 * m * n * k
    row = {"form": form, "M": m, "N": n, "K": k, "threads": threads, "gflops": flops / seconds["nncore"] / 1e9}
    row["share"] = 100 * flops / seconds["nncore"] / (peak * threads)
    for peer in ("numpy", "torch"):
        if peer in seconds:
            row[peer] = seconds[peer] / seconds["nncore"]
    row["microseconds"] = seconds["nncore"] * 1e6
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--forms", nargs="*", default=["NN", "NT", "TN", "packed"])
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    peaks = harness.peaks()
    isa, fma = nncore._core.runtime.get_isa(), peaks["fma_f32"] / 1e9
    print(f"{harness.cpu_name()}, {isa}: FMA peak {fma:.1f} GFLOP/s (float32, 1 thread)")
    for threads in args.threads:
        harness.set_threads(threads)
        for form in args.forms:
            for m, n, k in SQUARES + SKINNY:
                peak = nncore._core.runtime.probe_fma(0, 0.02)
                rows.append(run(form, m, n, k, threads, peak, rng))
    columns = [
        ("form", "form", "{}"),
        ("M", "M", "{}"),
        ("N", "N", "{}"),
        ("K", "K", "{}"),
        ("threads", "threads", "{}"),
    ]
    columns += [("us", "microseconds", "{:.1f}"), ("GFLOP/s", "gflops", "{:.1f}"), ("% of peak", "share", "{:.1f}")]
    columns += [("x numpy", "numpy", "{:.2f}"), ("x torch", "torch", "{:.2f}")]
    harness.table(rows, columns)
    if not args.no_save:
        harness.save("gemm", rows, {"peaks": peaks})


if __name__ == "__main__":
    main()
