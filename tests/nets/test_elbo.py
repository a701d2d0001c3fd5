"""The evidence lower bound of models whose evidence is known."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
import scipy.stats

from ngvi.families import Gamma
from ngvi.nets import ObservationNoise
from ngvi.nets.elbo import elbo
from tests.nets.linear_nets import DELTA, exact, posterior_of
from tests.nets.unoptimised import quick_predictions  # noqa: F401

KEY = jax.random.key(5)
Y = jax.random.normal(jax.random.key(4), (12, 1))
SD = 0.6


def test_it_is_the_evidence_at_the_posterior():
    net, x, posterior, rows = exact(SD, Y)
    covariance = rows @ rows.T / DELTA + SD**2 * np.eye(12)
    evidence = scipy.stats.multivariate_normal(cov=covariance).logpdf(Y[:, 0])
    found = elbo(net, posterior, x, Y, KEY, draws=256)
    assert abs(found.value - evidence) < 4 * found.standard_error
    assert found.standard_error < 0.2
    np.testing.assert_allclose(found.value, found.expected_log_prob - found.kl)
    np.testing.assert_allclose(found.rows.sum(), found.expected_log_prob, rtol=1e-9)
    in_parts = elbo(net, posterior, x, Y, KEY, draws=256, batch_size=256 * 5)
    np.testing.assert_allclose(in_parts.rows, found.rows, rtol=1e-9)
    # Elsewhere it is lower.
    moved = replace(posterior, mean=posterior.mean + 0.5)
    assert elbo(net, moved, x, Y, KEY, draws=256).value < evidence - 1


def test_standard_error_is_that_of_the_draws():
    net, x, posterior, _ = exact(SD, Y)
    keys = jax.random.split(KEY, 64)
    values, errors = np.transpose(
        [elbo(net, posterior, x, Y, key, draws=16)[:2] for key in keys]
    )
    # A χ² of 63 degrees of freedom lies in this range but for one time in 10⁵.
    assert 0.6 < values.std(ddof=1) / np.sqrt((errors**2).mean()) < 1.45


def test_learned_noise_is_averaged_in_closed_form():
    net, x, posterior = posterior_of(ObservationNoise.begin(3.0, 2.0), Y)
    noise = replace(posterior.noise, q=Gamma(9.0, 4.0))
    posterior = replace(posterior, noise=noise)
    found = elbo(net, posterior, x, Y, KEY, draws=8)
    f = jax.vmap(net, (0, None))(posterior.sample(jax.random.split(KEY, 3)[0], (8,)), x)
    gamma = scipy.stats.gamma(9.0, scale=1 / 4.0)
    squares = np.asarray((f - Y) ** 2).mean(0).sum()
    log_gamma = gamma.expect(np.log)
    expected = 6 * (log_gamma - np.log(2 * np.pi)) - gamma.mean() * squares / 2
    np.testing.assert_allclose(found.expected_log_prob, expected, rtol=1e-6)
    of_weights = posterior.prior.kl(posterior.mean, posterior.precision)
    of_noise = gamma.expect(
        lambda g: gamma.logpdf(g) - scipy.stats.gamma(3.0, scale=0.5).logpdf(g)
    )
    np.testing.assert_allclose(found.kl, of_weights + of_noise, rtol=1e-6)


def test_one_draw_has_no_standard_error():
    net, x, posterior, _ = exact(SD, Y)
    with pytest.raises(ValueError, match="at least 2 for a standard error, got 1"):
        elbo(net, posterior, x, Y, KEY, draws=1)
