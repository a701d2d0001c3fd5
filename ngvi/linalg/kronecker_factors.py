"""Kronecker products of two semidefinite matrices: a layer's curvature."""

from __future__ import annotations

from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import (
    diagonal_of,
    kronecker_matrices,
    kronecker_vectors,
)
from ngvi.linalg.kronecker import Kronecker
from ngvi.linalg.kronecker_eigen import KroneckerEigen
from ngvi.linalg.semidefinite import Semidefinite, one_damping
from ngvi.linalg.semidefinite_dense import SemidefiniteDense
from ngvi.pytrees import pytree


@pytree
class KroneckerFactors(Semidefinite):
    """F = L ⊗ R, on the matrix X of a vector as `Kronecker` has it: F x = vec(L X R).

    Sums of such products are none. `average` mixes each factor with its like, as K-FAC
    does, which is not the average of the products.

    Args:
        left: L, of a layer the second moments of its inputs.
        right: R, of a layer those of the gradients at its outputs.

    Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-
    factored approximate curvature, sections 3 and 6.3.
    """

    left: Float[Array, "*c l l"]
    right: Float[Array, "*c r r"]

    @property
    def dim(self) -> int:
        return self.left.shape[-1] * self.right.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        shape = (*x.shape[:-1], self.left.shape[-1], self.right.shape[-1])
        both = self.left @ x.reshape(shape) @ self.right
        return both.reshape(*both.shape[:-2], self.dim)

    def diagonal(self) -> Float[Array, "*c d"]:
        return kronecker_vectors(diagonal_of(self.left), diagonal_of(self.right))

    def trace(self) -> Float[Array, "*c"]:
        return diagonal_of(self.left).sum(-1) * diagonal_of(self.right).sum(-1)

    def dense(self) -> Float[Array, "*c d d"]:
        return kronecker_matrices(self.left, self.right)

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(jnp.asarray(c)[..., None, None] * self.left, self.right)

    def add(self, other: Semidefinite) -> Self:
        raise TypeError(
            "the sum of two Kronecker products is none: use `average`, which mixes "
            "their factors"
        )

    def average(self, other: Semidefinite, weight: float | Float[Array, "*c"]) -> Self:
        """Both factors averaged: (1 − w) L + w L′ and (1 − w) R + w R′."""
        w, like = jnp.asarray(weight)[..., None, None], self._matching(other)
        left = (1 - w) * self.left + w * like.left
        return type(self)(left, (1 - w) * self.right + w * like.right)

    def eigen(self) -> KroneckerEigen:
        """The same matrix by its eigenvectors."""
        return KroneckerEigen.from_factors(self.left, self.right)

    def clip(self, minimum: float | Float[Array, "*c"]) -> KroneckerEigen:
        return self.eigen().clip(minimum)

    # -- what can be solved ------------------------------------------------------

    def damp(
        self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"]
    ) -> KroneckerEigen:
        """L ⊗ R + λ I exactly, by the eigenvectors of both factors."""
        return self.eigen().damp(one_damping(damping, self))

    def damp_factored(self, damping: float | Float[Array, "*c"]) -> Kronecker:
        """(L + π √λ I) ⊗ (R + √λ/π I), π² the ratio of the factors' mean eigenvalues.

        Two Cholesky factors instead of two spectral decompositions. It is more than
        L ⊗ R + λ I, by π √λ I ⊗ R + L ⊗ √λ/π I. With this π it depends only on the
        product of the factors, not on how a scale is shared between them.
        """
        left, right = shared_damping(
            diagonal_of(self.left).mean(-1),
            diagonal_of(self.right).mean(-1),
            one_damping(damping, self),
        )
        return Kronecker(
            SemidefiniteDense(self.left).damp(left),
            SemidefiniteDense(self.right).damp(right),
        )


def shared_damping(
    left: Float[Array, "*c"], right: Float[Array, "*c"], damping: Any
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """π √λ and √λ/π, of the means of two factors' eigenvalues."""
    # A factor that is zero leaves no scale to share.
    known = (left > 0) & (right > 0)
    pi = jnp.sqrt(jnp.where(known, left, 1) / jnp.where(known, right, 1))
    root = jnp.sqrt(damping)
    return pi * root, root / pi
