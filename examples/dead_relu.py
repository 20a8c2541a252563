"""A network of dead ReLUs, produced and cured.

A ReLU whose input is negative for every sample puts out 0, and as its slope there is 0, no gradient reaches its
weights: it is dead, and stays so. Descent with too large a rate kills units by throwing them there, most easily where
the inputs are large. Cures: a slope on the negative side (leaky ReLU; Maas, Hannun, Ng, 2013), which also brings a dead
network back to life; smaller inputs, or a smaller rate; batch normalization, which puts each unit's inputs around 0
(Ioffe, Szegedy, 2015).

One hidden layer; the digits come in as they are, 0 to 16. Printed: the share of hidden units whose input is positive
for no sample (dead, unless they leak), and the accuracy on held-out digits. Drawn: this share in training.

    python examples/dead_relu.py

Expected (python examples/dead_relu.py):
    ReLU, rate 0.2                : 100.0 % never positive, accuracy  10.0 %
    its weights, ReLU, rate 0.01  : 100.0 % never positive, accuracy  10.0 %
    its weights, leaky, rate 0.01 :  87.5 % never positive, accuracy  94.4 %
    anew, rate 0.01               :   0.0 % never positive, accuracy  98.1 %
    anew, inputs / 16, rate 0.2   :   1.6 % never positive, accuracy  97.8 %
    anew, batch norm, rate 0.2    :   0.0 % never positive, accuracy  98.9 %
"""

from _common import arguments, draw

import nncore
from nncore import nn, optim
from nncore.data import batches, load_digits, stratified_split

HIDDEN = 64


def network(activation, norm=None):
    return nn.Sequential(nn.Linear(64, HIDDEN), norm or nn.Identity(), activation, nn.Linear(HIDDEN, 10))


def dead_share(net, x):
    """The share of hidden units that no sample makes positive: a hook sees the activation's inputs."""
    seen = []
    handle = net[2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].max(0)[0] <= 0))
    net.eval()
    with nncore.no_grad():
        net(x)
    net.train()
    handle.remove()
    return seen[0].float().mean().item()


def train(net, x, y, lr, epochs, scale=1.0):
    """The share of dead units before training and after each epoch."""
    optimizer, shares = optim.SGD(net.parameters(), lr=lr), [dead_share(net, x * scale)]

    @nncore.compile
    def step(x, y):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    for _ in range(epochs):
        for batch in batches(x * scale, y, shuffle=True):
            step(*batch)
        shares.append(dead_share(net, x * scale))
    return shares


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    x, y = load_digits()
    rows, test_rows = stratified_split(y)
    x, y, xv, yv = (nncore.tensor(a) for a in (x[rows], y[rows], x[test_rows], y[test_rows]))
    epochs, result, curves = 2 if args.quick else 20, {}, {}

    def show(name, net, shares, scale=1.0):
        net.eval()
        with nncore.no_grad():
            accuracy = (net(xv * scale).argmax(1) == yv).float().mean().item()
        print(f"{name:30}: {100 * shares[-1]:5.1f} % never positive, accuracy {100 * accuracy:5.1f} %")
        result[name], curves[name] = (shares[-1], accuracy), shares

    nncore.manual_seed(args.seed)
    dead = network(nn.ReLU())
    show("ReLU, rate 0.2", dead, train(dead, x, y, 0.2, epochs))
    for name, activation in (
        ("its weights, ReLU, rate 0.01", nn.ReLU()),
        ("its weights, leaky, rate 0.01", nn.LeakyReLU(0.1)),
    ):
        net = network(activation)
        net.load_state_dict(dead.state_dict())
        show(name, net, train(net, x, y, 0.01, epochs))
    for name, norm, lr, scale in (
        ("anew, rate 0.01", None, 0.01, 1.0),
        ("anew, inputs / 16, rate 0.2", None, 0.2, 1 / 16),
        ("anew, batch norm, rate 0.2", nn.BatchNorm1d(HIDDEN), 0.2, 1.0),
    ):
        nncore.manual_seed(args.seed)
        net = network(nn.ReLU(), norm)
        show(name, net, train(net, x, y, lr, epochs, scale), scale)

    def plot(figure):
        axes = figure.subplots()
        for name, shares in curves.items():
            axes.plot([100 * s for s in shares], label=name)
        axes.set(xlabel="epoch", ylabel="units that are never positive, %", ylim=(-3, 103))
        axes.legend()

    draw(args, plot)
    return result


if __name__ == "__main__":
    main()
