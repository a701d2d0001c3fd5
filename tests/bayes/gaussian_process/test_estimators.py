"""The estimators: scikit-learn's own processes and checks, units, bad data."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor as PeerRegressor
from sklearn.gaussian_process import kernels as theirs
from sklearn.utils.estimator_checks import parametrize_with_checks

from ngvi.bayes.gaussian_process import (
    RBF,
    GaussianProcessClassifier,
    GaussianProcessRegressor,
)
from ngvi.fisher.likelihoods import Categorical, Gaussian

RNG = np.random.default_rng(0)
X = RNG.uniform(-3, 3, (60, 1))
F = np.sin(2 * X[:, 0])
Y = 50 + 10 * F + 2 * RNG.normal(size=60)
NEW = np.linspace(-3, 3, 9)[:, None]
TRUTH = 50 + 10 * np.sin(2 * NEW[:, 0])


@pytest.mark.slow
@parametrize_with_checks(
    [GaussianProcessRegressor(max_iter=5), GaussianProcessClassifier(max_iter=5)]
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)


def test_regression_against_scikit_learn() -> None:
    noise = theirs.WhiteKernel(4.0)
    peer = PeerRegressor(90.0 * theirs.RBF(0.7) + noise, optimizer=None)
    peer.fit(X, Y - 50)
    gp = GaussianProcessRegressor(
        RBF(90.0, 0.7), likelihood=Gaussian(2.0), optimize=False, normalize_y=False
    ).fit(X, Y - 50)
    np.testing.assert_allclose(gp.elbo_, peer.log_marginal_likelihood(), rtol=1e-9)
    for mine, other in zip(
        gp.predict(NEW, return_std=True),
        peer.predict(NEW, return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    peer = PeerRegressor(90.0 * theirs.RBF(0.7) + noise, n_restarts_optimizer=0).fit(
        X, Y - Y.mean()
    )
    learned = GaussianProcessRegressor().fit(X, Y)
    assert learned.elbo_ > peer.log_marginal_likelihood_value_ - 1e-3
    np.testing.assert_allclose(
        learned.predict(X) - Y.mean(), peer.predict(X), atol=0.02
    )


def test_units_and_draws() -> None:
    gp = GaussianProcessRegressor().fit(X, Y)
    mean, sd = gp.predict(NEW, return_std=True)
    assert (abs(mean - TRUTH) < 2.5).all() and (sd > 1.5).all() and (sd < 4).all()
    drawn = gp.sample_y(NEW, 4000, random_state=1)
    assert drawn.shape == (9, 4000)
    # Monte Carlo errors of 4,000 draws: five of them.
    assert (abs(drawn.mean(1) - mean) < 5 * sd / np.sqrt(4000)).all()
    np.testing.assert_allclose(drawn.std(1), sd, rtol=5 / np.sqrt(8000))
    level, spread = gp.latent(NEW)
    np.testing.assert_allclose(level, mean)
    assert (spread < sd).all()
    assert -2.6 < gp.log_score(X, Y) < -1.7
    copy = pickle.loads(pickle.dumps(gp))
    np.testing.assert_array_equal(copy.predict(NEW), mean)
    assert clone(gp).get_params()["likelihood"] == "gaussian"


def test_sparse() -> None:
    whole = GaussianProcessRegressor().fit(X, Y)
    sparse = GaussianProcessRegressor(inducing=12, random_state=0).fit(X, Y)
    assert whole.elbo_ - 0.05 < sparse.elbo_ < whole.elbo_ + 1e-6
    np.testing.assert_allclose(sparse.predict(NEW), whole.predict(NEW), atol=0.3)
    batches = GaussianProcessRegressor(
        inducing=12, random_state=0, batch_size=20, epochs=60
    ).fit(X, Y)
    assert batches.elbo_ is None and len(batches.history_) == 60
    np.testing.assert_allclose(batches.predict(NEW), whole.predict(NEW), atol=1.5)


def test_outliers_and_counts() -> None:
    wild = Y + np.where(np.arange(60) % 10 == 0, 100.0, 0.0)
    robust = GaussianProcessRegressor(likelihood="student_t").fit(X, wild)
    plain = GaussianProcessRegressor().fit(X, wild)
    assert abs(robust.predict(NEW) - TRUTH).mean() < 2
    assert abs(plain.predict(NEW) - TRUTH).mean() > 5
    counts = RNG.poisson(np.exp(2 + F))
    gp = GaussianProcessRegressor(likelihood="poisson").fit(X, counts)
    mean, sd = gp.predict(NEW, return_std=True)
    rates = np.exp(2 + np.sin(2 * NEW[:, 0]))
    assert (abs(mean - rates) < 0.4 * rates + 1).all() and (sd > np.sqrt(mean)).all()
    assert (gp.sample_y(NEW, 3) >= 0).all()


def test_classification() -> None:
    names = np.where(F > 0, "up", "down")
    gp = GaussianProcessClassifier().fit(X, names)
    assert gp.classes_.tolist() == ["down", "up"] and gp.score(X, names) > 0.95
    p = gp.predict_proba(NEW)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(gp.predict_log_proba(NEW), np.log(p))
    mean, sd = gp.latent(NEW)
    assert mean.shape == sd.shape == (9,)
    three = np.digitize(F, [-0.5, 0.5])
    gp = GaussianProcessClassifier(RBF(9.0, 0.7), optimize=False).fit(X, three)
    assert gp.predict_proba(NEW).shape == (9, 3) and gp.score(X, three) > 0.9
    assert gp.latent(NEW)[0].shape == (9, 3) and len(gp.kernel_) == 3


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"kernel": 3.0}, Y, "kernel must be one of"),
    ({"inducing": 61}, Y, "number of rows, 60"),
    ({"inducing": np.zeros((3, 2))}, Y, r"must have shape \(m, 1\)"),
    ({"inducing": np.array([[np.nan]])}, Y, "must be finite"),
    ({"batch_size": 10}, Y, "batch_size needs inducing"),
    ({"batch_size": 0, "inducing": 5}, Y, "batch_size must be positive"),
    ({"max_iter": 0}, Y, "max_iter must be positive"),
    ({"tol": 0.0}, Y, "tol must be positive"),
    ({"likelihood": "poisson"}, Y, "labels must be"),
    ({"likelihood": "cauchy"}, Y, "unknown likelihood"),
    ({"likelihood": Categorical()}, Y, "one output"),
    ({}, np.where(np.arange(60) == 3, np.nan, Y), "NaN"),
    ({}, Y[:-1], "inconsistent numbers of samples"),
]


@pytest.mark.parametrize(("settings", "y", "message"), BAD)
def test_bad_input(settings: dict[str, Any], y: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        GaussianProcessRegressor(**settings).fit(X, y)


def test_one_class_and_too_few_iterations() -> None:
    with pytest.raises(ValueError, match="one class 1"):
        GaussianProcessClassifier().fit(X, np.ones(60, int))
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        GaussianProcessRegressor(max_iter=1).fit(X, Y)
