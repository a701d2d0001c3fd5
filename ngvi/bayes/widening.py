"""Fits of low rank whose rank doubles while that gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from ngvi.bayes.fit_stream import End, Problem
from ngvi.bayes.plan import LowRank
from ngvi.bayes.programs import compiled_resume
from ngvi.mirror import loop

# Nats that twice the rank must gain to be doubled again, and so many a dimension.
_WORTH, _WORTH_EACH = 1.0, 1 / 100
# Trial steps at a rank that is only tried.
_TRIED = 60

Fit = Callable[[Problem, loop.State, int], End]
"""A fit at one rank, of no more trial steps in all than given."""


def fit_widening(
    problem: Problem, state: loop.State, fit: Fit
) -> tuple[End, int, tuple[str, ...]]:
    """A fit at the plan's rank, or if that may grow at the last that was worth it.

    Ranks are tried roughly, on few draws; only the last is fitted to the end.

    Args:
        problem: with a `LowRank` plan.
        state: where it begins.
        fit: see `Fit`.

    Returns:
        How the fit ended, its rank, and a note on what doubling it gained.
    """
    plan = problem.plan
    assert isinstance(plan, LowRank)
    notes: tuple[str, ...] = ()
    most = problem.settings.max_iterations
    if plan.wider is None:
        return fit(problem, state, most), plan.rank, notes

    def tried(problem: Problem, state: loop.State) -> End:
        """Up to a loose tolerance, on the draws of the first level."""
        settings = problem.settings
        loose = settings.loose_tolerance
        rough = replace(settings, tolerance=loose, gap_tolerance=float("inf"))
        limit = min(int(state.iteration) + _TRIED, most)
        return fit(problem._replace(settings=rough), state, limit)

    def may_go_on(end: End) -> bool:
        return end.stop_reason is None and int(end.state.iteration) < most

    end = tried(problem, state)
    while (wider := plan.wider) is not None and may_go_on(end):
        before, plan = _objective(end.state), wider
        problem = problem._replace(plan=plan)
        end = tried(problem, _resumed(problem, end.state, plan.rank))
        gain = before - _objective(end.state)
        notes = (f"twice the rank of {plan.rank // 2} gained {gain:.2g} nats",)
        if not gain > max(_WORTH, _WORTH_EACH * plan.dim):
            break
    if may_go_on(end):
        end = fit(problem, _resumed(problem, end.state, plan.rank), most)
    return end, plan.rank, notes


def _resumed(problem: Problem, state: loop.State, rank: int) -> loop.State:
    """The same q with room for this rank, to be evaluated anew; what was counted is
    kept."""
    q = replace(state.q, precision=state.q.precision.with_rank(rank))
    target, data, _, plan, settings, draws = problem
    begun = compiled_resume(target, plan, settings, data, q, draws)
    counted = ("iteration", "gradients", "values", "rejected", "trace")
    return replace(begun, **{name: getattr(state, name) for name in counted})


def _objective(state: loop.State) -> float:
    """On draws that the fit has not seen, where it came to look at them."""
    return float(state.objective + jnp.where(jnp.isfinite(state.gap), state.gap, 0.0))
