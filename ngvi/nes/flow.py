"""A search that waits for no straggler: values move it in the order they come in.

So many evaluations are kept in flight. Each that ends makes room for one from the
distribution as it is now, and whenever `popsize` values have come in the distribution
moves, late ones taking part by the draws they would be made of there (see
`ngvi.nes.told`). What is in flight when a run ends is given up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Key

from ngvi.nes.checks import check_whole
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.lattice import Domain
from ngvi.nes.told import Asking, Evaluated, Told, Wanted, make_generation


class Flow:
    """The points of one run: drawn, in flight, told.

    Args:
        objective: on an executor.
        width: evaluations to keep in flight.
        key: of the run.
        box: the bounds.
    """

    def __init__(
        self,
        objective: HostObjective,
        width: int,
        key: Key[Array, ""],
        box: Domain | None,
    ) -> None:
        assert objective.dispatcher is not None
        self.objective, self.dispatcher = objective, objective.dispatcher
        self.width, self.box = width, box
        self.told: list[Told] = []
        """Values that no generation has seen yet."""
        self._again: list[Told] = []
        """Given up, to be asked again."""
        self._asking = Asking(key, box)

    def generation(self, wanted: Wanted) -> Evaluated | None:
        """The next `popsize` values that come in; None if the budget does not suffice
        for them."""
        strategy, run, number, eps, points, left, generations = wanted
        popsize = strategy.popsize
        while len(self.told) < popsize:
            # No more than what whole generations can be made of.
            room = min(left() // popsize, generations) * popsize - len(self.told)
            while len(self.dispatcher) < min(self.width, room):
                again = self._again.pop(0) if self._again else None
                draw = again or self._asking.next(strategy, run, number, (eps, points))
                self.objective.start(self.dispatcher, draw, draw.point)
            pending = len(self.told) + len(self.dispatcher)
            if pending < popsize and not len(self.dispatcher):
                return None
            self.objective.tally.spare = left() - max(pending, popsize)
            for draw, value in self.objective.arrivals(self.dispatcher):
                self.told.append(draw._replace(value=value))
        now, self.told = self.told[:popsize], self.told[popsize:]
        return Evaluated(*make_generation(now, run, number, self.box), popsize)

    def pause(self) -> None:
        """Give up what is in flight; it is asked again if the run goes on."""
        self._again = [*self.dispatcher.tags, *self._again]
        self.dispatcher.cancel()

    # -- checkpoints ------------------------------------------------------------------

    def to_arrays(self, dim: int, dtype: Any) -> dict[str, np.ndarray]:
        """All that another flow needs to go on."""
        open_ones = [*self.dispatcher.tags, *self._again]
        known = [*self.told, *open_ones]
        shape, asking = (len(known), dim), self._asking
        return {
            "counts": np.array(
                [len(self.told), asking.orders, asking.taken, asking.generation]
            ),
            "order": np.array([t.order for t in known], int),
            "generation": np.array([t.generation for t in known], int),
            "point": np.array([t.point for t in known], dtype).reshape(shape),
            "eps": np.array([t.eps for t in known], dtype).reshape(shape),
            "value": np.array([t.value for t in known], float),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the place of another flow; what it had in flight is asked again."""
        asking = self._asking
        told, asking.orders, asking.taken, asking.generation = arrays["counts"].tolist()
        known = [
            Told(int(order), int(generation), point, eps, float(value))
            for order, generation, point, eps, value in zip(
                *(arrays[n] for n in ("order", "generation", "point", "eps", "value")),
                strict=True,
            )
        ]
        self.told, self._again = known[:told], known[told:]


def flight_width(asynchronous: Any, executor: Any, popsize: int) -> int:
    """How many evaluations an asynchronous search keeps in flight; 0 if it is none.

    Raises:
        ValueError: no executor, or no such number.
    """
    if asynchronous is False:
        return 0
    if executor is None:
        raise ValueError("asynchronous evaluation needs an executor, or workers")
    if asynchronous is not True:
        return check_whole("asynchronous", asynchronous, 1)
    # Of `Workers`, or as the pools of `concurrent.futures` call it.
    known = getattr(executor, "count", None) or getattr(executor, "_max_workers", None)
    return known if isinstance(known, int) else popsize
