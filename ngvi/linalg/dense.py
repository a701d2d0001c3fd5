"""Dense positive-definite matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import apply, symmetric, times
from ngvi.linalg.matrix_functions import half_powers, half_powers_of_sum
from ngvi.linalg.small import gram, inverse, lapack_roots, many, roots
from ngvi.pytrees import pytree

_FEW = 4
"""Up to D/4 vectors the O(n D²) of a sum is the faster one."""


@pytree
class Dense(LinearStructure):
    """P = B Bᵀ with both B and A = B⁻ᵀ stored.

    Steps multiply both by a symmetric factor, so neither is triangular and neither
    could be had from the other by a cheap solve; multiplying keeps the relative
    accuracy of each, also where P is too ill-conditioned for float32.
    """

    root: Float[Array, "*c d d"]
    inverse_root: Float[Array, "*c d d"]

    @property
    def dim(self) -> int:
        return self.root.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.root.shape[:-2]

    @classmethod
    def from_dense(cls, matrix: Float[Array, "*c d d"]) -> Self:
        """From the matrix as an array; its symmetric part must be positive definite."""
        # Scaled to a unit diagonal first: units of 1e±4 cost no digits in float32.
        scale = jnp.sqrt(jnp.diagonal(matrix, axis1=-2, axis2=-1))
        outer = scale[..., :, None] * scale[..., None, :]
        scaled = symmetric(matrix) / outer
        if many(matrix):
            lower, inverse = roots(scaled)
        else:
            lower, inverse = lapack_roots(scaled)
        return cls(scale[..., None] * lower, inverse.mT / scale[..., None])

    @classmethod
    def from_deviations(cls, sd: Float[Array, "d"]) -> Self:
        """The precision of independent coordinates with these standard deviations."""
        return cls(jnp.diag(1 / sd), jnp.diag(sd))

    @classmethod
    def from_entries(cls, entries: Float[Array, "*c d d"]) -> Self:
        return cls.from_dense(entries)

    @classmethod
    def from_moments(cls, moments: Float[Array, "*c d d"]) -> Self:
        covariance = cls.from_dense(moments)
        return cls(covariance.inverse_root, covariance.root)

    def solve_moments(
        self, moments: Float[Array, "*c d d"], x: Float[Array, "*c d"]
    ) -> tuple[Float[Array, "*c d"], Float[Array, "*c d d"]]:
        entries = inverse(symmetric(moments))
        return apply(entries, x), entries

    @classmethod
    def from_inverse_root(cls, inverse_root: Float[Array, "*c d d"]) -> Self:
        """The matrix (A Aᵀ)⁻¹ in the frame of a given nonsingular A."""
        return cls(jnp.linalg.inv(inverse_root).mT, inverse_root)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return times(times(x, self.root), self.root.mT)

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return times(times(x, self.inverse_root), self.inverse_root.mT)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return times(x, self.root)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return times(eps, self.inverse_root.mT)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return times(g, self.inverse_root)

    def logdet(self) -> Float[Array, "*c"]:
        return 2 * jnp.linalg.slogdet(self.root)[1]

    def diagonal(self) -> Float[Array, "*c d"]:
        return (self.root**2).sum(-1)

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return (self.inverse_root**2).sum(-1)

    def dense(self) -> Float[Array, "*c d d"]:
        return _square(self.root)

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return _square(self.inverse_root)

    def entries(self) -> Float[Array, "*c d d"]:
        return self.dense()

    def inverse_moments(self) -> Float[Array, "*c d d"]:
        return self.inverse_dense()

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        s = jnp.sqrt(c)[..., None, None]
        return type(self)(self.root * s, self.inverse_root / s)

    def stretch(self, factor: Float[Array, "*c d"]) -> Self:
        """diag(1/f) P diag(1/f): of z whose coordinates are f times as large."""
        f = factor[..., None]
        return type(self)(self.root / f, self.inverse_root * f)

    def add(self, other: PositiveDefinite) -> Self:
        return self.from_dense(self.dense() + other.dense())

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        identity = jnp.eye(self.dim, dtype=self.root.dtype)
        return self.from_dense(
            self.dense() + jnp.asarray(damping)[..., None, None] * identity
        )

    @classmethod
    def project(cls, matrix: Float[Array, "*c d d"]) -> Float[Array, "*c d d"]:
        return symmetric(matrix)

    @classmethod
    def outer(cls, x: Float[Array, "*b d"]) -> Float[Array, "*b d d"]:
        return x[..., :, None] * x[..., None, :]

    @classmethod
    def inner(
        cls, x: Float[Array, "*c d d"], y: Float[Array, "*c d d"]
    ) -> Float[Array, "*c"]:
        return (x * y).sum((-2, -1))

    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> Float[Array, "*c d d"]:
        products = jnp.moveaxis(eps, 0, -1) @ jnp.moveaxis(g, 0, -2)
        return symmetric(products / eps.shape[0])

    def tangent_identity(self) -> Float[Array, "*c d d"]:
        identity = jnp.eye(self.dim, dtype=self.root.dtype)
        return jnp.broadcast_to(identity, self.root.shape)

    def whiten_curvature(
        self, matrix: Float[Array, "*c d d"]
    ) -> Float[Array, "*c d d"]:
        return symmetric(self.inverse_root.mT @ matrix @ self.inverse_root)

    def along(
        self, direction: Float[Array, "*c d d"]
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        x, vectors = jnp.linalg.eigh(direction)

        def retract(
            rho: Float[Array, "*c"], retraction: Callable[[Array], Array]
        ) -> Retracted:
            r = retraction(rho[..., None] * x)
            grow = (vectors * jnp.sqrt(r)[..., None, :]) @ vectors.mT
            shrink = (vectors / jnp.sqrt(r)[..., None, :]) @ vectors.mT
            return Retracted(
                matrix=type(self)(self.root @ grow, self.inverse_root @ shrink),
                solve=lambda v: apply(vectors, apply(vectors.mT, v) / r),
                trace_inverse=(1 / r).sum(-1),
                logdet=jnp.log(r).sum(-1),
                log=(vectors * jnp.log(r)[..., None, :]) @ vectors.mT,
            )

        return retract

    def retract(
        self, direction: Float[Array, "*c d d"], retraction: Callable[[Array], Array]
    ) -> Self:
        grow, shrink = half_powers(direction, retraction)
        return type(self)(self.root @ grow, self.inverse_root @ shrink)

    def retract_sum(
        self,
        x: Float[Array, "n d"],
        weights: Float[Array, "n"],
        rest: float | Float[Array, ""],
        retraction: Callable[[Array], Array],
    ) -> LinearStructure:
        """With few x it costs O(n D²) in place of O(D³)."""
        if len(x) * _FEW > self.dim:
            return super().retract_sum(x, weights, rest, retraction)
        grow, shrink = half_powers_of_sum(x, weights, rest, retraction)
        return type(self)(grow.after(self.root), shrink.after(self.inverse_root))


def _square(root: Float[Array, "*c d d"]) -> Float[Array, "*c d d"]:
    """B Bᵀ."""
    return gram(root.mT) if many(root) else root @ root.mT
