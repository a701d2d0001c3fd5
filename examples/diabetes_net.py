"""Intervals for the course of a disease: a Bayesian net beside what is usual.

Scikit-learn's diabetes data, 442 patients, ten numbers each, and a measure of how the
disease went within a year. There is little to learn beyond a straight line; the
question is whether a net knows that, and whether its 90 % intervals hold nine of ten.
The net's defaults are used as they are, and its noise has a posterior of its own.

    ridge                 Bayesian ridge regression: a line
    Gaussian process      of squared distances, noise and length by marginal likelihood
    net                   `BayesianMLPRegressor()`
    net, a point          a net as large at a mode: only the noise is uncertain

The means over six random halves: to learn, and to test.

    python examples/diabetes_net.py
"""

import warnings
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import StandardScaler

from ngvi.fisher import MLP
from ngvi.nets import BayesianMLPRegressor, ObservationNoise, Predictive
from ngvi.nets.baselines import maximum_a_posteriori
from ngvi.nets.metrics import interval_coverage

LEVEL, SPLITS = 0.9, 6
WIDTH = norm.ppf((1 + LEVEL) / 2)
Result = tuple[np.ndarray, np.ndarray, np.ndarray, float]
"""Means, lower and upper ends of intervals, and the mean log density."""


def by_moments(model: Any, x: np.ndarray, y: np.ndarray) -> Result:
    """Of a model whose predictions are normal."""
    mean, sd = model.predict(x, return_std=True)
    return mean, mean - WIDTH * sd, mean + WIDTH * sd, norm.logpdf(y, mean, sd).mean()


def ridge(learn: Any, x: np.ndarray, y: np.ndarray) -> Result:
    return by_moments(BayesianRidge().fit(*learn), x, y)


def process(learn: Any, x: np.ndarray, y: np.ndarray) -> Result:
    kernel = ConstantKernel() * RBF(3.0) + WhiteKernel()
    model = GaussianProcessRegressor(kernel, normalize_y=True)
    return by_moments(model.fit(*learn), x, y)


def net(learn: Any, x: np.ndarray, y: np.ndarray) -> Result:
    model = BayesianMLPRegressor(random_state=0).fit(*learn)
    return model.predict(x), *model.predict_interval(x, LEVEL), model.log_score(x, y)


def point(learn: Any, x: np.ndarray, y: np.ndarray) -> Result:
    center, spread = learn[1].mean(), learn[1].std()
    targets = (learn[1] - center)[:, None] / spread
    data = learn[0].astype(np.float32), targets.astype(np.float32)
    mlp = MLP((x.shape[1], 50, 1), jax.nn.relu)
    row = maximum_a_posteriori(
        mlp,
        ObservationNoise.begin(1.0, 0.1),
        len(targets),
        prior_precision=[{"w": n, "b": n} for n in (float(x.shape[1]), 50.0)],
        learning_rate=0.01,
    )
    state = row.init(mlp.init(jax.random.key(0)), data)
    state, _ = row.run(state, data, jax.random.key(1), epochs=500, batch_size=32)
    predictive = Predictive(mlp, row.posterior(state), draws=256)
    key, new = jax.random.key(2), x.astype(np.float32)
    mean = predictive.moments(new, key).mean
    log_density = predictive.log_density(new, ((y - center) / spread)[:, None], key)
    inside = (mean, *predictive.interval(new, LEVEL, key))
    mean, lower, upper = (center + spread * np.asarray(v)[:, 0] for v in inside)
    return mean, lower, upper, float(log_density.mean()) - np.log(spread)


WAYS = {"ridge": ridge, "Gaussian process": process, "net": net, "net, a point": point}


def main() -> None:
    x, y = load_diabetes(return_X_y=True)
    marks: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    shown: dict[str, tuple[np.ndarray, ...]] = {}
    halves = ShuffleSplit(SPLITS, test_size=0.5, random_state=0)
    for learn, test in halves.split(x):
        scaler = StandardScaler().fit(x[learn])
        rows = scaler.transform(x[learn]), scaler.transform(x[test])
        for name, way in WAYS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mean, lower, upper, log_density = way(
                    (rows[0], y[learn]), rows[1], y[test]
                )
            marks[name].append(
                [
                    np.sqrt(((mean - y[test]) ** 2).mean()),
                    log_density,
                    interval_coverage(y[test], lower, upper),
                    (upper - lower).mean(),
                ]
            )
            shown[name] = mean, lower, upper, y[test]
    titles = ["RMSE", "log density", "coverage", "width"]
    print(f"{'':20s}" + "".join(f"{title:>18s}" for title in titles))
    for name, rows in marks.items():
        means, errors = np.mean(rows, 0), np.std(rows, 0, ddof=1) / SPLITS**0.5
        cells = [
            f"{f'{m:.{d}f} ± {e:.{d}f}':>18s}"
            for m, e, d in zip(means, errors, (1, 3, 3, 0), strict=True)
        ]
        print(f"{name:20s}" + "".join(cells))
    draw(shown)


def draw(shown: dict[str, tuple[np.ndarray, ...]]) -> None:
    figure, axes = plt.subplots(
        1, len(shown), figsize=(12, 3.4), sharey=True, layout="constrained"
    )
    for axis, (name, (mean, lower, upper, y)) in zip(axes, shown.items(), strict=True):
        order = np.argsort(mean)
        mean, lower, upper, y = (v[order] for v in (mean, lower, upper, y))
        inside = (lower <= y) & (y <= upper)
        rank = np.arange(len(y))
        axis.vlines(rank, lower, upper, color="0.85", linewidth=1)
        axis.plot(rank, mean, "k", linewidth=1)
        for mask, colour in ((inside, "C0"), (~inside, "C3")):
            axis.plot(rank[mask], y[mask], ".", color=colour, markersize=4)
        axis.set(title=f"{name}: {inside.mean():.0%} inside", xlabel="patients")
    axes[0].set_ylabel("progression")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/diabetes_net.png", dpi=150)
    print("\nout/diabetes_net.png: intervals of 90 % for the last half, by the mean")


if __name__ == "__main__":
    main()
