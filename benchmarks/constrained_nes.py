"""Evaluations that constrained and mixed-integer searches need.

    python benchmarks/constrained_nes.py [--seeds N] [--budget N] [--only NAME ...]
        [--out FILE.json]

With constraints: the median over seeds of the evaluations of f until a point has been
evaluated that violates no constraint by more than 1e-6 and whose f is at most 1e-6
max(1, |f*|) above the optimum f*; beside pycma's `fmin_con2` (its evaluations of the
mean counted, an equality as two inequalities 1e-7 apart) and, for orientation, SciPy's
COBYQA and COBYLA, which build models of f. With integers: evaluations to f* + 1e-10,
beside `CMAwM` of the package cmaes. One run each, without restarts, from the same
starts and deviations, with the same populations; a number in brackets says how many of
the seeds succeeded if not all did, and counts the others as infinite. The ratio is ours
over the first peer's.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.optimize

import ngvi

Vector = np.ndarray
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Problem:
    """Minimise f under c ≤ 0, or c = 0."""

    name: str
    dim: int
    fun: Callable[[Vector], float]
    constraint: Callable[[Vector], Any]
    optimum: float
    start: float = 3.0
    sigma: float = 1.0
    equality: bool = False

    def x0(self, seed: int) -> Vector:
        """The same for all searches."""
        noise = np.random.default_rng(seed).standard_normal(self.dim)
        return self.start + 0.1 * self.sigma * noise


def sphere(x: Vector) -> float:
    return float(x @ x)


def rosenbrock(x: Vector) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def ellipsoid() -> Problem:
    """A rotated quadratic of condition 1e4, two linear constraints active."""
    dim, rng = 10, np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    matrix = rotation * np.logspace(0, 4, dim) @ rotation.T
    normals = rng.standard_normal((2, dim))
    inverse = np.linalg.inv(matrix)
    multipliers = np.linalg.solve(normals @ inverse @ normals.T, np.ones(2))
    assert (multipliers > 0).all()
    x = inverse @ normals.T @ multipliers
    return Problem(
        "ellipsoid",
        dim,
        lambda x: float(x @ matrix @ x),
        lambda x: 1 - normals @ x,
        float(x @ matrix @ x),
    )


def in_ball() -> Problem:
    """Rosenbrock's function within a ball that leaves its optimum out."""
    dim = 10

    def constraint(x: Vector) -> Any:
        return [x @ x - dim / 2]

    # No closed form: SciPy's, from where the searches end.
    peer = scipy.optimize.minimize(
        rosenbrock,
        np.full(dim, 0.5),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: -constraint(x)[0]},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return Problem("rosenbrock", dim, rosenbrock, constraint, float(peer.fun), 0.5, 0.3)


def problems() -> list[Problem]:
    return [
        Problem("sphere", 10, sphere, lambda x: [1 - x[0]], 1.0),
        Problem("sphere", 40, sphere, lambda x: [1 - x[0]], 1.0),
        Problem("corner", 10, sphere, lambda x: 1 - x[:5], 5.0),
        ellipsoid(),
        in_ball(),
        Problem(
            "ball", 10, lambda x: float(x.sum()), lambda x: [x @ x - 1], -(10**0.5)
        ),
        Problem("linear", 10, lambda x: float(x.sum()), lambda x: -x, 0.0),
        Problem("equality", 10, sphere, lambda x: [x.sum() - 1], 0.1, equality=True),
        Problem(
            "g06",
            2,
            lambda x: float((x[0] - 10) ** 3 + (x[1] - 20) ** 3),
            lambda x: [
                100 - (x[0] - 5) ** 2 - (x[1] - 5) ** 2,
                (x[0] - 6) ** 2 + (x[1] - 5) ** 2 - 82.81,
            ],
            -6961.81387558,
            15.0,
            2.0,
        ),
        Problem(
            "g11",
            2,
            lambda x: float(x[0] ** 2 + (x[1] - 1) ** 2),
            lambda x: [x[1] - x[0] ** 2],
            0.75,
            0.5,
            0.3,
            equality=True,
        ),
    ]


class ReachedError(BaseException):
    """The goal is reached, or the budget spent: no handler of Exceptions sees it."""


@dataclass
class Counter:
    """Counts evaluations until the goal is reached."""

    fun: Callable[[Vector], float]
    goal: float
    budget: int
    violation: Callable[[Vector], float] = lambda x: 0.0
    count: int = 0
    found: float = np.inf

    def __call__(self, x: Vector) -> float:
        self.count += 1
        value = self.fun(x)
        if value <= self.goal and self.violation(x) <= TOLERANCE:
            self.found = self.count
            raise ReachedError
        if self.count >= self.budget:
            raise ReachedError
        return value


def evaluations(search: Callable[[], Any], counter: Counter) -> float:
    """How many a search needs, infinite if it ends or the budget does before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search()
    except ReachedError:
        pass
    return counter.found


def constrained(problem: Problem, name: str, seed: int, budget: int) -> float:
    def violation(x: Vector) -> float:
        c = np.asarray(problem.constraint(x))
        return float((np.abs(c) if problem.equality else np.maximum(c, 0)).max())

    goal = problem.optimum + TOLERANCE * max(1, abs(problem.optimum))
    fun = Counter(problem.fun, goal, budget, violation)
    x0, sigma = problem.x0(seed), problem.sigma

    def two_sided(x: Vector) -> list[float]:
        c = np.asarray(problem.constraint(x))
        if problem.equality:
            c = np.concatenate([c - 1e-7, -c - 1e-7])
        return c.tolist()

    kind = "eq" if problem.equality else "ineq"
    limit = {"type": kind, "fun": lambda x: -np.asarray(problem.constraint(x))}

    def ours() -> Any:
        options = {"vectorized": False, "restarts": 0, "budget": budget}
        return ngvi.minimize(
            fun, x0, sigma0=sigma, seed=seed, constraints=limit, **options
        )

    def pycma() -> Any:
        import cma

        options = {"verbose": -9, "seed": seed + 1, "maxfevals": budget}
        return cma.fmin_con2(fun, x0, sigma, constraints=two_sided, options=options)

    def of_scipy() -> Any:
        trust = {"COBYQA": "initial_tr_radius", "COBYLA": "rhobeg"}[name]
        options = {trust: sigma, "tol": 1e-9}
        return scipy.optimize.minimize(
            fun, x0, method=name, constraints=[limit], options=options
        )

    return evaluations({"ngvi": ours, "pycma": pycma}.get(name, of_scipy), fun)


def ellipsoid_int(x: Vector) -> float:
    return float((1000 ** np.linspace(0, 1, x.size) * x) ** 2 @ np.ones(x.size))


def ellipsoid_one_max(x: Vector) -> float:
    """Half of them bits: the paper's."""
    half = x.size // 2
    return ellipsoid_int(x[:half]) + half - float(x[half:].sum())


INTEGER = {
    "sphere-int": (20, sphere, (-10, 10)),
    "ellipsoid-int": (20, ellipsoid_int, (-10, 10)),
    "ellipsoid-int 40": (40, ellipsoid_int, (-10, 10)),
    "ellipsoid-one-max": (20, ellipsoid_one_max, (0, 1)),
}
"""(D, f, bounds of the second half, integers); the optimum is 0."""


def integer(problem: str, name: str, seed: int, budget: int) -> float:
    dim, f, (low, high) = INTEGER[problem]
    rng = np.random.default_rng(seed)
    whole = np.arange(dim) >= dim // 2
    x0 = rng.uniform(1, 3, dim)
    if high == 1:
        x0[whole] = 0.5
    fun = Counter(f, 1e-10, budget)
    bounds = np.where(whole[:, None], [low, high], [-np.inf, np.inf])

    def ours() -> Any:
        return ngvi.minimize(
            fun,
            x0,
            sigma0=1.0,
            seed=seed,
            bounds=bounds,
            integrality=whole,
            restarts=0,
            vectorized=False,
            budget=budget,
        )

    def margin() -> Any:
        from cmaes import CMAwM

        peer = CMAwM(x0, 1.0, bounds, whole.astype(float), seed=seed)
        while not peer.should_stop():
            asked = [peer.ask() for _ in range(peer.population_size)]
            peer.tell([(raw, fun(x)) for x, raw in asked])

    return evaluations({"ngvi": ours, "CMAwM": margin}[name], fun)


def show(name: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Print a line of the table."""
    medians = {search: float(np.median(counts)) for search, counts in found.items()}
    line = f"{name:18}"
    for search, counts in found.items():
        reached = int(np.isfinite(counts).sum())
        median = medians[search]
        text = f"{median:.0f}" if np.isfinite(median) else "–"
        if reached < len(counts):
            text += f" ({reached})"
        line += f"{text:>12}"
    first, second = list(medians.values())[:2]
    ratio = first / second if np.isfinite(first + second) else None
    print(line + (f"{ratio:>8.2f}" if ratio else f"{'–':>8}"), flush=True)
    return {"problem": name, "evaluations": found, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--budget", type=int, default=30_000)
    parser.add_argument("--only", nargs="+", help="names of problems")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    seeds, budget, rows = range(arguments.seeds), arguments.budget, []

    def wanted(name: str) -> bool:
        return arguments.only is None or name in arguments.only

    peers = ["ngvi", "pycma", "COBYQA", "COBYLA"]
    print(f"{'':18}" + "".join(f"{p:>12}" for p in peers) + f"{'ratio':>8}")
    for problem in filter(lambda p: wanted(p.name), problems()):
        # The models take minutes where there are many variables.
        able = [p for p in peers if p != "COBYQA" or problem.dim < 40]
        found = {p: [constrained(problem, p, s, budget) for s in seeds] for p in able}
        rows.append(show(f"{problem.name} {problem.dim}", found))
    searches = ["ngvi", "CMAwM"]
    print(f"{'':18}" + "".join(f"{p:>12}" for p in searches) + f"{'ratio':>8}")
    for name in filter(wanted, INTEGER):
        found = {p: [integer(name, p, s, budget) for s in seeds] for p in searches}
        rows.append(show(name, found))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
