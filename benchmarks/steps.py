"""Whole eager training steps (forward, loss, backward, update), beside torch eager with the same threads.
`make bench-steps`. Verified first: the loss of both falls below half of its start.

torch runs images in its default format and in channels_last; the ratio is to the better of the two.
"""

import argparse
from itertools import pairwise

import numpy as np

import nncore
from benchmarks import harness


def mlp(sizes, activation):
    """A fully connected net with one activation between its layers."""

    def net(nn):
        layers = []
        for i, (a, b) in enumerate(pairwise(sizes)):
            layers += [getattr(nn, activation)()] if i else []
            layers.append(nn.Linear(a, b))
        return nn.Sequential(*layers)

    return net


def lenet5(nn):
    """LeCun et al., 1998, on 28 x 28 images, with ReLU and maxima."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def convnet(nn):
    """3 x 3 layers of 32, 32, 64, 64, 128, 128 channels with batch norm and ReLU, halved after every second."""
    layers = []
    for a, b in pairwise((3, 32, 32, 64, 64, 128, 128)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        if a == b:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


def adam(optim, parameters):
    return optim.Adam(parameters)


def momentum(optim, parameters):
    return optim.SGD(parameters, lr=0.01, momentum=0.9)


# name: (net, shape of an input, batch, classes, optimizer)
NETS = {
    "4-64-64-2 tanh, Adam": (mlp((4, 64, 64, 2), "Tanh"), (4,), 64, 2, adam),
    "784-128-10 relu, Adam": (mlp((784, 128, 10), "ReLU"), (784,), 32, 10, adam),
    "784-1024-1024-10 relu, Adam": (mlp((784, 1024, 1024, 10), "ReLU"), (784,), 256, 10, adam),
    "LeNet-5, SGD momentum": (lenet5, (1, 28, 28), 64, 10, momentum),
    "convnet 32-32-64-64-128-128, SGD momentum": (convnet, (3, 32, 32), 64, 10, momentum),
}


def step_of(lib, net, shape, batch, classes, optimizer, channels_last=False):
    """A function that makes one training step and returns the loss tensor."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    y = rng.integers(0, classes, batch)
    lib.manual_seed(0)
    net = net(lib.nn)
    x, y = lib.tensor(x), lib.tensor(y)
    if channels_last:
        net, x = net.to(memory_format=lib.channels_last), x.to(memory_format=lib.channels_last)
    optimizer = optimizer(lib.optim, net.parameters())

    def step():
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def steps_of(net, shape, *rest):
    """{library: step} of a net, for nncore and whatever of torch is there."""
    steps = {"nncore": step_of(nncore, net, shape, *rest)}
    if torch := harness.torch():
        steps["torch"] = step_of(torch, net, shape, *rest)
        if len(shape) == 3:
            steps["torch channels_last"] = step_of(torch, net, shape, *rest, channels_last=True)
    return steps


def table(rows, markdown=False):
    columns = [("net", "net", "{}"), ("batch", "batch", "{}"), ("threads", "threads", "{}")]
    columns += [(f"{lib} us", f"{lib} us", "{:.1f}") for lib in ("nncore", "torch", "torch channels_last")]
    harness.table(rows, [*columns, ("x torch", "ratio", "{:.2f}")], markdown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--match", default="", help="only nets whose name contains this")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rows = []
    for threads in args.threads:
        harness.set_threads(threads)
        for name, net in NETS.items():
            if args.match not in name or ("convnet" in name and not hasattr(nncore.nn, "BatchNorm2d")):
                continue
            steps = steps_of(*net)
            for lib, step in steps.items():
                first, last = step().item(), None
                for _ in range(300):  # a long one is not made longer
                    if (last := step().item()) < first / 2:
                        break
                else:
                    raise SystemExit(f"{lib} does not learn {name}: loss {first:.3f} -> {last:.3f}")
            seconds = harness.compare(steps, seconds=0.1)
            row = {"net": name, "batch": net[2], "threads": threads}
            row |= {f"{lib} us": t * 1e6 for lib, t in seconds.items()}
            if len(seconds) > 1:
                row["ratio"] = min(t for lib, t in seconds.items() if lib != "nncore") / seconds["nncore"]
            rows.append(row)
    table(rows)
    if not args.no_save:
        harness.save("steps", rows)


if __name__ == "__main__":
    main()
