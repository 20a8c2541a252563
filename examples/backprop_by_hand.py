"""Back-propagation by hand beside autograd: the formulas of the textbooks, and the same numbers.

One hidden layer: z = W1 x + b1, h = tanh(z), a = W2 h + b2, p = softmax(a), and the loss L = -log p_t, averaged over
the samples. With y the one-hot target, the chain rule gives (Rumelhart, Hinton, Williams, 1986)

    delta2 = dL/da = p - y                      dL/dW2 = delta2 h^T     dL/db2 = delta2
    delta1 = dL/dz = (W2^T delta2) (1 - h^2)    dL/dW1 = delta1 x^T     dL/db1 = delta1

summed over the samples and divided by their number. Below they stand in NumPy; autograd knows nothing of them.

Printed: for each gradient its size, and its largest distance from autograd's and from central differences; then the
loss of both networks after descent, each with gradients of its own.

    python examples/backprop_by_hand.py

Expected (python examples/backprop_by_hand.py):
    dL/d 0.weight: largest 0.0596, autograd 1e-17 off, differences 2e-11 off
    dL/d 0.bias  : largest 0.0329, autograd 1e-17 off, differences 3e-11 off
    dL/d 2.weight: largest 0.0359, autograd 1e-17 off, differences 2e-11 off
    dL/d 2.bias  : largest 0.0442, autograd 2e-17 off, differences 2e-11 off
    after descent: loss 0.030376356447 by hand, 0.030376356447 by autograd, weights 7e-16 apart
"""

import numpy as np
from _common import arguments

import nncore
from nncore import nn, optim
from nncore.data import load_digits

HIDDEN, LR = 16, 0.5


def forward(w, x, t):
    """Every quantity on the way, and the loss."""
    h = np.tanh(x @ w["0.weight"].T + w["0.bias"])
    a = h @ w["2.weight"].T + w["2.bias"]
    e = np.exp(a - a.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return h, p, -np.log(p[np.arange(len(t)), t]).mean()


def by_hand(w, x, t):
    """The loss and its gradients; a sample is a row here, so that the formulas appear transposed."""
    h, p, loss = forward(w, x, t)
    y = np.eye(p.shape[1])[t]
    delta2 = (p - y) / len(t)
    delta1 = delta2 @ w["2.weight"] * (1 - h**2)
    return loss, {
        "0.weight": delta1.T @ x,
        "0.bias": delta1.sum(0),
        "2.weight": delta2.T @ h,
        "2.bias": delta2.sum(0),
    }


def central_difference(w, name, at, x, t, step=1e-5):
    """dL / d w[name][at], from the loss alone."""
    sides = []
    for sign in (1, -1):
        moved = {k: v.copy() for k, v in w.items()}
        moved[name][at] += sign * step
        sides.append(forward(moved, x, t)[-1])
    return (sides[0] - sides[1]) / (2 * step)


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    rng, steps = np.random.default_rng(args.seed), 5 if args.quick else 300
    x, t = load_digits()
    x, t = x[:300].astype(float) / 16, t[:300]
    net = nn.Sequential(nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10)).double()
    w = net.state_dict()  # copies: the weights of the network by hand
    optimizer, result = optim.SGD(net.parameters(), lr=LR), {}

    nn.functional.cross_entropy(net(x), t).backward()
    _, gradients = by_hand(w, x, t)
    for name, p in net.named_parameters():
        g = gradients[name]
        places = [tuple(rng.integers(n) for n in g.shape) for _ in range(20)]
        numeric = max(abs(central_difference(w, name, at, x, t) - g[at]) for at in places)
        exact = np.abs(p.grad.numpy() - g).max()
        print(f"dL/d {name:8}: largest {np.abs(g).max():.4f}, autograd {exact:.0e} off, differences {numeric:.0e} off")
        result[name] = exact

    @nncore.compile
    def step(x, t):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), t)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        loss = step(x, t).item()
        mine, gradients = by_hand(w, x, t)
        for name, g in gradients.items():
            w[name] -= LR * g
    away = max(np.abs(w[name] - value).max() for name, value in net.state_dict().items())
    print(f"after descent: loss {mine:.12f} by hand, {loss:.12f} by autograd, weights {away:.0e} apart")
    return result | {"loss": mine, "difference": abs(mine - loss), "weights": away}


if __name__ == "__main__":
    main()
