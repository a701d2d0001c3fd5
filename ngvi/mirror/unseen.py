"""When a level of draws is at rest, and what draws that it has not seen say of it.

A level over-fits its own draws. Where it has come to rest, unseen ones are asked for ℓ,
or for the natural gradient: by how many nats may the level have been misled? The fit
then refines it, climbs to a level of more draws, or stops.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import Estimate, Potential, over_draws
from ngvi.mirror.state import (
    CONVERGED,
    DRAWS_EXHAUSTED,
    NOT_FINITE,
    RUNNING,
    STUCK,
    Settings,
    State,
)
from ngvi.mirror.step import fisher_length
from ngvi.mirror.trial import objective_of

# Rejections in a row after which no step is expected to be found.
_MAX_TRIES = 25
# Trials in a row that gain nothing: a kink, of which more draws see less.
_MAX_IDLE = 15


def _stuck(state: State) -> Array:
    return (state.tries >= _MAX_TRIES) | (~state.fresh & (state.idle >= _MAX_IDLE))


def at_rest(state: State, settings: Settings) -> Array:
    """The level has come to what it was run for."""
    goal = jnp.where(state.checked, settings.tolerance, settings.loose_tolerance)
    done = ~state.fresh & (state.length < goal)
    return done | _stuck(state)


class _Unseen(NamedTuple):
    """A level held against draws that it has not seen."""

    gap: Float[Array, ""]
    """L on them less L on the level's draws."""
    misled: Float[Array, ""]
    """Nats by which the level's draws may have misled it."""
    error: Float[Array, ""]
    """Of that number."""


def check(
    potential: Potential,
    state: State,
    draws: Ladder,
    settings: Settings,
) -> State:
    """What to do with a level at rest: refine it, climb to the next, or stop."""
    values = over_draws(potential, state.q.place(draws.check), settings.at_once)
    return compare(state, values, draws, settings)


def compare(
    state: State, values: Float[Array, "s"], draws: Ladder, settings: Settings
) -> State:
    """`check`, from ℓ at the unseen draws, `draws.check`."""
    gap = _gap(state, values.mean())
    # The comparison has an error of its own: that of ℓ less its part quadratic in ε
    # (−log q), which matched draws integrate exactly, over antithetic pairs.
    rest = values - (draws.check**2).sum(-1) / 2
    pairs = rest.reshape(2, -1).mean(0)
    error = jnp.std(pairs) / jnp.sqrt(pairs.size)
    return _settle(state, _Unseen(gap, jnp.abs(gap), error), draws, settings)


def compare_estimates(
    state: State, estimate: Estimate, draws: Ladder, settings: Settings
) -> State:
    """`check`, from the estimate of the unseen draws: if the mean of N draws is zero,
    that of M others has the squared Fisher length V/M + V/N; the objective was
    over-fitted by V/N, of which half is lost.

    The state learns from these what γ's error comes from: where draws are matched only
    as far as a structure sees, pairs differ by much that cancels in their mean.
    """
    squared = fisher_length(state.q.precision, estimate.gradient) ** 2
    m, n = draws.check_batches[..., 0].size, draws.batch_size * 2**state.level
    share = m / (m + n)
    spread = estimate.gradient.mean**2 * share * (n // 2)
    state = replace(state, estimate=state.estimate._replace(spread=spread))
    gap = _gap(state, estimate.value)
    misled = squared * share
    unseen = _Unseen(gap, misled, jnp.zeros_like(misled))
    return _settle(state, unseen, draws, settings)


def _gap(state: State, mean_potential: Array) -> Array:
    unseen = objective_of(state.q, mean_potential)
    return jnp.where(jnp.isfinite(unseen), unseen - state.objective, jnp.inf)


def _settle(state: State, unseen: _Unseen, draws: Ladder, settings: Settings) -> State:
    agree = unseen.misled < settings.gap_tolerance + unseen.error
    length = state.length
    stuck = _stuck(state)
    # Where rounding hides any further descent, a nearly vanished gradient is one.
    vanished = (length < settings.tolerance) | (
        stuck & (length < 10 * settings.tolerance)
    )
    top = state.level >= draws.levels - 1
    climb = (~agree | (stuck & ~vanished)) & ~top & ~state.fresh
    status = jnp.select(
        [
            state.fresh,
            climb,
            vanished & agree,
            vanished,
            stuck,
        ],
        [NOT_FINITE, RUNNING, CONVERGED, DRAWS_EXHAUSTED, STUCK],
        RUNNING,
    )
    # The over-fit falls as 1/N: a large one is not worth a level in between.
    strides = jnp.where(unseen.misled > 4 * settings.gap_tolerance, 2, 1)
    level = jnp.where(
        climb, jnp.minimum(state.level + strides, draws.levels - 1), state.level
    )
    return replace(
        state,
        gap=unseen.gap,
        checked=~climb,
        level=level,
        fresh=state.fresh | climb,
        tries=jnp.where(climb, 0, state.tries),
        idle=jnp.where(climb, 0, state.idle),
        status=status.astype(state.status.dtype),
        values=state.values + draws.check.shape[0],
    )
