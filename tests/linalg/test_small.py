"""Batches large enough to be worked on by arithmetic, against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import Dense, Diagonal
from ngvi.linalg.small import many
from tests.linalg.cases import close
from tests.programs import compiled


def _matrices(dim: int) -> np.ndarray:
    factor = np.random.default_rng(dim).standard_normal((10, dim, 2 * dim))
    return factor @ factor.swapaxes(-1, -2)


@compiled
def _study(matrix: jax.Array, change: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    p = Dense.from_dense(matrix)

    def solved(moments: jax.Array) -> tuple[jax.Array, jax.Array]:
        return p.solve_moments(moments, x)

    (product, inverse), (_, slope) = jax.jvp(solved, (matrix,), (change,))
    gradient = jax.grad(lambda m: (change * solved(m)[1]).sum())(matrix)
    return {
        "dense": p.dense(),
        "inverse_dense": p.inverse_dense(),
        "product": product,
        "inverse": inverse,
        "slope": slope,
        "gradient": gradient,
    }


# Three rows are unrolled, nine are left to LAPACK.
@pytest.mark.parametrize("dim", [3, 9])
def test_a_batch_of_dense_matrices(dim: int) -> None:
    matrix, change = _matrices(dim), _matrices(dim)[::-1]
    x = np.random.default_rng(0).standard_normal((10, dim))
    assert many(jnp.asarray(matrix)) and not many(jnp.asarray(matrix[:1]))
    found = _study(*map(jnp.asarray, (matrix, change, x)))
    inverse = np.linalg.inv(matrix)
    close(found["dense"], matrix)
    close(found["inverse_dense"], inverse)
    close(found["inverse"], inverse)
    close(found["product"], np.einsum("nij,nj->ni", inverse, x))
    for name in ("slope", "gradient"):
        close(found[name], -inverse @ change @ inverse, 1e-9)


@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_moments_of_no_matrix_give_nan(structure: type) -> None:
    like = structure.from_dense(jnp.eye(2))
    moments = structure.project(jnp.array([[1.0, 2.0], [2.0, -1.0]]))
    _, entries = like.solve_moments(moments, jnp.ones(2))
    assert np.isnan(entries).any()
