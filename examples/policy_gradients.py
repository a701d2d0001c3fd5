"""One pole, three ways to better a policy: plain, natural, and in a trust region.

A small network decides at every step whether to push a cart to the left or to the
right; what it is told afterwards is only how good its actions were on the whole. The
gradient of the return is the same for all three. The plain step takes it as it is; the
natural one divides by the Fisher matrix of the policy, so that a step's length is
measured by how much the policy changes, KL = ½ sᵀ F s, whatever its parameters are; and
TRPO goes back along the step until the divergence, measured, is inside of a ball.

Source: Kakade (2002), A natural policy gradient; Schulman et al. (2015), Trust region
policy optimization.

    python examples/policy_gradients.py
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

from ngvi.fisher import MLP
from ngvi.nets.optimizers import (
    CartPole,
    GaussNewtonBaseline,
    PolicyOptimizer,
    PolicyTrainer,
    natural_policy_gradient,
    policy_gradient,
    trpo,
)
from ngvi.nets.optimizers.policy import episode_returns

POLICY, NET = MLP((4, 32, 2)), MLP((4, 32, 1))
BALL, LEARNING_RATE = 0.01, 3.0
SEEDS, LOOKS, BETWEEN = 5, 40, 2
WAYS: dict[str, tuple[PolicyOptimizer, str]] = {
    "plain": (
        policy_gradient(POLICY, "categorical", learning_rate=LEARNING_RATE),
        "C7",
    ),
    "natural": (natural_policy_gradient(POLICY, "categorical", max_kl=BALL), "C0"),
    "TRPO": (trpo(POLICY, "categorical", max_kl=BALL), "C3"),
}


def value(params: Any, observations: jax.Array) -> jax.Array:
    return NET(params, observations)[:, 0]


def trainer(optimizer: PolicyOptimizer) -> PolicyTrainer:
    return PolicyTrainer(
        CartPole(), optimizer, GaussNewtonBaseline(value), environments=16, horizon=32
    )


@partial(jax.jit, static_argnums=0)
def train(optimizer: PolicyOptimizer, key: jax.Array) -> tuple:
    """Of one seed: what 20 new episodes earn on the way, and the KL of every step."""
    made = trainer(optimizer)
    of_policy, of_value, of_start, of_steps = jax.random.split(key, 4)
    start = made.init(POLICY.init(of_policy), NET.init(of_value), of_start)

    def one(state: Any, key: jax.Array) -> tuple:
        of_step, of_look = jax.random.split(key)
        state, records = made.run(state, of_step, BETWEEN)
        earned = episode_returns(CartPole(), made.act(state), of_look, 20)
        return state, (earned.mean(), records.info.kl)

    return jax.lax.scan(one, start, jax.random.split(of_steps, LOOKS))[1]


def main() -> None:
    keys = jax.random.split(jax.random.key(0), SEEDS)
    steps = BETWEEN * trainer(WAYS["TRPO"][0]).iteration_steps
    print(f"mean return of {SEEDS} policies (500 is the most), KL of their steps\n")
    print(f"{'steps':>10s}{'':4s}" + "".join(f"{name:>12s}" for name in WAYS))
    runs = {}
    began = time.perf_counter()
    for name, (optimizer, _) in WAYS.items():
        many = jax.vmap(lambda key, o=optimizer: train(o, key))
        runs[name] = [np.asarray(part) for part in many(keys)]
    for at in range(4, LOOKS, 5):
        cells = "".join(f"{earned[:, at].mean():12.0f}" for earned, _ in runs.values())
        print(f"{(at + 1) * steps:10,d}{'':4s}{cells}")
    largest = "".join(f"{kl.max():12.4f}" for _, kl in runs.values())
    print(f"{'largest KL':14s}{largest}")
    print(f"\n{time.perf_counter() - began:.0f} s, compilation included")
    draw(runs, steps)


def draw(runs: dict[str, list[np.ndarray]], steps: int) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, (earned, kl) in runs.items():
        colour = WAYS[name][1]
        taken = steps * np.arange(1, earned.shape[1] + 1) / 1000
        left.plot(taken, earned.mean(0), colour, label=name)
        low, high = earned.min(0), earned.max(0)
        left.fill_between(taken, low, high, color=colour, alpha=0.15, linewidth=0)
        each = np.arange(1, kl[0].size + 1) * taken[-1] / kl[0].size
        right.plot(each, kl.reshape(len(kl), -1).T, ".", color=colour, markersize=2)
    left.axhline(475, color="k", linewidth=0.5, linestyle=":")
    right.axhline(BALL, color="k", linewidth=0.5, linestyle=":")
    thousands = "thousand steps of the environment"
    left.set(xlabel=thousands, title=f"return: mean and range of {SEEDS} policies")
    right.set(yscale="log", xlabel=thousands, title="KL divergence of every step")
    left.legend(frameon=False, loc="lower right")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/policy_gradients.png", dpi=150)
    print("\nout/policy_gradients.png: returns, and how far each step went")


if __name__ == "__main__":
    main()
