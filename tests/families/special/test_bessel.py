"""Bessel ratios of von Mises–Fisher families, from the plane to 2000 dimensions."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ngvi.families import special
from tests.families.special.references import (
    assert_close,
    computed,
    derivatives,
    dtypes,
)

KAPPAS = [0, 1e-6, 1e-3, 0.25, 1, 4, 11.5, 12, 16, 29.5, 30, 60, 300, 1e4, 1e6]
KAPPAS = np.array([*KAPPAS, 1e8], np.float32)
dimensions = pytest.mark.parametrize("dimension", [2, 3, 50, 500, 2000])
# Units of rounding: 1 − A and A' are recovered from A for small orders.
FUNCTIONS = {
    "log_bessel": 8,
    "log_bessel_scaled": 16,
    "bessel_ratio": 8,
    "one_minus_bessel_ratio": 70,
    "bessel_ratio_slope": 70,
}


@cache
def _references(dimension: int) -> dict[str, np.ndarray]:
    nu, columns = mp.mpf(dimension) / 2 - 1, []
    with mp.workdps(60):
        for kappa in map(mp.mpf, KAPPAS[1:].tolist()):
            low, high = mp.besseli(nu, kappa), mp.besseli(nu + 1, kappa)
            log = mp.log(low) + mp.loggamma(nu + 1) + nu * mp.log(2 / kappa)
            ratio = high / low
            slope = 1 - ratio**2 - (2 * nu + 1) * ratio / kappa
            columns.append([log, log - kappa, ratio, 1 - ratio, slope])
    rows = np.array([[0, 0, 0, 1, 1 / dimension], *columns]).astype(np.float64)
    return dict(zip(FUNCTIONS, rows.T, strict=True))


@dtypes
@dimensions
def test_values(dimension, dtype):
    kappa = KAPPAS.astype(dtype)
    for name, units in FUNCTIONS.items():
        value = computed(
            lambda k, f=name: getattr(special, f)(dimension / 2 - 1, k), kappa
        )
        expected = _references(dimension)[name]
        assert_close(value[1:], expected[1:], units, dtype)
        assert abs(value[0] - expected[0]) < 1e-6


@dtypes
@dimensions
def test_inverses(dimension, dtype):
    nu, expected = dimension / 2 - 1, _references(dimension)
    ratio = expected["bessel_ratio"].astype(dtype)
    complement = expected["one_minus_bessel_ratio"].astype(dtype)
    near, inverse = ratio < 0.5, special.inverse_bessel_ratio
    found = computed(lambda r: inverse(nu, r, 1 - r), ratio[near])
    assert found[0] == 0
    assert_close(found[1:], KAPPAS[near][1:], 8, dtype)
    found = computed(lambda q: inverse(nu, 1 - q, q), complement[~near])
    assert_close(found, KAPPAS[~near], 200, dtype)


@pytest.mark.slow
def test_derivatives():
    nu = 0.5
    kappa = np.array([1e-3, 0.5, 8.0, 40.0, 1e4])
    first, second = derivatives(lambda k: special.log_bessel(nu, k), kappa)
    np.testing.assert_allclose(first, 1 / np.tanh(kappa) - 1 / kappa, rtol=1e-9)
    slope = special.bessel_ratio_slope(nu, kappa)
    np.testing.assert_allclose(second, slope, rtol=1e-12)
    # A'' by differentiation of A', against its recurrence where that is well posed.
    bend = jax.vmap(jax.grad(lambda k: special.bessel_ratio_slope(nu, k)))(kappa)
    ratio = special.bessel_ratio(nu, kappa)
    algebra = -2 * ratio * slope - 2 * (slope - ratio / kappa) / kappa
    np.testing.assert_allclose(bend[1:3], algebra[1:3], rtol=1e-9)

    def inverse(r: jax.Array) -> jax.Array:
        return special.inverse_bessel_ratio(nu, r, 1 - r)

    first, second = derivatives(inverse, ratio)
    np.testing.assert_allclose(first[:4], 1 / slope[:4], rtol=1e-9)
    np.testing.assert_allclose(second[:4], -bend[:4] / slope[:4] ** 3, rtol=1e-7)
    np.testing.assert_allclose(jax.grad(inverse)(0.0), 3.0)


def test_gradients_are_finite_in_single_precision():
    for dimension in (2, 50):
        nu = dimension / 2 - 1
        first, second = derivatives(lambda k, n=nu: special.bessel_ratio(n, k), KAPPAS)
        assert jnp.isfinite(first).all()
        assert jnp.isfinite(second).all()


def test_outside_the_domain():
    outside = jnp.array([-1.0, jnp.nan])
    for name in FUNCTIONS:
        assert jnp.isnan(getattr(special, name)(40, outside)).all()
    assert jnp.isnan(special.bessel_ratio(0, outside)).all()
    wrong = jnp.array([-0.1, 1.0, 1.5, jnp.nan])
    assert jnp.isnan(special.inverse_bessel_ratio(40, wrong, 1 - wrong)).all()
