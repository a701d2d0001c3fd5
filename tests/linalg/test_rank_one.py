"""A diagonal minus rank one: the Fisher matrix of a categorical, close to singular."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import DiagonalMinusRankOne
from tests.linalg.cases import close
from tests.programs import compiled


def categorical(rng: np.random.Generator, dim: int, last: float) -> np.ndarray:
    """Probabilities, a power of ten apart or so, of all categories but the last."""
    p = np.exp(2 * rng.standard_normal(dim))
    return (p / p.sum() * (1 - last)).astype(np.float32).astype(float)


def last_probability(p: np.ndarray) -> float:
    """1 − Σ p, exactly, rounded once."""
    return float(1 - sum(map(Fraction, p.tolist())))


@pytest.mark.parametrize("seed", range(5))
def test_single_precision_close_to_singular(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 6
    p = categorical(rng, dim, 3e-7)
    remainder = last_probability(p)
    assert 1e-8 < remainder < 2e-6
    vector = jnp.asarray(p, jnp.float32)
    fisher = DiagonalMinusRankOne(vector, vector, jnp.float32(remainder))
    others = np.where(np.eye(dim, dtype=bool), 0, p).sum(1) + remainder
    # diag(1/p) + 1 1ᵀ/p_K: sums of positive terms, exact to rounding in float64.
    inverse = np.diag(1 / p) + 1 / remainder
    deviations = np.sqrt(np.diag(inverse))
    np.testing.assert_allclose(fisher.diagonal(), p * others, rtol=1e-6)
    np.testing.assert_allclose(fisher.inverse_diagonal(), deviations**2, rtol=1e-6)
    np.testing.assert_allclose(fisher.inverse_dense(), inverse, rtol=1e-6)
    logdet = np.log(p).sum() + np.log(remainder)
    np.testing.assert_allclose(fisher.logdet(), logdet, rtol=1e-6)
    # A constant shift of all logits is what the last category alone resists.
    shift = fisher.mv(jnp.ones(dim, jnp.float32))
    np.testing.assert_allclose(shift, p * remainder, rtol=1e-5)

    eps = rng.standard_normal((200, dim)).astype(np.float32)
    draws = np.asarray(fisher.unwhiten(eps), float)
    # A Aᵀ = P⁻¹ with A from float64; errors in standard deviations.
    v = np.sqrt(p)
    lengthened = np.outer(v, v) / (np.sqrt(remainder) * (1 + np.sqrt(remainder)))
    a = (np.eye(dim) + lengthened) / v[:, None]
    close(a @ a.T, inverse, 1e-6)
    assert np.abs((draws - eps @ a.T) / deviations).max() < 1e-5
    back = np.asarray(fisher.whiten_gradient(eps), float)
    close(back, eps @ a, 1e-6)
    solved = np.asarray(fisher.solve(eps), float)
    assert np.abs((solved - eps @ inverse) / np.abs(eps @ inverse)).max() < 1e-3
    # √r is known to three digits once it stands beside 1.
    np.testing.assert_allclose(fisher.whiten(fisher.unwhiten(eps)), eps, atol=1e-3)
    product = np.asarray(fisher.mv(eps), float)
    close(product, p * (eps - (eps @ p)[:, None]), 1e-6)


def test_without_a_vector_it_is_diagonal() -> None:
    d = jnp.arange(1.0, 4)
    x = jnp.ones(3)

    def numbers(w: jax.Array) -> jax.Array:
        p = DiagonalMinusRankOne(d, w, 1 - (w**2 / d).sum())
        vectors = p.mv(x), p.solve(x), p.whiten(x), p.unwhiten(x)
        return jnp.concatenate([*vectors, p.diagonal(), p.logdet()[None]])

    values, *slopes = compiled(
        lambda w: (numbers(w), jax.jacfwd(numbers)(w), jax.jacrev(numbers)(w))
    )(jnp.zeros(3))
    roots = np.sqrt(d)
    expected = [d, 1 / d, roots, 1 / roots, d, [np.log(6)]]
    np.testing.assert_allclose(values, np.concatenate(expected))
    for slope in slopes:  # every number is even in w
        np.testing.assert_allclose(slope, 0, atol=1e-15)


def test_gradients_are_those_of_the_dense_matrix() -> None:
    x = jnp.array([0.3, -1.0, 2.0])

    def ours(logits: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)
        fisher = DiagonalMinusRankOne(p[:-1], p[:-1], p[-1])
        white = (fisher.whiten(x) ** 2).sum(), (fisher.whiten_gradient(x) ** 2).sum()
        return fisher.logdet() + x @ fisher.mv(x) + x @ fisher.solve(x) + sum(white)

    def plain(logits: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)[:-1]
        matrix = jnp.diag(p) - jnp.outer(p, p)
        logdet = jnp.linalg.slogdet(matrix)[1]
        return logdet + 2 * x @ matrix @ x + 2 * x @ jnp.linalg.solve(matrix, x)

    logits = jnp.array([0.5, -0.2, 0.1, 0.8])
    value, slope = compiled(jax.value_and_grad(ours))(logits)
    expected, expected_slope = compiled(jax.value_and_grad(plain))(logits)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-9)


def test_damping() -> None:
    p = jnp.array([0.2, 0.3, 0.1])
    fisher = DiagonalMinusRankOne(p, p, jnp.asarray(0.4))
    damped = fisher.damp(0.05)
    expected = fisher.dense() + 0.05 * np.eye(3)
    close(damped.dense(), expected)
    close(damped.solve(p), np.linalg.solve(expected, p))
    np.testing.assert_allclose(damped.logdet(), np.linalg.slogdet(expected)[1])


def test_a_probability_too_small_for_the_dtype() -> None:
    p = jnp.asarray([0.0, 0.25], jnp.float32)
    fisher = DiagonalMinusRankOne(p, p, jnp.float32(0.75))
    np.testing.assert_allclose(fisher.diagonal(), [0, 0.1875], rtol=1e-6)
    np.testing.assert_allclose(fisher.dense(), [[0, 0], [0, 0.1875]], rtol=1e-6)
    np.testing.assert_allclose(fisher.mv(jnp.ones(2)), [0, 0.1875], rtol=1e-6)
