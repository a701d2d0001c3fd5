"""Multinomial logistic regression by natural gradients beside scikit-learn.

    python benchmarks/multinomial.py [--rows N] [--columns D] [--classes K]
        [--repeats R] [--out FILE.json]

Needs scikit-learn. Random data, three problems: classes of like sizes from independent
columns, the same with columns of scales from 0.01 to 1, and classes of sizes from
thousandths to a third. Both libraries minimise the same objective (l2 = 1) in float64
from zero; `gap` is how far, relatively, a fit's objective is above the least found by
any, and each solver has the loosest tolerance on a grid that brings its gap to 1e-8 or
below. Times are of whole calls, the fastest of R by turns, each with one thread of the
BLAS library and with as many as there are. `compile` is what the first call took on
top; a fit of other data of the same shapes does not pay it again. "dense" also gives
standard errors.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ngvi.fisher.regression import multinomial

L2 = 1.0
GOAL = 1e-8


class Data(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class Solver(NamedTuple):
    """One way to fit, and what it is asked for."""

    fit: Callable[[Data, float], Any]
    tolerances: list[float]
    iterations: Callable[[Any], int]
    parameters: Callable[[Any], tuple[np.ndarray, np.ndarray]]


def problems(rows: int, columns: int, classes: int) -> dict[str, Data]:
    rng = np.random.default_rng(0)

    def drawn(scales: np.ndarray, levels: np.ndarray) -> Data:
        x = (
            rng.normal(size=(rows, columns))
            @ np.linalg.qr(rng.normal(size=(columns, columns)))[0]
        )
        x = x * scales
        slopes = rng.normal(size=(columns, classes)) * 3 / np.sqrt(columns)
        noise = rng.gumbel(size=(rows, classes))
        return Data(x, (x @ slopes + levels + noise).argmax(1))

    ones, none = np.ones(columns), np.zeros(classes)
    return {
        "plain": drawn(ones, none),
        "scales": drawn(np.logspace(-2, 0, columns), none),
        "rare classes": drawn(ones, np.linspace(-9, 0, classes)),
    }


def ours(method: str) -> Solver:
    return Solver(
        lambda data, tol: multinomial(data.x, data.y, l2=L2, method=method, tol=tol),
        [10.0**k for k in range(1, -9, -1)],
        lambda fit: fit.iterations,
        lambda fit: (fit.coefficients, fit.intercept),
    )


def theirs(solver: str) -> Solver:
    return Solver(
        lambda data, tol: LogisticRegression(
            C=1 / L2, solver=solver, tol=tol, max_iter=10_000
        ).fit(data.x, data.y),
        [c * 10.0**k for k in range(-2, -9, -1) for c in (3, 1)],
        lambda fit: int(fit.n_iter_[0]),
        lambda fit: (fit.coef_, fit.intercept_),
    )


def objective(data: Data, parameters: tuple[np.ndarray, np.ndarray]) -> float:
    """−log likelihood + ½ l2 ‖W‖²."""
    slopes, intercept = parameters
    logits = data.x @ slopes.T + intercept
    top = logits.max(1)
    total = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    chosen = logits[np.arange(len(data.y)), data.y]
    return float((total - chosen).sum() + L2 * (slopes**2).sum() / 2)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(data: Data, repeats: int) -> dict[str, dict[str, float]]:
    """A row of numbers for each solver."""
    solvers = {
        "cg": ours("cg"),
        "dense": ours("dense"),
        "lbfgs": theirs("lbfgs"),
        "newton-cholesky": theirs("newton-cholesky"),
    }
    first = {
        name: seconds(lambda s=s: s.fit(data, s.tolerances[0]))
        for name, s in solvers.items()
    }
    least = objective(data, solvers["dense"].parameters(solvers["dense"].fit(data, 0)))
    found: dict[str, dict[str, float]] = {}
    tolerances = {}
    for name, s in solvers.items():
        for tolerance in s.tolerances:
            with threadpool_limits(1):
                fit = s.fit(data, tolerance)
            gap = objective(data, s.parameters(fit)) / least - 1
            if gap <= GOAL:
                break
        tolerances[name] = tolerance
        found[name] = {"iterations": s.iterations(fit), "gap": gap, "seconds": np.inf}
        if hasattr(fit, "products"):
            found[name]["products"] = fit.products
    for _ in range(repeats):
        for name, s in solvers.items():
            for threads in (1, None):
                with threadpool_limits(threads):
                    taken = seconds(lambda n=name, s=s: s.fit(data, tolerances[n]))
                found[name]["seconds"] = min(found[name]["seconds"], taken)
    for name in ("cg", "dense"):
        found[name]["compile"] = max(first[name] - found[name]["seconds"], 0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore", ConvergenceWarning)
    table = {}
    print(
        f"{'':14}{'solver':17}{'steps':>6}{'products':>10}{'gap':>10}{'ms':>9}"
        f"{'/ lbfgs':>9}{'compile s':>11}"
    )
    for name, data in problems(options.rows, options.columns, options.classes).items():
        table[name] = compare(data, options.repeats)
        base = table[name]["lbfgs"]["seconds"]
        for solver, row in table[name].items():
            products = f"{row['products']:.0f}" if "products" in row else ""
            compiling = f"{row['compile']:.1f}" if "compile" in row else ""
            print(
                f"{name:14}{solver:17}{row['iterations']:6.0f}{products:>10}"
                f"{row['gap']:10.1e}{row['seconds'] * 1e3:9.1f}"
                f"{row['seconds'] / base:9.2f}{compiling:>11}",
                flush=True,
            )
    if options.out:
        options.out.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
