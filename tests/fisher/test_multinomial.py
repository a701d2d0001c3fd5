"""Multinomial logistic regression against statsmodels and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model
import statsmodels.api as sm

from ngvi.fisher.regression import logistic, multinomial, multinomial_fisher
from ngvi.fisher.regression.multinomial_fisher import Problem, reduced_fisher
from tests.programs import compiled


def elections() -> tuple[np.ndarray, np.ndarray]:
    """944 voters, 5 measurements, 7 parties."""
    loaded = sm.datasets.anes96.load()
    return np.asarray(loaded.exog), np.asarray(loaded.endog)


def test_fits_are_those_of_statsmodels() -> None:
    x, y = elections()
    theirs = sm.MNLogit(y, sm.add_constant(x)).fit(method="newton", disp=0, tol=1e-13)
    dense, free = (multinomial(x, y, method=m) for m in ("dense", "cg"))
    assert dense.converged and free.converged
    estimates, errors = dense.relative_to(0)
    np.testing.assert_allclose(estimates[1:], theirs.params.T, atol=1e-10)
    np.testing.assert_allclose(errors[1:], theirs.bse.T, rtol=1e-9)
    for what, expected in (("log_likelihood", "llf"), ("aic", "aic"), ("bic", "bic")):
        found = getattr(dense, what)
        np.testing.assert_allclose(found, getattr(theirs, expected), rtol=1e-10)
    np.testing.assert_allclose(dense.null_deviance, -2 * theirs.llnull, rtol=1e-8)
    np.testing.assert_allclose(dense.predict(x), theirs.predict(), rtol=1e-9)
    np.testing.assert_allclose(dense.coefficients.sum(0), 0, atol=1e-12)

    np.testing.assert_allclose(free.parameters, dense.parameters, atol=1e-8)
    assert free.covariance is None and free.products > free.iterations
    with pytest.raises(ValueError, match='fit with method="dense"'):
        free.relative_to(0)
    with pytest.raises(ValueError, match="9 is none of"):
        dense.relative_to(9)
    assert "relative to class 0.0" in str(dense) and "6 coefficients" in str(free)


@pytest.mark.parametrize("method", ["dense", "cg"])
def test_penalties_are_those_of_scikit_learn(method: str) -> None:
    loaded = sklearn.datasets.load_iris()
    theirs = sklearn.linear_model.LogisticRegression(
        C=0.5, solver="newton-cholesky", tol=1e-12
    ).fit(loaded.data, loaded.target)
    names = loaded.target_names[loaded.target]
    ours = multinomial(loaded.data, names, l2=2.0, method=method)
    assert ours.classes.tolist() == ["setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, atol=1e-8)
    centered = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(ours.intercept, centered, atol=1e-7)
    unpenalised = multinomial(loaded.data, names, method=method)
    assert not unpenalised.converged and "(separation)" in unpenalised.message


def test_two_classes_are_logistic_regression() -> None:
    x, y = elections()
    weights = np.arange(len(y)) % 3  # a third of the rows not at all
    two = multinomial(x, y > 3, weights=weights)
    one = logistic(x, y > 3, weights=weights)
    estimates, errors = two.relative_to(False)
    np.testing.assert_allclose(estimates[1], one.parameters, atol=1e-9)
    np.testing.assert_allclose(errors[1], one.standard_errors, rtol=1e-8)
    np.testing.assert_allclose(two.deviance, one.deviance)
    np.testing.assert_allclose(two.null_deviance, one.null_deviance)


def test_the_dense_matrix_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    basis, penalty = rng.normal(size=(23, 3)), rng.normal(size=(3, 3))
    weights = rng.uniform(size=23)
    p = rng.dirichlet(np.ones(4), size=23)
    expected = np.zeros((12, 12))
    for row, w, probabilities in zip(basis, weights, p, strict=True):
        inner = np.diag(probabilities) - np.outer(probabilities, probabilities)
        expected += w * np.kron(inner, np.outer(row, row))
    expected += np.kron(np.eye(4), penalty.T @ penalty)
    # Coefficients of sum zero, by those of the first three less the last's.
    change = np.kron(np.eye(4)[:, :3] - 0.25, np.eye(3))
    parts = map(jnp.asarray, (basis, penalty, np.zeros(23, int), weights))
    problem = Problem(*parts)
    columns = multinomial_fisher.kept_products(problem.basis)
    monkeypatch.setattr(multinomial_fisher, "KEPT", 16 * 6 * 5)  # blocks of 5 rows
    for kept in (columns, None):
        found = compiled(reduced_fisher)(problem, p.T, kept)
        np.testing.assert_allclose(found, change.T @ expected @ change, atol=1e-12)


X = np.random.default_rng(1).normal(size=(20, 3))
Y = np.arange(20) % 3
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: multinomial(X, Y[:3]), r"y must have shape \(20,\), got \(3,\)"),
    (lambda: multinomial(X, 0 * Y), r"two classes or more, got \[0\]"),
    (lambda: multinomial(X, Y * np.nan), "y must have two classes|not have labels nan"),
    (lambda: multinomial(X, Y, method="lbfgs"), '"auto", "dense" or "cg", got'),
    (lambda: multinomial(X[:0], Y[:0]), "no examples"),
    (lambda: multinomial(np.hstack([X, X]), Y), "collinear"),
    (lambda: multinomial(X, Y, l2=1.0).predict(X[:, :1]), "must have 3 columns, got 1"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_explained(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
