"""Thin and deep beside fat and shallow, with equal numbers of parameters.

A network with one wide layer can approximate any continuous function (Cybenko, 1989), but some functions need far fewer
units in several layers: each layer folds the plane anew, so that the pieces multiply (Montufar et al., 2014; Telgarsky,
2016). Two spirals, wound around each other, are such a case (Lang, Witbrock, 1988). Beyond some depth the gain ends, as
layers get too thin and harder to train. On the handwritten digits depth brings little.

Printed: for each depth, units per layer, parameters, and the accuracy on held-out points of the spirals, and on
held-out digits for larger networks: means over several initial weights. Drawn: what the
networks take the plane to be.

    python examples/deep_or_wide.py

Expected (python examples/deep_or_wide.py):
    depth 1: spirals  60 units,   302 parameters,  91.0 %; digits 267 units, 20035 parameters,  99.4 %
    depth 2: spirals  15 units,   317 parameters,  98.0 %; digits 108 units, 19882 parameters,  98.9 %
    depth 4: spirals   9 units,   317 parameters,  99.0 %; digits  70 units, 20170 parameters,  98.8 %
    depth 8: spirals   6 units,   326 parameters,  88.9 %; digits  48 units, 20074 parameters,  97.9 %
"""

import math

import numpy as np
from _common import arguments, draw

import nncore
from nncore import nn, optim
from nncore.data import batches, load_digits, stratified_split

DEPTHS = (1, 2, 4, 8)


def parameters(inputs, width, depth, outputs):
    return (inputs + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * outputs


def width_for(budget, inputs, depth, outputs):
    """The units per layer with which the parameters come closest to a number."""
    return min(range(1, 2000), key=lambda w: abs(parameters(inputs, w, depth, outputs) - budget))


def network(inputs, width, depth, outputs):
    layers = []
    for i in range(depth):
        linear = nn.Linear(width if i else inputs, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def spirals(rng, n):
    """Points [n, 2] on two spirals of two turns, with noise, and which spiral: 0 or 1."""
    t = np.sqrt(rng.random(n)) * 4 * math.pi
    which = np.arange(n) % 2
    angle = t + math.pi * which
    x = np.stack([t * np.cos(angle), t * np.sin(angle)], 1) / (4 * math.pi) + 0.015 * rng.standard_normal((n, 2))
    return x.astype(np.float32), which


def train(net, x, y, epochs):
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

    @nncore.compile
    def step(x, y):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    for _ in range(epochs):
        for batch in batches(x, y, batch_size=64, shuffle=True):
            step(*batch)
        schedule.step()


def accuracy(net, x, y):
    with nncore.no_grad():
        return (net(x).argmax(1).numpy() == y).mean()


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    spiral, spiral_test = spirals(rng, 1000), spirals(rng, 2000)
    x, y = load_digits()
    rows, test_rows = stratified_split(y)
    digits, digits_test = (x[rows] / 16, y[rows]), (x[test_rows] / 16, y[test_rows])
    repeats, epochs = (1, (1, 1)) if args.quick else (5, (300, 30))
    result, nets = {}, {}
    for depth in DEPTHS:
        line = f"depth {depth}:"
        for name, (a, b), held, budget, e in (
            ("spirals", spiral, spiral_test, 300, epochs[0]),
            ("digits", digits, digits_test, 20000, epochs[1]),
        ):
            sizes = a.shape[1], width_for(budget, a.shape[1], depth, b.max() + 1), depth, b.max() + 1
            found = []
            for _ in range(repeats):
                net = network(*map(int, sizes))
                train(net, a, b, e)
                found.append(accuracy(net, *held))
                if name == "spirals":
                    nets[depth] = net
            result[name, depth] = np.mean(found)
            line += f" {name} {sizes[1]:3d} units, {parameters(*sizes):5d} parameters, {100 * np.mean(found):5.1f} %;"
        print(line.rstrip(";"))

    def plot(figure):
        side = np.linspace(-1.1, 1.1, 100, dtype=np.float32)
        plane = np.stack(np.meshgrid(side, side), -1)
        for axes, (depth, net) in zip(figure.subplots(1, len(nets)), nets.items()):
            with nncore.no_grad():
                p = net(plane.reshape(-1, 2)).softmax(-1).numpy()[:, 1].reshape(100, 100)
            axes.imshow(p, extent=(-1.1, 1.1, -1.1, 1.1), origin="lower", cmap="coolwarm", vmin=0, vmax=1)
            axes.scatter(*spiral[0][:400].T, s=0.5, c=spiral[1][:400], cmap="gray")
            axes.set(title=f"depth {depth}", xticks=[], yticks=[])

    draw(args, plot, (8, 2.3))
    return result


if __name__ == "__main__":
    main()
