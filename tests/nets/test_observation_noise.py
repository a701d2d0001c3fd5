"""Noise that is learned: a conjugate posterior, moved by the one update."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import digamma

from ngvi.mirror import mirror_step
from ngvi.nets import ObservationNoise

RNG = np.random.default_rng(2)
NOISE = ObservationNoise.begin(3.0, 2.0)
F, Y = RNG.standard_normal((2, 5, 2)), RNG.standard_normal((5, 2))


def test_a_whole_step_is_bayes() -> None:
    # From anywhere: n numbers and their squared residuals are added to the prior.
    away = NOISE.step(7.0, 20.0, 0.3)
    for noise in (NOISE, away):
        q = noise.step(0.8, 10.0, 1.0).q
        np.testing.assert_allclose(q.concentration, 3.0 + 5.0, rtol=1e-14)
        np.testing.assert_allclose(q.rate, 2.0 + 4.0, rtol=1e-14)


def test_any_step_is_a_mirror_step() -> None:
    # Of −log p(y, γ), whose gradient in (E log γ, E γ) is λ_q − λ_posterior at ρ = 1.
    noise = NOISE.step(7.0, 20.0, 0.3)
    posterior = NOISE.step(0.8, 10.0, 1.0).q
    gradient = tuple(-p for p in posterior.natural_params)
    moved = noise.step(0.8, 10.0, 0.25).q
    expected = mirror_step(noise.q, gradient, 0.25)
    np.testing.assert_allclose(moved.concentration, expected.concentration, rtol=1e-14)
    np.testing.assert_allclose(moved.rate, expected.rate, rtol=1e-14)
    between = 0.75 * noise.q.rate + 0.25 * posterior.rate
    np.testing.assert_allclose(moved.rate, between, rtol=1e-14)


def test_the_likelihood_has_the_mean_precision() -> None:
    np.testing.assert_allclose(NOISE.likelihood.scale**-2, 3.0 / 2.0, rtol=1e-14)


def test_expected_and_predictive_densities() -> None:
    a, b = 3.0, 2.0
    f, y = jnp.asarray(F), jnp.asarray(Y)
    each = (digamma(a) - np.log(b) - np.log(2 * np.pi) - a / b * (Y - F[0]) ** 2) / 2
    found = NOISE.expected_log_prob(f[0], y)
    np.testing.assert_allclose(found, each.sum(1), rtol=1e-12)

    t = scipy.stats.multivariate_t(np.zeros(2), b / a * np.eye(2), df=2 * a)
    expected = t.logpdf(Y - F)
    found = NOISE.log_predictive(f, y)
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    one = NOISE.log_predictive(f[..., 0], y[:, 0])
    single = scipy.stats.t(2 * a, scale=(b / a) ** 0.5).logpdf(Y[:, 0] - F[..., 0])
    np.testing.assert_allclose(one, single, rtol=1e-12)


def test_its_divergence() -> None:
    np.testing.assert_allclose(NOISE.kl(), 0, atol=1e-14)
    moved = NOISE.step(7.0, 20.0, 0.3)
    np.testing.assert_allclose(moved.kl(), moved.q.kl(moved.prior), rtol=1e-14)
    assert float(moved.kl()) > 0


def test_a_bad_prior() -> None:
    with pytest.raises(ValueError, match=r"Gamma: rate .* got -1"):
        ObservationNoise.begin(1.0, -1.0)
