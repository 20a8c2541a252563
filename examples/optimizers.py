"""Optimizers on one loss surface: Rosenbrock's valley.

f(x, y) = (1 - x)^2 + 10 (y - x^2)^2 has its minimum, 0, at (1, 1), at the end of a narrow curved valley with a flat
floor: it bends up to hundreds of times more across than along. Plain gradient descent must take steps small enough for
the walls, and creeps; momentum gathers speed along the floor (Polyak, 1964; Nesterov, 1983); the adaptive methods scale
each coordinate by its own gradients; L-BFGS learns the curvature (Liu, Nocedal, 1989).

Each starts at (-1.5, -0.5), with that of the learning rates 1, 1/2, 1/5, 1/10, ... that ends lowest and never rises
above the start: a leap out of the valley may land anywhere. Printed: the rate, the value after all steps, and the first
step with f < 1e-4, if any. Drawn: the paths, and the values by step.

    python examples/optimizers.py

Expected (python examples/optimizers.py):
    SGD     : lr   0.01, f 1.9e-03
    momentum: lr  0.005, f 3.7e-12 | below 1e-04 after  176 steps
    Nesterov: lr   0.01, f 5.2e-24 | below 1e-04 after   66 steps
    Adagrad : lr      1, f 2.0e-03
    RMSprop : lr   0.05, f 6.3e-04
    Rprop   : lr   0.05, f 4.0e-10 | below 1e-04 after  203 steps
    Adam    : lr      1, f 7.3e-22 | below 1e-04 after  124 steps
    L-BFGS  : lr      1, f 3.4e-13 | below 1e-04 after   16 steps
"""

import math

import numpy as np
from _common import arguments, draw

import nncore
from nncore import optim

METHODS = {
    "SGD": lambda p, lr: optim.SGD(p, lr=lr),
    "momentum": lambda p, lr: optim.SGD(p, lr=lr, momentum=0.9),
    "Nesterov": lambda p, lr: optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "Adagrad": lambda p, lr: optim.Adagrad(p, lr=lr),
    "RMSprop": lambda p, lr: optim.RMSprop(p, lr=lr),
    "Rprop": lambda p, lr: optim.Rprop(p, lr=lr),
    "Adam": lambda p, lr: optim.Adam(p, lr=lr),
    "L-BFGS": lambda p, lr: optim.LBFGS(p, lr=lr, max_iter=1, max_eval=25, line_search_fn="strong_wolfe"),
}
RATES = [m * 10.0**e for e in (0, -1, -2, -3, -4) for m in (1, 0.5, 0.2)]
START, GOAL = (-1.5, -0.5), 1e-4


def f(p):
    x, y = p[0], p[1]
    return (1 - x) ** 2 + 10 * (y - x**2) ** 2


def descend(make, lr, steps):
    """The path, [steps + 1, 2], and f along it (inf if it ever rose above the start)."""
    p = nncore.tensor(START, dtype="float64", requires_grad=True)
    optimizer = make([p], lr)

    def loss():
        optimizer.zero_grad()
        value = f(p)
        value.backward()
        return value

    def step():
        optimizer.step(loss)

    if not isinstance(optimizer, optim.LBFGS):  # whose line search decides in Python
        step = nncore.compile(step)
    path = [START]
    for _ in range(steps):
        step()
        path.append(p.tolist())
        if not f(path[-1]) <= f(START):
            return np.array(path), np.full(steps + 1, math.inf)
    path = np.array(path)
    return path, f(path.T)


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    steps, rates = (20, RATES[9:12]) if args.quick else (500, RATES)
    result, runs = {}, {}
    for name, make in METHODS.items():
        tried = [(lr, *descend(make, lr, steps)) for lr in ([1.0] if name == "L-BFGS" else rates)]
        lr, path, values = min(tried, key=lambda run: run[2][-1])
        there = np.flatnonzero(values < GOAL)
        when = f"below {GOAL:.0e} after {there[0]:4d} steps" if there.size else ""
        print(f"{name:8}: lr {lr:6g}, f {values[-1]:.1e} | {when}".rstrip(" |"))
        runs[name] = path, values
        result[name] = values[-1]

    def plot(figure):
        left, right = figure.subplots(1, 2)
        x, y = np.meshgrid(np.linspace(-2, 2.3, 120), np.linspace(-1, 4, 120))
        left.contour(x, y, np.log10(f((x, y)) + 1e-3), levels=12, cmap="Greys", linewidths=0.5)
        for name, (path, values) in runs.items():
            left.plot(*path.T, linewidth=1, label=name)
            right.loglog(range(1, steps + 2), np.maximum(values, 1e-16), linewidth=1)
        left.plot(1, 1, "k*")
        left.set(xlim=(-2, 2.3), ylim=(-1, 4))
        left.legend(fontsize=7)
        right.set(xlabel="step", ylabel="f", ylim=(1e-16, 1e3))

    draw(args, plot, (9, 4))
    return result


if __name__ == "__main__":
    main()
