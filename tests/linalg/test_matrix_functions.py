"""Half powers by polynomials, against a spectral decomposition in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import Dense
from ngvi.linalg.matrix_functions import half_powers
from ngvi.mirror import retractions

NORMS = np.array([1e-9, 0.1, 0.2, 0.2501, 0.9])
"""On both sides of where the polynomials end."""


def symmetric(dim: int, norm: float, seed: int) -> np.ndarray:
    matrix = np.random.default_rng(seed).standard_normal((dim, dim))
    matrix = matrix + matrix.T
    return matrix * norm / np.linalg.norm(matrix, 2)


@partial(jax.jit, static_argnums=1)
def half(x: jax.Array, function: Callable) -> tuple[jax.Array, jax.Array]:
    return half_powers(x, function)


@pytest.mark.parametrize("dim", [3, 12])
@pytest.mark.parametrize(
    "function",
    [retractions.exponential, retractions.covariance, retractions.second_order],
    ids=lambda f: f.__name__,
)
def test_half_powers_are_those_of_the_spectrum(function: Callable, dim: int) -> None:
    for seed, norm in enumerate(NORMS):
        x = symmetric(dim, norm, seed)
        values, vectors = np.linalg.eigh(x)
        root = np.sqrt(np.asarray(function(jnp.asarray(values))))
        for dtype, tolerance in [(jnp.float64, 3e-14), (jnp.float32, 4e-6)]:
            grow, shrink = half(jnp.asarray(x, dtype), function)
            assert grow.dtype == shrink.dtype == dtype
            expected = (vectors * root) @ vectors.T
            np.testing.assert_allclose(grow, expected, atol=tolerance)
            expected = (vectors / root) @ vectors.T
            np.testing.assert_allclose(shrink, expected, atol=tolerance)


def test_polynomials_lose_no_digits_in_single_precision() -> None:
    # Decomposing in single precision loses 8e-7 here.
    x = symmetric(12, 0.15, 0)
    grow, shrink = half(jnp.asarray(x, jnp.float32), retractions.covariance)
    exact = np.linalg.inv(np.eye(12) - x)
    np.testing.assert_allclose(np.asarray(grow, float) @ grow, exact, atol=4e-7)
    product = np.asarray(grow, float) @ np.asarray(shrink, float)
    np.testing.assert_allclose(product, np.eye(12), atol=4e-7)


def test_a_batch_of_matrices_short_and_long() -> None:
    x = jnp.asarray(np.stack([symmetric(12, norm, 1) for norm in NORMS]))
    one_by_one = [half(m, retractions.exponential)[0] for m in x]
    mapped = jax.jit(jax.vmap(lambda m: half_powers(m, retractions.exponential)[0]))
    np.testing.assert_allclose(mapped(x), np.stack(one_by_one), atol=1e-13)
    together = half(x, retractions.exponential)[0]
    np.testing.assert_allclose(together, np.stack(one_by_one), atol=1e-13)


def test_derivatives_in_both_modes() -> None:
    # d/dt tr exp(tX)^½ = ½ tr(X exp(tX/2)).
    x = symmetric(12, 0.2, 2)

    def trace(t: jax.Array) -> jax.Array:
        return jnp.trace(half_powers(t * jnp.asarray(x), retractions.exponential)[0])

    values = np.linalg.eigvalsh(x)
    expected = (values * np.exp(values / 2)).sum() / 2
    one = jnp.asarray(1.0)
    np.testing.assert_allclose(jax.jit(jax.grad(trace))(one), expected, rtol=1e-9)
    slope = jax.jit(lambda t: jax.jvp(trace, (t,), (one,))[1])(one)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "dtype, tolerance", [(jnp.float64, 1e-13), (jnp.float32, 1e-5)]
)
def test_a_sum_of_few_terms_moves_a_matrix_as_the_sum_does(
    dtype: type, tolerance: float
) -> None:
    rng = np.random.default_rng(3)
    dim, count = 24, 4
    x, weights = rng.standard_normal((count, dim)), rng.uniform(-0.04, 0.06, count)
    x[-1] = x[0]  # A basis of their span has fewer directions than terms.
    root = np.eye(dim) + 0.3 * rng.standard_normal((dim, dim))
    p = Dense.from_inverse_root(jnp.asarray(root, dtype))
    sums = jnp.asarray(x, dtype), jnp.asarray(weights, dtype), -0.1
    for function in (retractions.exponential, retractions.covariance):
        moved = jax.jit(lambda p, f=function: p.retract_sum(*sums, f))(p)
        whole = (x.T * weights) @ x - 0.1 * np.eye(dim)
        expected = p.retract(jnp.asarray(whole, dtype), function)
        for one, other in zip(
            jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=tolerance)
