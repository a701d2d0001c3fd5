"""A search with its restarts: what a call of `ngvi.minimize` is made of."""

from __future__ import annotations

import warnings
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Array

from ngvi.nes.evaluation import HostObjective
from ngvi.nes.generation import Run, columns, programs, run_key
from ngvi.nes.lagrangian import Lagrangian
from ngvi.nes.methods import make_strategy
from ngvi.nes.plan import Plan
from ngvi.nes.restarts import ENOUGH_AGREE, Schedule, start_of
from ngvi.nes.run import advance
from ngvi.nes.stopping import Stopping, converged, describe, reasons
from ngvi.nes.tracing import TracedObjective

# Room for the history of one call of the compiled loop.
ROWS = 512

# Compiled once for equal strategies, objectives and shapes.
_advance = jax.jit(advance, static_argnums=(0, 1, 2))


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
        self.spent, self.generations, self.failed = 0, 0, 0
        """Of the runs that have ended."""
        self.stops: list[str] = []
        self.parts: list[dict[str, np.ndarray]] = []
        """The history, in pieces."""
        self.open_run()

    # -- one run ----------------------------------------------------------------------

    def open_run(self) -> None:
        """Begin the run that the schedule says."""
        plan, start = self.plan, self.plan.start
        number, popsize = self.schedule.number, self.schedule.current_popsize
        self.strategy = make_strategy(plan.method, start.dim, popsize)
        self.programs = programs(self.strategy)
        point = start_of(
            number,
            plan.seed,
            np.asarray(start.x0),
            np.asarray(start.sigma),
            start.lower,
            start.upper,
        )
        sigma = np.asarray(start.sigma) * np.asarray(self.schedule.shrink, point.dtype)
        self.key = run_key(plan.seed, number)
        self.limits = self._limits()
        # A number is sent to the device once, not in every call.
        self._limits_there = jax.device_put(self.limits)
        run = self.programs.begin(point, sigma, start.box)
        if plan.constraints is not None:
            fresh = Lagrangian.start(plan.equality, plan.ctol, point.dtype)
            run = replace(run, lagrangian=fresh)
        self.go_on_from(run)

    def go_on_from(self, run: Run) -> None:
        """Take the place of this run by itself, at another of its generations."""
        self.run = run
        self.generation = int(run.state.generation)
        """How many this run has had."""
        self.stopped = bool(np.asarray(run.fired).any())
        self._proposed: tuple[Array, Array, np.ndarray] | None = None
        """Draws and points of the next generation, and the points on the host."""
        self._rows: list[np.ndarray] = []
        """Of the history, not yet in a part of it."""

    def _limits(self) -> Stopping:
        """Of this run: what is left of the budget, or its share."""
        whole, share = self.plan.stopping, self.schedule.share
        left = int(whole.maxfevals) - self.spent
        return replace(
            whole,
            maxfevals=left if share is None else min(left, share),
            maxiter=int(whole.maxiter) - self.generations,
        )

    def advance(self, limit: int) -> None:
        """At most so many generations of this run."""
        objective = self.plan.objective
        if isinstance(objective, TracedObjective):
            self.run, rows, done = _advance(
                self.strategy,
                objective,
                ROWS,
                self.run,
                self.key,
                self.plan.start.box,
                self.plan.args,
                self._limits_there,
                min(limit, ROWS),
            )
            self.generation += int(done)
            self.stopped = bool(np.asarray(self.run.fired).any())
            self._rows.extend(np.asarray(rows)[: int(done)])
            return
        for _ in range(limit):
            if not self.goes_on:
                break
            self._generation(objective)

    def _generation(self, objective: HostObjective) -> None:
        """One generation on the host."""
        box = self.plan.start.box
        if self._proposed is None:
            eps, there = self.programs.propose(self.run, self.key, box)
            self._proposed = eps, there, np.asarray(there)
        eps, there, points = self._proposed
        values = objective(points)
        if self.nit == 0 and objective.raised >= len(values):
            warnings.warn(
                "every evaluation of the first generation raised an error; the first "
                f"one: {objective.first_error}",
                RuntimeWarning,
                stacklevel=5,
            )
        largest = np.finfo(points.dtype).max
        # A value beyond the largest of this precision is large, not a failure.
        values = np.where(np.isinf(values), np.nan, values).clip(-largest, largest)
        self.run, eps, there, report = self.programs.step(
            self.run,
            self.key,
            box,
            eps,
            there,
            values.astype(points.dtype),
            self._limits_there,
        )
        facts = np.asarray(report)
        size = points.size
        self._proposed = eps, there, facts[:size].reshape(points.shape)
        row = facts[size:]
        self.generation += 1
        self.stopped = bool(row[-1])
        self._rows.append(row[:-1])

    @property
    def goes_on(self) -> bool:
        """Whether this run has another generation to go."""
        limits, popsize = self.limits, self.strategy.popsize
        last = min(int(limits.maxiter), int(limits.maxfevals) // popsize)
        return not self.stopped and self.generation < last

    # -- from run to run --------------------------------------------------------------

    def next_run(self) -> str | None:
        """Close a run that has ended and begin the next, or say why there is none."""
        why = self.reasons()
        found = converged(why)
        was_converged = self.best_converged
        value = float(self.run.best_value)
        is_best = self._is_best()
        agree = self._agree(value, found)
        message = self._message(why)
        schedule = replace(self.schedule, agree=agree)
        left = int(self.plan.stopping.maxfevals) - self.nfev
        spent = self.generation * self.strategy.popsize
        following = schedule.after(spent, self.plan.seed)
        following = following.within(left)
        end = self._end(why, message, schedule, following)
        if end is not None:
            self.best_converged = found if is_best else was_converged
            return end
        if is_best:
            self.best_point = np.asarray(self.run.best_point)
            self.best_value, self.best_converged = value, found
            self.best_row = self._row()
        self._file_rows()
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
        if int(whole.maxfevals) - self.nfev < following.current_popsize:
            return describe("maxfevals", self.nfev, whole, dtype)
        if self.plan.settles and schedule.agree >= ENOUGH_AGREE:
            return f"{message} (found by {schedule.agree} runs of growing populations)"
        return None

    def reasons(self) -> dict[str, float]:
        """Why this run stops, with the numbers the tests have looked at."""
        return reasons(
            np.asarray(self.run.measured),
            np.asarray(self.run.fired),
            self.generation,
            self.strategy.popsize,
            self.limits,
        )

    def _message(self, why: dict[str, float]) -> str:
        limits, dtype = self.limits, self.plan.start.x0.dtype
        sign = self.plan.objective.sign
        return "; ".join(
            describe(name, value, limits, dtype, sign) for name, value in why.items()
        )

    # -- what it has come to ----------------------------------------------------------

    @property
    def nfev(self) -> int:
        """Evaluations so far."""
        return self.spent + self.generation * self.strategy.popsize

    @property
    def nit(self) -> int:
        """Generations so far."""
        return self.generations + self.generation

    @property
    def nfailed(self) -> int:
        """Evaluations that gave no finite number."""
        return self.failed + int(self.run.failed)

    def best(self) -> tuple[np.ndarray, float]:
        """The best point of all runs, and its value (to be minimised)."""
        if self._is_best():
            return np.asarray(self.run.best_point), self._row()[1]
        return self.best_point, self.best_row[1]

    @property
    def maxcv(self) -> float:
        """The best point's largest violation of a constraint."""
        return (self._row() if self._is_best() else self.best_row)[0]

    def _row(self) -> tuple[float, float]:
        """`best_row`, of this run."""
        lagrangian = self.run.lagrangian
        if lagrangian is None:
            return 0.0, float(self.run.best_value)
        return float(lagrangian.violation), float(lagrangian.best[0])

    def _is_best(self) -> bool:
        """Whether this run's best point is the best of all."""
        tolerance = self.plan.ctol
        (mine, value), (other, best) = self._row(), self.best_row
        return (max(mine, tolerance), value) < (max(other, tolerance), best)

    def history(self) -> dict[str, np.ndarray]:
        """Columns with a row a generation, as they were minimised."""
        self._file_rows()
        if not self.parts:
            return {}
        joined = {
            name: np.concatenate([part[name] for part in self.parts])
            for name in self.parts[0]
        }
        self.parts = [joined]
        return dict(joined)

    def _file_rows(self) -> None:
        """Make the rows of this run a part of the history."""
        count, popsize = len(self._rows), self.strategy.popsize
        if not count:
            return
        numbers = np.arange(self.generation - count, self.generation) + 1
        self.parts.append(
            {
                "evaluations": self.spent + popsize * numbers,
                **columns(np.stack(self._rows), self.plan.constraints is not None),
                "run": np.full(count, self.schedule.number),
                "popsize": np.full(count, popsize),
            }
        )
        self._rows = []
