"""The step repeated until it has converged, as one compiled program.

Fixed draws make L a plain function, so a trial is accepted only if it is finite and
lowers L enough, inside a KL trust region; a rejected one is tried again shorter. A
level of draws has converged when the natural gradient's Fisher length is small. Then
unseen draws say whether the level over-fitted its own; if so the draws double and the
fit goes on, warm. Every quantity compared is the same in all units of z.

    L(q) = mean ℓ(m + Aε) + ½ τ log det S      (the negative ELBO up to a constant)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.families import Gaussian
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import Estimate, Estimator, Potential, mean_metric
from ngvi.mirror.memory import Memory
from ngvi.mirror.retractions import safeguarded
from ngvi.mirror.step import Direction, Retraction, gaussian_path, inner

RUNNING, CONVERGED, DRAWS_EXHAUSTED, STUCK, NOT_FINITE, ITERATIONS_EXHAUSTED = range(6)
STOP_REASONS = (
    "still running",
    "converged: the Fisher length is below its tolerance and unseen draws agree",
    "the natural gradient vanished, but unseen draws still disagree at the largest "
    "number of draws",
    "no step lowers the objective any further, though the natural gradient is not zero",
    "the log density is not finite around the start, however small the covariance",
    "the iterations allowed were used up",
)


@dataclass(frozen=True)
class Settings:
    """What the loop compares with; the defaults need no tuning."""

    tolerance: float = 1e-2
    """Converged at this Fisher length: the ELBO is then within its square's half."""
    loose_tolerance: float = 0.15
    """Fisher length at which a level is first checked against unseen draws."""
    gap_tolerance: float = 0.08
    """Nats by which unseen draws may disagree before the draws double."""
    max_iterations: int = 1000
    """Trial steps in all, over all levels."""
    temperature: float = 1.0
    """τ."""
    retraction: Retraction = safeguarded
    memory: int = 12
    """Pairs of the quasi-Newton memory; 0 for the plain natural gradient."""


class Trace(NamedTuple):
    """One row a trial step, of which `State.iteration` are filled in."""

    elbo: Float[Array, "t"]
    fisher_length: Float[Array, "t"]
    step: Float[Array, "t"]
    draws: Int[Array, "t"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything a fit needs to go on."""

    q: Gaussian
    objective: Float[Array, ""]
    """L(q) on the draws of the level."""
    estimate: Estimate
    memory: Memory
    rho: Float[Array, ""]
    """Length of the next trial."""
    radius: Float[Array, ""]
    """The largest KL(q⁺ ‖ q) a trial may have."""
    level: Int[Array, ""]
    fresh: Bool[Array, ""]
    """q has not been evaluated on the draws of this level yet."""
    checked: Bool[Array, ""]
    """Unseen draws agreed with the level when it had converged loosely."""
    gap: Float[Array, ""]
    """L on unseen draws minus L on the level's, when last compared."""
    tries: Int[Array, ""]
    """Rejections since the last accepted step."""
    status: Int[Array, ""]
    iteration: Int[Array, ""]
    gradients: Int[Array, ""]
    values: Int[Array, ""]
    rejected: Int[Array, ""]
    trace: Trace


def fisher_length(state: State) -> Float[Array, ""]:
    """The Fisher length of the natural gradient at the current iterate."""
    gradient = state.estimate.gradient
    return jnp.sqrt(inner(state.q.precision, gradient, gradient))


def _with_temperature(q: Gaussian, value: Array, settings: Settings) -> Array:
    return value + settings.temperature * q.precision.logdet() / 2


def _evaluate(
    potential: Potential, estimator: Estimator, q: Gaussian, draws: Ladder, level: Array
) -> Estimate:
    """The estimate from all batches of a level."""
    count = 2**level
    first = count - 1
    shapes = jax.eval_shape(lambda eps: estimator(potential, q, eps), draws.batches[0])
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(i: Array, total: Estimate) -> Estimate:
        part = estimator(potential, q, draws.batches[first + i])
        return jax.tree.map(jnp.add, total, part)

    total = jax.lax.fori_loop(0, count, add, zero)
    return jax.tree.map(lambda x: x / count, total)


def values_at(
    potential: Potential, q: Gaussian, eps: Float[Array, "s d"], batch: int = 256
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
    zero, false = jnp.asarray(0), jnp.asarray(False)
    return State(
        q=q,
        objective=jnp.asarray(jnp.inf, dtype),
        estimate=estimate,
        memory=Memory.empty(max(settings.memory, 1), estimate.gradient),
        rho=jnp.ones((), dtype),
        radius=jnp.asarray(_smallest_radius(q.dim), dtype),
        level=zero,
        fresh=jnp.asarray(True),
        checked=false,
        gap=jnp.asarray(jnp.inf, dtype),
        tries=zero,
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


def _search_direction(
    state: State, settings: Settings
) -> tuple[Direction, Float[Array, ""], Bool[Array, ""]]:
    """The direction of the next trial, its slope ⟨direction, gradient⟩, and whether the
    memory shaped it."""
    gradient = state.estimate.gradient
    precision = state.q.precision

    def product(a: Direction, b: Direction) -> Array:
        return inner(precision, a, b)

    solve = mean_metric(state.q, state.estimate)

    def precondition(d: Direction) -> Direction:
        return Direction(solve(d.mean), d.curvature)

    plain = precondition(gradient)
    if not settings.memory:
        return plain, product(plain, gradient), jnp.asarray(False)
    quick = state.memory.direction(gradient, product, precondition)
    slope = product(quick, gradient)
    squared = product(gradient, gradient)
    steep = slope > 1e-3 * jnp.sqrt(product(quick, quick) * squared)
    # Far from the optimum old pairs mislead; a twice rejected step drops them too.
    near = squared < 0.05 * state.q.dim
    usable = near & steep & (state.memory.weight[0] > 0) & (state.tries < 3)
    direction = jax.tree.map(lambda a, b: jnp.where(usable, a, b), quick, plain)
    return direction, product(direction, gradient), usable


def _smallest_radius(dim: int) -> float:
    """Half a nat a dimension: about one posterior sd in each coordinate."""
    return max(dim / 2, 1.0)


def trial(
    potential: Potential,
    estimator: Estimator,
    state: State,
    draws: Ladder,
    settings: Settings,
) -> State:
    """One trial step: propose, evaluate, accept or reject."""
    dim = state.q.dim
    direction, slope, accelerated = _search_direction(state, settings)
    path = gaussian_path(state.q, direction, settings.retraction)
    # A level's first evaluation is at q itself: a step of length 0.
    rho = jnp.where(
        state.fresh,
        0.0,
        jnp.where(accelerated & (state.tries == 0), 1.0, state.rho),
    ).astype(state.rho.dtype)

    step = path(rho)
    limited = step.kl > state.radius

    def too_far(carry: tuple[Array, Array]) -> Array:
        return ~(carry[1] <= state.radius) & (carry[0] > 1e-12)

    def shorten(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rho, kl = carry
        factor = jnp.sqrt(state.radius / jnp.where(jnp.isfinite(kl), kl, jnp.inf))
        rho = rho * jnp.clip(factor, 0.1, 0.7)
        return rho, path(rho).kl

    rho, _ = jax.lax.while_loop(too_far, shorten, (rho, step.kl))
    step = path(rho)

    estimate = _evaluate(potential, estimator, step.q, draws, state.level)
    objective = _with_temperature(step.q, estimate.value, settings)
    finite = jnp.isfinite(objective) & jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), estimate)
    )
    # Rounding: two objectives this close cannot be told apart.
    slack = 8 * jnp.finfo(objective.dtype).eps * jnp.abs(state.objective)
    lower = objective <= state.objective - 1e-4 * rho * slope + slack
    accept = finite & (state.fresh | lower)

    def product(a: Direction, b: Direction) -> Array:
        return inner(step.q.precision, a, b)

    change = jax.tree.map(jnp.subtract, estimate.gradient, state.estimate.gradient)
    remembered = state.memory.push(step.displacement, change, product)
    # A long step says little about the curvature at its end.
    local = accept & ~state.fresh & (step.kl < 1)

    # The parabola through the value, slope and rejected value has its minimum here.
    excess = objective - state.objective + rho * slope
    bottom = slope * rho**2 / (2 * jnp.where(excess > 0, excess, jnp.inf))
    shorter = jnp.where(finite, jnp.clip(bottom, 0.1 * rho, 0.5 * rho), 0.1 * rho)

    # A step that only the trust region held back may soon be a whole one.
    grow = jnp.where(limited, 4.0, 2.0)

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(accept, new, old)

    # A start that is not finite on these draws: draw closer to the mean.
    retreat = state.fresh & ~finite
    q = jax.tree.map(pick, step.q, state.q)
    closer = replace(q, precision=q.precision.scale(16.0))
    q = jax.tree.map(lambda a, b: jnp.where(retreat, a, b), closer, q)

    row = jnp.minimum(state.iteration, settings.max_iterations - 1)
    entropy = dim * (1 + jnp.log(2 * jnp.pi)) / 2
    objective = pick(objective, state.objective)
    moved = replace(
        state,
        q=q,
        objective=objective,
        estimate=jax.tree.map(pick, estimate, state.estimate),
        memory=jax.tree.map(
            lambda a, b: jnp.where(local, a, b), remembered, state.memory
        ),
        rho=jnp.where(
            state.fresh, 1.0, jnp.where(accept, jnp.minimum(1.0, grow * rho), shorter)
        ).astype(state.rho.dtype),
        radius=jnp.where(
            accept & limited,
            4 * state.radius,
            jnp.where(
                accept,
                state.radius,
                jnp.maximum(state.radius / 4, _smallest_radius(dim)),
            ),
        ),
        fresh=state.fresh & ~accept,
        tries=jnp.where(accept, 0, state.tries + 1),
        iteration=state.iteration + 1,
        gradients=state.gradients + draws.batch_size * 2**state.level,
        rejected=state.rejected + ~accept,
    )
    return replace(
        moved,
        trace=Trace(
            state.trace.elbo.at[row].set(settings.temperature * entropy - objective),
            state.trace.fisher_length.at[row].set(fisher_length(moved)),
            state.trace.step.at[row].set(jnp.where(accept, rho, 0.0)),
            state.trace.draws.at[row].set(draws.batch_size * 2**state.level),
        ),
    )


_MAX_TRIES = 25


def _at_rest(state: State, settings: Settings) -> Array:
    """The level has come to what it was run for."""
    goal = jnp.where(state.checked, settings.tolerance, settings.loose_tolerance)
    done = ~state.fresh & (fisher_length(state) < goal)
    return done | (state.tries >= _MAX_TRIES)


def check(
    potential: Potential, state: State, draws: Ladder, settings: Settings
) -> State:
    """What to do with a level at rest: refine it, climb to the next, or stop."""
    values = values_at(potential, state.q, draws.check)
    unseen = _with_temperature(state.q, values.mean(), settings)
    gap = jnp.where(jnp.isfinite(unseen), unseen - state.objective, jnp.inf)
    # The comparison has an error of its own: that of ℓ less its part quadratic in ε
    # (−log q), which matched draws integrate exactly, over antithetic pairs.
    rest = values - settings.temperature * (draws.check**2).sum(-1) / 2
    pairs = rest.reshape(2, -1).mean(0)
    error = jnp.std(pairs) / jnp.sqrt(pairs.size)
    agree = jnp.abs(gap) < settings.gap_tolerance + error
    length = fisher_length(state)
    stuck = state.tries >= _MAX_TRIES
    # Where rounding hides any further descent, a nearly vanished gradient is one.
    vanished = (length < settings.tolerance) | (
        stuck & (length < 10 * settings.tolerance)
    )
    top = state.level >= draws.levels - 1
    climb = ~agree & ~top & ~state.fresh
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
    strides = jnp.where(jnp.abs(gap) > 4 * settings.gap_tolerance, 2, 1)
    level = jnp.where(
        climb, jnp.minimum(state.level + strides, draws.levels - 1), state.level
    )
    return replace(
        state,
        gap=gap,
        checked=~climb,
        level=level,
        fresh=state.fresh | climb,
        tries=jnp.where(climb, 0, state.tries),
        status=status,
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

    def moving(state: State) -> Array:
        return ~_at_rest(state, settings) & (state.iteration < limit)

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
            _at_rest(state, settings),
            lambda s: check(potential, s, draws, settings),
            lambda s: s,
            state,
        )

    state = jax.lax.while_loop(go_on, level, state)
    exhausted = (state.status == RUNNING) & (state.iteration >= settings.max_iterations)
    return replace(
        state, status=jnp.where(exhausted, ITERATIONS_EXHAUSTED, state.status)
    )
