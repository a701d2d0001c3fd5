"""What a search is to do, decided and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ngvi.nes.evaluation import HostObjective, TracedObjective
from ngvi.nes.start import Start
from ngvi.nes.stopping import Stopping


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

    def identity(self) -> dict[str, Any]:
        """What makes two searches the same, given the same objective and budget."""
        return {
            "x0": np.asarray(self.start.x0),
            "sigma0": np.asarray(self.start.sigma),
            "lower bound": self.start.lower,
            "upper bound": self.start.upper,
            "method": self.method,
            "popsize": self.popsize,
            "seed": self.seed,
            "direction (maximize)": self.objective.sign,
        }


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small a one.

    Raises:
        ValueError: the message has the name.
    """
    try:
        good = value == int(value) and value >= least
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}"
        )


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
    if np.isfinite(float(limits.ftarget)):
        limits = replace(limits, ftarget=sign * float(limits.ftarget))
    if budget is None and limits.maxfevals == Stopping().maxfevals:
        budget = int(np.clip(1000 * dim**2, 10_000, 1_000_000))
    if budget is not None:
        limits = replace(limits, maxfevals=budget)
    if not limits.maxfevals >= popsize:
        raise ValueError(
            f"the budget must allow at least one generation, {popsize} evaluations, "
            f"got {limits.maxfevals}"
        )
    return replace(limits, maxfevals=int(min(limits.maxfevals, 2**31 - 1)))
