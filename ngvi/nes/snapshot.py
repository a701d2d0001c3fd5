"""A search as arrays and facts, from which it goes on to the same draws."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.nes import checkpoint
from ngvi.nes.campaign import Campaign
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.restarts import Schedule

# Of the time, for checkpoints: each holds the whole history, which grows.
LARGEST_SHARE = 0.1

_RUN = "run/"
_HISTORY = "history/"
_SURROGATE = "surrogate/"
_FACTS = (
    "best_value",
    "best_converged",
    "spent",
    "generations",
    "failed",
    "stops",
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
    facts["along_axes"] = search.axes is not None
    facts["schedule"] = search.schedule.to_dict()
    objective = search.plan.objective
    if isinstance(objective, HostObjective):
        facts |= {"raised": objective.raised, "first_error": objective.first_error}
    return arrays, facts


def restore(
    search: Campaign, arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Take a new search to where another of the same plan was."""
    for name in _FACTS:
        setattr(search, name, facts[name])
    search.schedule = Schedule(**facts["schedule"])
    if search.axes is not None:
        for values in search.told:
            search.axes.ask()
            search.axes.tell(np.array(values))
    if not facts["along_axes"]:
        search.axes = None
    search.open_run()
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
    objective = search.plan.objective
    if isinstance(objective, HostObjective):
        objective.raised = facts.get("raised", 0)
        objective.first_error = facts.get("first_error")


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
