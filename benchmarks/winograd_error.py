"""Errors of the convolution algorithms beside each other, on standard normal data, against a sum in higher precision.

    python -m benchmarks.winograd_error

For y, dx and dw of 3x3 layers: the root mean square and the largest error, in units of the dtype's epsilon times the
root mean square of the result. The highest instruction set, unless NNCORE_ISA lowers it.
"""

import argparse

import numpy as np

import nncore
from benchmarks import harness
from nncore._core import conv

LAYERS = [(2, 16, 16, 32), (2, 64, 64, 28), (2, 256, 256, 14), (8, 512, 64, 7)]  # N, C, K, image
ALGORITHMS = ("direct", "winograd2", "winograd4")


def exact(x, w, dy):
    """y, dx and dw of a 3x3 convolution with padding 1, in the operands' (wider) precision."""
    n, _, h, _ = x.shape
    points = lambda t: t.transpose(1, 0, 2, 3).reshape(t.shape[1], -1)
    wide = [np.pad(t, [(0, 0), (0, 0), (1, 1), (1, 1)]) for t in (x, dy)]
    y, dx, dw = 0, 0, np.empty_like(w)
    for r, s in np.ndindex(3, 3):
        seen, back = wide[0][:, :, r : r + h, s : s + h], wide[1][:, :, 2 - r : 2 - r + h, 2 - s : 2 - s + h]
        y = y + w[:, :, r, s] @ points(seen)
        dx = dx + w[:, :, r, s].T @ points(back)
        dw[:, :, r, s] = points(dy) @ points(seen).T
    return (*(t.reshape(-1, n, h, h).transpose(1, 0, 2, 3) for t in (y, dx)), dw)


def run(n, c, k, size, dtype, rng):
    """One row for each of y, dx, dw."""
    shapes = (n, c, size, size), (k, c, 3, 3), (n, k, size, size)
    x, w, dy = (rng.standard_normal(s).astype(dtype) for s in shapes)
    # float64 is judged by long double, whose products have no BLAS
    wide = exact(*(t.astype(np.float64 if dtype == np.float32 else np.longdouble) for t in (x, w, dy)))
    g = conv.Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1)
    x, w, dy = (nncore.tensor(t) for t in (x, w, dy))
    rows = [{"layer": f"{c} -> {k}, {size}x{size}", "dtype": dtype, "result": name} for name in ("y", "dx", "dw")]
    for name in ALGORITHMS:
        nncore.set_conv_algorithm(name)
        found = (
            conv.forward(x, w, None, g, (size, size)),
            conv.input_gradient(dy, w, g, tuple(x.shape)),
            conv.weight_gradient(x, dy, g, tuple(w.shape)),
        )
        for row, got, want in zip(rows, found, wide):
            unit = np.finfo(dtype).eps * np.sqrt((want**2).mean())
            error = np.abs(got.numpy() - want) / unit
            row[name], row[name + " max"] = float(np.sqrt((error**2).mean())), float(error.max())
    nncore.set_conv_algorithm("auto")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for dtype in args.dtypes:
        for n, c, k, size in LAYERS if dtype == "float32" else LAYERS[:2]:
            rows += run(n, c, k, size, np.dtype(dtype), rng)
    columns = [("layer", "layer", "{}"), ("dtype", "dtype", "{}"), ("result", "result", "{}")]
    columns += [(name, name, "{:.2f}") for name in ALGORITHMS]
    columns += [(name + " max", name + " max", "{:.1f}") for name in ALGORITHMS]
    harness.table(rows, columns)


if __name__ == "__main__":
    main()
