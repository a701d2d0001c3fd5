"""One run of a search, from a starting point to a reason to stop.

The distribution moves by one compiled program: of whole stretches of generations for a
JAX objective, of one exchange with the host for any other (`ngvi.nes.exchange`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from ngvi.nes.evaluation import HostObjective
from ngvi.nes.exchange import Exchange
from ngvi.nes.generation import Run, programs, regrow, run_key
from ngvi.nes.history import History
from ngvi.nes.lagrangian import Lagrangian
from ngvi.nes.methods import make_strategy
from ngvi.nes.noise import LOOKS, NoisyRun
from ngvi.nes.plan import Plan
from ngvi.nes.restarts import Schedule, start_of
from ngvi.nes.run import advance
from ngvi.nes.stopping import describe, reasons
from ngvi.nes.told import Wanted, best_of
from ngvi.nes.tracing import TracedObjective

# Room for the history of one call of the compiled loop.
ROWS = 512

# Compiled once for equal strategies, objectives and shapes.
_advance = jax.jit(advance, static_argnums=(0, 1, 2))


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
        history: to add to.
    """

    def __init__(
        self, plan: Plan, schedule: Schedule, past: Past, history: History
    ) -> None:
        self.plan, self.schedule, self.past = plan, schedule, past
        self.history = history
        start = plan.start
        self.key = run_key(plan.seed, schedule.number)
        self.exchange = Exchange(plan, self.key, schedule.current_popsize)
        target = float(plan.stopping.ftarget)
        self.noise = NoisyRun(target) if plan.noisy else None
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
        self._proposed: tuple[np.ndarray, np.ndarray] | None = None
        """Draws and points of the next generation."""
        self._exhausted = False
        self._let_lead()

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
        wanted = Wanted(
            self.strategy,
            self.run,
            self.generation,
            *self._proposed,
            lambda: self.left,
            self._generations_left,
        )
        evaluated = self.exchange.generation(objective, wanted)
        if evaluated is None:
            self._exhausted = True
            return
        eps, points, values, count = evaluated
        self.evaluated += count
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

    def _count(self, row: np.ndarray) -> None:
        """A generation more, with its row of the history."""
        self.generation += 1
        if self.noise is not None:
            self.noise.see(float(row[1]))
        evaluations = self.past.evaluations + self.evaluated + self.extra
        number, popsize = self.schedule.number, self.strategy.popsize
        self.history.add(row, evaluations, number, popsize)

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
        surrogate, best = self.exchange.surrogate, self.past.best
        value = float(self.run.best_value)
        return surrogate is not None and surrogate.sees_no_prospects(value, sigma, best)

    def judge(self) -> None:
        """Evaluate the answer to a noisy objective again."""
        if self.noise is None or not self.generation:
            return
        plan, left = self.plan, int(self.plan.stopping.maxfevals)
        left -= self.past.evaluations + self.used
        self.noise.judge(plan.objective, plan.args, self._mean(), left)

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
        surrogate = self.exchange.surrogate
        if not found and surrogate is not None and surrogate.foreseen is not None:
            found["hopeless"] = surrogate.foreseen
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
        judged = 0 if self.noise is None else self.noise.judged
        return judged + self._extra_of_objective - self.extra_before

    @property
    def used(self) -> int:
        """Evaluations so far."""
        return self.evaluated + len(self.exchange.told) + self.extra

    @property
    def failed(self) -> int:
        """Evaluations that gave no finite number."""
        lost = sum(not np.isfinite(t.value) for t in self.exchange.told)
        answers = 0 if self.noise is None else self.noise.failed
        return int(self.run.failed) + lost + answers

    def best(self) -> tuple[np.ndarray, float]:
        """The best point, and its value (to be minimised)."""
        if self.noise is not None:
            value = self.noise.value
            return self._mean(), float(self.run.median) if value is None else value
        point, value = np.asarray(self.run.best_point), float(self.run.best_value)
        return best_of(self.exchange.told, point, value)

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
