"""The step repeated until it has converged, as one compiled program.

Fixed draws make L a plain function, so a trial is accepted only if it is finite and
lowers L enough, inside a KL trust region; a rejected one is tried again shorter. A
level of draws has converged when the natural gradient's Fisher length is small. Then
unseen draws say whether the level over-fitted its own; if so the draws double and the
fit goes on, warm. Every quantity compared is the same in all units of z.

    L(q) = mean ℓ(m + Aε) + ½ log det S      (the negative ELBO up to a constant)

Another temperature is another ℓ: the optimum of E_q[ℓ] − τ Entropy is that of ℓ/τ.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ngvi.families import Gaussian
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import Estimator, Potential
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
from ngvi.mirror.trial import decide, evaluate, propose, smallest_radius, trial
from ngvi.mirror.unseen import at_rest, check, compare, compare_estimates

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
]


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
            lambda: compare_estimates(state, estimate, draws, settings),
            lambda: decide(state, proposal, estimate, draws, settings),
        )

    return jax.lax.while_loop(go_on, turn, state)
