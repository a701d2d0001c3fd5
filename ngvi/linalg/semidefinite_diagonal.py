"""Diagonal semidefinite matrices."""

from __future__ import annotations

from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import diagonal_matrix
from ngvi.linalg.diagonal import Diagonal
from ngvi.linalg.semidefinite import Semidefinite, per_coordinate
from ngvi.pytrees import pytree


@pytree
class SemidefiniteDiagonal(Semidefinite):
    """F = diag(f)."""

    values: Float[Array, "*c d"]

    @property
    def dim(self) -> int:
        return self.values.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.values.shape[:-1]

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.values * x

    def diagonal(self) -> Float[Array, "*c d"]:
        return self.values

    def dense(self) -> Float[Array, "*c d d"]:
        return diagonal_matrix(self.values)

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(jnp.asarray(c)[..., None] * self.values)

    def add(self, other: Semidefinite) -> Self:
        return type(self)(self.values + self._matching(other).values)

    def clip(self, minimum: float | Float[Array, "*c"]) -> Self:
        return type(self)(jnp.maximum(self.values, jnp.asarray(minimum)[..., None]))

    def damp(
        self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"]
    ) -> Diagonal:
        return Diagonal.from_entries(self.values + per_coordinate(damping, self))
