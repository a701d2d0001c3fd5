"""The von Mises distribution function against adaptive quadrature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from ngvi.families import special
from tests.families.special.references import computed, dtypes


def _points() -> tuple[np.ndarray, np.ndarray]:
    """Angles over the circle and, for concentrated ones, over their scale."""
    pairs = [
        (np.float32(x), np.float32(kappa))
        for kappa in (0, 1, 14, 20, 1e4, 1e8)
        for x in (-3.14159, -0.4, 0.01, 2, *(z / max(kappa, 1) ** 0.5 for z in (1, 3)))
    ]
    x, kappa = np.array(pairs, np.float64).T
    return x, kappa


def _reference(x: float, kappa: float) -> tuple[float, float]:
    """F, and dF/dκ as the covariance of cos t with t ≤ x."""
    scale = min(mp.pi, 14 / mp.sqrt(kappa) if kappa else mp.pi)
    end = np.sign(x) * min(abs(x), scale)

    def mass(t):
        return mp.exp(-2 * kappa * mp.sin(t / 2) ** 2)

    def moment(t):
        return mp.sin(t / 2) ** 2 * mass(t)

    total, spread = (mp.quad(f, [0, scale / 4, scale]) for f in (mass, moment))
    part, moved = (mp.quad(f, [0, end / 4, end]) for f in (mass, moment))
    slope = (2 * spread / total * part - 2 * moved) / (2 * total)
    return float(0.5 + part / (2 * total)), float(slope)


@dtypes
def test_values_and_slopes(dtype):
    x, kappa = _points()
    with mp.workdps(20):
        expected, slope = np.array(
            [_reference(*p) for p in zip(x, kappa, strict=True)]
        ).T
    arguments = x.astype(dtype), kappa.astype(dtype)
    error = np.abs(computed(special.von_mises_cdf, *arguments) - expected)
    assert error.max() < (1e-13 if dtype == np.float64 else 4e-7)
    found = jax.jit(jax.vmap(jax.grad(special.von_mises_cdf, 1)))(*arguments)
    error = np.abs(found - slope) * (1 + kappa)
    assert error.max() < (1e-13 if dtype == np.float64 else 2e-6)


def test_derivatives():
    x, kappa = jnp.array([-2.0, 0.3, 1.0]), jnp.array([0.5, 3.0, 40.0])
    density = jax.vmap(jax.grad(special.von_mises_cdf))(x, kappa)
    log = kappa * jnp.cos(x) - jnp.log(2 * jnp.pi * jnp.i0(kappa))
    np.testing.assert_allclose(density, jnp.exp(log), rtol=1e-12)

    def slope(kappa):
        return jax.vmap(jax.grad(special.von_mises_cdf, 1))(x, kappa)

    curvature = jax.vmap(jax.grad(jax.grad(special.von_mises_cdf, 1), 1))(x, kappa)
    differences = (slope(kappa * 1.0001) - slope(kappa * 0.9999)) / (2e-4 * kappa)
    np.testing.assert_allclose(curvature, differences, rtol=1e-5)


def test_edges():
    end = np.float32(np.pi)
    kappa = np.array([0, 5, 1e8], np.float32)
    np.testing.assert_allclose(special.von_mises_cdf(end, kappa), 1, atol=1e-6)
    np.testing.assert_allclose(special.von_mises_cdf(-end, kappa), 0, atol=1e-6)
    outside = special.von_mises_cdf(
        jnp.array([3.2, 1.0, jnp.nan, 1.0]), jnp.array([1.0, -1.0, 1.0, jnp.nan])
    )
    assert jnp.isnan(outside).all()
