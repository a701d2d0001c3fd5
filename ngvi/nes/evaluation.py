"""Objectives that are called, here or on an executor.

A JAX function of one point becomes part of the compiled loop, see `ngvi.nes.tracing`.
Any other callable is called with NumPy arrays: once a point, here or on an executor, or
once a generation (`vectorized`). An evaluation that raises or gives no finite number is
a failed one: its point ranks last, it is counted, and the search goes on. An objective
that returns something else than a number is a mistake and ends it; so does an executor
that evaluates nothing. What may happen on an executor is in `ngvi.executors.dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.executors import Dispatcher, Executor, Tally, Workers
from ngvi.executors.dispatch import Call
from ngvi.nes.layout import Layout

if TYPE_CHECKING:
    from ngvi.nes.constraints import Constraints


def check_shape(shape: tuple[int, ...] | None, count: int | None, value: Any) -> None:
    """Refuse what is not one number, or not `count` of them.

    Raises:
        ValueError: the message says what was expected.
    """
    wanted = "one number" if count is None else f"an array of shape ({count},)"
    if shape is None:
        raise ValueError(f"fun must return {wanted}, got a {type(value).__name__}")
    good = (count,) if count is not None else (1,) * len(shape)
    if shape != good:
        hint = "; for a function of many points at once set vectorized=True"
        raise ValueError(
            f"fun must return {wanted}, got shape {shape}"
            f"{hint if count is None else ''}"
        )


@dataclass
class HostObjective:
    """A Python objective at points (n, D), with what went wrong in it."""

    fun: Callable[..., Any]
    layout: Layout
    sign: float = 1.0
    args: tuple[Any, ...] = ()
    vectorized: bool = False
    executor: Executor | Workers | None = None
    timeout: float | None = None
    """Seconds for an evaluation on the executor."""
    retries: int = 0
    """Of an evaluation that raises."""
    constraints: Constraints | None = None
    """Evaluated here; their values follow each value."""
    tally: Tally = field(default_factory=Tally)
    dispatcher: Dispatcher | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.executor is not None:
            self.dispatcher = Dispatcher(
                self.executor, self.tally, self.timeout, self.retries
            )

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The values, to be minimised; NaN where an evaluation failed."""
        # A copy: what an objective writes into its argument must not move the point.
        points = np.array(points, float)
        values = self._values(points)
        if self.constraints is None:
            return values
        # A point that has failed already is not asked for more, and counts once.
        good = np.isfinite(values)
        return np.column_stack(
            [values, self.constraints.values(points, good, self._fail)]
        )

    def _values(self, points: np.ndarray) -> np.ndarray:
        if self.dispatcher is not None:
            return self._on(self.dispatcher, points)
        if self.vectorized:
            return self.sign * self._at_once(points)
        return self.sign * np.array([self._here(x) for x in points])

    def _fail(self, error: Exception) -> None:
        self.tally.fail("raised", error)

    def _here(self, x: np.ndarray) -> float:
        """One value; NaN if the evaluation raises."""
        tries = 0
        while True:
            tries += 1
            try:
                # Tried again it must find the point as it was.
                point = x.copy() if self.retries else x
                value = self.fun(self.layout.unflatten(point), *self.args)
                break
            except Exception as error:  # an objective may raise anything
                if not self.tally.may_retry(tries, self.retries):
                    self.tally.fail("raised", error)
                    return np.nan
        return value if isinstance(value, float) else as_number(value)

    def _at_once(self, points: np.ndarray) -> np.ndarray:
        try:
            values = self.fun(self.layout.unflatten(points.copy()), *self.args)
        except Exception as error:
            if len(points) == 1:
                self.tally.fail("raised", error)
                return np.array([np.nan])
            # One point must not take the others along.
            return np.concatenate([self._at_once(x[None]) for x in points])
        return as_numbers(values, len(points))

    def call(self, x: np.ndarray) -> Call:
        """What makes the function and its arguments, for every try."""
        return lambda: (
            self.fun,
            self.layout.unflatten(np.array(x, float)),  # its own copy of the point
            *self.args,
        )

    def start(self, dispatcher: Dispatcher, tag: Any, x: np.ndarray) -> None:
        """Begin an evaluation on the executor."""
        dispatcher.start(tag, self.call(x))

    def arrivals(self, dispatcher: Dispatcher) -> list[tuple[Any, float]]:
        """Wait for evaluations: their tags, and their values to be minimised."""
        return [(tag, self.sign * as_number(v)) for tag, v in dispatcher.wait()]

    def _on(self, dispatcher: Dispatcher, points: np.ndarray) -> np.ndarray:
        values = dispatcher.gather([self.call(x) for x in points])
        return self.sign * np.array([as_number(value) for value in values])


def as_number(value: Any) -> float:
    """A returned value as a float; None and the like are refused.

    Raises:
        ValueError: it is no real number.
    """
    return float(as_numbers(value, None).item())


def as_numbers(value: Any, count: int | None) -> np.ndarray:
    """One returned number (None), or `count` of them, as floats.

    Raises:
        ValueError: it is something else.
    """
    array = np.asarray(value)
    check_shape(array.shape, count, value)
    if array.dtype.kind not in "fiub":
        wanted = "one real number" if count is None else f"{count} real numbers"
        raise ValueError(
            f"fun must return {wanted}, got a {type(value).__name__}: {value!r}"
        )
    return array.astype(float)
