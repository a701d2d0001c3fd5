"""Automatic relevance: the update written out, the bound, what is found."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma
from sklearn.linear_model import ARDRegression as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

from ngvi.bayes.conjugate import ARDRegression
from ngvi.bayes.conjugate import linear_regression as steps
from ngvi.families import Gamma

N, P = 60, 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, P)) * np.logspace(-2, 2, P) + 3
TRUE = np.where(np.arange(P) < 4, 2.0, 0.0) / np.logspace(-2, 2, P)
Y = X @ TRUE + RNG.normal(size=N) + 7


@pytest.mark.slow
@parametrize_with_checks([ARDRegression()])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)


def test_update_written_out() -> None:
    x = (X - X.mean(0)) / X.std(0)
    y = (Y - Y.mean()) / Y.std()
    data = steps.Data.of(jnp.asarray(x), jnp.asarray(y))
    priors = steps.Priors(Gamma(0.5, 0.3), Gamma(0.2, 0.4))
    done = steps.fit(data, priors, 0.0, 3, 512)
    # Bishop (2006), section 10.3, with a precision for each weight.
    alpha, beta = np.ones(P), 1.0
    for _ in range(3):
        sigma = np.linalg.inv(np.diag(alpha) + beta * x.T @ x)
        mean = beta * sigma @ x.T @ y
        squares = mean**2 + np.diag(sigma)
        error = ((y - x @ mean) ** 2).sum() + np.trace(x.T @ x @ sigma)
        alpha = (0.5 + 0.5) / (0.3 + squares / 2)
        beta = (0.2 + N / 2) / (0.4 + error / 2)
    found = done.state
    np.testing.assert_allclose(found.weights.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(found.weights.variance, np.diag(sigma), rtol=1e-9)
    np.testing.assert_allclose(found.relevance.mean, alpha, rtol=1e-9)
    np.testing.assert_allclose(found.noise.mean, beta, rtol=1e-9)
    # The bound, with every term written out, and as E[log joint] by many draws.
    a, b = np.full(P, 1.0), 0.3 + squares / 2
    log_alpha = digamma(a) - np.log(b)
    rate = 0.4 + error / 2
    log_beta = digamma(0.2 + N / 2) - np.log(rate)
    likelihood = N / 2 * (log_beta - np.log(2 * np.pi)) - beta * error / 2
    weights = (log_alpha - np.log(2 * np.pi) - alpha * squares).sum() / 2
    entropy = (P * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(sigma)[1]) / 2
    alike = Gamma(jnp.full(P, 0.5), jnp.full(P, 0.3))
    price = found.relevance.kl(alike).sum() + found.noise.kl(priors.noise)
    expected = likelihood + weights + entropy - float(price)
    np.testing.assert_allclose(done.history[-1], expected, rtol=1e-10)


def test_what_matters_is_found_in_any_units() -> None:
    ard = ARDRegression().fit(X, Y)
    assert (np.diff(ard.history_) > -1e-8).all()
    sds = abs(ard.coef_ - TRUE) / ard.coef_sd_
    assert (sds < 4).all()
    assert ard.relevance_[:4].max() < ard.relevance_[4:].min()
    assert 0.7 < ard.noise_sd_ < 1.4
    mean, sd = ard.predict(X, return_std=True)
    assert 0.8 < np.std((Y - mean) / sd) < 1.1
    peer = Peer().fit((X - X.mean(0)) / X.std(0), Y)
    new = np.random.default_rng(5).normal(size=(500, P)) * np.logspace(-2, 2, P) + 3
    ours = np.mean((ard.predict(new) - new @ TRUE - 7) ** 2)
    theirs = np.mean((peer.predict((new - X.mean(0)) / X.std(0)) - new @ TRUE - 7) ** 2)
    assert ours < 1.2 * theirs
    # Other units of X and y are no other answer; the evidence is a density of y.
    other = ARDRegression().fit(X * 10, Y * 5 - 3)
    np.testing.assert_allclose(other.coef_, ard.coef_ / 2, rtol=1e-8)
    np.testing.assert_allclose(other.bound_, ard.bound_ - N * np.log(5), rtol=1e-8)


def test_more_columns_than_rows() -> None:
    ard = ARDRegression().fit(X[:8], Y[:8])
    assert np.isfinite(ard.coef_).all() and np.isfinite(ard.bound_)
    constant = ARDRegression().fit(np.ones((5, 2)), np.full(5, 3.0))
    np.testing.assert_allclose(constant.predict(np.ones((1, 2))), 3.0)


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"max_iter": 0}, Y, "max_iter must be a whole number, 1 or more"),
    ({"noise_prior": (1.0,)}, Y, "noise_prior must be the concentration and the rate"),
    ({"relevance_prior": (0.0, 1.0)}, Y, "both positive"),
    ({}, np.where(Y > 10, np.inf, Y), "infinity"),
    ({}, Y[:5], "inconsistent numbers of samples"),
]


@pytest.mark.parametrize(("settings", "y", "message"), BAD)
def test_bad_input(settings: dict[str, Any], y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ARDRegression(**settings).fit(X, y)
