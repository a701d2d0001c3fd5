"""The driver of fits to data in batches: a first pass, epochs, and what is kept."""

from __future__ import annotations

import time

from ngvi.bayes.checkpointing import Saver
from ngvi.bayes.density import Density, InMemory
from ngvi.bayes.diagnostics import EPOCHS_USED, INTERRUPTED, ONE_PASS
from ngvi.bayes.problem import End, Problem
from ngvi.bayes.reader import Reader
from ngvi.bayes.stream import StreamError
from ngvi.bayes.streamed import (
    converge,
    first_pass,
    renewed,
    with_fewer_checks,
)
from ngvi.bayes.subsampling import RowReader, Subsampled
from ngvi.bayes.sums import Streamed, Sums, of_a_batch, silent
from ngvi.bayes.target import Data
from ngvi.mirror import loop
from ngvi.mirror.trial import smallest_radius
from ngvi.terminal.progress import Progress


class _Watch:
    """The latest state, and a progress line about it."""

    def __init__(
        self,
        batches: Reader | RowReader,
        state: loop.State,
        bar: Progress,
    ) -> None:
        self.batches, self.state, self.bar = batches, state, bar
        self.kept = False
        self.rows = 0
        self.started = time.perf_counter()

    def keep(self, state: loop.State) -> None:
        """Remember a state."""
        self.state, self.kept = state, True

    def resumed(self, saver: Saver) -> loop.State | None:
        """The state of the last checkpoint, None if there is none."""
        saver.beside = self.batches
        found = saver.resumed(lambda: self.state)
        if found is not None:
            self.keep(found)
        return found

    def shown(self, rows: int) -> None:
        """Another batch was read."""
        self.rows += rows
        if not self.bar.enabled:
            return
        last = max(int(self.state.iteration) - 1, 0)
        self.bar.update(
            epoch=self.batches.epoch + 1,
            elbo=float(self.state.trace.elbo[last]),
            fisher_length=float(self.state.length),
            rows_per_second=self.rows / (time.perf_counter() - self.started),
        )


def fit_stream(
    problem: Problem,
    state: loop.State,
    reader: Reader,
    bar: Progress,
    saver: Saver,
) -> End:
    """A fit to a stream.

    Args:
        problem: its data are those of the first batch.
        state: where a fit to the first batch begins.
        reader: of all batches.
        bar: shows how it is going.
        saver: of checkpoints, which begin after the first pass.
    """
    target, data, _, _, settings, _ = problem = with_fewer_checks(problem)
    sums = Sums(target, reader, data)
    watch = _Watch(reader, state, bar)
    sums.shown = watch.shown
    error, evidence, reason = None, None, None
    resumed = watch.resumed(saver)
    try:
        if resumed is None:
            final = reader.last_pass
            evidence = first_pass(problem, sums, state, watch.keep, final)
        if resumed is None and reader.ended:
            reason = ONE_PASS if reader.stream.once else EPOCHS_USED
        else:
            state = resumed or renewed(
                watch.state, smallest_radius(target.dim, settings)
            )
            reason = converge(problem, sums, state, watch.keep, saver.save_if_due)[1]
            evidence = None
            saver.save(watch.state)
    except KeyboardInterrupt:
        if not watch.kept:
            raise
        reason = INTERRUPTED
    except StreamError as failed:
        if not watch.kept:
            raise
        reason, error = str(failed), failed
    readable = error is None and reader.epoch > 0 and not reader.stream.once
    sums.shown = silent
    left_out: frozenset[str] = frozenset()
    if reader.last is not None:
        left_out = of_a_batch(target, data, reader.last.data, watch.state.q.mean)
    density = Streamed(sums if readable else None, target, data, left_out)
    return _ended(watch, reason, density, settings, evidence, error)


def fit_rows(
    problem: Problem,
    state: loop.State,
    plates: tuple[Subsampled, ...],
    seed: int,
    bar: Progress,
    saver: Saver,
) -> End:
    """A fit to a subsampled plate, whose rows come in batches though the data are in
    memory.

    Args:
        problem: all of it.
        state: where the fit begins, found with all rows.
        plates: the one that is subsampled.
        seed: of the order of the rows.
        bar: shows how it is going.
        saver: of checkpoints.
    """
    target, data, _, _, settings, _ = problem = with_fewer_checks(problem)
    reader = RowReader(plates, Data(data.arrays), seed)
    sums = Sums(target, reader, data)
    watch = _Watch(reader, state, bar)
    sums.shown = watch.shown
    reason = None
    state = watch.resumed(saver) or state
    try:
        reason = converge(problem, sums, state, watch.keep, saver.save_if_due)[1]
        saver.save(watch.state)
    except KeyboardInterrupt:
        reason = INTERRUPTED
    return _ended(watch, reason, InMemory(target, data), settings, None, None)


def _ended(
    watch: _Watch,
    reason: str | None,
    density: Density,
    settings: loop.Settings,
    elbo: float | None,
    error: StreamError | None,
) -> End:
    state, converged = watch.state, None
    if reason == EPOCHS_USED and elbo is None:
        # Not at rest, but within what is taken for so on the way.
        converged = float(state.length) < settings.loose_tolerance
    return End(state, reason, density, converged, watch.batches.epoch, elbo, error)
