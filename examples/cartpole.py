"""Reinforcement learning: REINFORCE with a baseline balances gymnasium's CartPole-v1.

A policy gives the probability of pushing the cart to the right. It plays episodes; then each action's log-probability
is raised or lowered in proportion to its advantage: the discounted sum of rewards that followed, less what a second
network, the baseline, expected (Williams, 1992; Sutton, Barto, Reinforcement Learning, 13.4):

    loss = -sum log pi(a_t | s_t) (G_t - b(s_t)),   G_t = r_t + gamma G_{t+1}

An episode ends when the pole falls, or after 500 steps; the task counts as solved at a mean return of 475. Episodes of
different lengths are filled up to 500 steps that count nothing, so that every training step has one shape.

Printed: the number of batches of episodes, and the mean return of 100 new episodes with the likelier action.

    python examples/cartpole.py

Expected (python examples/cartpole.py):
    101 batches of 16 episodes, mean return of 100 new ones: 500.0
"""

import gymnasium
import numpy as np
from _common import arguments, draw

import nncore
from nncore import nn, optim

LIMIT, GAMMA = 500, 0.99


def mlp(outputs):
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


def play(policy, episodes, seed, rng=None):
    """Plays episodes side by side.

    Args:
        policy: function of states [episodes, 4], which gives logits of pushing to the right.
        rng: NumPy generator to draw the actions with; None: the likelier ones are taken.

    Returns:
        (states [LIMIT, episodes, 4], actions [LIMIT, episodes], alive: whether the episode had not ended yet).
    """
    env = gymnasium.make_vec("CartPole-v1", episodes, vectorization_mode="vector_entry_point")
    states = np.zeros((LIMIT, episodes, 4), np.float32)
    actions, alive = np.zeros((LIMIT, episodes), np.float32), np.zeros((LIMIT, episodes), np.float32)
    state, _ = env.reset(seed=seed)
    running = np.ones(episodes, bool)
    for t in range(LIMIT):
        p = policy(state).sigmoid().numpy()[:, 0]
        action = (p > (0.5 if rng is None else rng.random(episodes))).astype(np.int64)
        states[t], actions[t], alive[t] = state, action, running
        state, _, fallen, over, _ = env.step(action)
        running &= ~(fallen | over)
        if not running.any():
            break
    env.close()
    return states, actions, alive


def returns(alive):
    """G_t of every step; each step that an episode lives is worth 1."""
    g, following = np.zeros_like(alive), 0
    for t in reversed(range(LIMIT)):
        g[t] = following = alive[t] * (1 + GAMMA * following)
    return g


def main(argv=None):
    args = arguments(__file__, __doc__, argv)
    nncore.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    most, episodes, tests = (3, 4, 4) if args.quick else (300, 16, 100)
    policy, baseline = mlp(1), mlp(1)
    optimizer = optim.Adam([{"params": policy.parameters(), "lr": 3e-3}, {"params": baseline.parameters(), "lr": 1e-2}])
    act = nncore.compile(policy)

    @nncore.compile
    def step(states, actions, alive, g):
        """All arguments with one row per step of an episode; those that are not alive count nothing."""
        optimizer.zero_grad()
        count = alive.sum()
        expected = baseline(states)[:, 0] / (1 - GAMMA)
        advantage = (g - expected.detach()) * alive
        scale = (advantage.square().sum() / count).sqrt() + 1e-6
        log_p = -nn.functional.binary_cross_entropy_with_logits(policy(states)[:, 0], actions, reduction="none")
        policy_loss = -(log_p * advantage / scale).sum() / count
        baseline_loss = ((g - expected) * (1 - GAMMA) * alive).square().sum() / count
        (policy_loss + baseline_loss).backward()
        optimizer.step()
        return baseline_loss

    curve = []
    for i in range(most):
        states, actions, alive = play(act, episodes, args.seed + i, rng)
        curve.append(alive.sum(0).mean())
        if len(curve) >= 5 and min(curve[-5:]) > 495:
            break
        step(states.reshape(-1, 4), actions.ravel(), alive.ravel(), returns(alive).ravel())

    _, _, alive = play(act, tests, args.seed + 10_000)
    final = alive.sum(0).mean()
    print(f"{len(curve)} batches of {episodes} episodes, mean return of {tests} new ones: {final:.1f}")

    def plot(figure):
        axes = figure.subplots()
        axes.plot(curve)
        axes.set(xlabel=f"batch of {episodes} episodes", ylabel="mean return")

    draw(args, plot)
    return {"batches": len(curve), "return": final}


if __name__ == "__main__":
    main()
