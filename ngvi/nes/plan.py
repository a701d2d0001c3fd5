"""What a search is to do, decided and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ngvi.nes.constraints import Constraints
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.start import Start
from ngvi.nes.stopping import Stopping, bounded, towards
from ngvi.nes.tracing import TracedObjective

# With other limits a search would have stopped elsewhere; a larger budget goes on.
_TESTED = ("ftarget", "tolfun", "tolfunhist", "tolx", "stagnation", "conditioncov")


@dataclass(frozen=True)
class Plan:
    """What a search is to do."""

    start: Start
    method: str
    popsize: int
    """Of the first run."""
    seed: int
    objective: TracedObjective | HostObjective
    args: tuple[Any, ...]
    stopping: Stopping
    """With the budget of the whole search."""
    restarts: int | None
    """None: as many as it takes."""
    settles: bool = False
    """Whether it may end before the budget does, when runs agree."""
    in_flight: int = 0
    """Evaluations to keep going at any time; 0 waits for each generation."""
    noisy: bool = False
    axes: bool = False
    """Whether to try first if the objective is a sum over coordinates."""
    surrogate: bool = False
    """Whether a model of the objective is to save evaluations."""
    constraints: Constraints | None = None
    ctol: float = 0.0
    """Of a violation."""

    @property
    def equality(self) -> np.ndarray:
        """Which of the constraints are equalities; empty if there are none."""
        none = np.zeros(0, bool)
        return none if self.constraints is None else self.constraints.equality

    def identity(self) -> dict[str, Any]:
        """What makes two searches the same, given the same objective and budget."""
        return {
            "x0": np.asarray(self.start.x0),
            "sigma0": np.asarray(self.start.sigma),
            "lower bound": self.start.lower,
            "upper bound": self.start.upper,
            "method": self.method,
            "popsize": self.popsize,
            "axes": self.axes,
            "seed": self.seed,
            "direction (maximize)": self.objective.sign,
            "noisy": self.noisy,
            "integrality": self.start.whole,
            "ctol": self.ctol,
            "number or kind of constraints": self.equality,
        } | {name: getattr(self.stopping, name) for name in _TESTED}


def make_stopping(
    stopping: Stopping | None,
    budget: int | None,
    tol: float | None,
    ftarget: float | None,
    sign: float,
    dim: int,
    popsize: int,
) -> Stopping:
    """The limits that the options of `minimize` stand for.

    Raises:
        ValueError: a budget of less than a generation, or a tolerance below 0.
    """
    limits = stopping or Stopping()
    if tol is not None:
        if not tol >= 0:
            raise ValueError(f"tol must be at least 0, got {tol}")
        limits = replace(limits, tolfun=tol, tolfunhist=tol / 10)
    if ftarget is not None:
        if np.isnan(ftarget):
            raise ValueError("ftarget must not be NaN")
        limits = replace(limits, ftarget=float(ftarget))
    given = "got"
    if budget is None and limits.maxfevals == Stopping().maxfevals:
        budget = int(np.clip(1000 * dim**2, 10_000, 1_000_000))
        given = "give one; the default is"
    if budget is not None:
        limits = replace(limits, maxfevals=budget)
    if not limits.maxfevals >= popsize:
        raise ValueError(
            f"the budget must allow at least one generation, {popsize} evaluations, "
            f"{given} {limits.maxfevals}"
        )
    return bounded(towards(limits, sign))
