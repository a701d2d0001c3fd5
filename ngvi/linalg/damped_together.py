"""Many Kronecker products, damped by one program for factors of about one size.

A deep net has two factors a layer. Those of about one size are padded to the same, by
units on the diagonal, and decomposed in a loop: to compile a triangular solve for each
would take as long as all else in a step of K-FAC.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.linalg.batching import diagonal_matrix, diagonal_of
from ngvi.linalg.dense import Dense
from ngvi.linalg.kronecker import Kronecker
from ngvi.linalg.kronecker_factors import KroneckerFactors, shared_damping

_SMALL = 64
"""Rows, up to which no padding costs anything."""


def damped_together(
    products: Sequence[KroneckerFactors], damping: float | Float[Array, ""]
) -> list[Kronecker]:
    """`KroneckerFactors.damp_factored` of each, of matrices without leading axes."""
    if not products:
        return []
    matrices = [factor for p in products for factor in (p.left, p.right)]
    sizes = [len(matrix) for matrix in matrices]
    groups = [_padded(matrices, group) for group in _groups(sizes)]
    # As few operations as there can be, on all at once.
    order = np.argsort(np.concatenate([group for group, _ in groups]))
    traces = jnp.concatenate([diagonal_of(whole).sum(-1) for _, whole in groups])
    means = (traces[order] / np.array(sizes, traces.dtype)).reshape(-1, 2)
    added = jnp.stack(shared_damping(means[:, 0], means[:, 1], damping), 1).reshape(-1)
    found: dict[int, Dense] = {}
    for group, whole in groups:
        rows = np.arange(whole.shape[-1])
        inside = rows < np.array(sizes)[group, None]
        diagonal = jnp.where(inside, added[group, None], 1)
        dense = jax.lax.map(Dense.from_dense, whole + diagonal_matrix(diagonal))
        for k, i in enumerate(group):
            d = sizes[i]
            roots = dense.root[k, :d, :d], dense.inverse_root[k, :d, :d]
            found[i] = Dense(*roots)
    pairs = range(len(products))
    return [Kronecker(found[2 * i], found[2 * i + 1]) for i in pairs]


def _padded(
    matrices: Sequence[Array], group: list[int]
) -> tuple[np.ndarray, Float[Array, "k s s"]]:
    """A group of matrices with zeros to the size of its first."""
    size = len(matrices[group[0]])
    padded = [jnp.pad(matrices[i], (0, size - len(matrices[i]))) for i in group]
    return np.array(group), jnp.stack(padded)


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
