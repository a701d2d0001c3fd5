"""The compiled programs of a fit in memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from ngvi.bayes.plan import Plan
from ngvi.bayes.quick import TRIALS, Compiled, Work
from ngvi.bayes.shares import Shared
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder


class Beginning(NamedTuple):
    """Where a fit starts."""

    state: loop.State
    value: Float[Array, ""]
    """−log p at the given point."""
    finite: Bool[Array, ""]
    """Whether it and its gradient are finite there."""


def begin(
    target: Target,
    plan: Plan,
    settings: loop.Settings,
    data: Data,
    point: Float[Array, "d"],
    draws: Ladder,
) -> Beginning:
    """The state a fit starts from: a descent from `point`, or `point` itself."""
    if isinstance(plan, Shared):
        each = partial(begin, target, plan.part, settings)
        specs = PartitionSpec(plan.axis), plan.of_draws
        everywhere = PartitionSpec()
        results = Beginning(plan.of_state, everywhere, everywhere)  # type: ignore
        return plan.on_devices(each, specs, results)(data, point, draws)
    start = plan.start(partial(target.potential, data), point)
    q = Gaussian(start.point, start.precision)
    state = resume(target, plan, settings, data, q, draws)
    state = replace(state, gradients=state.gradients + start.gradients)
    return Beginning(state, start.value, start.finite)


def resume(
    target: Target,
    plan: Plan,
    settings: loop.Settings,
    data: Data,
    q: Gaussian,
    draws: Ladder,
) -> loop.State:
    """The state of a fit that begins at q."""
    potential = partial(target.potential, data)
    return loop.initial_state(potential, plan.estimator(), q, draws, settings)


def advance(
    target: Target,
    plan: Plan,
    settings: loop.Settings,
    data: Data,
    state: loop.State,
    draws: Ladder,
    limit: int | Array,
) -> loop.State:
    """Trial steps up to the `limit`-th, or until the fit stops."""
    if isinstance(plan, Shared):
        each = partial(advance, target, plan.part, settings)
        specs = plan.of_state, plan.of_draws, PartitionSpec()
        return plan.on_devices(each, specs, plan.of_state)(data, state, draws, limit)
    potential = partial(target.potential, data)
    return loop.run(potential, plan.estimator(), state, draws, settings, limit)


def solve(
    target: Target,
    plan: Plan,
    settings: loop.Settings,
    data: Data,
    point: Float[Array, "d"],
    draws: Ladder,
) -> loop.State:
    """A whole fit as one pure function: `vmap` it over draws (seeds) or data."""
    state = begin(target, plan, settings, data, point, draws).state
    return advance(target, plan, settings, data, state, draws, settings.max_iterations)


def _work(target: Target, _: Plan, __: loop.Settings, data: Data, *rest: Any) -> Work:
    """Of a whole fit, at the draws of the first level."""
    draws = next(part for part in rest if isinstance(part, Ladder))
    return target, data, TRIALS * draws.batch_size


# Compiled once for equal targets and shapes: the data are arguments.
_compiled = partial(Compiled, static_argnums=(0, 1, 2), work=_work)
compiled_begin = _compiled(begin)
compiled_resume = _compiled(resume)
compiled_advance = _compiled(advance)
