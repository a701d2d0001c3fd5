"""Blocks of several kinds, sizes and leading axes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ngvi.linalg import BlockDiagonal, Diagonal, Isotropic
from tests.linalg.cases import DENSE, close, stack


def test_the_leading_axes_of_the_blocks_broadcast() -> None:
    rng = np.random.default_rng(0)
    dense = [DENSE.member(rng, 2) for _ in range(3)]
    p = BlockDiagonal((stack([q for q, _ in dense]), Isotropic(jnp.asarray(2.0), 2)))
    assert (p.batch_shape, p.dim, p.sizes) == ((3,), 4, (2, 2))
    x = jnp.asarray(rng.standard_normal((5, 1, 4)))
    for i, (_, block) in enumerate(dense):
        matrix = np.zeros((4, 4))
        matrix[:2, :2], matrix[2:, 2:] = block, 4 * np.eye(2)
        close(p.mv(x)[:, i], x[:, 0] @ matrix)
        close(p.dense()[i], matrix)
        np.testing.assert_allclose(p.logdet()[i], np.linalg.slogdet(matrix)[1])


def test_blocks_are_added_in_place_or_as_arrays() -> None:
    small = BlockDiagonal((Diagonal(jnp.ones(1)), Diagonal(jnp.ones(2))))
    other = BlockDiagonal((Diagonal(jnp.ones(2)), Diagonal(jnp.full(1, 2.0))))
    close(small.add(small).diagonal(), [2, 2, 2])
    close(small.add(other).diagonal(), [2, 2, 5])
