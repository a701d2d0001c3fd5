"""Evaluations that discrete searches need on problems with known optima.

    python benchmarks/discrete_search.py [--seeds N] [--budget N] [--out FILE.json]

For every problem and search, the median over seeds of the number of evaluations to the
optimum (dash: fewer than half of the searches found it within the budget) and the share
that found it:

    one-max        100 bits, as many ones as possible
    leading-ones   50 bits, as many ones as possible before the first zero
    max-cut        a ring of 20 vertices with chords: the largest cut, by exhaustion
    classes        30 variables of 5 classes, one right class each
    mixed          3 numbers, 3 bits and 2 classes; the bits move the numbers' optimum

beside uniform random search (of the mixed problem none comes near) and, where it is
installed, CatCMA of the package cmaes. That needs two numbers at least: where the
problem has none, it is given two that the objective ignores. Published means for
one-max and leading-ones, (1+1) evolution strategy: e D log D ≈ 1,250, 0.86 D² ≈ 2,150.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families import Bernoulli, Categorical, ExponentialFamily, Gaussian, Product
from ngvi.linalg import Dense
from ngvi.nes import discrete, mixed
from ngvi.nes.discrete import Discrete, compact_ga, natural, pbil, umda
from ngvi.nes.mixed import Mixed
from ngvi.nes.strategies import cma

RING = 20


def edges() -> np.ndarray:
    i = np.arange(RING)
    return np.concatenate([np.stack([i, (i + d) % RING], 1) for d in (1, 4, 7)])


def cut(x: Any) -> Any:
    a, b = edges().T
    return (x[..., a] != x[..., b]).sum(-1)


class Problem(NamedTuple):
    """Minimise; solved at `goal`."""

    variables: int
    classes: int
    value: Callable[[Any], Any]
    """Of codes, shape (..., variables), JAX's or NumPy's arrays."""
    goal: float


def best_cut() -> float:
    codes = (np.arange(2 ** (RING - 1))[:, None] >> np.arange(RING)) & 1
    return float(cut(codes).max())


def leading(x: Any) -> Any:
    return x.cumprod(-1).sum(-1)


PROBLEMS = {
    "one-max": Problem(100, 2, lambda x: -x.sum(-1), -100),
    "leading-ones": Problem(50, 2, lambda x: -leading(x), -50),
    "max-cut": Problem(RING, 2, lambda x: -cut(x), -best_cut()),
    "classes": Problem(30, 5, lambda x: -(x == 3).sum(-1), -30),
}
MIXED_GOAL = 1e-6


def mixed_value(numbers: Any, bits: Any, classes: Any) -> Any:
    wrong = (classes != 1).sum(-1) + bits.sum(-1)
    return ((numbers - bits - 0.5) ** 2).sum(-1) + wrong


def searches(problem: Problem) -> dict[str, Discrete]:
    v = problem.variables
    found = {"natural": natural(v), "PBIL": pbil(20), "UMDA": umda(v, 4 * v)}
    if problem.classes == 2:
        found["compact GA"] = compact_ga(v)
    return found


def uniform(problem: Problem) -> ExponentialFamily:
    if problem.classes == 2:
        return Bernoulli(jnp.zeros(problem.variables, jnp.float32))
    return Categorical(jnp.zeros((problem.variables, problem.classes), jnp.float32))


@partial(jax.jit, static_argnums=(0, 1, 3))
def best_so_far(
    strategy: Discrete, problem: Problem, keys: jax.Array, generations: int
) -> jax.Array:
    """The best value of every generation, seeds × generations."""

    def generation(
        state: discrete.State, key: jax.Array
    ) -> tuple[discrete.State, jax.Array]:
        x = discrete.ask(strategy, state, key)
        values = problem.value(x).astype(jnp.float32)
        return discrete.tell(strategy, state, x, values), values.min()

    def search(key: jax.Array) -> jax.Array:
        start = discrete.init(strategy, uniform(problem))
        return jax.lax.scan(generation, start, jax.random.split(key, generations))[1]

    return jax.vmap(search)(keys)


@partial(jax.jit, static_argnums=(0, 2))
def best_of_mixed(strategy: Mixed, keys: jax.Array, generations: int) -> jax.Array:
    q = Product(
        (
            Gaussian(jnp.zeros(3), Dense.from_deviations(jnp.ones(3))),
            Product((Bernoulli(jnp.zeros(3)), Categorical(jnp.zeros((2, 4))))),
        )
    )

    def generation(state: mixed.State, key: jax.Array) -> tuple[mixed.State, jax.Array]:
        draws = mixed.ask(strategy, state, key)
        numbers, (bits, classes) = mixed.place(state, draws)
        values = mixed_value(numbers, bits, classes)
        return mixed.tell(strategy, state, draws, values), values.min()

    def search(key: jax.Array) -> jax.Array:
        start = mixed.init(strategy, q)
        return jax.lax.scan(generation, start, jax.random.split(key, generations))[1]

    return jax.vmap(search)(keys)


def counts(best: Any, popsize: int, goal: float) -> np.ndarray:
    reached = np.asarray(best) <= goal
    return np.where(reached.any(1), (reached.argmax(1) + 1.0) * popsize, np.inf)


def random_search(problem: Problem, seed: int, budget: int) -> float:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, problem.classes, (budget, problem.variables))
    hits = np.flatnonzero(problem.value(x) <= problem.goal)
    return hits[0] + 1.0 if hits.size else np.inf


def cat_cma(
    numbers: int,
    classes: np.ndarray,
    value: Callable[[np.ndarray, np.ndarray], float],
    goal: float,
    seed: int,
    budget: int,
) -> float:
    from cmaes import CatCMA

    optimizer = CatCMA(np.zeros(numbers), 1.0, classes, seed=seed)
    for count in range(0, budget, optimizer.population_size):
        told = []
        for _ in range(optimizer.population_size):
            x, onehot = optimizer.ask()
            told.append(((x, onehot), value(x, onehot.argmax(1))))
        optimizer.tell(told)
        if min(v for _, v in told) <= goal:
            return count + float(optimizer.population_size)
    return np.inf


def report(rows: list[dict], problem: str, name: str, found: np.ndarray) -> None:
    share = float(np.isfinite(found).mean())
    median = float(np.median(found))
    shown = f"{median:,.0f}" if np.isfinite(median) else "–"
    print(f"{problem:14}{name:16}{shown:>12}{share:8.0%}", flush=True)
    rows.append({"problem": problem, "search": name, "median": shown, "share": share})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seeds, budget = range(arguments.seeds), arguments.budget
    keys = jax.random.split(jax.random.key(0), arguments.seeds)
    try:
        import cmaes

        theirs = f"CatCMA {cmaes.__version__}"
    except ImportError:
        theirs = ""
    print(f"{'':30}{'median':>12}{'found':>8}")
    rows: list[dict] = []
    start = time.perf_counter()
    for label, problem in PROBLEMS.items():
        for name, strategy in searches(problem).items():
            generations = budget // strategy.popsize
            best = best_so_far(strategy, problem, keys, generations)
            report(rows, label, name, counts(best, strategy.popsize, problem.goal))
        found = np.array([random_search(problem, s, budget) for s in seeds])
        report(rows, label, "random", found)
        if theirs:
            sizes = np.full(problem.variables, problem.classes)
            run = partial(
                cat_cma, 2, sizes, lambda _, c, p=problem: p.value(c), problem.goal
            )
            found = np.array([run(seed, min(budget, 5000)) for seed in seeds[:5]])
            report(rows, label, theirs + " (5 seeds, 5,000)", found)
    strategy = Mixed((cma(3, 12), natural(5, 12, margin=0.06)))
    best = best_of_mixed(strategy, keys, budget // 12)
    report(rows, "mixed", "CMA-ES × natural", counts(best, 12, MIXED_GOAL))
    if theirs:
        run = partial(
            cat_cma,
            3,
            np.array([2, 2, 2, 4, 4]),
            lambda x, c: mixed_value(x, c[:3], c[3:]),
            MIXED_GOAL,
        )
        found = np.array([run(seed, budget) for seed in seeds])
        report(rows, "mixed", theirs, found)
    print(f"{time.perf_counter() - start:.0f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
