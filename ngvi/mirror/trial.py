"""One trial: propose a step, evaluate it, accept it or not.

The direction is the natural gradient, or near the optimum what the quasi-Newton memory
makes of it. Its length is cut until KL(q⁺ ‖ q) fits the trust region. The step is taken
if the objective on the level's draws is finite and lower; else the next trial is
shorter.

An estimate from Hessians is not the gradient of that objective: they differ in the
noise of fourth derivatives. Where it decides, a much shorter natural gradient is as
good a reason to take a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ngvi.families import Gaussian
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import Estimate, Estimator, Potential, mean_metric
from ngvi.mirror.memory import Memory
from ngvi.mirror.state import Settings, State, Trace
from ngvi.mirror.step import Direction, Step, fisher_length, gaussian_path, inner

# Far from the optimum old pairs mislead: the memory is asked only when the squared
# Fisher length, which scales with the dimension, is below this much for each.
_NEAR = 0.05
# Rejections in a row after which the plain natural gradient is tried.
_MEMORY_TRIES = 3
# The part of the natural gradient's length that may be left after a step which the
# objective does not vouch for.
_MUCH_SHORTER = 0.7
# A longer step (in nats) says little about the curvature at its end.
_LOCAL = 1.0


def smallest_radius(dim: int, settings: Settings) -> float:
    """Half a nat a dimension: about one posterior sd in each coordinate. A nat in all,
    and more after success, where a step is straight in the precision itself: in these
    coordinates the memory's directions are soon curved."""
    return 1.0 if settings.from_hessians else max(dim / 2, 1.0)


def objective_of(q: Gaussian, mean_potential: Array) -> Array:
    """L(q) = mean ℓ + ½ log det S: the negative ELBO up to a constant."""
    return mean_potential + q.precision.logdet() / 2


def evaluate(
    potential: Potential,
    estimator: Estimator,
    q: Gaussian,
    draws: Ladder,
    level: Array,
    unseen: Bool[Array, ""] | None = None,
) -> Estimate:
    """The estimate from all batches of a level, or where `unseen` from those that none
    has seen: the estimator is long to compile, and stands here once."""
    batches, first, count = draws.batches, 2**level - 1, 2**level
    shapes = jax.eval_shape(lambda eps: estimator(potential, q, eps), batches[0])
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    if unseen is not None:
        checks = draws.check_batches
        count = jnp.where(unseen, len(checks), count)

    def batch(i: Array) -> Array:
        if unseen is None:
            return batches[first + i]
        return jax.lax.cond(unseen, lambda: checks[i], lambda: batches[first + i])

    def add(i: Array, total: Estimate) -> Estimate:
        return jax.tree.map(jnp.add, total, estimator(potential, q, batch(i)))

    total = jax.lax.fori_loop(0, count, add, zero)
    return jax.tree.map(lambda x: x / count, total)


class _Search(NamedTuple):
    direction: Direction
    slope: Float[Array, ""]
    """⟨direction, gradient⟩: the descent of L a unit of length."""
    accelerated: Bool[Array, ""]
    """The memory shaped the direction."""


def _search(state: State, settings: Settings) -> _Search:
    gradient = state.estimate.gradient
    if not settings.memory and state.estimate.curvature is None:
        return _Search(gradient, state.length**2, jnp.asarray(False))

    def product(a: Direction, b: Direction) -> Array:
        return inner(state.q.precision, a, b)

    solve = mean_metric(state.estimate)

    def precondition(d: Direction) -> Direction:
        return Direction(solve(d.mean), d.curvature)

    plain = precondition(gradient)
    if not settings.memory:
        return _Search(plain, product(plain, gradient), jnp.asarray(False))
    quick = state.memory.direction(gradient, product, precondition)
    squared = product(gradient, gradient)
    steep = product(quick, gradient) > 1e-3 * jnp.sqrt(product(quick, quick) * squared)
    usable = (
        steep
        & (squared < _NEAR * state.q.precision.whole_dim)
        & (state.memory.weight[0] > 0)
        & (state.tries < (1 if settings.from_hessians else _MEMORY_TRIES))
    )
    direction = jax.tree.map(lambda a, b: jnp.where(usable, a, b), quick, plain)
    return _Search(direction, product(direction, gradient), usable)


def _within(
    path: Callable[[Array], Step], rho: Array, radius: Array
) -> tuple[Array, Step, Bool[Array, ""]]:
    """The longest tried length ≤ ρ whose step fits the trust region, that step, and
    whether it is less than ρ."""
    least = 1e3 * jnp.finfo(rho.dtype).tiny

    def too_far(carry: tuple[Array, Step, Array, Array]) -> Array:
        rho, step, tries, _ = carry
        return (tries == 0) | (~(step.kl <= radius) & (rho > least))

    def shorten(
        carry: tuple[Array, Step, Array, Array],
    ) -> tuple[Array, Step, Array, Array]:
        rho, step, tries, limited = carry
        factor = jnp.sqrt(radius / jnp.where(jnp.isfinite(step.kl), step.kl, jnp.inf))
        shorter = rho * jnp.clip(factor, 0.1, 0.7)
        rho = jnp.where(tries == 0, rho, shorter)
        step = path(rho)
        limited = jnp.where(tries == 0, step.kl > radius, limited)
        return rho, step, tries + 1, limited

    # The path is long to compile: it stands here once, in the loop.
    shapes = jax.eval_shape(path, rho)
    nowhere = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    begun = rho, nowhere, jnp.zeros((), int), jnp.asarray(False)
    rho, step, _, limited = jax.lax.while_loop(too_far, shorten, begun)
    return rho, step, limited


def _next_length(
    state: State,
    rho: Array,
    objective: Array,
    slope: Array,
    accept: Array,
    limited: Array,
) -> Array:
    """Longer after success; after a rejection the minimum of the parabola through the
    value, the slope and the rejected value."""
    # A step that only the trust region held back may soon be a whole one.
    longer = jnp.minimum(1.0, jnp.where(limited, 4.0, 2.0) * rho)
    excess = objective - state.objective + rho * slope
    bottom = slope * rho**2 / (2 * jnp.where(excess > 0, excess, jnp.inf))
    safe = jnp.where(jnp.isfinite(objective), bottom, 0.0)
    shorter = jnp.clip(safe, 0.1 * rho, 0.5 * rho)
    length = jnp.where(accept, longer, shorter)
    return jnp.where(state.fresh, 1.0, length).astype(rho.dtype)


def _next_radius(
    state: State, accept: Array, limited: Array, settings: Settings
) -> Array:
    least = smallest_radius(state.q.precision.whole_dim, settings)
    after_success = jnp.where(limited, 4 * state.radius, state.radius)
    return jnp.where(accept, after_success, jnp.maximum(state.radius / 4, least))


def _remember(
    state: State, step: Step, estimate: Estimate, accept: Array, settings: Settings
) -> Memory:
    if not settings.memory:
        return state.memory

    def product(a: Direction, b: Direction) -> Array:
        return inner(step.q.precision, a, b)

    change = jax.tree.map(jnp.subtract, estimate.gradient, state.estimate.gradient)
    pushed = state.memory.push(step.displacement, change, product)
    # Gradients on different draws do not tell a change along the path.
    useful = accept & ~state.fresh & (step.kl < _LOCAL)
    return jax.tree.map(lambda a, b: jnp.where(useful, a, b), pushed, state.memory)


class Proposal(NamedTuple):
    """A step to be tried."""

    step: Step
    rho: Float[Array, ""]
    """Its length."""
    slope: Float[Array, ""]
    """The descent of L a unit of length."""
    limited: Bool[Array, ""]
    """The trust region held it back."""
    accelerated: Bool[Array, ""]
    """The memory shaped its direction."""


def trial(
    potential: Potential,
    estimator: Estimator,
    state: State,
    draws: Ladder,
    settings: Settings,
) -> State:
    """One trial step: propose, evaluate, accept or reject."""
    proposal = propose(state, settings)
    estimate = evaluate(potential, estimator, proposal.step.q, draws, state.level)
    return decide(state, proposal, estimate, draws, settings)


def propose(state: State, settings: Settings) -> Proposal:
    """The step to try next."""
    search = _search(state, settings)
    path = gaussian_path(state.q, search.direction, settings.retraction)
    whole = search.accelerated & (state.tries == 0)
    # A level's first evaluation is at q itself: a step of length 0.
    wish = jnp.where(state.fresh, 0.0, jnp.where(whole, 1.0, state.rho))
    rho, step, limited = _within(path, wish.astype(state.rho.dtype), state.radius)
    return Proposal(step, rho, search.slope, limited, search.accelerated)


def decide(
    state: State,
    proposal: Proposal,
    estimate: Estimate,
    draws: Ladder,
    settings: Settings,
) -> State:
    """Take the step or not, given the estimate at its end."""
    step, rho, slope, limited, accelerated = proposal
    objective = objective_of(step.q, estimate.value)
    length = fisher_length(step.q.precision, estimate.gradient)
    finite = jnp.isfinite(objective) & jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), estimate)
    )
    finite = step.q.precision.everywhere(finite)
    # Rounding: two objectives this close cannot be told apart.
    slack = 8 * jnp.finfo(objective.dtype).eps * jnp.abs(state.objective)
    lower = objective <= state.objective - 1e-4 * rho * slope + slack
    if settings.from_hessians:
        lower |= length < _MUCH_SHORTER * state.length
    accept = finite & (state.fresh | lower)

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(accept, new, old)

    q = jax.tree.map(pick, step.q, state.q)
    # A start that is not finite on these draws: draw closer to the mean.
    retreat = state.fresh & ~finite
    closer = replace(q, precision=q.precision.scale(16.0))
    q = jax.tree.map(lambda a, b: jnp.where(retreat, a, b), closer, q)

    following = _next_length(state, rho, objective, slope, accept, limited)
    if settings.from_hessians:
        # The plain direction is next, of which the memory's length says nothing.
        following = jnp.where(accelerated & ~accept, 0.5, following)
    used = draws.batch_size * 2**state.level
    moved = replace(
        state,
        q=q,
        objective=pick(objective, state.objective),
        estimate=jax.tree.map(pick, estimate, state.estimate),
        length=pick(length, state.length),
        memory=_remember(state, step, estimate, accept, settings),
        rho=following.astype(state.rho.dtype),
        radius=_next_radius(state, accept, limited, settings),
        fresh=state.fresh & ~accept,
        tries=jnp.where(accept, 0, state.tries + 1),
        idle=jnp.where(
            accept & ~(state.objective - objective < settings.tolerance**2 / 2),
            0,
            state.idle + 1,
        ),
        iteration=state.iteration + 1,
        gradients=state.gradients + used * settings.gradients_a_draw,
        rejected=state.rejected + ~accept,
    )
    return _record(moved, jnp.where(accept, rho, 0.0), used, settings)


def _record(state: State, step: Array, draws: Array, settings: Settings) -> State:
    """Fill in the trace's row of the trial just made."""
    row = jnp.minimum(state.iteration, settings.max_iterations) - 1
    dim = state.q.precision.whole_dim
    constant = dim * (1 + jnp.log(2 * jnp.pi)) / 2
    trace = Trace(
        state.trace.elbo.at[row].set(constant - state.objective),
        state.trace.fisher_length.at[row].set(state.length),
        state.trace.step.at[row].set(step),
        state.trace.draws.at[row].set(draws),
    )
    return replace(state, trace=trace)
