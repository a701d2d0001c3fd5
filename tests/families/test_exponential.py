"""Gamma and exponential families and their kin where digits are easily lost."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ngvi.families import (
    ChiSquared,
    Exponential,
    Gamma,
    InverseGamma,
    Laplace,
    Normal,
    Rayleigh,
    Weibull,
    from_numpyro,
)
from tests.families.cases import double
from tests.programs import compiled

SCALES = {
    "exponential": (lambda s: Exponential(1 / s), 0.5),
    "laplace": (lambda s: Laplace(0.0, s), 0.5),
    "rayleigh": (lambda s: Rayleigh(s), 2.0),
    "weibull": (lambda s: Weibull(s, 3.0), 4.5),
    "normal": (lambda s: Normal(jnp.zeros_like(s), s), 1.0),
}


@pytest.mark.parametrize("name", SCALES)
def test_divergence_of_scales_in_single_precision(name):
    family, half_fisher = SCALES[name]
    divergence = compiled(lambda first, second: family(first).kl(family(second)))
    one = jnp.ones(4, jnp.float32)
    ratio = jnp.asarray([1 + 1e-3, 1 - 1e-3, 1e-6, 1e6], jnp.float32)
    actual = divergence(one, ratio)
    wide = ratio.astype(jnp.float64)
    expected = divergence(jnp.ones(4), wide)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    # KL = ½ F (Δ log s)² + O(Δ³).
    quadratic = half_fisher * jnp.log(wide[:2]) ** 2
    np.testing.assert_allclose(expected[:2], quadratic, rtol=5e-3)


@pytest.mark.parametrize("family", [Gamma, InverseGamma])
def test_gamma_divergence_at_the_same_mean_in_single_precision(family):
    shape = jnp.asarray([1e-3, 2.0, 1e4, 1e7], jnp.float32)
    first, second = family(shape, shape), family(1.1 * shape, 1.1 * shape)
    divergence = compiled(family.kl)
    actual = divergence(first, second)
    assert actual.dtype == jnp.float32
    expected = divergence(double(first), double(second))
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
    # A large shape is nearly normal: ½ (r − 1 − log r) of the variances' ratio.
    normal = (1.1 - 1 - np.log(1.1)) / 2
    np.testing.assert_allclose(expected[3], normal, rtol=1e-5)


def test_large_powers_do_not_overflow():
    q = Weibull(jnp.asarray([0.01, 30.0], jnp.float32), 60.0)
    x = q.scale * jnp.asarray([[0.95], [1.0], [1.01]], jnp.float32)
    theirs = scipy.stats.weibull_min(60.0, scale=np.asarray(q.scale, np.float64))
    log_prob, fitted, variance = compiled(
        lambda q, x: (q.log_prob(x), q.fit(x).scale, q.variance)
    )(q, x)
    np.testing.assert_allclose(log_prob, theirs.logpdf(x), rtol=1e-4)
    np.testing.assert_allclose(fitted, q.scale, rtol=0.05)
    np.testing.assert_allclose(variance, theirs.var(), rtol=1e-4)
    assert Weibull(1.0, 1e-3).mean == jnp.inf
    assert jnp.isnan(Weibull(1.0, 0.5).mode)


def test_moments_that_diverge_are_infinite():
    q = InverseGamma(jnp.asarray([0.5, 1.5, 3.0]), jnp.ones(3))
    theirs = scipy.stats.invgamma([0.5, 1.5, 3.0])
    np.testing.assert_allclose(q.mean, theirs.mean())
    np.testing.assert_allclose(q.variance, theirs.var())


def test_zero_is_an_observation_of_what_starts_there():
    assert Exponential(2.0).log_prob(0.0) == np.log(2.0)
    assert Exponential(1.0).fit(jnp.asarray([0.0, 1.0])).rate == 2.0
    assert Rayleigh(1.0).log_prob(0.0) == -jnp.inf
    assert ChiSquared(3.0).log_prob(0.0) == -jnp.inf


def test_a_fixed_parameter_is_one_number():
    import numpyro.distributions as dist

    same = dist.Weibull(jnp.ones(2), jnp.full(2, 3.0))
    assert from_numpyro(same).concentration == 3.0
    with pytest.raises(ValueError, match="one number for a whole batch, got 2"):
        from_numpyro(dist.Weibull(jnp.ones(2), jnp.asarray([1.0, 2.0])))
    with pytest.raises(ValueError, match="loc must be one finite number"):
        Laplace(float("nan"), 1.0)
    with pytest.raises(ValueError, match="concentration must be one positive number"):
        Weibull(1.0, -1.0)
