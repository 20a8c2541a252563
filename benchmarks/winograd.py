"""3x3 convolutions by the direct sum and by Winograd's F(2x2) and F(4x4), beside torch's better memory format.

    python -m benchmarks.winograd

Per layer, for y, dx and dw on one thread: milliseconds of the direct algorithm, its share of the FMA peak, and how many
times faster F(2x2) and F(4x4) are than it and than torch. Weights are packed once for y, at every call for dx.
"""

import argparse

import numpy as np

import nncore
from benchmarks import harness
from nncore import nn
from nncore._core import conv, elementwise, runtime

# N, C, K, image: ResNet-50's, VGG's, a small net for 32x32 images
LAYERS = [(8, 64, 64, 56), (8, 128, 128, 28), (8, 256, 256, 14), (8, 512, 512, 7)]
LAYERS += [(2, 64, 64, 112), (2, 128, 128, 56), (4, 256, 256, 28), (4, 512, 512, 14)]
LAYERS += [(64, 32, 32, 32), (64, 64, 64, 32), (64, 128, 128, 32)]
ALGORITHMS = ("direct", "winograd2", "winograd4")


def peers(t, x, w, dy, bias):
    """{(result, format): function} of torch."""
    found = {}
    for name, layout in (("contiguous", t.contiguous_format), ("channels last", t.channels_last)):
        px, pw, pdy = (t.from_numpy(a.copy()).contiguous(memory_format=layout) for a in (x, w, dy))
        pb, one = t.from_numpy(bias), [1, 1]
        backward = lambda mask, px=px, pw=pw, pdy=pdy: t.ops.aten.convolution_backward(
            pdy, px, pw, None, one, one, one, False, [0, 0], 1, mask
        )
        found["y", name] = lambda px=px, pw=pw: t.conv2d(px, pw, pb, padding=1)
        found["dx", name] = lambda backward=backward: backward([True, False, False])
        found["dw", name] = lambda backward=backward: backward([False, True, False])
    return found


def run(n, c, k, size, dtype, peak, rng):
    """One row for each of y, dx, dw."""
    shapes = (n, c, size, size), (k, c, 3, 3), (n, k, size, size), (k,)
    arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
    x, dy = (elementwise.channels_last(nncore.tensor(arrays[i])) for i in (0, 2))
    w, bias = nn.Parameter(arrays[1]), nncore.tensor(arrays[3])
    g = conv.Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1)
    calls = {
        "y": lambda: conv.forward(x, w, bias, g, (size, size)),
        "dx": lambda: conv.input_gradient(dy, w, g, tuple(x.shape)),
        "dw": lambda: conv.weight_gradient(x, dy, g, tuple(w.shape)),
    }
    t = harness.torch()
    theirs = peers(t, *arrays) if t else {}
    rows = []
    for result, call in calls.items():

        def with_algorithm(name, call=call):
            nncore.set_conv_algorithm(name)
            return call()

        candidates = {name: lambda name=name: with_algorithm(name) for name in ALGORITHMS}
        candidates |= {key: fn for key, fn in theirs.items() if key[0] == result}
        with nncore.no_grad():
            seconds = harness.compare(candidates, rounds=5)
        flops = 18.0 * n * c * k * size * size
        row = {"layer": f"{n} x {c} -> {k}, {size}x{size}", "result": result, "ms": seconds["direct"] * 1e3}
        best = min((s for key, s in seconds.items() if key not in ALGORITHMS), default=None)
        for name in ALGORITHMS:
            row[name + " share"] = 100 * flops / seconds[name] / peak
            row[name] = seconds["direct"] / seconds[name]
            row[name + " torch"] = best and best / seconds[name]
        rows.append(row)
    nncore.set_conv_algorithm("auto")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument(
        "--layers", nargs="*", type=int, default=range(len(LAYERS)), help="numbers of layers: 0, 1, ..."
    )
    parser.add_argument("--isa", default=runtime.get_isa())
    args = parser.parse_args()
    runtime.set_isa(args.isa)
    harness.set_threads(1)
    dtype = np.dtype(args.dtype)
    peak = runtime.probe_fma(0 if dtype == np.float32 else 1, 0.1)
    print(f"{harness.cpu_name()}, {args.isa}, {dtype}: FMA peak {peak / 1e9:.1f} GFLOP/s (1 thread)")
    rows = []
    for i in args.layers:
        rows += run(*LAYERS[i], dtype, peak, np.random.default_rng(0))
    columns = [("layer", "layer", "{}"), ("", "result", "{}"), ("direct ms", "ms", "{:.2f}")]
    for name, title in zip(ALGORITHMS, ("direct", "F(2x2)", "F(4x4)")):
        columns.append((f"{title} % of peak", name + " share", "{:.0f}"))
        columns += [("x direct", name, "{:.2f}")] * (name != "direct")
        columns.append(("x torch", name + " torch", "{:.2f}"))
    harness.table(rows, columns)


if __name__ == "__main__":
    main()
