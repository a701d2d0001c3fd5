"""Pareto smoothing as published, and leave-one-out against exact answers."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import ngvi
from ngvi.bayes.importance import pareto_smoothed, site_khats
from ngvi.bayes.loo import leave_one_out
from ngvi.bayes.psis import fit_generalised_pareto, smoothed


def naively(log_weight: np.ndarray) -> tuple[np.ndarray, float]:
    """The algorithm of the paper, step by step."""
    weights = np.exp(log_weight - log_weight.max())
    count = math.ceil(min(weights.size / 5, 3 * math.sqrt(weights.size)))
    order = np.argsort(weights)
    tail, cutoff = order[-count:], weights[order[-count - 1]]
    khat, scale = fit_generalised_pareto(weights[tail] - cutoff)
    for place, i in enumerate(tail):
        quantile = stats.genpareto.ppf((place + 0.5) / count, khat, scale=scale)
        weights[i] = min(cutoff + quantile, 1.0)
    return weights / weights.sum(), khat


@pytest.mark.parametrize(("size", "scale"), [(200, 0.5), (2500, 1.0), (900, 4.0)])
def test_smoothing_is_the_published_one(size, scale):
    log_weight = scale * np.random.default_rng(size).standard_t(5, size) - 1e3
    expected, khat = naively(log_weight)
    found, also = smoothed(log_weight)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-9)
    assert also == khat
    np.testing.assert_array_equal(pareto_smoothed(log_weight)[0], np.exp(found))


def test_arviz_has_the_same_weights():
    # 3 √2500 is whole: versions of ArviZ round the length of the tail differently.
    log_weight = np.random.default_rng(1).standard_t(5, 2500)
    az = pytest.importorskip("arviz")
    if az.__version__.startswith("0."):
        theirs = az.psislw(log_weight)[0]
    else:
        from arviz_stats.base import array_stats

        theirs = array_stats.psislw(-log_weight)[0]
    theirs = np.asarray(theirs) - np.logaddexp.reduce(np.asarray(theirs))
    np.testing.assert_allclose(smoothed(log_weight)[0], theirs, atol=1e-6)


def test_weights_without_a_tail():
    few, khat = smoothed(np.array([0.0, 1.0, 2.0]))
    assert khat == math.inf
    np.testing.assert_allclose(np.exp(few).sum(), 1.0)
    equal, khat = smoothed(np.zeros(1000))
    assert khat == math.inf
    np.testing.assert_allclose(equal, -np.log(1000))
    # Underflow of all but a few.
    steep, _ = smoothed(-np.arange(1000.0) * 10)
    np.testing.assert_allclose(np.exp(steep).sum(), 1.0)


Y = np.array([1.2, -0.4, 0.9, 2.5, 0.1, -1.0])


def normal(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    with numpyro.plate("row", 6):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def exactly() -> np.ndarray:
    """log p(yᵢ | the others) of a normal mean."""
    found = []
    for i, y in enumerate(Y):
        others = np.delete(Y, i)
        precision = 1 / 9 + others.size
        predictive = stats.norm(others.sum() / precision, np.sqrt(1 + 1 / precision))
        found.append(predictive.logpdf(y))
    return np.array(found)


@pytest.fixture(scope="module")
def fitted() -> ngvi.Posterior:
    return ngvi.fit(normal, Y, progress=False)


def test_a_normal_mean_exactly(fitted):
    found = fitted.loo()
    exact = exactly()
    np.testing.assert_allclose(found.pointwise, exact, atol=0.01)
    assert abs(found.elpd - exact.sum()) < 0.02
    assert found.unsure == 0 and found.khat.shape == (6,)
    np.testing.assert_allclose(found.se, np.sqrt(6) * found.pointwise.std())
    assert 0.5 < found.p_loo < 1.5
    assert "0 of 6 observations" in str(found)


def test_a_wrong_q_is_corrected(fitted):
    q = fitted.gaussian
    wide = type(q)(q.mean + 0.3, q.precision.scale(0.6))
    moved = fitted.with_approximation(wide).loo()
    np.testing.assert_allclose(moved.pointwise, exactly(), atol=0.05)


def test_what_cannot_be_left_out(density_posterior, fitted):
    with pytest.raises(TypeError, match="plain log density"):
        density_posterior.loo()
    with pytest.raises(ValueError, match="finite log likelihoods"):
        leave_one_out(np.array([[0.0], [-np.inf]]), np.zeros(2))
    far = fitted.with_approximation(
        type(fitted.gaussian)(fitted.gaussian.mean + 9, fitted.gaussian.precision)
    ).loo()
    assert far.unsure == 6 and "refine the fit" in str(far)
    assert jnp.isfinite(far.elpd)


def test_khat_of_each_site(schools):
    khats = schools.site_khats
    assert set(khats) == {"mu", "tau", "z", "theta"}
    # The tail of tau is what the Gaussian on log tau misses.
    assert khats["tau"] > khats["z"]
    weights = schools.log_weights
    rng = np.random.default_rng(0)
    sites = {"tail": rng.standard_t(2, (weights.size, 1)), "fixed": np.ones((9, 1))}
    found = site_khats(np.zeros(weights.size), {"tail": sites["tail"]})
    # t with 2 degrees of freedom: its square has a tail of index 1.
    assert 0.7 < found["tail"] < 1.3
    assert site_khats(np.zeros(9), {"fixed": sites["fixed"]}) == {"fixed": 0.0}


def test_predictive_checks(fitted, density_posterior):
    table = fitted.check()
    assert list(table.index) == ["y: mean", "y: sd", "y: smallest", "y: largest"]
    np.testing.assert_allclose(table["observed"], [Y.mean(), Y.std(), -1.0, 2.5])
    assert table["p"].between(0.1, 0.9).all()
    odd = fitted.check({"rows above 100": lambda y: float((y > 100).sum())})
    assert odd["p"].tolist() == [0.5]
    with pytest.raises(TypeError, match="plain log density"):
        density_posterior.check()
