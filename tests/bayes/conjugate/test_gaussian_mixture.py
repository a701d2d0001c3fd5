"""Gaussian mixtures: scikit-learn's fixed point, the update written out, the bound."""

from __future__ import annotations

import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import digamma
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

from ngvi.bayes.conjugate import BayesianGaussianMixture
from ngvi.bayes.conjugate import gaussian_mixture as steps
from ngvi.bayes.conjugate.gaussian_mixture import Mixture
from ngvi.families import Dirichlet, NormalInverseWishart
from tests.bayes.conjugate.one_component import REFUSED
from tests.programs import compiled

K, P = 3, 2
RNG = np.random.default_rng(0)
CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]])
SHIFT = np.array([100.0, -50.0])
LABELS = RNG.integers(0, K, 120)
X = CENTRES[LABELS] + RNG.normal(size=(120, P)) * [0.5, 1.0] + SHIFT


@pytest.mark.slow
@parametrize_with_checks(
    [BayesianGaussianMixture(2)], expected_failed_checks=lambda _: REFUSED
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)


def test_update_written_out() -> None:
    x = X - X.mean(0)
    prior = Mixture(
        Dirichlet(jnp.full(K, 0.5)),
        NormalInverseWishart(jnp.zeros(P), 0.7, 4.0, 2.0 * jnp.eye(P)),
    )
    r = np.random.default_rng(1).dirichlet(np.ones(K), len(x))
    q = steps.begin(prior, jnp.asarray(x), jnp.asarray(r))
    # Bishop (2006), equations 10.57 to 10.63 and 10.46, 10.64 to 10.67.
    counts = r.sum(0)
    np.testing.assert_allclose(q.weights.concentration, 0.5 + counts, rtol=1e-10)
    logs = np.zeros((len(x), K))
    for k in range(K):
        mean = r[:, k] @ x / counts[k]
        scatter = (r[:, k, None] * (x - mean)).T @ (x - mean)
        kappa, df = 0.7 + counts[k], 4.0 + counts[k]
        loc = counts[k] * mean / kappa
        shift = 0.7 * counts[k] / kappa * np.outer(mean, mean)
        scale = 2.0 * np.eye(P) + scatter + shift
        part = q.components
        np.testing.assert_allclose(part.kappa[k], kappa, rtol=1e-10)
        np.testing.assert_allclose(part.df[k], df, rtol=1e-10)
        np.testing.assert_allclose(part.loc[k], loc, rtol=1e-9)
        np.testing.assert_allclose(part.scale[k], scale, rtol=1e-9)
        log_det = digamma((df - np.arange(P)) / 2).sum() + P * np.log(2)
        log_det -= np.linalg.slogdet(scale)[1]
        error = np.einsum("ni,ij,nj->n", x - loc, np.linalg.inv(scale), x - loc)
        logs[:, k] = (log_det - P * np.log(2 * np.pi) - P / kappa - df * error) / 2
        logs[:, k] += digamma(0.5 + counts[k]) - digamma(0.5 * K + len(x))
    found = compiled(steps.log_joint)(q, jnp.asarray(x))
    np.testing.assert_allclose(found, logs, rtol=1e-9)
    r = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
    again = steps.stochastic_step(q, prior, jnp.asarray(x), 1.0, 1.0)
    np.testing.assert_allclose(again.weights.concentration, 0.5 + r.sum(0), rtol=1e-9)


def test_scikit_learns_fixed_point() -> None:
    settings = {"tol": 1e-10, "max_iter": 500, "random_state": 0}
    mine = BayesianGaussianMixture(K, **settings).fit(X)
    peer = Peer(
        n_components=K,
        weight_concentration_prior_type="dirichlet_distribution",
        reg_covar=0.0,
        **settings,
    ).fit(X)
    order, other = mine.weights_.argsort(), peer.weights_.argsort()
    np.testing.assert_allclose(mine.means_[order], peer.means_[other], atol=1e-5)
    np.testing.assert_allclose(mine.weights_[order], peer.weights_[other], atol=1e-6)
    np.testing.assert_allclose(
        mine.covariances_[order], peer.covariances_[other], atol=1e-5
    )
    assert (np.diff(mine.history_) > -1e-9).all()


def test_predictive_density_and_draws() -> None:
    mixture = BayesianGaussianMixture(K, random_state=0).fit(X)
    q, at = mixture.posterior_.components, X - mixture.shift_
    expected = np.zeros(len(X))
    for k in range(K):
        df = float(q.df[k]) - P + 1
        shape = np.asarray(q.scale[k]) * (1 + 1 / float(q.kappa[k])) / df
        student = scipy.stats.multivariate_t(np.asarray(q.loc[k]), shape, df)
        expected += mixture.weights_[k] * student.pdf(at)
    np.testing.assert_allclose(mixture.score_samples(X), np.log(expected))
    rows, labels = mixture.sample(2000, random_state=1)
    shares = np.bincount(labels, minlength=K) / 2000
    # Monte Carlo: five standard errors.
    error = np.sqrt(mixture.weights_ * (1 - mixture.weights_) / 2000)
    assert (abs(shares - mixture.weights_) < 5 * error).all()
    assert (abs(rows.mean(0) - X.mean(0)) < 5 * rows.std(0) / 2000**0.5).all()
    copy = pickle.loads(pickle.dumps(mixture))
    np.testing.assert_array_equal(copy.predict(X), mixture.predict(X))


def test_components_that_are_not_needed() -> None:
    mixture = BayesianGaussianMixture(
        5,
        covariance_type="diag",
        weight_concentration_prior=1e-3,
        n_init=3,
        random_state=0,
    ).fit(X)
    assert (np.diff(mixture.history_) > -1e-8).all() and mixture.converged_
    used = mixture.weights_ > 0.05
    assert used.sum() == K and mixture.weights_[~used].max(initial=0) < 1e-3
    gaps = mixture.means_[used][:, None] - (CENTRES + SHIFT)
    assert sorted(np.abs(gaps).sum(-1).argmin(1)) == [0, 1, 2]
    assert len(np.unique(mixture.predict(X))) == K
    np.testing.assert_allclose(mixture.predict_proba(X).sum(1), 1)
    assert (mixture.covariances_[used] < X.var(0) / 2).all()


def test_minibatches() -> None:
    whole = BayesianGaussianMixture(K, random_state=0).fit(X)
    batches = BayesianGaussianMixture(
        K, batch_size=40, max_iter=15, learning_offset=1.0, random_state=0
    ).fit(X)
    assert whole.bound_ - 2 < batches.bound_ <= whole.bound_ + 1e-6
    assert len(batches.history_) == 15


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"n_components": 1}, X, "n_components must be a whole number, 2 or more"),
    ({"n_components": 500}, X, "as many rows or more"),
    ({"covariance_type": "tied"}, X, "one of full, diag"),
    ({"mean_prior": np.zeros(3)}, X, r"mean_prior must have shape \(2,\)"),
    ({"covariance_prior": np.ones(2)}, X, r"must have shape \(2, 2\)"),
    ({"covariance_prior": -np.eye(2)}, X, "scale must be"),
    ({"degrees_of_freedom_prior": 0.5}, X, "df must be above p - 1 = 1"),
    ({}, np.where(X > 105, np.nan, X), "NaN"),
]


@pytest.mark.parametrize(("settings", "x", "message"), BAD)
def test_bad_input(settings: dict[str, Any], x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BayesianGaussianMixture(**settings).fit(x)


def test_too_few_iterations() -> None:
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        BayesianGaussianMixture(K, max_iter=1).fit(X)
