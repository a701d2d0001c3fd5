"""Low-rank curvature: the diagonal beside the directions, and fewer of them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ngvi.linalg import LowRank
from tests.linalg.cases import close


def test_truncation_keeps_the_largest_and_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    vectors, values = rng.standard_normal((6, 4)), np.array([5.0, 0.1, 3.0, 1.0])
    f = LowRank.from_vectors(jnp.asarray(vectors), jnp.asarray(values))
    g = f.truncate(2)
    w, v = np.linalg.eigh(np.asarray(f.dense()))
    close(g.vectors * g.values @ g.vectors.T, v[:, -2:] * w[-2:] @ v[:, -2:].T)
    close(g.diagonal(), f.diagonal())
    assert (np.asarray(g.diagonal_values) >= 0).all()
    close(f.truncate(4).dense(), f.dense())


def test_a_diagonal_less_than_the_directions_adds_nothing() -> None:
    f = LowRank.from_vectors(jnp.eye(3)[:, :1], jnp.asarray([2.0]))
    close(f.with_diagonal(jnp.asarray([1.0, 1.0, 0.0])).diagonal(), [2.0, 1.0, 0.0])


def test_values_below_zero_are_rounding_or_no_root() -> None:
    vectors = jnp.eye(3)[:, :2]
    rounded = LowRank.from_vectors(vectors, jnp.asarray([1.0, -1e-17])).damp(0.5)
    close(rounded.diagonal(), [1.5, 0.5, 0.5])
    indefinite = LowRank.from_vectors(vectors, jnp.asarray([1.0, -0.1])).damp(0.5)
    assert np.isnan(indefinite.logdet())
