"""Recurrent layers: share of the one-thread FMA peak, bandwidth at batch 1, ratio to torch. `make bench-rnn`.

Through the modules, on both sides: forward without gradients, forward and backward, and whole steps with Adam. FLOPs
are those of the products with W_ih and W_hh (three times for forward and backward). At batch 1 the weights of a step
are read once: GB/s are W_hh's bytes times the steps (but the first, from zeros) over the time of the whole layer.
"""

import argparse

import numpy as np

import nncore
from benchmarks import harness
from nncore import nn
from nncore._core import runtime

# (layer, input size, hidden size, batch, steps)
OWN = [
    ("LSTM", 64, 128, 16, 50),
    ("LSTM", 128, 128, 16, 50),
    ("GRU", 128, 128, 16, 50),
    ("LSTM", 256, 512, 32, 64),
    ("LSTM", 16, 16, 1, 200),
    ("GRU", 64, 64, 1, 100),
    ("LSTM", 64, 256, 1, 50),
    ("GRU", 64, 512, 1, 50),
    ("RNN", 64, 512, 1, 50),
]
# DeepBench's training and inference shapes (github.com/baidu-research/DeepBench), those that take less than a second.
# Its input is as wide as the state.
DEEPBENCH = [
    ("RNN", 1760, 1760, 16, 50),
    ("LSTM", 256, 256, 16, 150),
    ("LSTM", 512, 512, 16, 25),
    ("LSTM", 512, 512, 32, 25),
    ("LSTM", 512, 512, 64, 25),
    ("LSTM", 1024, 1024, 16, 25),
    ("LSTM", 1024, 1024, 32, 25),
    ("GRU", 512, 512, 32, 1),
    ("LSTM", 256, 256, 1, 150),
    ("LSTM", 512, 512, 1, 25),
    ("LSTM", 512, 512, 4, 25),
    ("LSTM", 1024, 1024, 1, 25),
    ("LSTM", 1536, 1536, 1, 50),
    ("LSTM", 2048, 2048, 1, 25),
]
STEPS = [("LSTM", 64, 128, 16, 50), ("LSTM", 256, 512, 32, 64), ("GRU", 64, 128, 16, 50)]
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def reference(kind, net, x):
    """The layer's output by its definition, in float64."""
    w_ih, w_hh, b_ih, b_hh = (p.numpy().astype(np.float64) for p in net.parameters())
    h = c = np.zeros((x.shape[1], w_hh.shape[1]))
    out = []
    for row in x.astype(np.float64):
        a, b = (np.split(v, GATES[kind], 1) for v in (row @ w_ih.T + b_ih, h @ w_hh.T + b_hh))
        if kind == "LSTM":
            i, f, g, o = (p + q for p, q in zip(a, b))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif kind == "GRU":
            z = sigmoid(a[1] + b[1])
            h = (1 - z) * np.tanh(a[2] + sigmoid(a[0] + b[0]) * b[2]) + z * h
        else:
            h = np.tanh(a[0] + b[0])
        out.append(h)
    return np.stack(out)


def layers(kind, inputs, hidden):
    """{library: layer}, with the same parameters."""
    nets = {"nncore": getattr(nn, kind)(inputs, hidden)}
    if harness.torch():
        nets["torch"] = getattr(harness.torch().nn, kind)(inputs, hidden)
        state = {n: harness.torch().from_numpy(v) for n, v in nets["nncore"].state_dict().items()}
        nets["torch"].load_state_dict(state)
    return nets


def forward(lib, net, x):
    x = lib.tensor(x)

    def run():
        with lib.no_grad():
            return net(x)[0]

    return run


def train(lib, net, x, dy, step=False):
    """Forward and backward, with gradients of the input; or with Adam's step instead."""
    x, dy = lib.tensor(x, requires_grad=not step), lib.tensor(dy)
    parameters = list(net.parameters())
    optimizer = lib.optim.Adam(parameters) if step else None

    def run():
        for t in (x, *parameters):
            t.grad = None
        net(x)[0].backward(dy)
        if step:
            optimizer.step()

    return run


def run(what, kind, inputs, hidden, batch, steps, threads, rng):
    """One row of the table, verified before it is timed."""
    x = rng.standard_normal((steps, batch, inputs), dtype=np.float32)
    dy = rng.standard_normal((steps, batch, hidden), dtype=np.float32)
    nets = layers(kind, inputs, hidden)
    libs = {"nncore": nncore, "torch": harness.torch()}
    checked = min(steps, 8)  # errors pass from step to step and grow
    want = reference(kind, nets["nncore"], x[:checked])
    bound = checked * (inputs + hidden) * np.finfo(np.float32).eps
    error = np.abs(forward(nncore, nets["nncore"], x)().numpy()[:checked] - want).max()
    if not error <= bound:
        raise SystemExit(f"{kind} {inputs} -> {hidden}: wrong by {error:.2g}")
    if what == "forward":
        candidates = {name: forward(libs[name], net, x) for name, net in nets.items()}
    else:
        candidates = {name: train(libs[name], net, x, dy, what == "step") for name, net in nets.items()}
    peak = runtime.probe_fma(0, 0.02)
    seconds = harness.compare(candidates, rounds=5, seconds=0.05)
    t = seconds["nncore"]
    recurrent = GATES[kind] * hidden * hidden * (steps - 1)  # the first step starts from zeros
    flops = 2.0 * batch * (recurrent + GATES[kind] * hidden * inputs * steps) * (1 if what == "forward" else 3)
    flops -= 2.0 * batch * GATES[kind] * hidden * inputs * steps * (what == "step")  # no gradient of the input
    row = {"what": what, "layer": kind, "I": inputs, "H": hidden, "B": batch, "T": steps, "threads": threads}
    row |= {"us": t * 1e6, "us_step": t * 1e6 / steps, "share": 100 * flops / t / (peak * threads)}
    if batch == 1 and what == "forward":
        row["gbps"] = 4 * recurrent / t / 1e9
    if "torch" in seconds:
        row["torch"] = seconds["torch"] / t
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--what", nargs="*", default=["forward", "train", "step"])
    parser.add_argument("--batch", type=int, nargs="*", help="these batches only")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows, peaks = [], harness.peaks()
    print(
        f"{harness.cpu_name()}, {runtime.get_isa()}: FMA peak {peaks['fma_f32'] / 1e9:.1f} GFLOP/s (float32, 1 thread)"
    )
    print("copy, GB/s: " + ", ".join(f"{n[5:]} {v / 1e9:.0f}" for n, v in peaks.items() if n.startswith("copy")))
    for threads in args.threads:
        harness.set_threads(threads)
        for what in args.what:
            for shape in STEPS if what == "step" else OWN + DEEPBENCH:
                if not args.batch or shape[3] in args.batch:
                    rows.append(run(what, *shape, threads, rng))
    columns = [(k, k, "{}") for k in ("what", "layer", "I", "H", "B", "T", "threads")]
    columns += [("us", "us", "{:.0f}"), ("us/step", "us_step", "{:.2f}"), ("% of peak", "share", "{:.1f}")]
    columns += [("GB/s", "gbps", "{:.0f}"), ("x torch", "torch", "{:.2f}")]
    harness.table(rows, columns)
    if not args.no_save:
        harness.save("recurrent", rows, {"peaks": peaks})


if __name__ == "__main__":
    main()
