"""Predictions of UCI's small regression sets, beside a Gaussian process and ensembles.

    python benchmarks/uci_prediction.py [--data DIR] [--sets yacht …] [--splits 20]
        [--methods ngvi gp ensemble] [--out FILE.json]

Every method sees the same splits, with features and targets standardised by the
training rows: `BayesianMLPRegressor()` as it comes, scikit-learn's Gaussian process (a
length scale for each feature, noise, two restarts), and five nets of the same size,
the modes of which Adam finds (`ngvi.nets.baselines.deep_ensemble`), noise learned.
Reported are the mean log predictive density of the test rows in the target's units, its
difference to ours split by split with its standard error, root mean squared errors, the
coverage of 90 % intervals, and seconds.

Where the sets are read from, see `uci_data.py`; nothing is run for those not there.
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
from uci_data import Split, add_arguments, load

Predicted = tuple[float, np.ndarray, tuple[Any, Any]]
"""Of the test rows: the mean log density, the means, the ends of the intervals."""


class Score(NamedTuple):
    log_density: float
    rmse: float
    coverage: float
    seconds: float


def ngvi_default(split: Split) -> Predicted:
    from ngvi.nets import BayesianMLPRegressor

    net = BayesianMLPRegressor(random_state=split.seed).fit(split.x, split.y)
    score = net.log_score(split.x_test, split.y_test)
    return score, net.predict(split.x_test), net.predict_interval(split.x_test, 0.9)


def gaussian_process(split: Split) -> Predicted:
    from scipy.stats import norm
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    scales = np.ones(split.x.shape[1])
    kernel = ConstantKernel() * RBF(scales, (1e-2, 1e3)) + WhiteKernel(0.1, (1e-6, 1e1))
    gp = GaussianProcessRegressor(
        kernel, n_restarts_optimizer=2, normalize_y=True, random_state=split.seed
    )
    center, scale = split.x.mean(0), split.x.std(0)
    scale[scale == 0] = 1
    with warnings.catch_warnings():
        # Scales at their bounds: features that do not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        gp.fit((split.x - center) / scale, split.y)
    mean, sd = gp.predict((split.x_test - center) / scale, return_std=True)
    interval = mean + norm.ppf(0.05) * sd, mean + norm.ppf(0.95) * sd
    return float(norm.logpdf(split.y_test, mean, sd).mean()), mean, interval


def ensemble(split: Split) -> Predicted:
    from ngvi.fisher import MLP
    from ngvi.nets import ObservationNoise, Predictive
    from ngvi.nets.baselines import deep_ensemble

    x, y = split.x, split.y[:, None]
    center, scale, about, width = x.mean(0), x.std(0), y.mean(0), y.std(0)
    scale[scale == 0] = 1
    x, x_test = ((z - center) / scale for z in (x, split.x_test))
    net = MLP((x.shape[1], 50, 1), jax.nn.relu)
    trained = deep_ensemble(
        net,
        ObservationNoise.begin(1.0, 0.01),
        net.init,
        (x.astype(np.float32), ((y - about) / width).astype(np.float32)),
        jax.random.key(split.seed),
        members=5,
        epochs=1000,
        batch_size=32,
        learning_rate=0.003,
    )
    key = jax.random.key(split.seed)
    predictive = Predictive(net, trained, 5)
    labels = (split.y_test[:, None] - about) / width
    each = predictive.log_density(x_test, labels, key) - np.log(width[0])
    mean = predictive.moments(x_test, key).mean * width + about
    drawn = Predictive(net, trained, 100).interval(x_test, 0.9, key)
    interval = tuple(np.asarray(end * width + about)[:, 0] for end in drawn)
    return float(each.mean()), np.asarray(mean)[:, 0], interval


METHODS: dict[str, Callable[[Split], Any]] = {
    "ngvi": ngvi_default,
    "gp": gaussian_process,
    "ensemble": ensemble,
}


def score(method: Callable[[Split], Any], split: Split) -> Score:
    start = time.perf_counter()
    log_density, mean, (lower, upper) = method(split)
    inside = (lower <= split.y_test) & (split.y_test <= upper)
    return Score(
        log_density,
        float(np.sqrt(np.mean((mean - split.y_test) ** 2))),
        float(inside.mean()),
        time.perf_counter() - start,
    )


def row(name: str, method: str, found: list[Score], ours: list[Score]) -> str:
    scores = np.array(found)
    n = len(scores)
    densities = scores[:, 0]
    error = densities.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    line = f"| {name} | {method} | {densities.mean():.3f} ± {error:.3f} |"
    gain = densities - np.array(ours)[:n, 0]
    of_gain = gain.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    line += f" {gain.mean():+.3f} ± {of_gain:.3f} |"
    _, rmse, coverage, seconds = scores.mean(0)
    return f"{line} {rmse:.3f} | {100 * coverage:.1f} % | {seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, splits=20)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    print("| set | method | log density | minus ours | RMSE | 90 % holds | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    results: dict[str, dict[str, list[Score]]] = {}
    for name in args.sets:
        splits = load(args.data, name, args.splits)
        if not splits:
            continue
        found: dict[str, list[Score]] = {method: [] for method in args.methods}
        results[name] = found
        for split in splits:
            for method in args.methods:
                found[method].append(score(METHODS[method], split))
            if args.out:
                args.out.write_text(json.dumps(results))
        ours = found[args.methods[0]]
        for method in args.methods:
            print(row(name, method, found[method], ours), flush=True)


if __name__ == "__main__":
    main()
