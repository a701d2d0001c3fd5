"""A semidefinite diagonal plus a few directions."""

from __future__ import annotations

from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import apply, diagonal_matrix, times
from ngvi.linalg.low_rank import LowRankPlusDiagonal
from ngvi.linalg.semidefinite import Semidefinite, per_coordinate
from ngvi.pytrees import pytree


@pytree
class LowRank(Semidefinite):
    """F = diag(f) + V diag(s) Vᵀ, V of shape (d, k): O(d k) for a vector.

    Args:
        vectors: V, orthonormal or not.
        values: s; of a semidefinite matrix, s ≥ 0.
        diagonal_values: f, often zero.
    """

    vectors: Float[Array, "*c d k"]
    values: Float[Array, "*c k"]
    diagonal_values: Float[Array, "*c d"]

    @classmethod
    def from_vectors(
        cls, vectors: Float[Array, "*c d k"], values: Float[Array, "*c k"]
    ) -> Self:
        """V diag(s) Vᵀ."""
        return cls(vectors, values, jnp.zeros(vectors.shape[:-1], vectors.dtype))

    def with_diagonal(self, diagonal: Float[Array, "*c d"]) -> Self:
        """The same directions, and beside them what makes the diagonal of F this one.

        Where the directions alone have more than that, nothing is added.
        """
        alone = apply(self.vectors**2, self.values)
        rest = jnp.maximum(diagonal - alone, 0)
        return type(self)(self.vectors, self.values, rest)

    @property
    def dim(self) -> int:
        return self.vectors.shape[-2]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        rows = self.values.shape[:-1], self.diagonal_values.shape[:-1]
        return jnp.broadcast_shapes(self.vectors.shape[:-2], *rows)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        along = self.values * times(x, self.vectors)
        return self.diagonal_values * x + apply(self.vectors, along)

    def diagonal(self) -> Float[Array, "*c d"]:
        return self.diagonal_values + apply(self.vectors**2, self.values)

    def dense(self) -> Float[Array, "*c d d"]:
        scaled = self.vectors * self.values[..., None, :]
        return diagonal_matrix(self.diagonal_values) + scaled @ self.vectors.mT

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        c = jnp.asarray(c)[..., None]
        return type(self)(self.vectors, c * self.values, c * self.diagonal_values)

    def add(self, other: Semidefinite) -> Self:
        """F + F′, with the directions of both: `truncate` makes them fewer."""
        like = self._matching(other)
        vectors, values = (
            jnp.concatenate(pair, -1)
            for pair in [(self.vectors, like.vectors), (self.values, like.values)]
        )
        return type(self)(vectors, values, self.diagonal_values + like.diagonal_values)

    def truncate(self, rank: int) -> Self:
        """The largest `rank` eigenvalues of V diag(s) Vᵀ, the rest on the diagonal.

        The diagonal of F stays as it is.
        """
        q, r = jnp.linalg.qr(self.vectors)
        inside = (r * self.values[..., None, :]) @ r.mT
        values, turn = jnp.linalg.eigh((inside + inside.mT) / 2)
        vectors = (q @ turn)[..., -rank:]
        fewer = type(self).from_vectors(vectors, values[..., -rank:])
        return fewer.with_diagonal(self.diagonal())

    def damp(
        self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"]
    ) -> LowRankPlusDiagonal:
        diagonal = self.diagonal_values + per_coordinate(damping, self)
        # Values as small as rounding are zero; others below it have no root.
        rounding = self.dim * jnp.finfo(self.values.dtype).eps
        least = rounding * jnp.abs(self.values).max(-1, keepdims=True, initial=0.0)
        values = jnp.where(jnp.abs(self.values) <= least, 0, self.values)
        factor = self.vectors * jnp.sqrt(values)[..., None, :]
        return LowRankPlusDiagonal.from_factor(diagonal, factor)
