"""Block-diagonal matrices: of any operators, and of any semidefinite matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import block_diagonal, join, split
from ngvi.linalg.semidefinite import Semidefinite, per_coordinate
from ngvi.pytrees import pytree


def total(values: Any) -> Array:
    """The sum of one or more arrays."""
    first, *others = values
    return sum(others, start=first)


@dataclass(frozen=True)
class Blocks:
    """What diag(P₁, …, P_K) is, whatever the blocks are."""

    blocks: tuple[Any, ...]

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

    def _on_vector(
        self, method: Callable[[Any, Array], Array], x: Float[Array, "*b d"]
    ) -> Array:
        parts = zip(self.blocks, split(x, self.sizes), strict=True)
        return join([method(block, part) for block, part in parts])

    def _each(self, method: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        """The method of every block, on its own items of the arguments."""
        items = zip(self.blocks, *arguments, strict=True)
        return tuple(method(*item) for item in items)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.mv(part), x)

    def diagonal(self) -> Float[Array, "*c d"]:
        return join([block.diagonal() for block in self.blocks])

    def trace(self) -> Float[Array, "*c"]:
        return total(block.trace() for block in self.blocks)

    def dense(self) -> Float[Array, "*c d d"]:
        return block_diagonal([block.dense() for block in self.blocks])

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        return type(self)(self._each(lambda block: block.scale(c)))


@pytree
class BlockOperators(Blocks, PositiveDefinite):
    """P = diag(P₁, …, P_K): independent groups of variables, in the order given.

    Args:
        blocks: at least one operator, of any kinds and sizes.
    """

    blocks: tuple[PositiveDefinite, ...]

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.solve(part), x)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.whiten(part), x)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.unwhiten(part), eps)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(lambda block, part: block.whiten_gradient(part), g)

    def logdet(self) -> Float[Array, "*c"]:
        return total(block.logdet() for block in self.blocks)

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        """P + λ I, λ ≥ 0, of blocks that can be damped."""
        blocks: Any = self.blocks
        return type(self)(tuple(block.damp(damping) for block in blocks))

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return join([block.inverse_diagonal() for block in self.blocks])

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        return block_diagonal([block.inverse_dense() for block in self.blocks])

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        if isinstance(other, BlockOperators) and self.sizes == other.sizes:
            pairs = zip(self.blocks, other.blocks, strict=True)
            return total(mine.relative_trace(theirs) for mine, theirs in pairs)
        return super().relative_trace(other)


@pytree
class SemidefiniteBlocks(Blocks, Semidefinite):
    """F = diag(F₁, …, F_K): a curvature without what is between groups of variables.

    Args:
        blocks: at least one semidefinite matrix, of any kinds and sizes.
    """

    blocks: tuple[Semidefinite, ...]

    def add(self, other: Semidefinite) -> Self:
        matching = self._matching(other).blocks
        return type(self)(self._each(lambda a, b: a.add(b), matching))

    def average(self, other: Semidefinite, weight: float | Float[Array, "*c"]) -> Self:
        matching = self._matching(other).blocks
        return type(self)(self._each(lambda a, b: a.average(b, weight), matching))

    def damp(
        self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"] | tuple
    ) -> BlockOperators:
        return self._damp(lambda block, each: block.damp(each), damping)

    def damp_factored(
        self, damping: float | Float[Array, "*c"] | tuple
    ) -> BlockOperators:
        return self._damp(lambda block, each: block.damp_factored(each), damping)

    def _damp(self, method: Callable[..., PositiveDefinite], damping: Any) -> Any:
        """With one λ, one for each coordinate, or a tuple of what each block takes."""
        of_blocks = [damping] * len(self.blocks)
        if isinstance(damping, tuple):
            of_blocks = list(damping)
        elif jnp.ndim(damping) > len(self.batch_shape):
            of_blocks = split(per_coordinate(damping, self), self.sizes)
        return BlockOperators(self._each(method, of_blocks))

    def clip(self, minimum: float | Float[Array, "*c"]) -> SemidefiniteBlocks:
        return SemidefiniteBlocks(self._each(lambda block: block.clip(minimum)))
