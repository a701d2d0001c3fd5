"""Lanczos' process where rounding and exhausted spaces would spoil it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.linalg import lanczos
from ngvi.linalg.lanczos import Tridiagonal, function_times, quadrature
from tests.linalg.cases import close


@jax.jit
def whole(matrix: jax.Array, start: jax.Array) -> Tridiagonal:
    return lanczos(lambda x: matrix @ x, start, len(matrix))


def test_the_rows_stay_orthonormal() -> None:
    # Ten decades: the largest eigenvalues converge long before the last step.
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    matrix = vectors * np.logspace(-5, 5, 40) @ vectors.T
    t = whole(matrix, rng.standard_normal(40))
    np.testing.assert_allclose(t.rows @ t.rows.T, np.eye(40), atol=1e-13)
    close(t.rows @ matrix @ t.rows.T, t.matrix(), 1e-13)


def test_multiple_eigenvalues_are_found_and_the_start_may_be_one_of_them() -> None:
    values = np.repeat([0.0, 1.0, 5.0], [20, 15, 5])
    vectors = np.linalg.qr(np.random.default_rng(1).standard_normal((40, 40)))[0]
    matrix = vectors * values @ vectors.T
    for start in (np.ones(40), vectors[:, -1], np.zeros(40)):
        t = whole(matrix, start)
        np.testing.assert_allclose(t.rows @ t.rows.T, np.eye(40), atol=1e-12)
        np.testing.assert_allclose(np.linalg.eigvalsh(t.matrix()), values, atol=1e-12)


def test_polynomials_are_exact_below_the_number_of_steps() -> None:
    rng = np.random.default_rng(2)
    factor = rng.standard_normal((40, 40))
    matrix, x = factor + factor.T, rng.standard_normal(40)

    @jax.jit
    def both(matrix: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        def mv(y: jax.Array) -> jax.Array:
            return matrix @ y

        t = lanczos(mv, x, 6)
        exact, rough = quadrature(t, lambda v: v**11), quadrature(t, lambda v: v**12)
        return function_times(mv, lambda v: v**5 - 2 * v, x, 6), exact, rough

    product, exact, rough = both(matrix, x)
    powers = [np.linalg.matrix_power(matrix, k) for k in (5, 11, 12)]
    close(product, powers[0] @ x - 2 * matrix @ x)
    expected = [x @ p @ x / (x @ x) for p in powers[1:]]
    np.testing.assert_allclose(exact, expected[0], rtol=1e-10)
    assert abs(rough / expected[1] - 1) > 1e-6


def test_the_bare_recurrence_is_enough_for_a_quadrature() -> None:
    # Eigenvalues converge within the steps, and come back as ghosts.
    rng = np.random.default_rng(3)
    vectors = np.linalg.qr(rng.standard_normal((80, 80)))[0]
    values = np.concatenate([10.0 ** np.linspace(1, 4, 8), np.linspace(1, 2, 72)])
    matrix, x = vectors * values @ vectors.T, rng.standard_normal(80)

    @jax.jit
    def bare(matrix: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        t = lanczos(lambda y: matrix @ y, x, 60, keep=2)
        return quadrature(t, jnp.log), t.matrix()

    found, tridiagonal = bare(matrix, x)
    expected = (vectors.T @ x) ** 2 @ np.log(values) / (x @ x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert (np.linalg.eigvalsh(tridiagonal) > 9e3).sum() > 1
