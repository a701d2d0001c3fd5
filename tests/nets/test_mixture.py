"""Mixtures of posteriors: the moments of their draws, and their noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import MLP
from ngvi.fisher.likelihoods import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.nets import Mixture, ObservationNoise, Prior, WeightPosterior
from ngvi.nets.net import Net

KEY = jax.random.key(0)
NET = MLP((1, 1))
PARAMS = NET.init(KEY)
PRIOR = Prior.of(1.0, Net.of(NET, PARAMS, jnp.zeros((2, 1))).layout)
MEANS = np.array([[0.0, 1.0], [4.0, -2.0], [9.0, 9.0]])
COVARIANCES = np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.3, 0.0], [0.0, 0.1]], np.eye(2)])


def component(k: int, noise: ObservationNoise | None = None) -> WeightPosterior:
    precision = Dense.from_moments(jnp.asarray(COVARIANCES[k]))
    likelihood = Gaussian(0.5)
    return WeightPosterior(jnp.asarray(MEANS[k]), precision, PRIOR, likelihood, noise)


def test_draws_have_the_moments_of_the_mixture() -> None:
    weights = np.array([3.0, 1.0, 0.0])
    mixture = Mixture.of([component(k) for k in range(3)], weights)
    n = 20_000
    draws = PRIOR.layout.vector(mixture.sample(KEY, (2, n // 2)))
    assert draws.shape == (2, n // 2, 2)
    shares = weights / 4
    mean = shares @ MEANS
    second = np.einsum("k,kij->ij", shares, COVARIANCES) + np.einsum(
        "k,ki,kj->ij", shares, MEANS, MEANS
    )
    covariance = second - np.outer(mean, mean)
    flat = np.asarray(draws).reshape(n, 2)
    # The shares are exact, so that a mean has the error of draws from a component.
    within = np.einsum("k,kii->i", shares, COVARIANCES)
    assert (np.abs(flat.mean(0) - mean) < 4 * np.sqrt(within / n)).all()
    np.testing.assert_allclose(np.cov(flat.T), covariance, rtol=0.05)
    # In random order: the halves are alike.
    halves = np.asarray(draws).mean(1)
    spread = np.sqrt(np.diag(covariance) / (n / 2))
    assert (np.abs(halves[0] - halves[1]) < 4 * np.sqrt(2) * spread).all()


def test_one_draw_comes_from_each_component_as_often_as_its_weight() -> None:
    mixture = Mixture.of([component(k) for k in range(3)], [0.2, 0.5, 0.3])
    one = jax.jit(jax.vmap(lambda key: mixture.sample(key)[0]["w"][0, 0]))
    n = 4000
    first = np.asarray(one(jax.random.split(KEY, n)))
    share = (first > 6.5).mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / n)


def test_the_noise_has_the_mean_parameters_of_the_mixture() -> None:
    each = [ObservationNoise.begin(3.0, 2.0), ObservationNoise.begin(30.0, 60.0)]
    mixture = Mixture.of([component(0, each[0]), component(1, each[1])], [1, 3])
    expected = 0.25 * np.array(each[0].q.mean_params) + 0.75 * np.array(
        each[1].q.mean_params
    )
    np.testing.assert_allclose(mixture.noise.q.mean_params, expected, rtol=1e-8)
    assert mixture.likelihood.scale == mixture.noise.likelihood.scale
    assert Mixture.of([component(0)]).likelihood.scale == 0.5


def test_what_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mixture.of([])
    other = WeightPosterior(
        jnp.zeros(2), Diagonal(jnp.ones(2)), PRIOR, Gaussian(0.5), None
    )
    with pytest.raises(ValueError, match="posterior 1 differs"):
        Mixture.of([component(0), other])
    with pytest.raises(ValueError, match="must be 2 numbers"):
        Mixture.of([component(0), component(1)], [1.0])
    with pytest.raises(ValueError, match="not all zero"):
        Mixture.of([component(0), component(1)], [0.0, 0.0])
