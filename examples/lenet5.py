"""LeNet-5 as published, on the digits enlarged to 32 x 32, with its filters and feature maps drawn.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998: C1, six
5 x 5 filters; S2, trainable subsampling (the sum of 2 x 2 neighbours times a coefficient plus a bias); C3, sixteen
maps, each connected to some of the six below (table I); S4, as S2; C5, a convolution that covers all of S4; F6, 84
units; and the output, squared distances to fixed codes of -1 and 1, one for each digit, with the loss of equation 9.
Units squash by 1.7159 tanh(2 x / 3). That makes the 60,000 trainable parameters of the paper. Unlike there, the codes
are random (the paper's are drawn digits), and Adam takes the place of stochastic diagonal Levenberg-Marquardt.

Printed: the parameters of each layer, the accuracy of each of five folds, and their mean. Drawn: for one network, the
filters of C1 and a digit's feature maps up to S4.

    python examples/lenet5.py

Expected (python examples/lenet5.py):
    parameters: C1 156, S2 12, C3 1516, S4 32, C5 48120, F6 10164, together 60000
    fold 1: 98.89 %
    fold 2: 98.33 %
    fold 3: 98.89 %
    fold 4: 99.16 %
    fold 5: 99.16 %
    mean  : 98.89 %
"""

import numpy as np
from _common import arguments, draw

import nncore
from nncore import nn, optim
from nncore.data import batches, load_digits

# Table I: for each map of C3 the maps of S2 that it sees
SEEN = [
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
]  # fmt: skip
J = 20.0  # the distance of a code for "none of the digits" in equation 9: beyond it a wrong class costs nothing


class Squash(nn.Module):
    def forward(self, x):
        return 1.7159 * (x * (2 / 3)).tanh()


class Subsampling(nn.Module):
    """The sum of 2 x 2 neighbours, times a coefficient of the map, plus a bias."""

    def __init__(self, maps):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.coefficient = nn.Parameter(nncore.ones(maps, 1, 1))  # of the mean: 4 times that of the sum
        self.bias = nn.Parameter(nncore.zeros(maps, 1, 1))

    def forward(self, x):
        return self.pool(x) * self.coefficient + self.bias


class PartialConv2d(nn.Conv2d):
    """A convolution from six maps to sixteen, of which each sees some. `weight` has the connections only."""

    def __init__(self):
        super().__init__(6, 16, 5)
        mask = np.zeros((16, 6, 1, 1), np.float32)
        for o, maps in enumerate(SEEN):
            mask[o, maps] = 1
        self.register_buffer("mask", mask)

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight * self.mask, self.bias)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.s2 = nn.Conv2d(1, 6, 5), Subsampling(6)
        self.c3, self.s4 = PartialConv2d(), Subsampling(16)
        self.c5, self.f6, self.squash = nn.Conv2d(16, 120, 5), nn.Linear(120, 84), Squash()
        self.register_buffer("codes", (nncore.rand(10, 84) < 0.5).float() * 2 - 1)
        for layer in (self.c1, self.c3, self.c5, self.f6):  # the paper: uniform on +-2.4 / fan_in
            fan_in = 25 * 60 / 16 if layer is self.c3 else layer.weight.numel() / layer.weight.shape[0]
            nn.init.uniform_(layer.weight, -2.4 / fan_in, 2.4 / fan_in)
            nn.init.zeros_(layer.bias)

    def maps(self, x):
        """The feature maps of C1, S2, C3, S4."""
        c1 = self.squash(self.c1(x))
        s2 = self.squash(self.s2(c1))
        c3 = self.squash(self.c3(s2))
        return c1, s2, c3, self.squash(self.s4(c3))

    def forward(self, x):
        """x [N, 1, 32, 32] -> squared distances to the codes [N, 10]; the smallest is the answer."""
        c5 = self.squash(self.c5(self.maps(x)[-1])).flatten(1)
        f6 = self.squash(self.f6(c5))
        return (f6.unsqueeze(1) - self.codes).square().sum(-1)


def parameters(layer):
    """Trainable numbers of a layer: of C3's weight, the connections."""
    if isinstance(layer, PartialConv2d):
        return int(layer.mask.sum().item()) * 25 + 16
    return sum(p.numel() for p in layer.parameters())


def enlarge(x):
    """[N, 64] digits -> [N, 1, 32, 32]: 28 x 28 between pixels' centres, with a border; white -0.1, black 1.175 (in the
    paper's words), so that mean and variance are near 0 and 1."""
    at = np.clip((np.arange(28) + 0.5) / 28 * 8 - 0.5, 0, 7)
    weight = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(8)))  # [28, 8], linear interpolation
    images = weight @ (x.reshape(-1, 8, 8) / 16) @ weight.T
    return (np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None] * 1.275 - 0.1).astype(np.float32)


def shifted(x, rng, most=2):
    """Each image moved by up to `most` pixels in either direction."""
    n = len(x)
    dy, dx = rng.integers(-most, most + 1, (2, n, 1, 1))
    rows, columns = (np.arange(32)[:, None] - dy) % 32, (np.arange(32) - dx) % 32  # the border is wide enough
    return x[np.arange(n)[:, None, None], 0, rows, columns][:, None]


def train(net, x, y, epochs, rng):
    optimizer = optim.Adam(net.parameters(), lr=2e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

    @nncore.compile
    def step(x, y):
        optimizer.zero_grad()
        distances = net(x)
        logits = nn.functional.pad(-distances, (0, 1), value=-J)  # equation 9
        nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()

    for _ in range(epochs):
        for batch in batches(shifted(x, rng), y, batch_size=32, shuffle=True):
            step(*batch)
        schedule.step()


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    x, y = load_digits()
    x = enlarge(x)
    epochs, folds, rows = (1, 5, 200) if args.quick else (30, 5, len(x))
    net = LeNet5()
    sizes = {name: parameters(layer) for name, layer in net.named_children() if name != "squash"}
    print("parameters:", *(f"{name.upper()} {n}," for name, n in sizes.items()), f"together {sum(sizes.values())}")
    parts, accuracies = np.array_split(rng.permutation(len(x))[:rows], folds), []
    for i, test in enumerate(parts):
        rest = np.concatenate(parts[:i] + parts[i + 1 :])
        net = LeNet5()
        train(net, x[rest], y[rest], epochs, rng)
        with nncore.no_grad():
            accuracies.append((net(x[test]).argmin(1).numpy() == y[test]).mean())
        print(f"fold {i + 1}: {100 * accuracies[-1]:.2f} %")
    print(f"mean  : {100 * np.mean(accuracies):.2f} %")

    def plot(figure):
        with nncore.no_grad():
            maps = net.maps(x[test[:1]])
        shown = {"input": x[test[:1]][0], "C1, filters": net.c1.weight.numpy()[:, 0]}
        shown |= {name: m.numpy()[0] for name, m in zip(("C1", "S2", "C3", "S4"), maps)}
        for part, (name, images) in zip(figure.subfigures(6, 1), shown.items()):
            limits = {} if "filters" in name else {"vmin": -1.72, "vmax": 1.72}
            for i, axes in enumerate(part.subplots(1, 16)):
                axes.axis("off")
                if i < len(images):
                    axes.imshow(images[i], cmap="gray", **limits)
            part.suptitle(name, fontsize=8, x=0.01, ha="left")

    draw(args, plot, (8, 5))
    return {"mean": np.mean(accuracies), "folds": accuracies, "parameters": sum(sizes.values())}


if __name__ == "__main__":
    main()
