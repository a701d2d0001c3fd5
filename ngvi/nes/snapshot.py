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
    "best_converged",
    "best_error",
    "spent",
    "generations",
    "failed",
    "stops",
    "judged",
    "solved",
    "told",
    "evaluated",
    "doubt",
)


def snapshot(search: Campaign) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All that a search has come to: arrays, and what JSON takes."""
    leaves = jax.tree.leaves(search.run)
    arrays = {f"{_RUN}{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays |= {_HISTORY + name: column for name, column in search.history().items()}
    arrays["best_point"] = search.best_point
    if search.surrogate is not None:
        of_model = search.surrogate.to_arrays()
        arrays |= {_SURROGATE + name: array for name, array in of_model.items()}
    facts = {name: getattr(search, name) for name in _FACTS}
    facts["popsize"] = search.strategy.popsize
    if search.noise is not None:
        facts["noise"] = asdict(search.noise)
    facts["along_axes"] = search.axes is not None
    facts["schedule"] = search.schedule.to_dict()
    objective = search.plan.objective
    if isinstance(objective, HostObjective):
        facts["extra_before"] = search.extra_before
        facts["tally"] = asdict(replace(objective.tally, spare=0))
    if search.flow is not None:
        of_flow = search.flow.to_arrays(search.best_point.size, search.best_point.dtype)
        arrays |= {_FLOW + name: array for name, array in of_flow.items()}
    return arrays, facts


def restore(
    search: Campaign, arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Take a new search to where another of the same plan was."""
    for name in _FACTS:
        setattr(search, name, facts[name])
    search.schedule = Schedule(**facts["schedule"])
    objective = search.plan.objective
    if isinstance(objective, HostObjective):
        # A run's budget is what was left at its beginning.
        objective.tally.extra = facts["extra_before"]
    if search.axes is not None:
        for values in search.told:
            search.axes.ask()
            search.axes.tell(np.array(values))
    if not facts["along_axes"]:
        search.axes = None
    search.open_run()
    if isinstance(objective, HostObjective):
        vars(objective.tally).update(facts["tally"])
    search.set_popsize(facts["popsize"])
    if search.noise is not None:
        search.noise = NoisyRun(**facts["noise"])
    leaves, structure = jax.tree.flatten(search.run)
    stored = [jnp.asarray(arrays[f"{_RUN}{i}"]) for i in range(len(leaves))]
    search.go_on_from(jax.tree.unflatten(structure, stored))
    search.evaluated = facts["evaluated"]
    search.doubt = facts["doubt"] and tuple(facts["doubt"])
    if search.surrogate is not None:
        search.surrogate.restore(checkpoint.under(arrays, _SURROGATE))
    history = checkpoint.under(arrays, _HISTORY)
    search.parts = [history] if history else []
    search.best_point = arrays["best_point"]
    of_flow = checkpoint.under(arrays, _FLOW)
    if search.flow is not None and of_flow:
        search.flow.go_on_from(of_flow)


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
