"""Dense semidefinite matrices."""

from __future__ import annotations

from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import diagonal_matrix, diagonal_of, symmetric, times
from ngvi.linalg.dense import Dense
from ngvi.linalg.semidefinite import Semidefinite, per_coordinate
from ngvi.pytrees import pytree


@pytree
class SemidefiniteDense(Semidefinite):
    """F as an array."""

    matrix: Float[Array, "*c d d"]

    @property
    def dim(self) -> int:
        return self.matrix.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.matrix.shape[:-2]

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return times(x, self.matrix)

    def diagonal(self) -> Float[Array, "*c d"]:
        return diagonal_of(self.matrix)

    def dense(self) -> Float[Array, "*c d d"]:
        return self.matrix

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(jnp.asarray(c)[..., None, None] * self.matrix)

    def add(self, other: Semidefinite) -> Self:
        return type(self)(self.matrix + self._matching(other).matrix)

    def clip(self, minimum: float | Float[Array, "*c"]) -> Self:
        values, vectors = jnp.linalg.eigh(symmetric(self.matrix))
        kept = jnp.maximum(values, jnp.asarray(minimum)[..., None])
        return type(self)(symmetric((vectors * kept[..., None, :]) @ vectors.mT))

    def damp(self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"]) -> Dense:
        of_each = per_coordinate(damping, self)
        added = jnp.broadcast_to(of_each, (*of_each.shape[:-1], self.dim))
        return Dense.from_dense(self.matrix + diagonal_matrix(added))
