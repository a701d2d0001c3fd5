"""A Gaussian evolution strategy as pure functions: init, ask, tell.

The search distribution is a `Gaussian` and moves by the mirror step alone: rank weights
uᵢ of the draws εᵢ, in the frame of its root, give the natural gradient of order zero

    γ = −Σ uᵢ εᵢ,   M = −Σ vᵢ (εᵢ εᵢᵀ − I),

whose rates and retraction are the `Strategy`'s. What else a strategy does, as with the
paths of CMA-ES, is its `Update`'s.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import Gaussian
from ngvi.families.parameters import as_floats
from ngvi.nes.shaping import Ranking, rank
from ngvi.nes.strategy import State, Strategy

__all__ = ["State", "ask", "init", "tell", "tell_ranks"]


def init(
    strategy: Strategy, mean: Float[Array, "d"], sigma: Float[Array, "d"] | float
) -> State:
    """The state before the first generation.

    Args:
        strategy: see `ngvi.nes.strategies`.
        mean: where the search starts, shape (D,).
        sigma: the standard deviation, one for all or each coordinate's.
    """
    (mean,) = as_floats(mean)
    sigma = jnp.broadcast_to(jnp.asarray(sigma, mean.dtype), mean.shape)
    q = Gaussian(mean, strategy.precision(sigma))
    return State(q, strategy.update.begin(q), jnp.zeros((), int))


def ask(strategy: Strategy, state: State, key: Key[Array, ""]) -> Float[Array, "n d"]:
    """Base draws ε ~ N(0, I) of a generation; their points are `state.q.place(ε)`."""
    return strategy.draws(key, strategy.popsize, state.q.dim, state.q.dtype)


def tell(
    strategy: Strategy,
    state: State,
    eps: Float[Array, "n d"],
    values: Float[Array, "n"],
) -> State:
    """The state after a generation.

    Args:
        strategy: see `ngvi.nes.strategies`.
        state: that the draws were asked of.
        eps: base draws; of points from elsewhere, `state.q.precision.whiten(x − m)`.
        values: the objective at the points, to be minimised; NaN ranks last.
    """
    return tell_ranks(strategy, state, eps, rank(values))


def tell_ranks(
    strategy: Strategy, state: State, eps: Float[Array, "n d"], ranking: Ranking
) -> State:
    """`tell`, of values that have been ranked."""
    return strategy.update.move(strategy, state, eps, ranking)
