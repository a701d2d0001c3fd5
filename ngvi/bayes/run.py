"""A fit of a Gaussian, from a target and its data to a posterior."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import cast

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ngvi.bayes import compile_time
from ngvi.bayes.checkpointing import EVERY, Saver, identity
from ngvi.bayes.checks import blame, undefined_arguments
from ngvi.bayes.density import InMemory
from ngvi.bayes.fit_in_memory import fit_in_memory
from ngvi.bayes.fit_stream import fit_rows, fit_stream
from ngvi.bayes.model_trace import Trace
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plan import LowRank, Structured
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.problem import Problem
from ngvi.bayes.programs import compiled_begin
from ngvi.bayes.reader import Reader
from ngvi.bayes.record import FitRecord
from ngvi.bayes.sampled import Sampled
from ngvi.bayes.sharding import draws_shared_out, shared_out
from ngvi.bayes.shared_model import Indivisible, share_out
from ngvi.bayes.shares import Shared
from ngvi.bayes.structure import Covariance, choose
from ngvi.bayes.target import Data, Target
from ngvi.bayes.widening import fit_widening
from ngvi.mirror import loop
from ngvi.terminal.progress import Progress


def run(
    target: Target,
    data: Data,
    point: Float[Array, "d"],
    trace: Trace | None,
    *,
    name: str,
    covariance: Covariance,
    rank: int | None = None,
    seed: int = 0,
    settings: loop.Settings | None = None,
    reader: Reader | None = None,
    progress: bool | None = None,
    started: float | None = None,
    checkpoint: str | PathLike[str] | None = None,
    every: int | None = None,
    mesh: Mesh | None = None,
) -> Posterior:
    """The best Gaussian, see `ngvi.fit`.

    Args:
        target: what is fitted.
        data: its arrays, with a prior of their own if there is one.
        point: of the unconstrained space, where the fit starts.
        trace: the recorded run of a NumPyro model, else None.
        name: of the model, for people.
        covariance, rank, seed, settings, progress, checkpoint, every, mesh: as in
            `ngvi.fit`.
        reader: of batches, where the data are not held at once.
        started: when the fit began, on `time.perf_counter`'s clock; by default now.

    Raises:
        ValueError: the density or its gradient is not finite at the start, or the
            covariance is not possible.
        StreamError: a batch is unusable; it has the fit so far.
    """
    started = time.perf_counter() if started is None else started
    with compile_time.measure() as compiling, Progress(progress, name) as bar:
        subsampled = target.subsampled if isinstance(target, ModelTarget) else ()
        in_batches = bool(subsampled) or reader is not None
        if mesh is not None:
            if in_batches:
                raise ValueError("A mesh is for data in memory, not for batches.")
            data = shared_out(data, trace, mesh)
        plan, structure = choose(
            covariance, target, data, point, trace, in_batches, rank
        )
        of_device, begun_at = target, point
        if mesh is not None and isinstance(plan, Structured):
            plates = structure.plates
            try:
                plan = share_out(plan, plates, target, data, point, trace, mesh)
                of_device, begun_at = plan.target, plan.spread(point)
            except Indivisible as why:
                note = f"every device has all blocks: {why}"
                structure = replace(structure, notes=(*structure.notes, note))
        settings = plan.settings(settings or loop.Settings())
        draws = plan.draws(seed, point.dtype)
        if mesh is not None and not isinstance(plan, Shared):
            draws = draws_shared_out(draws, mesh)
        problem = Problem(of_device, data, begun_at, plan, settings, draws)
        beginning = compiled_begin(of_device, plan, settings, data, begun_at, draws)
        if not beginning.finite:
            undefined = undefined_arguments(*target.arguments.join(data))
            raise ValueError(_not_finite(trace, beginning.value) + undefined)
        state = beginning.state
        asked = problem._replace(target=target, point=point)
        with _saver(checkpoint, every, asked, seed, in_batches) as saver:
            if reader is not None:
                end = fit_stream(problem, state, reader, bar, saver)
            elif subsampled:
                end = fit_rows(problem, state, subsampled, seed, bar, saver)
            elif isinstance(plan, LowRank):
                end, found, notes = fit_widening(problem, state, bar, saver)
                notes = (*structure.notes, *notes)
                structure = replace(structure, rank=found, notes=notes)
            else:
                state = saver.resumed(lambda: beginning.state) or state
                end = fit_in_memory(problem, state, bar, saver)
        if isinstance(plan, Shared):
            of_all = plan.together(end.state)
            end = end._replace(state=of_all, density=InMemory(target, data))
    record = FitRecord.of(
        end.state,
        name=name,
        structure=structure,
        seed=seed,
        seconds=compiling.split(started),
        stop_reason=end.stop_reason,
        converged=end.converged,
        epochs=end.epochs,
        elbo=end.elbo,
    )
    posterior = Posterior(target, data, end.state.q, record, trace, end.density)
    if end.error is not None:
        end.error.posterior = posterior
        raise end.error
    return posterior


def run_again(
    posterior: Sampled,
    point: Float[Array, "d"],
    *,
    covariance: Covariance | None = None,
    seed: int | None = None,
    progress: bool | None = False,
) -> Posterior:
    """A fit of the same model, data and prior, begun at another point.

    Args:
        posterior: of a Gaussian.
        point: of the unconstrained space.
        covariance: by default what it was.
        seed: of the base draws; by default what it was.
        progress: as in `ngvi.fit`.

    Raises:
        ValueError: the density or its gradient is not finite there.
    """
    before = posterior.record
    rank = before.structure.rank if before.structure and covariance is None else None
    return run(
        posterior.target,
        posterior.data,
        point,
        posterior.trace,
        name=posterior.name,
        covariance=covariance or cast("Covariance", before.diagnostics.covariance),
        rank=rank,
        seed=before.diagnostics.seed if seed is None else seed,
        progress=progress,
    )


def _saver(
    folder: str | PathLike[str] | None,
    every: int | None,
    problem: Problem,
    seed: int,
    in_batches: bool,
) -> Saver:
    """What keeps checkpoints, where they are asked for."""
    target, data, point, plan, settings, _ = problem
    covariance = plan.covariance
    if isinstance(plan, LowRank):
        covariance += f" {plan.rank}" + " or more" * plan.growing
    # An epoch may take hours; a trial in memory is over before it could be written.
    every = (1 if in_batches else EVERY) if every is None else every
    known = partial(identity, target, data, point, covariance, settings, seed)
    return Saver(folder, every, known)


def _not_finite(trace: Trace | None, value: Array) -> str:
    text = f"The log density at the start is {-float(value)}."
    if np.isfinite(value):
        text = "The gradient of the log density at the start is not finite."
    if trace is None:
        return f"{text} Start where it is finite: init=…"
    return f"{text} {blame(trace)} Try another init_strategy."
