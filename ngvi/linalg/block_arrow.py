"""Positive-definite matrices with the pattern of a tree of blocks.

A hierarchical model's posterior has such a precision: what is a group's own meets other
groups only through what all share. Everything costs time and memory linear in the
number of blocks. P = B Bᵀ with B lower triangular by blocks (leaves first), and B and
B⁻¹ are both stored, as in `Dense`.

A step stays among these roots, B⁺ = B L, R = L Lᵀ. A function of the spectrum of I + X
would leave the pattern; here R is applied to each diagonal block by itself,

    Lₖₖ = R(Xₖₖ)^½ (symmetric),   Lₐₖ = Xₐₖ Lₖₖ⁻¹,

which agrees with I + X to first order and is positive whenever R is. The Cholesky root
of I + X would have Xₐₐ − Σₖ Lₐₖ Lₐₖᵀ in place of Xₐₐ. But X comes from draws, and the
squares of its errors add up over thousands of blocks to a pivot far below zero. Without
them a quadratic is solved in as many steps as there are levels, not in one.

The frame is kept: the derivative of A at a step of length 0 along X is −A Tᵀ, with T
the lower triangle of X and half of its diagonal blocks.

For fixed draws the gradient along such steps is the lower triangle of mean ε gᵀ: above
it no step leads. So that is what `tangent` holds.

Source: Lin, Nielsen, Khan and Schmidt (2021), Tractable structured natural-gradient
descent using local parameterizations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import dense_of, diagonal_matrix, symmetric
from ngvi.linalg.blocks import total
from ngvi.linalg.small import lapack_roots
from ngvi.linalg.tree import Blocks, Parts, Tree
from ngvi.linalg.tree_blocks import (
    Pivot,
    apply,
    apply_transposed,
    diagonal,
    dot,
    doubled,
    factor,
    gram,
    halved,
    inverse,
    multiply,
    products,
    root_from_moments,
    scale_columns,
    scale_rows,
    square,
    squared_norm,
    twice_log,
)
from ngvi.pytrees import pytree


@pytree
class BlockArrow(LinearStructure):
    """P = B Bᵀ with the pattern of a tree.

    Entries and tangents are `Blocks`; moments are, too, with twice the entries below
    the diagonal blocks.

    Args:
        root: B.
        inverse_root: B⁻¹, which is Aᵀ and has the same pattern.
        tree: which coordinates meet.
    """

    root: Blocks
    inverse_root: Blocks
    tree: Tree = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.tree.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.root[0][0].shape[:-3]

    @classmethod
    def from_tree(cls, tree: Tree, entries: Blocks) -> Self:
        """The matrix with these entries, which must be positive definite."""
        units = [jnp.sqrt(part) for part in diagonal(entries)]
        return cls._factored(tree, entries, units, lapack_roots)

    @classmethod
    def _factored(cls, tree: Tree, entries: Blocks, units: Parts, pivot: Pivot) -> Self:
        """Scaled by these units first: those of 1e±4 cost no digits in float32."""
        inverse_units = [1 / part for part in units]
        scaled = scale_rows(tree, scale_columns(entries, inverse_units), inverse_units)
        lower, inverse_lower = factor(tree, scaled, pivot)
        return cls(
            scale_rows(tree, lower, units),
            scale_columns(inverse_lower, inverse_units),
            tree,
        )

    @classmethod
    def identity(cls, tree: Tree, dtype: jnp.dtype) -> Self:
        """I, in the frame of the coordinates."""
        blocks = []
        for level, chain in zip(tree.levels, tree.chains, strict=True):
            eye = jnp.eye(level.size, dtype=dtype)
            own = jnp.broadcast_to(eye, (level.count, *eye.shape))
            sizes = [tree.levels[a].size for a in chain[1:]]
            shapes = [(level.count, size, level.size) for size in sizes]
            blocks.append((own, *(jnp.zeros(shape, dtype) for shape in shapes)))
        return cls(tuple(blocks), tuple(blocks), tree)

    @classmethod
    def nearly(cls, tree: Tree, entries: Blocks) -> Self:
        """A positive-definite matrix from a symmetric one, the same if it is one.

        The pivots' eigenvalues, after scaling to a unit diagonal, are replaced by their
        absolute values, none below 1e-6.
        """
        sizes = [jnp.abs(part) for part in diagonal(entries)]
        units = [jnp.sqrt(jnp.where(part > 0, part, 1.0)) for part in sizes]

        def pivot(y: Array) -> tuple[Array, Array]:
            values, vectors = jnp.linalg.eigh(y)
            root = jnp.sqrt(jnp.maximum(jnp.abs(values), 1e-6))[..., None, :]
            return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT

        return cls._factored(tree, entries, units, pivot)

    # -- shared out over devices -------------------------------------------------

    @property
    def whole_dim(self) -> int:
        return self.tree.whole_dim

    def dot(self, x: Float[Array, "d"], y: Float[Array, "d"]) -> Float[Array, ""]:
        if self.tree.axis is None:
            return x @ y
        parts = zip(self.tree.cut(x), self.tree.cut(y), strict=True)
        return self.tree.total([(a * b).sum() for a, b in parts])

    def everywhere(self, true: Bool[Array, ""]) -> Bool[Array, ""]:
        if self.tree.axis is None:
            return true
        return jax.lax.psum(~true, self.tree.axis) == 0

    def added_up(
        self, values: Float[Array, "*b"], gradients: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b"], Float[Array, "*b d"]]:
        if self.tree.axis is None:
            return values, gradients
        parts = self.tree.added_up(self.tree.cut(gradients))
        return jax.lax.psum(values, self.tree.axis), self.tree.paste(parts)

    # -- as a linear operator ----------------------------------------------------

    def _on_vector(
        self,
        method: Callable[[Tree, Blocks, Parts], Parts],
        blocks: Blocks,
        x: Float[Array, "*b d"],
    ) -> Float[Array, "*b d"]:
        return self.tree.paste(method(self.tree, blocks, self.tree.cut(x)))

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(apply, self.root, self.whiten(x))

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.unwhiten(self.whiten_gradient(x))

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(apply_transposed, self.root, x)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(apply_transposed, self.inverse_root, eps)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(apply, self.inverse_root, g)

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        logs = [jnp.linalg.slogdet(column[0])[1].sum(-1) for column in self.root]
        return 2 * self.tree.total(logs)

    def diagonal(self) -> Float[Array, "*c d"]:
        return self.tree.paste(diagonal(self.entries()))

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        squares = [
            total((block**2).sum(-2) for block in column)
            for column in self.inverse_root
        ]
        return self.tree.paste(squares)

    def dense(self) -> Float[Array, "*c d d"]:
        own = self.root[0][0]
        return dense_of(self.mv, self.dim, own.ndim - 3, own.dtype)

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        own = self.root[0][0]
        return dense_of(self.solve, self.dim, own.ndim - 3, own.dtype)

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        if isinstance(other, BlockArrow) and other.tree == self.tree:
            return squared_norm(
                self.tree, multiply(self.tree, other.inverse_root, self.root)
            )
        return super().relative_trace(other)

    # -- the linear space and its dual -------------------------------------------

    def entries(self) -> Blocks:
        return square(self.tree, self.root)

    def from_entries(self, entries: Blocks) -> Self:
        return self.from_tree(self.tree, entries)

    def project(self, matrix: Float[Array, "*c d d"]) -> Blocks:
        places = self.tree.cut(jnp.arange(self.dim))
        blocks = []
        for k, chain in enumerate(self.tree.chains):
            column = []
            for a in chain:
                fan = self.tree.levels[k].count // self.tree.levels[a].count
                rows = jnp.repeat(places[a], fan, 0)[:, :, None]
                column.append(matrix[..., rows, places[k][:, None, :]])
            column[0] = symmetric(column[0])
            blocks.append(tuple(column))
        return tuple(blocks)

    def inner(self, x: Blocks, y: Blocks) -> Float[Array, "*c"]:
        return dot(self.tree, x, doubled(y))

    def outer(self, x: Float[Array, "*b d"]) -> Blocks:
        parts = self.tree.cut(x)
        return doubled(products(self.tree, parts, parts))

    def inverse_moments(self) -> Blocks:
        return doubled(gram(self.tree, self.inverse_root))

    def from_moments(self, moments: Blocks) -> Self:
        halves = halved(moments)
        sd = [jnp.sqrt(part) for part in diagonal(halves)]
        precision = [1 / part for part in sd]
        scaled = scale_rows(self.tree, scale_columns(halves, precision), precision)
        lower, inverse_lower = root_from_moments(self.tree, scaled)
        return type(self)(
            scale_rows(self.tree, lower, precision),
            scale_columns(inverse_lower, sd),
            self.tree,
        )

    def matched(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        parts = self.tree.cut(x)
        second = products(self.tree, parts, parts, mean=True)
        return self.from_moments(doubled(second)).whiten(x)

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        s = jnp.sqrt(c)[..., None, None, None]
        return type(self)(
            jax.tree.map(lambda block: block * s, self.root),
            jax.tree.map(lambda block: block / s, self.inverse_root),
            self.tree,
        )

    def add(self, other: PositiveDefinite) -> Self:
        if isinstance(other, BlockArrow) and other.tree == self.tree:
            terms = other.entries()
        else:
            terms = self.project(other.dense())
        return self.from_entries(jax.tree.map(jnp.add, self.entries(), terms))

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        more = jnp.asarray(damping)[..., None, None]
        terms = tuple(
            (own + diagonal_matrix(jnp.broadcast_to(more, own.shape[:-1])), *rest)
            for own, *rest in self.entries()
        )
        return self.from_entries(terms)

    # -- the tangent space -------------------------------------------------------

    def tangent(self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]) -> Blocks:
        """The lower triangle of mean εᵢ gᵢᵀ, of its diagonal blocks the symmetric part:
        for fixed draws the gradient along the steps that `along` can take."""
        cut = self.tree.cut
        return products(self.tree, cut(eps), cut(g), mean=True)

    def tangent_identity(self) -> Blocks:
        identity = type(self).identity(self.tree, self.root[0][0].dtype).root
        return jax.tree.map(
            lambda i, b: jnp.broadcast_to(i, b.shape), identity, self.root
        )

    def whiten_curvature(self, matrix: Float[Array, "*c d d"]) -> Blocks:
        # Aᵀ acts on columns: on each row of a matrix, whose transpose follows.
        across = jnp.moveaxis(self.whiten_gradient(jnp.moveaxis(matrix, -2, 0)), 0, -1)
        both = jnp.moveaxis(self.whiten_gradient(jnp.moveaxis(across, -2, 0)), 0, -1)
        return self.project(symmetric(both))

    def along(
        self, direction: Blocks
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        spectra = [jnp.linalg.eigh(column[0]) for column in direction]

        def retract(
            rho: Float[Array, "*c"], retraction: Callable[[Array], Array]
        ) -> Retracted:
            rs = [retraction(rho[..., None, None] * values) for values, _ in spectra]
            lower, shrinks = [], []
            for r, (_, vectors), (_, *rest) in zip(rs, spectra, direction, strict=True):
                # Exactly the identity where r is 1.
                eye = jnp.eye(r.shape[-1], dtype=r.dtype)
                root = jnp.sqrt(r)[..., None, :]
                grow = eye + (vectors * (root - 1)) @ vectors.mT
                shrink = eye + (vectors * (1 / root - 1)) @ vectors.mT
                lengths = rho[..., None, None, None]
                lower.append((grow, *(lengths * block @ shrink for block in rest)))
                shrinks.append(shrink)
            inverse_lower = inverse(self.tree, tuple(lower), shrinks)

            def solve(v: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
                halfway = self._on_vector(apply, inverse_lower, v)
                return self._on_vector(apply_transposed, inverse_lower, halfway)

            return Retracted(
                matrix=type(self)(
                    multiply(self.tree, self.root, tuple(lower)),
                    multiply(self.tree, inverse_lower, self.inverse_root),
                    self.tree,
                ),
                solve=solve,
                trace_inverse=squared_norm(self.tree, inverse_lower),
                logdet=self.tree.total([jnp.log(r).sum((-2, -1)) for r in rs]),
                log=twice_log(self.tree, tuple(lower)),
            )

        return retract
