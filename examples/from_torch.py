"""A network trained by torch goes on in nncore: its state_dict fits, and its layers serve for other digits, too.

Where torch is installed, a small convolutional network is trained there to tell the digits 0 to 4; else its state_dict
is read from from_torch.safetensors, which this script wrote with torch (`--save`). nncore's network, built by the same
lines, loads it and must give torch's outputs. Then its layers of convolutions are frozen, and a new last layer learns
the digits 5 to 9 from three images of each; beside it, the same network learns all its layers from these. The last
layer alone, a third of the parameters, does as well.

Printed: the largest difference from torch's outputs (whose largest is about 10), the accuracy on test images of the
digits 0 to 4, and that on 5 to 9 with and without the transfer, the mean of 10 choices of images.

    python examples/from_torch.py

Expected (python examples/from_torch.py):
    largest difference from torch's outputs: 5e-06
    digits 0 to 4: test accuracy 100.0 %
    digits 5 to 9 from 15 images, with the layers from torch: test accuracy 88.7 %
    digits 5 to 9 from 15 images, all layers learnt         : test accuracy 88.4 %
"""

from pathlib import Path

import numpy as np
from _common import arguments
from safetensors.numpy import load_file, save_file

import nncore
from nncore import data, nn, optim, train

FILE = Path(__file__).with_suffix(".safetensors")


def network(nn):
    """The network, of nncore.nn's or of torch.nn's modules."""
    features = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
    )
    return nn.Sequential(features, nn.Linear(16 * 4 * 4, 5))


def trained_by_torch(x, y, held_x, steps, seed):
    """The state_dict of a network that torch trained on x, y, with its outputs for held_x, as NumPy arrays."""
    import torch

    torch.manual_seed(seed)
    net = network(torch.nn)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.tensor(x)[rows]), torch.tensor(y)[rows]).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        outputs = net(torch.tensor(held_x))
    return {name: t.numpy() for name, t in (*net.state_dict().items(), ("outputs", outputs))}


def learn(net, parameters, x, y, steps):
    """Trains some parameters of a network, on all samples at once."""
    optimizer = optim.Adam(parameters, lr=3e-3)

    @nncore.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        step(x, y)


def accuracy(net, x, y):
    return train.evaluate(net, x, y, metrics="accuracy")["accuracy"]


def main(argv=None):
    args = arguments(__file__, __doc__, argv, save=f"write {FILE.name}; needs torch")
    nncore.manual_seed(args.seed)
    steps, choices = (10, 1) if args.quick else (200, 10)
    x, y = data.load_digits()
    x = x.reshape(-1, 1, 8, 8) / 16
    rows, held = data.stratified_split(y)
    low, held_low = rows[y[rows] < 5], held[y[held] < 5]
    high, held_high = rows[y[rows] >= 5], held[y[held] >= 5]

    try:
        state = trained_by_torch(x[low], y[low], x[held_low], 2 * steps, args.seed)
        if args.save:
            save_file(state, FILE)
    except ImportError:
        state = load_file(FILE)
    outputs = state.pop("outputs")

    net = network(nn)
    net.load_state_dict(state)
    net.eval()
    difference = np.abs(train.predict(net, x[held_low]).numpy() - outputs).max()
    print(f"largest difference from torch's outputs: {difference:.0e}")
    before = accuracy(net, x[held_low], y[held_low])
    print(f"digits 0 to 4: test accuracy {100 * before:.1f} %")

    features = net[0].eval()  # keeps the means and variances of batch normalization as they are
    for p in features.parameters():
        p.requires_grad_(False)
    found = {"transfer": [], "alone": []}
    for _ in range(choices):
        order = high[nncore.randperm(len(high)).numpy()]
        few = np.concatenate([order[y[order] == digit][:3] for digit in range(5, 10)])
        head = nn.Linear(16 * 4 * 4, 5)
        moved = nn.Sequential(features, head)
        learn(moved, head.parameters(), x[few], y[few] - 5, steps)
        found["transfer"].append(accuracy(moved, x[held_high], y[held_high] - 5))
        alone = network(nn)
        learn(alone, alone.parameters(), x[few], y[few] - 5, steps)
        found["alone"].append(accuracy(alone, x[held_high], y[held_high] - 5))
    for name, text in (("transfer", "with the layers from torch"), ("alone", "all layers learnt")):
        print(f"digits 5 to 9 from 15 images, {text:26}: test accuracy {100 * np.mean(found[name]):.1f} %")
    return {"difference": difference, "before": before, **found}


if __name__ == "__main__":
    main()
