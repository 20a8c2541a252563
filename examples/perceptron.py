"""The perceptron on separable data, and the bound of its convergence theorem.

Rosenblatt's rule adds (t - y) x to the weights for every sample x (with a 1 appended, for the bias) that comes out as y
instead of t. If a hyperplane leaves all samples at a distance of at least g, and none is longer than R, the rule makes
at most (R / g)^2 mistakes, in whatever order the samples come (Novikoff, 1962). Where no line separates the classes, as
in "exclusive or", it never ends (Minsky, Papert, 1969).

Printed: for samples with less and less of a gap, the epochs and mistakes until none is left, and the bound from the
hyperplane that labelled them. Drawn: the samples of one of these, the line found, and the mistakes in each epoch.

    python examples/perceptron.py

Expected (python examples/perceptron.py):
    gap 0.30:    6 mistakes in   1 epochs, at most       32, 100 % right
    gap 0.10:   19 mistakes in   2 epochs, at most      290, 100 % right
    gap 0.03:   51 mistakes in   4 epochs, at most     2635, 100 % right
    gap 0.01:   99 mistakes in   5 epochs, at most    19559, 100 % right
    exclusive or: 4 mistakes in epoch 100
"""

import numpy as np
from _common import arguments, draw

from nncore import nn


def separable(rng, n, gap):
    """Points [n, 2], their classes, and g: the distance (in 3 dimensions, with the 1) that the labelling
    hyperplane keeps from them."""
    plane = np.array([1.0, 1.5, -0.2]) / np.linalg.norm([1.0, 1.5, -0.2])
    x = rng.uniform(-1, 1, (20 * n, 2))
    score = np.hstack([x, np.ones((len(x), 1))]) @ plane
    x, score = x[np.abs(score) >= gap][:n], score[np.abs(score) >= gap][:n]
    return x, (score > 0).astype(float), np.abs(score).min()


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    rng = np.random.default_rng(args.seed)
    n, result = 50 if args.quick else 400, {}
    for gap in (0.3, 0.1, 0.03, 0.01):
        x, t, g = separable(rng, n, gap)
        neuron = nn.Perceptron(2, dtype="float64")
        mistakes = neuron.fit(x, t, max_epochs=10000)
        bound = (np.square(x).sum(1).max() + 1) / g**2
        print(
            f"gap {gap:4.2f}: {sum(mistakes):4d} mistakes in {len(mistakes) - 1:3d} epochs, at most {bound:8.0f}, "
            f"{100 * (neuron(x).numpy()[:, 0] == t).mean():.0f} % right"
        )
        result[gap] = sum(mistakes), bound
        if gap == 0.03:
            shown = x, t, neuron, mistakes
    xor = nn.Perceptron(2).fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], max_epochs=100)
    print(f"exclusive or: {xor[-1]} mistakes in epoch {len(xor)}")
    result["xor"] = xor[-1]

    def plot(figure):
        x, t, neuron, mistakes = shown
        left, right = figure.subplots(1, 2)
        for c, marker in ((0, "o"), (1, "x")):
            left.scatter(*x[t == c].T, s=12, marker=marker)
        (w0, w1), b = neuron.weight.tolist()[0], neuron.bias.item()
        ends = np.array([-1.0, 1.0])
        left.plot(ends, -(w0 * ends + b) / w1, color="black")
        left.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), title="gap 0.03")
        right.plot(range(1, len(mistakes) + 1), mistakes)
        right.set(xlabel="epoch", ylabel="mistakes")

    draw(args, plot, (8, 4))
    return result


if __name__ == "__main__":
    main()
