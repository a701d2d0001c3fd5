"""A whole fit of a small problem, compiled once for a class of potentials."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families import Gaussian
from ngvi.linalg import Dense, PositiveDefinite
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder, ladder
from ngvi.mirror.estimates import Estimator, FirstOrder
from ngvi.mirror.start import find_start

DIM = 4
SETTINGS = loop.Settings(max_iterations=200)
PRECISE = loop.Settings(max_iterations=200, tolerance=1e-9, loose_tolerance=1e-9)
PLAIN = replace(PRECISE, memory=0)
FIRST = FirstOrder()
WITH_CURVATURE = FirstOrder(full_curvature=True)

# Potentials are pytrees of data, so each class is compiled once for a shape.


@partial(jax.jit, static_argnums=(4, 5))
def go(
    potential: Any,
    state: loop.State,
    draws: Ladder,
    limit: int,
    estimator: Estimator = FIRST,
    settings: loop.Settings = SETTINGS,
) -> loop.State:
    """`loop.run` from a state."""
    return loop.run(lambda z: potential(z), estimator, state, draws, settings, limit)


def begin(
    potential: Any,
    q: Gaussian,
    draws: Ladder,
    estimator: Estimator = FIRST,
    settings: loop.Settings = SETTINGS,
) -> loop.State:
    return loop.initial_state(lambda z: potential(z), estimator, q, draws, settings)


def fit(
    potential: Any,
    q: Gaussian,
    draws: Ladder,
    estimator: Estimator = FIRST,
    settings: loop.Settings = SETTINGS,
) -> loop.State:
    """From q until the loop stops."""
    state = begin(potential, q, draws, estimator, settings)
    limit = settings.max_iterations
    return go(potential, state, draws, limit, estimator, settings)


@jax.jit
def from_start(potential: Any, point: jax.Array) -> Gaussian:
    start = find_start(lambda z: potential(z), point)
    return Gaussian(start.point, start.precision)


def make_draws(levels: int = 5, seed: int = 0, dtype: type = float) -> Ladder:
    return ladder(DIM, 2 * (DIM + 1), levels, 512, seed, dtype)


def wide(dim: int = DIM, sd: float = 1.0, structure: type = Dense) -> Gaussian:
    precision: PositiveDefinite = structure.from_dense(jnp.eye(dim) / sd**2)
    return Gaussian(jnp.zeros(dim), precision)


def rows(state: loop.State) -> dict[str, np.ndarray]:
    """The filled rows of the trace."""
    n = int(state.iteration)
    return {k: np.asarray(v)[:n] for k, v in state.trace._asdict().items()}


def assert_sound(state: loop.State) -> None:
    """Nothing in a state that a person is shown is NaN."""
    for leaf in jax.tree.leaves(state.q):
        assert np.isfinite(leaf).all()
    trace = rows(state)
    for name, column in trace.items():
        assert not np.isnan(column).any(), name
    assert np.isfinite(trace["fisher_length"]).all()
    assert int(state.status) in range(len(loop.STOP_REASONS))
