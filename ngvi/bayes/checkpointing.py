"""Checkpoints of a fit: its state between two trials, and how often data were read.

A fit that goes on from one takes the same steps as without the interruption, to the
last bit on the same machine.
"""

from __future__ import annotations

import inspect
import os
import time
from contextlib import suppress
from typing import Any, Protocol, Self

import jax
from jaxtyping import Array, Float

from ngvi.bayes.plan import Plan
from ngvi.bayes.target import Data, FunctionTarget, Target
from ngvi.checkpoints import Checkpoints, digest, from_arrays, to_arrays
from ngvi.mirror import loop

EVERY = 25
"""Trial steps between two checkpoints of a fit in memory."""
_LARGEST_SHARE = 0.1
"""Of the time, for checkpoints."""


class Counted(Protocol):
    """What reads the data, epoch after epoch; see `ngvi.bayes.sums.Batches`."""

    def position(self) -> dict[str, int]:
        """How far it has come."""
        ...

    def go_on_from(self, position: dict[str, int]) -> None:
        """Be there."""
        ...


class Saver:
    """Keeps the checkpoints of one fit; a context manager that holds the folder.

    Args:
        folder: of the checkpoints.
        every: trial steps between them; more if those would take more than a tenth of
            the time.
        identity: what makes the fit what it is, see `identity`.

    Raises:
        ValueError: `every` is not positive.
        CheckpointError: the folder is a file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int,
        identity: dict[str, Any],
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}.")
        self.every = every
        self._kept = Checkpoints(folder, "fit", identity)
        self._last: int | None = None
        self._took, self._ended = 0.0, time.perf_counter()

    def __enter__(self) -> Self:
        self._kept.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._kept.__exit__(*raised)

    def resumed(
        self, state: loop.State, counted: Counted | None = None
    ) -> loop.State | None:
        """The state of the last checkpoint, None if there is none.

        Args:
            state: one of its shapes, where a fit of its own would begin.
            counted: taken to where it was.

        Raises:
            CheckpointError: there are checkpoints, but none is whole and of this fit.
        """
        found = self._kept.latest()
        if found is None:
            return None
        resumed = from_arrays(found.arrays, state)
        if counted is not None:
            counted.go_on_from(found.facts["read"])
        self._last = int(resumed.iteration)
        return resumed

    def save(self, state: loop.State, counted: Counted | None = None) -> None:
        """Write a checkpoint, if there is anything new.

        Raises:
            OSError: the first one cannot be written.
        """
        if self._last == int(state.iteration):
            return
        began = time.perf_counter()
        read = {} if counted is None else counted.position()
        self._kept.save(to_arrays(state), {"read": read})
        self._last = int(state.iteration)
        self._ended = time.perf_counter()
        self._took = self._ended - began

    def save_if_due(self, state: loop.State, counted: Counted | None = None) -> None:
        """The same, if it is time and the last one was quick enough."""
        steps = int(state.iteration) - (self._last or 0)
        rested = self._took <= _LARGEST_SHARE * (time.perf_counter() - self._ended)
        rested = rested or jax.process_count() > 1  # whose clocks differ
        if self._last is None or (steps >= self.every and rested):
            self.save(state, counted)


def identity(
    target: Target,
    data: Data,
    point: Float[Array, "d"],
    plan: Plan,
    settings: loop.Settings,
    seed: int,
) -> dict[str, Any]:
    """What makes a fit what it is; of data in batches, the first."""
    return {
        "model": _source(target),
        "sites": " ".join(target.names),
        "data": digest(data),
        "start": digest(point),
        "covariance": plan.covariance,
        "settings": " ".join(f"{k}={_named(v)}" for k, v in vars(settings).items()),
        "seed": seed,
    }


def _named(value: Any) -> Any:
    return getattr(value, "__name__", value)


def _source(target: Target) -> str:
    """The text of the function that is fitted, where Python knows it."""
    function = getattr(target, "model", None)
    if isinstance(target, FunctionTarget):
        function = target.function
    with suppress(OSError, TypeError):
        return inspect.getsource(function) if function is not None else ""
    return ""
