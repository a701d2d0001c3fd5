"""Differences of log Γ against forty digits, where subtraction would leave none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ngvi.families.special import differences
from tests.families.special.references import assert_close, computed, dtypes, exact

FUNCTIONS = {
    "bregman_log_gamma": lambda a, d: (
        mp.loggamma(a + d) - mp.loggamma(a) - d * mp.psi(0, a)
    ),
    "digamma_difference": lambda a, d: mp.psi(0, a + d) - mp.psi(0, a),
    "trigamma_difference": lambda a, d: mp.psi(1, a + d) - mp.psi(1, a),
}


def _pairs(dtype) -> tuple[np.ndarray, np.ndarray]:
    """Differences of both signs, from 1e-8 of a to 1e6 of a, and next to −a."""
    rng = np.random.default_rng(0)
    a = 10 ** np.r_[rng.uniform(-8, 9, 60), rng.uniform(-1, 1, 60)]
    ratio = 10 ** rng.uniform(-8, 6, 120)
    below = np.where(rng.random(120) < 0.5, np.minimum(ratio, 0.99), 1 - 1e-4)
    d = a * np.where(rng.random(120) < 0.5, ratio, -below)
    a, d = np.r_[a, 1e8, 1e8, 1e-6], np.r_[d, 1, 1e4, 1e6]
    return a.astype(dtype), d.astype(dtype)


@dtypes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name, dtype):
    a, d = _pairs(dtype)
    with mp.workdps(60):
        expected = exact(FUNCTIONS[name], a, d)
    units = 10 if dtype == np.float32 else 30
    assert_close(computed(getattr(differences, name), a, d), expected, units, dtype)


@dtypes
def test_gradient_of_the_divergence(dtype):
    a, d = _pairs(dtype)
    both = jax.grad(differences.bregman_log_gamma, (0, 1))
    in_a, in_d = jax.jit(jax.vmap(both))(a, d)
    with mp.workdps(60):
        expected_d = exact(FUNCTIONS["digamma_difference"], a, d)
        term = exact(lambda a, d: d * mp.psi(1, a), a, d)
        expected_a = exact(
            lambda a, d: mp.psi(0, a + d) - mp.psi(0, a) - d * mp.psi(1, a), a, d
        )
    units = 10 if dtype == np.float32 else 30
    assert_close(in_d, expected_d, units, dtype)
    assert_close(in_a, expected_a, units, dtype, np.abs(term))


def test_second_derivatives_of_the_divergence():
    a, d = np.array([0.01, 0.7, 3.0, 1e4]), np.array([0.5, -0.3, 1e-3, 300.0])
    hessian = jax.jit(jax.vmap(jax.hessian(differences.bregman_log_gamma, (0, 1))))
    ((aa, ad), (_, dd)) = hessian(a, d)
    change = FUNCTIONS["trigamma_difference"]
    assert_close(ad, exact(change, a, d), 30, np.float64)
    assert_close(dd, exact(lambda a, d: mp.psi(1, a + d), a, d), 30, np.float64)
    curved = exact(lambda a, d: change(a, d) - d * mp.psi(2, a), a, d)
    np.testing.assert_allclose(aa, curved, rtol=1e-8)


def _excess(a, b):
    whole = mp.loggamma(b) - mp.loggamma(a) - (b - a) * mp.psi(0, a)
    return whole - (b * mp.log(b / a) - (b - a))


@dtypes
def test_excess_over_the_poisson_divergence(dtype):
    rng = np.random.default_rng(0)
    a = np.exp(rng.uniform(np.log(1e-4), np.log(1e9), 200))
    relative = np.exp(rng.uniform(np.log(1e-5), np.log(1e5), 200))
    growth = np.where(rng.uniform(size=200) < 0.5, 1 + relative, 1 / (1 + relative))
    a, b = a.astype(dtype), (a * growth).astype(dtype)
    excess = differences.bregman_log_gamma_excess
    in_a, in_b = jax.jit(jax.vmap(jax.grad(excess, (0, 1))))(a, b)
    with mp.workdps(80):
        assert_close(computed(excess, a, b), exact(_excess, a, b), 60, dtype)
        slope = exact(lambda a, b: (a - b) * (mp.psi(1, a) - 1 / a), a, b)
        assert_close(in_a, slope, 60, dtype)
        slope = exact(lambda a, b: _slope(b) - _slope(a), a, b)
        # Near a the terms of the difference are log b/a.
        assert_close(in_b, slope, 60, dtype, np.abs(np.log(growth)))


def _slope(a):
    """Of log Γ(a) − a log a + a."""
    return mp.psi(0, a) - mp.log(a)


def test_outside_the_domain():
    a, d = jnp.array([-1.0, 2.0, 2.0, jnp.nan]), jnp.array([3.0, -2.0, -3.0, 1.0])
    for name in FUNCTIONS:
        assert jnp.isnan(getattr(differences, name)(a, d)).all()
    assert differences.bregman_log_gamma(3.0, 0.0) == 0
