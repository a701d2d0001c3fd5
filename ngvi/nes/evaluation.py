"""Objectives that are called, here or on an executor.

A JAX function of one point becomes part of the compiled loop, see `ngvi.nes.tracing`.
Any other callable is called with NumPy arrays: once a point, here or on an executor, or
once a generation (`vectorized`). An evaluation that raises or gives no finite number is
a failed one: its point ranks last, it is counted, and the search goes on. An objective
that returns something else than a number is a mistake and ends it; so does an executor
that evaluates nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.nes.layout import Layout
from ngvi.nes.workers import Executor, Workers

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
    executor: Executor | None = None
    constraints: Constraints | None = None
    """Evaluated here; their values follow each value."""
    raised: int = 0
    first_error: str | None = None
    workers_answered: bool = False
    """Whether a worker process has evaluated a point."""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The values, to be minimised; NaN where an evaluation failed."""
        # A copy: what an objective writes into its argument must not move the point.
        points = np.array(points, float)
        if self.vectorized:
            values = self._at_once(points)
        elif self.executor is None:
            values = np.array([self._guarded(self._here, x) for x in points])
        else:
            values = self._on(self.executor, points)
        values = self.sign * values
        if self.constraints is None:
            return values
        return np.column_stack([values, self.constraints.values(points, self._fail)])

    def _guarded(self, get: Callable[..., Any], *args: Any) -> float:
        """One value; NaN if the evaluation raises."""
        try:
            value = get(*args)
        except BrokenExecutor:
            raise
        except Exception as error:  # an objective may raise anything
            return self._fail(error)
        return value if isinstance(value, float) else as_number(value)

    def _fail(self, error: Exception) -> float:
        self.raised += 1
        if self.first_error is None:
            self.first_error = f"{type(error).__name__}: {error}"
        return np.nan

    def _here(self, x: np.ndarray) -> Any:
        return self.fun(self.layout.unflatten(x), *self.args)

    def _at_once(self, points: np.ndarray) -> np.ndarray:
        try:
            values = self.fun(self.layout.unflatten(points.copy()), *self.args)
        except Exception as error:
            if len(points) == 1:
                return np.array([self._fail(error)])
            # One point must not take the others along.
            return np.concatenate([self._at_once(x[None]) for x in points])
        return as_numbers(values, len(points))

    def _on(self, executor: Executor, points: np.ndarray) -> np.ndarray:
        def submit(x: np.ndarray) -> Any:
            return executor.submit(self.fun, self.layout.unflatten(x), *self.args)

        futures: list[Any] = []
        try:
            futures.extend(map(submit, points))
            collect = self._of_workers if isinstance(executor, Workers) else _result
            return np.array(
                [
                    self._guarded(collect, future, submit, x)
                    for future, x in zip(futures, points, strict=True)
                ]
            )
        except BaseException:
            for future in futures:
                if hasattr(future, "cancel"):
                    future.cancel()
            raise

    def _of_workers(
        self, future: Any, submit: Callable[..., Any], x: np.ndarray
    ) -> Any:
        try:
            try:
                value = future.result()
            except BrokenExecutor:
                # A worker died, and all that waited for it with it: each again, alone,
                # so that only the point that kills is lost.
                value = submit(x).result()
        except BrokenExecutor as error:
            if not self.workers_answered:
                raise BrokenExecutor(
                    "worker processes die before they have evaluated any point; a "
                    "script must start them under `if __name__ == '__main__':`"
                ) from error
            return self._fail(error)
        except Exception:
            self.workers_answered = True
            raise
        self.workers_answered = True
        return value


def _result(future: Any, *_: Any) -> Any:
    return future.result()


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
