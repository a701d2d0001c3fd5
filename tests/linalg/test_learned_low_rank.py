"""Low-rank precisions that learn from products: what they settle at, and how."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import LearnedLowRank
from ngvi.linalg.learned_low_rank import Measured
from ngvi.mirror.retractions import safeguarded
from tests.linalg.cases import close
from tests.programs import compiled

RNG = np.random.default_rng(0)
DIM, RANK = 12, 3
FACTOR = RNG.standard_normal((DIM, RANK)) * np.array([4.0, 3.0, 2.0])
DIAGONAL = 10.0 ** RNG.uniform(-1, 1, DIM)


def begun(rank: int) -> LearnedLowRank:
    return LearnedLowRank.from_factor(jnp.ones(DIM), jnp.zeros((DIM, rank)))


def towards(p: LearnedLowRank, matrix: np.ndarray) -> Measured:
    """The tangent from P to a matrix."""
    of_p = p.tangent_identity()
    products = jnp.asarray(matrix) @ p.probes() - of_p.products
    return Measured(products, jnp.diag(jnp.asarray(matrix)) - of_p.diagonal)


@compiled
def stepped(p: LearnedLowRank, matrix: np.ndarray, rho: float) -> LearnedLowRank:
    return p.along(towards(p, matrix))(jnp.asarray(rho), safeguarded).matrix


def settled(matrix: np.ndarray, rank: int) -> LearnedLowRank:
    p = begun(rank)
    for _ in range(60):
        p = stepped(p, matrix, 1.0)
    return p


def divergence(p: np.ndarray, h: np.ndarray) -> float:
    """2 KL(N(0, P⁻¹) ‖ N(0, H⁻¹))."""
    ratio = np.linalg.solve(p, h)
    return float(np.trace(ratio) - len(p) - np.linalg.slogdet(ratio)[1])


def test_a_matrix_of_its_rank_is_found() -> None:
    matrix = np.diag(DIAGONAL) + FACTOR @ FACTOR.T
    p = settled(matrix, RANK)
    assert divergence(np.asarray(p.dense()), matrix) < 1e-3


@pytest.mark.parametrize("rank", [1, 2])
def test_of_a_lower_rank_it_is_the_nearest(rank: int) -> None:
    matrix = np.diag(DIAGONAL) + FACTOR @ FACTOR.T
    p = settled(matrix, rank)
    np.testing.assert_allclose(p.diagonal(), np.diag(matrix), rtol=1e-3)
    least = divergence(np.asarray(p.dense()), matrix)
    assert least < divergence(np.diag(np.diag(matrix)), matrix) / 1.2
    factor = np.asarray(p.root_diagonal[:, None] * p.whitened)
    rng = np.random.default_rng(1)
    for size in (0.1, 0.01):
        for _ in range(20):
            diagonal = p.root_diagonal**2 * np.exp(size * rng.standard_normal(DIM))
            other = factor + size * rng.standard_normal(factor.shape)
            near = np.diag(diagonal) + other @ other.T
            # Leading eigenvectors are those inside of what is known of the matrix.
            assert divergence(near, matrix) > least - 0.3 * size


def test_a_step_of_no_length_stays() -> None:
    matrix = np.diag(DIAGONAL) + FACTOR @ FACTOR.T
    p = stepped(begun(RANK), matrix, 0.4)
    jax.tree.map(np.testing.assert_array_equal, stepped(p, matrix, 0.0), p)


def test_lengths_are_those_of_the_steps() -> None:
    matrix = np.diag(DIAGONAL) + FACTOR @ FACTOR.T
    p = stepped(begun(2), matrix, 0.4)
    tangents = [towards(p, matrix), towards(p, np.diag(DIAGONAL))]
    steps = [
        stepped(p, m, 1.0).dense() - p.dense() for m in (matrix, np.diag(DIAGONAL))
    ]
    inner = compiled(p.tangent_inner)
    covariance = p.inverse_dense()
    for x, one in zip(tangents, steps, strict=True):
        for y, other in zip(tangents, steps, strict=True):
            expected = jnp.trace(covariance @ one @ covariance @ other)
            np.testing.assert_allclose(inner(x, y), expected, rtol=1e-8)


def test_room_for_more_is_no_change() -> None:
    matrix = np.diag(DIAGONAL) + FACTOR @ FACTOR.T
    p = stepped(begun(2), matrix, 0.7)
    wider = p.with_rank(5)
    assert wider.rank == 5
    close(wider.dense(), p.dense(), 1e-12)
    close(wider.scale(4.0).dense(), 4 * p.dense(), 1e-12)
    close(wider.damp(0.5).dense(), p.dense() + 0.5 * np.eye(DIM), 1e-12)
