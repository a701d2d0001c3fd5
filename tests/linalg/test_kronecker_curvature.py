"""Kronecker curvature: exact and factored damping, and the eigenbasis of both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ngvi.linalg import (
    KroneckerEigen,
    KroneckerFactors,
    SemidefiniteBlocks,
    SemidefiniteDiagonal,
)
from tests.linalg.cases import close


def factors(rows: int, columns: int) -> KroneckerFactors:
    rng = np.random.default_rng(0)
    a, g = rng.standard_normal((rows, 2 * rows)), rng.standard_normal((columns, 7))
    return KroneckerFactors(jnp.asarray(a @ a.T / 9), jnp.asarray(g @ g.T))


def test_the_eigenbasis_solves_the_damped_product() -> None:
    f = factors(3, 5)
    dense = np.kron(f.left, f.right) + 1e-2 * np.eye(15)
    p = f.damp(1e-2)
    x = np.random.default_rng(1).standard_normal((4, 15))
    close(p.solve(jnp.asarray(x)), np.linalg.solve(dense, x.T).T, 1e-12)
    values = np.multiply.outer(*map(np.linalg.eigvalsh, (f.left, f.right))) + 1e-2
    np.testing.assert_allclose(p.logdet(), np.log(values).sum(), rtol=1e-13)
    np.testing.assert_allclose(p.logdet(), np.linalg.slogdet(dense)[1], rtol=1e-12)


def test_the_dimensions_swap_in_the_determinant() -> None:
    f = factors(3, 5)
    a, g = (np.linalg.slogdet(np.asarray(m))[1] for m in (f.left, f.right))
    np.testing.assert_allclose(f.damp(0.0).logdet(), 5 * a + 3 * g, rtol=1e-12)


def test_draws_have_the_damped_inverse_as_covariance() -> None:
    f, count = factors(2, 3), 40_000
    draws = np.asarray(f.damp(0.1).draw(jax.random.key(0), (count,)))
    cov = np.linalg.inv(np.kron(f.left, f.right) + 0.1 * np.eye(6))
    # Its own standard errors; 21 of them, 4.5 apart once in 7,000 such tests.
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / count)
    assert (np.abs(draws.T @ draws / count - cov) < 4.5 * error).all()


def test_second_moments_in_the_basis_are_the_nearest_matrix() -> None:
    # Gradients a gᵀ whose inputs and outputs depend on each other.
    rng = np.random.default_rng(2)
    a, g = rng.standard_normal((50, 3)), rng.standard_normal((50, 4))
    g[:, 0] *= a[:, 0] ** 2
    gradients = np.einsum("na,ng->nag", a, g).reshape(50, 12)
    exact = gradients.T @ gradients / 50
    f = KroneckerFactors(*(jnp.asarray(v.T @ v / 50) for v in (a, g)))
    basis = f.eigen()
    moments = (basis.rotate(jnp.asarray(gradients)) ** 2).mean(0)
    corrected = KroneckerEigen(basis.left_vectors, basis.right_vectors, moments)
    np.testing.assert_allclose(corrected.trace(), np.trace(exact), rtol=1e-12)
    vectors = np.kron(basis.left_vectors, basis.right_vectors)
    close(moments.reshape(-1), np.diag(vectors.T @ exact @ vectors), 1e-12)
    near, far = (np.linalg.norm(exact - m.dense()) for m in (corrected, f))
    assert near < far
    close(basis.unrotate(basis.rotate(jnp.asarray(gradients))), gradients, 1e-12)


def test_factored_damping_shares_a_scale_and_adds_more() -> None:
    f = factors(3, 5)
    a, g, root = np.asarray(f.left), np.asarray(f.right), np.sqrt(0.1)
    pi = np.sqrt(np.trace(a) / 3 / (np.trace(g) / 5))
    expected = np.kron(a + pi * root * np.eye(3), g + root / pi * np.eye(5))
    close(f.damp_factored(0.1).dense(), expected, 1e-12)
    moved = KroneckerFactors(1e3 * f.left, f.right / 1e3).damp_factored(0.1)
    close(moved.dense(), expected, 1e-12)
    # What is added beside λ I is positive semidefinite.
    surplus = expected - np.asarray(f.damp(0.1).dense())
    assert np.linalg.eigvalsh(surplus).min() > -1e-12
    rest = SemidefiniteDiagonal(jnp.ones(2))
    blocks = SemidefiniteBlocks((f, rest)).damp_factored(0.1)
    close(blocks.dense()[:15, :15], expected, 1e-12)
    close(blocks.diagonal()[15:], [1.1, 1.1])


def test_a_layer_without_gradients_is_damped() -> None:
    f = KroneckerFactors(jnp.eye(3), jnp.zeros((2, 2)))
    close(f.damp(0.3).dense(), 0.3 * np.eye(6))
    damped = np.asarray(f.damp_factored(0.25).dense())
    close(damped, 1.5 * 0.5 * np.eye(6))


def test_factors_are_averaged_one_by_one() -> None:
    f, g = factors(2, 3), KroneckerFactors(jnp.eye(2), jnp.eye(3))
    mixed = f.average(g, 0.25)
    close(mixed.left, 0.75 * f.left + 0.25 * np.eye(2))
    close(mixed.right, 0.75 * f.right + 0.25 * np.eye(3))


def test_another_basis_keeps_the_nearest_of_its_matrices() -> None:
    f, other = factors(3, 5).eigen(), factors(3, 5)
    rng = np.random.default_rng(3)
    turns = [np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (3, 5)]
    values = jnp.asarray(rng.standard_normal((3, 5)) ** 2)
    turned = KroneckerEigen(*map(jnp.asarray, turns), values)
    vectors = np.kron(f.left_vectors, f.right_vectors)
    projected = f.project(turned)
    # diag(Uᵀ F′ U), the Frobenius projection.
    expected = np.diag(vectors.T @ np.asarray(turned.dense()) @ vectors)
    close(projected.values.reshape(-1), expected, 1e-12)
    close(projected.left_vectors, f.left_vectors, 1e-15)
    np.testing.assert_allclose(projected.trace(), turned.trace(), rtol=1e-12)
    # In its own basis, a matrix stays what it is.
    close(f.project(other.eigen()).dense(), other.dense(), 1e-12)


def test_blocks_take_a_damping_each() -> None:
    f, d = factors(2, 3), SemidefiniteDiagonal(jnp.arange(1.0, 4.0))
    both, each = SemidefiniteBlocks((f, d)), jnp.asarray([0.1, 0.2, 0.3])
    damped = both.damp((0.5, each))
    expected = f.damp(0.5).dense(), np.diag(np.arange(1.0, 4.0) + each)
    close(damped.dense(), scipy.linalg.block_diag(*expected), 1e-12)
    factored = both.damp_factored((0.5, each))
    close(factored.blocks[0].dense(), f.damp_factored(0.5).dense(), 1e-12)
    close(factored.blocks[1].dense(), expected[1], 1e-12)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        both.damp((0.5,))


def test_damped_blocks_can_be_damped_more() -> None:
    f, d = factors(2, 3), SemidefiniteDiagonal(jnp.arange(1.0, 4.0))
    both = SemidefiniteBlocks((f, d))
    close(both.damp(0.5).damp(0.25).dense(), both.damp(0.75).dense(), 1e-12)
