"""A generative adversarial network draws digits; the phases alternate by the discriminator's accuracy.

A generator makes images from noise, a discriminator tells them from real ones (Goodfellow et al., NIPS 2014). If one
gets too far ahead, the other learns nothing. So only one of them trains at a time: the discriminator until it is right
in 90 % of its judgements, then the generator until that has fallen to 60 %, and so on.

A classifier trained on the real digits judges what comes out: how sure it is of its class, and how many of the ten
classes have a share of at least 2 %; the same for the held-out real digits.

    python examples/gan.py

Expected (python examples/gan.py):
    4000 steps, 31 % of them the generator's, 156 changes of phase
    real digits:  the classifier is 96.4 % sure, 10 classes
    drawn digits: the classifier is 79.2 % sure, 9 classes
"""

import numpy as np
from _common import arguments, draw

import nncore
from nncore import data, nn, optim, train
from nncore.nn import functional as F

NOISE, BATCH = 32, 64
SURE, UNSURE = 0.9, 0.6  # the discriminator's accuracy at which the generator's phase begins, and ends


def generator():
    """Noise [N, NOISE] -> images [N, 1, 8, 8], 0 to 1."""
    return nn.Sequential(
        nn.Linear(NOISE, 64 * 2 * 2),
        nn.Unflatten(1, (64, 2, 2)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )


def discriminator():
    """Images [N, 1, 8, 8] -> logits [N, 1]: above 0 for those it takes as real."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(64 * 2 * 2, 1),
    )


def judge(classifier, images):
    """(mean of the largest class probability, number of classes with a share of at least 2 %)."""
    p = train.predict(classifier, images).softmax(1).numpy()
    shares = np.bincount(p.argmax(1), minlength=10) / len(p)
    return p.max(1).mean(), int((shares >= 0.02).sum())


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    steps = 100 if args.quick else 4000
    x, y = data.load_digits()
    x = x.reshape(-1, 1, 8, 8) / 16
    rows, held = data.stratified_split(y)
    classifier = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10))
    train.fit(classifier, x[rows], y[rows], epochs=2 if args.quick else 20)

    make, tell = generator(), discriminator()
    make_optimizer = optim.Adam(make.parameters(), lr=1e-3, betas=(0.5, 0.999))
    tell_optimizer = optim.Adam(tell.parameters(), lr=1e-3, betas=(0.5, 0.999))
    ones, zeros = nncore.ones(BATCH, 1), nncore.zeros(BATCH, 1)

    def accuracy(real, fake):
        return ((real > 0).float().mean() + (fake < 0).float().mean()) / 2

    @nncore.compile
    def train_discriminator(x):
        tell_optimizer.zero_grad()
        real, fake = tell(x), tell(make(nncore.randn(BATCH, NOISE)).detach())
        loss = F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, zeros)
        loss.backward()
        tell_optimizer.step()
        return accuracy(real, fake)

    @nncore.compile
    def train_generator(x):
        make_optimizer.zero_grad()
        real, fake = tell(x), tell(make(nncore.randn(BATCH, NOISE)))
        F.binary_cross_entropy_with_logits(fake, ones).backward()
        make_optimizer.step()
        return accuracy(real, fake)

    def batches():
        while True:
            for (xb,) in data.batches(x[rows], batch_size=BATCH, shuffle=True):
                if len(xb) == BATCH:
                    yield xb

    smooth, phase, curve, phases = 0.5, train_discriminator, [], []
    for xb, _ in zip(batches(), range(steps)):
        smooth += 0.1 * (phase(xb).item() - smooth)  # over about ten batches
        curve.append(smooth)
        phases.append(phase is train_generator)
        if phase is train_discriminator and smooth >= SURE:
            phase = train_generator
        elif phase is train_generator and smooth <= UNSURE:
            phase = train_discriminator

    noise = nncore.randn(500, NOISE)
    images = train.predict(make, noise)
    switches = int(np.count_nonzero(np.diff(phases)))
    print(f"{steps} steps, {100 * np.mean(phases):.0f} % of them the generator's, {switches} changes of phase")
    real, fake = judge(classifier, x[held]), judge(classifier, images)
    print(f"real digits:  the classifier is {100 * real[0]:.1f} % sure, {real[1]} classes")
    print(f"drawn digits: the classifier is {100 * fake[0]:.1f} % sure, {fake[1]} classes")

    def plot(figure):
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        left.plot(curve, linewidth=0.5)
        for level in (SURE, UNSURE):
            left.axhline(level, color="gray", linestyle=":")
        left.set(xlabel="step", ylabel="accuracy of the discriminator")
        tiles = np.pad(images[:80].numpy().reshape(10, 8, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        right.imshow(tiles.transpose(0, 2, 1, 3).reshape(100, 80), cmap="gray_r", interpolation="nearest")
        right.axis("off")

    draw(args, plot, size=(6, 3))
    return {"sure": fake[0], "classes": fake[1], "switches": switches}


if __name__ == "__main__":
    main()
