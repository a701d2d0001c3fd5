"""A search with its restarts: what a call of `ngvi.minimize` is made of."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.nes.bounds import Box
from ngvi.nes.evaluation import HostObjective, TracedObjective
from ngvi.nes.generation import Row, Run, begin, digest, observe, propose, run_key
from ngvi.nes.methods import make_strategy
from ngvi.nes.plan import Plan
from ngvi.nes.restarts import ENOUGH_AGREE, Schedule, start_of
from ngvi.nes.run import advance, affords
from ngvi.nes.stopping import CONVERGED, TESTS, Stopping, describe
from ngvi.nes.strategies import Strategy

# Room for the history of one call of the compiled loop.
ROWS = 512

# Compiled once for equal strategies, objectives and shapes.
_begin = jax.jit(begin, static_argnums=0)
_advance = jax.jit(advance, static_argnums=(0, 1, 2))
_propose = jax.jit(propose, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _digest(
    strategy: Strategy,
    run: Run,
    eps: Float[Array, "n d"],
    points: Float[Array, "n d"],
    values: Float[Array, "n"],
    stopping: Stopping,
    box: Box | None,
) -> tuple[Run, Row, Array]:
    run = digest(strategy, run, eps, points, values, stopping)
    return run, observe(run, box), ~run.stopped & affords(strategy, run, stopping)


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
        self.open_run()

    # -- one run ----------------------------------------------------------------------

    def open_run(self) -> None:
        """Begin the run that the schedule says."""
        plan, start = self.plan, self.plan.start
        number, popsize = self.schedule.number, self.schedule.current_popsize
        self.strategy = make_strategy(plan.method, start.dim, popsize)
        point = start_of(
            number,
            plan.seed,
            np.asarray(start.x0),
            np.asarray(start.sigma),
            start.lower,
            start.upper,
        )
        x = jnp.asarray(point, start.x0.dtype)
        if start.box is not None:
            x = jnp.clip(x, start.box.lower, start.box.upper)
        sigma = start.sigma * self.schedule.shrink
        self.run = _begin(self.strategy, x, sigma, start.box)
        self.key = run_key(plan.seed, number)

    @property
    def limits(self) -> Stopping:
        """Of this run: what is left of the budget, or its share."""
        whole = self.plan.stopping
        left = int(whole.maxfevals) - self.spent
        share = self.schedule.share
        return replace(
            whole,
            maxfevals=left if share is None else min(left, share),
            maxiter=int(whole.maxiter) - self.generations,
        )

    def advance(self, limit: int) -> None:
        """At most so many generations of this run."""
        objective, box = self.plan.objective, self.plan.start.box
        if isinstance(objective, TracedObjective):
            self.run, rows, filled = _advance(
                self.strategy,
                objective,
                ROWS,
                self.run,
                self.key,
                box,
                self.plan.args,
                self.limits,
                min(limit, ROWS),
            )
            self._remember(rows, int(filled))
            return
        for _ in range(limit):
            if not self._generation(objective, box):
                break

    def _generation(self, objective: HostObjective, box: Box | None) -> bool:
        """One generation on the host; whether another may follow."""
        eps, points = _propose(self.strategy, self.run, self.key, box)
        values = objective(np.asarray(points))
        if self.nit == 0 and objective.raised >= len(values):
            warnings.warn(
                "every evaluation of the first generation raised an error; the first "
                f"one: {objective.first_error}",
                RuntimeWarning,
                stacklevel=4,
            )
        largest = float(jnp.finfo(points.dtype).max)
        finite = np.isfinite(values)
        values = np.where(finite, np.clip(values, -largest, largest), np.nan)
        self.run, row, goes_on = _digest(
            self.strategy,
            self.run,
            eps,
            points,
            jnp.asarray(values, points.dtype),
            self.limits,
            box,
        )
        self._remember(jax.tree.map(lambda leaf: leaf[None], row), 1)
        return bool(goes_on)

    @property
    def goes_on(self) -> bool:
        """Whether this run has another generation to go."""
        if bool(self.run.stopped):
            return False
        return bool(affords(self.strategy, self.run, self.limits))

    # -- from run to run --------------------------------------------------------------

    def next_run(self) -> str | None:
        """Close a run that has ended and begin the next, or say why there is none."""
        reasons = self.reasons()
        converged = bool(CONVERGED & reasons.keys()) or "ftarget" in reasons
        best, was_converged = self.best_value, self.best_converged
        value = float(self.run.best_value)
        is_best = value < best
        agree = self._agree(value, converged)
        message = self._message(reasons)
        schedule = replace(self.schedule, agree=agree)
        left = int(self.plan.stopping.maxfevals) - self.nfev
        following = schedule.after(int(self.run.evaluations), self.plan.seed)
        following = following.within(left)
        end = self._end(reasons, message, schedule, following)
        if end is not None:
            self.best_converged = converged if is_best else was_converged
            return end
        if is_best:
            self.best_point = np.asarray(self.run.best_point)
            self.best_value, self.best_converged = value, converged
        self.spent, self.generations = self.nfev, self.nit
        self.failed = self.nfailed
        self.stops.append(message)
        self.schedule = following
        self.open_run()
        return None

    def _agree(self, value: float, converged: bool) -> int:
        """How many runs have found the best value, this one's included.

        Small runs do not count: they may share a local optimum, or its like.
        """
        near = 1e-6 * abs(value) + 10 * float(self.plan.stopping.tolfun)
        agree = self.schedule.agree
        if value < self.best_value - near:
            agree = 0
        counts = self.schedule.large or self.schedule.number == 0
        return agree + (counts and converged and value <= self.best_value + near)

    def _end(
        self,
        reasons: dict[str, float],
        message: str,
        schedule: Schedule,
        following: Schedule,
    ) -> str | None:
        """Why no run is to follow."""
        whole, count = self.plan.stopping, schedule.number
        if self.plan.restarts is not None and count >= self.plan.restarts:
            return message
        if "ftarget" in reasons:
            return message
        dim = self.plan.start.dim
        if self.nit >= int(whole.maxiter):
            return describe("maxiter", self.nit, whole, dim)
        if int(whole.maxfevals) - self.nfev < following.current_popsize:
            return describe("maxfevals", self.nfev, whole, dim)
        if self.plan.settles and schedule.agree >= ENOUGH_AGREE:
            return f"{message} (found by {schedule.agree} runs of growing populations)"
        return None

    def reasons(self) -> dict[str, float]:
        """The tests that stop this run, with the number each has looked at."""
        measured, fired = np.asarray(self.run.measured), np.asarray(self.run.fired)
        found = {
            name: float(value)
            for name, value, stop in zip(TESTS, measured, fired, strict=True)
            if stop
        }
        limits = self.limits
        if int(self.run.state.generation) >= int(limits.maxiter):
            found["maxiter"] = float(self.run.state.generation)
        elif not found and not bool(affords(self.strategy, self.run, limits)):
            found["maxfevals"] = float(self.run.evaluations)
        return found

    def _message(self, reasons: dict[str, float]) -> str:
        limits, dim = self.limits, self.plan.start.dim
        sign = self.plan.objective.sign
        return "; ".join(
            describe(name, value, limits, dim, sign) for name, value in reasons.items()
        )

    # -- what it has come to ----------------------------------------------------------

    @property
    def nfev(self) -> int:
        """Evaluations so far."""
        return self.spent + int(self.run.evaluations)

    @property
    def nit(self) -> int:
        """Generations so far."""
        return self.generations + int(self.run.state.generation)

    @property
    def nfailed(self) -> int:
        """Evaluations that gave no finite number."""
        return self.failed + int(self.run.failed)

    def best(self) -> tuple[np.ndarray, float]:
        """The best point of all runs, and its value (to be minimised)."""
        if float(self.run.best_value) < self.best_value:
            return np.asarray(self.run.best_point), float(self.run.best_value)
        return self.best_point, self.best_value

    def _remember(self, rows: Row, count: int) -> None:
        kept = {
            field.name: np.asarray(getattr(rows, field.name))[:count]
            for field in fields(rows)
        }
        kept["evaluations"] = kept["evaluations"] + self.spent
        kept["run"] = np.full(count, self.schedule.number)
        kept["popsize"] = np.full(count, self.strategy.popsize)
        self.parts.append(kept)

    def history(self) -> dict[str, np.ndarray]:
        """Columns with a row a generation, as they were minimised."""
        if not self.parts:
            return {}
        joined = {
            name: np.concatenate([part[name] for part in self.parts])
            for name in self.parts[0]
        }
        self.parts = [joined]
        return dict(joined)
