"""Logarithms of ratios, and what the gamma function adds to Stirling's leading term."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from ngvi.families import special
from tests.families.checks import compiled

RATIOS = np.concatenate(
    [1 + np.array([-0.6, -1e-2, -1e-6, 0, 1e-6, 1e-2, 0.9, 1.1]), np.logspace(-20, 20)]
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_ratio_and_its_gap(dtype):
    y = np.full(RATIOS.shape, 3, dtype)
    x = (RATIOS * 3).astype(dtype)
    with mpmath.workdps(60):
        exact = [mpmath.mpf(float(v)) / 3 for v in x]
        logs = np.array([float(mpmath.log(r)) for r in exact])
        gaps = np.array([float(mpmath.log(r) - (r - 1)) for r in exact])
    rtol = 20 * np.finfo(dtype).eps
    value, gap = compiled(
        lambda x, y: (special.log_ratio(x, y), special.log_ratio_gap(x, y))
    )(x, y)
    assert value.dtype == gap.dtype == dtype
    np.testing.assert_allclose(value, logs, rtol=rtol)
    np.testing.assert_allclose(gap, gaps, rtol=rtol)


def test_expm1_minus():
    z = np.concatenate([[0.0], np.logspace(-12, 2), -np.logspace(-12, 2)])
    with mpmath.workdps(60):
        exact = [float(mpmath.expm1(v) - v) for v in map(mpmath.mpf, z)]
    value = compiled(special.expm1_minus)(z)
    np.testing.assert_allclose(value, exact, rtol=1e-14)


def exact_excess(a: float, b: float) -> float:
    with mpmath.workdps(80):
        a, b = mpmath.mpf(a), mpmath.mpf(b)
        whole = mpmath.loggamma(b) - mpmath.loggamma(a) - (b - a) * mpmath.digamma(a)
        return float(whole - (b * mpmath.log(b / a) - (b - a)))


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_excess_over_the_poisson_divergence(dtype, rtol):
    rng = np.random.default_rng(0)
    a = np.exp(rng.uniform(np.log(1e-4), np.log(1e9), 200))
    relative = np.exp(rng.uniform(np.log(1e-5), np.log(1e5), 200))
    growth = np.where(rng.uniform(size=200) < 0.5, 1 + relative, 1 / (1 + relative))
    a, b = a.astype(dtype), (a * growth).astype(dtype)
    exact = [exact_excess(float(p), float(q)) for p, q in zip(a, b, strict=True)]
    value = compiled(special.bregman_log_gamma_excess)(a, b)
    np.testing.assert_allclose(value, exact, rtol=rtol)


def test_derivatives_of_the_excess():
    a, b = jnp.asarray([0.3, 4.0, 50.0]), jnp.asarray([0.5, 2.5, 350.0])
    excess = special.bregman_log_gamma_excess
    step = 1e-5 * a

    @compiled
    def of(a: jax.Array, b: jax.Array) -> tuple:
        by_a = (excess(a + step, b) - excess(a - step, b)) / (2 * step)
        by_b = (excess(a, b + step) - excess(a, b - step)) / (2 * step)
        return jax.grad(lambda a, b: excess(a, b).sum(), (0, 1))(a, b), (by_a, by_b)

    slopes, differences = of(a, b)
    np.testing.assert_allclose(slopes, differences, rtol=1e-6)
