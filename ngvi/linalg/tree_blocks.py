"""Arithmetic of matrices that have the pattern of a `Tree`, at a cost linear in blocks.

Lower triangular ones, L and M below, have a nonzero block (a, k) only where a is k or
an ancestor of k. The ancestors of a block meet each other, so that

    (L M)ₐₖ = Σ_{m from k up to a} Lₐₘ Mₘₖ

needs nothing outside of the pattern, nor do L⁻¹, L Lᵀ and the Cholesky root of a matrix
that has the pattern. Lᵀ L does not have it, but what of it lies inside comes from
there. The diagonal blocks need not be triangular themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from ngvi.linalg.batching import diagonal_of, symmetric
from ngvi.linalg.blocks import total
from ngvi.linalg.tree import Blocks, Parts, Tree

Pivot = Callable[[Array], tuple[Array, Array]]
"""L and L⁻¹ of a symmetric pivot."""


def _fan(x: Array, parents: int, axis: int) -> Array:
    """The axis of blocks in two: that of their ancestors, and that of each one's."""
    axis += x.ndim
    children = x.shape[axis] // parents
    return x.reshape(*x.shape[:axis], parents, children, *x.shape[axis + 1 :])


def _flat(x: Array, axis: int) -> Array:
    """The inverse of `_fan`, the axis given as it will be."""
    axis += x.ndim - 1
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _down(above: Array, below: Array) -> Array:
    """Pₐ Mₖ: an ancestor's matrix times a block's."""
    fanned = _fan(below, above.shape[-3], -3)
    return _flat(jnp.einsum("...aij,...afjk->...afik", above, fanned), -3)


def _up(left: Array, right: Array, parents: int) -> Array:
    """Σ Lₖ Mₖᵀ over the blocks k on each ancestor."""
    fans = _fan(left, parents, -3), _fan(right, parents, -3)
    return jnp.einsum("...afik,...afjk->...aij", *fans)


def apply(tree: Tree, lower: Blocks, x: Parts) -> Parts:
    """L x."""
    terms: list[Parts] = [[] for _ in tree.levels]
    for k, chain in enumerate(tree.chains):
        for a, block in zip(chain, lower[k], strict=True):
            parents = tree.levels[a].count
            fans = _fan(block, parents, -3), _fan(x[k], parents, -2)
            term = jnp.einsum("...afij,...afj->...ai", *fans)
            terms[a].append(tree.joined(k, a, term))
    return [total(of_level) for of_level in terms]


def apply_transposed(tree: Tree, lower: Blocks, x: Parts) -> Parts:
    """Lᵀ x."""
    out: Parts = []
    for k, chain in enumerate(tree.chains):
        terms = []
        for a, block in zip(chain, lower[k], strict=True):
            fanned = _fan(block, tree.levels[a].count, -3)
            below = jnp.einsum("...afij,...ai->...afj", fanned, x[a])
            terms.append(_flat(below, -2))
        out.append(total(terms))
    return out


def products(tree: Tree, x: Parts, y: Parts, mean: bool = False) -> Blocks:
    """What of x yᵀ lies inside the lower triangle, the symmetric part of its diagonal
    blocks; with `mean`, the mean over axis 0."""
    subscripts = "n...ai,n...afj->...afij" if mean else "...ai,...afj->...afij"
    out = []
    for k, chain in enumerate(tree.chains):
        column = []
        for a in chain:
            fanned = _fan(y[k], tree.levels[a].count, -2)
            block = _flat(jnp.einsum(subscripts, x[a], fanned), -3)
            column.append(block / len(x[a]) if mean else block)
        out.append(column)
    return _tidy(out)


def multiply(tree: Tree, left: Blocks, right: Blocks) -> Blocks:
    """L M."""
    out = []
    for k, chain in enumerate(tree.chains):
        column = []
        for i in range(len(chain)):
            terms = [_down(left[chain[j]][i - j], right[k][j]) for j in range(i + 1)]
            column.append(total(terms))
        out.append(tuple(column))
    return tuple(out)


def inverse(tree: Tree, lower: Blocks, pivots: list[Array] | None = None) -> Blocks:
    """L⁻¹; `pivots` are the inverses of its diagonal blocks, where they are known."""
    if pivots is None:
        pivots = [jnp.linalg.inv(column[0]) for column in lower]
    out = []
    for k, chain in enumerate(tree.chains):
        column = [pivots[k]]
        for i in range(1, len(chain)):
            terms = [_down(lower[chain[j]][i - j], column[j]) for j in range(i)]
            column.append(-_down(pivots[chain[i]], total(terms)))
        out.append(tuple(column))
    return tuple(out)


def factor(tree: Tree, matrix: Blocks, pivot: Pivot) -> tuple[Blocks, Blocks]:
    """L with L Lᵀ = P, and L⁻¹, where `pivot` does so for the pivots."""
    rest = [list(column) for column in matrix]
    lower: list[tuple[Array, ...]] = [()] * len(rest)
    pivots: list[Array] = [jnp.zeros(())] * len(rest)
    for k in reversed(range(len(rest))):
        chain = tree.chains[k]
        root, pivots[k] = pivot(rest[k][0])
        column = [root]
        column += [jnp.einsum("...ij,...kj->...ik", b, pivots[k]) for b in rest[k][1:]]
        lower[k] = tuple(column)
        for j in range(1, len(chain)):
            parents = tree.levels[chain[j]].count
            for i in range(j, len(chain)):
                filled = _up(column[i], column[j], parents)
                filled = tree.joined(k, chain[j], filled)
                rest[chain[j]][i - j] = rest[chain[j]][i - j] - filled
    return tuple(lower), inverse(tree, tuple(lower), pivots)


def square(tree: Tree, lower: Blocks) -> Blocks:
    """L Lᵀ."""
    terms: list[list[list[Array]]] = [[[] for _ in chain] for chain in tree.chains]
    for k, chain in enumerate(tree.chains):
        for j in range(len(chain)):
            parents = tree.levels[chain[j]].count
            for i in range(j, len(chain)):
                product = _up(lower[k][i], lower[k][j], parents)
                terms[chain[j]][i - j].append(tree.joined(k, chain[j], product))
    return _tidy([[total(of_block) for of_block in column] for column in terms])


def gram(tree: Tree, lower: Blocks) -> Blocks:
    """What of Lᵀ L lies inside the pattern."""
    out = []
    for k, chain in enumerate(tree.chains):
        column = []
        for i in range(len(chain)):
            terms = [
                _down(lower[chain[i]][m - i].mT, lower[k][m])
                for m in range(i, len(chain))
            ]
            column.append(total(terms))
        out.append(column)
    return _tidy(out)


def _tidy(blocks: list[list[Array]]) -> Blocks:
    """With diagonal blocks that are symmetric to the last digit."""
    return tuple((symmetric(diagonal), *rest) for diagonal, *rest in blocks)


def diagonal(matrix: Blocks) -> Parts:
    """The diagonal of a symmetric matrix."""
    return [diagonal_of(column[0]) for column in matrix]


def scale_rows(tree: Tree, matrix: Blocks, x: Parts) -> Blocks:
    """diag(x) L."""
    return tuple(
        tuple(
            _flat(_fan(b, tree.levels[a].count, -3) * x[a][..., None, :, None], -3)
            for a, b in zip(chain, column, strict=True)
        )
        for chain, column in zip(tree.chains, matrix, strict=True)
    )


def scale_columns(matrix: Blocks, x: Parts) -> Blocks:
    """L diag(x)."""
    return tuple(
        tuple(block * part[..., None, :] for block in column)
        for column, part in zip(matrix, x, strict=True)
    )


def root_from_moments(tree: Tree, covariance: Blocks) -> tuple[Blocks, Blocks]:
    """L and L⁻¹ of the matrix P = L Lᵀ with this pattern whose inverse is `covariance`
    inside of it.

    P⁻¹ is that of a tree of regressions: each block on its ancestors, with coefficients
    W and residual covariance R. Then Lₖₖ is a root of R⁻¹, and Lₐₖ = −W Lₖₖ.
    """
    lower = []
    for k, chain in enumerate(tree.chains):
        own, *cross = covariance[k]
        if not cross:
            weights, residual = [], own
        else:
            sizes = [tree.levels[a].size for a in chain[1:]]
            among = _clique(tree, covariance, chain[1:])
            between = jnp.concatenate(cross, -2)
            fanned = _fan(between, among.shape[-3], -3)
            solved = _flat(jnp.linalg.solve(among[..., None, :, :], fanned), -3)
            residual = symmetric(own - between.mT @ solved)
            ends = [sum(sizes[:n]) for n in range(1, len(sizes))]
            weights = jnp.split(solved, ends, -2)
        root = jnp.linalg.cholesky(residual)
        inverse_root = jnp.linalg.inv(root).mT
        lower.append((inverse_root, *(-w @ inverse_root for w in weights)))
    return tuple(lower), inverse(tree, tuple(lower))


def _clique(tree: Tree, matrix: Blocks, chain: tuple[int, ...]) -> Array:
    """A block and its ancestors as one matrix for each block of the chain's first."""
    count = tree.levels[chain[0]].count
    rows = []
    for i in range(len(chain)):
        row = []
        for j in range(len(chain)):
            low, high = min(i, j), max(i, j)
            block = matrix[chain[low]][high - low]
            block = jnp.repeat(block, count // block.shape[-3], -3)
            row.append(block if i >= j else block.mT)
        rows.append(jnp.concatenate(row, -1))
    return jnp.concatenate(rows, -2)


def doubled(matrix: Blocks) -> Blocks:
    """The moments of a symmetric matrix: what is below the diagonal is above it too."""
    return tuple((own, *(2 * block for block in rest)) for own, *rest in matrix)


def halved(moments: Blocks) -> Blocks:
    """The inverse of `doubled`."""
    return tuple((own, *(block / 2 for block in rest)) for own, *rest in moments)


def dot(tree: Tree, entries: Blocks, moments: Blocks) -> Array:
    """tr(X M)."""
    return tree.total(
        [
            total((x * m).sum((-3, -2, -1)) for x, m in zip(*columns, strict=True))
            for columns in zip(entries, moments, strict=True)
        ]
    )


def squared_norm(tree: Tree, lower: Blocks) -> Array:
    """‖L‖²_F."""
    return dot(tree, lower, lower)


def twice_log(tree: Tree, lower: Blocks) -> Blocks:
    """log R = T + Tᵀ for the T with exp T = L, by T = 2 (L − I)(L + I)⁻¹, which is
    right to third order and has the pattern."""
    shifted = tuple(
        (own + jnp.eye(own.shape[-1], dtype=own.dtype), *rest) for own, *rest in lower
    )
    inverted = inverse(tree, shifted)
    return tuple(
        (
            4 * jnp.eye(own.shape[-1], dtype=own.dtype) - 4 * (own + own.mT),
            *(-4 * block for block in rest),
        )
        for own, *rest in inverted
    )
