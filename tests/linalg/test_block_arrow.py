"""Arrows of several levels: where coordinates lie, steps, what few products tell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ngvi.linalg import BlockArrow, Level, Piece, Tree
from ngvi.linalg.tree import Blocks
from ngvi.mirror import retractions
from tests.linalg.cases import (
    LINEAR,
    RETRACTIONS,
    as_array,
    close,
    level_of,
    linear,
    numbers_of,
    pattern,
    random_symmetric,
    turned,
)
from tests.programs import compiled

# Two border coordinates; three outer blocks of (a, b); two inner ones on each, whose
# array has the inner plate's axis first; four unrelated blocks in the last axis.
PIECES = (
    Piece(0, (2,)),
    Piece(2, (3,), (0,)),
    Piece(5, (2, 3), (1, 0)),
    Piece(11, (3,), (0,)),
    Piece(14, (2, 4), (1,)),
)
TREE = Tree(
    (
        Level((PIECES[0],)),
        Level((PIECES[1], PIECES[3]), 0),
        Level((PIECES[2],), 1),
        Level((PIECES[4],), 0),
    )
)
MEETS = pattern(TREE)


@compiled
def kept(matrix: jax.Array) -> Blocks:
    """The entries of a matrix."""
    return BlockArrow.identity(TREE, matrix.dtype).project(matrix)


@compiled
def factored(matrix: jax.Array) -> BlockArrow:
    return BlockArrow.from_tree(TREE, kept.__wrapped__(matrix))


def member(rng: np.random.Generator) -> tuple[BlockArrow, np.ndarray]:
    factor = rng.standard_normal((TREE.dim, 3 * TREE.dim))
    matrix = np.where(MEETS, factor @ factor.T / TREE.dim, 0) + 6 * np.eye(TREE.dim)
    return turned(factored(jnp.asarray(matrix)), rng), matrix


def test_blocks_lie_where_the_pieces_say() -> None:
    outer, inner, other = (part.tolist() for part in TREE.cut(jnp.arange(22))[1:])
    assert outer == [[2, 11], [3, 12], [4, 13]]
    assert inner == [[5], [8], [6], [9], [7], [10]]
    assert other == [[14, 18], [15, 19], [16, 20], [17, 21]]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 22)))
    close(TREE.paste(TREE.cut(x)), x, 0)
    assert (TREE.dim, TREE.depth, TREE.leaves) == (22, 5, (2, 3))
    assert TREE.chains == ((0,), (1, 0), (2, 1, 0), (3, 0))
    lower = MEETS & (level_of(TREE)[:, None] <= level_of(TREE))
    assert TREE.numbers == lower.sum()


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ((Level((PIECES[1],)),), "coordinate 0"),
        ((Level((Piece(0, (2,)), Piece(2, (3,), (0,)))),), "unequal block counts"),
        ((Level((Piece(0, (2,)),), 0),), "its parent must come before"),
        ((Level((Piece(0, (2,), (0,)),)), Level((Piece(2, (3,), (0,)),), 0)), "evenly"),
    ],
)
def test_trees_that_are_none(levels: tuple[Level, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tree(levels)


def test_several_levels_equal_dense() -> None:
    rng = np.random.default_rng(0)
    p, matrix = member(rng)
    inverse = np.linalg.inv(matrix)
    numbers, more = numbers_of(p), linear(p, jnp.asarray(rng.standard_normal((3, 22))))
    close(numbers["dense"], matrix)
    close(numbers["inverse_dense"], inverse)
    close(numbers["diagonal"], np.diag(matrix))
    close(numbers["inverse_diagonal"], np.diag(inverse))
    np.testing.assert_allclose(numbers["logdet"], np.linalg.slogdet(matrix)[1])
    close(more["from_moments"], matrix)
    close(more["damped"], matrix + 0.3 * np.eye(TREE.dim))
    trace = compiled(lambda p: p.relative_trace(p.scale(2.0)))(p)
    np.testing.assert_allclose(trace, TREE.dim / 2)
    b, a = numbers["root"], numbers["inverse_root"]
    close(b @ b.T, matrix)
    close(b.T @ a, np.eye(TREE.dim), 1e-12)


def step(retraction: Callable) -> Callable[[BlockArrow, Blocks, float], dict]:
    @compiled
    def moved_along(p: BlockArrow, tangent: Blocks, rho: jax.Array) -> dict:
        moved = p.along(tangent)(rho, retraction)
        eye = jnp.eye(p.dim)
        return {
            "matrix": moved.matrix,
            "root": moved.matrix.whiten(eye),
            "inverse_root": moved.matrix.unwhiten(eye).T,
            "solve": moved.solve(eye),
            "trace_inverse": moved.trace_inverse,
            "logdet": moved.logdet,
            "log": moved.log,
        }

    return lambda p, tangent, rho=1.0: moved_along(p, tangent, jnp.asarray(rho))


MOVED = {retraction: step(retraction) for retraction in RETRACTIONS}


def retracted(x: np.ndarray, retraction: Callable) -> np.ndarray:
    """R(X) = L Lᵀ, one block after the other, on arrays."""
    lower = np.zeros_like(x)
    for k, blocks in enumerate(TREE.cut(jnp.arange(TREE.dim))):
        for block in np.asarray(blocks):
            values, vectors = np.linalg.eigh(x[np.ix_(block, block)])
            r = np.sqrt(np.asarray(retraction(jnp.asarray(values))))
            above = np.flatnonzero(level_of(TREE) < k)
            lower[np.ix_(block, block)] = vectors * r @ vectors.T
            column = x[np.ix_(above, block)] @ (vectors / r) @ vectors.T
            lower[np.ix_(above, block)] = column
    return lower @ lower.T


# At a size of 1.5 the first order is not positive.
LENGTHS = [(r, 0.5) for r in RETRACTIONS] + [
    (r, 1.5) for r in RETRACTIONS if r is not retractions.first_order
]


@pytest.mark.parametrize(("retraction", "size"), LENGTHS)
def test_a_step_retracts_each_diagonal_block(retraction: Callable, size: float) -> None:
    rng = np.random.default_rng(0)
    p, _ = member(rng)
    numbers = numbers_of(p)
    b = numbers["root"]
    x = np.where(MEETS, random_symmetric(rng, TREE.dim), 0)
    x *= size / np.abs(np.linalg.eigvalsh(x)).max()
    found = MOVED[retraction](p, kept(jnp.asarray(x)))
    r = retracted(x, retraction)
    close(found["root"] @ found["root"].T, b @ r @ b.T, 1e-8)
    close(found["solve"], np.linalg.inv(r), 1e-8)
    np.testing.assert_allclose(found["trace_inverse"], np.trace(np.linalg.inv(r)))
    np.testing.assert_allclose(found["logdet"], np.linalg.slogdet(r)[1], rtol=1e-8)
    close(found["root"].T @ found["inverse_root"], np.eye(TREE.dim), 1e-9)


def test_how_far_a_step_went_to_third_order() -> None:
    rng = np.random.default_rng(0)
    p, _ = member(rng)
    b = numbers_of(p)["root"]
    x = kept(jnp.asarray(random_symmetric(rng, TREE.dim)))
    rows, columns = np.ix_(*[level_of(TREE)] * 2)
    errors = []
    for rho in (0.02, 0.01):
        moved = MOVED[retractions.safeguarded](p, x, rho)
        log = as_array(TREE, moved["log"])
        lower = np.where(rows < columns, log, 0) + np.where(rows == columns, log, 0) / 2
        errors.append(np.abs(b @ scipy.linalg.expm(lower) - moved["root"]).max())
    assert errors[1] < errors[0] / 7 < 1e-4


def test_fixed_draws_have_the_tangent_for_a_gradient() -> None:
    """d mean ℓ(m + Aε) along a step of length 0 is −½ tr(X · tangent)."""
    rng = np.random.default_rng(0)
    p, _ = member(rng)
    eps = jnp.asarray(rng.standard_normal((4, TREE.dim)))
    weights = jnp.asarray(rng.standard_normal(TREE.dim))
    x = kept(jnp.asarray(random_symmetric(rng, TREE.dim)))

    def potential(z: jax.Array) -> jax.Array:
        return jnp.cos(z @ weights) + (z**4).sum()

    @compiled
    def at(p: BlockArrow) -> tuple[jax.Array, jax.Array]:
        values, slopes = jax.vmap(jax.value_and_grad(potential))(p.unwhiten(eps))
        tangent = p.tangent(eps, p.whiten_gradient(slopes))
        return values.mean(), p.inner(x, tangent)

    h = 1e-5
    ahead, behind = (
        at(MOVED[retractions.safeguarded](p, x, rho)["matrix"])[0] for rho in (h, -h)
    )
    slope = (ahead - behind) / (2 * h)
    np.testing.assert_allclose(slope, -at(p)[1] / 2, rtol=1e-6)


def test_draws_are_matched_as_far_as_the_structure_sees() -> None:
    rng = np.random.default_rng(0)
    # More than coordinates in a chain, fewer than dimensions.
    x = jnp.asarray(rng.standard_normal((TREE.depth + 2, TREE.dim)))
    matched = compiled(lambda p, x: p.matched(x))
    y = matched(BlockArrow.identity(TREE, x.dtype), x)
    close(np.where(MEETS, y.T @ y / len(y), 0), np.eye(TREE.dim), 1e-10)
    for case in LINEAR[:2]:
        y = matched(case.member(rng, 4)[0], x[:, :4])
        close(case.keep(y.T @ y / len(y)), np.eye(4), 1e-10)


def test_few_products_tell_the_matrix() -> None:
    rng = np.random.default_rng(0)
    h = np.where(MEETS, random_symmetric(rng, TREE.dim), 0)
    probes = TREE.probes(jnp.dtype(float))
    assert probes.shape == (TREE.depth, TREE.dim)
    close(as_array(TREE, TREE.read(probes @ h)), h)


def test_the_nearest_positive_one() -> None:
    rng = np.random.default_rng(0)
    _, matrix = member(rng)
    nearly = compiled(lambda m: BlockArrow.nearly(TREE, kept.__wrapped__(m)).dense())
    close(nearly(jnp.asarray(matrix)), matrix)
    indefinite = nearly(jnp.asarray(random_symmetric(rng, TREE.dim)))
    assert np.linalg.eigvalsh(indefinite).min() > 0


# -- shared out over devices -----------------------------------------------------------

# A border, outer and inner blocks, and blocks that every device has.
WHOLE, PART = (
    Tree(
        (
            Level((Piece(0, (2,)),)),
            Level((Piece(2, (n,), (0,)),), 0, shares=4 // n),
            Level((Piece(2 + n, (n, 3), (0, 1)),), 1, shares=4 // n),
            Level((Piece(2 + 4 * n, (5,), (0,)),), 0),
        ),
        axis,
    )
    for n, axis in ((4, None), (2, "devices"))
)


def shared_out(level: Level, x: jax.Array) -> jax.Array:
    """Its blocks in two parts along a new first axis, or all of them twice."""
    return x.reshape(2, -1, *x.shape[1:]) if level.shares > 1 else jnp.stack([x, x])


def sums_over_blocks(
    tree: Tree,
) -> Callable[..., tuple[dict[str, jax.Array], dict[str, list[jax.Array]]]]:
    """Numbers and vectors that blocks of several levels have a part in."""

    def found(entries: Blocks, tangent: Blocks, x: list, y: list) -> tuple:
        p, vector = BlockArrow.from_tree(tree, entries), tree.paste(x)
        moved = p.along(tangent)(jnp.asarray(0.5), retractions.safeguarded)
        numbers = {
            "logdet": p.logdet(),
            "inner": p.inner(tangent, p.entries()),
            "dot": p.dot(vector, tree.paste(y)),
            "trace": moved.trace_inverse,
            "grown": moved.logdet,
            "relative": p.relative_trace(moved.matrix),
            "dim": jnp.asarray(p.whole_dim),
            "below": p.everywhere((jnp.abs(x[1]) < 9).all()),
            "equal": p.everywhere((x[1][0] == x[1]).all()),
        }
        vectors = {
            "white": p.whiten_gradient(vector),
            "product": p.mv(vector),
            "solved": moved.solve(vector),
            "variance": moved.matrix.inverse_diagonal(),
        }
        return numbers, {name: tree.cut(v) for name, v in vectors.items()}

    return found


def test_devices_with_a_share_find_what_one_finds() -> None:
    rng = np.random.default_rng(0)

    def random(own: float) -> Blocks:
        def near(x: jax.Array) -> jax.Array:
            return own * x + 0.1 * rng.normal(size=x.shape)

        blocks = jax.tree.map(near, BlockArrow.identity(WHOLE, jnp.dtype(float)).root)
        return tuple(((a + a.mT) / 2, *rest) for a, *rest in blocks)

    def parts(of_levels: Any) -> Any:
        return type(of_levels)(
            jax.tree.map(partial(shared_out, level), x)
            for level, x in zip(PART.levels, of_levels, strict=True)
        )

    x, y = (WHOLE.cut(jnp.asarray(rng.normal(size=WHOLE.dim))) for _ in range(2))
    x[1] = x[1].at[:2].set(1.0)  # equal on the first device, not on the second
    given = random(8.0), random(0.0), x, y
    numbers, vectors = compiled(sums_over_blocks(WHOLE))(*given)
    every = jax.vmap(sums_over_blocks(PART), axis_name="devices")
    of_parts, vectors_of_parts = compiled(every)(*map(parts, given))
    assert not numbers["equal"] and numbers["below"]
    for name, number in numbers.items():
        close(of_parts[name], np.array([number, number]))
    for name, vector in vectors.items():
        for found, expected in zip(vectors_of_parts[name], parts(vector), strict=True):
            close(found, expected)


def test_gradients_of_what_all_devices_have_add_up() -> None:
    p = jax.vmap(
        lambda x: BlockArrow.identity(PART, x.dtype).added_up(x.sum(), x),
        axis_name="devices",
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, PART.dim)))
    values, gradients = p(x)
    close(values, np.repeat(np.asarray(x).sum(), 2))
    common = np.r_[0:2, 10:15]
    close(gradients[:, common], np.repeat(np.asarray(x)[:, common].sum(0)[None], 2, 0))
    close(gradients[:, 2:10], x[:, 2:10])
