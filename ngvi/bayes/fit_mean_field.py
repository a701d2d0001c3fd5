"""The posterior of `ngvi.fit(model, family="mean-field")`: `ngvi.bayes.mean_field`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

from ngvi.bayes import compile_time
from ngvi.bayes.checkpointing import EVERY, Saver, identity
from ngvi.bayes.mean_field import MeanField
from ngvi.bayes.mean_field_start import Beginning
from ngvi.bayes.model_trace import count_observations
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.site_families import MEAN_FIELD
from ngvi.mirror import loop
from ngvi.names import name_of
from ngvi.terminal.progress import Progress


def fit_mean_field(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    *,
    family: Any,
    seed: int,
    init_strategy: Callable[..., Any] | None,
    progress: bool | None,
    settings: loop.Settings | None,
    checkpoint: str | PathLike[str] | None = None,
    every: int | None = None,
) -> Posterior:
    """A family for each site on its own support; the arguments are `ngvi.fit`'s.

    Raises:
        ValueError: a family does not fit its site, a site is unknown or too large, or
            one that is to be conjugate is not; the message names the site.
    """
    started = time.perf_counter()
    name = name_of(model)
    target, data, point, trace = model_target(
        model, args, kwargs, init_strategy, keep_discrete=True
    )
    if target.subsampled:
        raise ValueError(
            f"The plate '{target.subsampled[0].name}' is subsampled: families on the "
            "sites' own supports need the data in one piece. Leave out family=."
        )
    with compile_time.measure() as compiling, Progress(progress, name) as bar:
        beginning = Beginning(
            target, data, point, trace, family, settings or loop.Settings(), seed
        )
        settled = beginning.settle()
        families = " ".join([MEAN_FIELD, *(type(q).__name__ for q in settled.members)])
        known = partial(
            identity, target, data, point, families, beginning.settings, seed
        )
        every = EVERY if every is None else every
        with Saver(checkpoint, every, known, lambda state: state.sweeps) as saver:
            fit = MeanField(beginning, settled, count_observations(trace), bar, saver)
            q, record = fit.run()
    seconds_compiling, seconds_running = compiling.split(started)
    diagnostics = replace(
        record.diagnostics,
        seconds_compiling=seconds_compiling,
        seconds_running=seconds_running,
    )
    record = replace(record, diagnostics=diagnostics, name=name)
    return Posterior(target, data, q, record, trace)
