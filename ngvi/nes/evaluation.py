"""The objective: traced if it can be, else called, here or on an executor.

A JAX function of one point becomes part of the compiled loop. Any other callable is
called with NumPy arrays: once a point, here or on an executor, or once a generation
(`vectorized`). An evaluation that raises or gives no finite number is a failed one: its
point ranks last, it is counted, and the search goes on. An objective that returns
something else than a number is a mistake and ends it.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.nes.layout import Layout


@dataclass(frozen=True)
class TracedObjective:
    """A JAX objective at points (n, D); hashable, so that `jit` knows it."""

    fun: Callable[..., Any]
    layout: Layout
    sign: float = 1.0
    """−1 maximises."""
    vectorized: bool = False

    def __call__(self, points: Float[Array, "n d"], *args: Any) -> Float[Array, "n"]:
        if self.vectorized:
            values = self.fun(self.layout.unflatten(points), *args)
        else:
            values = jax.vmap(lambda x: self.fun(self.layout.unflatten(x), *args))(
                points
            )
        return self.sign * values.reshape(points.shape[0]).astype(points.dtype)


def try_trace(
    fun: Callable[..., Any],
    layout: Layout,
    x0: Float[Array, "d"],
    args: tuple[Any, ...],
    sign: float,
    vectorized: bool,
) -> TracedObjective | None:
    """The objective as a JAX function, or None if it is none.

    A function whose program differs from one tracing to the next draws noise, or
    counts, in Python; compiled it would be another function, so it counts as none.

    Raises:
        ValueError: it is one, but its value is no number (with `vectorized`: not one
            for each point).
    """
    try:
        hash(fun)
    except TypeError:
        unhashable = fun

        def fun(*arguments: Any) -> Any:
            return unhashable(*arguments)

    point = jnp.stack([x0, x0]) if vectorized else x0

    def program() -> tuple[str, list[Any], Any]:
        # A new function each time: JAX would give back the old program of an old one.
        traced, shape = jax.make_jaxpr(
            lambda x, *rest: fun(layout.unflatten(x), *rest), return_shape=True
        )(point, *args)
        return re.sub(r"0x[0-9a-f]+", "", str(traced)), traced.consts, shape

    try:
        first, constants, shape = program()
        second, others, _ = program()
    except Exception:  # whatever keeps a Python function from being traced
        return None
    if first != second or not all(map(_same, constants, others)):
        return None
    check_shape(getattr(shape, "shape", None), 2 if vectorized else None, shape)
    if not jnp.issubdtype(shape.dtype, jnp.floating) and not jnp.issubdtype(
        shape.dtype, jnp.integer
    ):
        raise ValueError(f"fun must return real numbers, got {shape.dtype}")
    return TracedObjective(fun, layout, sign, vectorized)


def _same(a: Any, b: Any) -> bool:
    return a is b or np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


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


class Executor(Protocol):
    """Anything with `submit`: of `concurrent.futures`, a dask client, …"""

    def submit(self, fun: Callable[..., Any], /, *args: Any) -> Any:
        """A future, whose `result()` is fun(*args)."""


class Workers:
    """Processes that evaluate points; new ones take the place of those that die."""

    def __init__(self, count: int) -> None:
        self.count = (os.cpu_count() or 1) if count == -1 else count
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, fun: Callable[..., Any], /, *args: Any) -> Any:
        """As of `concurrent.futures`."""
        try:
            return self._started().submit(fun, *args)
        except BrokenExecutor:
            self.close()
            return self._started().submit(fun, *args)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A fork of a process that runs JAX's threads can hang.
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context)
        return self._pool

    def close(self) -> None:
        """Let the processes go."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None


def make_workers(workers: int, fun: Callable[..., Any]) -> Workers:
    """So many processes; −1 for one a core.

    Raises:
        ValueError: no such number.
        TypeError: `fun` cannot be sent to another process.
    """
    if workers != int(workers) or (workers < 1 and workers != -1):
        raise ValueError(f"workers must be at least 1, or -1 for all, got {workers}")
    try:
        pickle.dumps(fun)
    except Exception as error:
        raise TypeError(
            "fun cannot be sent to worker processes: define it at the top of a module, "
            f"or give a thread pool as executor ({error})"
        ) from error
    return Workers(int(workers))


@dataclass
class HostObjective:
    """A Python objective at points (n, D), with what went wrong in it."""

    fun: Callable[..., Any]
    layout: Layout
    sign: float = 1.0
    args: tuple[Any, ...] = ()
    vectorized: bool = False
    executor: Executor | None = None
    raised: int = 0
    first_error: str | None = field(default=None)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The values, to be minimised; NaN where an evaluation failed."""
        points = np.asarray(points, float)
        if self.vectorized:
            values = self._at_once(points)
        elif self.executor is None:
            values = [self._guarded(self._here, x) for x in points]
        else:
            values = self._on(self.executor, points)
        return self.sign * np.asarray(values, float)

    def _guarded(self, get: Callable[..., Any], *args: Any) -> float:
        """One value; NaN if the evaluation raises."""
        try:
            value = get(*args)
        except Exception as error:  # an objective may raise anything
            self._note(error)
            return np.nan
        return as_number(value)

    def _note(self, error: Exception) -> None:
        self.raised += 1
        if self.first_error is None:
            self.first_error = f"{type(error).__name__}: {error}"

    def _here(self, x: np.ndarray) -> Any:
        # A copy: what an objective writes into its argument must not move the point.
        return self.fun(self.layout.unflatten(x.copy()), *self.args)

    def _at_once(self, points: np.ndarray) -> Sequence[float] | np.ndarray:
        try:
            values = self.fun(self.layout.unflatten(points.copy()), *self.args)
        except Exception as error:
            if len(points) == 1:
                self._note(error)
                return [np.nan]
            # One point must not take the others along.
            return np.concatenate([self._at_once(x[None]) for x in points])
        check_shape(np.shape(values), len(points), values)
        return np.asarray(values, float)

    def _on(self, executor: Executor, points: np.ndarray) -> list[float]:
        def submit(x: np.ndarray) -> Any:
            return executor.submit(self.fun, self.layout.unflatten(x), *self.args)

        futures: list[Any] = []
        try:
            for x in points:
                try:
                    futures.append(submit(x))
                except Exception as error:
                    futures.append(error)
            return [
                self._guarded(self._collect, future, submit, x)
                for future, x in zip(futures, points, strict=True)
            ]
        except BaseException:
            for future in futures:
                if hasattr(future, "cancel"):
                    future.cancel()
            raise

    def _collect(self, future: Any, submit: Callable[..., Any], x: np.ndarray) -> Any:
        if isinstance(future, Exception):
            raise future
        try:
            return future.result()
        except BrokenExecutor:
            if not isinstance(self.executor, Workers):
                raise
            # A worker died, and all that waited for it with it: each again, alone, so
            # that only the point that kills is lost.
            return submit(x).result()


def as_number(value: Any) -> float:
    """A returned value as a float; None and the like are refused.

    Raises:
        ValueError: it is no real number.
    """
    try:
        array = np.asarray(value)
        check_shape(array.shape, None, value)
        if array.dtype.kind not in "fiub":
            raise TypeError
        return float(array.reshape(()))
    except TypeError:
        raise ValueError(
            f"fun must return one real number, got a {type(value).__name__}: {value!r}"
        ) from None
