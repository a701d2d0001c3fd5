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
_WORTH, _WORTH_EACH = 1.0, 1 / 500


def fit_widening(
    problem: Problem,
    state: loop.State,
    fit: Callable[[Problem, loop.State], End],
) -> tuple[End, int, tuple[str, ...]]:
    """A fit at the plan's rank, then at twice the rank, while that gains.

    Args:
        problem: with a `LowRank` plan.
        state: where it begins.
        fit: a fit at one rank.

    Returns:
        How the last fit ended, its rank, and a note on what doubling it gained.
    """
    plan = problem.plan
    assert isinstance(plan, LowRank)
    end = fit(problem, state)
    notes: tuple[str, ...] = ()
    while (wider := plan.wider) is not None and _done(end):
        before = _objective(end.state)
        problem = problem._replace(plan=wider)
        q = replace(end.state.q, precision=end.state.q.precision.with_rank(wider.rank))
        begun = compiled_resume(
            problem.target, wider, problem.settings, problem.data, q, problem.draws
        )
        fresh = ("q", "estimate", "memory", "fresh", "objective", "length")
        state = replace(
            end.state,
            **{name: getattr(begun, name) for name in fresh},
            checked=jnp.asarray(False),
            status=begun.status,
            tries=begun.tries,
            idle=begun.idle,
        )
        plan, end = wider, fit(problem, state)
        gain = before - _objective(end.state)
        notes = (f"twice the rank of {wider.rank // 2} gained {gain:.2g} nats",)
        if not gain > max(_WORTH, _WORTH_EACH * plan.dim):
            break
    return end, plan.rank, notes


def _done(end: End) -> bool:
    return end.stop_reason is None and int(end.state.status) in (
        loop.CONVERGED,
        loop.DRAWS_EXHAUSTED,
    )


def _objective(state: loop.State) -> float:
    """On draws that the fit has not seen."""
    return float(state.objective + state.gap)
