"""A search as arrays and facts, from which it goes on to the same draws."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.nes import checkpoint
from ngvi.nes.attempt import Attempt
from ngvi.nes.campaign import Campaign
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.noise import NoisyRun
from ngvi.nes.restarts import Schedule

# Of the time, for checkpoints: each holds the whole history, which grows.
LARGEST_SHARE = 0.1

_RUN = "run/"
_HISTORY = "history/"
_SURROGATE = "surrogate/"
_FLOW = "flow/"
_FACTS = (
    "best_value",
    "best_row",
    "best_converged",
    "best_error",
    "spent",
    "generations",
    "failed",
    "stops",
    "solved",
    "told",
)
_FACTS_OF_RUN = ("evaluated", "judged", "failed_answers", "extra_before", "doubt")


def snapshot(search: Campaign) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All that a search has come to: arrays, and what JSON takes."""
    attempt, objective = search.attempt, search.plan.objective
    leaves = jax.tree.leaves(attempt.run)
    arrays = {f"{_RUN}{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays |= _under(_HISTORY, search.history())
    arrays["best_point"] = search.best_point
    if attempt.surrogate is not None:
        arrays |= _under(_SURROGATE, attempt.surrogate.to_arrays())
    if attempt.flow is not None:
        point = search.best_point
        arrays |= _under(_FLOW, attempt.flow.to_arrays(point.size, point.dtype))
    facts = {name: getattr(search, name) for name in _FACTS}
    facts["along_axes"] = search.axes is not None
    facts["schedule"] = search.schedule.to_dict()
    facts |= {name: getattr(attempt, name) for name in _FACTS_OF_RUN}
    facts["popsize"] = attempt.strategy.popsize
    if attempt.noise is not None:
        facts["noise"] = asdict(attempt.noise)
    if isinstance(objective, HostObjective):
        facts["tally"] = asdict(replace(objective.tally, spare=0))
    return arrays, facts


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


def restore(
    search: Campaign, arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Take a new search to where another of the same plan was."""
    objective = search.plan.objective
    for name in _FACTS:
        setattr(search, name, facts[name])
    search.best_point = arrays["best_point"]
    search.schedule = Schedule(**facts["schedule"])
    history = checkpoint.under(arrays, _HISTORY)
    search.parts = [history] if history else []
    if search.axes is not None:
        for values in search.told:
            search.axes.ask()
            search.axes.tell(np.array(values))
    if not facts["along_axes"]:
        search.axes = None
    if isinstance(objective, HostObjective):
        vars(objective.tally).update(facts["tally"])
    search.open_run()
    _restore_run(search.attempt, arrays, facts)


def _restore_run(
    attempt: Attempt, arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    attempt.set_popsize(facts["popsize"])
    if attempt.noise is not None:
        attempt.noise = NoisyRun(**facts["noise"])
    leaves, structure = jax.tree.flatten(attempt.run)
    stored = [jnp.asarray(arrays[f"{_RUN}{i}"]) for i in range(len(leaves))]
    attempt.go_on_from(jax.tree.unflatten(structure, stored))
    for name in _FACTS_OF_RUN:
        setattr(attempt, name, facts[name])
    attempt.doubt = facts["doubt"] and tuple(facts["doubt"])
    if attempt.surrogate is not None:
        attempt.surrogate.restore(checkpoint.under(arrays, _SURROGATE))
    of_flow = checkpoint.under(arrays, _FLOW)
    if attempt.flow is not None and of_flow:
        attempt.flow.go_on_from(of_flow)


class Saver:
    """Keeps a checkpoint of a search while it runs, and one of its end.

    A search goes on from what the file holds. The first checkpoint is written at once:
    a path that cannot be written to is an error before the search, not after it.

    Args:
        search: just begun.
        path: of the file.
        every: generations between checkpoints.

    Raises:
        CheckpointError: the file is no checkpoint of this search.
        OSError: it cannot be written.
    """

    def __init__(self, search: Campaign, path: Path, every: int) -> None:
        self.search, self.path, self.every = search, path, every
        if path.exists():
            restore(search, *checkpoint.load(path, search.plan.identity()))
        self._save()

    @property
    def generations_left(self) -> int:
        """Until the next checkpoint."""
        return self.every - self.search.nit % self.every

    def save_if_due(self) -> None:
        """Write a checkpoint if it is time and the last one was quick enough."""
        rested = self._took <= LARGEST_SHARE * (time.perf_counter() - self._ended)
        if self.search.nit % self.every == 0 and rested:
            self._save()

    def _save(self) -> None:
        began = time.perf_counter()
        content, facts = snapshot(self.search)
        checkpoint.save(self.path, self.search.plan.identity(), content, facts)
        self._ended = time.perf_counter()
        self._took = self._ended - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        # What ended the search says more than what its checkpoint met.
        with suppress(*[] if kind is None else [OSError]):
            self._save()
