"""Block-diagonal matrices whose blocks are any linear structures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import diagonal_blocks, join, split
from ngvi.linalg.blocks import BlockOperators, total
from ngvi.pytrees import pytree


@pytree
class BlockDiagonal(BlockOperators, LinearStructure):
    """P = diag(P₁, …, P_K) of linear structures, which is a linear structure itself.

    Entries, moments and tangents are tuples with those of each block.

    Args:
        blocks: at least one structure, of any kinds and sizes.
    """

    blocks: tuple[LinearStructure, ...]

    # -- the linear space and its dual -------------------------------------------

    def entries(self) -> tuple[Any, ...]:
        return self._each(lambda block: block.entries())

    def from_entries(self, entries: tuple[Any, ...]) -> Self:
        make = self._each(lambda block, e: block.from_entries(e), entries)
        return type(self)(make)

    def project(self, matrix: Float[Array, "*c d d"]) -> tuple[Any, ...]:
        parts = diagonal_blocks(matrix, self.sizes)
        return self._each(lambda block, part: block.project(part), parts)

    def inner(self, x: tuple[Any, ...], y: tuple[Any, ...]) -> Float[Array, "*c"]:
        return total(self._each(lambda block, a, b: block.inner(a, b), x, y))

    def outer(self, x: Float[Array, "*b d"]) -> tuple[Any, ...]:
        parts = split(x, self.sizes)
        return self._each(lambda block, part: block.outer(part), parts)

    def inverse_moments(self) -> tuple[Any, ...]:
        return self._each(lambda block: block.inverse_moments())

    def from_moments(self, moments: tuple[Any, ...]) -> Self:
        make = self._each(lambda block, m: block.from_moments(m), moments)
        return type(self)(make)

    # -- arithmetic --------------------------------------------------------------

    def add(self, other: PositiveDefinite) -> Self:
        if isinstance(other, BlockOperators) and other.sizes == self.sizes:
            return type(self)(self._each(lambda a, b: a.add(b), other.blocks))
        terms = self.project(other.dense())
        return self.from_entries(jax.tree.map(jnp.add, self.entries(), terms))

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        return type(self)(self._each(lambda block: block.damp(damping)))

    # -- the tangent space -------------------------------------------------------

    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> tuple[Any, ...]:
        parts = split(eps, self.sizes), split(g, self.sizes)
        return self._each(lambda block, e, f: block.tangent(e, f), *parts)

    def tangent_identity(self) -> tuple[Any, ...]:
        return self._each(lambda block: block.tangent_identity())

    def whiten_curvature(self, matrix: Float[Array, "*c d d"]) -> tuple[Any, ...]:
        parts = diagonal_blocks(matrix, self.sizes)
        return self._each(lambda block, part: block.whiten_curvature(part), parts)

    def along(
        self, direction: tuple[Any, ...]
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        paths = self._each(lambda block, x: block.along(x), direction)

        def retract(
            rho: Float[Array, "*c"], retraction: Callable[[Array], Array]
        ) -> Retracted:
            moved = [path(rho, retraction) for path in paths]

            def solve(v: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
                parts = zip(moved, split(v, self.sizes), strict=True)
                return join([block.solve(part) for block, part in parts])

            return Retracted(
                matrix=type(self)(tuple(block.matrix for block in moved)),
                solve=solve,
                trace_inverse=total(block.trace_inverse for block in moved),
                logdet=total(block.logdet for block in moved),
                log=tuple(block.log for block in moved),
            )

        return retract
