"""Dropout: why nothing is scaled at test time, and the ensemble that it stands for.

In training each unit is kept with probability 1 - p, and what is kept is divided by 1 - p, so that the next layer's
input has the same mean as without dropout. (As published, nothing was divided in training and weights were multiplied
by 1 - p at test time: Srivastava et al., 2014. The two are the same network.)

Every mask is a network of its own, with shared weights. For one softmax layer, the network without masks gives exactly
the normalized geometric mean of the predictions of all 2^n masked ones (Hinton et al., 2012; Baldi, Sadowski, 2013);
for deep networks it comes near it, in one pass instead of many.

Printed: the mean of the first hidden layer with dropout and without; the distance between the geometric mean over all
masks and the single pass, for one layer of ten inputs; then errors and cross-entropy on held-out digits, of networks
trained with and without dropout, of the first one with its units not scaled, and of averages over masks. Drawn: the
cross-entropy of such averages.

    python examples/dropout.py

Expected (python examples/dropout.py):
    mean of the first hidden layer: 0.1811 with dropout, 0.1811 without
    one layer, geometric mean of 1024 masks: 6e-17 away from one pass
    trained without dropout                   :  5.29 % errors, cross-entropy 0.233
    trained with dropout, one pass            :  3.76 % errors, cross-entropy 0.169
    its units not scaled at test time         :  3.89 % errors, cross-entropy 0.587
    one mask                                  :  6.26 % errors, cross-entropy 0.254
    average over 3 masks                      :  4.59 % errors, cross-entropy 0.185
    average over 10 masks                     :  4.38 % errors, cross-entropy 0.154
    average over 100 masks                    :  4.03 % errors, cross-entropy 0.140
"""

import itertools

import numpy as np
from _common import arguments, draw

import nncore
from nncore import nn, optim
from nncore.data import batches, load_digits, stratified_split

P = 0.5


def network(p, hidden=256):
    return nn.Sequential(
        nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(p),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(p),
        nn.Linear(hidden, 10),
    )  # fmt: skip


def train(net, x, y, epochs):
    optimizer = optim.Adam(net.parameters(), lr=1e-3)

    @nncore.compile
    def step(x, y):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    for _ in range(epochs):
        for batch in batches(x, y, shuffle=True):
            step(*batch)


def geometric_mean_distance(n=10):
    """|softmax of the unmasked layer - normalized geometric mean over all masks|, the largest."""
    layer = nn.Linear(n, 4).double()
    x = nncore.randn(n, dtype="float64")
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    with nncore.no_grad():
        logs = layer(x * nncore.tensor(masks) / (1 - P)).log_softmax().mean(0)  # of 2^n networks
        return (logs.softmax() - layer(x).softmax()).abs().max().item()


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    x, y = load_digits()
    rows, test_rows = stratified_split(y, 0.8)  # few samples to learn from
    x, y, xv, yv = (nncore.tensor(a) for a in (x[rows] / 16, y[rows], x[test_rows] / 16, y[test_rows]))
    epochs, counts = (1, (1, 2, 3, 4)) if args.quick else (200, (1, 3, 10, 100))
    result = {}

    def show(name, p, target):
        """Errors and cross-entropy of probabilities."""
        errors = 100 * (p.argmax(1) != target).float().mean().item()
        result[name] = errors, nn.functional.nll_loss(p.log(), target).item()
        print("{:42}: {:5.2f} % errors, cross-entropy {:.3f}".format(name, *result[name]))

    plain, net = network(0.0), network(P)
    train(plain, x, y, epochs)
    train(net, x, y, epochs)
    with nncore.no_grad():
        hidden = net[1](net[0](x))
        masked = nn.functional.dropout(hidden.unsqueeze(0).expand(200, *hidden.shape), P)
        result["hidden"], result["masked"] = hidden.mean().item(), masked.mean().item()
        print(f"mean of the first hidden layer: {result['masked']:.4f} with dropout, {result['hidden']:.4f} without")
        result["geometric"] = geometric_mean_distance()
        print(f"one layer, geometric mean of 1024 masks: {result['geometric']:.0e} away from one pass")

        show("trained without dropout", plain.eval()(xv).softmax(), yv)
        show("trained with dropout, one pass", net.eval()(xv).softmax(), yv)
        unscaled = network(P)  # undoes the division: what the weights see is 1 / (1 - P) times too much
        unscaled.load_state_dict(net.state_dict())
        for layer in (unscaled[3], unscaled[6]):
            layer.weight.mul_(1 / (1 - P))
        show("its units not scaled at test time", unscaled.eval()(xv).softmax(), yv)
        net.train()
        predictions = [net(xv).softmax() for _ in range(counts[-1])]
        for k in counts:
            show(f"average over {k} masks" if k > 1 else "one mask", sum(predictions[:k]) / k, yv)

    def plot(figure):
        axes = figure.subplots()
        names = [f"average over {k} masks" if k > 1 else "one mask" for k in counts]
        axes.semilogx(counts, [result[name][1] for name in names], marker="o", label="average over masks")
        one, without = (result[n][1] for n in ("trained with dropout, one pass", "trained without dropout"))
        axes.axhline(one, linestyle="--", color="black", label="one pass, scaled")
        axes.axhline(without, linestyle=":", color="gray", label="trained without dropout")
        axes.set(xlabel="masks", ylabel="cross-entropy on held-out digits")
        axes.legend()

    draw(args, plot)
    return result


if __name__ == "__main__":
    main()
