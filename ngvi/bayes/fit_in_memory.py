"""The driver of fits to data in memory: a few trial steps in one program after the
other, so that progress can be seen, Ctrl-C stops them, and checkpoints are kept."""

from __future__ import annotations

import time

import jax

from ngvi.bayes.checkpointing import Saver
from ngvi.bayes.density import InMemory
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.problem import End, Problem
from ngvi.bayes.programs import compiled_advance
from ngvi.mirror import loop
from ngvi.terminal.progress import Progress


def fit_in_memory(
    problem: Problem,
    state: loop.State,
    bar: Progress,
    saver: Saver,
    most: int | None = None,
) -> End:
    """Trial steps until the fit stops.

    Args:
        problem: all of it.
        state: where it begins.
        bar: shows how it is going.
        saver: of checkpoints.
        most: steps in all; by default as many as the settings allow.
    """
    target, data, _, plan, settings, draws = problem
    most = settings.max_iterations if most is None else most
    stop_reason = None
    limit, stride = int(state.iteration), 1
    try:
        while int(state.status) == loop.RUNNING and limit < most:
            saver.save_if_due(state)
            stride = min(stride, saver.every)
            limit = min(limit + stride, most)
            before = time.perf_counter()
            state = compiled_advance(target, plan, settings, data, state, draws, limit)
            _show(bar, state)
            # The clocks of several processes differ, and all must go as far.
            quick = jax.process_count() > 1 or time.perf_counter() - before < 0.2
            stride = min(4 * stride, 128) if quick else max(stride // 2, 1)
    except KeyboardInterrupt:
        stop_reason = INTERRUPTED
    saver.save(state)
    return End(state, stop_reason, InMemory(target, data))


def _show(bar: Progress, state: loop.State) -> None:
    last = max(int(state.iteration) - 1, 0)
    trace = jax.device_get(state.trace)
    bar.update(
        iteration=last + 1,
        elbo=float(trace.elbo[last]),
        fisher_length=float(trace.fisher_length[last]),
        step=float(trace.step[last]),
        draws=int(trace.draws[last]),
    )
