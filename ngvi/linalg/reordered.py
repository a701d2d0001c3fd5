"""Matrices whose coordinates come in another order than the vectors'.

The blocks of a network's curvature each hold the weights and the biases of a layer; a
flat vector of its parameters has them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ngvi.linalg.base import PositiveDefinite
from ngvi.pytrees import pytree


@pytree
class Reordered(PositiveDefinite):
    """Πᵀ P Π, (Π x)ᵢ = x[orderᵢ], with the root Πᵀ B Π. Made by `from_order`."""

    matrix: PositiveDefinite
    order: Int[Array, "*c d"]
    """The coordinates of the vector in the order the matrix has them."""
    places: Int[Array, "*c d"]
    """The inverse: where the matrix has each coordinate of the vector."""

    @classmethod
    def from_order(cls, matrix: PositiveDefinite, order: Int[Array, "*c d"]) -> Self:
        """From the coordinates of the vector in the order the matrix has them."""
        order = jnp.asarray(order)
        if order.shape[-1] != matrix.dim:
            raise ValueError(
                f"{cls.__name__}: {order.shape[-1]} places for {matrix.dim} coordinates"
            )
        return cls(matrix, order, jnp.argsort(order, -1))

    @property
    def dim(self) -> int:
        return self.matrix.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(self.matrix.batch_shape, self.order.shape[:-1])

    def _on_vector(
        self, method: Callable[[Array], Array], x: Float[Array, "*b d"]
    ) -> Float[Array, "*b d"]:
        return _take(method(_take(x, self.order)), self.places)

    def _square(self, matrix: Float[Array, "*c d d"]) -> Float[Array, "*c d d"]:
        rows = self.places[..., None, :]
        return _take(_take(matrix, rows).mT, rows).mT

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(self.matrix.mv, x)

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(self.matrix.solve, x)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(self.matrix.whiten, x)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(self.matrix.unwhiten, eps)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(self.matrix.whiten_gradient, g)

    def logdet(self) -> Float[Array, "*c"]:
        return self.matrix.logdet()

    def diagonal(self) -> Float[Array, "*c d"]:
        return _take(self.matrix.diagonal(), self.places)

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return _take(self.matrix.inverse_diagonal(), self.places)

    def dense(self) -> Float[Array, "*c d d"]:
        return self._square(self.matrix.dense())

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return self._square(self.matrix.inverse_dense())

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return replace(self, matrix=self.matrix.scale(c))


def _take(x: Float[Array, "*b d"], order: Int[Array, "*c d"]) -> Array:
    """x[order] along the last axis; leading axes broadcast."""
    if order.ndim == 1:
        return x.at[..., order].get(mode="promise_in_bounds", unique_indices=True)
    leading = jnp.broadcast_shapes(x.shape[:-1], order.shape[:-1])
    x, order = (jnp.broadcast_to(y, (*leading, y.shape[-1])) for y in (x, order))
    return jnp.take_along_axis(x, order, -1)
