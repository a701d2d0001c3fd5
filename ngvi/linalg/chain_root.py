"""Factors of block-tridiagonal matrices with a border, in parallel along the chain.

A chain is cut into segments. The last block of each is a *separator*, all others are
eliminated in their order, in all segments at once: block i then meets the next one i',
the separator l of the segment before, and the border. With pivot Dᵢ = L Lᵀ,

    N = Pᵢ'ᵢ L⁻ᵀ,   F = Pₗᵢ L⁻ᵀ,   C = P_border,ᵢ L⁻ᵀ

are the column of B below L, and its square is taken off what is left. The separators
are a chain again, shorter by the length of a segment, and are treated in the same way;
the border comes last. So P = B Bᵀ takes work and memory linear in the blocks, in about
a thousand sequential steps however long the chain is.

P⁻¹ inside of the pattern comes from the same recursion backward: with W the column
times L⁻¹, and J = {i', l, border},

    Σ_Jᵢ = −Σ_JJ W,   Σᵢᵢ = L⁻ᵀL⁻¹ − Wᵀ Σ_Jᵢ.

Source: Takahashi, Fagan and Chin (1973), for the entries of the inverse; Rue and Held
(2005), Gaussian Markov Random Fields, chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import symmetric
from ngvi.linalg.chain_bands import Bands
from ngvi.linalg.chain_segments import (
    after_each,
    before_each,
    fold,
    inside_of,
    last_of,
    scan,
    segments_of,
    unfold,
)
from ngvi.linalg.small import multiply, roots

Pivot = Callable[[Array], tuple[Array, Array, Any]]
"""L and L⁻¹ of a pivot, and what had to be added to it, or None."""


class Columns(NamedTuple):
    """Of all blocks that are eliminated together; k of them in each of s segments."""

    pivot: Float[Array, "*c s k b b"]
    """L."""
    inverse_pivot: Float[Array, "*c s k b b"]
    """L⁻¹."""
    next: Float[Array, "*c s k b b"]
    """N."""
    left: Float[Array, "*c s k b b"]
    """F."""
    border: Float[Array, "*c s k p b"]
    """C."""


class Root(NamedTuple):
    """B: those of the segments, of the separators' segments, …, and of the border."""

    levels: tuple[Columns, ...]
    border: Float[Array, "*c p p"]
    """L of what is left of the border."""
    inverse_border: Float[Array, "*c p p"]


def cholesky(matrix: Array) -> tuple[Array, Array, None]:
    """The plain pivot; NaN where the matrix is not positive definite."""
    return *roots(matrix), None


def factor(bands: Bands, pivot: Pivot = cholesky) -> tuple[Root, Any, Any]:
    """B, and what had to be added to the blocks and to the border.

    Args:
        bands: P.
        pivot: factors the pivots.
    """
    own, following, cross, border = bands
    count = own.shape[-3]
    segments, length = segments_of(count)
    eye = jnp.eye(own.shape[-1], dtype=own.dtype)
    own, cross = fold(own, -3), fold(cross, -3)
    # What fills up the last segment meets nothing.
    filled = jnp.arange(segments * length).reshape(segments, length, 1, 1) < count
    own = jnp.where(filled, own, eye)
    none = jnp.zeros_like(following, shape=(*own.shape[:-4], 1, *own.shape[-2:]))
    following = fold(jnp.concatenate([following, none], -3), -3)
    left = before_each(last_of(following, -3), -3).mT

    def eliminate(carry: Any, x: Any) -> tuple[Any, Any]:
        (rest, left, cross), (after, own_after, cross_after) = carry, x
        root, inverse_root, added = pivot(rest)
        n, f, c = (multiply(part, inverse_root.mT) for part in (after, left, cross))
        carry = (
            own_after - symmetric(multiply(n, n.mT)),
            -multiply(f, n.mT),
            cross_after - multiply(c, n.mT),
        )
        return carry, (Columns(root, inverse_root, n, f, c), added)

    first = own[..., 0, :, :], left, cross[..., 0, :, :]
    after = inside_of(following, -3), own[..., 1:, :, :], cross[..., 1:, :, :]
    (own, left, cross), (columns, added) = scan(eliminate, first, after)

    c = columns.border
    border = border - symmetric(jnp.einsum("...skpb,...skqb->...pq", c, c))
    coarse: tuple[Root, Any, Any]
    if segments == 1:
        empty = not border.shape[-1]
        lower, inverse, more = (border, border, None) if empty else pivot(border)
        coarse = Root((), lower, inverse), jnp.zeros_like(own), more
    else:
        f = columns.left
        squared = jnp.einsum("...skij,...sklj->...sil", f, f)
        crossed = jnp.einsum("...skpj,...skij->...spi", c, f)
        left_over = Bands(
            own - after_each(symmetric(squared), -3),
            left[..., 1:, :, :].mT,
            cross - after_each(crossed, -3),
            border,
        )
        coarse = factor(left_over, pivot)
    root, at_separators, at_border = coarse
    if added is not None:
        added = unfold(added, at_separators, -3, count)
    return root._replace(levels=(columns, *root.levels)), added, at_border


def logdet(root: Root) -> Float[Array, "*c"]:
    """log det P."""
    total = _log_diagonal(root.border).sum(-1)
    for columns in root.levels:
        total = total + _log_diagonal(columns.pivot).sum((-3, -2, -1))
    return 2 * total


def _log_diagonal(lower: Array) -> Array:
    return jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1))


def inverse(root: Root, count: int) -> Bands:
    """P⁻¹ inside of the pattern."""
    border = symmetric(root.inverse_border.mT @ root.inverse_border)
    return _inverse(root.levels, border, count)


def _inverse(levels: tuple[Columns, ...], border: Array, count: int) -> Bands:
    columns, *coarser = levels
    segments = columns.pivot.shape[-4]
    if coarser:
        known = _inverse(tuple(coarser), border, segments)
    else:
        # The separator that is none.
        shape = (*columns.pivot.shape[:-4], 1)
        b, p = columns.border.shape[-1], border.shape[-1]
        none = jnp.zeros((*shape, b, b), border.dtype)
        crossed = jnp.zeros((*shape, p, b), border.dtype)
        known = Bands(none, none[..., :0, :, :], crossed, border)
    # Of each segment's own separator, that before it, and the two together.
    own, cross = known.own, known.cross
    left, left_cross = before_each(own, -3), before_each(cross, -3)
    pad = [(0, 0)] * (own.ndim - 3) + [(1, 0), (0, 0), (0, 0)]
    both = jnp.pad(known.next, pad).mT
    whole = border[..., None, :, :]

    def backward(carry: Any, x: Any) -> tuple[Any, Any]:
        (own, both, cross), (inverse_pivot, n, f, c) = carry, x
        n, f, c = (multiply(part, inverse_pivot) for part in (n, f, c))
        following = -(multiply(own, n) + multiply(both.mT, f) + _across(cross.mT, c))
        at_left = -(multiply(both, n) + multiply(left, f) + _across(left_cross.mT, c))
        at_border = -(multiply(cross, n) + multiply(left_cross, f) + _across(whole, c))
        own = symmetric(
            multiply(inverse_pivot.mT, inverse_pivot)
            - multiply(n.mT, following)
            - multiply(f.mT, at_left)
            - _across(c.mT, at_border)
        )
        return (own, at_left, at_border), (own, following, at_border)

    _, *of_columns = columns
    (_, at_left, _), (inner, following, at_border) = scan(
        backward, (own, both, cross), tuple(of_columns), reverse=True
    )
    return Bands(
        unfold(inner, own, -3, count),
        unfold(following, after_each(at_left.mT, -3), -3, count)[..., :-1, :, :],
        unfold(at_border, cross, -3, count),
        border,
    )


def _across(x: Array, y: Array) -> Array:
    """x y over the border, which may be empty."""
    return multiply(x, y) if x.shape[-1] else x @ y
