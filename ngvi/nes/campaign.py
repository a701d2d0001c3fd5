"""A search with its restarts: what a call of `ngvi.minimize` is made of."""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ngvi.nes.axes import AxisSearch
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.flow import Flow, Population
from ngvi.nes.generation import (
    Run,
    columns,
    programs,
    regrow,
    row_without_distribution,
    run_key,
)
from ngvi.nes.methods import make_strategy
from ngvi.nes.noise import LOOKS, WINDOW, NoisyRun
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
        self.best_error = np.nan
        """Of the value of a noisy objective."""
        self.spent, self.generations, self.failed = 0, 0, 0
        """Of the runs that have ended; evaluations that generations have seen."""
        self.judged = 0
        """Evaluations of the answers to a noisy objective."""
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
        left = int(self.plan.stopping.maxfevals) - self.nfev - len(points)
        if left < 0:
            self._leave_axes(axes)
            return
        if isinstance(self.plan.objective, HostObjective):
            self.plan.objective.tally.spare = left
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
        self._warn_if_none_works(objective, len(values))
        return values

    def _warn_if_none_works(self, objective: HostObjective, count: int) -> None:
        if self.nit == 0 and objective.tally.raised >= count:
            warnings.warn(
                "every evaluation of the first generation raised an error; the first "
                f"one: {objective.tally.first_error}",
                RuntimeWarning,
                stacklevel=6,
            )

    # -- one run ----------------------------------------------------------------------

    def open_run(self) -> None:
        """Begin the run that the schedule says."""
        plan, start = self.plan, self.plan.start
        number, popsize = self.schedule.number, self.schedule.current_popsize
        self.set_popsize(popsize)
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
        self.flow = self._flow()
        self.extra_before = self.extra
        """Of `extra`, what earlier runs have cost."""
        target = float(plan.stopping.ftarget)
        self.noise = NoisyRun(target) if plan.noisy else None
        self.limits = self._limits()
        # A number is sent to the device once, not in every call.
        self._limits_there = jax.device_put(self.limits)
        self.go_on_from(self.programs.begin(point, sigma, start.box))

    def set_popsize(self, popsize: int) -> None:
        """Have generations of this size from now on."""
        plan = self.plan
        self.strategy = make_strategy(plan.method, plan.start.dim, popsize)
        self.programs = programs(self.strategy)

    def go_on_from(self, run: Run) -> None:
        """Take the place of this run by itself, at another of its generations."""
        self.run = run
        self.generation = int(run.state.generation)
        """How many this run has had."""
        self.stopped = bool(np.asarray(run.fired).any())
        self.evaluated = self.generation * self.strategy.popsize
        """Evaluations that the generations of this run have seen."""
        self.doubt: tuple[float, float] | None = None
        """This run's best value and σ when the model began to foresee no new best."""
        self.surrogate = (
            Surrogate(self.plan.start.dim, self.strategy.popsize)
            if self.plan.surrogate
            else None
        )
        self._proposed: tuple[np.ndarray, np.ndarray] | None = None
        """Draws and points of the next generation."""
        self._rows: list[tuple[int, np.ndarray]] = []
        """Of the history, not yet in a part of it, each after how many evaluations."""
        self._exhausted = False
        self._let_lead()

    def _flow(self) -> Flow | None:
        """What keeps evaluations in flight, if the search waits for no generation."""
        objective, width = self.plan.objective, self.plan.in_flight
        if not width or not isinstance(objective, HostObjective):
            return None
        assert objective.dispatcher is not None
        return Flow(
            objective, objective.dispatcher, width, self.key, self.plan.start.box
        )

    def _limits(self) -> Stopping:
        """Of this run: what is left of the budget, or its share."""
        whole, share = self.plan.stopping, self.schedule.share
        left = int(whole.maxfevals) - self.spent - self.extra
        left = left if share is None else min(left, share)
        maxiter = int(whole.maxiter) - self.generations
        limits = replace(whole, maxfevals=left, maxiter=maxiter)
        if self.noise is None:
            return limits
        return self.noise.limits(limits, self.strategy.popsize)

    def advance(self, limit: int) -> None:
        """At most so many generations of this run, or one exchange along the axes."""
        if self.axes is not None:
            self._along_axes(self.axes)
            return
        objective = self.plan.objective
        if isinstance(objective, TracedObjective):
            limits = self._limits_there
            if self.noise is not None:
                limit = min(limit, LOOKS - self.generation % LOOKS)
                # The compiled loop takes all generations for as large as this one.
                as_if = self.generation * self.strategy.popsize + self.left
                limits = replace(limits, maxfevals=as_if)
            self.run, rows, done = _advance(
                self.strategy,
                objective,
                ROWS,
                self.run,
                self.key,
                self.plan.start.box,
                self.plan.args,
                limits,
                min(limit, ROWS),
            )
            self.stopped = bool(np.asarray(self.run.fired).any())
            for row in np.asarray(rows)[: int(done)]:
                self.evaluated += self.strategy.popsize
                self._count(row)
            self._answer_to_noise()
            self._let_lead()
            return
        for _ in range(limit):
            if not self.goes_on:
                break
            self._generation(objective)
            self._answer_to_noise()
            self._let_lead()

    def _answer_to_noise(self) -> None:
        """Stop at a median that is good enough; grow where there is no progress."""
        if self.noise is None or self.generation % LOOKS:
            return
        self.stopped |= self.noise.on_target
        popsize = 2 * self.strategy.popsize
        if self.noise.wants(popsize, self.left):
            self._file_rows()
            self.noise.medians = []
            self.set_popsize(popsize)
            self.run = regrow(self.strategy, self.run)
            self._proposed = None

    def _let_lead(self) -> None:
        """A run with a share of the budget that is better than all before may have the
        rest of it."""
        left = int(self.plan.stopping.maxfevals) - self.spent - self.extra_before
        leads = float(self.run.best_value) < self.best_value and self.noise is None
        if leads and int(self.limits.maxfevals) < left:
            self.limits = replace(self.limits, maxfevals=left)
            self._limits_there = jax.device_put(self.limits)

    def _generation(self, objective: HostObjective) -> None:
        """One generation on the host."""
        box = self.plan.start.box
        if self._proposed is None:
            drawn, there = self.programs.propose(self.run, self.key, box)
            self._proposed = np.asarray(drawn), np.asarray(there)
        told = self._next_values(objective, *self._proposed)
        if told is None:
            self._exhausted = True
            return
        eps, points, values = told
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
        self.stopped = bool(row[-1]) or self._is_hopeless(sigma=float(row[2]))
        self._count(row[:-1])

    def _next_values(
        self,
        objective: HostObjective,
        eps: Float[np.ndarray, "n d"],
        points: Float[np.ndarray, "n d"],
    ) -> Population | None:
        """Draws, points and values of the next generation; None if the budget does not
        suffice for another."""
        popsize = self.strategy.popsize
        if self.flow is not None:
            maxiter = int(self.limits.maxiter) - self.generation
            told = self.flow.generation(
                self.strategy,
                self.run,
                self.generation,
                (eps, points),
                lambda: self.left,
                maxiter,
            )
            if told is not None:
                self.evaluated += popsize
                self._warn_if_none_works(objective, popsize)
            return told
        objective.tally.spare = self.left - popsize
        if self.surrogate is None:
            values = self._called(objective, points)
            self.evaluated += len(points)
        else:
            eps, points = eps.copy(), points.copy()
            # A copy: a generation that is interrupted has not been.
            surrogate = copy(self.surrogate)
            values = self._with_model(surrogate, objective, eps, points)
            self.surrogate = surrogate
        return eps, points, values

    def _count(self, row: np.ndarray) -> None:
        """A generation more, with its row of the history."""
        self.generation += 1
        if self.noise is not None:
            self.noise.see(float(row[1]))
        self._rows.append((self.spent + self.evaluated + self.extra, row))

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
        if self._done_by_axes or self.stopped or self._exhausted:
            return False
        affords = self.left >= self.strategy.popsize
        return affords and self.generation < int(self.limits.maxiter)

    @property
    def left(self) -> int:
        """Evaluations that this run may still have."""
        used = self.evaluated + self.extra - self.extra_before
        return int(self.limits.maxfevals) - used

    def pause(self) -> None:
        """Give up what is in flight."""
        if self.flow is not None:
            self.flow.pause()

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
        self.pause()
        why = self.reasons()
        self._judge()
        found = converged(why)
        best, was_converged = self.best_value, self.best_converged
        point, value = self._best_of_run()
        is_best = value < best
        agree = self._agree(value, found)
        message = self._message(why)
        schedule = replace(self.schedule, agree=agree)
        left = int(self.plan.stopping.maxfevals) - self.nfev
        following = schedule.after(self.evaluated, self.plan.seed)
        following = following.within(left)
        end = self._end(why, message, schedule, following)
        if end is not None:
            self.best_converged = found if is_best else was_converged
            return end
        if is_best:
            self.best_point = point
            self.best_value, self.best_converged = value, found
            self.best_error = self.noise.error if self.noise else np.nan
        self._file_rows()
        self.spent, self.generations = self.nfev - self.extra, self.nit
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
        # Noise hides what a few generations find.
        least = following.current_popsize * (WINDOW if self.plan.noisy else 1)
        if int(whole.maxfevals) - self.nfev < least:
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
            replace(self.limits, maxfevals=2**31 - 1),
        )
        if self.noise is not None and self.noise.on_target:
            found["ftarget"] = self.noise.medians[-1]
        spent = self._exhausted or self.left < self.strategy.popsize
        if not found and spent:
            found["maxfevals"] = int(self.limits.maxfevals) - self.left
        foreseen = None if self.surrogate is None else self.surrogate.foreseen
        if not found and foreseen is not None:
            found["hopeless"] = foreseen
        return found

    def _message(self, why: dict[str, float]) -> str:
        target = self.plan.stopping.ftarget
        limits, dtype = replace(self.limits, ftarget=target), self.plan.start.x0.dtype
        sign = self.plan.objective.sign
        return "; ".join(
            describe(name, value, limits, dtype, sign) for name, value in why.items()
        )

    # -- what it has come to ----------------------------------------------------------

    @property
    def nfev(self) -> int:
        """Evaluations so far."""
        waiting = len(self.flow.told) if self.flow else 0
        return self.spent + self.evaluated + waiting + self.extra

    @property
    def extra(self) -> int:
        """Evaluations whose values no generation has seen."""
        objective = self.plan.objective
        if isinstance(objective, HostObjective):
            return self.judged + objective.tally.extra
        return self.judged

    @property
    def nit(self) -> int:
        """Generations so far."""
        return self.generations + self.generation

    @property
    def nfailed(self) -> int:
        """Evaluations that gave no finite number."""
        waiting = self.flow.told if self.flow else []
        lost = sum(not np.isfinite(t.value) for t in waiting)
        return self.failed + int(self.run.failed) + lost

    def best(self) -> tuple[np.ndarray, float]:
        """The best point of all runs, and its value (to be minimised)."""
        point, value = self._best_of_run()
        if value < self.best_value:
            return point, value
        return self.best_point, self.best_value

    def error(self) -> float:
        """The standard error of the best value of a noisy objective."""
        if self.noise is None or self._best_of_run()[1] >= self.best_value:
            return self.best_error
        return self.noise.error

    def _best_of_run(self) -> tuple[np.ndarray, float]:
        if self.noise is not None:
            value = self.noise.value
            return self._mean(), float(self.run.median) if value is None else value
        point, value = np.asarray(self.run.best_point), float(self.run.best_value)
        if self.flow is not None:
            other, least = self.flow.best()
            if other is not None and least < value:
                return other, least
        return point, value

    def _mean(self) -> np.ndarray:
        """Of the distribution, as a point."""
        mean, box = self.run.state.q.mean, self.plan.start.box
        return np.asarray(mean if box is None else box.place(mean))

    def _judge(self) -> None:
        """Evaluate the answer of a noisy run again."""
        if self.noise is None or not self.generation:
            return
        plan, left = self.plan, int(self.plan.stopping.maxfevals) - self.nfev
        count, failed = self.noise.judge(plan.objective, plan.args, self._mean(), left)
        self.judged += count
        self.failed += failed

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
                "evaluations": np.array([self.spent + self.extra]),
                **columns(row[None]),
                "run": np.array([-1]),
                "popsize": np.array([len(values)]),
            }
        )

    def _file_rows(self) -> None:
        """Make the rows of this run a part of the history."""
        if not self._rows:
            return
        counts, rows = zip(*self._rows, strict=True)
        self.parts.append(
            {
                "evaluations": np.array(counts),
                **columns(np.stack(rows)),
                "run": np.full(len(rows), self.schedule.number),
                "popsize": np.full(len(rows), self.strategy.popsize),
            }
        )
        self._rows = []
