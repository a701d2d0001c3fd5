"""Where the points of a generation are evaluated side by side."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol


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


def make_workers(
    workers: int, fun: Callable[..., Any], args: tuple[Any, ...] = ()
) -> Workers:
    """So many processes; −1 for one a core.

    Raises:
        ValueError: no such number.
        TypeError: `fun` or `args` cannot be sent to another process.
    """
    if workers != int(workers) or (workers < 1 and workers != -1):
        raise ValueError(f"workers must be at least 1, or -1 for all, got {workers}")
    try:
        pickle.dumps((fun, args))
    except Exception as error:
        raise TypeError(
            "fun and args cannot be sent to worker processes: define fun at the top of "
            f"a module, or give a thread pool as executor ({error})"
        ) from error
    return Workers(int(workers))
