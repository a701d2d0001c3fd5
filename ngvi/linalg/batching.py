"""Products and layouts over leading axes, which broadcast as in NumPy.

Without leading axes on the matrix each of these is the plain operation: `einsum` leaves
the matrix as it is and contracts it with all vectors at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def times(x: Float[Array, "*b i"], matrix: Float[Array, "*c i j"]) -> Array:
    """xᵀ M for every vector x, shape (*broadcast(b, c), j)."""
    return jnp.einsum("...i,...ij->...j", x, matrix)


def apply(matrix: Float[Array, "*c i j"], x: Float[Array, "*b j"]) -> Array:
    """M x for every vector x, shape (*broadcast(b, c), i)."""
    return jnp.einsum("...ij,...j->...i", matrix, x)


def dense_of(
    operator: Callable[[Array], Array], dim: int, leading: int, dtype: Any
) -> Array:
    """The matrix of an operator on vectors, which may have so many leading axes."""
    columns = jnp.eye(dim, dtype=dtype).reshape(dim, *[1] * leading, dim)
    return jnp.moveaxis(operator(columns), 0, -1)


def dot(x: Float[Array, "*b d"], y: Float[Array, "*c d"]) -> Array:
    """⟨x, y⟩ with the last axis kept, shape (*broadcast(b, c), 1)."""
    return (x * y).sum(-1, keepdims=True)


def symmetric(matrix: Float[Array, "*c d d"]) -> Float[Array, "*c d d"]:
    """The symmetric part."""
    return (matrix + matrix.mT) / 2


def diagonal_of(matrix: Float[Array, "*c d d"]) -> Float[Array, "*c d"]:
    """The diagonal."""
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def diagonal_matrix(diagonal: Float[Array, "*c d"]) -> Float[Array, "*c d d"]:
    """The matrix with this diagonal and zeros elsewhere."""
    identity = jnp.eye(diagonal.shape[-1], dtype=bool)
    return jnp.where(identity, diagonal[..., None, :], 0)


def kronecker_vectors(
    left: Float[Array, "*c l"], right: Float[Array, "*c r"]
) -> Float[Array, "*c d"]:
    """x ⊗ y: all products, those of the first entry of x before the others."""
    product = left[..., :, None] * right[..., None, :]
    return product.reshape(*product.shape[:-2], -1)


def kronecker_matrices(
    left: Float[Array, "*c l k"], right: Float[Array, "*c r s"]
) -> Float[Array, "*c d e"]:
    """L ⊗ R, `jnp.kron` over leading axes."""
    product = left[..., :, None, :, None] * right[..., None, :, None, :]
    rows = left.shape[-2] * right.shape[-2]
    return product.reshape(*product.shape[:-4], rows, -1)


def over_leading_axes(function: Callable[[Any], Any], count: int) -> Callable[..., Any]:
    """The function of one, for arguments with so many leading axes."""
    for _ in range(count):
        function = jax.vmap(function)
    return function


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = accumulate(sizes)
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def split(x: Float[Array, "*b d"], sizes: Sequence[int]) -> list[Array]:
    """The vector cut into pieces of these lengths."""
    return [x[..., rows] for rows in _slices(sizes)]


def diagonal_blocks(
    matrix: Float[Array, "*c d d"], sizes: Sequence[int]
) -> list[Array]:
    """The blocks of these sizes on the diagonal."""
    return [matrix[..., rows, rows] for rows in _slices(sizes)]


def join(parts: Sequence[Float[Array, "*b _"]]) -> Array:
    """The vectors one after another; their leading axes broadcast."""
    leading = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return jnp.concatenate(
        [jnp.broadcast_to(part, (*leading, part.shape[-1])) for part in parts], -1
    )


def block_diagonal(blocks: Sequence[Float[Array, "*c _ _"]]) -> Array:
    """The matrix with these blocks on the diagonal; their leading axes broadcast."""
    leading = jnp.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    dim = sum(block.shape[-1] for block in blocks)
    rows, before = [], 0
    for block in blocks:
        size = block.shape[-1]
        whole = jnp.broadcast_to(block, (*leading, size, size))
        margins = (before, dim - before - size)
        rows.append(jnp.pad(whole, [(0, 0)] * (len(leading) + 1) + [margins]))
        before += size
    return jnp.concatenate(rows, -2)
