"""Fitness shaping: weights by rank, so that only the order of the values counts.

No monotone transformation of the objective changes a search then. The best value has
rank 1; equal values share the average of their ranks' weights; NaN counts as +∞, the
worst.
"""

from __future__ import annotations

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


def by_rank(
    values: Float[Array, "n"], weights: Float[Array, "n *k"]
) -> Float[Array, "n *k"]:
    """Each value's weight, the smallest value having the first.

    Args:
        values: what is minimised.
        weights: by rank, best first; columns are several weightings of one ranking.
    """
    count = values.shape[0]
    order, index = _sorted(jnp.where(jnp.isnan(values), jnp.inf, values))

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
    return jnp.zeros_like(weights).at[index].set(shared, unique_indices=True)


def _sorted(values: Float[Array, "n"]) -> tuple[Int[Array, "n"], Int[Array, "n"]]:
    """Whole numbers in the order of the values, ascending, and where each was.

    Sorting the bits of floats as whole numbers is ten times as fast: floats are
    compared with care for NaN and −0.
    """
    if jnp.issubdtype(values.dtype, jnp.floating):
        whole = jnp.dtype(f"int{8 * values.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(values, whole)
        values = jnp.where(bits < 0, jnp.iinfo(whole).min - bits, bits)
    index = jnp.arange(values.shape[0])
    order, index = jax.lax.sort((values, index), num_keys=1, is_stable=False)
    return order, index
