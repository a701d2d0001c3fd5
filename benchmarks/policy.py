"""Steps of an environment until CartPole is solved, by plain and natural gradients.

    python benchmarks/policy.py [--budget STEPS] [--out FILE.json]

Needs optax. Solved means a mean return of 475 of 500 over 100 fresh episodes of the
policy as it acts, looked at every 2,048 steps; those episodes are not counted. Policy
and values are networks 4-32-2 and 4-32-1; advantages (γ = 0.99, λ = 0.95, standardised)
and the fit of the values are the same for every row. Only the step differs. Each row
has a grid of as many points: five lengths of the step and two numbers of steps an
iteration. The best point is chosen on five seeds, with at most 40,960 steps each, and
measured on five others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
LOOK, EPISODES, SOLVED = 2048, 100, 475.0
ENVIRONMENTS, HORIZONS, TUNING_BUDGET = 16, (8, 32), 40_960
SEEDS = {"tuning": range(100, 105), "measured": range(5)}

Row = Callable[[float], PolicyOptimizer]


def plain(rate: float) -> PolicyOptimizer:
    return policy_gradient(POLICY, "categorical", learning_rate=rate)


def adam(rate: float) -> PolicyOptimizer:
    return policy_gradient(POLICY, "categorical", optimizer=optax.adam(rate))


def natural(max_kl: float) -> PolicyOptimizer:
    # As many iterations of conjugate gradients as change nothing any more.
    return natural_policy_gradient(
        POLICY,
        "categorical",
        max_kl=max_kl,
        structure="matrix-free",
        max_iterations=20,
    )


def by_layers(max_kl: float) -> PolicyOptimizer:
    return natural_policy_gradient(
        POLICY, "categorical", max_kl=max_kl, structure="kronecker"
    )


def trust_region(max_kl: float) -> PolicyOptimizer:
    return trpo(POLICY, "categorical", max_kl=max_kl)


BALLS = (0.001, 0.003, 0.01, 0.03, 0.1)
ROWS: dict[str, tuple[Row, tuple[float, ...]]] = {
    "plain": (plain, (0.1, 0.3, 1.0, 3.0, 10.0)),
    "natural": (natural, BALLS),
    "TRPO": (trust_region, BALLS),
    "natural, K-FAC": (by_layers, BALLS),
    "plain, Adam": (adam, (0.001, 0.003, 0.01, 0.03, 0.1)),
}


def value(params: Any, observations: jax.Array) -> jax.Array:
    return NET(params, observations)[:, 0]


@partial(jax.jit, static_argnums=0)
def looked_at(trainer: PolicyTrainer, states: Any, keys: jax.Array) -> tuple:
    """Of every seed: the training some steps later, and what the policy then earns."""

    def one(state: Any, key: jax.Array) -> tuple:
        of_run, of_look = jax.random.split(key)
        state, _ = trainer.run(state, of_run, LOOK // trainer.iteration_steps)
        act, cart = trainer.act(state), trainer.environment
        return state, episode_returns(cart, act, of_look, EPISODES).mean()

    return jax.vmap(one)(states, keys)


def started(trainer: PolicyTrainer, seed: int) -> Any:
    keys = jax.random.split(jax.random.key(seed), 3)
    return trainer.init(POLICY.init(keys[0]), NET.init(keys[1]), keys[2])


def steps_needed(
    optimizer: PolicyOptimizer, horizon: int, seeds: range, budget: int
) -> np.ndarray:
    """Of every seed; infinite where the budget was not enough."""
    baseline = GaussNewtonBaseline(value)
    trainer = PolicyTrainer(
        CartPole(), optimizer, baseline, environments=ENVIRONMENTS, horizon=horizon
    )
    each = [started(trainer, seed) for seed in seeds]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    keys = jax.vmap(lambda s: jax.random.fold_in(jax.random.key(7), s))(
        jnp.asarray(seeds)
    )
    needed = np.full(len(seeds), np.inf)
    for look in range(1, budget // LOOK + 1):
        at = jax.vmap(jax.random.fold_in, (0, None))(keys, look)
        states, earned = looked_at(trainer, states, at)
        solved = np.asarray(earned) >= SOLVED
        needed = np.where(solved & np.isinf(needed), look * LOOK, needed)
        if np.isfinite(needed).all():
            break
    return needed


def compared(budget: int) -> list[dict]:
    print(
        f"{'':16s}{'step':>8s}{'a turn':>8s}{'  steps needed, by seed':40s}{'mean':>9s}"
    )
    found = []
    for name, (row, grid) in ROWS.items():
        began = time.perf_counter()
        points = [(size, horizon) for size in grid for horizon in HORIZONS]
        tried = [
            steps_needed(row(size), horizon, SEEDS["tuning"], TUNING_BUDGET)
            for size, horizon in points
        ]
        # What the budget did not suffice for counts as the budget, in favour of it.
        tried = [np.minimum(needed, TUNING_BUDGET) for needed in tried]
        best = int(np.argmin([needed.mean() for needed in tried]))
        size, horizon = points[best]
        needed = steps_needed(row(size), horizon, SEEDS["measured"], budget)
        mean = float(np.minimum(needed, budget).mean())
        shown = "".join("   never" if np.isinf(n) else f"{int(n):8,d}" for n in needed)
        turn = horizon * ENVIRONMENTS
        print(f"{name:16s}{size:8g}{turn:8,d}{shown}{mean:9,.0f}", end="")
        print(f"   ({time.perf_counter() - began:.0f} s)", flush=True)
        found.append(
            {
                "row": name,
                "step": size,
                "steps an iteration": turn,
                "needed": [None if np.isinf(n) else int(n) for n in needed],
                "mean": mean,
                "tuning": [
                    {"step": s, "horizon": h, "needed": t.tolist()}
                    for (s, h), t in zip(points, tried, strict=True)
                ],
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(f"{jax.default_backend()}, jax {jax.__version__}, optax {optax.__version__}")
    found = compared(options.budget)
    means = {each["row"]: each["mean"] for each in found}
    for name in ("natural", "natural, K-FAC", "TRPO"):
        shares = (means[name] / means[other] for other in ("plain", "plain, Adam"))
        plain_share, adam_share = shares
        print(f"{name}: {plain_share:.2f} of plain, {adam_share:.2f} of Adam")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
