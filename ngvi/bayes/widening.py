"""Fits of low rank whose rank doubles while that gains."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp

from ngvi.bayes.checkpointing import Attributes, Saver
from ngvi.bayes.fit_in_memory import fit_in_memory
from ngvi.bayes.plan import LowRank
from ngvi.bayes.problem import End, Problem
from ngvi.bayes.programs import compiled_resume
from ngvi.mirror import loop
from ngvi.terminal.progress import Progress

# Nats that twice the rank must gain to be doubled again, and so many a dimension.
_WORTH, _WORTH_EACH = 1.0, 1 / 100
# Trial steps at a rank that is only tried.
_TRIED = 60


@dataclass
class _Stage(Attributes):
    """What is done at the moment; kept with the state in checkpoints."""

    rank: int
    tried: bool
    """Whether the rank is only tried, roughly."""
    limit: int
    """Of the trial steps in all."""
    before: float | None = None
    """The objective with half the rank."""
    notes: tuple[str, ...] = ()


def fit_widening(
    problem: Problem, state: loop.State, bar: Progress, saver: Saver
) -> tuple[End, int, tuple[str, ...]]:
    """A fit at the plan's rank, or if that may grow at the last that was worth it.

    Ranks are tried roughly, on few draws; only the last is fitted to the end.

    Args:
        problem: with a `LowRank` plan.
        state: where it begins.
        bar: shows how it is going.
        saver: of checkpoints.

    Returns:
        How the fit ended, its rank, and a note on what doubling it gained.
    """
    plan, most = problem.plan, problem.settings.max_iterations
    assert isinstance(plan, LowRank)
    stage = _Stage(plan.rank, plan.wider is not None, most)
    if stage.tried:
        stage.limit = _trial(state, most)
    begun, saver.beside = state, stage
    state = saver.resumed(lambda: _widened(problem, begun, stage.rank)) or begun
    while True:
        at_rank = problem._replace(plan=replace(plan, rank=stage.rank))
        tried = _rough(at_rank) if stage.tried else at_rank
        end = fit_in_memory(tried, state, bar, saver, stage.limit)
        state = end.state
        over = end.stop_reason is not None or int(state.iteration) >= most
        if over or not stage.tried:
            return end, stage.rank, tuple(stage.notes)
        _go_on(stage, at_rank, state)
        state = _widened(problem, state, stage.rank)


def _go_on(stage: _Stage, problem: Problem, state: loop.State) -> None:
    """To twice the rank if the last doubling was worth it, else to the end."""
    plan, most = problem.plan, problem.settings.max_iterations
    objective = _objective(state)
    assert isinstance(plan, LowRank)
    worth = True
    if stage.before is not None:
        gain = stage.before - objective
        stage.notes = (f"twice the rank of {plan.rank // 2} gained {gain:.2g} nats",)
        worth = gain > max(_WORTH, _WORTH_EACH * plan.dim)
    if worth and plan.wider is not None:
        stage.rank, stage.before = plan.wider.rank, objective
        stage.limit = _trial(state, most)
    else:
        stage.tried, stage.limit = False, most


def _trial(state: loop.State, most: int) -> int:
    return min(int(state.iteration) + _TRIED, most)


def _rough(problem: Problem) -> Problem:
    """To be fitted up to a loose tolerance, on the draws of the first level."""
    settings = problem.settings
    loose, never = settings.loose_tolerance, float("inf")
    settings = replace(settings, tolerance=loose, gap_tolerance=never)
    return problem._replace(settings=settings)


def _widened(problem: Problem, state: loop.State, rank: int) -> loop.State:
    """The same q with room for this rank, to be evaluated anew; what was counted is
    kept."""
    q = replace(state.q, precision=state.q.precision.with_rank(rank))
    target, data, _, plan, settings, draws = problem
    assert isinstance(plan, LowRank)
    plan = replace(plan, rank=rank)
    begun = compiled_resume(target, plan, settings, data, q, draws)
    counted = ("iteration", "gradients", "values", "rejected", "trace")
    return replace(begun, **{name: getattr(state, name) for name in counted})


def _objective(state: loop.State) -> float:
    """On draws that the fit has not seen, where it came to look at them."""
    return float(state.objective + jnp.where(jnp.isfinite(state.gap), state.gap, 0.0))
