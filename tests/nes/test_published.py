"""Each strategy's step is the one its paper prints."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.nes.search import State, init, tell
from ngvi.nes.strategies import Strategy, cma, openes, snes, xnes
from tests.nes import reference
from tests.nes.runs import covariance, rotated_ellipsoid

step = partial(jax.jit, static_argnums=0)(tell)


def test_one_xnes_step_is_the_published_formula() -> None:
    # From a generic root, which is neither symmetric nor triangular: where a transpose
    # is misplaced it shows.
    rng = np.random.default_rng(0)
    dim, n = 4, 9
    root, mean = rng.standard_normal((dim, dim)), rng.standard_normal(dim)
    eps, values = rng.standard_normal((n, dim)), rng.standard_normal(n)
    strategy = replace(xnes(dim, n), shape_rate=0.4)
    start = init(strategy, jnp.asarray(mean), 1.0)
    q = Gaussian(
        start.q.mean, Dense(jnp.asarray(np.linalg.inv(root).T), jnp.asarray(root))
    )
    moved = step(strategy, replace(start, q=q), jnp.asarray(eps), jnp.asarray(values))
    mean, root = reference.xnes(mean, root, eps, values, 0.4, 0.4)
    np.testing.assert_allclose(moved.q.mean, mean, atol=1e-12)
    np.testing.assert_allclose(moved.q.precision.inverse_root, root, atol=1e-12)
    np.testing.assert_allclose(
        moved.q.precision.root, np.linalg.inv(root).T, atol=1e-11
    )


def test_published_rates() -> None:
    rates = [xnes(d).shape_rate for d in (2, 10, 100)]
    np.testing.assert_allclose(rates, [0.78343, 0.10061, 0.00456], atol=5e-6)
    rates = [snes(d).shape_rate for d in (2, 10, 1000)]
    np.testing.assert_allclose(rates, [0.52229, 0.33536, 0.06266], atol=5e-6)
    assert [xnes(d).popsize for d in (2, 10, 100, 1000)] == [6, 10, 17, 24]


def test_one_snes_step_is_the_published_formula() -> None:
    rng = np.random.default_rng(1)
    dim, n = 5, 8
    mean, sigma = rng.standard_normal(dim), rng.uniform(0.1, 2, dim)
    eps, values = rng.standard_normal((n, dim)), rng.standard_normal(n)
    strategy = snes(dim, n)
    start = init(strategy, jnp.asarray(mean), jnp.asarray(sigma))
    moved = step(strategy, start, jnp.asarray(eps), jnp.asarray(values))
    mean, sigma = reference.snes(mean, sigma, eps, values)
    np.testing.assert_allclose(moved.q.mean, mean, atol=1e-12)
    np.testing.assert_allclose(1 / moved.q.precision.root, sigma, atol=1e-12)


def test_openes_moves_the_mean_along_centered_ranks_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    eps, values = rng.standard_normal((6, 3)), rng.standard_normal(6)
    strategy = openes(3, 6, rate=0.7)
    start = init(strategy, jnp.zeros(3), 0.2)
    moved = step(strategy, start, jnp.asarray(eps), jnp.asarray(values))
    ranks = np.argsort(np.argsort(values)) / 5 - 0.5
    expected = -0.7 * 0.2 * (ranks @ eps) / 6
    np.testing.assert_allclose(moved.q.mean, expected, atol=1e-12)
    np.testing.assert_allclose(moved.q.variance, 0.04, rtol=1e-12)


def _follow(
    strategy: Strategy, theirs: reference.CMA, matrix: np.ndarray, generations: int
) -> State:
    """Both from the same draws; ours in its own frame, checked every generation."""
    rng = np.random.default_rng(3)
    state = init(strategy, jnp.asarray(theirs.mean), theirs.sigma)
    for _ in range(generations):
        eps = rng.standard_normal((strategy.popsize, theirs.dim))
        x = theirs.points(eps)
        np.testing.assert_allclose(state.q.place(jnp.asarray(eps)), x, atol=1e-10)
        values = ((x @ matrix) * x).sum(1)
        state = step(strategy, state, jnp.asarray(eps), jnp.asarray(values))
        theirs.tell(eps, values)
        np.testing.assert_allclose(state.q.mean, theirs.mean, atol=1e-10)
        np.testing.assert_allclose(
            covariance(state), theirs.sigma**2 * theirs.c, atol=1e-10
        )
    return state


@pytest.mark.parametrize(
    ("dim", "symmetric", "generations"), [(4, False, 30), (4, True, 2), (12, False, 20)]
)
def test_cma_is_the_tutorials(dim: int, symmetric: bool, generations: int) -> None:
    # With C^½ taken anew each time the frame turns, from the third step on: until then
    # both frames are one. In 12 dimensions no spectrum is computed.
    strategy = cma(dim, 8)
    assert strategy.structure is Dense
    theirs = reference.CMA(np.ones(dim), 0.3, 8, symmetric)
    _follow(strategy, theirs, rotated_ellipsoid(dim, 100.0, 0), generations)


def test_cma_stalls_its_rank_one_path_while_the_scale_path_is_long() -> None:
    # Far from the optimum of a linear slope σ grows fast: both branches are taken.
    strategy = cma(4, 8)
    theirs = reference.CMA(np.full(4, 1e4), 0.01, 8)
    matrix = rotated_ellipsoid(4, 100.0, 0)
    rng = np.random.default_rng(0)
    state, stalled = init(strategy, jnp.asarray(theirs.mean), theirs.sigma), 0
    for _ in range(25):
        eps = rng.standard_normal((8, 4))
        values = theirs.points(eps) @ matrix[0]
        before = theirs.shape_path
        state = step(strategy, state, jnp.asarray(eps), jnp.asarray(values))
        theirs.tell(eps, values)
        stalled += np.allclose(np.cross(before[:3], theirs.shape_path[:3]), 0)
    assert 2 < stalled < 25
    expected = theirs.sigma**2 * theirs.c
    scale = np.abs(expected).max()
    np.testing.assert_allclose(covariance(state) / scale, expected / scale, atol=1e-10)


def test_separable_cma_is_the_diagonal_of_it_with_faster_rates() -> None:
    strategy = cma(4, 8, separable=True)
    assert strategy.structure is Diagonal
    theirs = reference.CMA(np.ones(4), 0.3, 8, diagonal=True)
    state = _follow(strategy, theirs, np.diag([1.0, 10.0, 100.0, 1000.0]), 30)
    np.testing.assert_allclose(
        1 / state.q.precision.root, theirs.sigma * np.diag(theirs.root), atol=1e-10
    )


def test_a_popsize_of_one_or_none_is_an_error() -> None:
    for popsize in (1, 0, -3):
        for make in (xnes, snes, openes, cma):
            with pytest.raises(ValueError, match=f"at least 2.*got {popsize}"):
                make(3, popsize)
