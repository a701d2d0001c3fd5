"""A search as arrays and facts, from which it goes on to the same draws."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.checkpoints import Checkpoints
from ngvi.checkpoints.trees import under
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
_FACTS_OF_RUN = ("evaluated", "extra_before")


def snapshot(search: Campaign) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All that a search has come to: arrays, and what JSON takes."""
    attempt, objective = search.attempt, search.plan.objective
    leaves = jax.tree.leaves(attempt.run)
    arrays = {f"{_RUN}{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays |= _under(_HISTORY, search.history.columns())
    arrays["best_point"] = search.best_point
    exchange = attempt.exchange
    if exchange.surrogate is not None:
        arrays |= _under(_SURROGATE, exchange.surrogate.to_arrays())
    if exchange.flow is not None:
        point = search.best_point
        arrays |= _under(_FLOW, exchange.flow.to_arrays(point.size, point.dtype))
    facts = {name: getattr(search, name) for name in _FACTS}
    facts["along_axes"] = search.axes is not None
    facts["schedule"] = asdict(search.schedule)
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
    search.history.restore(under(arrays, _HISTORY))
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
    exchange = attempt.exchange
    if exchange.surrogate is not None:
        exchange.surrogate.restore(under(arrays, _SURROGATE))
    of_flow = under(arrays, _FLOW)
    if exchange.flow is not None and of_flow:
        exchange.flow.restore(of_flow)


class Saver:
    """Keeps checkpoints of a search while it runs, and one of its end.

    A search goes on from what the folder holds. The first checkpoint is written at
    once: a folder that cannot be written to is an error before the search, not after.

    Args:
        search: just begun.
        folder: of the checkpoints.
        every: generations between them.

    Raises:
        CheckpointError: the folder has no checkpoint of this search, but others.
    """

    def __init__(self, search: Campaign, folder: Path, every: int) -> None:
        self.search, self.every = search, every
        self.kept = Checkpoints(folder, "search", search.plan.identity())

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
        self.kept.save(*snapshot(self.search))
        self._ended = time.perf_counter()
        self._took = self._ended - began

    def __enter__(self) -> Self:
        """Take the folder, and the search to where its last checkpoint was.

        Raises:
            CheckpointError: see `Checkpoints`.
            OSError: the folder cannot be written to.
        """
        self.kept.__enter__()
        try:
            found = self.kept.latest()
            if found is not None:
                restore(self.search, found.arrays, found.facts)
            self._save()
        except BaseException:
            self.kept.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._save()
        finally:
            self.kept.__exit__(*raised)
