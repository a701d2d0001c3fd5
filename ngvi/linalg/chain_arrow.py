"""Positive-definite matrices with the pattern of a chain and a border.

The posterior of states along a time axis has such a precision. All takes time and
memory linear in the steps. P = B Bᵀ with the B of `chain_root`; P itself is stored too,
for B⁻¹ has no zeros where P has them, and neither has the product of two such roots: a
step cannot multiply them and stay in the pattern. So here a step moves P itself,

    P⁺ = P + ρX,

and tangents are not whitened: they hold the entries of X and, from the derivative of
P⁻¹ along it, the moments of Σ X Σ, so that the trace product tr(Σ X Σ Y) of the natural
metric is a plain sum. That is the plain natural gradient step (a retraction of first
order, whichever is asked for), exact at ρ = 1 for a quadratic: P⁺ is then its Hessian.
Where P + ρX is not positive definite, P⁺ is NaN, and a shorter step is to be tried.

Source: Khan and Rue (2023), The Bayesian learning rule, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg import chain_root, chain_vectors
from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.batching import dense_of, diagonal_of, symmetric
from ngvi.linalg.chain import Chain
from ngvi.linalg.chain_bands import (
    Bands,
    apply_bands,
    bands_from_inverse,
    dot,
    doubled,
    halved,
    products,
    raised,
    scale_bands,
)
from ngvi.linalg.chain_root import Root
from ngvi.linalg.small import multiply
from ngvi.pytrees import pytree


class Tangent(NamedTuple):
    """A change of P, in both coordinates."""

    entries: Bands
    """X."""
    moments: Bands
    """Of Σ X Σ: minus the change of P⁻¹ along X."""


@pytree
class ChainArrow(LinearStructure):
    """P = B Bᵀ, block-tridiagonal with a border.

    Entries are `Bands`; moments are, too, with twice the entries between different
    blocks. A tangent is a change of P, not whitened.

    Args:
        bands: P.
        root: B.
        chain: which coordinates meet.
    """

    bands: Bands
    root: Root
    chain: Chain = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.chain.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.bands.own.shape[:-3]

    @classmethod
    def from_chain(cls, chain: Chain, bands: Bands) -> Self:
        """The matrix with these entries, which must be positive definite."""
        return cls(bands, chain_root.factor(bands)[0], chain)

    @classmethod
    def identity(cls, chain: Chain, dtype: jnp.dtype) -> Self:
        """I."""
        n, b, p = chain.count, chain.size, chain.rest
        bands = Bands(
            jnp.broadcast_to(jnp.eye(b, dtype=dtype), (n, b, b)),
            jnp.zeros((n - 1, b, b), dtype),
            jnp.zeros((n, p, b), dtype),
            jnp.eye(p, dtype=dtype),
        )
        return cls.from_chain(chain, bands)

    @classmethod
    def nearly(cls, chain: Chain, bands: Bands) -> Self:
        """A positive-definite matrix from a symmetric one, the same if it is one.

        The pivots' eigenvalues, after scaling to a unit diagonal, are replaced by their
        absolute values, none below 1e-6.
        """

        def unit(matrix: Array) -> Array:
            size = jnp.abs(diagonal_of(matrix))
            return jnp.sqrt(jnp.where(size > 0, size, 1.0))

        def pivot(matrix: Array) -> tuple[Array, Array, Array]:
            values, vectors = jnp.linalg.eigh(matrix)
            more = jnp.maximum(jnp.abs(values), 1e-6) - values
            added = symmetric(multiply(vectors * more[..., None, :], vectors.mT))
            return *chain_root.cholesky(matrix + added)[:2], added

        blocks, border = unit(bands.own), unit(bands.border)
        scaled = scale_bands(bands, 1 / blocks, 1 / border)
        _, own, more = chain_root.factor(scaled, pivot)
        return cls.from_chain(
            chain, scale_bands(raised(scaled, own, more), blocks, border)
        )

    # -- as a linear operator ----------------------------------------------------

    def _on_vector(
        self,
        method: Callable[[Root, Array, Array], tuple[Array, Array]],
        x: Float[Array, "*b d"],
    ) -> Float[Array, "*b d"]:
        return self.chain.paste(*method(self.root, *self.chain.cut(x)))

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.chain.paste(*apply_bands(self.bands, *self.chain.cut(x)))

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.unwhiten(self.whiten_gradient(x))

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(chain_vectors.apply_transposed, x)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(chain_vectors.solve_transposed, eps)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._on_vector(chain_vectors.solve, g)

    def unwhiten_matched(self, eps: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """A ε with the second moments of N(0, P⁻¹) inside of the pattern, exactly, for
        more than 3 b + p draws that differ in more than their signs."""
        return self._on_vector(chain_vectors.solve_transposed_matched, eps)

    def _unwhiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """B g, the inverse of `whiten_gradient`."""
        return self._on_vector(chain_vectors.apply, g)

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        return chain_root.logdet(self.root)

    def diagonal(self) -> Float[Array, "*c d"]:
        return self._diagonal(self.bands)

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return self._diagonal(chain_root.inverse(self.root, self.chain.count))

    def _diagonal(self, bands: Bands) -> Float[Array, "*c d"]:
        return self.chain.paste(diagonal_of(bands.own), diagonal_of(bands.border))

    def dense(self) -> Float[Array, "*c d d"]:
        own = self.bands.own
        return dense_of(self.mv, self.dim, own.ndim - 3, own.dtype)

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        own = self.bands.own
        return dense_of(self.solve, self.dim, own.ndim - 3, own.dtype)

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        if isinstance(other, ChainArrow) and other.chain == self.chain:
            return dot(self.bands, other.inverse_moments())
        return super().relative_trace(other)

    # -- the linear space and its dual -------------------------------------------

    def entries(self) -> Bands:
        return self.bands

    def from_entries(self, entries: Bands) -> Self:
        return self.from_chain(self.chain, entries)

    def project(self, matrix: Float[Array, "*c d d"]) -> Bands:
        blocks, border = self.chain.cut(jnp.arange(self.dim))

        def at(rows: Array, columns: Array) -> Array:
            return matrix[..., rows[..., :, None], columns[..., None, :]]

        return Bands(
            symmetric(at(blocks, blocks)),
            at(blocks[1:], blocks[:-1]),
            at(border, blocks),
            symmetric(at(border, border)),
        )

    def inner(self, x: Bands, y: Bands) -> Float[Array, "*c"]:
        return dot(x, doubled(y))

    def outer(self, x: Float[Array, "*b d"]) -> Bands:
        blocks, border = self.chain.cut(x)
        return doubled(products((blocks, border), (blocks, border)))

    def inverse_moments(self) -> Bands:
        return doubled(chain_root.inverse(self.root, self.chain.count))

    def from_moments(self, moments: Bands) -> Self:
        return self.from_entries(bands_from_inverse(halved(moments)))

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        c = jnp.asarray(c)
        s = jnp.sqrt(c)
        root = jax.tree.map(lambda part: _by(s, part), self.root)
        # Of which all but the inverses are right.
        levels = tuple(
            grown._replace(inverse_pivot=_by(1 / s, level.inverse_pivot))
            for grown, level in zip(root.levels, self.root.levels, strict=True)
        )
        inverse_border = _by(1 / s, self.root.inverse_border)
        bands = jax.tree.map(lambda part: _by(c, part), self.bands)
        return type(self)(bands, Root(levels, root.border, inverse_border), self.chain)

    def add(self, other: PositiveDefinite) -> Self:
        if isinstance(other, ChainArrow) and other.chain == self.chain:
            terms = other.bands
        else:
            terms = self.project(other.dense())
        return self.from_entries(jax.tree.map(jnp.add, self.bands, terms))

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        more = jnp.asarray(damping)[..., None, None]
        dtype = self.bands.own.dtype
        eyes = [jnp.eye(n, dtype=dtype) for n in (self.chain.size, self.chain.rest)]
        return self.from_entries(
            raised(self.bands, more[..., None] * eyes[0], more * eyes[1])
        )

    # -- the tangent space -------------------------------------------------------

    def as_tangent(self, entries: Bands) -> Tangent:
        """The tangent X with these entries."""

        def negative(bands: Bands) -> Bands:
            moments = self.from_entries(bands).inverse_moments()
            return jax.tree.map(jnp.negative, moments)

        return Tangent(entries, jax.jvp(negative, (self.bands,), (entries,))[1])

    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> Tangent:
        """Of B Sym(mean εᵢ gᵢᵀ) Bᵀ."""
        x, y = (self.chain.cut(self._unwhiten_gradient(v)) for v in (eps, g))
        halves = [products(x, y), products(y, x)]
        mean = jax.tree.map(lambda a, b: (a + b).mean(0) / 2, *halves)
        return self.as_tangent(mean)

    def tangent_identity(self) -> Tangent:
        return Tangent(self.bands, self.inverse_moments())

    def tangent_inner(self, x: Tangent, y: Tangent) -> Float[Array, "*c"]:
        return (dot(x.entries, y.moments) + dot(y.entries, x.moments)) / 2

    def whiten_curvature(self, matrix: Float[Array, "*c d d"]) -> Tangent:
        """H itself."""
        return self.as_tangent(self.project(matrix))

    def along(
        self, direction: Tangent
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        def retract(
            rho: Float[Array, "*c"], retraction: Callable[[Array], Array]
        ) -> Retracted:
            moved = jax.tree.map(
                lambda s, x: s + _by(rho, x), self.bands, direction.entries
            )
            matrix = self.from_entries(moved)
            change = jax.tree.map(jnp.subtract, matrix.bands, self.bands)
            before, after = self.inverse_moments(), matrix.inverse_moments()
            log = Tangent(change, jax.tree.map(jnp.subtract, before, after))

            def solve(v: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
                return self.whiten(matrix.solve(self._unwhiten_gradient(v)))

            return Retracted(
                matrix=matrix,
                solve=solve,
                trace_inverse=self.dim - dot(change, after),
                logdet=matrix.logdet() - self.logdet(),
                log=log,
            )

        return retract


def _by(c: Array, part: Array) -> Array:
    """A number for each matrix, times a part of it."""
    return part * c[(..., *[None] * (part.ndim - c.ndim))]
