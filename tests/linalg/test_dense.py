"""What only dense matrices have: a frame that is given."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from ngvi.linalg import Dense
from tests.linalg.cases import (
    STRUCTURES,
    close,
    dims,
    ill_conditioned,
    seeds,
)


@given(dim=dims, seed=seeds)
def test_dense_from_inverse_root(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((dim, dim)) + 2 * np.eye(dim)
    p = Dense.from_inverse_root(jnp.asarray(a))
    np.testing.assert_array_equal(p.inverse_root, a)
    scale = np.linalg.cond(a)
    np.testing.assert_allclose(p.root.T @ a, np.eye(dim), atol=1e-13 * scale)
    close(p.inverse_dense(), a @ a.T)


@pytest.mark.parametrize("seed", range(5))
def test_dense_from_inverse_root_in_single_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact = ill_conditioned(STRUCTURES[0], rng, 5)
    values, vectors = np.linalg.eigh(exact / np.sqrt(np.outer(*[np.diag(exact)] * 2)))
    a = vectors / np.sqrt(values) / np.sqrt(np.diag(exact))[:, None]
    p = Dense.from_inverse_root(jnp.asarray(a, jnp.float32))
    np.testing.assert_allclose(p.root.T @ p.inverse_root, np.eye(5), atol=1e-4)
    np.testing.assert_allclose(p.diagonal(), np.diag(exact), rtol=1e-3)
