"""ngvi.minimize beside pycma, cmaes and evosax on COCO's 24 noiseless BBOB functions.

    python benchmarks/bbob.py [--dims N ...] [--instances N] [--multiplier M]
        [--functions N ...] [--solvers NAME ...] [--bounds] [--processes P]
        [--out FILE.json]

Needs coco-experiment, and cma, cmaes and evosax for those solvers. All search with
their default settings from x0 = 0 and σ₀ = 2, without bounds:

- ngvi: as it comes, which restarts in [−5, 5]ᴰ;
- pycma: CMA-ES with BIPOP restarts, told to restart anywhere in [−4, 4]ᴰ;
- cmaes: its CMA-ES, restarted with twice the population anywhere in [−4, 4]ᴰ whenever
  it says that it should stop;
- evosax: its CMA-ES in float64 with the usual population, 4 + 3 ln D. It has neither
  stop tests nor restarts, and what does not converge to the optimum goes on in vain.

With --bounds ngvi and pycma are given the box [−5, 5]ᴰ, where the optima are. A pair is
a problem (function, instance) and one of 51 targets 10², …, 10⁻⁸ above the optimum; the
tables show the fraction of pairs solved within 100 D, 1,000 D and 10,000 D evaluations,
by function and by group of functions. A search ends when it has reached the last
target.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

TARGETS = 10 ** np.linspace(2, -8, 51)
LIMITS = (-5.0, 5.0)
BUDGETS = (100, 1_000, 10_000)
GROUPS = {
    "separable": range(1, 6),
    "moderate": range(6, 10),
    "ill-conditioned": range(10, 15),
    "multimodal": range(15, 20),
    "weakly structured": range(20, 25),
    "all": range(1, 25),
}


@dataclass
class Trial:
    """One search."""

    solver: str
    function: int
    instance: int
    dim: int
    hits: list[int | None]
    """Evaluations until each target was reached."""
    evaluations: int
    seconds: float
    message: str


def optimum(problem: Any) -> np.ndarray:
    """Where the problem's minimum is; the suite tells it in a file only."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        problem._best_parameter("print")
        return np.loadtxt("._bbob_problem_best_parameter.txt")


class Watched:
    """A problem that notes when its targets are reached."""

    def __init__(self, problem: Any) -> None:
        self.problem = problem
        self.targets = problem(optimum(problem)) + TARGETS
        self.hits: list[int | None] = [None] * len(TARGETS)
        self.next, self.evaluations = 0, 0

    def __call__(self, x: np.ndarray) -> float:
        value = self.problem(x)
        self.evaluations += 1
        while self.next < len(TARGETS) and value <= self.targets[self.next]:
            self.hits[self.next] = self.evaluations
            self.next += 1
        return value


def with_ngvi(
    fun: Watched, x0: np.ndarray, budget: int, seed: int, bounded: bool
) -> str:
    import ngvi

    found = ngvi.minimize(
        fun,
        x0,
        sigma0=2.0,
        budget=budget,
        seed=seed,
        ftarget=float(fun.targets[-1]),
        vectorized=False,
        bounds=[LIMITS] * len(x0) if bounded else None,
    )
    return "; ".join([*found.stops[-3:], found.message])


def with_pycma(
    fun: Watched, x0: np.ndarray, budget: int, seed: int, bounded: bool
) -> str:
    import cma

    rng = np.random.default_rng(seed)
    starts = iter([x0])
    options = {
        "ftarget": float(fun.targets[-1]),
        "maxfevals": budget,
        "seed": seed + 1,
        "verbose": -9,
        "bounds": list(LIMITS) if bounded else [None, None],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, es = cma.fmin2(
            fun,
            lambda: next(starts, rng.uniform(-4, 4, len(x0))),
            2.0,
            options,
            restarts=1_000,
            bipop=True,
        )
    return ", ".join(es.stop())


def with_cmaes(
    fun: Watched, x0: np.ndarray, budget: int, seed: int, bounded: bool
) -> str:
    from cmaes import CMA

    no_bounds(bounded)
    rng = np.random.default_rng(seed)
    search = CMA(x0, 2.0, seed=seed)
    while fun.evaluations < budget and fun.next < len(TARGETS):
        asked = [search.ask() for _ in range(search.population_size)]
        search.tell([(x, fun(x)) for x in asked])
        if search.should_stop():
            start, size = rng.uniform(-4, 4, len(x0)), 2 * search.population_size
            search = CMA(start, 2.0, seed=seed, population_size=size)
    return f"population {search.population_size}"


@cache
def evosax_cma(dim: int) -> Any:
    """One for all searches of a dimension: it holds what is compiled."""
    from evosax.algorithms import CMA_ES

    return CMA_ES(4 + int(3 * np.log(dim)), np.zeros(dim))


def with_evosax(
    fun: Watched, x0: np.ndarray, budget: int, seed: int, bounded: bool
) -> str:
    import jax

    no_bounds(bounded)
    search = evosax_cma(len(x0))
    params = search.default_params.replace(std_init=np.asarray(2.0))
    key = jax.random.key(seed)
    state = search.init(key, x0, params)
    while fun.evaluations < budget and fun.next < len(TARGETS):
        key, draw = jax.random.split(key)
        asked, state = search.ask(draw, state, params)
        values = np.array([fun(x) for x in np.asarray(asked)])
        if not np.isfinite(values).all():
            return "not finite"
        state, _ = search.tell(draw, asked, values, state, params)
    return f"{state.generation_counter} generations"


def no_bounds(bounded: bool) -> None:
    if bounded:
        raise ValueError("only ngvi and pycma are run with --bounds.")


SOLVERS: dict[str, Callable[[Watched, np.ndarray, int, int, bool], str]] = {
    "ngvi": with_ngvi,
    "pycma": with_pycma,
    "cmaes": with_cmaes,
    "evosax": with_evosax,
}


def trials(
    solver: str,
    dim: int,
    functions: list[int],
    instances: int,
    multiplier: int,
    bounded: bool,
) -> list[Trial]:
    """The searches of one solver in one dimension."""
    import cocoex
    import jax

    jax.config.update("jax_enable_x64", True)
    chosen = ",".join(map(str, functions))
    suite = cocoex.Suite(
        "bbob",
        "",
        f"dimensions:{dim} function_indices:{chosen} instance_indices:1-{instances}",
    )
    done = []
    for problem in suite:
        function, instance = problem.id_function, problem.id_instance
        watched = Watched(problem)
        began = time.perf_counter()
        budget, search = multiplier * dim, SOLVERS[solver]
        message = search(watched, np.zeros(dim), budget, instance, bounded)
        done.append(
            Trial(
                solver,
                function,
                instance,
                dim,
                watched.hits,
                watched.evaluations,
                time.perf_counter() - began,
                message,
            )
        )
    return done


def fraction(found: list[Trial], budget: int) -> float:
    """Of the pairs, those solved within the budget."""
    solved = [h is not None and h <= budget * t.dim for t in found for h in t.hits]
    return float(np.mean(solved)) if solved else float("nan")


def show(found: list[Trial], solvers: list[str], budgets: list[int]) -> str:
    """The tables, in Markdown."""
    lines = []
    for dim in sorted({t.dim for t in found}):
        head = " | ".join(f"{b:,} D: {' / '.join(solvers)}" for b in budgets)
        lines += ["", f"| D = {dim} | {head} |", "|---" * (len(budgets) + 1) + "|"]
        rows = {
            **{f"f{f}": [f] for f in sorted({t.function for t in found})},
            **GROUPS,
        }
        for name, members in rows.items():
            here = [t for t in found if t.dim == dim and t.function in members]
            if not here:
                continue
            cells = [
                " / ".join(
                    f"{fraction([t for t in here if t.solver == s], b):.3f}"
                    for s in solvers
                )
                for b in budgets
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for solver in solvers:
            of_it = [t for t in found if t.dim == dim and t.solver == solver]
            if of_it:
                spent = sum(t.evaluations for t in of_it)
                micro = 1e6 * sum(t.seconds for t in of_it) / spent
                lines.append(
                    f"\n{solver}: {spent:,} evaluations, {micro:.0f} µs for each"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 3, 5, 10, 20])
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--multiplier", type=int, default=1_000)
    parser.add_argument("--functions", type=int, nargs="+", default=[*range(1, 25)])
    parser.add_argument(
        "--solvers", nargs="+", choices=SOLVERS, default=["ngvi", "pycma"]
    )
    parser.add_argument("--bounds", action="store_true", help="search in [-5, 5]^D")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to write every search, JSON")
    options = parser.parse_args()
    jobs = [
        (s, d, [f])
        for d in options.dims
        for f in options.functions
        for s in options.solvers
    ]
    # Function by function for a pool; one call a dimension keeps compiled programs.
    if options.processes == 1:
        jobs = [
            (s, d, options.functions) for d in options.dims for s in options.solvers
        ]
    # The matrices are small: threads would wait for each other more than they compute.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    found: list[Trial] = []
    context = get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        rest = options.instances, options.multiplier, options.bounds
        waiting = [pool.submit(trials, *job, *rest) for job in jobs]
        for future in waiting:
            found += future.result()
    budgets = [b for b in BUDGETS if b <= options.multiplier]
    print(show(found, options.solvers, budgets))
    if options.out:
        options.out.write_text(json.dumps([asdict(t) for t in found]))


if __name__ == "__main__":
    main()
