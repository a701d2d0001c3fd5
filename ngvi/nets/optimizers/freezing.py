"""A curvature of which some parameters do not move: their Jacobian is zero.

With K = diag(1 where weights move, else 0), K F K + λ restricted to what moves is the
block of F + λ that belongs to it, so that a solve with a gradient that is zero
elsewhere is the natural gradient of the parameters that move.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ngvi.linalg import (
    KroneckerEigen,
    KroneckerFactors,
    LowRank,
    MatrixFree,
    Semidefinite,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
)
from ngvi.linalg.batching import split


def restricted(site: Any, kept: Float[Array, "p"] | None) -> Any:
    """K F K of a matrix, or of a pytree of them.

    Args:
        site: what is measured.
        kept: the diagonal of K, one number for all of a leaf; None for ones.
    """
    if kept is None:
        return site

    def each(matrix: Any) -> Any:
        return _restricted(matrix, kept)

    return jax.tree.map(each, site, is_leaf=lambda leaf: isinstance(leaf, Semidefinite))


def _restricted(matrix: Any, kept: Float[Array, "p"]) -> Any:
    match matrix:
        case SemidefiniteBlocks():
            pairs = zip(matrix.blocks, split(kept, matrix.sizes), strict=True)
            return SemidefiniteBlocks(tuple(_restricted(*pair) for pair in pairs))
        case KroneckerFactors():
            # A layer's kernel and bias are rows of its matrix, each moved or not.
            rows = kept.reshape(matrix.left.shape[-1], -1)[:, 0]
            return KroneckerFactors(_both(matrix.left, rows), matrix.right)
        case KroneckerEigen():
            # Its eigenvectors are those of restricted factors: nothing mixes.
            return matrix
        case SemidefiniteDense():
            return SemidefiniteDense(_both(matrix.matrix, kept))
        case SemidefiniteDiagonal():
            return SemidefiniteDiagonal(matrix.values * kept)
        case LowRank():
            vectors = matrix.vectors * kept[:, None]
            return LowRank(vectors, matrix.values, matrix.diagonal_values * kept)
        case MatrixFree():
            parts = matrix.parts(kept)
            product = Partial(_between, parts, matrix.product)
            return MatrixFree(
                product, matrix.size, dtype=matrix.dtype, sizes=matrix.sizes
            )
    raise TypeError(f"{type(matrix).__name__} cannot be restricted")


def _both(matrix: Float[Array, "d d"], kept: Float[Array, "d"]) -> Array:
    return jnp.outer(kept, kept) * matrix


def _between(kept: list[Array], product: Any, parts: list[Array]) -> list[Array]:
    inside = [k * part for k, part in zip(kept, parts, strict=True)]
    return [k * part for k, part in zip(kept, product(inside), strict=True)]
