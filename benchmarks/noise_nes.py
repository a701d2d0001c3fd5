"""Noisy objectives at equal budgets: how good the answers truly are, beside pycma.

    python benchmarks/noise_nes.py [--dim D] [--budget N] [--runs R] [--out FILE.json]

The sphere, an ellipsoid (condition 10³) and Rosenbrock's function, with additive noise
(standard deviation 1; .1 on Rosenbrock's) or multiplicative noise (f · (1 + N/2); N/20
on Rosenbrock's). Compared are the true values, all of whose minima are 0, of

- the answer of `ngvi.minimize` with `noisy=True`;
- plain CMA-ES: the mean of its distribution, and the luckiest point, its usual answer;
- the same with ten times the population, its mean;
- pycma with its noise handler, whose favourite is the mean too; left out if pycma is
  not installed.

No stop test but the budget ends a search. Medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ngvi
from ngvi.nes import Stopping

Objective = Callable[[np.ndarray], float]


class Row(NamedTuple):
    """One line of the table."""

    function: str
    noise: str
    search: str
    regret: float


class Case(NamedTuple):
    """A function, where its search starts, and how noisy it is."""

    fun: Objective
    start: float
    sigma: float
    noise: float


def ellipsoid(x: np.ndarray) -> float:
    return float(np.logspace(0, 3, x.size) @ x**2)


def rosenbrock(x: np.ndarray) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


CASES = {
    "sphere": Case(lambda x: float(x @ x), 3.0, 1.0, 1.0),
    "ellipsoid": Case(ellipsoid, 3.0, 1.0, 1.0),
    "Rosenbrock": Case(rosenbrock, 0.0, 0.3, 0.1),
}


def noisy(case: Case, kind: str, seed: int) -> Objective:
    rng = np.random.default_rng(seed)

    def fun(x: np.ndarray) -> float:
        value, noise = case.fun(np.asarray(x)), case.noise * rng.normal()
        return value + noise if kind == "additive" else value * (1 + noise / 2)

    return fun


def ours(
    fun: Objective, case: Case, dim: int, budget: int, seed: int, **options: Any
) -> Any:
    return ngvi.minimize(
        fun,
        np.full(dim, case.start),
        sigma0=case.sigma,
        budget=budget,
        seed=seed,
        method="cma",
        restarts=0,
        vectorized=False,
        stopping=Stopping(stagnation=0, tolfun=0, tolfunhist=0, tolx=0),
        **options,
    )


Answers = dict[str, np.ndarray]


def with_noise(*problem: Any) -> Answers:
    return {"ngvi, noisy": ours(*problem, noisy=True).x}


def plain(*problem: Any) -> Answers:
    found = ours(*problem)
    mean = np.asarray(found.distribution.mean)
    return {"ngvi, plain: mean": mean, "ngvi, plain: luckiest": found.x}


def large(*problem: Any) -> Answers:
    popsize = 10 * (4 + int(3 * math.log(problem[2])))
    found = ours(*problem, popsize=popsize)
    return {"ngvi, 10 populations": np.asarray(found.distribution.mean)}


def pycma(fun: Objective, case: Case, dim: int, budget: int, seed: int) -> Answers:
    import cma

    options = {
        "seed": seed + 1,
        "verbose": -9,
        "maxfevals": budget,
        "maxiter": np.inf,
        "tolfun": 0,
        "tolfunhist": 0,
        "tolx": 0,
        "tolstagnation": 0,
        "tolflatfitness": np.inf,
        "tolfacupx": np.inf,
    }
    handler = cma.NoiseHandler(dim, maxevals=[1, 1, 30])
    start = np.full(dim, case.start)
    _, search = cma.fmin2(fun, start, case.sigma, options, noise_handler=handler)
    return {"pycma, noise handler": np.asarray(search.result.xfavorite)}


SEARCHES = [with_noise, plain, large, pycma]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dim", type=int, default=10)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for name, case in CASES.items():
        for kind in ("additive", "multiplicative"):
            for search in SEARCHES:
                values: dict[str, list[float]] = {}
                try:
                    for seed in range(arguments.runs):
                        fun = noisy(case, kind, seed)
                        problem = fun, case, arguments.dim, arguments.budget, seed
                        for label, x in search(*problem).items():
                            values.setdefault(label, []).append(case.fun(x))
                except ImportError as error:
                    print(f"{search.__name__} left out: {error}")
                for label, found in values.items():
                    median = float(np.median(found))
                    rows.append(Row(name, kind, label, median))
                    print(f"{name:12}{kind:16}{label:24}{median:10.2g}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps([r._asdict() for r in rows], indent=1))


if __name__ == "__main__":
    main()
