"""Products of vectors with the B of `chain_root`, with Bᵀ, and with their inverses.

Vectors are in two parts, the blocks (*b, n, b) and the border (*b, p). What is inside
of segments is worked on in all of them at once, and the separators by the next level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg import batching
from ngvi.linalg.batching import diagonal_matrix, diagonal_of, symmetric
from ngvi.linalg.chain_root import Columns, Root
from ngvi.linalg.chain_segments import (
    after_each,
    before_each,
    fold,
    inside_of,
    last_of,
    unfold,
)
from ngvi.linalg.small import inverse as small_inverse
from ngvi.linalg.small import multiply, multiply_vector, roots


def apply(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """B x."""
    return _apply(root.levels, x, batching.apply(root.border, border))


def _apply(levels: tuple[Columns, ...], x: Array, border: Array) -> tuple[Array, Array]:
    if not levels:
        return x, border
    columns, *coarser = levels
    count, folded = x.shape[-2], fold(x, -2)
    inner, ends = inside_of(folded, -2), last_of(folded, -2)
    border = border + jnp.einsum("...skpb,...skb->...p", columns.border, inner)
    ends, border = _apply(tuple(coarser), ends, border)
    down = multiply_vector(columns.next, inner)
    leftward = multiply_vector(columns.left, inner).sum(-2)
    ends = ends + last_of(down, -2) + after_each(leftward, -2)
    one_on = [(0, 0)] * (down.ndim - 2) + [(1, 0), (0, 0)]
    shifted = jnp.pad(inside_of(down, -2), one_on)
    inner = multiply_vector(columns.pivot, inner) + shifted
    return unfold(inner, ends, -2, count), border


def apply_transposed(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """Bᵀ x."""
    out = batching.apply(root.border.mT, border)
    return _apply_transposed(root.levels, x, border), out


def _apply_transposed(levels: tuple[Columns, ...], x: Array, border: Array) -> Array:
    if not levels:
        return x
    columns, *coarser = levels
    count, folded = x.shape[-2], fold(x, -2)
    ends = last_of(folded, -2)
    inner = (
        multiply_vector(columns.pivot.mT, inside_of(folded, -2))
        + multiply_vector(columns.next.mT, folded[..., 1:, :])
        + multiply_vector(columns.left.mT, before_each(ends, -2)[..., None, :])
        + jnp.einsum("...skpb,...p->...skb", columns.border, border)
    )
    ends = _apply_transposed(tuple(coarser), ends, border)
    return unfold(inner, ends, -2, count)


def solve(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """B⁻¹ x."""
    out, border = _solve(root.levels, x, border)
    return out, batching.apply(root.inverse_border, border)


def _solve(levels: tuple[Columns, ...], x: Array, border: Array) -> tuple[Array, Array]:
    if not levels:
        return x, border
    columns, *coarser = levels
    count, folded = x.shape[-2], fold(x, -2)
    start = multiply_vector(columns.inverse_pivot, inside_of(folded, -2))

    def forward(y: Array, at: tuple[Array, ...]) -> tuple[Array, Array]:
        start, before, inverse_pivot = at
        y = start - multiply_vector(inverse_pivot, multiply_vector(before, y))
        return y, y

    shifted = jnp.roll(columns.next, 1, -3)
    first = jnp.zeros_like(start[..., 0, :])
    of_columns = shifted, columns.inverse_pivot
    _, inner = _scan_vectors(forward, first, (start,), of_columns)
    down = multiply_vector(last_of(columns.next, -3), last_of(inner, -2))
    leftward = multiply_vector(columns.left, inner).sum(-2)
    ends = last_of(folded, -2) - down - after_each(leftward, -2)
    border = border - jnp.einsum("...skpb,...skb->...p", columns.border, inner)
    ends, border = _solve(tuple(coarser), ends, border)
    return unfold(inner, ends, -2, count), border


def solve_transposed(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """B⁻ᵀ x."""
    border = batching.apply(root.inverse_border.mT, border)
    return _solve_transposed(root.levels, x, border), border


def _solve_transposed(
    levels: tuple[Columns, ...],
    x: Array,
    border: Array,
    match: Callable[[Array, Array, Array], Array] | None = None,
) -> Array:
    if not levels:
        return x
    columns, *coarser = levels
    count, folded = x.shape[-2], fold(x, -2)
    ends = _solve_transposed(tuple(coarser), last_of(folded, -2), border, match)
    left = before_each(ends, -2)
    known = multiply_vector(columns.left.mT, left[..., None, :])
    known = known + jnp.einsum("...skpb,...p->...skb", columns.border, border)
    inside = jnp.broadcast_to(inside_of(folded, -2), known.shape)

    def backward(y: Array, at: tuple[Array, ...]) -> tuple[Array, Array]:
        x, known, following, inverse_pivot = at
        if match is not None:
            x = match(x, y, left)
        rest = x - known - multiply_vector(following.mT, y)
        y = multiply_vector(inverse_pivot.mT, rest)
        return y, y

    last = jnp.broadcast_to(ends, (*known.shape[:-2], ends.shape[-1]))
    of_columns = columns.next, columns.inverse_pivot
    _, inner = _scan_vectors(backward, last, (inside, known), of_columns, reverse=True)
    return unfold(inner, ends, -2, count)


def _scan_vectors(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Array,
    vectors: tuple[Array, ...],
    matrices: tuple[Array, ...],
    reverse: bool = False,
) -> tuple[Array, Array]:
    """`scan` along vectors and the matrices that stand at the same blocks."""
    at = (
        *(jnp.moveaxis(x, -2, 0) for x in vectors),
        *(jnp.moveaxis(m, -3, 0) for m in matrices),
    )
    carry, ys = jax.lax.scan(body, carry, at, reverse=reverse)
    return carry, jnp.moveaxis(ys, 0, -2)


def solve_transposed_matched(
    root: Root, x: Float[Array, "n m b"], border: Float[Array, "n p"]
) -> tuple[Array, Array]:
    """B⁻ᵀ x̃, where x̃ is x, block by block made orthogonal (over the draws) to what the
    block meets of the solution so far, and of unit covariance. The solution then has
    the covariance P⁻¹ inside of the pattern: that of a block with what it meets follows
    from theirs, and what it meets all meets each other."""
    count = len(x)
    if border.shape[-1]:
        inverse_root = roots(symmetric(border.T @ border / count))[1]
        border = border @ inverse_root.T
        x = x - jnp.einsum(
            "np,pmb->nmb", border, jnp.tensordot(border, x, (0, 0)) / count
        )
    # What the border adds is linear in its draws, to which x is orthogonal.
    alone = _solve_transposed(root.levels, x, jnp.zeros_like(border), _matched)
    border = batching.apply(root.inverse_border.mT, border)
    return alone + _solve_transposed(root.levels, jnp.zeros_like(x), border), border


def _matched(x: Array, following: Array, left: Array) -> Array:
    """Blocks over the draws, orthogonal to two others and of unit covariance."""
    draws = [jnp.moveaxis(part, 0, -2) for part in (x, following, left)]
    known = jnp.concatenate(draws[1:], -1)
    weights = multiply(small_inverse(_square(known)), known.mT @ draws[0] / len(x))
    rest = draws[0] - multiply(known, weights)
    return jnp.moveaxis(multiply(rest, roots(_square(rest))[1].mT), -2, 0)


def _square(x: Array) -> Array:
    """Second moments over the axis before the last; 1 for what is not there at all, as
    beyond the ends of the chain."""
    square = symmetric(x.mT @ x) / x.shape[-2]
    empty = diagonal_of(square) == 0
    return square + diagonal_matrix(empty.astype(x.dtype))
