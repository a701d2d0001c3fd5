"""Inverses: round trips over the whole range, and derivatives of the implicit kind."""

from __future__ import annotations

import jax.numpy as jnp
import mpmath as mp
import numpy as np

from ngvi.families import special
from tests.families.special.references import (
    assert_close,
    computed,
    derivatives,
    dtypes,
    exact,
)


def _gap(a):
    return mp.log(a) - mp.psi(0, a)


@dtypes
def test_inverse_log_minus_digamma(dtype):
    s = (10 ** np.linspace(-12, 12, 100)).astype(dtype)
    a = computed(special.inverse_log_minus_digamma, s)
    with mp.workdps(60):
        # The residual over the slope is the error of a.
        error = exact(lambda a, s: (_gap(a) - s) / (a * mp.psi(1, a) - 1), a, s)
    assert np.abs(error).max() < 8 * np.finfo(dtype).eps
    first, second = derivatives(special.inverse_log_minus_digamma, s[20:80])
    slope = exact(lambda a: 1 / a - mp.psi(1, a), a[20:80])
    assert_close(first, 1 / slope, 100, dtype)
    bend = exact(lambda a: -1 / a**2 - mp.psi(2, a), a[20:80])
    assert_close(second, -bend / slope**3, 100, dtype)


@dtypes
def test_inverse_digamma(dtype):
    y = np.r_[-(10 ** np.linspace(-3, 10, 50)), np.linspace(-4, 80, 70)].astype(dtype)
    a = computed(special.inverse_digamma, y)
    error = exact(lambda a, y: (mp.psi(0, a) - y) / (a * mp.psi(1, a)), a, y)
    assert np.all(np.abs(error) < 8 * np.finfo(dtype).eps * np.maximum(1, y))
    first, second = derivatives(special.inverse_digamma, y[20:])
    slope = exact(lambda a: mp.psi(1, a), a[20:])
    assert_close(first, 1 / slope, 1000, dtype)
    bend = exact(lambda a: mp.psi(2, a), a[20:])
    assert_close(second, -bend / slope**3, 1000, dtype)


def test_outside_the_domain():
    outside = jnp.array([0.0, -1.0, jnp.nan])
    assert jnp.isnan(special.inverse_log_minus_digamma(outside)).all()
    assert jnp.isnan(special.inverse_digamma(jnp.array([jnp.nan]))).all()
