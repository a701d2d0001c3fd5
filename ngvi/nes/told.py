"""Values in the order in which they come in, and the generations they make.

A point keeps the base draw it was made of while the distribution is the one it was
drawn from. In a later one it has the draw that would give it there, none longer than
draws may be: a late value is used like that of a point from elsewhere.

Source: Hansen (2011), Injecting external solutions into CMA-ES.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from ngvi.nes import search
from ngvi.nes.generation import Run, place
from ngvi.nes.lattice import Domain
from ngvi.nes.strategies import Strategy


class Told(NamedTuple):
    """A point that was asked for, or came from elsewhere, and its value."""

    order: int
    """Of asking."""
    generation: int
    """That it was drawn in; −1 for a point from elsewhere."""
    point: np.ndarray
    eps: np.ndarray
    value: float = np.nan


@partial(jax.jit, static_argnums=0)
def draw_more(
    strategy: Strategy,
    run: Run,
    key: Key[jax.Array, ""],
    batch: int,
    box: Domain | None,
) -> tuple[Float[jax.Array, "n d"], Float[jax.Array, "n d"]]:
    """One more population of draws from the distribution as it is, the batch-th."""
    key = jax.random.fold_in(key, run.state.generation)
    eps = search.ask(strategy, run.state, jax.random.fold_in(key, batch))
    return eps, place(run, eps, box)


@jax.jit
def draws_of(
    run: Run, points: Float[jax.Array, "n d"], box: Domain | None
) -> Float[jax.Array, "n d"]:
    """The base draws of points from elsewhere, none longer than draws may be."""
    y = points if box is None else box.invert(points)
    q = run.state.q
    eps = q.precision.whiten(y - q.mean)
    longest = jnp.sqrt(q.dim) + 2 * q.dim / (q.dim + 2)
    length = jnp.linalg.norm(eps, axis=-1, keepdims=True)
    return eps * jnp.minimum(1, longest / jnp.maximum(length, 1e-30))


def make_generation(
    told: Sequence[Told], run: Run, generation: int, box: Domain | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The base draws, points and values that make one generation of a run."""
    # In the order of asking, so that the order of telling cannot matter.
    told = sorted(told, key=lambda t: t.order)
    points = np.stack([t.point for t in told])
    eps = np.stack([t.eps for t in told])
    old = np.array([t.generation != generation for t in told])
    if old.any():
        eps = np.where(old[:, None], draws_of(run, points, box), eps)
    return eps, points, np.array([t.value for t in told])
