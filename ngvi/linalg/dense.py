"""Dense positive-definite matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite, Retracted


def symmetric(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The symmetric part."""
    return (matrix + matrix.T) / 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense(PositiveDefinite):
    """P = B Bᵀ with both B and A = B⁻ᵀ stored.

    Steps multiply both by a symmetric factor, so neither is triangular and neither
    could be had from the other by a cheap solve; multiplying keeps the relative
    accuracy of each, also where P is too ill-conditioned for float32.
    """

    root: Float[Array, "d d"]
    inverse_root: Float[Array, "d d"]

    @property
    def dim(self) -> int:
        return self.root.shape[-1]

    @classmethod
    def from_dense(cls, matrix: Float[Array, "d d"]) -> Self:
        # Scaled to a unit diagonal first: units of 1e±4 cost no digits in float32.
        scale = jnp.sqrt(jnp.diagonal(matrix))
        lower = jnp.linalg.cholesky(symmetric(matrix) / jnp.outer(scale, scale))
        inverse = solve_triangular(
            lower, jnp.eye(scale.size, dtype=lower.dtype), lower=True
        )
        return cls(scale[:, None] * lower, inverse.T / scale[:, None])

    @classmethod
    def from_entries(cls, entries: Float[Array, "d d"]) -> Self:
        return cls.from_dense(entries)

    @classmethod
    def from_inverse_root(cls, inverse_root: Float[Array, "d d"]) -> Self:
        """The matrix (A Aᵀ)⁻¹ in the frame of a given nonsingular A."""
        return cls(jnp.linalg.inv(inverse_root).T, inverse_root)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return (x @ self.root) @ self.root.T

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return (x @ self.inverse_root) @ self.inverse_root.T

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x @ self.root

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return eps @ self.inverse_root.T

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return g @ self.inverse_root

    def logdet(self) -> Float[Array, ""]:
        return 2 * jnp.linalg.slogdet(self.root)[1]

    def diagonal(self) -> Float[Array, "d"]:
        return (self.root**2).sum(-1)

    def inverse_diagonal(self) -> Float[Array, "d"]:
        return (self.inverse_root**2).sum(-1)

    def dense(self) -> Float[Array, "d d"]:
        return self.root @ self.root.T

    def inverse_dense(self) -> Float[Array, "d d"]:
        return self.inverse_root @ self.inverse_root.T

    def entries(self) -> Float[Array, "d d"]:
        return self.dense()

    def scale(self, c: float | Float[Array, ""]) -> Self:
        s = jnp.sqrt(c)
        return type(self)(self.root * s, self.inverse_root / s)

    def add(self, other: PositiveDefinite) -> Self:
        return self.from_dense(self.dense() + other.dense())

    def damp(self, damping: float | Float[Array, ""]) -> Self:
        return self.from_dense(self.dense() + damping * self.tangent_identity())

    @classmethod
    def project(cls, matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
        return symmetric(matrix)

    @classmethod
    def outer(cls, x: Float[Array, "*b d"]) -> Float[Array, "*b d d"]:
        return x[..., :, None] * x[..., None, :]

    @classmethod
    def inner(cls, x: Float[Array, "d d"], y: Float[Array, "d d"]) -> Float[Array, ""]:
        return (x * y).sum((-2, -1))

    def tangent(
        self, eps: Float[Array, "n d"], g: Float[Array, "n d"]
    ) -> Float[Array, "d d"]:
        return symmetric(eps.T @ g / eps.shape[0])

    def tangent_identity(self) -> Float[Array, "d d"]:
        return jnp.eye(self.dim, dtype=self.root.dtype)

    def whiten_curvature(self, matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
        return symmetric(self.inverse_root.T @ matrix @ self.inverse_root)

    def along(
        self, direction: Float[Array, "d d"]
    ) -> Callable[[Float[Array, ""], Callable[[Array], Array]], Retracted]:
        x, vectors = jnp.linalg.eigh(direction)

        def retract(
            rho: Float[Array, ""], retraction: Callable[[Array], Array]
        ) -> Retracted:
            r = retraction(rho * x)
            grow = (vectors * jnp.sqrt(r)) @ vectors.T
            shrink = (vectors / jnp.sqrt(r)) @ vectors.T
            return Retracted(
                matrix=type(self)(self.root @ grow, self.inverse_root @ shrink),
                solve=lambda v: vectors @ ((vectors.T @ v) / r),
                trace_inverse=(1 / r).sum(),
                logdet=jnp.log(r).sum(),
                log=(vectors * jnp.log(r)) @ vectors.T,
            )

        return retract
