"""What a replay costs besides its kernels: us for the call, us for each kernel. `make bench-steps` runs it, too.

Chains of products of 1 x 1 matrices compute next to nothing: a line through the times of chains of several lengths
gives both figures, the little that is computed among the second. Then steps and inference of small nets: the time of
the call without that of the kernels (read from the clock between them).
"""

import argparse

import numpy as np

import nncore
from benchmarks import harness, steps
from nncore import nn, no_grad, optim

LENGTHS = (1, 2, 5, 10, 20, 50, 100)
GOAL_CALL, GOAL_KERNEL = 1.5, 0.2  # us


def chain(length):
    """A compiled product of so many 1 x 1 matrices, and its argument."""
    w = nn.Parameter(nncore.ones(1, 1))

    def run(x):
        for _ in range(length):
            x = x @ w
        return x

    return nncore.compile(run), nncore.ones(1, 1)


def ready(run, *args):
    """A function of no argument that replays."""
    for _ in range(3):
        run(*args)
    if run.plan.replays != 1:
        raise SystemExit("the third call did not replay")
    return lambda: run(*args)


def kernels_us(run, *args, calls=200):
    """Time within the kernels of a call."""
    with nncore.profile() as prof:
        for _ in range(calls):
            run(*args)
    return sum(e.end - e.start for e in prof.events) / calls / 1e3


def small_nets():
    """{name: (compiled function, arguments)}"""
    found = {}
    for sizes, activation, batch in (((4, 64, 64, 2), "Tanh", 64), ((784, 128, 10), "ReLU", 32)):
        name = "-".join(map(str, sizes))
        net = steps.mlp(sizes, activation)(nn)
        found[f"infer {name}, batch 1"] = nncore.compile(net), nncore.randn(1, sizes[0])
        array = np.ones((1, sizes[0]), np.float32)
        found[f"infer {name}, batch 1, an array"] = nncore.compile(net), array
        for optimizer in (optim.SGD(net.parameters(), lr=0.01), optim.Adam(net.parameters())):

            def step(x, y, net=net, optimizer=optimizer):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                optimizer.step()
                return loss

            target = nncore.tensor(np.arange(batch) % 2)
            label = f"train {name}, {type(optimizer).__name__}"
            found[label] = nncore.compile(step), nncore.randn(batch, sizes[0]), target
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="default: 1, which the clock disturbs least")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    harness.set_threads(args.threads)
    with no_grad():
        chains = {n: ready(*chain(n)) for n in LENGTHS}
        times = harness.compare(chains)
    slope, call = np.polyfit(LENGTHS, [times[n] * 1e6 for n in LENGTHS], 1, w=[1 / times[n] for n in LENGTHS])
    print(f"{call:.2f} us a call (goal {GOAL_CALL}), {slope:.3f} us a kernel with its product (goal {GOAL_KERNEL})")
    rows = []
    for name, (run, *given) in small_nets().items():
        us = harness.compare({name: ready(run, *given)})[name] * 1e6
        n, inside = len(run.plan), kernels_us(run, *given)
        allowed = GOAL_CALL + GOAL_KERNEL * n
        rows.append({"net": name, "kernels": n, "us": us, "inside": inside, "rest": us - inside, "goal": allowed})
    columns = [("replay", "net", "{}"), ("kernels", "kernels", "{}"), ("us", "us", "{:.2f}")]
    columns += [("in kernels", "inside", "{:.2f}"), ("besides", "rest", "{:.2f}"), ("goal", "goal", "{:.1f}")]
    harness.table(rows, columns)
    if not args.no_save:
        harness.save("replay", rows, {"us per call": call, "us per kernel": slope})


if __name__ == "__main__":
    main()
