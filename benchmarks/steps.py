"""Whole training steps (forward, loss, backward, update) and inference, eager and compiled, beside the peers with the
same threads. `make bench-steps`.

Everybody starts from the same parameters. Verified first: the losses of three training steps, or the outputs, agree.
torch runs images in its default format and in channels_last. NumPy's steps are written by hand, below; jax, onnxruntime
and OpenVINO run in environments of their own (benchmarks/peer.py). Ratios are of medians; a goal is a ratio to torch
eager (its better format), or to another peer.
"""

import argparse
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

import nncore
from benchmarks import harness

TORCH = ("torch", "torch channels_last")
PEERS = (*TORCH, "NumPy", "jax", "onnxruntime", "openvino")


# ---- nets, for nncore.nn and torch.nn ----


def mlp(sizes, activation):
    """A fully connected net with one activation between its layers."""

    def net(nn):
        layers = []
        for i, (a, b) in enumerate(pairwise(sizes)):
            layers += [getattr(nn, activation)()] if i else []
            layers.append(nn.Linear(a, b))
        return nn.Sequential(*layers)

    return net


def lenet5(nn):
    """LeCun et al., 1998, on 28 x 28 images, with ReLU and maxima."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def convnet(nn):
    """3 x 3 layers of 32, 32, 64, 64, 128, 128 channels with batch norm and ReLU, halved after every second."""
    layers = []
    for a, b in pairwise((3, 32, 32, 64, 64, 128, 128)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        if a == b:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


def lstm(inputs, hidden):
    """One LSTM layer; its outputs at all steps are the net's."""
    return lambda nn: nn.LSTM(inputs, hidden)


def adam(optim, parameters):
    return optim.Adam(parameters)


def momentum(optim, parameters):
    return optim.SGD(parameters, lr=0.01, momentum=0.9)


@dataclass
class Work:
    """One row of the table: what is trained (where there is an optimizer) or run, and what is asked of it."""

    name: str
    net: object
    shape: tuple  # of the input
    outputs: tuple | int  # shape of the target, or the number of classes
    optimizer: object = None
    eager: dict = field(default_factory=dict)  # {peer: least ratio to it}
    compiled: dict = field(default_factory=dict)
    most_us: float | None = None  # of the compiled call


SMALL, DIGITS, WIDE = (
    mlp(*a) for a in (((4, 64, 64, 2), "Tanh"), ((784, 128, 10), "ReLU"), ((784, 1024, 1024, 10), "ReLU"))
)
WORK = [
    Work("train 4-64-64-2 tanh, Adam", SMALL, (64, 4), 2, adam, {}, {"torch": 25, "NumPy": 7}),
    Work("train 784-128-10 relu, Adam", DIGITS, (32, 784), 10, adam, {}, {"torch": 7, "jax": 3}),
    Work("train 784-1024-1024-10 relu, Adam", WIDE, (256, 784), 10, adam, {"torch": 2}, {"torch": 4, "jax": 1.5}),
    Work("train LeNet-5, SGD momentum", lenet5, (64, 1, 28, 28), 10, momentum, {"torch": 3}, {"torch": 5}),
    Work("train convnet, SGD momentum", convnet, (64, 3, 32, 32), 10, momentum, {"torch": 1.3}, {"torch": 1.4}),
    Work("train LSTM 64-128, Adam", lstm(64, 128), (50, 16, 64), (50, 16, 128), adam, {"torch": 2}, {"torch": 2.5}),
    Work(
        "train LSTM 256-512, Adam", lstm(256, 512), (64, 32, 256), (64, 32, 512), adam, {"torch": 1.15}, {"torch": 1.3}
    ),
    Work("infer 4-64-64-2 tanh", SMALL, (1, 4), 2, most_us=2.5),
    Work("infer 784-128-10 relu", DIGITS, (1, 784), 10, compiled={"NumPy": 2, "onnxruntime": 2}),
    Work("infer LeNet-5", lenet5, (1, 1, 28, 28), 10, compiled={"onnxruntime": 3}),
    Work("infer convnet", convnet, (1, 3, 32, 32), 10, compiled={"onnxruntime": 1.2}),
    Work("infer convnet", convnet, (64, 3, 32, 32), 10, compiled={"onnxruntime": 1.2}),
    Work("infer LSTM 64-128", lstm(64, 128), (50, 1, 64), (50, 1, 128), compiled={"onnxruntime": 2, "openvino": 2}),
    Work("infer LSTM 256-512", lstm(256, 512), (64, 32, 256), (64, 32, 512), compiled={"onnxruntime": 1}),
]


# ---- candidates: functions of no argument, which return the loss or the output ----


def data(work):
    """Input and target of a row, the same at every call."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(work.shape, dtype=np.float32)
    if isinstance(work.outputs, tuple):
        return x, rng.uniform(-0.5, 0.5, work.outputs).astype(np.float32)
    return x, rng.integers(0, work.outputs, work.shape[0])


def state_of(work):
    """The parameters that all start from: {name: array}."""
    nncore.manual_seed(0)
    return work.net(nncore.nn).state_dict()


def candidate(lib, work, state, compiled=False, channels_last=False):
    """The training step or the inference of a row in nncore or torch."""
    x, y = (lib.tensor(v) for v in data(work))
    net = work.net(lib.nn)
    net.load_state_dict(state if lib is nncore else {k: lib.tensor(v) for k, v in state.items()})
    if channels_last:
        net, x = net.to(memory_format=lib.channels_last), x.to(memory_format=lib.channels_last)
    forward = (lambda x: net(x)[0]) if isinstance(work.outputs, tuple) else net
    if work.optimizer is None:
        net.eval()
        run = nncore.compile(net if forward is net else forward) if compiled else forward

        def infer():
            with lib.no_grad():
                return run(x)

        return (lambda: run(x)) if compiled and forward is net else infer
    loss_of = lib.nn.functional.mse_loss if isinstance(work.outputs, tuple) else lib.nn.functional.cross_entropy
    optimizer = work.optimizer(lib.optim, net.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = nncore.compile(step) if compiled else step
    return lambda: run(x, y)


def numpy_mlp(work, state):
    """A fully connected net in NumPy, as one writes it by hand: arrays made once, updates in place."""
    x, y = data(work)
    weights = [v.copy() for v in state.values()]
    tanh = "tanh" in work.name
    moments = [(np.zeros_like(w), np.zeros_like(w), np.empty_like(w)) for w in weights]
    steps = 0

    def forward():
        hidden = [x]
        for i in range(0, len(weights), 2):
            z = hidden[-1] @ weights[i].T
            z += weights[i + 1]
            if i + 2 < len(weights):
                np.tanh(z, out=z) if tanh else np.maximum(z, 0, out=z)
            hidden.append(z)
        return hidden

    def step():
        nonlocal steps
        hidden = forward()
        z = hidden.pop()
        z -= z.max(1, keepdims=True)
        p = np.exp(z)
        total = p.sum(1, keepdims=True)
        rows = np.arange(len(y))
        loss = (np.log(total[:, 0]) - z[rows, y]).mean()
        p /= total
        p[rows, y] -= 1
        p /= len(y)
        gradients = [None] * len(weights)
        for i in range(len(weights) - 2, -1, -2):
            h = hidden.pop()
            gradients[i], gradients[i + 1] = p.T @ h, p.sum(0)
            if i:
                p = p @ weights[i]
                p *= 1 - h * h if tanh else h > 0
        steps += 1
        rate, correction = 1e-3 / (1 - 0.9**steps), np.float32((1 - 0.999**steps) ** -0.5)
        for w, g, (m, v, t) in zip(weights, gradients, moments):
            np.multiply(g, np.float32(0.1), out=t)
            m *= np.float32(0.9)
            m += t
            np.multiply(g, g, out=t)
            t *= np.float32(0.001)
            v *= np.float32(0.999)
            v += t
            np.sqrt(v, out=t)
            t *= correction
            t += np.float32(1e-8)
            np.divide(m, t, out=t)
            t *= np.float32(rate)
            w -= t
        return loss

    return step if work.optimizer else lambda: forward()[-1]


def layers_of(net):
    """A net for benchmarks/peer.py: [[kind, settings], ...] and the arrays in order."""
    layers, arrays = [], []
    for m in net.modules():
        kind = type(m).__name__
        if kind == "Sequential":
            continue
        settings = {}
        if kind == "Conv2d":
            settings = {"padding": m.padding[0]}
        elif kind == "BatchNorm2d":
            settings = {"eps": m.eps}
        layers.append([kind, settings])
        arrays += [m.state_dict()[n] for n in m.state_dict() if n != "num_batches_tracked"]
    return layers, arrays


def candidates_of(work, peers, state):
    """{library: candidate} of a row; `peers` are harness.Peer, readied here. Verified: all agree."""
    runs = {"nncore": candidate(nncore, work, state), "compiled": candidate(nncore, work, state, compiled=True)}
    if torch := harness.torch():
        runs["torch"] = candidate(torch, work, state)
        if len(work.shape) == 4:
            runs["torch channels_last"] = candidate(torch, work, state, channels_last=True)
    flat = len(work.shape) == 2
    if flat:
        runs["NumPy"] = numpy_mlp(work, state)
    found = {}
    for name, run in runs.items():
        values = [np.asarray(v.detach() if hasattr(v, "detach") else v) for v in (run() for _ in range(3))]
        found[name] = np.stack(values) if work.optimizer else values[-1]
    x, y = data(work)
    for peer in peers:
        if work.optimizer and flat:
            activation = "tanh" if "tanh" in work.name else "relu"
            result = peer.prepare("train", x, y, *state.values(), activation=activation)
        elif work.optimizer is None:
            net = work.net(nncore.nn)
            net.load_state_dict(state)
            layers, arrays = layers_of(net)
            result = peer.prepare("infer", x, *arrays, layers=layers)
        else:
            continue
        if result is not None:
            found[peer.name], runs[peer.name] = result, peer
    # float32, a few layers, three steps: errors of some hundred roundings. A wrong formula is off by far more.
    for name, value in found.items():
        error = np.abs(value - found["nncore"]).max() / np.abs(found["nncore"]).max()
        if value.shape != found["nncore"].shape or not error < 1e-3:
            raise SystemExit(f"{work.name}: {name} gives {value.ravel()[:3]}, nncore {found['nncore'].ravel()[:3]}")
    return runs


def judge(work, row):
    """Ratios, and what the goals say of them."""
    us = {name: row[f"{name} us"] for name in ("nncore", "compiled", *PEERS) if f"{name} us" in row}
    best = {"torch": min((us[n] for n in TORCH if n in us), default=None)} | {n: us.get(n) for n in PEERS[2:]}
    for ours, key in (("nncore", "x torch"), ("compiled", "compiled x torch")):
        if best["torch"]:
            row[key] = best["torch"] / us[ours]
    others = {n: t for n, t in best.items() if t and n != "torch"}
    if others:
        row["best peer"] = min(others, key=others.get)
        row["compiled x best peer"] = min(others.values()) / us["compiled"]
    said = []
    for ours, goals in (("nncore", work.eager), ("compiled", work.compiled)):
        for peer, least in goals.items():
            if best.get(peer):
                ratio = best[peer] / us[ours]
                label = f"{'eager ' if ours == 'nncore' else ''}{least:g}x {peer}"
                said.append(f"{label}: {'reached' if ratio >= least else f'short, {ratio:.2f}x'}")
    if work.most_us:
        reached = us["compiled"] <= work.most_us
        said.append(f"{work.most_us} us: {'reached' if reached else 'short'}")
    row["goals"] = "; ".join(said)


def table(rows, markdown=False):
    columns = [("work", "net", "{}"), ("batch", "batch", "{}"), ("threads", "threads", "{}")]
    columns += [(f"{lib} us", f"{lib} us", "{:.1f}") for lib in ("nncore", "compiled", *PEERS)]
    columns += [(k, k, "{:.2f}") for k in ("x torch", "compiled x torch", "compiled x best peer")]
    harness.table(rows, [*columns, ("goals", "goals", "{}")], markdown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--match", default="", help="only rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each candidate (default: 7)")
    parser.add_argument(
        "--peer-python", nargs="*", default=[], metavar="LIBRARY=PYTHON", help="jax, onnxruntime, openvino"
    )
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rows = []
    for threads in args.threads:
        harness.set_threads(threads)
        peers = [harness.Peer(*p.split("=", 1), threads) for p in args.peer_python]
        for work in WORK:
            if args.match not in work.name:
                continue
            runs = candidates_of(work, peers, state_of(work))
            seconds = harness.compare(runs, rounds=args.rounds, seconds=0.05, pause=0.15 if threads > 1 else 0.0)
            batch = work.shape[1] if len(work.shape) == 3 else work.shape[0]
            row = {"net": work.name, "batch": batch, "threads": threads}
            row |= {f"{lib} us": t * 1e6 for lib, t in seconds.items()}
            judge(work, row)
            rows.append(row)
        for peer in peers:
            peer.close()
    table(rows)
    if not args.no_save:
        harness.save("steps", rows)


if __name__ == "__main__":
    main()
