"""Each strategy's step is the one its paper prints."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, SpikedCovariance
from ngvi.nes.draws import mirrored
from ngvi.nes.search import State, init, tell
from ngvi.nes.shaping import rank
from ngvi.nes.strategies import (
    Strategy,
    cma,
    cr_fm_nes,
    openes,
    pgpe,
    snes,
    xnes,
)
from ngvi.nes.updates.adaptation_sampling import confidence
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


@pytest.mark.parametrize(("dim", "n"), [(6, 8), (20, 12)])
def test_cr_fm_nes_is_the_published_algorithm(dim: int, n: int) -> None:
    # On a bowl around the mean first, where nothing pulls it and the path is short.
    strategy = cr_fm_nes(dim, n)
    start = init(strategy, jnp.full(dim, 3.0), 0.1)
    spike: SpikedCovariance = start.q.precision
    v = np.sqrt(spike.spikes[0]) * np.asarray(spike.axes[:, 0])
    volume = (1 + v @ v) ** (-1 / (2 * dim))
    theirs = reference.FastMoving(
        np.full(dim, 3.0), 0.1, np.full(dim, volume), v, popsize=n
    )
    state, rng, seen = start, np.random.default_rng(5), set()
    for generation in range(150):
        half = rng.standard_normal((n // 2, dim))
        eps = np.vstack([half, -half])
        x = theirs.points(eps)
        np.testing.assert_allclose(state.q.place(jnp.asarray(eps)), x, atol=1e-10)
        values = (x**2 * np.logspace(0, 2, dim)).sum(1) + x[:, 0] * x[:, 1]
        if generation < 3:
            values = np.tile((half**2).sum(1), 2)
        state = step(strategy, state, jnp.asarray(eps), jnp.asarray(values))
        seen.add(theirs.tell(eps, values))
    assert seen == {"moving", "stagnating", "converging"}
    assert np.abs(theirs.mean).max() < 1


def test_learning_rate_adaptation_is_the_published_algorithm() -> None:
    strategy = cma(4, 8, adaptive=True)
    theirs = reference.AdaptiveRates(reference.CMA(np.ones(4), 0.3, 8))
    state, rng = init(strategy, jnp.ones(4), 0.3), np.random.default_rng(6)
    matrix = rotated_ellipsoid(4, 100.0, 0)
    for _ in range(60):
        eps = rng.standard_normal((8, 4))
        x = theirs.inner.points(eps)
        np.testing.assert_allclose(state.q.place(jnp.asarray(eps)), x, atol=1e-10)
        values = ((x @ matrix) * x).sum(1)
        state = step(strategy, state, jnp.asarray(eps), jnp.asarray(values))
        theirs.tell(eps, values)
        signals = state.memory.signals
        np.testing.assert_allclose(signals.mean_rate, theirs.mean_rate, rtol=1e-10)
        np.testing.assert_allclose(signals.shape_rate, theirs.shape_rate, rtol=1e-10)
    assert theirs.shape_rate < 0.9


def test_one_pgpe_step_is_the_published_formula() -> None:
    rng = np.random.default_rng(7)
    mean, sigma = rng.standard_normal(5), rng.uniform(0.1, 2, 5)
    half, values = rng.standard_normal((4, 5)), rng.standard_normal(8)
    eps = np.vstack([half, -half])
    strategy = pgpe(5, 8, rate=0.7, shape_rate=0.3)
    assert strategy.draws is mirrored
    start = init(strategy, jnp.asarray(mean), jnp.asarray(sigma))
    moved = step(strategy, start, jnp.asarray(eps), jnp.asarray(values))
    mean, sigma = reference.pgpe(mean, sigma, eps, values, 0.7, 0.3)
    np.testing.assert_allclose(moved.q.mean, mean, atol=1e-12)
    np.testing.assert_allclose(jnp.sqrt(moved.q.variance), sigma, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_openes_with_an_optimizer_is_that_optimizer_on_its_gradient(
    optimizer: str,
) -> None:
    # In x the gradient is Σ u ε/σ, to be ascended.
    strategy = openes(3, 6, rate=0.7, optimizer=optimizer)
    state, rng = init(strategy, jnp.ones(3), 0.2), np.random.default_rng(8)
    adam, mean, velocity = reference.Adam(0.7 * 0.2), np.ones(3), np.zeros(3)
    for _ in range(5):
        eps, values = rng.standard_normal((6, 3)), rng.standard_normal(6)
        ascent = (0.5 - np.argsort(np.argsort(values)) / 5) @ eps / 6
        if optimizer == "adam":
            # Its offset counts in units of the gradient: in the frame, as here.
            mean = adam.move(mean, ascent)
        else:
            velocity = 0.9 * velocity + 0.1 * ascent
            mean = mean + 0.7 * 0.2 * velocity
        state = step(strategy, state, jnp.asarray(eps), jnp.asarray(values))
        np.testing.assert_allclose(state.q.mean, mean, atol=1e-12)
    np.testing.assert_allclose(state.q.variance, 0.04, rtol=1e-12)


def test_an_unknown_optimizer_is_an_error() -> None:
    for make in (openes, pgpe):
        with pytest.raises(ValueError, match="'momentum', 'adam', not 'sgd'"):
            make(3, optimizer="sgd")


def test_adaptation_sampling_follows_the_test_of_a_longer_step() -> None:
    # By the densities themselves, the hypothetical distribution by the plain formula; a
    # bowl first, then one that is turned over each time: a longer step was worse.
    dim, n = 3, 30
    strategy, rng = xnes(dim, n, adaptive=True), np.random.default_rng(9)
    first = rate = strategy.shape_rate
    mean, root = np.ones(dim), 0.5 * np.eye(dim)
    state, other, grown = init(strategy, jnp.ones(dim), 0.5), None, []
    for generation in range(20):
        eps = rng.standard_normal((n, dim))
        x = mean + eps @ root.T
        values = (x**2).sum(1) * (-1) ** max(0, generation - 9)
        if other is not None:
            p = reference.sampling_confidence(values, x, (mean, root @ root.T), other)
            grown.append(p >= 0.5 - 1 / (3 * (dim + 1)))
            rate = min(1.1 * rate, 1) if grown[-1] else 0.9 * rate + 0.1 * first
        state = step(strategy, state, jnp.asarray(eps), jnp.asarray(values))
        np.testing.assert_allclose(state.memory.rate, rate, rtol=1e-10)
        hypothetical = reference.xnes(mean, root, eps, values, 1.5 * rate, first)
        mean, root = reference.xnes(mean, root, eps, values, rate, first)
        other = hypothetical[0], hypothetical[1] @ hypothetical[1].T
        np.testing.assert_allclose(state.q.mean, mean, atol=1e-10)
    assert 0 < sum(grown) < len(grown)


def test_the_test_of_two_equal_samples_is_undecided() -> None:
    values = jnp.asarray([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(confidence(rank(values), jnp.ones(4)), 0.5)
    better = confidence(rank(values), jnp.asarray([0.1, 3.0, 0.1, 0.1]))
    assert better > 0.6


def test_a_popsize_of_one_or_none_is_an_error() -> None:
    for popsize in (1, 0, -3):
        for make in (xnes, snes, openes, cma, cr_fm_nes, pgpe):
            with pytest.raises(ValueError, match=f"at least 2.*got {popsize}"):
                make(3, popsize)
