"""Remembering over a long lag: an LSTM does, a plain recurrent network (RNN) forgets.

The first step of a sequence shows one of four symbols; noise follows, and at the end the network is to name the symbol.
The gradient that reaches the first step of an RNN is a product of as many Jacobians as there are steps: it vanishes
(Hochreiter, 1991; Bengio, Simard, Frasconi, 1994). The cell of an LSTM is carried on by a forget gate that can stay
open (Hochreiter, Schmidhuber, 1997; Gers, Schmidhuber, Cummins, 2000). Here its bias starts at log(lag), and the input
gate's at -log(lag), so that the cell forgets over about as many steps (Tallec, Ollivier, ICLR 2018).

Printed: for each lag, the accuracy on fresh sequences (25 % is chance), and the norm of the gradient at the first input
relative to that at the last, before training.

    python examples/long_lag.py

Expected (python examples/long_lag.py):
    lag  10, RNN : accuracy 100.0 %, gradient ratio 2e-03
    lag  10, LSTM: accuracy 100.0 %, gradient ratio 4e-01
    lag  30, RNN : accuracy  23.6 %, gradient ratio 2e-08
    lag  30, LSTM: accuracy 100.0 %, gradient ratio 2e-01
    lag 100, RNN : accuracy  25.8 %, gradient ratio 0e+00
    lag 100, LSTM: accuracy 100.0 %, gradient ratio 1e-01
"""

import math

from _common import arguments, draw

import nncore
from nncore import nn, optim

SYMBOLS, HIDDEN, BATCH = 4, 32, 64


class Network(nn.Module):
    """A recurrent layer, and a linear layer on its last output."""

    def __init__(self, kind, lag):
        super().__init__()
        self.recurrent = kind(SYMBOLS + 1, HIDDEN)
        self.out = nn.Linear(HIDDEN, SYMBOLS)
        if kind is nn.LSTM:
            with nncore.no_grad():  # rows of the gates: input, forget, cell, output
                self.recurrent.bias_hh_l0[:HIDDEN] = -math.log(lag)
                self.recurrent.bias_hh_l0[HIDDEN : 2 * HIDDEN] = math.log(lag)

    def forward(self, x):
        y, _ = self.recurrent(x)
        return self.out(y[-1])


def sequences(lag, n):
    """x [lag + 1, n, SYMBOLS + 1]: the symbol, one-hot, then noise in the last column. And the symbols."""
    symbols = (nncore.rand(n) * SYMBOLS).long()
    x = nncore.zeros(lag + 1, n, SYMBOLS + 1)
    x[0, :, :SYMBOLS] = nn.functional.one_hot(symbols, SYMBOLS)
    x[1:, :, SYMBOLS] = nncore.randn(lag, n)
    return x, symbols


def gradient_ratio(net, lag):
    """How much of the gradient reaches the first step: |d loss / d x_first| / |d loss / d x_last|."""
    x, symbols = sequences(lag, BATCH)
    x.requires_grad_()
    nn.functional.cross_entropy(net(x), symbols).backward()
    first, last = x.grad[0].square().sum().sqrt(), x.grad[-1].square().sum().sqrt()
    return (first / last).item()


def train(net, lag, steps):
    """The loss of every step."""
    optimizer = optim.Adam(net.parameters(), lr=3e-3)

    @nncore.compile
    def step(x, symbols):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), symbols)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss

    return [step(*sequences(lag, BATCH)).item() for _ in range(steps)]


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    steps, result, losses = 20 if args.quick else 500, {}, {}
    for lag in (10, 30, 100):
        for name, kind in (("RNN", nn.RNN), ("LSTM", nn.LSTM)):
            net = Network(kind, lag)
            ratio = gradient_ratio(net, lag)
            losses[name, lag] = train(net, lag, steps)
            x, symbols = sequences(lag, 1000)
            with nncore.no_grad():
                accuracy = (net(x).argmax(1) == symbols).float().mean().item()
            print(f"lag {lag:3}, {name:4}: accuracy {100 * accuracy:5.1f} %, gradient ratio {ratio:.0e}")
            result[name, lag] = accuracy

    def plot(figure):
        axes = figure.subplots()
        for (name, lag), values in losses.items():
            axes.plot(values, label=f"{name}, lag {lag}", linestyle="-" if name == "LSTM" else ":")
        axes.set(xlabel="step", ylabel="loss")
        axes.legend(loc="center right")

    draw(args, plot)
    return result


if __name__ == "__main__":
    main()
