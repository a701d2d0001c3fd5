"""How long JAX spent tracing and compiling, from its own monitoring events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax.monitoring


@dataclass
class Stopwatch:
    """Seconds of compilation seen while it ran."""

    seconds: float = 0.0


_running: list[Stopwatch] = []


def _listen(event: str, duration: float, **_: Any) -> None:
    # Tracing, lowering and the backend's compilation of each program.
    if event.startswith("/jax/core/compile/"):
        for watch in _running:
            watch.seconds += duration


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
