"""A pendulum swung up by a torque too weak to lift it: TRPO with a Gaussian policy.

The policy is a normal distribution of torques, its mean the output of a network and its
spread one number more; the Fisher matrix of both is known by its products alone, and a
step is found by conjugate gradients. The spread is not scheduled: the policy narrows by
itself as it learns what it can rely on.

Source: Schulman et al. (2015), Trust region policy optimization.

    python examples/swing_up.py
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from ngvi.fisher import MLP
from ngvi.nets.optimizers import GaussNewtonBaseline, Pendulum, PolicyTrainer, trpo
from ngvi.nets.optimizers.policy import begin, rollout

NET = MLP((3, 32, 32, 1))
SCALE = jnp.array([1.0, 1.0, 8.0])
"""Of what is observed: cos θ, sin θ, θ̇."""
ITERATIONS, UNSEEN = 150, 200


def policy(params: Any, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean of the torque, and the log of its standard deviation."""
    mean = 2 * NET(params["net"], observations / SCALE)[:, 0]
    return mean, jnp.broadcast_to(params["log_sd"], mean.shape)


def value(params: Any, observations: jax.Array) -> jax.Array:
    return 100 * NET(params, observations / SCALE)[:, 0]


TRAINER = PolicyTrainer(
    Pendulum(),
    trpo(policy, "heteroscedastic_gaussian", max_kl=0.02, damping=1e-3),
    GaussNewtonBaseline(value, steps=10),
    environments=32,
    horizon=100,
    discount=0.97,
)


def main() -> None:
    of_policy, of_value, of_start, of_steps, of_look = jax.random.split(
        jax.random.key(0), 5
    )
    params = {"net": NET.init(of_policy), "log_sd": jnp.log(jnp.asarray(1.0))}
    first = TRAINER.init(params, NET.init(of_value), of_start)
    began = time.perf_counter()
    last, records = jax.block_until_ready(TRAINER.run(first, of_steps, ITERATIONS))
    took = time.perf_counter() - began
    steps = ITERATIONS * TRAINER.iteration_steps
    print(f"{steps:,} steps in {took:.1f} s, compilation included")
    info = records.info
    print(f"{float(info.accepted.mean()):.0%} of the steps were taken, the largest KL")
    print(f"of them {float(info.kl.max()):.4f}, of at most 0.02\n")

    print(f"{'policy':10s}{'return':>10s}{'held up':>10s}{'sd of torque':>15s}")
    paths = {}
    for name, state in (("first", first), ("last", last)):
        at = begin(Pendulum(), of_look, UNSEEN)
        _, seen = rollout(Pendulum(), TRAINER.act(state), at, of_look, 200)
        height = np.asarray(seen.observations[:, :, 0])
        held = (height[-50:] > 0.95).all(0).mean()
        sd = float(jnp.exp(state.policy.params["log_sd"]))
        earned = float(seen.rewards.sum(0).mean())
        print(f"{name:10s}{earned:10.0f}{held:10.0%}{sd:15.2f}")
        paths[name] = height
    draw(np.asarray(records.mean_return), info, paths)


def draw(earned: np.ndarray, info: Any, paths: dict[str, np.ndarray]) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 3.2), layout="constrained"
    )
    thousands = TRAINER.iteration_steps * np.arange(1, len(earned) + 1) / 1000
    ended = np.isfinite(earned)
    left.plot(thousands[ended], earned[ended], "C0")
    left.set(xlabel="thousand steps", title="return of an episode")
    middle.plot(thousands, info.kl, "C0.", markersize=3)
    middle.axhline(0.02, color="k", linewidth=0.5, linestyle=":")
    middle.set(xlabel="thousand steps", title="KL divergence of a step", ylim=0)
    seconds = Pendulum().time_step * np.arange(200)
    for (name, height), colour in zip(paths.items(), ("C7", "C1"), strict=True):
        shown = 2 if name == "first" else 12
        right.plot(seconds, height[:, :shown], colour, linewidth=0.8, alpha=0.8)
        right.plot([], [], colour, label=name)
    right.set(xlabel="seconds", title="height of the tip, new starts")
    right.legend(frameon=False, loc="center right")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/swing_up.png", dpi=150)
    print("\nout/swing_up.png: the training, and the pendulum before and after")


if __name__ == "__main__":
    main()
