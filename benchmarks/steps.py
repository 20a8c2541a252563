"""Whole eager training steps (forward, loss, backward, Adam), beside torch eager with the same threads.
`make bench-steps`. Verified first: the loss of both falls below half of its start."""

import argparse
from itertools import pairwise

import numpy as np

import nncore
from benchmarks import harness

NETS = [
    ("4-64-64-2 tanh", (4, 64, 64, 2), 64, "Tanh"),
    ("784-128-10 relu", (784, 128, 10), 32, "ReLU"),
    ("784-1024-1024-10 relu", (784, 1024, 1024, 10), 256, "ReLU"),
]


def step_of(lib, sizes, batch, activation):
    """A function that makes one training step and returns the loss tensor."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], batch)
    layers = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [getattr(lib.nn, activation)()] if i else []
        layers.append(lib.nn.Linear(a, b))
    net = lib.nn.Sequential(*layers)
    optimizer = lib.optim.Adam(net.parameters())
    x, y = lib.tensor(x), lib.tensor(y)

    def step():
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    libs = {"nncore": nncore} | ({"torch": harness.torch()} if harness.torch() else {})
    rows = []
    for threads in args.threads:
        harness.set_threads(threads)
        for name, sizes, batch, activation in NETS:
            steps = {lib: step_of(module, sizes, batch, activation) for lib, module in libs.items()}
            for lib, step in steps.items():
                first = step().item()
                last = [step().item() for _ in range(300)][-1]
                if not last < first / 2:
                    raise SystemExit(f"{lib} does not learn {name}: loss {first:.3f} -> {last:.3f}")
            seconds = harness.compare(steps, seconds=0.1)
            row = {"net": name, "batch": batch, "threads": threads, "us": seconds["nncore"] * 1e6}
            if "torch" in seconds:
                row |= {"torch_us": seconds["torch"] * 1e6, "ratio": seconds["torch"] / seconds["nncore"]}
            rows.append(row)
    columns = [("net", "net", "{}"), ("batch", "batch", "{}"), ("threads", "threads", "{}"), ("us", "us", "{:.1f}")]
    harness.table(rows, [*columns, ("torch us", "torch_us", "{:.1f}"), ("x torch", "ratio", "{:.2f}")])
    if not args.no_save:
        harness.save("steps", rows)


if __name__ == "__main__":
    main()
