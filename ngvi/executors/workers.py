"""Where points are evaluated side by side: executors, and processes of our own.

An executor is anything with `submit`: the pools of `concurrent.futures`, a
`dask.distributed.Client`, loky's `get_reusable_executor()`. Pools that have
`apply_async` instead, as of `multiprocessing` and `ray.util.multiprocessing`, become
one by `PoolExecutor`.

Workers are processes, each served by a thread that gives it one call after another. So
a process that dies takes one evaluation with it and no other; one that hangs can be
killed; and a new one takes its place.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol, Self

# A fork of a process that runs JAX's threads can hang.
_CONTEXT = get_context("spawn")


class Executor(Protocol):
    """Anything with `submit`: of `concurrent.futures`, a dask client, …"""

    def submit(self, fun: Callable[..., Any], /, *args: Any) -> Any:
        """A future, whose `result()` is fun(*args)."""


class PoolExecutor:
    """A pool with `apply_async` as an executor.

    A `multiprocessing.Pool` never says that a worker has died: give `ngvi.minimize` a
    timeout with it.

    Args:
        pool: of `multiprocessing`, `multiprocessing.pool.ThreadPool`, or
            `ray.util.multiprocessing.Pool()`, with the processes of a Ray cluster.

    Example:
        >>> from multiprocessing.pool import ThreadPool
        >>> import ngvi
        >>> with ThreadPool(2) as pool:
        ...     found = ngvi.minimize(
        ...         lambda x: float((x - 1) @ (x - 1)), [0.0, 0.0], ftarget=1e-4,
        ...         executor=ngvi.executors.PoolExecutor(pool),
        ...     )
        >>> found.x.round(1).tolist()
        [1.0, 1.0]
    """

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit(self, fun: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """As of `concurrent.futures`."""
        future: Future[Any] = Future()
        # Pools cannot take back what they have got, nor say when it begins.
        future.set_running_or_notify_cancel()
        self.pool.apply_async(
            fun, args, callback=future.set_result, error_callback=future.set_exception
        )
        return future


class Workers:
    """Processes that evaluate points; new ones take the place of those that die.

    What they are given must be importable in another process, and a script must start
    them under `if __name__ == "__main__":`. A context manager, which ends them.

    Args:
        count: of processes; −1 for one a core.
    """

    def __init__(self, count: int) -> None:
        self.count = (os.cpu_count() or 1) if count == -1 else count
        self._calls: queue.SimpleQueue[tuple[Future[Any], bytes] | None]
        self._calls = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._serving: dict[Future[Any], _Process] = {}
        self._closed = False

    def submit(self, fun: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """As of `concurrent.futures`; it is running once `fun` is called."""
        future: Future[Any] = Future()
        self._calls.put((future, pickle.dumps((fun, args))))
        if len(self._threads) < self.count:
            thread = threading.Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def kill(self, future: Future[Any]) -> None:
        """End the process that evaluates this."""
        process = self._serving.get(future)
        if process is not None:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, and what they evaluate."""
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)
        for process in list(self._serving.values()):
            process.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        process: _Process | None = None
        while (call := self._calls.get()) is not None:
            future, packed = call
            if self._closed or future.cancelled():
                future.cancel()
                continue
            try:
                process = process or _Process()
                self._serving[future] = process
                # `close` may have looked for processes just before.
                if self._closed:
                    process.kill()
                process.evaluate(future, packed)
            except Exception as error:
                # It died, or could not be started.
                if process is not None:
                    process.end()
                process = None
                if future.running() or future.set_running_or_notify_cancel():
                    future.set_exception(
                        BrokenExecutor(f"a worker process died ({error!r})")
                    )
            finally:
                self._serving.pop(future, None)
        if process is not None:
            process.end()


class _Process:
    """One process, as its thread sees it."""

    _starting = threading.Lock()

    def __init__(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_work, args=(theirs,))
        with self._starting:
            self.process.start()
        # Only the child holds its end now: when it dies, reading from ours ends.
        theirs.close()

    def evaluate(self, future: Future[Any], packed: bytes) -> None:
        """Let the process make this call.

        Raises:
            EOFError, OSError: it died.
        """
        self.connection.send_bytes(packed)
        good, value = self._answer()
        if good:
            goes_on = future.set_running_or_notify_cancel()
            self.connection.send(goes_on)
            if not goes_on:
                return
            good, value = self._answer()
        else:
            future.set_running_or_notify_cancel()
        if good:
            future.set_result(value)
        else:
            future.set_exception(value)

    def _answer(self) -> tuple[bool, Any]:
        packed = self.connection.recv_bytes()
        try:
            answer: tuple[bool, Any] = pickle.loads(packed)
        except Exception as error:
            return False, TypeError(f"what fun returned cannot be received: {error}")
        return answer

    def kill(self) -> None:
        """End it, whatever it does; its thread will hear of it."""
        with suppress(OSError):
            self.process.kill()

    def end(self) -> None:
        """End it, by its thread."""
        self.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection) -> None:
    """What a process does: it says when it has read a call, and then its answer."""
    # The parent hears Ctrl-C, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            packed = connection.recv_bytes()
            try:
                fun, args = pickle.loads(packed)
            except Exception as error:
                connection.send_bytes(_packed_error(error))
                continue
            connection.send_bytes(pickle.dumps((True, None)))
            if not connection.recv():
                continue
            try:
                answer = pickle.dumps((True, fun(*args)))
            except (Exception, SystemExit) as error:
                answer = _packed_error(error)
            connection.send_bytes(answer)


def _packed_error(error: BaseException) -> bytes:
    """Itself if it survives the journey, else its name and text."""
    try:
        packed = pickle.dumps((False, error))
        pickle.loads(packed)
    except Exception:
        text = f"{type(error).__name__}: {error}"
        packed = pickle.dumps((False, RuntimeError(text)))
    return packed


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
