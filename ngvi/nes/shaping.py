"""Fitness shaping: weights by rank, so that only the order of the values counts.

No monotone transformation of the objective changes a search then. The best value has
rank 1; equal values share the average of their ranks' weights; NaN counts as +∞, the
worst.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def log_ranks(count: int, zero: float) -> np.ndarray:
    """log(zero) − log k for the ranks k = 1 … count."""
    return np.log(zero) - np.log(np.arange(1, count + 1))


def nes_weights(count: int) -> np.ndarray:
    """The utilities of xNES and SNES: u_k ∝ max(0, log(n/2 + 1) − log k), minus 1/n.

    Source: Wierstra et al. (2014), Natural evolution strategies, section 3.1.
    """
    positive = np.maximum(log_ranks(count, count / 2 + 1), 0)
    return positive / positive.sum() - 1 / count


def recombination_weights(count: int) -> np.ndarray:
    """w_k ∝ max(0, log((n + 1)/2) − log k), summing to one: CMA-ES's, for the mean.

    Source: Hansen (2016), The CMA evolution strategy: a tutorial, equations 49-53.
    """
    positive = np.maximum(log_ranks(count, (count + 1) / 2), 0)
    return positive / positive.sum()


def centered_ranks(count: int) -> np.ndarray:
    """Equally spaced from ½ down to −½, over n: OpenES's."""
    return np.linspace(0.5, -0.5, count) / count


class Ranking(NamedTuple):
    """Values in their order, the smallest first; NaN as +∞."""

    values: Float[Array, "n"]
    place: Int[Array, "n"]
    """Where each of them was."""


def rank(values: Float[Array, "n"]) -> Ranking:
    """The order of the values."""
    values = jnp.where(jnp.isnan(values), jnp.inf, values)
    place = jnp.arange(values.shape[0])
    return Ranking(*jax.lax.sort((values, place), num_keys=1, is_stable=False))


def by_rank(
    values: Float[Array, "n"], weights: Float[Array, "n *k"]
) -> Float[Array, "n *k"]:
    """Each value's weight, the smallest value having the first.

    Args:
        values: what is minimised.
        weights: by rank, best first; columns are several weightings of one ranking.
    """
    return weigh(rank(values), weights)


def weigh(ranking: Ranking, weights: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    """The weights of the ranks, each at the place of its value; see `by_rank`."""
    order = ranking.values
    count = order.shape[0]

    # Runs of equal values [first, last), and the mean weight of each.
    place = jnp.arange(count)
    starts = jnp.concatenate([jnp.ones(1, bool), order[1:] != order[:-1]])
    ends = jnp.concatenate([starts[1:], jnp.ones(1, bool)])
    first = jax.lax.cummax(jnp.where(starts, place, 0))
    last = jax.lax.cummin(jnp.where(ends, place + 1, count), reverse=True)
    total = jnp.cumsum(weights, 0)
    total = jnp.concatenate([jnp.zeros_like(weights[:1]), total])
    length = (last - first).reshape(-1, *[1] * (weights.ndim - 1))
    mean = (total[last] - total[first]) / length.astype(weights.dtype)
    shared = jnp.where(length > 1, mean, weights)
    return jnp.zeros_like(weights).at[ranking.place].set(shared, unique_indices=True)
