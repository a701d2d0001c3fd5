"""Evaluations in flight on an executor: begun, waited for, tried again, given up.

| failure    | what happened                                   | is tried again |
|------------|-------------------------------------------------|----------------|
| raised     | the objective raised an error                   | `retries` times|
| lost       | its worker died, or the executor let go of it   | at least once  |
| timed out  | it ran for longer than `timeout` seconds        | never          |
| not finite | NaN or an infinity came back                    | never          |

The time counts from when an evaluation begins to run, if its future has `running()`,
else from when it was submitted. What waits in a queue has no time of its own; but if
nothing else of ours has begun or ended for as long as `timeout` the workers hang, or
are someone else's, and it has timed out too. Threads cannot be killed: one that hangs
is lost to its pool. The processes of `Workers` are killed and replaced.

Nothing is polled but futures that wait in a queue with a timeout, ten times in its
length. Futures without `add_done_callback` are watched by a thread each.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ngvi.executors.workers import Executor, Workers

# Errors of dask and Ray that say so, by name: neither is a dependency.
_LOST = {"KilledWorker", "FutureCancelledError", "WorkerCrashedError"}
_POLLS = 10

Call = Callable[[], tuple[Any, ...]]


class ExecutorError(RuntimeError):
    """An executor takes no more evaluations."""


@dataclass
class Tally:
    """What went wrong in the evaluations of a search."""

    raised: int = 0
    timed_out: int = 0
    lost: int = 0
    first_error: str | None = None
    extra: int = 0
    """Evaluations whose values no generation has seen: earlier tries, given up ones."""
    spare: float = np.inf
    """How many more tries the budget allows."""

    @property
    def failures(self) -> dict[str, int]:
        """How many, by kind."""
        return {"raised": self.raised, "timed out": self.timed_out, "lost": self.lost}

    def fail(self, kind: str, error: BaseException | str) -> None:
        """Count an evaluation that came to nothing."""
        setattr(self, kind, getattr(self, kind) + 1)
        if self.first_error is None:
            text = f"{type(error).__name__}: {error}"
            self.first_error = error if isinstance(error, str) else text

    def may_retry(self, tries: int, allowed: int) -> bool:
        """Whether there is to be another try; it is counted."""
        again = tries <= allowed and self.spare > 0
        if again:
            self.spare -= 1
            self.extra += 1
        return again


@dataclass(eq=False)
class _Evaluation:
    """One that is in flight."""

    tag: Any
    call: Call
    future: Any = None
    submitted: float = 0.0
    began: float | None = None
    tries: int = 0


@dataclass
class Dispatcher:
    """Evaluations in flight on one executor."""

    executor: Executor | Workers
    tally: Tally
    timeout: float | None = None
    retries: int = 0
    _flying: dict[_Evaluation, None] = field(default_factory=dict)
    """In the order of submission."""
    _given_up: set[_Evaluation] = field(default_factory=set)
    """Those that a timeout has still to end."""
    _arrived: queue.SimpleQueue[tuple[_Evaluation, Any]] = field(
        default_factory=queue.SimpleQueue
    )
    _stirred: float = 0.0
    """When an evaluation has last begun or ended."""
    _answered: bool = False
    """Whether any evaluation has come to an end by itself."""

    @property
    def tags(self) -> list[Any]:
        """Of the evaluations in flight."""
        return [evaluation.tag for evaluation in self._flying]

    def __len__(self) -> int:
        return len(self._flying)

    def start(self, tag: Any, call: Call) -> None:
        """Begin an evaluation.

        Args:
            tag: comes back with its value.
            call: makes a function and its arguments, once for every try.

        Raises:
            ExecutorError: the executor refuses it.
        """
        self._submit(_Evaluation(tag, call))

    def _submit(self, evaluation: _Evaluation) -> None:
        try:
            future = self.executor.submit(*evaluation.call(), **_options(self.executor))
        except Exception as error:
            raise ExecutorError(
                f"it takes no more evaluations ({type(error).__name__}: {error})"
            ) from error
        evaluation.future, evaluation.submitted = future, time.monotonic()
        knows = hasattr(future, "running")
        evaluation.began = None if knows else evaluation.submitted
        evaluation.tries += 1
        self._flying[evaluation] = None

        def arrive(_: Any = None) -> None:
            self._arrived.put((evaluation, future))

        if hasattr(future, "add_done_callback"):
            future.add_done_callback(arrive)
        else:
            # Whoever waits for one result cannot wait for another's.
            threading.Thread(target=_watch, args=(future, arrive), daemon=True).start()

    def wait(self) -> list[tuple[Any, Any]]:
        """Block until some evaluations have ended.

        Returns:
            Their tags and what they returned, NaN where they failed; empty only if
            there are none in flight.
        """
        ended: list[tuple[Any, Any]] = []
        while not ended and self._flying:
            with suppress(queue.Empty):
                self._land(*self._arrived.get(timeout=self._patience()), ended)
            with suppress(queue.Empty):
                while True:
                    self._land(*self._arrived.get_nowait(), ended)
            if self.timeout is not None:
                self._give_up_overdue(self.timeout, ended)
        return ended

    def gather(self, calls: Sequence[Call]) -> list[Any]:
        """What all of these return, in their order; NaN where one fails.

        Raises:
            ExecutorError: the executor takes no more.
        """
        values: list[Any] = [np.nan] * len(calls)
        try:
            for i, call in enumerate(calls):
                self.start(i, call)
            while len(self):
                for i, value in self.wait():
                    values[i] = value
        except BaseException:
            self.cancel()
            raise
        return values

    def cancel(self) -> None:
        """Give up all that is in flight; what has begun counts as evaluated."""
        begun = {e for e in self._flying if not _cancel(e.future)}
        self._flying.clear()
        self.tally.extra += len(begun)
        if self.timeout is not None:
            self._given_up |= begun

    def _land(self, evaluation: _Evaluation, future: Any, ended: list[Any]) -> None:
        if evaluation.future is not future:
            return
        self._stirred = time.monotonic()
        self._given_up.discard(evaluation)
        if evaluation not in self._flying:
            return
        del self._flying[evaluation]
        try:
            value = _result(future, self.timeout)
        except (Exception, SystemExit) as error:
            self._failed(evaluation, error, ended)
            return
        self._answered = True
        ended.append((evaluation.tag, value))

    def _failed(
        self, evaluation: _Evaluation, error: BaseException, ended: list[Any]
    ) -> None:
        lost = isinstance(error, BrokenExecutor | CancelledError)
        lost = lost or type(error).__name__ in _LOST
        self._answered |= not lost
        allowed = max(self.retries, 1) if lost else self.retries
        if self.tally.may_retry(evaluation.tries, allowed):
            self._submit(evaluation)
            return
        if isinstance(self.executor, Workers) and not self._answered:
            raise BrokenExecutor(
                "worker processes die before they have evaluated any point; a script "
                "must start them under `if __name__ == '__main__':`"
            ) from error
        self.tally.fail("lost" if lost else "raised", error)
        ended.append((evaluation.tag, np.nan))

    def _patience(self) -> float | None:
        """Seconds until something may be overdue."""
        if self.timeout is None:
            return None
        now = time.monotonic()
        waits = (
            self.timeout / _POLLS if e.began is None else e.began + self.timeout - now
            for e in self._going
        )
        return max(min(waits), 1e-3)

    @property
    def _going(self) -> list[_Evaluation]:
        return [*self._flying, *self._given_up]

    def _give_up_overdue(self, timeout: float, ended: list[Any]) -> None:
        now, going = time.monotonic(), self._going
        for evaluation in going:
            if evaluation.began is None and evaluation.future.running():
                evaluation.began = self._stirred = now
        hangs = all(e.began is None for e in going)
        hangs = hangs and not isinstance(self.executor, Workers)
        for evaluation in going:
            since = evaluation.began
            if since is None and hangs:
                since = max(evaluation.submitted, self._stirred)
            if since is None or now - since < timeout:
                continue
            # A result may have come in just now: it is too late.
            if not _cancel(evaluation.future) and isinstance(self.executor, Workers):
                self.executor.kill(evaluation.future)
            if evaluation in self._given_up:
                self._given_up.remove(evaluation)
                continue
            del self._flying[evaluation]
            self._answered = True
            what = "evaluation" if evaluation.began else "evaluation never begun"
            self.tally.fail(
                "timed_out", f"TimeoutError: {what} after {timeout:g} seconds"
            )
            ended.append((evaluation.tag, np.nan))


def _options(executor: Any) -> dict[str, Any]:
    """Dask gives equal calls one result, which of a noisy objective would be wrong."""
    of_dask = type(executor).__module__.partition(".")[0] == "distributed"
    return {"pure": False} if of_dask else {}


def _result(future: Any, timeout: float | None = None) -> Any:
    """Also of a `multiprocessing.pool.AsyncResult`."""
    if hasattr(future, "add_done_callback"):
        # What is done is here, but for dask: its worker may have died meanwhile.
        return future.result(timeout)
    return future.result() if hasattr(future, "result") else future.get()


def _watch(future: Any, arrive: Callable[[], None]) -> None:
    with suppress(BaseException):
        _result(future)
    arrive()


def _cancel(future: Any) -> bool:
    """Whether the evaluation has not begun and never will."""
    return hasattr(future, "cancel") and future.cancel() is True
