"""How long JAX spent tracing and compiling, from its own monitoring events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax.monitoring


@dataclass
class Stopwatch:
    """The spans of time in which something was traced, lowered or compiled."""

    spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The length of the spans' union: tracing one program can nest in another's."""
        total, reached = 0.0, float("-inf")
        for start, end in sorted(self.spans):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total

    def split(self, started: float) -> tuple[float, float]:
        """The seconds since then, on `time.perf_counter`'s clock: those spent compiling
        and the others."""
        seconds = time.perf_counter() - started
        compiling = min(self.seconds, seconds)
        return compiling, seconds - compiling


_running: list[Stopwatch] = []


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event.startswith("/jax/core/compile/"):
        end = time.perf_counter()
        for watch in _running:
            watch.spans.append((end - duration_secs, end))


_registered: list[bool] = []


@contextmanager
def measure() -> Iterator[Stopwatch]:
    """Collect the compilation time spent inside the block."""
    if not _registered:  # JAX offers no public way to take a listener back.
        jax.monitoring.register_event_duration_secs_listener(_listen)
        _registered.append(True)
    watch = Stopwatch()
    _running.append(watch)
    try:
        yield watch
    finally:
        _running.remove(watch)
