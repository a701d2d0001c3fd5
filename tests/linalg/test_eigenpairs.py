"""The leading eigenpairs against all of them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import LowRank, low_rank
from tests.linalg.cases import close

DIM, RANK = 60, 5
VALUES = np.concatenate([[-8.0, 3.0, 10.0, 20.0, 50.0], 0.9 ** np.arange(DIM - RANK)])
VECTORS = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
MATRIX = VECTORS * VALUES @ VECTORS.T


@partial(jax.jit, static_argnames=("rank", "method"))
def found(matrix: jax.Array, rank: int, method: str) -> LowRank:
    def mv(x: jax.Array) -> jax.Array:
        return x @ matrix

    return low_rank(mv, DIM, rank, jax.random.key(1), method, dtype=matrix.dtype)


@pytest.mark.parametrize("method", ["lanczos", "randomised"])
def test_the_largest_in_absolute_value(method: str) -> None:
    f = found(jnp.asarray(MATRIX), RANK, method)
    np.testing.assert_allclose(f.values, VALUES[:RANK], rtol=1e-5)
    close(f.vectors.T @ f.vectors, np.eye(RANK), 1e-12)
    exact = VECTORS[:, :RANK] * VALUES[:RANK] @ VECTORS[:, :RANK].T
    close(f.dense(), exact, 1e-3)
    single = found(jnp.asarray(MATRIX, jnp.float32), RANK, method)
    assert single.vectors.dtype == single.values.dtype == jnp.float32
    np.testing.assert_allclose(single.values, VALUES[:RANK], rtol=1e-4)


@pytest.mark.parametrize("method", ["lanczos", "randomised"])
def test_a_rank_below_the_one_asked_for(method: str) -> None:
    matrix = VECTORS[:, 1:3] * VALUES[1:3] @ VECTORS[:, 1:3].T
    f = found(jnp.asarray(matrix), RANK, method)
    close(f.dense(), matrix, 1e-12)
    close(f.damp(0.5).dense(), matrix + 0.5 * np.eye(DIM), 1e-12)


def test_all_of_them() -> None:
    close(found(jnp.asarray(MATRIX), DIM, "lanczos").dense(), MATRIX, 1e-12)


def test_what_was_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="from 1 to 60 was expected, got 61"):
        low_rank(lambda x: x, DIM, 61, jax.random.key(0))
    with pytest.raises(ValueError, match="'lanczos' or 'randomised', got 'svd'"):
        low_rank(lambda x: x, DIM, 2, jax.random.key(0), "svd")
