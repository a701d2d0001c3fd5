"""Inverse Gaussian tails, moments of the logarithm and moving draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ngvi.families import InverseGaussian, special
from tests.families.cases import double
from tests.programs import compiled

LOC = np.array([1e-4, 0.3, 1.0, 20.0, 1e4, 1.0, 1.0])
CONCENTRATION = np.array([1.0, 2.0, 1.0, 0.5, 1e-4, 1e6, 1e-6])


def member(dtype: type = np.float64) -> InverseGaussian:
    return InverseGaussian(jnp.asarray(LOC, dtype), jnp.asarray(CONCENTRATION, dtype))


@compiled
def quantities(q: InverseGaussian, other: InverseGaussian, x: jax.Array) -> tuple:
    return q.entropy(), q.kl(other), q.cdf(x), q.log_prob(x)


def test_single_precision_keeps_its_digits():
    q = member(np.float32)
    other = InverseGaussian(q.loc * 1.001, q.concentration * 1.002)
    x = q.sample(jax.random.key(0), (50,))
    single = quantities(q, other, x)
    exact = quantities(*double((q, other, x)))
    tolerances = (1e-5, 0), (1e-3, 0), (1e-3, 1e-6), (1e-4, 1e-4)
    for ours, precise, (rtol, atol) in zip(single, exact, tolerances, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, precise, rtol=rtol, atol=atol)


def test_cdf_against_scipy_where_its_exponential_would_overflow():
    q = member()
    x = compiled(lambda q: q.sample(jax.random.key(1), (50,)))(q)
    theirs = scipy.stats.invgauss(LOC / CONCENTRATION, scale=CONCENTRATION)
    value, slope = compiled(jax.value_and_grad(lambda q: q.cdf(x).sum()))(q)
    np.testing.assert_allclose(value, theirs.cdf(np.asarray(x)).sum(), rtol=1e-9)
    assert jnp.isfinite(slope.loc).all() and jnp.isfinite(slope.concentration).all()


def test_fit_of_nearly_equal_data_in_single_precision():
    q = member(np.float32)
    draws = compiled(lambda q: q.sample(jax.random.key(2), (2000,)))(q)
    single = q.fit(draws).concentration
    exact = double(q).fit(double(draws)).concentration
    np.testing.assert_allclose(single, exact, rtol=1e-4)


@pytest.mark.parametrize("name", ["loc", "concentration"])
def test_draws_keep_their_quantile(name):
    q = member()

    def quantile(value: jax.Array) -> jax.Array:
        moved = InverseGaussian(**{**q.__dict__, name: value})
        return moved.cdf(moved.sample(jax.random.key(3), (100,)))

    value = getattr(q, name)
    change = compiled(lambda v: jax.jvp(quantile, (v,), (v,))[1])(value)
    np.testing.assert_allclose(change, 0, atol=1e-9)


def test_tail_functions_against_scipy():
    x = np.concatenate([[0.0], np.logspace(-8, 8, 400)])
    mills = np.sqrt(np.pi / 2) * scipy.special.erfcx(x / np.sqrt(2))
    np.testing.assert_allclose(special.mills_ratio(jnp.asarray(x)), mills, rtol=2e-14)
    y = np.logspace(-8, 2, 300)
    tail = np.exp(y) * scipy.special.exp1(y)
    np.testing.assert_allclose(special.scaled_exp1(jnp.asarray(y)), tail, rtol=2e-14)
    slope = jax.vmap(jax.grad(special.scaled_exp1))(jnp.asarray(y))
    np.testing.assert_allclose(slope, tail - 1 / y, rtol=1e-10)
    single = special.scaled_exp1(jnp.asarray([1e-6, 1e6, 1e30], jnp.float32))
    expected = [-np.log(1e-6) - np.euler_gamma, 1e-6, 1e-30]
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    assert jnp.isnan(special.mills_ratio(jnp.asarray(-1.0)))
    assert jnp.isnan(special.scaled_exp1(jnp.asarray(-1.0)))
