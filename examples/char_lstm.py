r"""A character-level LSTM on a real text, the library's own Python source, beside a trigram model.

Both predict the next character; what counts is the mean of -log2 p(character) on files that neither has seen, in bits
per character. The trigram model sees two characters back, smoothed by interpolation with the bigram and the unigram
model (Witten, Bell, 1991). The LSTM reads on without end: its state goes from each step of training to the next, while
gradients reach back over 64 characters (truncated back-propagation through time; Williams, Peng, 1990).

Printed: the size of the text, bits per character, and a few lines that the LSTM writes. The text grows with the
library, so that the figures are those of the version that wrote them.

    python examples/char_lstm.py

Expected (python examples/char_lstm.py):
    text: 537786 characters, held out: 109992, different ones: 95
    trigram model: 2.625 bits per character
    LSTM: 1.784 bits per character, in training 1.640
      | class for training, or a in the xistance(first is not None:
      |                 return {tensorBrepers["sum"], epochs, "rear is None or None else None
      |         if name in ((alse)
      |     w = np.low(input, target, stride, state, Tensors.tallen())
      |         indices: the lransposed self._f is not None.
      |
      |     Args:
      |             path = as_tensor(as_float(input, target):
"""

import math
from pathlib import Path

import numpy as np
from _common import arguments, draw

import nncore
from nncore import nn, optim

BATCH, STEPS = 32, 64  # streams read side by side, characters per step of training


def load_text():
    """(training text, held-out text): every tenth file of the package is held out."""
    files = sorted(Path(nncore.__file__).parent.rglob("*.py"))
    texts = [f.read_text() for f in files]
    return "".join(t for i, t in enumerate(texts) if i % 10), "".join(texts[::10])


def trigram_bits(train, held, size):
    """Bits per character of the smoothed trigram model on held-out text.

    p(c | h) = (n(h c) + d(h) p(c | shorter h)) / (n(h) + d(h)), with d(h) the number of different characters after h.
    """
    p = np.full(len(held) - 2, 1 / size)  # of each held-out character; at first all are equal
    for order in (1, 2, 3):

        def codes(text):
            """Each run of `order` characters, as one number."""
            return sum(text[2 - k : len(text) - k] * size**k for k in range(order))

        n = np.bincount(codes(train), minlength=size**order)
        followers = n.reshape(-1, size)
        total, different = followers.sum(1), (followers > 0).sum(1)
        run = codes(held)
        history = run // size
        p = np.where(
            total[history] > 0, (n[run] + different[history] * p) / np.maximum(total + different, 1)[history], p
        )
    return -np.log2(p).mean()


class Network(nn.Module):
    def __init__(self, size, hidden):
        super().__init__()
        self.embedding = nn.Embedding(size, 32)
        self.lstm = nn.LSTM(32, hidden)
        self.out = nn.Linear(hidden, size)

    def forward(self, x, state):
        """x [T, B] characters -> their successors' logits [T, B, size], and the state."""
        y, state = self.lstm(self.embedding(x), state)
        return self.out(y), state


def streams(text):
    """The text as BATCH streams side by side, in steps: pairs of characters [STEPS, BATCH] and their successors."""
    length = (len(text) - 1) // BATCH // STEPS * STEPS
    x = text[: BATCH * length].reshape(BATCH, length).T
    y = text[1 : BATCH * length + 1].reshape(BATCH, length).T
    return [(x[at : at + STEPS].copy(), y[at : at + STEPS].copy()) for at in range(0, length, STEPS)]


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    hidden, epochs, parts = (32, 1, 5) if args.quick else (256, 4, None)
    train_text, held_text = load_text()
    alphabet = sorted({*train_text, *held_text})
    number = {c: i for i, c in enumerate(alphabet)}
    train, held = (np.array([number[c] for c in text]) for text in (train_text, held_text))
    print(f"text: {len(train)} characters, held out: {len(held)}, different ones: {len(alphabet)}")
    trigram = trigram_bits(train, held, len(alphabet))
    print(f"trigram model: {trigram:.3f} bits per character")

    net = Network(len(alphabet), hidden)
    optimizer = optim.Adam(net.parameters(), lr=4e-3)
    steps, held_steps = streams(train)[:parts], streams(held)[:parts]
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(steps))
    zeros = (nncore.zeros(1, BATCH, hidden), nncore.zeros(1, BATCH, hidden))

    def forward(x, y, state):
        logits, state = net(x, state)
        return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()), state

    @nncore.compile
    def step(x, y, state):
        optimizer.zero_grad()
        loss, state = forward(x, y, state)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss, state

    evaluate = nncore.compile(forward)
    curves = [], []
    for _ in range(epochs):
        for curve, run, batches in ((curves[0], step, steps), (curves[1], evaluate, held_steps)):
            state, total = zeros, 0.0
            with nncore.set_grad_enabled(run is step):
                for x, y in batches:
                    loss, state = run(x, y, state)
                    total += loss.item()
                    if run is step:
                        schedule.step()
            curve.append(total / len(batches) / math.log(2))
    print(f"LSTM: {curves[1][-1]:.3f} bits per character, in training {curves[0][-1]:.3f}")

    rng = np.random.default_rng(args.seed)
    predict = nncore.compile(lambda x, state: net(x, state))
    text, state = "class ", (nncore.zeros(1, 1, hidden), nncore.zeros(1, 1, hidden))
    with nncore.no_grad():
        for i in range(400):
            logits, state = predict(np.array([[number[text[i]]]]), state)
            if i == len(text) - 1:
                p = (logits / 0.7).softmax(-1).double().numpy().ravel()  # below 1: likely characters more often
                text += alphabet[rng.choice(len(alphabet), p=p / p.sum())]
    for line in (text.splitlines() + [""] * 8)[:8]:
        print(f"  | {line}".rstrip().replace('"""', "'''"))

    def plot(figure):
        axes = figure.subplots()
        for curve, label in zip(curves, ("in training", "held out")):
            axes.plot(range(1, epochs + 1), curve, label=f"LSTM, {label}")
        axes.axhline(trigram, color="gray", linestyle=":", label="trigram model, held out")
        axes.set(xlabel="epoch", ylabel="bits per character")
        axes.legend()

    draw(args, plot)
    return {"trigram": trigram, "lstm": curves[1][-1]}


if __name__ == "__main__":
    main()
