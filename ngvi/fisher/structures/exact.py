"""Structures that hold their entries exactly: all, blocks on the diagonal, or it alone.

They are had from the layers' inputs and gradients, see `ngvi.fisher.jacobians`. A
Hessian has no such form: its columns are its products with the unit vectors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.jacobians import (
    Backpropagated,
    cross,
    expand_cross,
    expand_square,
    parts,
    square,
)
from ngvi.fisher.kinds import Hessian
from ngvi.fisher.layers import Layer, Network
from ngvi.fisher.layout import Layout
from ngvi.fisher.problem import Problem
from ngvi.fisher.products import Flat, InBatches
from ngvi.fisher.structures.base import Averaged
from ngvi.linalg import (
    Semidefinite,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
)

_UNIT_VECTORS = 32
"""Products at a time."""


class Exact(Averaged):
    """Entries of the whole matrix."""

    def compute(self, problem: Problem, key: Key[Array, ""] | None) -> Semidefinite:
        if isinstance(problem.kind, Hessian):
            layout = Layout.of(problem.params, problem.network)
            return self.of_products(layout, Flat(InBatches(problem), layout))
        return super().compute(problem, key)

    @abstractmethod
    def of_products(
        self, layout: Layout, product: Callable[[Array], Array]
    ) -> Semidefinite:
        """From products of vectors in this order."""


def _of_rows(
    layout: Layout,
    product: Callable[[Array], Array],
    numbers: range,
    function: Callable[[Array, Array], Array],
) -> Array:
    """function(i, row i) for the rows of these numbers."""

    def one(i: Array) -> Array:
        return function(i, product(jax.nn.one_hot(i, layout.dim)))

    return jax.lax.map(
        one, jnp.arange(numbers.start, numbers.stop), batch_size=_UNIT_VECTORS
    )


def _layers(of: Network | Layout) -> list[Layer | None]:
    """One a part; None for the leaves of the rest."""
    return [*of.layers, *[None] * len(of.rest)]


@dataclass(frozen=True)
class DenseStructure(Exact):
    """All entries: O(P²) memory."""

    def sums(self, problem: Problem, sent_back: Backpropagated) -> Any:
        all_parts, signs = parts(problem, sent_back), sent_back.signs
        return (
            [square(part, signs) for part in all_parts],
            [cross(one, other, signs) for one, other in combinations(all_parts, 2)],
        )

    def build(self, problem: Problem, means: Any) -> SemidefiniteDense:
        squares, crosses = means
        layers = _layers(problem.network)
        blocks = [
            expand_square(sums, layer)
            for sums, layer in zip(squares, layers, strict=True)
        ]
        ends = [0, *accumulate(map(len, blocks))]
        ranges = [slice(*pair) for pair in pairwise(ends)]
        # Written in place: joining blocks would copy them once more.
        matrix = jnp.zeros((ends[-1], ends[-1]), blocks[0].dtype)
        for block, rows in zip(blocks, ranges, strict=True):
            matrix = matrix.at[rows, rows].set(block)
        pairs = combinations(range(len(blocks)), 2)
        for (i, j), sums in zip(pairs, crosses, strict=True):
            block = expand_cross(sums, layers[i], layers[j])
            matrix = matrix.at[ranges[i], ranges[j]].set(block)
            matrix = matrix.at[ranges[j], ranges[i]].set(block.T)
        return SemidefiniteDense(matrix)

    def of_products(
        self, layout: Layout, product: Callable[[Array], Array]
    ) -> SemidefiniteDense:
        matrix = _of_rows(layout, product, range(layout.dim), lambda i, row: row)
        return SemidefiniteDense((matrix + matrix.T) / 2)


@dataclass(frozen=True)
class BlockStructure(Exact):
    """A block for every layer, or for every leaf of the parameters."""

    of: Literal["layer", "leaf"] = "layer"

    def sums(self, problem: Problem, sent_back: Backpropagated) -> Any:
        return [square(p, sent_back.signs) for p in parts(problem, sent_back)]

    def build(self, problem: Problem, means: Any) -> SemidefiniteBlocks:
        blocks: list[Array] = []
        for sums, layer in zip(means, _layers(problem.network), strict=True):
            blocks += self._cut(expand_square(sums, layer), layer)
        return SemidefiniteBlocks(tuple(map(SemidefiniteDense, blocks)))

    def _cut(self, block: Float[Array, "p p"], layer: Layer | None) -> list[Array]:
        """A layer's block, or those of its kernel and of its bias, the last row."""
        both = layer is not None and layer.has_kernel and layer.has_bias
        if self.of == "layer" or not both:
            return [block]
        assert layer is not None
        kernel = len(block) - layer.outputs
        return [block[:kernel, :kernel], block[kernel:, kernel:]]

    def of_products(
        self, layout: Layout, product: Callable[[Array], Array]
    ) -> SemidefiniteBlocks:
        def block(start: int, stop: int) -> Array:
            own = range(start, stop)
            rows = _of_rows(layout, product, own, lambda i, row: row[start:stop])
            return (rows + rows.T) / 2

        ends = pairwise([0, *accumulate(layout.sizes)])
        blocks: list[Array] = []
        for (start, stop), layer in zip(ends, _layers(layout), strict=True):
            blocks += self._cut(block(start, stop), layer)
        return SemidefiniteBlocks(tuple(map(SemidefiniteDense, blocks)))


@dataclass(frozen=True)
class DiagonalStructure(Exact):
    """The diagonal."""

    def sums(self, problem: Problem, sent_back: Backpropagated) -> Any:
        return [part.squares(sent_back.signs) for part in parts(problem, sent_back)]

    def build(self, problem: Problem, means: Any) -> SemidefiniteBlocks:
        # Joining the layers would be a third of the time.
        return SemidefiniteBlocks(tuple(map(SemidefiniteDiagonal, means)))

    def of_products(
        self, layout: Layout, product: Callable[[Array], Array]
    ) -> SemidefiniteDiagonal:
        numbers = range(layout.dim)
        diagonal = _of_rows(layout, product, numbers, lambda i, row: row[i])
        return SemidefiniteDiagonal(diagonal)
