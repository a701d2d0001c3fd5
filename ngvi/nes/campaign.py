"""A search with its restarts: what a call of `ngvi.minimize` is made of."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ngvi.nes.axes import AxisSearch
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.generation import (
    Run,
    columns,
    programs,
    row_without_distribution,
    run_key,
)
from ngvi.nes.methods import make_strategy
from ngvi.nes.plan import Plan
from ngvi.nes.restarts import ENOUGH_AGREE, Schedule, start_of
from ngvi.nes.run import advance
from ngvi.nes.stopping import Stopping, converged, describe, reasons
from ngvi.nes.surrogate import Frame, Surrogate
from ngvi.nes.tracing import TracedObjective

# Room for the history of one call of the compiled loop.
ROWS = 512
# A run without prospects is left when σ has fallen so far.
CLOSER = 0.5
SOLVED = "axes: the objective is a sum over coordinates, and none has a better valley"

# Compiled once for equal strategies, objectives and shapes.
_advance = jax.jit(advance, static_argnums=(0, 1, 2))


_place = jax.jit(lambda box, y: box.place(y))


@partial(jax.jit, static_argnums=0)
def _values(objective: TracedObjective, points: Array, args: tuple[Any, ...]) -> Array:
    return objective(points, *args)


class Campaign:
    """A search with its restarts, as far as it has come."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.schedule = Schedule(plan.popsize)
        self.best_point = np.asarray(plan.start.x0)
        self.best_value = np.inf
        self.best_converged = False
        self.spent, self.generations, self.failed = 0, 0, 0
        """Of the runs that have ended."""
        self.stops: list[str] = []
        self.parts: list[dict[str, np.ndarray]] = []
        """The history, in pieces."""
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

    # -- along the axes ---------------------------------------------------------------

    def _along_axes(self, axes: AxisSearch) -> None:
        """One exchange with the search along the axes."""
        points = axes.ask()
        if len(points) > int(self.plan.stopping.maxfevals) - self.spent:
            self._leave_axes(axes)
            return
        values = self._values_at(points, axes.most)
        self.told.append(values.tolist())
        axes.tell(values)
        self.failed += int((~np.isfinite(values)).sum())
        values = np.where(np.isfinite(values), values, np.inf)
        least = values.argmin()
        if values[least] < self.best_value:
            self.best_point, self.best_value = points[least], float(values[least])
        self.spent += len(points)
        self.generations += 1
        self._file_exchange(axes.x0, values)
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
        self, points: Float[np.ndarray, "n d"], most: int
    ) -> Float[np.ndarray, "n"]:
        objective = self.plan.objective
        if isinstance(objective, HostObjective):
            return self._called(objective, points)
        # Always as many, so that one program does.
        rows = np.minimum(np.arange(most), len(points) - 1)
        values = _values(objective, points[rows], self.plan.args)
        return np.asarray(values, float)[: len(points)]

    def _called(
        self, objective: HostObjective, points: Float[np.ndarray, "n d"]
    ) -> Float[np.ndarray, "n"]:
        values = objective(points)
        if self.nit == 0 and objective.raised >= len(values):
            warnings.warn(
                "every evaluation of the first generation raised an error; the first "
                f"one: {objective.first_error}",
                RuntimeWarning,
                stacklevel=6,
            )
        return values

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
        self.go_on_from(self.programs.begin(point, sigma, start.box))

    def go_on_from(self, run: Run) -> None:
        """Take the place of this run by itself, at another of its generations."""
        self.run = run
        self.generation = int(run.state.generation)
        """How many this run has had."""
        self.stopped = bool(np.asarray(run.fired).any())
        self.evaluated = self.generation * self.strategy.popsize
        self.doubt: tuple[float, float] | None = None
        """This run's best value and σ when the model began to foresee no new best."""
        self.surrogate = (
            Surrogate(self.plan.start.dim, self.strategy.popsize)
            if self.plan.surrogate
            else None
        )
        self._proposed: tuple[np.ndarray, np.ndarray] | None = None
        """Draws and points of the next generation."""
        self._rows: list[np.ndarray] = []
        """Of the history, not yet in a part of it."""
        self._counts: list[int] = []
        """Evaluations after each of them."""

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
        """At most so many generations of this run, or one exchange along the axes."""
        if self.axes is not None:
            self._along_axes(self.axes)
            return
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
            popsize, before = self.strategy.popsize, self.generation
            self.generation += int(done)
            self.evaluated = self.generation * popsize
            numbers = range(before + 1, self.generation + 1)
            self._counts.extend(popsize * number for number in numbers)
            self.stopped = bool(np.asarray(self.run.fired).any())
            self._rows.extend(np.asarray(rows)[: int(done)])
            self._let_lead()
            return
        for _ in range(limit):
            if not self.goes_on:
                break
            self._generation(objective)
            self._let_lead()

    def _let_lead(self) -> None:
        """A run with a share of the budget that is better than all before may have the
        rest of it."""
        left = int(self.plan.stopping.maxfevals) - self.spent
        leads = float(self.run.best_value) < self.best_value
        if leads and int(self.limits.maxfevals) < left:
            self.limits = replace(self.limits, maxfevals=left)
            self._limits_there = jax.device_put(self.limits)

    def _generation(self, objective: HostObjective) -> None:
        """One generation on the host."""
        box = self.plan.start.box
        if self._proposed is None:
            drawn, there = self.programs.propose(self.run, self.key, box)
            self._proposed = np.asarray(drawn), np.asarray(there)
        eps, points = self._proposed
        if self.surrogate is None:
            values = self._called(objective, points)
            self.evaluated += len(points)
        else:
            eps, points = eps.copy(), points.copy()
            values = self._with_model(self.surrogate, objective, eps, points)
        largest = np.finfo(points.dtype).max
        # A value beyond the largest of this precision is large, not a failure.
        values = np.where(np.isinf(values), np.nan, values).clip(-largest, largest)
        self.run, drawn, _, report = self.programs.step(
            self.run,
            self.key,
            box,
            eps,
            points,
            values.astype(points.dtype),
            self._limits_there,
        )
        facts = np.asarray(report)
        self._proposed = np.asarray(drawn), facts[: points.size].reshape(points.shape)
        row = facts[points.size :]
        self.generation += 1
        self.stopped = bool(row[-1]) or self._is_hopeless(sigma=float(row[2]))
        self._rows.append(row[:-1])
        self._counts.append(self.evaluated)

    def _with_model(
        self,
        surrogate: Surrogate,
        objective: HostObjective,
        eps: Float[np.ndarray, "n d"],
        points: Float[np.ndarray, "n d"],
    ) -> Float[np.ndarray, "n"]:
        """The values of a generation, as few of them evaluated as the model allows; it
        may overwrite a draw and its point."""
        box, frame = self.plan.start.box, Frame.of(self.run.state.q)
        row = surrogate.improve(eps, frame)
        if row is not None:
            y = frame.place(eps[row]).astype(points.dtype)
            points[row] = y if box is None else _place(box, y)
        values, known = surrogate.evaluate(
            eps, frame, lambda rows: self._called(objective, points[rows])
        )
        self.evaluated += int(known.sum())
        return values

    def _is_hopeless(self, sigma: float) -> bool:
        """Whether this run's valley ends, by its model, far above the best value, and
        the run has been closing in on its end."""
        foreseen = None if self.surrogate is None else self.surrogate.foreseen
        if foreseen is None or not np.isfinite(self.best_value):
            self.doubt = None
            return False
        value = float(self.run.best_value)
        # What has been gained meanwhile counts too: a winding valley is slow.
        from_value, from_sigma = self.doubt or (value, sigma)
        if from_value - foreseen >= 0.1 * (value - self.best_value):
            self.doubt = None
            return False
        self.doubt = from_value, from_sigma
        return sigma < CLOSER * from_sigma

    @property
    def goes_on(self) -> bool:
        """Whether this run has another generation to go."""
        if self.axes is not None:
            return True
        if self._done_by_axes:
            return False
        limits, popsize = self.limits, self.strategy.popsize
        affords = self.evaluated + popsize <= int(limits.maxfevals)
        more = self.generation < int(limits.maxiter)
        return not self.stopped and affords and more

    @property
    def _done_by_axes(self) -> bool:
        """Whether there is nothing left for runs to do."""
        enough = self.plan.settles or self.plan.restarts == 0
        reached = self.best_value <= float(self.plan.stopping.ftarget)
        return reached or (self.solved and enough)

    # -- from run to run --------------------------------------------------------------

    def next_run(self) -> str | None:
        """Close a run that has ended and begin the next, or say why there is none."""
        if self._done_by_axes:
            return self._ended_by_axes()
        why = self.reasons()
        found = converged(why)
        best, was_converged = self.best_value, self.best_converged
        value = float(self.run.best_value)
        is_best = value < best
        agree = self._agree(value, found)
        message = self._message(why)
        schedule = replace(self.schedule, agree=agree)
        left = int(self.plan.stopping.maxfevals) - self.nfev
        spent = self.evaluated
        following = schedule.after(spent, self.plan.seed)
        following = following.within(left)
        end = self._end(why, message, schedule, following)
        if end is not None:
            self.best_converged = found if is_best else was_converged
            return end
        if is_best:
            self.best_point = np.asarray(self.run.best_point)
            self.best_value, self.best_converged = value, found
        self._file_rows()
        self.spent, self.generations = self.nfev, self.nit
        self.failed = self.nfailed
        self.stops.append(message)
        self.schedule = following
        self.open_run()
        return None

    def _ended_by_axes(self) -> str:
        if self.best_value > float(self.plan.stopping.ftarget):
            return SOLVED
        return self._message({"ftarget": self.best_value})

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
        found = reasons(
            np.asarray(self.run.measured),
            np.asarray(self.run.fired),
            self.generation,
            self.evaluated,
            self.strategy.popsize,
            self.limits,
        )
        foreseen = None if self.surrogate is None else self.surrogate.foreseen
        if not found and foreseen is not None:
            found["hopeless"] = foreseen
        return found

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
        return self.spent + self.evaluated

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
        if float(self.run.best_value) < self.best_value:
            return np.asarray(self.run.best_point), float(self.run.best_value)
        return self.best_point, self.best_value

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

    def _file_exchange(
        self, mean: Float[np.ndarray, "d"], values: Float[np.ndarray, "n"]
    ) -> None:
        """Make an exchange along the axes a row of the history, of run −1."""
        row = row_without_distribution(values, mean)
        self.parts.append(
            {
                "evaluations": np.array([self.spent]),
                **columns(row[None]),
                "run": np.array([-1]),
                "popsize": np.array([len(values)]),
            }
        )

    def _file_rows(self) -> None:
        """Make the rows of this run a part of the history."""
        count, popsize = len(self._rows), self.strategy.popsize
        if not count:
            return
        self.parts.append(
            {
                "evaluations": self.spent + np.array(self._counts),
                **columns(np.stack(self._rows)),
                "run": np.full(count, self.schedule.number),
                "popsize": np.full(count, popsize),
            }
        )
        self._rows, self._counts = [], []
