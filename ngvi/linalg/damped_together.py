"""Many Kronecker products, damped by one program for factors of about one size.

A deep net has two factors a layer. Those of about one size are padded to the same, by
units on the diagonal, and decomposed in a loop: to compile a triangular solve for each
would take as long as all else in a step of K-FAC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.dense import Dense
from ngvi.linalg.kronecker import Kronecker
from ngvi.linalg.kronecker_factors import KroneckerFactors

_SMALL = 64
"""Rows, up to which no padding costs anything."""


def damped_together(
    products: Sequence[KroneckerFactors], damping: float | Float[Array, ""]
) -> list[Kronecker]:
    """`KroneckerFactors.damp_factored` of each, of matrices without leading axes."""
    matrices: list[Array] = []
    for product in products:
        added = product.shared_damping(damping)
        for factor, more in zip((product.left, product.right), added, strict=True):
            matrices.append(factor + more * jnp.eye(len(factor), dtype=factor.dtype))
    found: dict[int, Dense] = {}
    for group in _groups([len(matrix) for matrix in matrices]):
        size = len(matrices[group[0]])
        padded = jnp.stack([_padded(matrices[i], size) for i in group])
        dense = jax.lax.map(Dense.from_dense, padded)
        for k, i in enumerate(group):
            d = len(matrices[i])
            roots = dense.root[k, :d, :d], dense.inverse_root[k, :d, :d]
            found[i] = Dense(*roots)
    pairs = range(len(products))
    return [Kronecker(found[2 * i], found[2 * i + 1]) for i in pairs]


def _padded(matrix: Float[Array, "d d"], size: int) -> Float[Array, "s s"]:
    if len(matrix) == size:
        return matrix
    whole: Any = jnp.eye(size, dtype=matrix.dtype)
    return whole.at[: len(matrix), : len(matrix)].set(matrix)


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Which go together, the largest first: none twice as large as another."""
    groups: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        largest = sizes[groups[-1][0]] if groups else 0
        if groups and (largest <= 2 * sizes[i] or largest <= _SMALL):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
