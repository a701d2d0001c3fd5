"""Points in the order of asking, values in that of telling; generations of them.

A point keeps the base draw it was made of while the distribution is the one it was
drawn from. In a later one it has the draw that would give it there, none longer than
draws may be: a late value is used like that of a point from elsewhere.

Source: Hansen (2011), Injecting external solutions into CMA-ES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from ngvi.nes import search
from ngvi.nes.draws import longest
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


class Wanted(NamedTuple):
    """A generation that is to be had."""

    strategy: Strategy
    run: Run
    number: int
    eps: Float[np.ndarray, "n d"]
    points: Float[np.ndarray, "n d"]
    left: Callable[[], int]
    """How many evaluations the budget allows beyond what earlier generations have
    seen."""
    generations: int
    """At most so many are to come."""


class Evaluated(NamedTuple):
    """A generation that has been had."""

    eps: Float[np.ndarray, "n d"]
    points: Float[np.ndarray, "n d"]
    values: Float[np.ndarray, "n *c"]
    evaluations: int


class Asking:
    """The points of a run, one after another, from the distribution as it is.

    Args:
        key: of the run.
        box: the bounds.
    """

    def __init__(self, key: Key[jax.Array, ""], box: Domain | None) -> None:
        self.key, self.box = key, box
        self.orders = 0
        """Points so far."""
        self.generation, self.taken = 0, 0
        """Points of the generation that is being taken from."""
        self._batch: tuple[int, Any] = (-1, None)
        """The population that they come from, and its number."""

    def next(
        self,
        strategy: Strategy,
        run: Run,
        generation: int,
        first: tuple[np.ndarray, np.ndarray],
    ) -> Told:
        """Another point, still without its value.

        Args:
            strategy: of the run.
            run: as it is now.
            generation: its number.
            first: the generation's first `popsize` base draws and points.
        """
        if generation != self.generation:
            self.generation, self.taken, self._batch = generation, 0, (-1, None)
        batch, i = divmod(self.taken, strategy.popsize)
        if batch != self._batch[0]:
            drawn = first
            if batch:
                drawn = jax.device_get(_more(strategy, run, self.key, batch, self.box))
            self._batch = batch, drawn
        eps, points = self._batch[1]
        self.taken += 1
        return self._told(generation, points[i], eps[i])

    def foreign(self, point: np.ndarray) -> Told:
        """A point from elsewhere, in the order too."""
        return self._told(-1, point, np.zeros_like(point))

    def _told(self, generation: int, point: np.ndarray, eps: np.ndarray) -> Told:
        self.orders += 1
        return Told(self.orders - 1, generation, point, eps)


@partial(jax.jit, static_argnums=0)
def _more(
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
    length = jnp.linalg.norm(eps, axis=-1, keepdims=True)
    return eps * jnp.minimum(1, longest(q.dim) / jnp.maximum(length, 1e-30))


def best_of(
    told: Sequence[Told], point: np.ndarray, value: float
) -> tuple[np.ndarray, float]:
    """The best of these and of a point with its value."""
    for one in told:
        if np.isfinite(one.value) and one.value < value:
            point, value = one.point, one.value
    return point, value


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
