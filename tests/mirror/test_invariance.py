"""The same answer in other units, other chunks, other batches, other precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder
from tests.mirror.fits import (
    DIM,
    FIRST,
    SETTINGS,
    WITH_CURVATURE,
    assert_sound,
    begin,
    fit,
    go,
    make_draws,
    rows,
    wide,
)
from tests.mirror.problems import Logistic, logistic, positive

# -- the same answer however it is run ------------------------------------------------


def same_bits(one: Any, other: Any) -> None:
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stride", [1, 3])
def test_stopping_and_going_on_changes_no_bit(stride: int) -> None:
    target = logistic(DIM)
    draws = make_draws()
    state = begin(target, wide(sd=5.0), draws)
    whole = go(target, state, draws, SETTINGS.max_iterations)
    limit = 0
    while state.status == loop.RUNNING:
        limit += stride
        state = go(target, state, draws, limit)
        assert state.iteration <= limit
    same_bits(state, whole)
    # Once stopped it stays so.
    same_bits(go(target, state, draws, limit + 50), whole)


def test_going_on_compiles_nothing_new() -> None:
    # What comes out of a chunk has the types of what went in, weak ones included.
    target, draws = logistic(DIM), make_draws()
    state = begin(target, wide(), draws)
    after = jax.eval_shape(
        lambda s: loop.run(target, FIRST, s, draws, SETTINGS, 1), state
    )
    one, other = map(jax.tree_util.tree_leaves_with_path, (state, after))
    for (path, a), (_, b) in zip(one, other, strict=True):
        name = jax.tree_util.keystr(path)
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type), name


def test_vmap_over_seeds_equals_separate_runs() -> None:
    target = logistic(DIM)
    several = [make_draws(seed=seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)

    def solve(draws: Ladder) -> loop.State:
        state = begin(target, wide(sd=3.0), draws)
        return loop.run(target, FIRST, state, draws, SETTINGS, 200)

    together = jax.jit(jax.vmap(solve))(stacked)
    for i, draws in enumerate(several):
        alone = fit(target, wide(sd=3.0), draws)
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        for name in ("status", "level", "iteration", "gradients", "values", "rejected"):
            assert getattr(mine, name) == getattr(alone, name), name
        for a, b in zip(*map(jax.tree.leaves, (mine.q, alone.q)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(mine.trace.elbo, alone.trace.elbo, rtol=1e-9)


def seen_through(
    target: Logistic, q: Gaussian, t: np.ndarray, c: np.ndarray, structure: type
) -> tuple[Logistic, Gaussian]:
    """The problem and the start in y, where z = T y + c."""
    moved = target._replace(
        transform=target.transform @ t, shift=target.transform @ c + target.shift
    )
    mean = jnp.asarray(np.linalg.solve(t, np.asarray(q.mean) - c))
    if structure is Diagonal:
        return moved, Gaussian(mean, Diagonal(q.precision.root * np.diag(t)))
    inverse_root = np.linalg.solve(t, np.asarray(q.precision.inverse_root))
    root = t.T @ np.asarray(q.precision.root)
    return moved, Gaussian(mean, Dense(jnp.asarray(root), jnp.asarray(inverse_root)))


@pytest.mark.parametrize("structure", [Dense, Diagonal])
@pytest.mark.parametrize("seed", range(3))
def test_an_affine_change_of_variables_changes_nothing(
    structure: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    target, draws = logistic(DIM, seed=seed), make_draws()
    estimator: Callable = FIRST
    if structure is Dense:
        t = rng.standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
        t *= 10.0 ** rng.uniform(-3, 3, DIM)
    else:
        # Its group is that of units and shifts; the mean steps in the full metric.
        t = np.diag(10.0 ** rng.uniform(-3, 3, DIM))
        estimator = WITH_CURVATURE
    c = rng.standard_normal(DIM)
    precision = positive(rng, DIM)
    q = Gaussian(
        jnp.asarray(rng.standard_normal(DIM)),
        structure.from_dense(jnp.asarray(precision)),
    )
    in_y, q_in_y = seen_through(target, q, t, c, structure)
    here = fit(target, q, draws, estimator)
    there = fit(in_y, q_in_y, draws, estimator)
    assert here.status == loop.CONVERGED
    for name in ("status", "level", "iteration", "gradients", "values", "rejected"):
        assert getattr(there, name) == getattr(here, name), name
    one, other = rows(here), rows(there)
    np.testing.assert_allclose(other["step"], one["step"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(other["fisher_length"], one["fisher_length"], rtol=1e-8)
    # The same potential of other coordinates: the entropy shifts by log |det T|.
    shift = np.linalg.slogdet(t)[1]
    np.testing.assert_allclose(other["elbo"], one["elbo"] - shift, rtol=1e-8)
    np.testing.assert_allclose(t @ there.q.mean + c, here.q.mean, rtol=1e-8, atol=1e-9)
    a = np.asarray(here.q.precision.unwhiten(jnp.eye(DIM))).T
    a_in_y = np.asarray(there.q.precision.unwhiten(jnp.eye(DIM))).T
    np.testing.assert_allclose(t @ a_in_y, a, atol=1e-8 * np.abs(a).max())
    np.testing.assert_allclose(there.gap, here.gap, rtol=1e-6, atol=1e-9)


# -- single precision -----------------------------------------------------------------


def narrow(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_single_precision(structure: type) -> None:
    target = logistic(DIM)
    draws = make_draws()
    estimator = FIRST if structure is Dense else WITH_CURVATURE
    exact = fit(target, wide(structure=structure), draws, estimator)
    state = fit(
        narrow(target), narrow(wide(structure=structure)), narrow(draws), estimator
    )
    assert state.status == exact.status == loop.CONVERGED
    for leaf in jax.tree.leaves((state.q, state.objective, state.trace.elbo)):
        assert leaf.dtype == jnp.float32
    # Both within the tolerance of the same optimum.
    wider = jax.tree.map(lambda x: jnp.asarray(x, float), state.q)
    assert float(wider.kl(exact.q)) < 1e-3


def test_single_precision_with_a_large_constant() -> None:
    # ℓ ≈ 1e6 has no digit left for the last improvements; the fit still ends well.
    target, draws = logistic(DIM), make_draws()
    exact = fit(target, wide(), draws)
    far = target._replace(constant=1e6)
    state = fit(narrow(far), narrow(wide()), narrow(draws))
    assert_sound(state)
    assert state.status in (loop.CONVERGED, loop.STUCK)
    wider = jax.tree.map(lambda x: jnp.asarray(x, float), state.q)
    assert float(wider.kl(exact.q)) < 0.05
