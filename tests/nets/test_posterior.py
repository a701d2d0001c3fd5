"""The posterior that is kept: a Gaussian over pytrees of weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Diagonal
from ngvi.nets import ObservationNoise, WeightPosterior, full, noisy_kfac
from tests.nets.problems import DIM, NUMBERS, PARAMS, X, apply, begun, close
from tests.programs import compiled

BATCH = X[0], NUMBERS[0]


@pytest.fixture(scope="module", params=[full, noisy_kfac])
def posterior(request: Any) -> WeightPosterior:
    settings = {"precision_rate": 0.3, "refresh": 1}
    algorithm = request.param(apply, ObservationNoise.begin(), 40, **settings)
    state = begun(algorithm, PARAMS, BATCH)
    state, _ = compiled(algorithm.step)(state, BATCH, jax.random.key(0))
    return algorithm.posterior(state)


def test_draws_have_its_mean_and_covariance(posterior: WeightPosterior) -> None:
    count = 20_000
    draws = jax.jit(lambda q: q.sample(jax.random.key(1), (2, count // 2)))(posterior)
    assert draws["first"]["w"].shape == (2, count // 2, 2, 3)
    w = np.asarray(posterior.prior.layout.vector(draws)).reshape(count, DIM)
    covariance = np.linalg.inv(np.asarray(posterior.precision.dense()))
    # 18 means and 171 covariances: one is further off in 600 such tests.
    variances = np.diag(covariance)
    error = np.sqrt(variances / count)
    assert (np.abs(w.mean(0) - posterior.mean) < 4.5 * error).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
    assert (np.abs(np.cov(w.T) - covariance) < 4.5 * error).all()


def test_its_numbers(posterior: WeightPosterior) -> None:
    layout, q = posterior.prior.layout, posterior.q
    assert isinstance(q, Gaussian)
    np.testing.assert_array_equal(layout.vector(posterior.params), posterior.mean)
    covariance = np.linalg.inv(np.asarray(posterior.precision.dense()))
    deviations = layout.vector(posterior.standard_deviations)
    close(deviations, np.sqrt(np.diag(covariance)))
    p = Gaussian(jnp.zeros(DIM), Diagonal.from_entries(posterior.prior.vector))
    noise = posterior.noise
    assert noise is not None
    np.testing.assert_allclose(posterior.kl(), q.kl(p) + noise.kl(), rtol=1e-10)
    assert float(noise.kl()) > 0
    np.testing.assert_allclose(posterior.likelihood.scale**-2, noise.q.mean)


def test_one_draw_is_like_the_parameters(posterior: WeightPosterior) -> None:
    draw = posterior.sample(jax.random.key(2))
    expected = jax.tree.map(jnp.shape, PARAMS)
    assert jax.tree.map(jnp.shape, draw) == expected


def test_many_posteriors_at_once() -> None:
    algorithm = full(apply, "gaussian", 40)

    def divergence(scale: jax.Array) -> jax.Array:
        params = jax.tree.map(lambda leaf: scale * leaf, PARAMS)
        return algorithm.posterior(algorithm.init(params, BATCH)).kl()

    scales = jnp.asarray([1.0, 0.5])
    # S is 41 I before the first step.
    found = compiled(jax.vmap(divergence))(scales)
    squares = np.asarray([(np.asarray(s) ** 2).sum() for s in scales])
    squares = squares * sum((leaf**2).sum() for leaf in jax.tree.leaves(PARAMS))
    expected = (squares + DIM / 41 - DIM + DIM * np.log(41)) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-12)
