"""Factors: the update written out, scikit-learn's covariance, entries missing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import FactorAnalysis as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

from ngvi.bayes.conjugate import FactorAnalysis
from ngvi.bayes.conjugate import factor_analysis as steps
from ngvi.families import Gamma, Gaussian
from ngvi.linalg import Dense

N, P, K = 200, 8, 4
RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=(N, 2)) @ RNG.normal(size=(2, P)) + 5
SDS = RNG.uniform(0.2, 1.0, P)
Y = SIGNAL + SDS * RNG.normal(size=(N, P))
HOLES = np.where(RNG.uniform(size=Y.shape) < 0.25, np.nan, Y)


@pytest.mark.slow
@parametrize_with_checks([FactorAnalysis(1, max_iter=30)])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)


def one_step(columns: Any, priors: Any, data: Any) -> Any:
    q = steps.rows(columns, data)
    z = steps.Moments.of(q).with_one()
    return q, steps.move(columns, priors, z, data)


def test_update_written_out() -> None:
    n, p, k = 7, 3, 2
    rng = np.random.default_rng(1)
    y, there = rng.normal(size=(n, p)), rng.uniform(size=(n, p)) < 0.7
    roots = rng.normal(size=(p, k + 1, k + 1)) / 3 + np.eye(k + 1)
    sigma = roots @ roots.transpose(0, 2, 1)
    v = rng.normal(size=(p, k + 1))
    alpha, tau = np.array([0.5, 2.0]), np.array([1.0, 3.0, 0.2])
    columns = steps.Columns(
        Gaussian(jnp.asarray(v), Dense.from_moments(jnp.asarray(sigma))),
        Gamma(alpha, jnp.ones(k)),
        Gamma(tau, jnp.ones(p)),
    )
    priors = steps.Priors(Gamma(0.3, 0.4), Gamma(0.5, 0.6))
    data = steps.Data.of(jnp.asarray(y), jnp.asarray(there))
    z, moved = jax.jit(one_step)(columns, priors, data)
    second = sigma + np.einsum("ja,jb->jab", v, v)
    means, seconds = np.ones((n, k + 1)), np.zeros((n, k + 1, k + 1))
    for i in range(n):
        seen = np.flatnonzero(there[i])
        precision = np.eye(k) + sum(tau[j] * second[j, :k, :k] for j in seen)
        linear = sum(tau[j] * (y[i, j] * v[j, :k] - second[j, :k, k]) for j in seen)
        covariance = np.linalg.inv(precision)
        means[i, :k] = covariance @ linear
        seconds[i] = np.outer(means[i], means[i])
        seconds[i, :k, :k] += covariance
    np.testing.assert_allclose(z.mean, means[:, :k], rtol=1e-10)
    level = np.append(alpha, steps.LEVEL_PRECISION)
    squares = np.zeros(k)
    for j in range(p):
        seen = np.flatnonzero(there[:, j])
        covariance = np.linalg.inv(np.diag(level) + tau[j] * seconds[seen].sum(0))
        mean = tau[j] * covariance @ (y[seen, j] @ means[seen])
        np.testing.assert_allclose(moved.loadings.mean[j], mean, rtol=1e-9)
        both = covariance + np.outer(mean, mean)
        error = sum(
            y[i, j] ** 2 - 2 * y[i, j] * mean @ means[i] + (both * seconds[i]).sum()
            for i in seen
        )
        np.testing.assert_allclose(moved.noise.concentration[j], 0.5 + len(seen) / 2)
        np.testing.assert_allclose(moved.noise.rate[j], 0.6 + error / 2, rtol=1e-9)
        squares += np.diag(both)[:k]
    np.testing.assert_allclose(moved.relevance.concentration, 0.3 + p / 2)
    np.testing.assert_allclose(moved.relevance.rate, 0.4 + squares / 2, rtol=1e-9)


def covariance(model: Any) -> np.ndarray:
    return model.components_.T @ model.components_ + np.diag(model.noise_variance_)


def test_factors_and_noise() -> None:
    factors = FactorAnalysis(K, random_state=0).fit(Y)
    assert (np.diff(factors.history_) > -1e-8).all()
    assert factors.bound_ >= factors.history_[-1]
    # Two factors are asked for, the others are switched off.
    assert (np.sort(factors.relevance_)[:2] < 20).all()
    assert (np.sort(factors.relevance_)[2:] > 100).all()
    peer = Peer(2).fit(Y)
    scale = np.sqrt(np.diag(covariance(peer)))
    gap = abs(covariance(factors) - covariance(peer)) / np.outer(scale, scale)
    assert gap.max() < 0.03
    ratio = np.median(factors.noise_variance_ / peer.noise_variance_)
    np.testing.assert_allclose(ratio, 1, atol=0.05)
    np.testing.assert_allclose(factors.mean_, Y.mean(0), atol=0.05)
    z = factors.transform(Y)
    assert z.shape == (N, K)
    assert abs(factors.inverse_transform(z) - SIGNAL).mean() < 0.35
    # The bound is a density of the data: other units change it by their logarithms.
    other = FactorAnalysis(K, random_state=0).fit(Y * 10 + 3)
    np.testing.assert_allclose(other.bound_, factors.bound_ - Y.size * np.log(10))


def test_missing_entries() -> None:
    factors = FactorAnalysis(K, noise="shared", random_state=0).fit(HOLES)
    assert (np.diff(factors.history_) > -1e-8).all()
    missing = np.isnan(HOLES)
    filled = factors.impute(HOLES)
    np.testing.assert_array_equal(filled[~missing], Y[~missing])
    error = (filled - Y)[missing] / np.broadcast_to(Y.std(0), Y.shape)[missing]
    # Of columns' means the error would be one sd.
    assert np.sqrt((error**2).mean()) < 0.7
    nothing = factors.impute(np.full((1, P), np.nan))
    np.testing.assert_allclose(nothing[0], factors.mean_)


def test_minibatches() -> None:
    whole = FactorAnalysis(K, random_state=0).fit(HOLES)
    batches = FactorAnalysis(K, batch_size=50, max_iter=30, random_state=0).fit(HOLES)
    assert len(batches.history_) == 30
    assert whole.bound_ - 40 < batches.bound_ < whole.bound_ + 1e-6


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"n_components": 0}, Y, "n_components must be a whole number, 1 or more"),
    ({"noise": "none"}, Y, "one of columns, shared"),
    ({"learning_decay": 2.0}, Y, "learning_decay must be above"),
    ({"learning_offset": -3.0}, Y, "learning_offset must be 0 or more"),
    ({"batch_size": 0}, Y, "batch_size must be a whole number, 1 or more"),
    ({"relevance_prior": (1.0, -1.0)}, Y, "both positive"),
    ({}, np.where(np.arange(P) == 2, np.nan, Y), r"columns \[2\] have no entry"),
    ({}, np.where(Y > 9, np.inf, Y), "infinity"),
]


@pytest.mark.parametrize(("settings", "y", "message"), BAD)
def test_bad_input(settings: dict[str, Any], y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FactorAnalysis(**settings).fit(y)
