"""Whole searches as one compiled program, and objectives for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.nes.search import State, ask, tell
from ngvi.nes.strategies import Strategy

Objective = Callable[[jax.Array, jax.Array], jax.Array]
"""(point, data of the objective) ↦ value."""


class Killed(BaseException):
    """As a kill would: no handler of Exceptions sees it."""


class Trace(NamedTuple):
    """A search, generation by generation."""

    best: jax.Array
    mean: jax.Array


@partial(jax.jit, static_argnums=(0, 1, 5))
def run(
    strategy: Strategy,
    objective: Objective,
    state: State,
    key: jax.Array,
    data: jax.Array,
    generations: int,
) -> tuple[State, Trace]:
    """A search of so many generations for each of a batch of keys."""

    def generation(state: State, key: jax.Array) -> tuple[State, Trace]:
        eps = ask(strategy, state, key)
        values = jax.vmap(lambda x: objective(x, data))(state.q.place(eps))
        state = tell(strategy, state, eps, values)
        return state, Trace(values.min(), state.q.mean)

    def search(key: jax.Array) -> tuple[State, Trace]:
        return jax.lax.scan(generation, state, jax.random.split(key, generations))

    return jax.vmap(search)(key)


def sphere(x: jax.Array, center: jax.Array) -> jax.Array:
    return ((x - center) ** 2).sum()


def quadratic(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return x @ matrix @ x


def flat(x: jax.Array, axes: jax.Array) -> jax.Array:
    """10⁴ times as flat along the columns of `axes` as across."""
    along = x @ axes
    return (along**2).sum() + 1e4 * ((x - axes @ along) ** 2).sum()


def rotated_ellipsoid(dim: int, condition: float, seed: int) -> np.ndarray:
    """A matrix with eigenvalues from 1 to `condition` in generic directions."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    return rotation * np.logspace(0, np.log10(condition), dim) @ rotation.T


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def covariance(state: State) -> np.ndarray:
    return np.asarray(jnp.asarray(state.q.precision.inverse_dense()))
