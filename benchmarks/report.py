"""Writes the tables of the newest results into docs/performance.md, between its markers. `make bench-report`."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks import harness, kernels, steps
from benchmarks.cases import KINDS

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def newest(kind):
    """(where and with what, peaks, rows) of the newest results of a kind, and their file."""
    files = harness.RESULTS.glob(f"{kind}-????-??-??-*.json")
    file = max(files, key=lambda f: json.loads(f.read_text())["machine"]["date"])
    return json.loads(file.read_text()), file


def about(results, file):
    m = results["machine"]
    print(f"{m['date']}, {m['cpu']} ({m['cores']} cores), {m['isa']}, {m['compiler']}; Python {m['python']}, ", end="")
    print(f"NumPy {m['numpy']}, torch {m['torch']}. All figures: `benchmarks/results/{file.name}`.\n")


def summary():
    results, file = newest("kernels")
    about(results, file)
    peaks = {name: f"{value / 1e9:.0f}" for name, value in results["peaks"].items()}
    print(
        f"FMA peak of one thread {peaks['fma_f32']} GFLOP/s (float64 {peaks['fma_f64']}); copy, read + written, ",
        end="",
    )
    print(f"{peaks['copy_l2']} GB/s in L2, {peaks['copy_l3']} in L3, {peaks['copy_memory']} in memory.\n")
    kernels.report(results["rows"], markdown=True)


def every_row():
    results, _ = newest("kernels")
    for threads in sorted({r["threads"] for r in results["rows"]}):
        for kind in KINDS:
            if rows := [r for r in results["rows"] if (r["kind"], r["threads"]) == (kind, threads)]:
                print(f"### {kind}, {threads} thread{'s' if threads > 1 else ''}\n")
                kernels.table(rows, markdown=True)
                print()


def whole_steps():
    results, file = newest("steps")
    about(results, file)
    steps.table(results["rows"], markdown=True)


def main():
    text = PAGE.read_text()
    for part in (summary, every_row, whole_steps):
        out = io.StringIO()
        with redirect_stdout(out):
            part()
        marked = rf"(<!-- {part.__name__} -->\n).*?(\n<!-- end -->)"
        text, found = re.subn(marked, lambda m: m[1] + out.getvalue().strip() + m[2], text, flags=re.S)
        if found != 1:
            raise SystemExit(f"{PAGE.name}: expected one place marked {part.__name__}, found {found}")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
