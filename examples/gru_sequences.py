"""A GRU classifies sequences of different lengths: handwritten digits as the list of their inked pixels.

Each digit is read as a sequence of its pixels that are not blank, row by row, each with its place and its darkness:
18 to 46 steps. The sequences of a batch are packed (`nn.utils.rnn.pack_sequence`), so that no step is spent on padding,
and the state after each sequence's own last step goes to a linear layer (GRU: Cho et al., EMNLP 2014).

Printed: the lengths, the share of steps that padding would have added, the accuracy on the test set (a fifth of the
digits), and whether a packed batch gives the states of the sequences run one by one, bit for bit.

    python examples/gru_sequences.py

Expected (python examples/gru_sequences.py):
    1797 sequences of 16 to 42 steps; of a padded batch 22 % would be padding
    loss 0.010, test accuracy 95.0 %, the same alone and packed: True
"""

import numpy as np
from _common import arguments, draw

import nncore
from nncore import data, nn, optim
from nncore.nn.utils.rnn import pack_sequence


class Network(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gru = nn.GRU(3, hidden)
        self.out = nn.Linear(hidden, 10)

    def forward(self, packed):
        _, last = self.gru(packed)  # of each sequence in the order given, its state after its own last step
        return self.out(last[0])


def sequences(x):
    """Of each image [64], its inked pixels as rows (row, column, darkness), scaled to -1..1."""
    found = []
    for image in x:
        (at,) = np.nonzero(image)
        rows = np.stack([at // 8 / 3.5 - 1, at % 8 / 3.5 - 1, image[at] / 8 - 1], 1)
        found.append(nncore.tensor(rows.astype(np.float32)))
    return found


def accuracy(net, items, y):
    with nncore.no_grad():
        return (net(pack_sequence(items, enforce_sorted=False)).argmax(1).numpy() == y).mean()


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    epochs, batch = (1, 128) if args.quick else (40, 32)
    x, y = data.load_digits()
    rows, held = data.stratified_split(y)
    items = sequences(x)
    lengths = np.array([len(s) for s in items])
    padding = 1 - lengths.mean() / lengths.max()
    print(
        f"{len(items)} sequences of {lengths.min()} to {lengths.max()} steps; of a padded batch {100 * padding:.0f} % "
        "would be padding"
    )

    net = Network(64)
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for (chosen,) in data.batches(rows, batch_size=batch, shuffle=True):
            chosen = chosen.numpy()
            packed = pack_sequence([items[i] for i in chosen], enforce_sorted=False)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(packed), y[chosen])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(chosen)
        schedule.step()
        losses.append(total / len(rows))

    found = accuracy(net, [items[i] for i in held], y[held])
    with nncore.no_grad():
        together = net(pack_sequence(items[:20], enforce_sorted=False)).numpy()
        alone = np.concatenate([net(pack_sequence([s])).numpy() for s in items[:20]])
    same = bool((together == alone).all())
    print(f"loss {losses[-1]:.3f}, test accuracy {100 * found:.1f} %, the same alone and packed: {same}")

    def plot(figure):
        axes = figure.subplots()
        axes.semilogy(range(1, epochs + 1), losses)
        axes.set(xlabel="epoch", ylabel="training loss")

    draw(args, plot)
    return {"accuracy": found, "same": same}


if __name__ == "__main__":
    main()
