"""A diagonal plus low rank: units, rank-deficient factors, derivatives."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import LowRankPlusDiagonal
from tests.linalg.cases import close
from tests.programs import compiled


def single(diagonal: np.ndarray, factor: np.ndarray) -> LowRankPlusDiagonal:
    return LowRankPlusDiagonal.from_factor(
        jnp.asarray(diagonal, jnp.float32), jnp.asarray(factor, jnp.float32)
    )


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e2])
def test_single_precision(strength: float) -> None:
    # Units from 1e-3 to 1e3, so P's entries from 1e-6 to 1e6; what U adds to the
    # diagonal, from 1e-6 to 1e4 of it.
    rng = np.random.default_rng(0)
    dim, rank = 1000, 10
    units = 10.0 ** rng.uniform(-3, 3, dim)
    diagonal = units**2 * rng.uniform(0.5, 2, dim)
    factor = strength * units[:, None] * rng.standard_normal((dim, rank))
    p = single(diagonal, factor)
    exact = np.diag(diagonal) + factor @ factor.T
    scaled = exact / np.outer(units, units)
    inverse = np.linalg.inv(scaled) / np.outer(units, units)
    np.testing.assert_allclose(p.diagonal(), np.diag(exact), rtol=1e-5)
    np.testing.assert_allclose(p.inverse_diagonal(), np.diag(inverse), rtol=1e-4)
    logdet = np.linalg.slogdet(scaled)[1] + 2 * np.log(units).sum()
    np.testing.assert_allclose(p.logdet(), logdet, atol=1e-6 * dim)
    # Errors in standard deviations, for vectors as typical as their draws.
    deviations = np.sqrt(np.diag(inverse))
    eps = rng.standard_normal((20, dim))
    draws = np.asarray(p.unwhiten(jnp.asarray(eps, jnp.float32)), float)
    double = LowRankPlusDiagonal.from_factor(jnp.asarray(diagonal), jnp.asarray(factor))
    exactly = np.asarray(double.unwhiten(jnp.asarray(eps)))
    assert np.abs((draws - exactly) / deviations).max() < 1e-5
    white = np.asarray(p.whiten(jnp.asarray(draws, jnp.float32)))
    # The rounding of a draw counts as often as U is stronger than D.
    rounding = 1e-6 * (1 + strength * np.sqrt(dim))
    np.testing.assert_allclose(white, eps, atol=rounding)
    g = draws @ exact
    error = np.asarray(p.solve(jnp.asarray(g, jnp.float32))) - g @ inverse
    assert np.abs(error / deviations).max() < rounding
    # What is multiplied cancels in Uᵀx: errors beside the terms of the sums.
    product = np.asarray(p.mv(jnp.asarray(draws, jnp.float32)))
    terms = np.abs(draws) * diagonal + np.abs(draws) @ np.abs(factor) @ np.abs(factor.T)
    assert (np.abs(product - g) / terms).max() < 1e-6


def test_a_coordinate_known_a_million_times_better() -> None:
    # U pins the first coordinate: 1 − ‖q‖² has no correct digit left for it.
    factor = np.zeros((3, 1))
    factor[0] = 3e3
    p = single(np.ones(3), factor)
    np.testing.assert_allclose(p.inverse_diagonal(), [1 / (1 + 9e6), 1, 1], rtol=1e-6)
    np.testing.assert_allclose(p.logdet(), np.log1p(9e6), rtol=1e-6)


FACTORS = {
    "zero": np.zeros((4, 2)),
    "equal columns": np.repeat(np.arange(1.0, 5)[:, None], 2, 1),
    "equal and huge": np.repeat(1e4 * np.arange(1.0, 5)[:, None], 2, 1),
    "a zero column": np.stack([np.arange(1.0, 5), np.zeros(4)], 1),
}
X = np.array([0.3, -1.0, 2.0, 0.5])


def _values(diagonal: jax.Array, factor: jax.Array) -> jax.Array:
    p = LowRankPlusDiagonal.from_factor(diagonal, factor)
    x = jnp.asarray(X, factor.dtype)
    numbers = p.logdet()[None], p.inverse_diagonal(), p.diagonal()
    return jnp.concatenate([*numbers, p.mv(x), p.solve(x), p.whiten(x), p.unwhiten(x)])


@compiled
@partial(jax.vmap, in_axes=(None, 0))
def _values_and_slopes(diagonal: jax.Array, factor: jax.Array) -> list:
    modes = jax.jacfwd(_values, (0, 1)), jax.jacrev(_values, (0, 1))
    return [_values(diagonal, factor), *(mode(diagonal, factor) for mode in modes)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_any_factor_has_finite_values_and_slopes(dtype: type) -> None:
    factors = jnp.asarray(np.stack(list(FACTORS.values())), dtype)
    values, forward, backward = _values_and_slopes(jnp.ones(4, dtype), factors)
    for leaf in jax.tree.leaves((values, forward, backward)):
        assert leaf.dtype == dtype
        for name, value in zip(FACTORS, leaf, strict=True):
            assert np.isfinite(value).all(), name
    if dtype == jnp.float64:
        for one, other in zip(forward, backward, strict=True):
            for row, same in zip(one, other, strict=True):
                close(row, same, 1e-6)


def test_gradients_are_those_of_the_dense_matrix() -> None:
    def ours(d: jax.Array, u: jax.Array) -> jax.Array:
        p = LowRankPlusDiagonal.from_factor(d, u)
        return p.logdet() + X @ p.solve(X) + p.inverse_diagonal().sum()

    def plain(d: jax.Array, u: jax.Array) -> jax.Array:
        matrix = jnp.diag(d) + u @ u.T
        inverse = jnp.linalg.inv(matrix)
        logdet = jnp.linalg.slogdet(matrix)[1]
        return logdet + X @ inverse @ X + jnp.trace(inverse)

    moderate = [u for name, u in FACTORS.items() if name != "equal and huge"]
    factors = jnp.asarray(np.stack(moderate))
    slopes, expected = (
        compiled(jax.vmap(jax.grad(f, (0, 1)), (None, 0)))(jnp.arange(1.0, 5), factors)
        for f in (ours, plain)
    )
    for one, other in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_damping() -> None:
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((4, 2))
    p = LowRankPlusDiagonal.from_factor(jnp.ones(4), jnp.asarray(factor))
    close(p.damp(0.7).dense(), 1.7 * np.eye(4) + factor @ factor.T)
