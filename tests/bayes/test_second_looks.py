"""Linear response and restarts: what a fit tells when it is looked at a second time."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi
from ngvi.bayes.verdict import judge
from ngvi.families import Gaussian
from ngvi.linalg import Dense

PRECISION = jnp.array([[2.0, 1.2, 0.3], [1.2, 1.5, -0.2], [0.3, -0.2, 0.8]])


def gaussian(z: jax.Array) -> jax.Array:
    return -(z - 1.0) @ PRECISION @ (z - 1.0) / 2


def skewed(y: jax.Array) -> None:
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.log(rate) + shift, 0.7).expand([5]), obs=y)


Y = jnp.array([0.3, 1.2, 0.8, -0.1, 0.9])


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_of_a_gaussian_it_is_the_covariance(covariance: str) -> None:
    posterior = ngvi.fit(gaussian, init=jnp.zeros(3), covariance=covariance)
    response = posterior.linear_response()
    exact = np.linalg.inv(PRECISION)
    np.testing.assert_allclose(response.covariance, exact, rtol=1e-3, atol=1e-3)
    if covariance == "diagonal":
        ratios = np.sqrt(np.diag(exact) * np.diag(PRECISION))
        np.testing.assert_allclose(response.summary()["ratio"], ratios, rtol=2e-3)
        assert np.count_nonzero(response.variational) == 3
    assert "response sd" in str(response)


def test_it_answers_as_a_fit_of_a_changed_model_does() -> None:
    push = 0.02

    def density(z: dict[str, jax.Array], t: float) -> jax.Array:
        a, b = z["a"], z["b"]
        likelihood = -((Y - a - b) ** 2).sum() / 0.98
        return 2 * a - jnp.exp(a) - b**2 / 2 + likelihood + t * b

    init = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    options = {"init": init, "covariance": "diagonal"}
    less, more = (ngvi.fit(density, t, **options) for t in (-push, push))
    moved = np.asarray(more.gaussian.mean - less.gaussian.mean) / (2 * push)
    covariance = ngvi.fit(density, 0.0, **options).linear_response().covariance
    np.testing.assert_allclose(covariance[1], moved, rtol=0.02)


def test_what_has_no_linear_response_says_so() -> None:
    wide = ngvi.fit(
        lambda z: -(z**2).sum() / 2, init=jnp.zeros(201), covariance="diagonal"
    )
    with pytest.raises(ValueError, match="up to 200 dimensions, not 201"):
        wide.linear_response()
    low = ngvi.fit(gaussian, init=jnp.zeros(3), covariance="low-rank", rank=1)
    with pytest.raises(ValueError, match="a full or diagonal covariance, not 'low-"):
        low.linear_response()


def test_restarts_agree_on_one_mode() -> None:
    found = ngvi.fit(skewed, Y).restarts(2)
    assert found.agree
    assert len(found.summary()) == 3
    np.testing.assert_allclose(found.elbos, found.elbos[0], atol=0.02)


def two_modes(z: jax.Array) -> jax.Array:
    return jnp.logaddexp(-((z[0] - 2) ** 2), -((z[0] + 2) ** 2)) * 4 - z[1] ** 2


def test_restarts_see_two_modes() -> None:
    found = ngvi.fit(two_modes, init=jnp.array([1.0, 0.0])).restarts(6, distance=20.0)
    assert not found.agree
    assert max(found.apart) > 5
    assert "means apart" in str(found)


def test_verdict_sees_another_mode_of_even_weights() -> None:
    posterior = ngvi.fit(two_modes, init=jnp.array([1.0, 0.0]))
    assert posterior.comparison.efficiency > 0.9
    assert posterior.verdict.level == "do not trust"
    assert "A fit begun elsewhere ended" in str(posterior.verdict)
    assert "leaves out a part of the posterior" in str(posterior.verdict)


def test_a_faint_mode_is_no_rival() -> None:
    mean = jnp.array([0.0, 0.0])

    def faint(z: jax.Array) -> jax.Array:
        at = z - jnp.array([6.0, 0.0])
        return jnp.logaddexp(-((z - mean) ** 2).sum() / 2, -9.0 - (at**2).sum() / 2)

    posterior = ngvi.fit(faint, init=jnp.array([0.0, 0.0]))
    looked = posterior.elsewhere
    assert looked is not None
    assert looked.rival is None
    assert posterior.verdict.level == "trustworthy"


def test_restarts_keep_the_prior() -> None:
    prior = Gaussian(jnp.array([1.0, 2.0]), Dense.from_dense(jnp.eye(2) * 400.0))
    posterior = ngvi.fit(skewed, Y, prior=prior)
    assert posterior.restarts(2).agree


def test_restarts_need_a_number() -> None:
    posterior = ngvi.fit(gaussian, init=jnp.zeros(3))
    with pytest.raises(ValueError, match="number must be at least 1, not 0"):
        posterior.restarts(0)
    with pytest.raises(ValueError, match="distance must be positive, not -1"):
        posterior.restarts(1, distance=-1.0)


def test_weights_that_are_not_finite_vouch_for_nothing() -> None:
    posterior = ngvi.fit(gaussian, init=jnp.zeros(3))
    even, diagnostics = posterior.comparison, posterior.diagnostics
    assert judge(diagnostics, even, 0.0).level == "trustworthy"
    unknown = replace(diagnostics, khat=np.inf)
    assert judge(unknown, even, 0.0).level == "do not trust"
