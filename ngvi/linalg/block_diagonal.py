"""Block-diagonal matrices whose blocks are any linear structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import block_diagonal, diagonal_blocks, join, split

Method = Callable[[LinearStructure, Array], Array]


def _sum(values: Any) -> Array:
    first, *others = values
    return sum(others, start=first)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockDiagonal(LinearStructure):
    """P = diag(P₁, …, P_K): independent groups of variables, in the order given.

    Entries, moments and tangents are tuples with those of each block.

    Args:
        blocks: at least one structure, of any kinds and sizes.
    """

    blocks: tuple[LinearStructure, ...]

    @property
    def dim(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of rows of each block."""
        return tuple(block.dim for block in self.blocks)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(*(block.batch_shape for block in self.blocks))

    def _on_vector(self, method: Method, x: Float[Array, "*b d"]) -> Array:
        parts = zip(self.blocks, split(x, self.sizes), strict=True)
        return join([method(block, part) for block, part in parts])

    def _each(self, method: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        """The method of every block, on its own items of the arguments."""
        items = zip(self.blocks, *arguments, strict=True)
        return tuple(method(*item) for item in items)

    # -- as a linear operator ----------------------------------------------------

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.mv(part), x)

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.solve(part), x)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.whiten(part), x)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.unwhiten(part), eps)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.whiten_gradient(part), g)

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        return _sum(block.logdet() for block in self.blocks)

    def diagonal(self) -> Float[Array, "*c d"]:
        return join([block.diagonal() for block in self.blocks])

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return join([block.inverse_diagonal() for block in self.blocks])

    def dense(self) -> Float[Array, "*c d d"]:
        return block_diagonal([block.dense() for block in self.blocks])

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return block_diagonal([block.inverse_dense() for block in self.blocks])

    # -- the linear space and its dual -------------------------------------------

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        if isinstance(other, BlockDiagonal) and self.sizes == other.sizes:
            pairs = zip(self.blocks, other.blocks, strict=True)
            traces = [mine.relative_trace(theirs) for mine, theirs in pairs]
            return _sum(traces)
        return super().relative_trace(other)

    def entries(self) -> tuple[Any, ...]:
        return self._each(lambda block: block.entries())

    def from_entries(self, entries: tuple[Any, ...]) -> Self:
        make = self._each(lambda block, e: block.from_entries(e), entries)
        return type(self)(make)

    def project(self, matrix: Float[Array, "*c d d"]) -> tuple[Any, ...]:
        parts = diagonal_blocks(matrix, self.sizes)
        return self._each(lambda block, part: block.project(part), parts)

    def inner(self, x: tuple[Any, ...], y: tuple[Any, ...]) -> Float[Array, "*c"]:
        return _sum(self._each(lambda block, a, b: block.inner(a, b), x, y))

    def outer(self, x: Float[Array, "*b d"]) -> tuple[Any, ...]:
        parts = split(x, self.sizes)
        return self._each(lambda block, part: block.outer(part), parts)

    def inverse_moments(self) -> tuple[Any, ...]:
        return self._each(lambda block: block.inverse_moments())

    def from_moments(self, moments: tuple[Any, ...]) -> Self:
        make = self._each(lambda block, m: block.from_moments(m), moments)
        return type(self)(make)

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(self._each(lambda block: block.scale(c)))

    def add(self, other: PositiveDefinite) -> Self:
        if isinstance(other, BlockDiagonal) and other.sizes == self.sizes:
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
                trace_inverse=_sum(block.trace_inverse for block in moved),
                logdet=_sum(block.logdet for block in moved),
                log=tuple(block.log for block in moved),
            )

        return retract
