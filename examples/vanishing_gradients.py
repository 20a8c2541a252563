"""Vanishing gradients: ten layers of sigmoids, of ReLUs, and with batch normalization.

On the way back, each layer multiplies the gradient by its weights and by the slope of its activation. A sigmoid's slope
is at most 1/4, so that after ten layers little is left and the first ones do not learn (Hochreiter, 1991; Glorot,
Bengio, 2010). A ReLU's slope is 1 where it is active, and with weights of variance 2 / fan_in the gradient keeps its
size (He et al., 2015). Batch normalization sets the scale of each layer's input, and with it the slopes, anew (Ioffe,
Szegedy, 2015).

Printed: the norm of the gradient of the first layer's weight relative to the last hidden layer's, before training; the
loss at the end of training, and the accuracy on held-out digits. Drawn: these norms, layer by layer, and the losses.

    python examples/vanishing_gradients.py

Expected (python examples/vanishing_gradients.py):
    sigmoid             : gradient ratio 7e-06, loss 2.310, accuracy   9.7 %
    sigmoid, batch norm : gradient ratio 1e+00, loss 0.077, accuracy  97.5 %
    ReLU                : gradient ratio 8e-01, loss 0.022, accuracy  99.2 %
    ReLU, batch norm    : gradient ratio 2e+00, loss 0.075, accuracy  98.9 %
"""

import math

from _common import arguments, draw

import nncore
from nncore import nn, optim
from nncore.data import batches, load_digits, stratified_split

DEPTH, WIDTH = 10, 64


def network(activation, norm):
    """DEPTH hidden layers; weights of the variance that keeps the gradient's, if the activation had slope 1 (or, of a
    ReLU, 1 for half of the units)."""
    layers = []
    for _ in range(DEPTH):
        linear = nn.Linear(64 if not layers else WIDTH, WIDTH)
        nn.init.normal_(linear.weight, std=math.sqrt((2 if activation is nn.ReLU else 1) / linear.in_features))
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.BatchNorm1d(WIDTH), activation()] if norm else [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def gradient_norms(net, x, y):
    """The norm of the gradient of each hidden layer's weight."""
    nn.functional.cross_entropy(net(x), y).backward()
    hidden = [m for m in net if isinstance(m, nn.Linear)][:-1]
    return [m.weight.grad.square().sum().sqrt().item() for m in hidden]


def train(net, x, y, epochs):
    """The mean loss of each epoch."""
    optimizer, losses = optim.SGD(net.parameters(), lr=0.02, momentum=0.9), []

    @nncore.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(epochs):
        values = [step(xb, yb).item() for xb, yb in batches(x, y, shuffle=True)]
        losses.append(sum(values) / len(values))
    return losses


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    x, y = load_digits()
    x = (x - x.mean()) / x.std()
    train_rows, test_rows = stratified_split(y)
    xt, yt, xv, yv = (nncore.tensor(a) for a in (x[train_rows], y[train_rows], x[test_rows], y[test_rows]))
    epochs, result, norms, losses = 1 if args.quick else 30, {}, {}, {}
    for name, activation, norm in (
        ("sigmoid", nn.Sigmoid, False),
        ("sigmoid, batch norm", nn.Sigmoid, True),
        ("ReLU", nn.ReLU, False),
        ("ReLU, batch norm", nn.ReLU, True),
    ):
        net = network(activation, norm)
        norms[name] = gradient_norms(net, xt, yt)
        losses[name] = train(net, xt, yt, epochs)
        net.eval()
        with nncore.no_grad():
            accuracy = (net(xv).argmax(1) == yv).float().mean().item()
        ratio = norms[name][0] / norms[name][-1]
        print(f"{name:20}: gradient ratio {ratio:.0e}, loss {losses[name][-1]:.3f}, accuracy {100 * accuracy:5.1f} %")
        result[name] = ratio, accuracy

    def plot(figure):
        left, right = figure.subplots(1, 2)
        for name in norms:
            left.semilogy(range(1, DEPTH + 1), norms[name], marker=".", label=name)
            right.plot(range(1, epochs + 1), losses[name])
        left.set(xlabel="hidden layer", ylabel="norm of the weight's gradient", title="before training")
        left.legend()
        right.set(xlabel="epoch", ylabel="loss", ylim=(0, 2.6))

    draw(args, plot, (9, 4))
    return result


if __name__ == "__main__":
    main()
