"""Gaussian processes by conjugate-computation VI beside scikit-learn's.

    OPENBLAS_NUM_THREADS=1 python benchmarks/gaussian_processes.py [--splits S]
        [--only NAME ...] [--out FILE.json]

Needs scikit-learn. Standardised columns, a fifth of the rows held out, float64, the
same RBF kernel (a lengthscale for each of up to ten columns, else one) and start for
both; their parameters are learned by L-BFGS in either. `density` is the mean log
predictive density of what was held out (with noise), `error` the rate of wrong classes
or the rmse in standard deviations of y, `evidence` the log marginal likelihood, its
bound (ngvi, but for exact regression) or its Laplace approximation (scikit-learn's
classifier), at the parameters each has learned. Times are of fits of the second and
later splits; `first` is what the first took, with compilation.
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
from scipy.stats import norm
from sklearn import datasets
from sklearn.gaussian_process import GaussianProcessClassifier as PeerClassifier
from sklearn.gaussian_process import GaussianProcessRegressor as PeerRegressor
from sklearn.gaussian_process.kernels import RBF as PeerRBF
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from ngvi.bayes.gaussian_process import (
    RBF,
    GaussianProcessClassifier,
    GaussianProcessRegressor,
)


class Problem(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    classes: bool


def rings() -> Problem:
    x, y = datasets.make_circles(600, noise=0.25, factor=0.4, random_state=0)
    return Problem(x, y, True)


def waves(outliers: bool) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (1000, 2))
    y = np.sin(2 * x[:, 0]) * np.cos(x[:, 1]) + 0.2 * rng.normal(size=1000)
    if outliers:
        y += np.where(rng.uniform(size=1000) < 0.05, 5 * rng.normal(size=1000), 0)
    return Problem(x, y, False)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "diabetes": lambda: Problem(*datasets.load_diabetes(return_X_y=True), False),
    "waves": lambda: waves(False),
    "waves, outliers": lambda: waves(True),
    "breast cancer": lambda: Problem(
        *datasets.load_breast_cancer(return_X_y=True), True
    ),
    "rings": rings,
}


def models(problem: Problem) -> dict[str, Callable[[], Any]]:
    columns = problem.x.shape[1]
    scale: Any = np.sqrt(columns)
    if columns <= 10:
        scale = np.full(columns, scale)
    peer = ConstantKernel(1.0, (1e-4, 1e4)) * PeerRBF(scale, (1e-3, 1e4))
    kernel = RBF(1.0, scale)
    if problem.classes:
        return {
            "scikit-learn": lambda: PeerClassifier(peer, max_iter_predict=100),
            "ngvi": lambda: GaussianProcessClassifier(kernel),
            "ngvi, 50 inducing": lambda: GaussianProcessClassifier(
                kernel, inducing=50, random_state=0
            ),
        }
    noisy = peer + WhiteKernel(0.1, (1e-4, 1e2))
    return {
        "scikit-learn": lambda: PeerRegressor(noisy, normalize_y=True),
        "ngvi": lambda: GaussianProcessRegressor(kernel),
        "ngvi, 50 inducing": lambda: GaussianProcessRegressor(
            kernel, inducing=50, random_state=0
        ),
        "ngvi, Student t": lambda: GaussianProcessRegressor(
            kernel, likelihood="student_t", inducing=50, random_state=0
        ),
    }


def judge(model: Any, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    if hasattr(model, "predict_proba"):
        p = model.predict_proba(x)[np.arange(len(y)), y]
        evidence = getattr(model, "elbo_", None)
        if evidence is None:
            evidence = model.log_marginal_likelihood_value_
        density = float(np.log(p).mean())
        return {
            "density": density,
            "error": float((model.predict(x) != y).mean()),
            "evidence": float(evidence),
        }
    mean = model.predict(x)
    error = float(np.sqrt(((mean - y) ** 2).mean()) / y.std())
    if hasattr(model, "elbo_"):
        density, evidence = model.log_score(x, y), model.elbo_
    else:
        mean, sd = model.predict(x, return_std=True)
        density = float(norm(mean, sd).logpdf(y).mean())
        scale = len(model.y_train_) * np.log(model._y_train_std)
        evidence = model.log_marginal_likelihood_value_ - scale
    return {"density": density, "error": error, "evidence": float(evidence)}


def run(name: str, splits: int) -> list[dict[str, Any]]:
    problem = PROBLEMS[name]()
    print(f"\n{name}: {len(problem.x)} rows, {problem.x.shape[1]} columns")
    print(f"{'':20s}{'seconds':>9s}{'first':>8s}{'density':>10s}", end="")
    print(f"{'error':>8s}{'evidence':>11s}")
    rows = []
    for label, make in models(problem).items():
        times, found = [], []
        for seed in range(splits + 1):
            x, x_test, y, y_test = train_test_split(
                problem.x, problem.y, test_size=0.2, random_state=seed
            )
            scaler = StandardScaler().fit(x)
            start = time.perf_counter()
            model = make().fit(scaler.transform(x), y)
            times.append(time.perf_counter() - start)
            found.append(judge(model, scaler.transform(x_test), y_test))
        row = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
        row |= {"seconds": float(np.mean(times[1:])), "first": times[0]}
        rows.append({"problem": name, "model": label, **row})
        print(f"{label:20s}{row['seconds']:9.2f}{row['first']:8.2f}", end="")
        print(f"{row['density']:10.4f}{row['error']:8.3f}", end="")
        print(f"{row['evidence']:11.2f}", flush=True)
    return rows


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--out", type=Path, help="where to write all numbers, JSON")
    options = parser.parse_args()
    rows = [row for name in options.only for row in run(name, options.splits)]
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
