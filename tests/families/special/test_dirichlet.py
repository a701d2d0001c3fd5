"""Dirichlet parameters from mean logarithms: every shape, every scale, no NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special

from ngvi.families import special
from tests.families.special.references import computed, dtypes


def _parameters(size: int, count: int) -> np.ndarray:
    """Log-sd 3; half of them with sums spread from 1e-2 to 1e6."""
    rng = np.random.default_rng(size)
    alpha = np.exp(3 * rng.normal(size=(count, size)))
    total = 10 ** rng.uniform(-2, 6, (count // 2, 1))
    alpha[::2] *= total / alpha[::2].sum(-1, keepdims=True)
    return np.maximum(alpha, 1e-30)


def _mean_log(alpha: np.ndarray) -> np.ndarray:
    """ψ(α_k) − ψ(α₀), whose largest entry subtraction would lose."""
    total = alpha.sum(-1, keepdims=True)
    top = alpha.argmax(-1)[:, None]
    rest = np.where(np.arange(alpha.shape[1]) == top, 0, alpha).sum(-1)
    mean = scipy.special.digamma(alpha) - scipy.special.digamma(total)
    first = np.take_along_axis(alpha, top, -1)[:, 0]
    value = -np.asarray(special.digamma_difference(first, rest))
    np.put_along_axis(mean, top, value[:, None], -1)
    return mean


@dtypes
@pytest.mark.parametrize(("size", "count"), [(2, 1000), (100, 1000)])
def test_round_trip(size, count, dtype):
    alpha = _parameters(size, count)
    mean_log = _mean_log(alpha).astype(dtype)
    found = computed(special.inverse_dirichlet, mean_log)
    assert np.all(found > 0)
    wide = mean_log.astype(np.float64)
    residual = np.abs(_mean_log(found) - wide) / np.maximum(1, np.abs(wide))
    # 30: the reference itself subtracts digammas of up to 14.
    assert residual.max() < 30 * np.finfo(dtype).eps
    if dtype == np.float64:
        assert np.abs(found / alpha - 1).max() < 2e-9


def test_a_thousand_categories():
    alpha = _parameters(1000, 10)
    for dtype, bound in ((np.float64, 1e-9), (np.float32, 1e-2)):
        found = computed(special.inverse_dirichlet, _mean_log(alpha).astype(dtype))
        assert np.abs(found / alpha - 1).max() < bound


def test_derivatives():
    alpha = np.array([0.3, 2.0, 40.0])
    inverse = special.inverse_dirichlet

    def forward(a):
        return special.digamma(a) - special.digamma(a.sum())

    mean = forward(alpha)
    expected = np.linalg.inv(jax.jacobian(forward)(alpha))
    np.testing.assert_allclose(jax.jacrev(inverse)(mean), expected, rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(inverse)(mean), expected, rtol=1e-9)
    # d(J⁻¹ v) = −J⁻¹ dJ J⁻¹ v with dJ along w = J⁻¹ v.
    along = np.array([0.3, -0.2, 0.1])
    moved = jax.jit(lambda m: jax.jvp(inverse, (m,), (along,))[1])
    w = np.asarray(moved(mean))
    curved = scipy.special.polygamma(2, alpha) * w**2
    curved -= scipy.special.polygamma(2, alpha.sum()) * w.sum() ** 2
    second = jax.jit(lambda m: jax.jvp(moved, (m,), (along,))[1])(mean)
    np.testing.assert_allclose(second, -expected @ curved, rtol=1e-8)


@dtypes
def test_remainder(dtype):
    alpha = np.array([[1.0, 1e-7, 1e-9], [3e5, 2e5, 5e5], [0.1, 7.0, 1e6]], dtype)

    def reference(row):
        row = [mp.mpf(float(v)) for v in row]
        weights = sum(1 / mp.psi(1, v) for v in row)
        return float(1 - mp.psi(1, sum(row)) * weights)

    expected = [reference(row) for row in alpha]
    value = special.dirichlet_fisher_remainder(alpha)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=20 * np.finfo(dtype).eps)


def test_outside_the_domain():
    inverse = jax.jit(special.inverse_dirichlet)
    rows = jnp.log(jnp.array([[0.6, 0.5], [0.9, 0.3], [0.2, jnp.nan], [0.3, 0.4]]))
    found = inverse(rows)
    assert jnp.isnan(found[:3]).all()
    assert jnp.isfinite(found[3]).all()
    gradient = jax.grad(lambda m: inverse(m)[3].sum())(rows)
    assert jnp.isfinite(gradient[3]).all()
