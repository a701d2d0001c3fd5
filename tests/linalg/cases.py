"""The structures under test: a new one is one row of `STRUCTURES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ngvi.linalg import Dense, Diagonal, PositiveDefinite
from ngvi.mirror import retractions


class Case(NamedTuple):
    """A structure, and what it keeps of a symmetric matrix, as a dense array."""

    name: str
    structure: type[PositiveDefinite]
    keep: Callable[[np.ndarray], np.ndarray]
    build: Callable[[np.ndarray, np.random.Generator], PositiveDefinite]
    """From a dense matrix of the structure, in a frame as generic as it has."""


def _rotated(matrix: np.ndarray, rng: np.random.Generator) -> Dense:
    """A dense matrix in a frame that is neither triangular nor symmetric."""
    rotation = np.linalg.qr(rng.standard_normal(matrix.shape))[0]
    root = np.linalg.cholesky(matrix) @ rotation
    inverse_root = np.linalg.inv(root).T
    return Dense(
        jnp.asarray(root, matrix.dtype), jnp.asarray(inverse_root, matrix.dtype)
    )


STRUCTURES = [
    Case("dense", Dense, lambda m: (m + m.T) / 2, _rotated),
    Case(
        "diagonal",
        Diagonal,
        lambda m: np.diag(np.diag(m)),
        lambda m, rng: Diagonal(jnp.sqrt(jnp.diagonal(jnp.asarray(m)))),
    ),
]
RETRACTIONS = [
    retractions.first_order,
    retractions.second_order,
    retractions.exponential,
    retractions.safeguarded,
]

every_structure = pytest.mark.parametrize("case", STRUCTURES, ids=lambda c: c.name)
every_retraction = pytest.mark.parametrize(
    "retraction", RETRACTIONS, ids=lambda r: r.__name__
)
# Few shapes, so that few programs are compiled; values are as random as the seed.
dims = st.sampled_from([1, 4])
seeds = st.integers(0, 2**32 - 1)


def positive(case: Case, rng: np.random.Generator, dim: int) -> np.ndarray:
    """A random positive-definite matrix of the structure, condition up to about 1e3."""
    factor = rng.standard_normal((dim, 2 * dim + 2))
    matrix = case.keep(factor @ factor.T / dim + 0.05 * np.eye(dim))
    units = np.exp(rng.standard_normal(dim))
    return matrix * np.outer(units, units)


def random_symmetric(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Symmetric and usually indefinite."""
    matrix = rng.standard_normal((dim, dim))
    return (matrix + matrix.T) / 2


def roots(p: PositiveDefinite) -> tuple[np.ndarray, np.ndarray]:
    """B and A as arrays, read off the operators."""
    eye = jnp.eye(p.dim, dtype=p.diagonal().dtype)
    return np.asarray(p.whiten(eye)), np.asarray(p.unwhiten(eye)).T


def tangent_dense(p: PositiveDefinite, tangent: object) -> np.ndarray:
    """X as a dense array, from P⁺ = P + ρ B X Bᵀ with a small ρ."""
    rho = 1e-3
    moved = p.along(tangent)(jnp.asarray(rho), retractions.first_order).matrix.dense()
    _, a = roots(p)
    return a.T @ (np.asarray(moved) - np.asarray(p.dense())) @ a / rho


def close(actual: object, expected: object, tolerance: float = 1e-10) -> None:
    """Equal to a tolerance relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = max(np.abs(expected).max(initial=0.0), 1e-300)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def ill_conditioned(case: Case, rng: np.random.Generator, dim: int) -> np.ndarray:
    """Units from 1e-4 to 1e4, so entries from 1e-8 to 1e8."""
    units = 10.0 ** np.linspace(-4, 4, dim)
    correlated = positive(case, rng, dim)
    scale = np.sqrt(np.diag(correlated))
    return correlated / np.outer(scale, scale) * np.outer(units, units)


def summary(p: PositiveDefinite, x: jax.Array) -> list[jax.Array]:
    """Every method that returns arrays, and a step."""
    moved = p.along(p.tangent(x, x[::-1]))(jnp.asarray(0.1), retractions.safeguarded)
    return [
        p.mv(x),
        p.solve(x),
        p.whiten(x),
        p.unwhiten(x),
        p.whiten_gradient(x),
        p.logdet(),
        p.diagonal(),
        p.inverse_diagonal(),
        p.trace(),
        p.dense(),
        p.inverse_dense(),
        *jax.tree.leaves(p.entries()),
        p.scale(2.0).dense(),
        p.add(p).dense(),
        p.damp(0.1).dense(),
        p.damp(jnp.asarray(0.1, x.dtype)).dense(),
        *jax.tree.leaves(p.outer(x)),
        *jax.tree.leaves(p.tangent_identity()),
        *jax.tree.leaves(p.whiten_curvature(p.dense())),
        moved.matrix.dense(),
        moved.solve(x[0]),
        moved.trace_inverse,
        moved.logdet,
        *jax.tree.leaves(moved.log),
    ]
