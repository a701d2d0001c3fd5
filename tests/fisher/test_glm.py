"""Generalised linear models against statsmodels, scikit-learn and textbook IRLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model
import statsmodels.api as sm

from ngvi.fisher.likelihoods import (
    Bernoulli,
    Binomial,
    NegativeBinomial,
    StudentT,
    VonMises,
)
from ngvi.fisher.regression import glm, linear_regression, logistic, poisson, scoring
from ngvi.fisher.regression.links import LINKS
from tests.programs import compiled

links, kinds = sm.families.links, sm.families
# So tight that coefficients agree to 1e-8 where scoring converges linearly.
TIGHT = 1e-11


class Data(NamedTuple):
    x: np.ndarray
    y: np.ndarray


def real(name: str) -> Data:
    """A data set that comes with statsmodels, its columns in comparable units."""
    loaded = getattr(sm.datasets, name).load()
    x = np.asarray(loaded.exog, float)
    return Data((x - x.mean(0)) / x.std(0), np.asarray(loaded.endog, float))


def diabetes() -> Data:
    """442 patients, 10 measurements, and whether the disease has advanced."""
    loaded = sklearn.datasets.load_diabetes()
    return Data(loaded.data / loaded.data.std(0), (loaded.target > 140).astype(int))


def trials() -> Any:
    return Binomial(real("star98").y.sum(1))


CASES: list[tuple[str, Any, str, Any]] = [
    ("spector", "bernoulli", "logit", kinds.Binomial()),
    ("spector", "bernoulli", "probit", kinds.Binomial(links.Probit())),
    ("spector", "bernoulli", "cloglog", kinds.Binomial(links.CLogLog())),
    ("spector", "bernoulli", "cauchit", kinds.Binomial(links.Cauchy())),
    ("star98", trials, "logit", kinds.Binomial()),
    ("cpunish", "poisson", "log", kinds.Poisson()),
    ("cpunish", NegativeBinomial(2.0), "log", kinds.NegativeBinomial(alpha=0.5)),
    ("scotland", "gamma", "inverse", kinds.Gamma(links.InversePower())),
    ("scotland", "gamma", "identity", kinds.Gamma(links.Identity())),
    ("stackloss", "gaussian", "identity", kinds.Gaussian()),
    ("stackloss", "poisson", "sqrt", kinds.Poisson(links.Sqrt())),
]


@pytest.mark.filterwarnings("ignore:The .* link function does not respect")
@pytest.mark.parametrize(("name", "likelihood", "link", "family"), CASES)
def test_fits_are_those_of_statsmodels(
    name: str, likelihood: Any, link: str, family: Any
) -> None:
    x, y = real(name)
    theirs = sm.GLM(y, sm.add_constant(x), family).fit(tol=1e-15, maxiter=400)
    if callable(likelihood):
        likelihood, y = likelihood(), y[:, 0]
    ours = glm(x, y, likelihood, link, tol=TIGHT, max_iterations=400)
    assert ours.converged, ours.message
    compare = {
        "parameters": theirs.params,
        "standard_errors": theirs.bse,
        "deviance": theirs.deviance,
        "null_deviance": theirs.null_deviance,
        "log_likelihood": theirs.llf,
        "dispersion": theirs.scale,
        "aic": theirs.aic,
        "bic": theirs.bic_llf,
    }
    for what, expected in compare.items():
        found, expected = np.asarray(getattr(ours, what)), np.asarray(expected)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-8 * scale, err_msg=what
        )
    if name != "star98":
        predicted = theirs.predict(sm.add_constant(x))
        np.testing.assert_allclose(ours.predict(x), predicted, rtol=1e-7)


def test_the_longley_data_lose_no_digits() -> None:
    """The classical ill-conditioned regression, in its own units: the published
    certified values."""
    loaded = sm.datasets.longley.load()
    fit = linear_regression(np.asarray(loaded.exog), np.asarray(loaded.endog))
    # National Institute of Standards and Technology, Statistical Reference Datasets.
    certified = [-3482258.63459582, 15.0618722713733, -0.0358191792925910]
    np.testing.assert_allclose(fit.parameters[:3], certified, rtol=1e-8)
    np.testing.assert_allclose(fit.standard_errors[0], 890420.383607373, rtol=1e-8)


def test_natural_gradients_of_logistic_regression_are_reweighted_least_squares() -> (
    None
):
    x, y = diabetes()
    columns = np.column_stack([np.ones(len(x)), x])
    beta = np.zeros(columns.shape[1])
    for k in range(1, 9):
        eta = columns @ beta
        p = 1 / (1 + np.exp(-eta))
        w = p * (1 - p)
        working = eta + (y - p) / w
        beta = np.linalg.solve(columns.T * w @ columns, columns.T @ (w * working))
        ours = logistic(x, y, start=np.zeros_like(beta), max_iterations=k, tol=0.0)
        np.testing.assert_allclose(ours.parameters, beta, rtol=0, atol=1e-12)
    fit = logistic(x, y, start=np.zeros_like(beta))
    assert fit.converged and fit.iterations <= 8
    np.testing.assert_allclose(fit.parameters, beta, rtol=0, atol=1e-10)


MAXIMA: list[tuple[Any, str | None, Callable[[np.random.Generator, Any], Any]]] = [
    (StudentT(0.5, 4.0), None, lambda rng, m: m + 0.5 * rng.standard_t(4.0, m.shape)),
    (VonMises(4.0), None, lambda rng, m: m + rng.vonmises(0, 4.0, m.shape)),
    (Bernoulli(), "log", lambda rng, m: rng.uniform(size=m.shape) < np.exp(m - 2)),
]


@pytest.mark.parametrize(("likelihood", "link", "draw"), MAXIMA)
def test_other_likelihoods_are_at_a_maximum(
    likelihood: Any, link: str | None, draw: Callable[..., Any]
) -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, size=(300, 2))
    y = draw(rng, 0.3 + x @ [0.5, -0.4]) * 1
    fit = glm(x, y, likelihood, link, tol=TIGHT)
    assert fit.converged, fit.message

    def log_likelihood(beta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        f = fit.link.output(likelihood.outputs[0])(beta[0] + x @ beta[1:])
        return likelihood.log_prob(f, y)

    beta = jnp.asarray(fit.parameters)
    value, gradient = compiled(jax.value_and_grad(log_likelihood))(beta, x, y)
    np.testing.assert_allclose(gradient * fit.standard_errors, 0, atol=1e-8)
    np.testing.assert_allclose(fit.log_likelihood, value, rtol=1e-12)


# -- weights, offsets, penalties -----------------------------------------------------


def test_weights_count_rows() -> None:
    x, y = real("stackloss")
    weights = np.tile([2, 0, 1], 7)
    repeated = linear_regression(np.repeat(x, weights, 0), np.repeat(y, weights))
    weighted = linear_regression(x, y, weights=weights)
    for what in ("parameters", "standard_errors", "deviance", "log_likelihood", "bic"):
        np.testing.assert_allclose(
            getattr(weighted, what), getattr(repeated, what), rtol=1e-9
        )


def test_offsets_are_statsmodels_exposures() -> None:
    x, y = real("cpunish")
    exposure = np.random.default_rng(0).uniform(1, 9, len(y))
    theirs = sm.GLM(y, sm.add_constant(x), kinds.Poisson(), exposure=exposure)
    ours = poisson(x, y, offset=np.log(exposure))
    expected = theirs.fit(tol=1e-14)
    np.testing.assert_allclose(ours.parameters, expected.params, rtol=1e-8)
    np.testing.assert_allclose(ours.null_deviance, expected.null_deviance, rtol=1e-8)
    np.testing.assert_allclose(
        ours.predict(x[:3], np.log(exposure[:3])), expected.fittedvalues[:3], rtol=1e-8
    )


def test_penalties_are_those_of_scikit_learn() -> None:
    x, y = real("stackloss")
    # Collinear columns are no trouble with a penalty.
    x = np.column_stack([x[:, :2], x[:, 0] - x[:, 1]])
    ridge = sklearn.linear_model.Ridge(alpha=2.0).fit(x, y)
    ours = linear_regression(x, y, l2=2.0)
    np.testing.assert_allclose(ours.coefficients, ridge.coef_, atol=1e-10)
    np.testing.assert_allclose(ours.intercept, ridge.intercept_, atol=1e-10)
    x, y = diabetes()
    theirs = sklearn.linear_model.LogisticRegression(
        C=0.5, solver="newton-cholesky", tol=1e-10
    ).fit(x, y)
    penalised = logistic(x, y, l2=2.0)
    np.testing.assert_allclose(penalised.coefficients, theirs.coef_[0], atol=1e-8)


def test_a_second_fit_of_equal_shapes_is_not_compiled() -> None:
    x, y = diabetes()
    logistic(x, y)
    before = scoring.solve._cache_size()
    logistic(x[::-1] + 1, y, l2=3.0, weights=np.ones(len(y)), tol=1e-3)
    assert scoring.solve._cache_size() == before


# -- what goes wrong -----------------------------------------------------------------


def test_separation_is_named() -> None:
    rng = np.random.default_rng(0)
    x, y = diabetes()
    eta = x @ rng.normal(size=10)
    complete = logistic(x, eta > 0)
    assert not complete.converged
    assert "442 of 442 rows perfectly (separation)" in complete.message
    # All that have the last column's 1 are of one class: it alone goes to infinity.
    x[:, 9] = rng.uniform(size=len(x)) < 0.1
    y = np.where(x[:, 9] > 0, 1, y)
    names = [*"abcdefghi", "group"]
    partly = logistic(x, y, names=names)
    assert not partly.converged and "coefficients of group grow" in partly.message
    assert logistic(x, y, l2=1e-3).converged
    x, y = real("cpunish")
    x[:, 5] = np.arange(len(x)) % 4 == 0
    none = poisson(x, np.where(x[:, 5] > 0, 0, y))
    assert "coefficients of x5 grow" in none.message


X = np.random.default_rng(1).normal(size=(20, 3))
Y = (X[:, 0] > 0).astype(int)
ONE, TWICE = np.ones((20, 1)), X[:, :1] - 2 * X[:, 2:]
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: logistic(np.hstack([X, TWICE]), Y), "'x3' of x is a linear combination"),
    (lambda: logistic(np.hstack([X, TWICE]), Y), "of 'x0', 'x2' .collinear"),
    (lambda: logistic(np.hstack([X, ONE]), Y), "combination of 'intercept'"),
    (lambda: logistic(np.hstack([X, 0 * ONE]), Y), "the column 'x3' of x is zero"),
    (lambda: logistic(X[:2], Y[:2]), "4 coefficients cannot be told from 2 rows"),
    (lambda: logistic(X[:0], Y[:0]), "no examples"),
    (lambda: logistic(X[:, 0], Y), r"must be a matrix.* got shape \(20,\)"),
    (lambda: logistic(np.where(X > 2, np.nan, X) * np.nan, Y), "finite, got nan in ro"),
    (lambda: logistic(X, Y + 1), "Bernoulli: labels must be a whole number, 0 to 1"),
    (lambda: logistic(X, Y[:, None]), r"shape \(20, 1\), the outputs need \(20,\)"),
    (lambda: logistic(X, Y, weights=-np.ones(20)), "weights must be zero or more"),
    (lambda: logistic(X, Y, weights=np.ones(3)), r"weights must have shape \(20,\)"),
    (lambda: logistic(X, Y, offset=np.nan * Y), "offset must be finite"),
    (lambda: logistic(X, Y, l2=-1.0), "l2 must be zero or more, got -1"),
    (lambda: logistic(X, Y, names=["a"]), "1 names for 3 columns"),
    (lambda: logistic(X, Y, start=np.zeros(3)), "start must have 4 entries, intercept"),
    (lambda: logistic(X, Y, dispersion="free"), 'a positive number or "pearson"'),
    (lambda: logistic(X, Y, link="logistic"), "unknown link 'logistic'; known are cau"),
    (lambda: glm(X, Y, "categorical"), "of one output, with a deviance; Categorical"),
    (lambda: glm(X, Y, "beta"), "multinomial takes classes"),
    (lambda: logistic(X, Y, l2=1.0).predict(X[:, :2]), "must have 3 columns, got 2"),
    (
        lambda: glm(X, Y + 1, "poisson", "identity", start=[-5.0, 0, 0, 0]),
        "not finite at the start: with the link 'identity'",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_explained(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# -- the rest of the surface ---------------------------------------------------------


def test_a_fit_prints_its_table() -> None:
    loaded = sm.datasets.spector.load_pandas()
    fit = logistic(loaded.exog, loaded.endog)
    assert fit.names == ("intercept", "GPA", "TUCE", "PSI")
    lines = str(fit).splitlines()
    assert lines[0] == "Bernoulli, link logit: converged in 7 iterations"
    assert lines[2].split() == ["estimate", "se", "z", "p", "2.5%", "97.5%"]
    assert lines[4].split() == ["GPA", "2.83", "1.26", "2.24", "0.025", "0.35", "5.30"]
    again = logistic(loaded.exog, loaded.endog, max_iterations=2)
    assert again.message == "not converged in 2 iterations: raise max_iterations"


def test_exact_fits_have_no_dispersion() -> None:
    one = linear_regression(np.ones((1, 1)), np.ones(1), l2=1.0)
    assert one.converged and np.isnan(one.dispersion)
    assert one.log_likelihood == np.inf and np.isnan(one.standard_errors).all()
    assert np.isnan(glm(X[:1], np.ones(1), "gamma", l2=1.0).log_likelihood)
    assert "intercept" in str(one)


def test_a_column_of_any_name_is_no_intercept() -> None:
    x, y = real("stackloss")
    fit = linear_regression(x, y, intercept=False, names=["intercept", "b", "c"])
    np.testing.assert_allclose(fit.predict(x), x @ fit.coefficients, rtol=1e-12)


def test_overdispersion_widens_intervals() -> None:
    x, y = real("cpunish")
    plain, wide = (poisson(x, y, dispersion=d) for d in (None, "pearson"))
    assert wide.dispersion > 1
    ratio = wide.standard_errors / plain.standard_errors
    np.testing.assert_allclose(ratio**2, wide.dispersion)
    normal, student = plain.confidence_interval(), wide.confidence_interval()
    spread = np.ptp(student, 1) / np.ptp(normal, 1)
    assert (spread > ratio).all()


def test_single_precision_is_enough() -> None:
    x, y = diabetes()
    single = logistic(x.astype(np.float32), y)
    double = logistic(x, y)
    assert single.converged and single.parameters.dtype == np.float32
    errors = double.standard_errors
    np.testing.assert_allclose(
        single.parameters / errors, double.parameters / errors, atol=1e-4
    )


@pytest.mark.parametrize("name", LINKS)
def test_links_agree_with_themselves(name: str) -> None:
    link = LINKS[name]
    proportions = jnp.linspace(0.05, 0.95, 7)
    eta = link.of_mean(proportions)
    np.testing.assert_allclose(link.mean(eta), proportions, rtol=1e-12)
    np.testing.assert_allclose(link.log_mean(eta), jnp.log(proportions), rtol=1e-10)
    logits = jnp.log(proportions / (1 - proportions))
    np.testing.assert_allclose(link.logit_mean(eta), logits, atol=1e-10)
    if name in ("logit", "probit", "cauchit", "cloglog"):
        far = jnp.array([-30.0, 5.0, 30.0 if name != "cloglog" else 6.0])
        assert np.isfinite(link.logit_mean(far)).all()
        assert (np.diff(link.logit_mean(far)) > 0).all()
