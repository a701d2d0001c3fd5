"""Gaussian processes where the noise is not Gaussian: outliers, and counts.

Left: a curve with a few readings that went wrong. With Gaussian noise the process takes
them for the curve or drowns it in noise; Student's t explains each by itself, as the
sites of such data weigh next to nothing (their precisions may be negative, and the
accepted steps of conjugate-computation VI allow for that). Right: coal-mining disasters
by year, whose rate is the exponential of a process, with a Poisson likelihood.

Source: Vanhatalo, Jylänki and Vehtari (2009), Gaussian process regression with a
Student-t likelihood; Jarrett (1979), A note on the intervals between coal-mining
disasters, for the counts.

    python examples/robust_processes.py
"""

from __future__ import annotations

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from ngvi.bayes.gaussian_process import GaussianProcessRegressor

DISASTERS = (
    "4 5 4 0 1 4 3 4 0 6 3 3 4 0 2 6 3 3 5 4 5 3 1 4 4 1 5 5 3 4 2 5 2 2 3 4 2 1 3 2 "
    "2 1 1 1 1 3 0 0 1 0 1 1 0 0 3 1 0 3 2 2 0 1 1 1 0 1 0 1 0 0 0 2 1 0 0 0 1 1 0 2 "
    "3 3 1 1 2 1 1 1 1 2 4 2 0 0 1 4 0 0 0 1 0 0 0 0 0 1 0 0 1 0 1"
)


def curve(x: np.ndarray) -> np.ndarray:
    return np.sin(x) * x


def readings() -> tuple[np.ndarray, np.ndarray]:
    """Eighty, one in eight of them wrong."""
    rng = np.random.default_rng(2)
    x = np.sort(rng.uniform(0, 9, 80))
    y = curve(x) + 0.3 * rng.normal(size=80)
    return x, y + np.where(rng.uniform(size=80) < 1 / 8, rng.normal(8, 6, 80), 0)


def fit(x: np.ndarray, y: np.ndarray, likelihood: str) -> GaussianProcessRegressor:
    return GaussianProcessRegressor(likelihood=likelihood).fit(x[:, None], y)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    x, y = readings()
    grid = np.linspace(0, 9, 200)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(x, y, "k.", ms=4)
    left.plot(grid, curve(grid), "k--", lw=1, label="the curve")
    print(f"{'':12s}{'rms error':>10s}{'bound':>9s}")
    for likelihood, colour in (("gaussian", "C1"), ("student_t", "C0")):
        process = fit(x, y, likelihood)
        mean, sd = process.latent(grid[:, None])
        error = np.sqrt(((mean - curve(grid)) ** 2).mean())
        print(f"{likelihood:12s}{error:10.2f}{process.elbo_:9.1f}")
        left.plot(grid, mean, colour, label=likelihood.replace("_", " "))
        left.fill_between(grid, mean - 2 * sd, mean + 2 * sd, color=colour, alpha=0.2)
    left.set(title="readings, some of them wrong", ylim=(-8, 18))
    left.legend(frameon=False)

    counts = np.array(DISASTERS.split(), int)
    years = 1851.0 + np.arange(len(counts))
    process = fit(years, counts, "poisson")
    mean, sd = process.latent(years[:, None])
    level, low, high = np.exp([mean, mean - 2 * sd, mean + 2 * sd])
    before, after = level[years < 1880].mean(), level[years > 1900].mean()
    print(f"\ndisasters a year: {before:.1f} before 1880, {after:.1f} after 1900")
    right.bar(years, counts, color="0.8", width=1)
    right.plot(years, level, "C0")
    right.fill_between(years, low, high, color="C0", alpha=0.3)
    right.set(title="coal-mining disasters a year, and their rate")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/robust_processes.png", dpi=150)
    print("\nout/robust_processes.png: both fits, with bands of two sds")


if __name__ == "__main__":
    main()
