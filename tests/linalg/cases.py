"""The structures under test: a new one is one row of a table.

`LINEAR` and `OPERATORS` are positive definite, `SEMIDEFINITE` become so by damping. One
whose `from_dense` keeps the nearest matrix needs no row: `discover` finds it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies as st
from jax.tree_util import Partial

import ngvi.linalg
from ngvi.linalg import (
    BlockArrow,
    BlockDiagonal,
    BlockOperators,
    Chain,
    ChainArrow,
    Dense,
    Diagonal,
    DiagonalMinusRankOne,
    Isotropic,
    Kronecker,
    KroneckerEigen,
    KroneckerFactors,
    Level,
    LinearStructure,
    LowRank,
    LowRankPlusDiagonal,
    MatrixFree,
    Piece,
    PositiveDefinite,
    Reordered,
    Semidefinite,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
    SpikedCovariance,
    Tree,
)
from ngvi.mirror import retractions
from tests.programs import compiled

Member = tuple[Any, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A structure: random members in generic frames, and the matrices they are."""

    name: str
    member: Callable[[np.random.Generator, int], Member]
    stacks: bool = True
    """Whether it may have leading axes."""
    root_slopes: bool = True
    """Whether its roots have derivatives."""


@dataclass(frozen=True)
class LinearCase:
    """A linear structure, and what it keeps of a symmetric matrix, as an array."""

    name: str
    keep: Callable[[np.ndarray], np.ndarray]
    build: Callable[[np.ndarray, np.random.Generator], LinearStructure]
    """From a dense matrix of the structure, in a frame as generic as it has."""
    stacks: bool = True
    root_slopes: bool = True
    levels: Callable[[int], np.ndarray] | None = None
    """Of a structure with roots that are triangular by blocks, the level of each
    coordinate, ancestors first; a step is then no function of the spectrum."""
    whitened: bool = True
    """Whether tangents are in the frame; else they are changes of the matrix, and a
    step adds them."""

    def member(self, rng: np.random.Generator, dim: int) -> Member:
        matrix = positive(self, rng, dim)
        return self.build(matrix, rng), matrix

    def seen(self, matrix: np.ndarray, p: LinearStructure) -> np.ndarray:
        """What a tangent keeps of a symmetric matrix in the frame."""
        if self.whitened:
            return self.keep(matrix)
        b, a = roots(p)
        return a.T @ self.keep(b @ matrix @ b.T) @ a

    def half(self, matrix: np.ndarray, p: LinearStructure) -> np.ndarray:
        """The symmetric matrix that a tangent makes of any: its symmetric part, or of
        what lies between levels the lower half."""
        symmetric = (matrix + matrix.T) / 2
        if self.levels is None:
            return self.seen(symmetric, p)
        rows, columns = np.ix_(*[self.levels(len(matrix))] * 2)
        lower = np.where(rows < columns, matrix, matrix.T)
        return self.keep(np.where(rows == columns, symmetric, lower))


# -- linear structures ----------------------------------------------------------------


def _rotated(matrix: np.ndarray, rng: np.random.Generator) -> Dense:
    """A dense matrix in a frame that is neither triangular nor symmetric."""
    rotation = np.linalg.qr(rng.standard_normal(matrix.shape))[0]
    root = np.linalg.cholesky(matrix) @ rotation
    inverse_root = np.linalg.inv(root).T
    return Dense(
        jnp.asarray(root, matrix.dtype), jnp.asarray(inverse_root, matrix.dtype)
    )


def _diagonal(matrix: np.ndarray, rng: np.random.Generator) -> Diagonal:
    return Diagonal(jnp.sqrt(jnp.diagonal(jnp.asarray(matrix))))


def _isotropic(matrix: np.ndarray, rng: np.random.Generator) -> Isotropic:
    return Isotropic(jnp.sqrt(jnp.asarray(matrix)[0, 0]), len(matrix))


def _mean_of_the_diagonal(matrix: np.ndarray) -> np.ndarray:
    return np.diag(matrix).mean() * np.eye(len(matrix))


DENSE = LinearCase("dense", lambda m: (m + m.T) / 2, _rotated)
DIAGONAL = LinearCase("diagonal", lambda m: np.diag(np.diag(m)), _diagonal)
ISOTROPIC = LinearCase("isotropic", _mean_of_the_diagonal, _isotropic)


def _blocks(matrix: np.ndarray) -> list[tuple[LinearCase, slice]]:
    """Two rows dense, two isotropic, the rest diagonal; empty blocks left out."""
    rows = [slice(0, 2), slice(2, 4), slice(4, None)]
    kinds = [DENSE, ISOTROPIC, DIAGONAL]
    here = range(len(matrix))
    return [(k, r) for k, r in zip(kinds, rows, strict=True) if len(here[r])]


def _keep_blocks(matrix: np.ndarray) -> np.ndarray:
    kept = np.zeros_like(matrix)
    for case, rows in _blocks(matrix):
        kept[rows, rows] = case.keep(matrix[rows, rows])
    return kept


def _block_diagonal(matrix: np.ndarray, rng: np.random.Generator) -> BlockDiagonal:
    parts = _blocks(matrix)
    return BlockDiagonal(tuple(c.build(matrix[r, r], rng) for c, r in parts))


def tree_of(dim: int) -> Tree:
    """A border, a block on it, and all others on that; or a border alone."""
    levels = [Level((Piece(dim - 1, (1,)),))]
    if dim > 1:
        levels.append(Level((Piece(0, (1,), (0,)),), 0))
    if dim > 2:
        levels.append(Level((Piece(1, (dim - 2,), (0,)),), 1))
    return Tree(tuple(levels))


def level_of(tree: Tree) -> np.ndarray:
    """The level of each coordinate."""
    counts = [(level.count, level.size) for level in tree.levels]
    return np.asarray(tree.paste([jnp.full(c, k) for k, c in enumerate(counts)]))


def as_array(tree: Tree, blocks: Any) -> np.ndarray:
    """The symmetric matrix with these entries, block by block."""
    counts = [level.count for level in tree.levels]
    places = tree.cut(jnp.arange(tree.dim))
    matrix = np.zeros((tree.dim, tree.dim))
    for k, chain in enumerate(tree.chains):
        for a, of_level in zip(chain, blocks[k], strict=True):
            for i, block in enumerate(np.asarray(of_level)):
                cells = np.ix_(places[a][i * counts[a] // counts[k]], places[k][i])
                matrix[cells] = block
                matrix.T[cells] = block
    return matrix


def pattern(tree: Tree) -> np.ndarray:
    """Which coordinates meet."""
    blank = BlockArrow.identity(tree, jnp.dtype(float))
    return as_array(tree, jax.tree.map(jnp.ones_like, blank.root)) != 0


def turned(p: BlockArrow, rng: np.random.Generator) -> BlockArrow:
    """The same matrix, every block in a frame of its own, so that its root is not
    triangular within."""
    dtype = p.root[0][0].dtype
    turns = [jnp.asarray(_orthonormal(rng, c[0].shape[-1]), dtype) for c in p.root]
    root, inverse_root = [], []
    for k, chain in enumerate(p.tree.chains):
        root.append(tuple(block @ turns[k] for block in p.root[k]))
        rows = zip(chain, p.inverse_root[k], strict=True)
        inverse_root.append(tuple(turns[a].T @ block for a, block in rows))
    return BlockArrow(tuple(root), tuple(inverse_root), p.tree)


def _keep_arrow(matrix: np.ndarray) -> np.ndarray:
    return np.where(pattern(tree_of(len(matrix))), matrix, 0)


def _arrow(matrix: np.ndarray, rng: np.random.Generator) -> BlockArrow:
    blank = BlockArrow.identity(tree_of(len(matrix)), jnp.dtype(matrix.dtype))
    return turned(blank.from_entries(blank.project(jnp.asarray(matrix))), rng)


def chain_of(dim: int) -> Chain:
    """Steps and a border of one coordinate, the first; or one step alone."""
    if dim == 1:
        return Chain((Piece(0, (1,), (0,)),))
    return Chain((Piece(1, (dim - 1,), (0,)),), (Piece(0, (1,)),))


def chain_pattern(chain: Chain) -> np.ndarray:
    """Which coordinates meet."""
    n = chain.count
    block = np.broadcast_to(np.arange(n)[:, None], (n, chain.size))
    place = np.asarray(chain.paste(block, np.full(chain.rest, -1)))
    near = np.abs(place[:, None] - place) <= 1
    return near | (place[:, None] < 0) | (place < 0)


def _keep_chain(matrix: np.ndarray) -> np.ndarray:
    return np.where(chain_pattern(chain_of(len(matrix))), matrix, 0)


def _chain(matrix: np.ndarray, rng: np.random.Generator) -> ChainArrow:
    blank = ChainArrow.identity(chain_of(len(matrix)), jnp.dtype(matrix.dtype))
    return blank.from_entries(blank.project(jnp.asarray(matrix)))


LINEAR = [
    DENSE,
    DIAGONAL,
    ISOTROPIC,
    LinearCase("block-diagonal", _keep_blocks, _block_diagonal),
    LinearCase(
        "block-arrow", _keep_arrow, _arrow, levels=lambda dim: level_of(tree_of(dim))
    ),
    LinearCase("chain", _keep_chain, _chain, whitened=False),
]

# -- operators ------------------------------------------------------------------------


def _kronecker(rng: np.random.Generator, dim: int) -> Member:
    rows = 2 if dim % 2 == 0 else 1
    left, l_matrix = DENSE.member(rng, rows)
    right, r_matrix = DENSE.member(rng, dim // rows)
    return Kronecker(left, right), np.kron(l_matrix, r_matrix)


def _low_rank(rng: np.random.Generator, dim: int) -> Member:
    diagonal = np.exp(rng.standard_normal(dim))
    factor = rng.standard_normal((dim, 2)) * np.exp(rng.standard_normal((dim, 1)))
    p = LowRankPlusDiagonal.from_factor(jnp.asarray(diagonal), jnp.asarray(factor))
    return p, np.diag(diagonal) + factor @ factor.T


def _rank_one(rng: np.random.Generator, dim: int) -> Member:
    diagonal = np.exp(rng.standard_normal(dim))
    remainder = 10.0 ** rng.uniform(-3, 0)
    direction = rng.standard_normal(dim)
    direction *= np.sqrt((1 - remainder) / (direction @ direction))
    vector = direction * np.sqrt(diagonal)
    parts = [jnp.asarray(part) for part in (diagonal, vector, remainder)]
    return DiagonalMinusRankOne(*parts), np.diag(diagonal) - np.outer(vector, vector)


def _spiked(rng: np.random.Generator, dim: int) -> Member:
    count = min(dim, 2)
    deviations, spikes = np.exp(rng.normal(size=dim)), np.exp(rng.normal(size=count))
    axes = np.linalg.qr(rng.standard_normal((dim, count)))[0]
    parts = [jnp.asarray(part) for part in (deviations, axes, spikes)]
    inside = np.eye(dim) + axes * spikes @ axes.T
    covariance = np.outer(deviations, deviations) * inside
    return SpikedCovariance(*parts), np.linalg.inv(covariance)


def _orthonormal(rng: np.random.Generator, dim: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0]


def _kronecker_eigen(rng: np.random.Generator, dim: int) -> Member:
    rows = 2 if dim % 2 == 0 else 1
    left, right = _orthonormal(rng, rows), _orthonormal(rng, dim // rows)
    values = np.exp(rng.standard_normal((rows, dim // rows)))
    vectors = np.kron(left, right)
    p = KroneckerEigen(*map(jnp.asarray, (left, right, values)))
    return p, vectors * values.reshape(-1) @ vectors.T


def _block_operators(rng: np.random.Generator, dim: int) -> Member:
    """Three rows of any structure, the rest of low rank."""
    kinds = [_kronecker_eigen, _low_rank]
    sizes = [min(dim, 3), max(dim - 3, 0)]
    parts = [kind(rng, n) for kind, n in zip(kinds, sizes, strict=True) if n]
    blocks = BlockOperators(tuple(block for block, _ in parts))
    return blocks, scipy.linalg.block_diag(*(matrix for _, matrix in parts))


def _reordered(rng: np.random.Generator, dim: int) -> Member:
    p, matrix = DENSE.member(rng, dim)
    order = rng.permutation(dim)
    places = np.argsort(order)
    return Reordered.from_order(p, jnp.asarray(order)), matrix[np.ix_(places, places)]


def _product(matrix: np.ndarray) -> Partial:
    return Partial(jnp.matmul, jnp.asarray(matrix))


def _matrix_free(rng: np.random.Generator, dim: int) -> Member:
    matrix = positive(DENSE, rng, dim)
    near, _ = DIAGONAL.member(rng, dim)
    return exactly_damped(MatrixFree(_product(matrix), dim), 0.1, near), (
        matrix + 0.1 * np.eye(dim)
    )


OPERATORS = [
    Case("kronecker", _kronecker),
    Case("kronecker-eigen", _kronecker_eigen),
    Case("block-operators", _block_operators),
    Case("reordered", _reordered),
    Case("matrix-free", _matrix_free, stacks=False, root_slopes=False),
    Case("low-rank-plus-diagonal", _low_rank),
    Case("diagonal-minus-rank-one", _rank_one),
    Case("spiked-covariance", _spiked),
]

ELSEWHERE = {"LearnedLowRank", "DampedMatrixFree"}
"""Positive-definite structures without a row, tested in their own files."""


def discover(package: ModuleType) -> list[Case | LinearCase]:
    """Rows for what files of the package define and no row above is of.

    What a structure keeps is linear and keeps the identity: shifted far enough, any
    symmetric matrix is one that `from_dense` takes.
    """
    known = {c for c in globals().values() if inspect.isclass(c)}
    found: list[Case | LinearCase] = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__ and name not in ELSEWHERE
            if not (own and issubclass(cls, PositiveDefinite)) or cls in known:
                continue
            if not inspect.isabstract(cls):
                found.append(_by_from_dense(name, cls))
    return found


def _by_from_dense(name: str, cls: Any) -> Case | LinearCase:
    if not hasattr(cls, "from_dense"):
        raise NotImplementedError(f"{name} needs a row in tests/linalg/cases.py")

    def keep(matrix: np.ndarray) -> np.ndarray:
        far = np.linalg.norm(matrix) * np.eye(len(matrix))
        return np.asarray(cls.from_dense(jnp.asarray(matrix + far)).dense()) - far

    def build(matrix: np.ndarray, rng: np.random.Generator) -> Any:
        return cls.from_dense(jnp.asarray(matrix))

    row = LinearCase(name, keep, build)
    return row if issubclass(cls, LinearStructure) else Case(name, row.member)


# -- semidefinite matrices ------------------------------------------------------------


def _deficient(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Of rank half the dimension, or zero."""
    factor = rng.standard_normal((dim, dim // 2))
    return factor @ factor.T


def _semidefinite_dense(rng: np.random.Generator, dim: int) -> Member:
    matrix = _deficient(rng, dim)
    return SemidefiniteDense(jnp.asarray(matrix)), matrix


def _semidefinite_diagonal(rng: np.random.Generator, dim: int) -> Member:
    values = np.maximum(rng.standard_normal(dim), 0)
    return SemidefiniteDiagonal(jnp.asarray(values)), np.diag(values)


def _factors(rng: np.random.Generator, dim: int) -> Member:
    rows = 2 if dim % 2 == 0 else 1
    left, right = _deficient(rng, rows), _deficient(rng, dim // rows)
    return KroneckerFactors(jnp.asarray(left), jnp.asarray(right)), np.kron(left, right)


def _semidefinite_eigen(rng: np.random.Generator, dim: int) -> Member:
    p, _ = _kronecker_eigen(rng, dim)
    # Some eigenvalues are zero.
    values = jnp.where(p.values < 1, 0, p.values)
    vectors = np.kron(p.left_vectors, p.right_vectors)
    matrix = vectors * np.asarray(values).reshape(-1) @ vectors.T
    return KroneckerEigen(p.left_vectors, p.right_vectors, values), matrix


def _semidefinite_low_rank(rng: np.random.Generator, dim: int) -> Member:
    vectors, values = rng.standard_normal((dim, 2)), np.exp(rng.standard_normal(2))
    diagonal = np.maximum(rng.standard_normal(dim), 0)
    f = LowRank(*map(jnp.asarray, (vectors, values, diagonal)))
    return f, np.diag(diagonal) + vectors * values @ vectors.T


def _semidefinite_blocks(rng: np.random.Generator, dim: int) -> Member:
    kinds = [_factors, _semidefinite_dense]
    sizes = [min(dim, 2), max(dim - 2, 0)]
    parts = [kind(rng, n) for kind, n in zip(kinds, sizes, strict=True) if n]
    blocks = SemidefiniteBlocks(tuple(block for block, _ in parts))
    return blocks, scipy.linalg.block_diag(*(matrix for _, matrix in parts))


def _semidefinite_matrix_free(rng: np.random.Generator, dim: int) -> Member:
    matrix = _deficient(rng, dim)
    return MatrixFree(_product(matrix), dim), matrix


@dataclass(frozen=True)
class SemidefiniteCase(Case):
    """A semidefinite structure, and what it can do beyond products and damping."""

    adds: bool = True
    damps_each: bool = True
    """A λ for each coordinate."""
    clips: bool = True


SEMIDEFINITE = [
    SemidefiniteCase("dense", _semidefinite_dense),
    SemidefiniteCase("diagonal", _semidefinite_diagonal),
    SemidefiniteCase("factors", _factors, adds=False, damps_each=False),
    SemidefiniteCase("eigen", _semidefinite_eigen, adds=False, damps_each=False),
    SemidefiniteCase("low-rank", _semidefinite_low_rank, clips=False),
    SemidefiniteCase("blocks", _semidefinite_blocks, adds=False, damps_each=False),
    SemidefiniteCase(
        "matrix-free", _semidefinite_matrix_free, False, adds=False, clips=False
    ),
]
for row in discover(ngvi.linalg):
    (LINEAR if isinstance(row, LinearCase) else OPERATORS).append(row)
STRUCTURES: list[Case | LinearCase] = [*LINEAR, *OPERATORS]
RETRACTIONS = [
    retractions.first_order,
    retractions.second_order,
    retractions.exponential,
    retractions.safeguarded,
]

every_structure = pytest.mark.parametrize("case", STRUCTURES, ids=lambda c: c.name)
every_semidefinite = pytest.mark.parametrize("case", SEMIDEFINITE, ids=lambda c: c.name)
# The programs of a chain take a minute to compile.
every_linear = pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, marks=pytest.mark.slow) if c.name == "chain" else c
        for c in LINEAR
    ],
    ids=lambda c: c.name,
)
# Whose steps are functions of the tangent's spectrum.
every_spectral = pytest.mark.parametrize(
    "case", [c for c in LINEAR if c.levels is None and c.whitened], ids=lambda c: c.name
)
every_retraction = pytest.mark.parametrize(
    "retraction", RETRACTIONS, ids=lambda r: r.__name__
)
# Few shapes, so that few programs are compiled; values are as random as the seed.
dims = st.sampled_from([1, 4])
seeds = st.integers(0, 2**32 - 1)

# -- random matrices ------------------------------------------------------------------


def lifted(case: LinearCase, matrix: np.ndarray) -> np.ndarray:
    """A matrix of which what the structure keeps is positive definite: an arrow without
    the entries between its blocks need not be."""
    lowest = np.linalg.eigvalsh(case.keep(matrix)).min()
    least = 1e-3 * np.trace(matrix) / len(matrix)
    return matrix + max(least - lowest, 0) * np.eye(len(matrix))


def positive(case: LinearCase, rng: np.random.Generator, dim: int) -> np.ndarray:
    """A random positive-definite matrix of the structure, condition up to about 1e3."""
    factor = rng.standard_normal((dim, 2 * dim + 2))
    matrix = case.keep(lifted(case, factor @ factor.T / dim + 0.05 * np.eye(dim)))
    units = np.exp(rng.standard_normal(dim))
    return case.keep(matrix * np.outer(units, units))


def ill_conditioned(case: LinearCase, rng: np.random.Generator, dim: int) -> np.ndarray:
    """Units from 1e-4 to 1e4, so entries from 1e-8 to 1e8."""
    units = 10.0 ** np.linspace(-4, 4, dim)
    correlated = positive(case, rng, dim)
    scale = np.sqrt(np.diag(correlated))
    return case.keep(correlated / np.outer(scale, scale) * np.outer(units, units))


def random_symmetric(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Symmetric and usually indefinite."""
    matrix = rng.standard_normal((dim, dim))
    return (matrix + matrix.T) / 2


# -- what a structure says about itself -----------------------------------------------


def exactly_damped(f: Semidefinite, damping: Any, *more: Any) -> PositiveDefinite:
    """F + λ I, solved to rounding where it takes iterations."""
    if isinstance(f, MatrixFree):
        return f.damp(damping, *more, tolerance=1e-14)
    return f.damp(damping)


def stack(members: list[Any]) -> Any:
    """One structure with a leading axis, from several of the same layout."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def roots(p: PositiveDefinite) -> tuple[np.ndarray, np.ndarray]:
    """B and A as arrays, read off the operators."""
    eye = jnp.eye(p.dim, dtype=p.diagonal().dtype)
    return np.asarray(p.whiten(eye)), np.asarray(p.unwhiten(eye)).T


def tangent_dense(p: LinearStructure, tangent: object) -> np.ndarray:
    """X as a dense array, from P⁺ = P + ρ B X Bᵀ with a small ρ; an arrow's, of which
    that is only the beginning, as it is laid out."""
    if isinstance(p, BlockArrow):
        return as_array(p.tree, tangent)
    rho = 1e-3
    moved = p.along(tangent)(jnp.asarray(rho), retractions.first_order).matrix.dense()
    _, a = roots(p)
    return a.T @ (np.asarray(moved) - np.asarray(p.dense())) @ a / rho


def trace_product(entries: Any, moments: Any) -> jax.Array:
    """Σ entries · moments over all leaves."""
    products = jax.tree.map(lambda e, m: (e * m).sum(), entries, moments)
    return jax.tree.reduce(jnp.add, products)


def close(actual: object, expected: object, tolerance: float = 1e-10) -> None:
    """Equal to a tolerance relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = max(np.abs(expected).max(initial=0.0), 1e-300)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


Numbers = dict[str, Any]


@compiled
def on_vectors(p: PositiveDefinite, x: jax.Array) -> Numbers:
    """What any structure makes of vectors."""
    return {
        "mv": p.mv(x),
        "solve": p.solve(x),
        "whiten": p.whiten(x),
        "unwhiten": p.unwhiten(x),
        "whiten_gradient": p.whiten_gradient(x),
        "rewhiten": p.whiten(p.unwhiten(x)),
        "reunwhiten": p.unwhiten(p.whiten(x)),
    }


@compiled
def numbers_of(p: PositiveDefinite) -> Numbers:
    """What any structure says about its matrix."""
    diagonal = p.diagonal()
    # An axis before those of the matrices, for the vectors of the basis.
    between = [1] * len(p.batch_shape)
    eye = jnp.eye(p.dim, dtype=diagonal.dtype).reshape(p.dim, *between, p.dim)
    return {
        "logdet": p.logdet(),
        "diagonal": diagonal,
        "inverse_diagonal": p.inverse_diagonal(),
        "trace": p.trace(),
        "dense": p.dense(),
        "inverse_dense": p.inverse_dense(),
        "root": jnp.moveaxis(p.whiten(eye), 0, -2),
        "inverse_root": jnp.moveaxis(p.unwhiten(eye), 0, -1),
        "scaled": p.scale(2.5).dense(),
        "scaled_by_array": p.scale(jnp.full_like(p.trace(), 2.5)).dense(),
        "scaled_inverse": p.scale(2.5).inverse_dense(),
        "scaled_root": jnp.moveaxis(p.scale(4.0).whiten(eye), 0, -2),
    }


@compiled
def semidefinite(f: Semidefinite, x: jax.Array) -> Numbers:
    """What any semidefinite structure says, and how it becomes a positive one."""
    damping = jnp.full(f.batch_shape, 0.3, x.dtype)
    return {
        "mv": f.mv(x),
        "diagonal": f.diagonal(),
        "trace": f.trace(),
        "dense": f.dense(),
        "scaled": f.scale(2.5).dense(),
        "scaled_by_array": f.scale(jnp.full_like(damping, 2.5)).dense(),
        "damped": exactly_damped(f, 0.3).dense(),
        "damped_by_array": exactly_damped(f, damping).dense(),
        "damped_solve": exactly_damped(f, 0.3).solve(x),
        "damped_inverse": exactly_damped(f, 0.3).inverse_dense(),
        "damped_logdet": exactly_damped(f, 0.3).logdet(),
    }


@compiled
def linear(p: LinearStructure, eps: jax.Array) -> Numbers:
    """What a linear structure adds: entries, moments, arithmetic, and a step."""
    moved = p.along(p.tangent(eps, eps[::-1]))(
        jnp.full(p.batch_shape, 0.1, eps.dtype), retractions.safeguarded
    )
    return {
        "entries": p.entries(),
        "from_entries": p.from_entries(p.entries()).dense(),
        "project": p.project(p.dense()),
        "inner": p.inner(p.entries(), p.entries()),
        "added": p.add(p.scale(0.5)).dense(),
        "damped": p.damp(0.3).dense(),
        "damped_by_array": p.damp(jnp.full(p.batch_shape, 0.3, eps.dtype)).dense(),
        "outer": p.outer(eps[0]),
        "inverse_moments": p.inverse_moments(),
        "from_moments": p.from_moments(p.inverse_moments()).dense(),
        "tangent": p.tangent(eps, eps[::-1]),
        "tangent_identity": p.tangent_identity(),
        "whiten_curvature": p.whiten_curvature(p.dense()),
        "moved": moved.matrix.dense(),
        "moved_solve": moved.solve(eps[0]),
        "moved_trace_inverse": moved.trace_inverse,
        "moved_logdet": moved.logdet,
        "moved_log": moved.log,
    }
