"""Arithmetic of symmetric matrices with a chain's pattern, see `ngvi.linalg.chain`.

They are block-tridiagonal with an arrow's border, and held by their blocks on and below
the diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg import batching
from ngvi.linalg.batching import symmetric
from ngvi.linalg.small import multiply_vector


class Bands(NamedTuple):
    """The parts of a symmetric matrix with a chain's pattern."""

    own: Float[Array, "*c n b b"]
    """Each block."""
    next: Float[Array, "*c m b b"]
    """Block t + 1 (rows) with block t, m = n − 1."""
    cross: Float[Array, "*c n p b"]
    """The border (rows) with each block."""
    border: Float[Array, "*c p p"]


def raised(bands: Bands, own: Array, border: Array | None) -> Bands:
    """With more in the diagonal blocks."""
    border = bands.border if border is None else bands.border + border
    return bands._replace(own=bands.own + own, border=border)


def scale_bands(bands: Bands, blocks: Array, border: Array) -> Bands:
    """diag(x) P diag(x)."""
    rows, columns = blocks[..., :, None], blocks[..., None, :]
    return Bands(
        bands.own * rows * columns,
        bands.next * rows[..., 1:, :, :] * columns[..., :-1, :, :],
        bands.cross * border[..., None, :, None] * columns,
        bands.border * border[..., :, None] * border[..., None, :],
    )


def apply_bands(bands: Bands, x: Array, border: Array) -> tuple[Array, Array]:
    """P x."""
    ahead = multiply_vector(bands.next, x[..., :-1, :])
    behind = multiply_vector(bands.next.mT, x[..., 1:, :])
    ends = [(0, 0)] * (ahead.ndim - 2)
    blocks = (
        multiply_vector(bands.own, x)
        + jnp.pad(ahead, [*ends, (1, 0), (0, 0)])
        + jnp.pad(behind, [*ends, (0, 1), (0, 0)])
        + jnp.einsum("...npb,...p->...nb", bands.cross, border)
    )
    crossed = jnp.einsum("...npb,...nb->...p", bands.cross, x)
    return blocks, crossed + batching.apply(bands.border, border)


def products(x: tuple[Array, Array], y: tuple[Array, Array]) -> Bands:
    """What of x yᵀ lies inside the pattern and on or below its diagonal."""
    (blocks, border), (others, other_border) = x, y
    return Bands(
        blocks[..., :, None] * others[..., None, :],
        blocks[..., 1:, :, None] * others[..., :-1, None, :],
        border[..., None, :, None] * others[..., None, :],
        border[..., :, None] * other_border[..., None, :],
    )


def doubled(bands: Bands) -> Bands:
    """The moments of a symmetric matrix: what is below the diagonal is above it too."""
    return bands._replace(next=2 * bands.next, cross=2 * bands.cross)


def halved(bands: Bands) -> Bands:
    """The inverse of `doubled`."""
    return bands._replace(next=bands.next / 2, cross=bands.cross / 2)


def dot(entries: Bands, moments: Bands) -> Float[Array, "*c"]:
    """tr(X M)."""
    return (
        (entries.own * moments.own).sum((-3, -2, -1))
        + (entries.next * moments.next).sum((-3, -2, -1))
        + (entries.cross * moments.cross).sum((-3, -2, -1))
        + (entries.border * moments.border).sum((-2, -1))
    )


def bands_from_inverse(covariance: Bands) -> Bands:
    """P of the pattern whose inverse is `covariance` inside of it.

    Given the border the blocks are a Markov chain: its precision is the sum of the
    inverses over pairs of neighbours, less those over what two pairs share.
    """
    own, following, cross, border = covariance
    weights = jnp.linalg.solve(border[..., None, :, :], cross)
    given = own - symmetric(cross.mT @ weights)
    between = following - cross[..., 1:, :, :].mT @ weights[..., :-1, :, :]
    b = own.shape[-1]
    first, second = given[..., :-1, :, :], given[..., 1:, :, :]
    rows = [[first, between.mT], [between, second]]
    pairs = jnp.concatenate([jnp.concatenate(row, -1) for row in rows], -2)
    pairs = symmetric(jnp.linalg.inv(pairs))
    shared = jnp.linalg.inv(given)
    inner = shared.at[..., :1, :, :].set(0).at[..., -1:, :, :].set(0)
    ends = [(0, 0)] * (own.ndim - 3)
    before = jnp.pad(pairs[..., :b, :b], [*ends, (0, 1), (0, 0), (0, 0)])
    behind = jnp.pad(pairs[..., b:, b:], [*ends, (1, 0), (0, 0), (0, 0)])
    alone = shared if own.shape[-3] == 1 else 0
    chain = Bands(
        symmetric(before + behind - inner + alone),
        pairs[..., b:, :b],
        jnp.zeros_like(cross),
        jnp.zeros_like(border),
    )
    # A regression of the blocks on the border.
    columns = jnp.moveaxis(weights, -2, 0)
    nothing = jnp.zeros(border.shape[:-1], border.dtype)
    pulled = jnp.moveaxis(apply_bands(chain, columns, nothing)[0], 0, -2)
    shift = symmetric(jnp.einsum("...npb,...nqb->...pq", pulled, weights))
    left = symmetric(jnp.linalg.inv(border)) + shift
    return chain._replace(cross=-pulled, border=left)
