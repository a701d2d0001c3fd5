"""A search as arrays and facts, from which it goes on to the same draws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.nes.campaign import Campaign
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.restarts import Schedule

_RUN = "run/"
_HISTORY = "history/"
_FACTS = ("best_value", "best_converged", "spent", "generations", "failed", "stops")


def snapshot(search: Campaign) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All that a search has come to: arrays, and what JSON takes."""
    leaves = jax.tree.leaves(search.run)
    arrays = {f"{_RUN}{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays |= {_HISTORY + name: column for name, column in search.history().items()}
    arrays["best_point"] = search.best_point
    facts = {name: getattr(search, name) for name in _FACTS}
    facts["schedule"] = search.schedule.to_dict()
    objective = search.plan.objective
    if isinstance(objective, HostObjective):
        facts |= {"raised": objective.raised, "first_error": objective.first_error}
    return arrays, facts


def restore(
    search: Campaign, arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Take a new search to where another of the same plan was."""
    search.schedule = Schedule(**facts["schedule"])
    search.open_run()
    leaves, structure = jax.tree.flatten(search.run)
    stored = [jnp.asarray(arrays[f"{_RUN}{i}"]) for i in range(len(leaves))]
    search.run = jax.tree.unflatten(structure, stored)
    history = {
        name.removeprefix(_HISTORY): column
        for name, column in arrays.items()
        if name.startswith(_HISTORY)
    }
    search.parts = [history] if history else []
    search.best_point = arrays["best_point"]
    for name in _FACTS:
        setattr(search, name, facts[name])
    objective = search.plan.objective
    if isinstance(objective, HostObjective):
        objective.raised = facts.get("raised", 0)
        objective.first_error = facts.get("first_error")
