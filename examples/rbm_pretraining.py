"""Layer-wise pretraining by restricted Boltzmann machines beats random initialization of a deep sigmoid network.

What made deep networks trainable in 2006: machines that model the data without labels, each the features of the one
below, give the first weights; back-propagation then only tunes them (Hinton, Osindero, Teh, 2006; Hinton,
Salakhutdinov, 2006). From random weights the gradient vanishes on its way down, and plain descent stays at chance for
long.

Four hidden layers, the same descent for all networks. Printed: the reconstruction error of each machine, in its first
and last epoch; then, for each start, the loss and the accuracy on held-out digits. Drawn: what units of the first
machine see, digits that the machines invent, and the losses.

    python examples/rbm_pretraining.py

Expected (python examples/rbm_pretraining.py):
    machine 1, reconstruction error: 0.0763 at first, 0.0284 at last
    machine 2, reconstruction error: 0.0169 at first, 0.0038 at last
    machine 3, reconstruction error: 0.0116 at first, 0.0023 at last
    machine 4, reconstruction error: 0.0079 at first, 0.0023 at last
    random, Linear's default: loss 2.310, accuracy   9.7 %
    random, Glorot's        : loss 2.313, accuracy  10.0 %
    pretrained              : loss 0.022, accuracy  97.5 %
"""

import itertools

import numpy as np
from _common import arguments, draw

import nncore
from nncore import nn, optim
from nncore.data import batches, load_digits, stratified_split

SIZES = [64, 128, 128, 128, 128]


def random_network(init):
    """The same layers as the pretrained one, with weights from an initialization."""
    layers = []
    for i, o in itertools.pairwise(SIZES):
        layers += [nn.Linear(i, o), nn.Sigmoid()]
        init(layers[-2].weight)
    return nn.Sequential(*layers, nn.Linear(SIZES[-1], 10))


def train(net, x, y, epochs):
    """The mean loss of each epoch."""
    optimizer, losses = optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []

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
    rows, test_rows = stratified_split(y)
    x, y, xv, yv = (nncore.tensor(a) for a in (x[rows] / 16, y[rows], x[test_rows] / 16, y[test_rows]))
    pretraining, epochs = (1, 1) if args.quick else (40, 40)

    dbn = nn.DBN(SIZES)
    for i, errors in enumerate(dbn.fit(x, epochs=pretraining, lr=0.1, momentum=0.5)):
        print(f"machine {i + 1}, reconstruction error: {errors[0]:.4f} at first, {errors[-1]:.4f} at last")

    result, losses = {}, {}
    for name, make in (
        ("random, Linear's default", lambda: random_network(lambda weight: None)),
        ("random, Glorot's", lambda: random_network(nn.init.xavier_uniform_)),
        ("pretrained", lambda: dbn.mlp(10)),
    ):
        net = make()
        losses[name] = train(net, x, y, epochs)
        with nncore.no_grad():
            accuracy = (net(xv).argmax(1) == yv).float().mean().item()
        print(f"{name:24}: loss {losses[name][-1]:.3f}, accuracy {100 * accuracy:5.1f} %")
        result[name] = accuracy

    def plot(figure):
        def tiles(axes, images, title):
            grid = np.pad(images.reshape(4, 6, 8, 8), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
            axes.imshow(grid.transpose(0, 2, 1, 3).reshape(36, 54), cmap="gray")
            axes.set(xticks=[], yticks=[], title=title)

        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
        tiles(left, dbn.rbms[0].weight.numpy()[:24], "weights of the first machine")
        tiles(middle, dbn.sample(24, 5 if args.quick else 1000).numpy(), "invented")
        for name, values in losses.items():
            right.plot(range(1, epochs + 1), values, label=name)
        right.set(xlabel="epoch", ylabel="loss", ylim=(0, 2.5))
        right.legend()

    draw(args, plot, (10, 3))
    return result


if __name__ == "__main__":
    main()
