"""A search with its restarts: what a call of `ngvi.minimize` is made of.

First, with method "auto", a search along the axes; then runs, one after another, until
the schedule, the budget or a target ends them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ngvi.nes.attempt import Attempt, Past
from ngvi.nes.axes import AxisSearch
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.history import History, without_distribution
from ngvi.nes.noise import WINDOW
from ngvi.nes.plan import Plan
from ngvi.nes.restarts import ENOUGH_AGREE, Schedule
from ngvi.nes.stopping import converged, describe
from ngvi.nes.tracing import TracedObjective

SOLVED = "axes: the objective is a sum over coordinates, and none has a better valley"


@partial(jax.jit, static_argnums=0)
def _values(objective: TracedObjective, points: Array, args: tuple[Any, ...]) -> Array:
    return objective(points, *args)


class Campaign:
    """A search with its restarts, as far as it has come."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.schedule = Schedule(plan.popsize)
        self.best_point = np.asarray(plan.start.point)
        self.best_value = np.inf
        constrained = plan.constraints is not None
        self.best_row = (np.inf if constrained else 0.0, np.inf)
        """The best point's largest violation, and its value even if it has one."""
        self.best_converged = False
        self.best_error = np.nan
        """Of the value of a noisy objective."""
        self.spent, self.generations, self.failed = 0, 0, 0
        """Evaluations, exchanges and failures of what has ended."""
        self.stops: list[str] = []
        self.history = History(constrained)
        self.axes: AxisSearch | None = None
        """The search before the first run, while it is on."""
        self.told: list[list[float]] = []
        """The values that it was told, from which it can be done again."""
        self.solved = False
        if plan.axes:
            self.axes = AxisSearch(
                np.asarray(plan.start.x0),
                np.asarray(plan.start.sigma),
                plan.start.lower,
                plan.start.upper,
                float(plan.stopping.tolfun),
                plan.seed,
            )
        self.open_run()

    def open_run(self) -> None:
        """Begin the run that the schedule says."""
        past = Past(self.spent, self.generations, self.best_value)
        self.attempt = Attempt(self.plan, self.schedule, past, self.history)

    @property
    def goes_on(self) -> bool:
        """Whether there is more to do before the next run."""
        if self.axes is not None:
            return True
        return not self._done_by_axes and self.attempt.goes_on

    def advance(self, limit: int) -> None:
        """At most so many generations of this run, or one exchange along the axes."""
        if self.axes is not None:
            self._along_axes(self.axes)
        else:
            self.attempt.advance(limit)

    # -- along the axes ---------------------------------------------------------------

    def _along_axes(self, axes: AxisSearch) -> None:
        """One exchange with the search along the axes."""
        points, limits = axes.ask(), self.plan.stopping
        left = int(limits.maxfevals) - self.nfev - len(points)
        if left < 0 or self.generations >= int(limits.maxiter):
            self._leave_axes(axes)
            return
        values = self._values_at(points, axes.most, left)
        self.told.append(values.tolist())
        axes.tell(values)
        self.failed += int((~np.isfinite(values)).sum())
        values = np.where(np.isfinite(values), values, np.inf)
        least = values.argmin()
        if values[least] < self.best_value:
            self.best_point, self.best_value = points[least], float(values[least])
            self.best_row = (0.0, self.best_value)
        extra = self.attempt.extra
        self.attempt.extra_before += extra
        self.spent += len(points) + extra
        self.generations += 1
        row = without_distribution(values, axes.x0)
        self.history.add(row, self.spent, -1, len(values))
        if axes.ended or self.best_value <= float(self.plan.stopping.ftarget):
            self._leave_axes(axes)

    def _leave_axes(self, axes: AxisSearch) -> None:
        """Go on with the first run."""
        reached = self.best_value <= float(self.plan.stopping.ftarget)
        self.solved = axes.solved
        self.best_converged = axes.solved or reached
        self.axes, self.told = None, []
        self.open_run()

    def _values_at(
        self, points: Float[np.ndarray, "n d"], most: int, spare: int
    ) -> Float[np.ndarray, "n"]:
        objective = self.plan.objective
        if isinstance(objective, HostObjective):
            objective.tally.spare = spare
            return objective(points)
        # Always as many, so that one program does.
        rows = np.minimum(np.arange(most), len(points) - 1)
        values = _values(objective, points[rows], self.plan.args)
        return np.asarray(values, float)[: len(points)]

    @property
    def _done_by_axes(self) -> bool:
        """Whether there is nothing left for runs to do."""
        enough = self.plan.settles or self.plan.restarts == 0
        reached = self.best_value <= float(self.plan.stopping.ftarget)
        return reached or (self.solved and enough)

    def _ended_by_axes(self) -> str:
        if self.best_value > float(self.plan.stopping.ftarget):
            return SOLVED
        return self.attempt.describe({"ftarget": self.best_value})

    # -- from run to run --------------------------------------------------------------

    def next_run(self) -> str | None:
        """Close a run that has ended and begin the next, or say why there is none."""
        if self._done_by_axes:
            return self._ended_by_axes()
        attempt = self.attempt
        attempt.exchange.pause()
        why = attempt.reasons()
        attempt.judge()
        found = converged(why)
        is_best = self._is_best()
        point, value = attempt.best()
        agree = self._agree(value, found)
        message = attempt.describe(why)
        schedule = replace(self.schedule, agree=agree)
        left = int(self.plan.stopping.maxfevals) - self.nfev
        following = schedule.after(attempt.evaluated, self.plan.seed)
        following = following.within(left)
        end = self._end(why, message, schedule, following)
        if is_best:
            self.best_converged = found
        if end is not None:
            return end
        if is_best:
            self.best_point, self.best_value = point, value
            self.best_row = attempt.row()
            self.best_error = attempt.noise.error if attempt.noise else np.nan
        self.spent, self.generations = self.nfev, self.nit
        self.failed = self.nfailed
        self.stops.append(message)
        self.schedule = following
        self.open_run()
        return None

    def _agree(self, value: float, found: bool) -> int:
        """How many runs have found the best value, this one's included.

        Small runs do not count: they may share a local optimum, or its like.
        """
        near = 1e-6 * abs(value) + 10 * float(self.plan.stopping.tolfun)
        agree = self.schedule.agree
        if value < self.best_value - near:
            agree = 0
        counts = self.schedule.large or self.schedule.number == 0
        counts = counts and found and np.isfinite(value)
        return agree + int(counts and value <= self.best_value + near)

    def _end(
        self,
        why: dict[str, float],
        message: str,
        schedule: Schedule,
        following: Schedule,
    ) -> str | None:
        """Why no run is to follow."""
        whole, count = self.plan.stopping, schedule.number
        if self.plan.restarts is not None and count >= self.plan.restarts:
            return message
        if "ftarget" in why:
            return message
        dtype = self.plan.start.x0.dtype
        if self.nit >= int(whole.maxiter):
            return describe("maxiter", self.nit, whole, dtype)
        # Noise hides what a few generations find.
        least = following.current_popsize * (WINDOW if self.plan.noisy else 1)
        if int(whole.maxfevals) - self.nfev < least:
            return describe("maxfevals", self.nfev, whole, dtype)
        if self.plan.settles and schedule.agree >= ENOUGH_AGREE:
            return f"{message} (found by {schedule.agree} runs of growing populations)"
        return None

    # -- what it has come to ----------------------------------------------------------

    @property
    def nfev(self) -> int:
        """Evaluations so far."""
        return self.spent + self.attempt.used

    @property
    def nit(self) -> int:
        """Generations so far."""
        return self.generations + self.attempt.generation

    @property
    def nfailed(self) -> int:
        """Evaluations that gave no finite number."""
        return self.failed + self.attempt.failed

    def best(self) -> tuple[np.ndarray, float]:
        """The best point of all runs, and its value (to be minimised)."""
        if self._is_best():
            return self.attempt.best()[0], self.attempt.row()[1]
        return self.best_point, self.best_row[1]

    @property
    def maxcv(self) -> float:
        """The best point's largest violation of a constraint."""
        return (self.attempt.row() if self._is_best() else self.best_row)[0]

    def _is_best(self) -> bool:
        """Whether this run's best point is the best of all."""
        tolerance = self.plan.ctol
        (mine, value), (other, best) = self.attempt.row(), self.best_row
        return (max(mine, tolerance), value) < (max(other, tolerance), best)

    def error(self) -> float:
        """The standard error of the best value of a noisy objective."""
        noise = self.attempt.noise
        if noise is None or self.attempt.best()[1] >= self.best_value:
            return self.best_error
        return noise.error
