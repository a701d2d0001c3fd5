"""Dirichlet parameters from mean logarithms: every shape, every scale, no NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special

from ngvi.families import special
from tests.families.special.references import dtypes
from tests.programs import compiled

inverse = compiled(special.inverse_dirichlet)
difference = compiled(special.digamma_difference)


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
    value = -np.asarray(difference(first, rest))
    np.put_along_axis(mean, top, value[:, None], -1)
    return mean


@dtypes
@pytest.mark.parametrize(("size", "count"), [(2, 1000), (3, 1000), (1000, 10)])
def test_round_trip(size, count, dtype):
    alpha = _parameters(size, count)
    mean_log = _mean_log(alpha).astype(dtype)
    found = inverse(mean_log)
    assert found.dtype == dtype
    found = np.asarray(found, np.float64)
    assert np.all(found > 0)
    wide = mean_log.astype(np.float64)
    residual = np.abs(_mean_log(found) - wide) / np.maximum(1, np.abs(wide))
    # 30: the reference itself subtracts digammas of up to 14.
    assert residual.max() < 30 * np.finfo(dtype).eps
    if dtype == np.float64:
        assert np.abs(found / alpha - 1).max() < 2e-9


def test_derivatives():
    alpha = np.array([0.3, 2.0, 40.0])
    along = np.array([0.3, -0.2, 0.1])
    mean = _mean_log(alpha[None])[0]

    def moved(m: jax.Array) -> jax.Array:
        return jax.jvp(special.inverse_dirichlet, (m,), (along,))[1]

    @compiled
    def of(m: jax.Array) -> tuple[jax.Array, ...]:
        first = jax.jacrev(special.inverse_dirichlet)(m)
        return first, moved(m), jax.jvp(moved, (m,), (along,))[1]

    first, w, second = map(np.asarray, of(mean))
    jacobian = np.diag(scipy.special.polygamma(1, alpha))
    expected = np.linalg.inv(jacobian - scipy.special.polygamma(1, alpha.sum()))
    np.testing.assert_allclose(first, expected, rtol=1e-9)
    np.testing.assert_allclose(w, expected @ along, rtol=1e-9)
    # d(J⁻¹ v) = −J⁻¹ dJ J⁻¹ v with dJ along w = J⁻¹ v.
    curved = scipy.special.polygamma(2, alpha) * w**2
    curved -= scipy.special.polygamma(2, alpha.sum()) * w.sum() ** 2
    np.testing.assert_allclose(second, -expected @ curved, rtol=1e-8)


@dtypes
def test_remainder(dtype):
    alpha = np.array([[1.0, 1e-7, 1e-9], [3e5, 2e5, 5e5], [0.1, 7.0, 1e6]], dtype)

    def reference(row):
        row = [mp.mpf(float(v)) for v in row]
        weights = sum(1 / mp.psi(1, v) for v in row)
        return float(1 - mp.psi(1, sum(row)) * weights)

    expected = [reference(row) for row in alpha]
    value = compiled(special.dirichlet_fisher_remainder)(alpha)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=20 * np.finfo(dtype).eps)


def test_outside_the_domain():
    rows = jnp.log(jnp.array([[0.6, 0.5], [0.9, 0.3], [0.2, jnp.nan], [0.3, 0.4]]))

    @compiled
    def of(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        found, back = jax.vjp(special.inverse_dirichlet, rows)
        return found, back(jnp.zeros_like(found).at[3].set(1))[0]

    found, gradient = of(rows)
    assert jnp.isnan(found[:3]).all()
    assert jnp.isfinite(found[3]).all()
    assert jnp.isfinite(gradient[3]).all()
