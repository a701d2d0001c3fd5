"""Natural and mean parameters as pytrees and as vectors.

⟨x, y⟩ sums the products of corresponding entries of two pytrees, both triangles of a
symmetric matrix included. As a vector, a symmetric matrix is its lower triangle with
the entries off the diagonal times √2, so that dot products of vectors are ⟨·, ·⟩ and no
coordinate is there twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Params = Any
"""A pytree of arrays: natural or mean parameters."""


def pair(x: Params, y: Params, batch_ndim: int = 0) -> Float[Array, "*b"]:
    """⟨x, y⟩ of each member of a batch.

    Args:
        x: a pytree of arrays (*b, *e), with `batch_ndim` leading axes b.
        y: a pytree of the same structure; its leaves may have more leading axes.
    """

    def product(a: Array, b: Array) -> Array:
        event = tuple(range(batch_ndim - jnp.ndim(a), 0))
        return (a * b).sum(event) if event else a * b

    return jax.tree.reduce(jnp.add, jax.tree.map(product, x, y))


def flatten(
    params: Params, shapes: Sequence[tuple[int, ...]], general: Sequence[bool]
) -> Float[Array, "*b n"]:
    """A pytree as vectors.

    Args:
        params: leaves (*b, *shape).
        shapes: each leaf's own shape, without the batch.
        general: whether a leaf is a matrix without symmetry; else, a leaf of two axes
            is symmetric.
    """
    leaves = jax.tree.leaves(params)
    parts = []
    for leaf, shape, keep in zip(leaves, shapes, general, strict=True):
        if len(shape) == 2 and not keep:
            rows, columns = jnp.tril_indices(shape[0])
            weight = jnp.where(rows == columns, 1, 2**0.5).astype(leaf.dtype)
            parts.append(leaf[..., rows, columns] * weight)
        else:
            batch = leaf.shape[: leaf.ndim - len(shape)]
            parts.append(leaf.reshape(*batch, math.prod(shape)))
    return jnp.concatenate(parts, -1)


def unflatten(
    vector: Float[Array, "*b n"],
    shapes: Sequence[tuple[int, ...]],
    general: Sequence[bool],
) -> list[Array]:
    """The leaves of the pytree that `flatten` makes a vector of."""
    leaves, start = [], 0
    for shape, keep in zip(shapes, general, strict=True):
        symmetric = len(shape) == 2 and not keep
        size = shape[0] * (shape[0] + 1) // 2 if symmetric else math.prod(shape)
        piece = vector[..., start : start + size]
        start += size
        if symmetric:
            leaves.append(_symmetric(piece, shape))
        else:
            leaves.append(piece.reshape(*piece.shape[:-1], *shape))
    return leaves


def _symmetric(triangle: Float[Array, "*b n"], shape: tuple[int, ...]) -> Array:
    rows, columns = jnp.tril_indices(shape[0])
    weight = jnp.where(rows == columns, 0.5, 0.5**0.5).astype(triangle.dtype)
    lower = jnp.zeros((*triangle.shape[:-1], *shape), triangle.dtype)
    lower = lower.at[..., rows, columns].set(triangle * weight)
    return lower + lower.mT
