"""Kronecker products of two positive-definite matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import kronecker_matrices, kronecker_vectors
from ngvi.pytrees import pytree

Operator = Callable[[Array], Array]


@pytree
class Kronecker(PositiveDefinite):
    """P = L ⊗ R, the precision of a matrix-normal distribution.

    A vector x of length D = d_L d_R is the matrix X of shape (d_L, d_R) read row by row
    (`X.reshape(-1)`), so that

        (L ⊗ R) x = vec(L X R),   P = jnp.kron(L, R),   B = B_L ⊗ B_R,   A = A_L ⊗ A_R.

    The products of two factors form no linear space: L ⊗ R + λI is no such product.

    Args:
        left: L, acts on the columns of X.
        right: R, acts on the rows of X.

    Source: Gupta and Nagar (2000), Matrix variate distributions, section 2.2.
    """

    left: PositiveDefinite
    right: PositiveDefinite

    @property
    def dim(self) -> int:
        return self.left.dim * self.right.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(self.left.batch_shape, self.right.batch_shape)

    def _product(
        self, left: Operator, right: Operator, x: Float[Array, "*b d"]
    ) -> Float[Array, "*b d"]:
        """(F ⊗ G) x for operators F and G of the two factors."""
        missing = max(len(self.batch_shape) - (x.ndim - 1), 0)
        shape = (*[1] * missing, *x.shape[:-1], self.left.dim, self.right.dim)
        # The axis a factor does not act on comes first, so that the leading axes of
        # the vectors still meet those of the factors.
        rows = jnp.moveaxis(x.reshape(shape), -2, 0)
        columns = jnp.swapaxes(right(rows), 0, -1)
        both = jnp.moveaxis(left(columns), 0, -1)
        return both.reshape(*both.shape[:-2], self.dim)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._product(self.left.mv, self.right.mv, x)

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._product(self.left.solve, self.right.solve, x)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._product(self.left.whiten, self.right.whiten, x)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._product(self.left.unwhiten, self.right.unwhiten, eps)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        left, right = self.left.whiten_gradient, self.right.whiten_gradient
        return self._product(left, right, g)

    def logdet(self) -> Float[Array, "*c"]:
        """d_R log det L + d_L log det R."""
        return self.right.dim * self.left.logdet() + self.left.dim * self.right.logdet()

    def diagonal(self) -> Float[Array, "*c d"]:
        return kronecker_vectors(self.left.diagonal(), self.right.diagonal())

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return kronecker_vectors(
            self.left.inverse_diagonal(), self.right.inverse_diagonal()
        )

    def dense(self) -> Float[Array, "*c d d"]:
        return kronecker_matrices(self.left.dense(), self.right.dense())

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return kronecker_matrices(self.left.inverse_dense(), self.right.inverse_dense())

    def trace(self) -> Float[Array, "*c"]:
        return self.left.trace() * self.right.trace()

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(self.left.scale(c), self.right)
