"""Diagonal positive-definite matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite, Retracted


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagonal(PositiveDefinite):
    """P = diag(b²), stored as the root b > 0; its inverse root is 1/b."""

    root: Float[Array, "d"]

    @property
    def dim(self) -> int:
        return self.root.shape[-1]

    @classmethod
    def from_dense(cls, matrix: Float[Array, "d d"]) -> Self:
        return cls(jnp.sqrt(jnp.diagonal(matrix)))

    @classmethod
    def from_entries(cls, entries: Float[Array, "d"]) -> Self:
        return cls(jnp.sqrt(entries))

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

    def logdet(self) -> Float[Array, ""]:
        return 2 * jnp.log(self.root).sum(-1)

    def diagonal(self) -> Float[Array, "d"]:
        return self.root**2

    def inverse_diagonal(self) -> Float[Array, "d"]:
        return self.root**-2

    def dense(self) -> Float[Array, "d d"]:
        return jnp.diag(self.diagonal())

    def inverse_dense(self) -> Float[Array, "d d"]:
        return jnp.diag(self.inverse_diagonal())

    def entries(self) -> Float[Array, "d"]:
        return self.diagonal()

    def scale(self, c: float | Float[Array, ""]) -> Self:
        return type(self)(self.root * jnp.sqrt(c))

    def add(self, other: PositiveDefinite) -> Self:
        return self.from_entries(self.diagonal() + other.diagonal())

    def damp(self, damping: float | Float[Array, ""]) -> Self:
        return self.from_entries(self.diagonal() + damping)

    @classmethod
    def project(cls, matrix: Float[Array, "d d"]) -> Float[Array, "d"]:
        return jnp.diagonal(matrix)

    @classmethod
    def outer(cls, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x**2

    @classmethod
    def inner(cls, x: Float[Array, "d"], y: Float[Array, "d"]) -> Float[Array, ""]:
        return (x * y).sum(-1)

    def tangent(
        self, eps: Float[Array, "n d"], g: Float[Array, "n d"]
    ) -> Float[Array, "d"]:
        return (eps * g).mean(0)

    def tangent_identity(self) -> Float[Array, "d"]:
        return jnp.ones_like(self.root)

    def whiten_curvature(self, matrix: Float[Array, "d d"]) -> Float[Array, "d"]:
        return jnp.diagonal(matrix) / self.root**2

    def along(
        self, direction: Float[Array, "d"]
    ) -> Callable[[Float[Array, ""], Callable[[Array], Array]], Retracted]:
        def retract(
            rho: Float[Array, ""], retraction: Callable[[Array], Array]
        ) -> Retracted:
            r = retraction(rho * direction)
            return Retracted(
                matrix=type(self)(self.root * jnp.sqrt(r)),
                solve=lambda v: v / r,
                trace_inverse=(1 / r).sum(),
                logdet=jnp.log(r).sum(),
                log=jnp.log(r),
            )

        return retract
