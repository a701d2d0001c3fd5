"""Matrices diagonal in the product of two orthonormal bases."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import kronecker_matrices
from ngvi.linalg.semidefinite import Semidefinite, one_damping
from ngvi.pytrees import pytree


@pytree
class KroneckerEigen(PositiveDefinite, Semidefinite):
    """F = (U_L ⊗ U_R) diag(s) (U_L ⊗ U_R)ᵀ with orthonormal U_L and U_R.

    A vector x is the matrix X of shape (d_L, d_R) read row by row, as in `Kronecker`:

        F x = vec(U_L (s ∘ U_Lᵀ X U_R) U_Rᵀ),   B = (U_L ⊗ U_R) diag(√s).

    It holds every L ⊗ R + λ I, with s = l rᵀ + λ; and s may be anything else: among
    all matrices with these eigenvectors, the second moments s = diag(Uᵀ F U) are the
    nearest to F. It is semidefinite, and with s > 0 also positive definite: then it
    solves, and draws.

    Args:
        left_vectors: the columns of U_L.
        right_vectors: the columns of U_R.
        values: s.

    Source: George, Laurent, Bouthillier, Ballas and Vincent (2018), Fast approximate
    natural gradient descent in a Kronecker-factored eigenbasis, section 3.
    """

    left_vectors: Float[Array, "*c l l"]
    right_vectors: Float[Array, "*c r r"]
    values: Float[Array, "*c l r"]

    @classmethod
    def from_factors(
        cls, left: Float[Array, "*c l l"], right: Float[Array, "*c r r"]
    ) -> Self:
        """L ⊗ R of two semidefinite matrices."""
        (l_values, l_vectors), (r_values, r_vectors) = map(
            jnp.linalg.eigh, (left, right)
        )
        # What is negative is rounding.
        l_values, r_values = jnp.maximum(l_values, 0), jnp.maximum(r_values, 0)
        values = l_values[..., :, None] * r_values[..., None, :]
        return cls(l_vectors, r_vectors, values)

    @property
    def dim(self) -> int:
        return self.left_vectors.shape[-1] * self.right_vectors.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        vectors = self.left_vectors.shape[:-2], self.right_vectors.shape[:-2]
        return jnp.broadcast_shapes(*vectors, self.values.shape[:-2])

    def rotate(self, x: Float[Array, "*b d"]) -> Float[Array, "*b l r"]:
        """U_Lᵀ X U_R: the vector in the basis, its squares those that s averages."""
        shape = (*x.shape[:-1], *self.values.shape[-2:])
        return self.left_vectors.mT @ x.reshape(shape) @ self.right_vectors

    def unrotate(self, y: Float[Array, "*b l r"]) -> Float[Array, "*b d"]:
        """The inverse of `rotate`."""
        both = self.left_vectors @ y @ self.right_vectors.mT
        return both.reshape(*both.shape[:-2], self.dim)

    def project(self, other: KroneckerEigen) -> Self:
        """Of the matrices with these eigenvectors the nearest to another one."""
        left = (self.left_vectors.mT @ other.left_vectors) ** 2
        right = (self.right_vectors.mT @ other.right_vectors) ** 2
        return self._with(left @ other.values @ right.mT)

    # -- as a linear operator ----------------------------------------------------

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.unrotate(self.values * self.rotate(x))

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.unrotate(self.rotate(x) / self.values)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        white = jnp.sqrt(self.values) * self.rotate(x)
        return white.reshape(*white.shape[:-2], self.dim)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        shape = (*eps.shape[:-1], *self.values.shape[-2:])
        return self.unrotate(eps.reshape(shape) / jnp.sqrt(self.values))

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        white = self.rotate(g) / jnp.sqrt(self.values)
        return white.reshape(*white.shape[:-2], self.dim)

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        """Σ log s."""
        return jnp.log(self.values).sum((-2, -1))

    def trace(self) -> Float[Array, "*c"]:
        return self.values.sum((-2, -1))

    def diagonal(self) -> Float[Array, "*c d"]:
        return self._diagonal(self.values)

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return self._diagonal(1 / self.values)

    def dense(self) -> Float[Array, "*c d d"]:
        return self._dense(self.values)

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return self._dense(1 / self.values)

    def _diagonal(self, values: Float[Array, "*c l r"]) -> Float[Array, "*c d"]:
        both = self.left_vectors**2 @ values @ self.right_vectors.mT**2
        return both.reshape(*both.shape[:-2], self.dim)

    def _dense(self, values: Float[Array, "*c l r"]) -> Float[Array, "*c d d"]:
        vectors = kronecker_matrices(self.left_vectors, self.right_vectors)
        flat = values.reshape(*values.shape[:-2], 1, self.dim)
        return (vectors * flat) @ vectors.mT

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return self._with(jnp.asarray(c)[..., None, None] * self.values)

    def add(self, other: Semidefinite) -> Self:
        raise TypeError(
            "the sum of two KroneckerEigen has other eigenvectors: average the factors "
            "they come from, or the values measured in one basis"
        )

    def average(self, other: Semidefinite, weight: float | Float[Array, "*c"]) -> Self:
        """The values averaged, of two with the same eigenvectors.

        Raises:
            TypeError: they have others (seen where the numbers are known, so not under
                `jit`).
        """
        like, w = self._matching(other), jnp.asarray(weight)[..., None, None]
        bases = zip(
            (self.left_vectors, self.right_vectors),
            (like.left_vectors, like.right_vectors),
            strict=True,
        )
        for mine, theirs in bases:
            same = mine is theirs or (mine == theirs).all()
            if not isinstance(same, jax.core.Tracer) and not same:
                raise TypeError(
                    "two KroneckerEigen of other eigenvectors have no average: measure "
                    "the values of one in the basis of the other"
                )
        return self._with((1 - w) * self.values + w * like.values)

    def clip(self, minimum: float | Float[Array, "*c"]) -> Self:
        least = jnp.asarray(minimum)[..., None, None]
        return self._with(jnp.maximum(self.values, least))

    def damp(self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"]) -> Self:
        return self._with(self.values + one_damping(damping, self)[..., None, None])

    def _with(self, values: Float[Array, "*c l r"]) -> Self:
        return type(self)(self.left_vectors, self.right_vectors, values)
