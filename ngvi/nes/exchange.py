"""The values of a generation from an objective that is called, in one of three ways.

All points are evaluated; or as few as a quadratic model allows (`ngvi.nes.surrogate`);
or evaluations are kept in flight, and those that come in next make the generation
(`ngvi.nes.flow`).
"""

from __future__ import annotations

from copy import copy

import jax
from jaxtyping import Array, Key

from ngvi.nes.evaluation import HostObjective
from ngvi.nes.flow import Flow
from ngvi.nes.plan import Plan
from ngvi.nes.surrogate import Frame, Surrogate
from ngvi.nes.told import Evaluated, Told, Wanted

_place = jax.jit(lambda box, y: box.place(y))


class Exchange:
    """What stands between the draws of a run and their values.

    Args:
        plan: of the search.
        key: of the run.
        popsize: of its first generation.
    """

    def __init__(self, plan: Plan, key: Key[Array, ""], popsize: int) -> None:
        self.box = plan.start.box
        self.surrogate: Surrogate | None = None
        if plan.surrogate:
            self.surrogate = Surrogate(plan.start.dim, popsize)
        self.flow: Flow | None = None
        if plan.in_flight and isinstance(plan.objective, HostObjective):
            self.flow = Flow(plan.objective, plan.in_flight, key, self.box)

    @property
    def told(self) -> list[Told]:
        """Values that have come in and that no generation has seen."""
        return [] if self.flow is None else self.flow.told

    def pause(self) -> None:
        """Give up what is in flight."""
        if self.flow is not None:
            self.flow.pause()

    def generation(self, objective: HostObjective, wanted: Wanted) -> Evaluated | None:
        """The next generation; None if the budget does not suffice for another."""
        if self.flow is not None:
            return self.flow.generation(wanted)
        popsize = wanted.strategy.popsize
        objective.tally.spare = wanted.left() - popsize
        if self.surrogate is None:
            values = objective(wanted.points)
            return Evaluated(wanted.eps, wanted.points, values, popsize)
        # A copy: a generation that is interrupted has not been.
        surrogate = copy(self.surrogate)
        evaluated = self._with_model(surrogate, objective, wanted)
        self.surrogate = surrogate
        return evaluated

    def _with_model(
        self, surrogate: Surrogate, objective: HostObjective, wanted: Wanted
    ) -> Evaluated:
        """As few evaluated as the model allows; one draw is the model's own."""
        eps, points = wanted.eps.copy(), wanted.points.copy()
        frame = Frame.of(wanted.run.state.q)
        row = surrogate.improve(eps, frame)
        if row is not None:
            y = frame.place(eps[row]).astype(points.dtype)
            points[row] = y if self.box is None else _place(self.box, y)
        values, known = surrogate.evaluate(
            eps, frame, lambda rows: objective(points[rows])
        )
        return Evaluated(eps, points, values, int(known.sum()))
