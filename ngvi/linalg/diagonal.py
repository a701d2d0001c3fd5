"""Diagonal positive-definite matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import diagonal_matrix, diagonal_of
from ngvi.pytrees import pytree


@pytree
class Diagonal(LinearStructure):
    """P = diag(b²), stored as the root b > 0; its inverse root is 1/b."""

    root: Float[Array, "*c d"]

    @property
    def dim(self) -> int:
        return self.root.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.root.shape[:-1]

    @classmethod
    def from_dense(cls, matrix: Float[Array, "*c d d"]) -> Self:
        """The diagonal of a matrix given as an array."""
        return cls(jnp.sqrt(diagonal_of(matrix)))

    @classmethod
    def from_deviations(cls, sd: Float[Array, "*c d"]) -> Self:
        """The precision of independent coordinates with these standard deviations."""
        return cls(1 / sd)

    @classmethod
    def from_entries(cls, entries: Float[Array, "*c d"]) -> Self:
        return cls(jnp.sqrt(entries))

    @classmethod
    def from_moments(cls, moments: Float[Array, "*c d"]) -> Self:
        return cls(1 / jnp.sqrt(moments))

    def solve_moments(
        self, moments: Float[Array, "*c d"], x: Float[Array, "*c d"]
    ) -> tuple[Float[Array, "*c d"], Float[Array, "*c d"]]:
        entries = jnp.where(moments > 0, 1 / moments, jnp.nan)
        return x * entries, entries

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x * self.root**2

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x / self.root**2

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x * self.root

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return eps / self.root

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return g / self.root

    def logdet(self) -> Float[Array, "*c"]:
        return 2 * jnp.log(self.root).sum(-1)

    def diagonal(self) -> Float[Array, "*c d"]:
        return self.root**2

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return self.root**-2

    def dense(self) -> Float[Array, "*c d d"]:
        return diagonal_matrix(self.diagonal())

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return diagonal_matrix(self.inverse_diagonal())

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        if isinstance(other, Diagonal):
            return ((self.root / other.root) ** 2).sum(-1)
        return (self.diagonal() * other.inverse_diagonal()).sum(-1)

    def entries(self) -> Float[Array, "*c d"]:
        return self.diagonal()

    def inverse_moments(self) -> Float[Array, "*c d"]:
        return self.inverse_diagonal()

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(self.root * jnp.sqrt(c)[..., None])

    def stretch(self, factor: Float[Array, "*c d"]) -> Self:
        """diag(1/f) P diag(1/f): of z whose coordinates are f times as large."""
        return type(self)(self.root / factor)

    def add(self, other: PositiveDefinite) -> Self:
        return self.from_entries(self.diagonal() + other.diagonal())

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        return self.from_entries(self.diagonal() + jnp.asarray(damping)[..., None])

    @classmethod
    def project(cls, matrix: Float[Array, "*c d d"]) -> Float[Array, "*c d"]:
        return diagonal_of(matrix)

    @classmethod
    def outer(cls, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x**2

    @classmethod
    def inner(
        cls, x: Float[Array, "*c d"], y: Float[Array, "*c d"]
    ) -> Float[Array, "*c"]:
        return (x * y).sum(-1)

    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> Float[Array, "*c d"]:
        return (eps * g).mean(0)

    def tangent_identity(self) -> Float[Array, "*c d"]:
        return jnp.ones_like(self.root)

    def whiten_curvature(self, matrix: Float[Array, "*c d d"]) -> Float[Array, "*c d"]:
        return diagonal_of(matrix) / self.root**2

    def along(
        self, direction: Float[Array, "*c d"]
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        def retract(
            rho: Float[Array, "*c"], retraction: Callable[[Array], Array]
        ) -> Retracted:
            r = retraction(rho[..., None] * direction)
            return Retracted(
                matrix=type(self)(self.root * jnp.sqrt(r)),
                solve=lambda v: v / r,
                trace_inverse=(1 / r).sum(-1),
                logdet=jnp.log(r).sum(-1),
                log=jnp.log(r),
            )

        return retract
