"""The step repeated until it has converged, as one compiled program.

Fixed draws make L a plain function, so a trial is accepted only if it is finite and
lowers L enough, inside a KL trust region; a rejected one is tried again shorter. A
level of draws has converged when the natural gradient's Fisher length is small. Then
unseen draws say whether the level over-fitted its own; if so the draws double and the
fit goes on, warm. Every quantity compared is the same in all units of z.

    L(q) = mean ℓ(m + Aε) + ½ τ log det S      (the negative ELBO up to a constant)
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ngvi.families import Gaussian
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import Estimate, Estimator, Potential
from ngvi.mirror.memory import Memory
from ngvi.mirror.state import (
    CONVERGED,
    DRAWS_EXHAUSTED,
    ITERATIONS_EXHAUSTED,
    NOT_FINITE,
    RUNNING,
    STOP_REASONS,
    STUCK,
    Settings,
    State,
    Trace,
)
from ngvi.mirror.step import fisher_length
from ngvi.mirror.trial import (
    decide,
    evaluate,
    objective_of,
    propose,
    smallest_radius,
    trial,
)

__all__ = [
    "CONVERGED",
    "DRAWS_EXHAUSTED",
    "ITERATIONS_EXHAUSTED",
    "NOT_FINITE",
    "RUNNING",
    "STOP_REASONS",
    "STUCK",
    "Settings",
    "State",
    "Trace",
    "at_rest",
    "check",
    "compare",
    "initial_state",
    "run",
    "trial",
    "values_at",
]

# Rejections in a row after which no step is expected to be found.
_MAX_TRIES = 25
# Trials in a row that gain nothing: a kink, of which more draws see less.
_MAX_IDLE = 15


def values_at(
    potential: Potential, q: Gaussian, eps: Float[Array, "s d"], batch: int
) -> Float[Array, "s"]:
    """ℓ at every draw, a batch at a time so that memory stays bounded."""
    return jax.lax.map(potential, q.place(eps), batch_size=min(batch, eps.shape[0]))


def initial_state(
    potential: Potential,
    estimator: Estimator,
    q: Gaussian,
    draws: Ladder,
    settings: Settings,
) -> State:
    """A state at q, not evaluated yet."""
    dtype = q.mean.dtype
    shapes = jax.eval_shape(lambda eps: estimator(potential, q, eps), draws.batches[0])
    estimate = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    rows = settings.max_iterations
    zero, false = jnp.zeros((), int), jnp.asarray(False)
    return State(
        q=q,
        objective=jnp.asarray(jnp.inf, dtype),
        estimate=estimate,
        length=jnp.zeros((), dtype),
        memory=Memory.empty(max(settings.memory, 1), estimate.gradient),
        rho=jnp.ones((), dtype),
        radius=jnp.asarray(smallest_radius(q.precision.whole_dim, settings), dtype),
        level=zero,
        fresh=jnp.asarray(True),
        checked=false,
        gap=jnp.asarray(jnp.inf, dtype),
        tries=zero,
        idle=zero,
        status=zero,
        iteration=zero,
        gradients=zero,
        values=zero,
        rejected=zero,
        trace=Trace(
            jnp.zeros(rows, dtype),
            jnp.zeros(rows, dtype),
            jnp.zeros(rows, dtype),
            jnp.zeros(rows, int),
        ),
    )


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
    values = values_at(potential, state.q, draws.check, settings.at_once)
    return compare(state, values, draws, settings)


def compare(
    state: State, values: Float[Array, "s"], draws: Ladder, settings: Settings
) -> State:
    """`check`, from ℓ at the unseen draws, `draws.check`."""
    gap = _gap(state, values.mean(), settings)
    # The comparison has an error of its own: that of ℓ less its part quadratic in ε
    # (−log q), which matched draws integrate exactly, over antithetic pairs.
    rest = values - settings.temperature * (draws.check**2).sum(-1) / 2
    pairs = rest.reshape(2, -1).mean(0)
    error = jnp.std(pairs) / jnp.sqrt(pairs.size)
    return _settle(state, _Unseen(gap, jnp.abs(gap), error), draws, settings)


def _compare_estimates(
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
    gap = _gap(state, estimate.value, settings)
    misled = squared * share
    unseen = _Unseen(gap, misled, jnp.zeros_like(misled))
    return _settle(state, unseen, draws, settings)


def _gap(state: State, mean_potential: Array, settings: Settings) -> Array:
    unseen = objective_of(state.q, mean_potential, settings)
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


def run(
    potential: Potential,
    estimator: Estimator,
    state: State,
    draws: Ladder,
    settings: Settings,
    limit: int | Int[Array, ""],
) -> State:
    """Go on until the fit stops or `limit` trial steps have been made in all.

    Args:
        potential: ℓ.
        estimator: of the natural gradient, see `ngvi.mirror.estimates`.
        state: from `initial_state`, or from an earlier call.
        draws: the ladder of base draws.
        settings: static.
        limit: the number of trial steps, counted from the start of the fit, at which to
            come back to the caller.
    """

    limit = jnp.minimum(limit, settings.max_iterations)
    if settings.unseen == "estimate":
        state = _by_turns(potential, estimator, state, draws, settings, limit)
    else:
        state = _by_levels(potential, estimator, state, draws, settings, limit)
    exhausted = (state.status == RUNNING) & (state.iteration >= settings.max_iterations)
    return replace(
        state, status=jnp.where(exhausted, ITERATIONS_EXHAUSTED, state.status)
    )


def _by_levels(
    potential: Potential,
    estimator: Estimator,
    state: State,
    draws: Ladder,
    settings: Settings,
    limit: Array,
) -> State:
    """Trials until a level is at rest, then its check: unseen draws are asked for ℓ."""

    def moving(state: State) -> Array:
        return ~at_rest(state, settings) & (state.iteration < limit)

    def converge(state: State) -> State:
        return jax.lax.while_loop(
            moving,
            lambda s: trial(potential, estimator, s, draws, settings),
            state,
        )

    def go_on(state: State) -> Array:
        return (state.status == RUNNING) & (state.iteration < limit)

    def level(state: State) -> State:
        state = converge(state)
        return jax.lax.cond(
            at_rest(state, settings),
            lambda s: check(potential, s, draws, settings),
            lambda s: s,
            state,
        )

    return jax.lax.while_loop(go_on, level, state)


def _by_turns(
    potential: Potential,
    estimator: Estimator,
    state: State,
    draws: Ladder,
    settings: Settings,
    limit: Array,
) -> State:
    """The same where unseen draws are asked for what a trial's are: each turn is a
    trial or a check, and the two share one evaluation."""

    def go_on(state: State) -> Array:
        left = (state.iteration < limit) | at_rest(state, settings)
        return (state.status == RUNNING) & left

    def turn(state: State) -> State:
        resting = at_rest(state, settings)
        proposal = propose(state, settings)
        q = jax.tree.map(
            lambda a, b: jnp.where(resting, a, b), state.q, proposal.step.q
        )
        estimate = evaluate(potential, estimator, q, draws, state.level, resting)
        return jax.lax.cond(
            resting,
            lambda: _compare_estimates(state, estimate, draws, settings),
            lambda: decide(state, proposal, estimate, draws, settings),
        )

    return jax.lax.while_loop(go_on, turn, state)
