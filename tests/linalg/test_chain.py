"""Chains of several segments: where coordinates lie, draws, what few products tell."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import Chain, ChainArrow, Piece, chain_segments
from ngvi.mirror import retractions
from tests.linalg.cases import (
    chain_pattern,
    close,
    linear,
    numbers_of,
    random_symmetric,
)
from tests.programs import compiled

# Nine steps of two sites, the second of which has its steps in the last axis, in blocks
# of two: one step and two coordinates are in the border.
PIECES = (Piece(0, (2,)), Piece(2, (9,), (0,)), Piece(11, (2, 9), (1,)))
CHAIN = Chain(PIECES[1:], PIECES[:1], 2)
MEETS = chain_pattern(CHAIN)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two levels of segments for a chain this short."""
    monkeypatch.setattr(chain_segments, "_LONGEST", 3)


def member(
    rng: np.random.Generator, chain: Chain = CHAIN
) -> tuple[ChainArrow, np.ndarray]:
    factor = rng.standard_normal((chain.dim, 3 * chain.dim))
    matrix = factor @ factor.T / chain.dim + 6 * np.eye(chain.dim)
    matrix = np.where(chain_pattern(chain), matrix, 0)
    return factored(chain)(jnp.asarray(matrix)), matrix


def factored(chain: Chain) -> object:
    blank = ChainArrow.identity(chain, jnp.dtype(float))
    return compiled(lambda matrix: blank.from_entries(blank.project(matrix)))


def test_blocks_lie_where_the_pieces_say() -> None:
    blocks, border = CHAIN.cut(jnp.arange(CHAIN.dim))
    assert blocks.tolist()[:2] == [[2, 11, 20, 3, 12, 21], [4, 13, 22, 5, 14, 23]]
    assert border.tolist() == [0, 1, 10, 19, 28]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, CHAIN.dim)))
    close(CHAIN.paste(*CHAIN.cut(x)), x, 0)
    assert (CHAIN.dim, CHAIN.count, CHAIN.size, CHAIN.rest) == (29, 4, 6, 5)
    assert CHAIN.numbers == np.tril(MEETS).sum() + 4 * 15 + 10


@pytest.mark.parametrize(
    ("pieces", "border", "width", "words"),
    [
        ((PIECES[1],), (), 1, "coordinate 0"),
        ((Piece(0, (3,), (0,)), Piece(3, (4,), (0,))), (), 1, "equal length"),
        ((Piece(0, (3,)),), (), 1, "a block must|equal length"),
        ((Piece(0, (3,), (0,)),), (), 4, "1 to 3 of the steps"),
    ],
)
def test_chains_that_are_none(
    pieces: tuple[Piece, ...], border: tuple[Piece, ...], width: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Chain(pieces, border, width)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_segments_and_their_separators_equal_dense(steps: int) -> None:
    rng = np.random.default_rng(0)
    chain = CHAIN if steps == 9 else Chain((Piece(0, (steps, 2), (0,)),))
    p, matrix = member(rng, chain)
    inverse = np.linalg.inv(matrix)
    eps = jnp.asarray(rng.standard_normal((3, chain.dim)))
    numbers, more = numbers_of(p), linear(p, eps)
    close(numbers["dense"], matrix)
    close(numbers["inverse_dense"], inverse)
    close(numbers["inverse_diagonal"], np.diag(inverse))
    np.testing.assert_allclose(numbers["logdet"], np.linalg.slogdet(matrix)[1])
    close(more["from_moments"], matrix)
    close(more["damped"], matrix + 0.3 * np.eye(chain.dim))
    b, a = numbers["root"], numbers["inverse_root"]
    close(b @ b.T, matrix)
    close(b.T @ a, np.eye(chain.dim), 1e-12)
    trace = compiled(lambda p: p.relative_trace(p.scale(2.0)))(p)
    np.testing.assert_allclose(trace, chain.dim / 2)


def test_draws_have_the_covariance_inside_of_the_pattern() -> None:
    rng = np.random.default_rng(0)
    p, matrix = member(rng)
    # Fewer than dimensions.
    half = rng.standard_normal((25, CHAIN.dim))
    eps = jnp.asarray(np.concatenate([half, -half]))
    x = compiled(lambda p, eps: p.unwhiten_matched(eps))(p, eps)
    inverse = np.linalg.inv(matrix)
    close(np.where(MEETS, x.T @ x / len(x), 0), np.where(MEETS, inverse, 0))
    close(x[:25], -x[25:])


def test_few_products_tell_the_matrix() -> None:
    rng = np.random.default_rng(0)
    h = np.where(MEETS, random_symmetric(rng, CHAIN.dim), 0)
    blank = ChainArrow.identity(CHAIN, jnp.dtype(float))
    probes = CHAIN.probes(jnp.dtype(float))
    assert probes.shape == (3 * 6 + 5, CHAIN.dim) == (CHAIN.colours, CHAIN.dim)
    expected = blank.project(jnp.asarray(h))
    for part, known in zip(CHAIN.read(probes @ h), expected, strict=True):
        close(part, known)


@compiled
def moved(p: ChainArrow, h: jax.Array, rho: jax.Array) -> dict[str, jax.Array]:
    step = p.along(p.whiten_curvature(h))(rho, retractions.safeguarded)
    eye = jnp.eye(p.dim)
    return {
        "dense": step.matrix.dense(),
        "solve": step.solve(eye),
        "trace_inverse": step.trace_inverse,
        "logdet": step.logdet,
        "log": step.log.entries,
    }


def test_a_step_adds_to_the_matrix_while_that_is_positive() -> None:
    rng = np.random.default_rng(0)
    p, matrix = member(rng)
    x = np.where(MEETS, random_symmetric(rng, CHAIN.dim), 0)
    lower = np.linalg.cholesky(matrix)
    seen = np.linalg.solve(lower, np.linalg.solve(lower, x).T)
    x *= 0.5 / -np.linalg.eigvalsh(seen).min()
    found = moved(p, jnp.asarray(x), jnp.asarray(1.0))
    close(found["dense"], matrix + x)
    b = np.asarray(p.whiten(jnp.eye(CHAIN.dim)))
    a = np.linalg.inv(b).T
    r = a.T @ found["dense"] @ a
    close(found["solve"], np.linalg.inv(r), 1e-8)
    np.testing.assert_allclose(found["trace_inverse"], np.trace(np.linalg.inv(r)))
    np.testing.assert_allclose(found["logdet"], np.linalg.slogdet(r)[1], rtol=1e-8)
    change = p.project(jnp.asarray(found["dense"] - matrix))
    for part, known in zip(found["log"], change, strict=True):
        close(part, known, 1e-8)
    # A step too long is told as NaN.
    assert np.isnan(moved(p, jnp.asarray(x), jnp.asarray(2.5))["logdet"])


def test_the_nearest_positive_one() -> None:
    rng = np.random.default_rng(0)
    p, matrix = member(rng)
    nearly = compiled(lambda m: ChainArrow.nearly(CHAIN, p.project(m)).dense())
    close(nearly(jnp.asarray(matrix)), matrix)
    indefinite = nearly(jnp.asarray(random_symmetric(rng, CHAIN.dim)))
    assert np.linalg.eigvalsh(indefinite).min() > 0
