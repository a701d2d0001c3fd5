"""A search that waits for no straggler: values move it in the order they come in.

So many evaluations are kept in flight. Each that ends makes room for one from the
distribution as it is now, and whenever `popsize` values have come in the distribution
moves, late ones taking part by the draws they would be made of there (see
`ngvi.nes.told`). What is in flight when a run ends is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from ngvi.executors import Dispatcher
from ngvi.nes.checks import check_whole
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.generation import Run
from ngvi.nes.lattice import Domain
from ngvi.nes.strategies import Strategy
from ngvi.nes.told import Told, draw_more, make_generation

Population = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Base draws, points, values."""


class Flow:
    """The points of one run: drawn, in flight, told.

    Args:
        objective: on an executor.
        dispatcher: its.
        width: evaluations to keep in flight.
        key: of the run.
        box: the bounds.
    """

    def __init__(
        self,
        objective: HostObjective,
        dispatcher: Dispatcher,
        width: int,
        key: Key[Array, ""],
        box: Domain | None,
    ) -> None:
        self.objective, self.dispatcher, self.width = objective, dispatcher, width
        self.key, self.box = key, box
        self.told: list[Told] = []
        """Values that no generation has seen yet."""
        self._again: list[Told] = []
        """Given up, to be asked again."""
        self._orders = 0
        self._asked = 0
        """In this generation."""
        self._generation = -1
        self._batch: tuple[int, Any] = (-1, None)
        """The population that points are being taken from, and its number."""

    def generation(
        self,
        strategy: Strategy,
        run: Run,
        number: int,
        first: tuple[np.ndarray, np.ndarray],
        left: Callable[[], int],
        generations: int,
    ) -> Population | None:
        """The next `popsize` values that come in.

        Args:
            strategy: of the run.
            run: as it is now.
            number: of the generation.
            first: its first `popsize` base draws and points.
            left: how many evaluations the budget allows beyond what earlier generations
                have seen.
            generations: at most so many are to come.

        Returns:
            None if the budget does not suffice any longer.
        """
        popsize = strategy.popsize
        if number != self._generation:
            self._generation, self._asked, self._batch = number, 0, (-1, None)
        while len(self.told) < popsize:
            # No more than what whole generations can be made of.
            room = min(left() // popsize, generations) * popsize - len(self.told)
            while len(self.dispatcher) < min(self.width, room):
                draw = self._next_draw(strategy, run, first)
                self.objective.start(self.dispatcher, draw, draw.point)
            pending = len(self.told) + len(self.dispatcher)
            if pending < popsize and not len(self.dispatcher):
                return None
            self.objective.tally.spare = left() - max(pending, popsize)
            for draw, value in self.objective.arrivals(self.dispatcher):
                self.told.append(draw._replace(value=value))
        now, self.told = self.told[:popsize], self.told[popsize:]
        return make_generation(now, run, number, self.box)

    def _next_draw(
        self, strategy: Strategy, run: Run, first: tuple[np.ndarray, np.ndarray]
    ) -> Told:
        if self._again:
            return self._again.pop(0)
        batch, i = divmod(self._asked, strategy.popsize)
        if batch != self._batch[0]:
            drawn = first if batch == 0 else self._draw(strategy, run, batch)
            self._batch = batch, drawn
        eps, points = self._batch[1]
        draw = Told(self._orders, self._generation, points[i], eps[i])
        self._asked += 1
        self._orders += 1
        return draw

    def _draw(self, strategy: Strategy, run: Run, batch: int) -> Any:
        return jax.device_get(draw_more(strategy, run, self.key, batch, self.box))

    def pause(self) -> None:
        """Give up what is in flight; it is asked again if the run goes on."""
        self._again = [*self.dispatcher.tags, *self._again]
        self.dispatcher.cancel()

    def best(self) -> tuple[np.ndarray | None, float]:
        """The best of the values that no generation has seen."""
        finite = [t for t in self.told if np.isfinite(t.value)]
        if not finite:
            return None, np.inf
        best = min(finite, key=lambda t: t.value)
        return best.point, best.value

    # -- checkpoints ------------------------------------------------------------------

    def to_arrays(self, dim: int, dtype: Any) -> dict[str, np.ndarray]:
        """All that another flow needs to go on."""
        open_ones = [*self.dispatcher.tags, *self._again]
        known = [*self.told, *open_ones]
        shape = (len(known), dim)
        return {
            "counts": np.array(
                [len(self.told), self._orders, self._asked, self._generation]
            ),
            "order": np.array([t.order for t in known], int),
            "generation": np.array([t.generation for t in known], int),
            "point": np.array([t.point for t in known], dtype).reshape(shape),
            "eps": np.array([t.eps for t in known], dtype).reshape(shape),
            "value": np.array([t.value for t in known], float),
        }

    def go_on_from(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the place of another flow; what it had in flight is asked again."""
        told, self._orders, self._asked, self._generation = arrays["counts"].tolist()
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
