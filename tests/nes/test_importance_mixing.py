"""A mixed population has the new distribution, and keeps what the theory says."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from ngvi.families import Gaussian
from ngvi.linalg import Diagonal
from ngvi.nes.importance_mixing import Mixture, Population, mix

N, RUNS = 20, 2000


def gaussian(mean: list[float], sd: list[float]) -> Gaussian:
    return Gaussian(jnp.asarray(mean), Diagonal(1 / jnp.asarray(sd)))


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None, None))
def mixtures(key: jax.Array, old: Gaussian, new: Gaussian, refresh: float) -> Mixture:
    of_old, of_mix = jax.random.split(key)
    points = old.place(jax.random.normal(of_old, (N, 2)))
    return mix(of_mix, new, Population(old, points, points.sum(1)), refresh)


@pytest.mark.parametrize(
    ("mean", "sd", "refresh"),
    [
        ([0.3, 0.0], [0.9, 1.0], 0.01),
        ([0.0, 0.0], [1.0, 1.0], 0.3),
        ([0.0, 1.0], [2.0, 0.3], 0.1),
    ],
)
def test_the_population_has_the_new_distribution(
    mean: list[float], sd: list[float], refresh: float
) -> None:
    # Three numbers of each of 2,000 independent populations, Kolmogorov-Smirnov where
    # the law is known exactly: a member in a random place is N(0, I). Means within
    # populations, whose members need not be independent, by z < 5. All in all one false
    # alarm in 10⁵.
    old, new = gaussian([0.0, 0.0], [1.0, 1.0]), gaussian(mean, sd)
    mixed = mixtures(jax.random.split(jax.random.key(1), RUNS), old, new, refresh)
    eps, fresh = np.asarray(mixed.eps), np.asarray(mixed.fresh)
    np.testing.assert_allclose(jax.vmap(new.place)(mixed.eps), mixed.points, atol=1e-12)
    member = eps[np.arange(RUNS), np.random.default_rng(0).integers(N, size=RUNS)]
    for numbers in (*member.T, member.sum(1) / np.sqrt(2)):
        assert kstest(numbers, "norm").pvalue > 1e-6
    for statistic, exact in [(eps, 0), (eps**2, 1), (eps[..., :1] * eps[..., 1:], 0)]:
        averages = statistic.mean(1)
        error = np.abs(averages.mean(0) - exact)
        assert (error < 5 * averages.std(0) / np.sqrt(RUNS)).all()
    # Old points have the values they had.
    values, points = np.asarray(mixed.values), np.asarray(mixed.points)
    assert (np.isnan(values) == fresh).all()
    # The programs that add up may do so in another order.
    np.testing.assert_allclose(values[~fresh], points.sum(-1)[~fresh], atol=1e-14)
    # What is kept: ∫ min(q, (1 − α) q′), by a grid.
    grid = np.stack(np.meshgrid(*[np.linspace(-12, 12, 1201)] * 2), -1).reshape(-1, 2)
    densities = [np.exp(np.asarray(q.log_prob(jnp.asarray(grid)))) for q in (old, new)]
    kept = np.minimum(densities[0], (1 - refresh) * densities[1]).sum() * 0.02**2
    rate = 1 - fresh.mean()
    assert abs(rate - kept) < 5 * np.sqrt(kept * (1 - kept) / RUNS / N)


def test_nothing_in_common_refreshes_everything() -> None:
    old, new = gaussian([0.0, 0.0], [1.0, 1.0]), gaussian([1e3, 0.0], [1.0, 1e-6])
    mixed = mixtures(jax.random.split(jax.random.key(2), RUNS), old, new, 0.01)
    assert np.asarray(mixed.fresh).all()
    assert np.isfinite(np.asarray(mixed.points)).all()
