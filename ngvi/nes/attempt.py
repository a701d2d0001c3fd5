"""One run of a search, from a starting point to a reason to stop.

The distribution moves by one compiled program: of whole stretches of generations for a
JAX objective, of one exchange with the host for any other. What stands between the
draws and their values there is one of three: a call of the objective, a quadratic model
that saves calls (`ngvi.nes.surrogate`), or evaluations in flight (`ngvi.nes.flow`).
"""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ngvi.nes.evaluation import HostObjective
from ngvi.nes.flow import Flow, Population
from ngvi.nes.generation import Run, columns, programs, regrow, run_key
from ngvi.nes.lagrangian import Lagrangian
from ngvi.nes.methods import make_strategy
from ngvi.nes.noise import LOOKS, NoisyRun
from ngvi.nes.plan import Plan
from ngvi.nes.restarts import Schedule, start_of
from ngvi.nes.run import advance
from ngvi.nes.stopping import describe, reasons
from ngvi.nes.surrogate import Frame, Surrogate
from ngvi.nes.tracing import TracedObjective

# Room for the history of one call of the compiled loop.
ROWS = 512
# A run without prospects is left when σ has fallen so far.
CLOSER = 0.5

# Compiled once for equal strategies, objectives and shapes.
_advance = jax.jit(advance, static_argnums=(0, 1, 2))
_place = jax.jit(lambda box, y: box.place(y))


def warn_that_none_works(objective: HostObjective) -> None:
    """Every evaluation of a search's first generation has raised."""
    warnings.warn(
        "every evaluation of the first generation raised an error; the first one: "
        f"{objective.tally.first_error}",
        RuntimeWarning,
        stacklevel=8,
    )


class Past(NamedTuple):
    """What a run knows of the ones before it."""

    evaluations: int = 0
    """All of them, whatever for."""
    generations: int = 0
    best: float = np.inf
    """The best value, to be minimised."""


class Attempt:
    """A run, as far as it has come.

    Args:
        plan: of the search.
        schedule: which run of the search it is.
        past: what earlier runs have come to.
    """

    def __init__(self, plan: Plan, schedule: Schedule, past: Past) -> None:
        self.plan, self.schedule, self.past = plan, schedule, past
        start = plan.start
        self.key = run_key(plan.seed, schedule.number)
        self.flow = self._flow()
        target = float(plan.stopping.ftarget)
        self.noise = NoisyRun(target) if plan.noisy else None
        self.judged = 0
        """Evaluations of the answer to a noisy objective."""
        self.failed_answers = 0
        """Those of them that gave no finite number."""
        self.extra_before = self._extra_of_objective
        self.set_popsize(schedule.current_popsize)
        whole, share = plan.stopping, schedule.share
        left = int(whole.maxfevals) - past.evaluations
        self.set_budget(left if share is None else min(left, share))
        point = start_of(
            schedule.number,
            plan.seed,
            np.asarray(start.x0),
            np.asarray(start.sigma),
            start.lower,
            start.upper,
        )
        sigma = np.asarray(start.sigma) * np.asarray(schedule.shrink, point.dtype)
        run = self.programs.begin(point, sigma, start.box)
        if plan.constraints is not None:
            fresh = Lagrangian.start(plan.equality, plan.ctol, point.dtype)
            run = replace(run, lagrangian=fresh)
        self.go_on_from(run)

    def set_popsize(self, popsize: int) -> None:
        """Have generations of this size from now on."""
        self.strategy = make_strategy(self.plan.method, self.plan.start.dim, popsize)
        self.programs = programs(self.strategy)

    def set_budget(self, evaluations: int) -> None:
        """Have at most so many evaluations."""
        maxiter = int(self.plan.stopping.maxiter) - self.past.generations
        limits = replace(self.plan.stopping, maxfevals=evaluations, maxiter=maxiter)
        if self.noise is not None:
            limits = self.noise.limits(limits, self.strategy.popsize)
        self.limits = limits
        # A number is sent to the device once, not in every call.
        self._limits_there = jax.device_put(limits)

    def go_on_from(self, run: Run) -> None:
        """Take the place of this run by itself, at another of its generations."""
        self.run = run
        self.generation = int(run.state.generation)
        """How many this run has had."""
        self.stopped = bool(np.asarray(run.fired).any())
        self.evaluated = self.generation * self.strategy.popsize
        """Evaluations that the generations have seen."""
        self.doubt: tuple[float, float] | None = None
        """The best value and σ when the model began to foresee no new best of all."""
        dim, popsize = self.plan.start.dim, self.strategy.popsize
        self.surrogate = Surrogate(dim, popsize) if self.plan.surrogate else None
        self._proposed: tuple[np.ndarray, np.ndarray] | None = None
        """Draws and points of the next generation."""
        self._rows: list[tuple[int, int, np.ndarray]] = []
        """Of the history: evaluations so far, of all runs; population; columns."""
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

    # -- generations ------------------------------------------------------------------

    @property
    def goes_on(self) -> bool:
        """Whether there is another generation to go."""
        affords = self.left >= self.strategy.popsize and not self._exhausted
        return affords and not self.stopped and self._generations_left > 0

    @property
    def left(self) -> int:
        """Evaluations that this run may still have."""
        return int(self.limits.maxfevals) - self.evaluated - self.extra

    @property
    def _generations_left(self) -> int:
        return int(self.limits.maxiter) - self.generation

    def advance(self, limit: int) -> None:
        """At most so many generations."""
        objective = self.plan.objective
        if isinstance(objective, TracedObjective):
            self._stretch(objective, limit)
            return
        for _ in range(limit):
            if not self.goes_on:
                break
            self._generation(objective)
            self._after_generations()

    def _stretch(self, objective: TracedObjective, limit: int) -> None:
        """Generations in one compiled loop."""
        limits, popsize = self._limits_there, self.strategy.popsize
        if self.noise is not None:
            limit = min(limit, LOOKS - self.generation % LOOKS)
            # The compiled loop takes all generations for as large as this one.
            as_if = self.generation * popsize + self.left
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
            self.evaluated += popsize
            self._count(row)
        self._after_generations()

    def _generation(self, objective: HostObjective) -> None:
        """One generation whose points are evaluated here or elsewhere."""
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
            told = self.flow.generation(
                self.strategy,
                self.run,
                self.generation,
                (eps, points),
                lambda: self.left,
                self._generations_left,
            )
            if told is not None:
                self.evaluated += popsize
                self._warn_if_none_works(objective, popsize)
            return told
        objective.tally.spare = self.left - popsize
        if self.surrogate is None:
            values = self._call(objective, points)
            self.evaluated += len(points)
            return eps, points, values
        eps, points = eps.copy(), points.copy()
        # A copy: a generation that is interrupted has not been.
        surrogate = copy(self.surrogate)
        values = self._with_model(surrogate, objective, eps, points)
        self.surrogate = surrogate
        return eps, points, values

    def _call(
        self, objective: HostObjective, points: Float[np.ndarray, "n d"]
    ) -> Float[np.ndarray, "n"]:
        values = objective(points)
        self._warn_if_none_works(objective, len(values))
        return values

    def _warn_if_none_works(self, objective: HostObjective, count: int) -> None:
        first = self.generation + self.past.generations == 0
        if first and objective.tally.raised >= count:
            warn_that_none_works(objective)

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
            eps, frame, lambda rows: self._call(objective, points[rows])
        )
        self.evaluated += int(known.sum())
        return values

    def _count(self, row: np.ndarray) -> None:
        """A generation more, with its row of the history."""
        self.generation += 1
        if self.noise is not None:
            self.noise.see(float(row[1]))
        evaluations = self.past.evaluations + self.evaluated + self.extra
        self._rows.append((evaluations, self.strategy.popsize, row))

    def take_rows(self) -> dict[str, np.ndarray] | None:
        """Columns of the history since this was last called."""
        if not self._rows:
            return None
        counts, popsizes, rows = zip(*self._rows, strict=True)
        self._rows = []
        return {
            "evaluations": np.array(counts),
            **columns(np.stack(rows), self.plan.constraints is not None),
            "run": np.full(len(rows), self.schedule.number),
            "popsize": np.array(popsizes),
        }

    # -- at the end of generations, and of the run ------------------------------------

    def _after_generations(self) -> None:
        self._answer_to_noise()
        self._let_lead()

    def _answer_to_noise(self) -> None:
        """Stop at a median that is good enough; grow where there is no progress."""
        if self.noise is None or self.generation % LOOKS:
            return
        self.stopped |= self.noise.on_target
        popsize = 2 * self.strategy.popsize
        if self.noise.wants(popsize, self.left):
            self.noise.medians = []
            self.set_popsize(popsize)
            self.run = regrow(self.strategy, self.run)
            self._proposed = None

    def _let_lead(self) -> None:
        """A run with a share of the budget that is better than all before may have the
        rest of it."""
        left = int(self.plan.stopping.maxfevals) - self.past.evaluations
        leads = float(self.run.best_value) < self.past.best and self.noise is None
        if leads and int(self.limits.maxfevals) < left:
            self.set_budget(left)

    def _is_hopeless(self, sigma: float) -> bool:
        """Whether this run's valley ends, by its model, far above the best value, and
        the run has been closing in on its end."""
        foreseen = None if self.surrogate is None else self.surrogate.foreseen
        if foreseen is None or not np.isfinite(self.past.best):
            self.doubt = None
            return False
        value = float(self.run.best_value)
        # What has been gained meanwhile counts too: a winding valley is slow.
        from_value, from_sigma = self.doubt or (value, sigma)
        if from_value - foreseen >= 0.1 * (value - self.past.best):
            self.doubt = None
            return False
        self.doubt = from_value, from_sigma
        return sigma < CLOSER * from_sigma

    def pause(self) -> None:
        """Give up what is in flight."""
        if self.flow is not None:
            self.flow.pause()

    def judge(self) -> None:
        """Evaluate the answer to a noisy objective again."""
        if self.noise is None or not self.generation:
            return
        plan, left = self.plan, int(self.plan.stopping.maxfevals)
        left -= self.past.evaluations + self.used
        count, failed = self.noise.judge(plan.objective, plan.args, self._mean(), left)
        self.judged += count
        self.failed_answers += failed

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
        if not found and (self._exhausted or self.left < self.strategy.popsize):
            found["maxfevals"] = int(self.limits.maxfevals) - self.left
        foreseen = None if self.surrogate is None else self.surrogate.foreseen
        if not found and foreseen is not None:
            found["hopeless"] = foreseen
        return found

    def describe(self, why: dict[str, float]) -> str:
        """Reasons as sentences."""
        limits = replace(self.limits, ftarget=self.plan.stopping.ftarget)
        dtype, sign = self.plan.start.x0.dtype, self.plan.objective.sign
        return "; ".join(
            describe(name, value, limits, dtype, sign) for name, value in why.items()
        )

    # -- what it has come to ----------------------------------------------------------

    @property
    def _extra_of_objective(self) -> int:
        objective = self.plan.objective
        return objective.tally.extra if isinstance(objective, HostObjective) else 0

    @property
    def extra(self) -> int:
        """Evaluations whose values no generation has seen."""
        return self.judged + self._extra_of_objective - self.extra_before

    @property
    def used(self) -> int:
        """Evaluations so far."""
        waiting = len(self.flow.told) if self.flow else 0
        return self.evaluated + waiting + self.extra

    @property
    def failed(self) -> int:
        """Evaluations that gave no finite number."""
        waiting = self.flow.told if self.flow else []
        lost = sum(not np.isfinite(t.value) for t in waiting)
        return int(self.run.failed) + lost + self.failed_answers

    def best(self) -> tuple[np.ndarray, float]:
        """The best point, and its value (to be minimised)."""
        if self.noise is not None:
            value = self.noise.value
            return self._mean(), float(self.run.median) if value is None else value
        point, value = np.asarray(self.run.best_point), float(self.run.best_value)
        if self.flow is not None:
            other, least = self.flow.best()
            if other is not None and least < value:
                return other, least
        return point, value

    def row(self) -> tuple[float, float]:
        """The best point's largest violation, and its value even if it has one."""
        lagrangian = self.run.lagrangian
        if lagrangian is None:
            return 0.0, self.best()[1]
        return float(lagrangian.violation), float(lagrangian.best[0])

    def _mean(self) -> np.ndarray:
        """Of the distribution, as a point."""
        mean, box = self.run.state.q.mean, self.plan.start.box
        return np.asarray(mean if box is None else box.place(mean))
