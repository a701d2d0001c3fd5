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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import diagonal_matrix, diagonal_of, symmetric
from ngvi.linalg.chain import Bands
from ngvi.linalg.small import inverse as small_inverse
from ngvi.linalg.small import multiply, roots

_LONGEST = 512
"""Blocks in a segment."""

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


def times(matrix: Float[Array, "*c m n"], x: Float[Array, "*b n"]) -> Array:
    """M x for small matrices, whose leading axes broadcast."""
    return multiply(matrix, x[..., None])[..., 0]


def _across(x: Array, y: Array) -> Array:
    """x y over the border, which may be empty."""
    return multiply(x, y) if x.shape[-1] else x @ y


def cholesky(matrix: Array) -> tuple[Array, Array, None]:
    """The plain pivot; NaN where the matrix is not positive definite."""
    return *roots(matrix), None


# -- segments --------------------------------------------------------------------------


def _shape(count: int) -> tuple[int, int]:
    """Segments, and their length with the separator. One segment has all blocks and
    stands for the end: its separator is none of them."""
    if count < _LONGEST:
        return 1, count + 1
    segments = -(-count // _LONGEST)
    return segments, -(-count // segments)


def _fold(x: Array, axis: int) -> Array:
    """The axis of blocks in two, padded by zeros."""
    axis += x.ndim
    segments, length = _shape(x.shape[axis])
    missing = segments * length - x.shape[axis]
    padded = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
    return padded.reshape(*x.shape[:axis], segments, length, *x.shape[axis + 1 :])


def _unfold(inner: Array, separators: Array, axis: int, count: int) -> Array:
    """The inverse of `_fold`, from what is inside of segments and the separators."""
    axis += inner.ndim
    shape = (*inner.shape[:axis], 1, *inner.shape[axis + 1 :])
    ends = jnp.broadcast_to(jnp.expand_dims(separators, axis - inner.ndim), shape)
    both = jnp.concatenate([inner, ends], axis)
    blocks = both.shape[axis - 1] * both.shape[axis]
    flat = both.reshape(*both.shape[: axis - 1], blocks, *both.shape[axis + 1 :])
    return jax.lax.slice_in_dim(flat, 0, count, axis=axis - 1)


def _inside(x: Array, axis: int) -> Array:
    return jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)


def _last(x: Array, axis: int) -> Array:
    return jax.lax.index_in_dim(x, x.shape[axis] - 1, axis, keepdims=False)


def _before(x: Array, axis: int) -> Array:
    """Of each segment, what is given for the one before; zero for the first."""
    shifted = jnp.roll(x, 1, axis)
    first = jnp.arange(x.shape[axis]) == 0
    return jnp.where(first.reshape(-1, *[1] * (-axis - 1)), 0, shifted)


def _after(x: Array, axis: int) -> Array:
    """Of each segment, what is given for the one after; zero for the last."""
    return jnp.flip(_before(jnp.flip(x, axis), axis), axis)


def _scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    axis: int = -3,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` along the blocks of all segments at once."""
    first = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), xs)
    carry, ys = jax.lax.scan(body, carry, first, reverse=reverse)
    return carry, jax.tree.map(lambda y: jnp.moveaxis(y, 0, axis), ys)


# -- the factor ------------------------------------------------------------------------


def factor(bands: Bands, pivot: Pivot = cholesky) -> tuple[Root, Any, Any]:
    """B, and what had to be added to the blocks and to the border.

    Args:
        bands: P.
        pivot: factors the pivots.
    """
    own, following, cross, border = bands
    count = own.shape[-3]
    segments, length = _shape(count)
    eye = jnp.eye(own.shape[-1], dtype=own.dtype)
    own, cross = _fold(own, -3), _fold(cross, -3)
    # What fills up the last segment meets nothing.
    filled = jnp.arange(segments * length).reshape(segments, length, 1, 1) < count
    own = jnp.where(filled, own, eye)
    none = jnp.zeros_like(following, shape=(*own.shape[:-4], 1, *own.shape[-2:]))
    following = _fold(jnp.concatenate([following, none], -3), -3)
    left = _before(_last(following, -3), -3).mT

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
    after = _inside(following, -3), own[..., 1:, :, :], cross[..., 1:, :, :]
    (own, left, cross), (columns, added) = _scan(eliminate, first, after)

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
            own - _after(symmetric(squared), -3),
            left[..., 1:, :, :].mT,
            cross - _after(crossed, -3),
            border,
        )
        coarse = factor(left_over, pivot)
    root, at_separators, at_border = coarse
    if added is not None:
        added = _unfold(added, at_separators, -3, count)
    return root._replace(levels=(columns, *root.levels)), added, at_border


def logdet(root: Root) -> Float[Array, "*c"]:
    """log det P."""
    total = _log_diagonal(root.border).sum(-1)
    for columns in root.levels:
        total = total + _log_diagonal(columns.pivot).sum((-3, -2, -1))
    return 2 * total


def _log_diagonal(lower: Array) -> Array:
    return jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1))


# -- vectors: blocks (*b, n, b) and border (*b, p) -------------------------------------


def apply(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """B x."""
    out = multiply_border(root.border, border)
    return _apply(root.levels, x, out)


def multiply_border(matrix: Array, x: Array) -> Array:
    """M x of the border."""
    return jnp.einsum("...pq,...q->...p", matrix, x)


def _apply(levels: tuple[Columns, ...], x: Array, border: Array) -> tuple[Array, Array]:
    if not levels:
        return x, border
    columns, *coarser = levels
    count, folded = x.shape[-2], _fold(x, -2)
    inner, ends = _inside(folded, -2), _last(folded, -2)
    border = border + jnp.einsum("...skpb,...skb->...p", columns.border, inner)
    ends, border = _apply(tuple(coarser), ends, border)
    down = times(columns.next, inner)
    ends = ends + _last(down, -2) + _after(times(columns.left, inner).sum(-2), -2)
    shifted = jnp.pad(_inside(down, -2), [(0, 0)] * (down.ndim - 2) + [(1, 0), (0, 0)])
    inner = times(columns.pivot, inner) + shifted
    return _unfold(inner, ends, -2, count), border


def apply_transposed(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """Bᵀ x."""
    out = multiply_border(root.border.mT, border)
    return _apply_transposed(root.levels, x, border), out


def _apply_transposed(levels: tuple[Columns, ...], x: Array, border: Array) -> Array:
    if not levels:
        return x
    columns, *coarser = levels
    count, folded = x.shape[-2], _fold(x, -2)
    ends = _last(folded, -2)
    inner = (
        times(columns.pivot.mT, _inside(folded, -2))
        + times(columns.next.mT, folded[..., 1:, :])
        + times(columns.left.mT, _before(ends, -2)[..., None, :])
        + jnp.einsum("...skpb,...p->...skb", columns.border, border)
    )
    ends = _apply_transposed(tuple(coarser), ends, border)
    return _unfold(inner, ends, -2, count)


def solve(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """B⁻¹ x."""
    out, border = _solve(root.levels, x, border)
    return out, multiply_border(root.inverse_border, border)


def _solve(levels: tuple[Columns, ...], x: Array, border: Array) -> tuple[Array, Array]:
    if not levels:
        return x, border
    columns, *coarser = levels
    count, folded = x.shape[-2], _fold(x, -2)
    start = times(columns.inverse_pivot, _inside(folded, -2))

    def forward(y: Array, at: tuple[Array, ...]) -> tuple[Array, Array]:
        start, before, inverse_pivot = at
        y = start - times(inverse_pivot, times(before, y))
        return y, y

    shifted = jnp.roll(columns.next, 1, -3)
    first = jnp.zeros_like(start[..., 0, :])
    of_columns = shifted, columns.inverse_pivot
    _, inner = _scan_blocks(forward, first, (start,), of_columns)
    ends = _last(folded, -2) - times(_last(columns.next, -3), _last(inner, -2))
    ends = ends - _after(times(columns.left, inner).sum(-2), -2)
    border = border - jnp.einsum("...skpb,...skb->...p", columns.border, inner)
    ends, border = _solve(tuple(coarser), ends, border)
    return _unfold(inner, ends, -2, count), border


def solve_transposed(root: Root, x: Array, border: Array) -> tuple[Array, Array]:
    """B⁻ᵀ x."""
    border = multiply_border(root.inverse_border.mT, border)
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
    count, folded = x.shape[-2], _fold(x, -2)
    ends = _solve_transposed(tuple(coarser), _last(folded, -2), border, match)
    left = _before(ends, -2)
    known = times(columns.left.mT, left[..., None, :])
    known = known + jnp.einsum("...skpb,...p->...skb", columns.border, border)
    inside = jnp.broadcast_to(_inside(folded, -2), known.shape)

    def backward(y: Array, at: tuple[Array, ...]) -> tuple[Array, Array]:
        x, known, following, inverse_pivot = at
        if match is not None:
            x = match(x, y, left)
        y = times(inverse_pivot.mT, x - known - times(following.mT, y))
        return y, y

    last = jnp.broadcast_to(ends, (*known.shape[:-2], ends.shape[-1]))
    of_columns = columns.next, columns.inverse_pivot
    _, inner = _scan_blocks(backward, last, (inside, known), of_columns, reverse=True)
    return _unfold(inner, ends, -2, count)


def _scan_blocks(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Array,
    vectors: tuple[Array, ...],
    matrices: tuple[Array, ...],
    reverse: bool = False,
) -> tuple[Array, Array]:
    """`_scan` along vectors and the matrices that stand at the same blocks."""
    at = (
        *(jnp.moveaxis(x, -2, 0) for x in vectors),
        *(jnp.moveaxis(m, -3, 0) for m in matrices),
    )
    carry, ys = jax.lax.scan(body, carry, at, reverse=reverse)
    return carry, jnp.moveaxis(ys, 0, -2)


# -- draws -----------------------------------------------------------------------------


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
    border = multiply_border(root.inverse_border.mT, border)
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


# -- the inverse -----------------------------------------------------------------------


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
    left, left_cross = _before(own, -3), _before(cross, -3)
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
    (_, at_left, _), (inner, following, at_border) = _scan(
        backward, (own, both, cross), tuple(of_columns), reverse=True
    )
    return Bands(
        _unfold(inner, own, -3, count),
        _unfold(following, _after(at_left.mT, -3), -3, count)[..., :-1, :, :],
        _unfold(at_border, cross, -3, count),
        border,
    )
