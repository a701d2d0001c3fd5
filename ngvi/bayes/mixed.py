"""From a posterior that is a Gaussian to one that is a mixture of them."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ngvi.bayes import compile_time
from ngvi.bayes.checkpointing import Saver, identity
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.mixture_fit import fit_mixture
from ngvi.bayes.mixture_rounds import rounds_of
from ngvi.mirror import loop
from ngvi.terminal.progress import Progress

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior


def mixed(
    posterior: Posterior,
    *,
    deadline: float = float("inf"),
    progress: bool | None = None,
    checkpoint: str | PathLike[str] | None = None,
) -> Posterior:
    """The same model and data, with the mixture that grows from this Gaussian for q.

    Args:
        posterior: the fit of a Gaussian, of any covariance.
        deadline: on `time.perf_counter`'s clock, after which no round begins.
        progress: show a progress line; by default when stderr is a terminal.
        checkpoint: the folder of the Gaussian's checkpoints; every round adds one in a
            folder of their own in there.

    Raises:
        ValueError: there are too many dimensions.
        TypeError: the data were read in batches, or q is no Gaussian.
    """
    posterior._needs_data("A mixture", "fit a model to data in memory")
    posterior._needs_gaussian("A mixture's start", "begin from a fit with one")
    started = time.perf_counter()
    before = posterior.record.diagnostics
    known = partial(
        identity,
        posterior.target,
        posterior.data,
        posterior.gaussian.mean,
        "mixture",
        loop.Settings(),  # a mixture takes none, so that they never differ
        before.seed,
    )
    folder = None if checkpoint is None else Path(checkpoint) / "mixture"
    with (
        compile_time.measure() as compiling,
        Progress(progress, posterior.name) as bar,
        Saver(folder, 1, known, rounds_of) as saver,
    ):
        fitted = fit_mixture(
            posterior.target,
            posterior.data,
            posterior.gaussian,
            posterior.log_density,
            seed=before.seed,
            deadline=deadline,
            shown=bar.update,
            saver=saver,
        )
    seconds_compiling, seconds_running = compiling.split(started)
    finite = bool(np.isfinite(fitted.elbo))
    diagnostics = replace(
        before,
        elbo=fitted.elbo,
        iterations=before.iterations + len(fitted.history["iteration"]),
        gradient_evaluations=before.gradient_evaluations + fitted.gradients,
        value_evaluations=before.value_evaluations + fitted.values,
        draws=int(fitted.history["draws"][-1]),
        seconds_compiling=before.seconds_compiling + seconds_compiling,
        seconds_running=before.seconds_running + seconds_running,
        fisher_length=fitted.length,
        gap=float("nan"),
        converged=finite and fitted.stop_reason != INTERRUPTED,
        stop_reason=fitted.stop_reason,
        covariance="mixture",
    )
    record = replace(
        posterior.record,
        diagnostics=diagnostics,
        history=fitted.history,
        structure=None,
    )
    return posterior.with_approximation(fitted.q, record)
