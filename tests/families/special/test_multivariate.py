"""The multivariate gamma function and the shape of a Wishart family."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special

from ngvi.families import special
from tests.families.special.references import (
    assert_close,
    computed,
    derivatives,
    dtypes,
    exact,
)


def _gap(c, p: int):
    """p log a − ψ_p(a) at a = c + (p − 1)/2."""
    terms = (mp.psi(0, c + mp.mpf(j) / 2) for j in range(p))
    return p * mp.log(c + mp.mpf(p - 1) / 2) - sum(terms)


@dtypes
@pytest.mark.parametrize("p", [1, 4])
def test_against_scipy(p, dtype):
    a = ((p - 1) / 2 + 10 ** np.linspace(-2, 5, 40)).astype(dtype)
    value = computed(lambda a: special.multivariate_log_gamma(a, p), a)
    wide = a.astype(np.float64)
    assert_close(value, scipy.special.multigammaln(wide, p), 40, dtype, 1.0)
    slope = jax.vmap(jax.grad(lambda a: special.multivariate_log_gamma(a, p)))(a)
    halves = wide[:, None] - np.arange(p) / 2
    assert_close(slope, scipy.special.digamma(halves).sum(1), 40, dtype, 1.0)
    bend = jax.vmap(jax.grad(lambda a: special.multivariate_digamma(a, p)))(a)
    assert_close(bend, scipy.special.polygamma(1, halves).sum(1), 40, dtype)


@dtypes
@pytest.mark.parametrize("p", [1, 2, 5, 100])
def test_gap_and_inverse(p, dtype):
    limit = (p - 1) / 2
    c = (10 ** np.linspace(-6, 8, 15)).astype(dtype)
    a = (c + limit).astype(dtype)
    a = a[a > limit]
    with mp.workdps(60):
        expected = exact(lambda a: _gap(a - mp.mpf(p - 1) / 2, p), a)
    assert_close(computed(lambda a: special.wishart_gap(a, p), a), expected, 20, dtype)

    def inverse(s):
        return special.inverse_wishart_gap(s, p)

    s = (10 ** np.linspace(-12, 12, 49)).astype(dtype)
    a = computed(inverse, s)
    assert np.all(a > limit)
    # Where a is not just its limit, a is right to rounding.
    clear = a > limit + 0.1
    inside = a[clear].astype(dtype)
    gap, slope = jax.jit(
        jax.vmap(jax.value_and_grad(lambda a: special.wishart_gap(a, p)))
    )(inside)
    error = np.abs(gap - s[clear])
    assert np.all(error <= 40 * np.finfo(dtype).eps * (np.abs(slope) * inside + gap))


def test_derivatives_of_the_inverse():
    s = np.array([1e-6, 0.3, 4.0, 50.0])
    first, second = derivatives(lambda s: special.inverse_wishart_gap(s, 3), s)
    a = special.inverse_wishart_gap(s, 3)
    slope, bend = derivatives(lambda a: special.wishart_gap(a, 3), a)
    np.testing.assert_allclose(first, 1 / slope, rtol=1e-10)
    np.testing.assert_allclose(second, -bend / slope**3, rtol=1e-8)


def test_outside_the_domain():
    outside = jnp.array([1.5, 0.0, -1.0, jnp.nan])
    for function in (
        special.multivariate_log_gamma,
        special.multivariate_digamma,
        special.wishart_gap,
    ):
        assert jnp.isnan(function(outside, 4)).all()
    assert jnp.isnan(special.inverse_wishart_gap(outside[1:], 4)).all()
