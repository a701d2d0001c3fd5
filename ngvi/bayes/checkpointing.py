"""Checkpoints of a fit: its state between two trials, and what belongs to it.

A fit that goes on from one takes the same steps as without the interruption, to the
last bit on the same machine.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from contextlib import suppress
from sys import maxsize
from typing import Any, Protocol, Self, TypeVar

import jax
from jaxtyping import Array, Float

from ngvi.bayes.target import FunctionTarget, Target
from ngvi.checkpoints import Checkpoints, digest, from_arrays, to_arrays
from ngvi.mirror import loop

EVERY = 25
"""Trial steps between two checkpoints of a fit in memory."""
_LARGEST_SHARE = 0.1
"""Of the time, for checkpoints."""


T = TypeVar("T")


class Beside(Protocol):
    """What is kept beside the state, such as how often the data were read."""

    def position(self) -> dict[str, Any]:
        """How far it has come, as JSON takes it."""
        ...

    def go_on_from(self, position: dict[str, Any]) -> None:
        """Be there."""
        ...


class Attributes:
    """All attributes are kept beside the state."""

    def position(self) -> dict[str, Any]:
        """See `Beside`."""
        return dict(vars(self))

    def go_on_from(self, position: dict[str, Any]) -> None:
        """See `Beside`."""
        vars(self).update(position)


class Saver:
    """Keeps the checkpoints of one fit; a context manager that holds the folder.

    Args:
        folder: of the checkpoints; None to keep none.
        every: trial steps between them; more if those would take more than a tenth of
            the time.
        identity: what makes the fit what it is, `identity` with its arguments.
        steps: how many a state has behind it.

    Raises:
        ValueError: `every` is not positive.
        CheckpointError: the folder is a file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        every: int = EVERY,
        identity: Callable[[], dict[str, Any]] = dict,
        steps: Callable[[Any], Any] = lambda state: state.iteration,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}.")
        self.every = maxsize if folder is None else every
        self.beside: Beside | None = None
        """To be set before there is anything to keep."""
        self._kept = None
        if folder is not None:
            self._kept = Checkpoints(folder, "fit", identity())
        self._steps = lambda state: int(steps(state))
        self._last: int | None = None
        self._took, self._ended = 0.0, time.perf_counter()

    def __enter__(self) -> Self:
        if self._kept is not None:
            self._kept.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._kept is not None:
            self._kept.__exit__(*raised)

    def resumed(self, like: Callable[[], T]) -> T | None:
        """The state of the last checkpoint, None if there is none; `beside` is where it
        was then.

        Args:
            like: a state of its structure and shapes, asked for when `beside` is there.

        Raises:
            CheckpointError: there are checkpoints, but none is whole and of this fit.
        """
        found = None if self._kept is None else self._kept.latest()
        if found is None:
            return None
        if self.beside is not None:
            self.beside.go_on_from(found.facts["beside"])
        resumed = from_arrays(found.arrays, like())
        self._last = self._steps(resumed)
        return resumed

    def save(self, state: Any) -> None:
        """Write a checkpoint, if there is anything new.

        Raises:
            OSError: the first one cannot be written.
        """
        if self._kept is None or self._last == self._steps(state):
            return
        began = time.perf_counter()
        beside = {} if self.beside is None else self.beside.position()
        self._kept.save(to_arrays(state), {"beside": beside})
        self._last = self._steps(state)
        self._ended = time.perf_counter()
        self._took = self._ended - began

    def save_if_due(self, state: Any) -> None:
        """The same, if it is time and the last one was quick enough."""
        if self._kept is None:
            return
        since = self._steps(state) - (self._last or 0)
        rested = self._took <= _LARGEST_SHARE * (time.perf_counter() - self._ended)
        rested = rested or jax.process_count() > 1  # whose clocks differ
        if self._last is None or (since >= self.every and rested):
            self.save(state)


def identity(
    target: Target,
    data: Any,
    point: Float[Array, "d"],
    covariance: str,
    settings: loop.Settings,
    seed: int,
) -> dict[str, Any]:
    """What makes a fit what it is; of data in batches, the first."""
    return {
        "model": _source(target),
        "sites": " ".join(target.names),
        "data": digest(data),
        "start": digest(point),
        "covariance": covariance,
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
