"""What only dense matrices have: a frame that is given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from ngvi.linalg import Dense
from tests.linalg.cases import (
    DENSE,
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
    exact = ill_conditioned(DENSE, rng, 5)
    values, vectors = np.linalg.eigh(exact / np.sqrt(np.outer(*[np.diag(exact)] * 2)))
    a = vectors / np.sqrt(values) / np.sqrt(np.diag(exact))[:, None]
    p = Dense.from_inverse_root(jnp.asarray(a, jnp.float32))
    np.testing.assert_allclose(p.root.T @ p.inverse_root, np.eye(5), atol=1e-4)
    np.testing.assert_allclose(p.diagonal(), np.diag(exact), rtol=1e-3)


def test_one_matrix_is_multiplied_as_it_is() -> None:
    # All vectors in one product; the matrix is not repeated for each of them.
    p = Dense.from_dense(jnp.eye(3))
    for method in (p.mv, p.solve, p.whiten, p.unwhiten, p.whiten_gradient):
        steps = jax.make_jaxpr(method)(jnp.ones((5, 2, 3))).eqns
        assert {step.primitive.name for step in steps} <= {"dot_general", "transpose"}
        assert all(step.outvars[0].aval.size <= 30 for step in steps)


def test_moments_in_single_precision_are_factorised_once() -> None:
    # The covariance's own roots serve; inverting it first would square its condition.
    rng = np.random.default_rng(0)
    covariance = ill_conditioned(DENSE, rng, 5)
    p = Dense.from_moments(jnp.asarray(covariance, jnp.float32))
    np.testing.assert_allclose(p.inverse_diagonal(), np.diag(covariance), rtol=1e-6)
    expected = np.diag(np.linalg.inv(covariance))
    np.testing.assert_allclose(p.diagonal(), expected, rtol=1e-4)
