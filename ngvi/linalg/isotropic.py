"""Multiples of the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import diagonal_matrix, diagonal_of
from ngvi.pytrees import pytree


@pytree
class Isotropic(LinearStructure):
    """P = s I, stored as the root b = √s > 0; its inverse root is I / b.

    The entry and the tangent of x I is the number x. The moment of M is tr M, of a
    vector its squared length: s · tr M = tr(P M).

    Args:
        root: √s.
        size: D.
    """

    root: Float[Array, "*c"]
    size: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.root.shape

    @classmethod
    def from_dense(cls, matrix: Float[Array, "*c d d"]) -> Self:
        """The mean of the diagonal of a matrix given as an array."""
        return cls(jnp.sqrt(diagonal_of(matrix).mean(-1)), matrix.shape[-1])

    @classmethod
    def from_deviations(cls, sd: Float[Array, "*c d"]) -> Self:
        """The precision of independent coordinates with the mean of these variances."""
        unit = sd.max(-1)
        mean = ((sd / unit[..., None]) ** 2).mean(-1)
        return cls(1 / (unit * jnp.sqrt(mean)), sd.shape[-1])

    def from_entries(self, entries: Float[Array, "*c"]) -> Self:
        return type(self)(jnp.sqrt(entries), self.size)

    def from_moments(self, moments: Float[Array, "*c"]) -> Self:
        return type(self)(jnp.sqrt(self.size / moments), self.size)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x * self.root[..., None] ** 2

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x / self.root[..., None] ** 2

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x * self.root[..., None]

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return eps / self.root[..., None]

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return g / self.root[..., None]

    def logdet(self) -> Float[Array, "*c"]:
        return 2 * self.size * jnp.log(self.root)

    def _repeat(self, value: Float[Array, "*c"]) -> Float[Array, "*c d"]:
        return jnp.broadcast_to(value[..., None], (*value.shape, self.size))

    def diagonal(self) -> Float[Array, "*c d"]:
        return self._repeat(self.root**2)

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return self._repeat(self.root**-2)

    def dense(self) -> Float[Array, "*c d d"]:
        return diagonal_matrix(self.diagonal())

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return diagonal_matrix(self.inverse_diagonal())

    def trace(self) -> Float[Array, "*c"]:
        return self.size * self.root**2

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        if isinstance(other, Isotropic):
            return (self.root / other.root) ** 2 * self.size
        return self.root**2 * other.inverse_diagonal().sum(-1)

    def entries(self) -> Float[Array, "*c"]:
        return self.root**2

    def inverse_moments(self) -> Float[Array, "*c"]:
        return self.size / self.root**2

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(self.root * jnp.sqrt(c), self.size)

    def add(self, other: PositiveDefinite) -> Self:
        return self.from_entries(self.root**2 + other.trace() / self.size)

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        return self.from_entries(self.root**2 + damping)

    def project(self, matrix: Float[Array, "*c d d"]) -> Float[Array, "*c"]:
        return diagonal_of(matrix).mean(-1)

    def outer(self, x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        return (x**2).sum(-1)

    def inner(self, x: Float[Array, "*c"], y: Float[Array, "*c"]) -> Float[Array, "*c"]:
        return self.size * x * y

    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> Float[Array, "*c"]:
        return (eps * g).mean((0, -1))

    def tangent_identity(self) -> Float[Array, "*c"]:
        return jnp.ones_like(self.root)

    def whiten_curvature(self, matrix: Float[Array, "*c d d"]) -> Float[Array, "*c"]:
        return self.project(matrix) / self.root**2

    def along(
        self, direction: Float[Array, "*c"]
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        def retract(
            rho: Float[Array, "*c"], retraction: Callable[[Array], Array]
        ) -> Retracted:
            r = retraction(rho * direction)
            return Retracted(
                matrix=type(self)(self.root * jnp.sqrt(r), self.size),
                solve=lambda v: v / r[..., None],
                trace_inverse=self.size / r,
                logdet=self.size * jnp.log(r),
                log=jnp.log(r),
            )

        return retract
