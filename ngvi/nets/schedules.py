"""Numbers that may be other ones at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Int

Schedule = Callable[[Int[Array, ""]], Any]
"""The number of steps taken so far ↦ a number, as optax's schedules are."""
Number = float | Schedule


def number_at(number: Any, steps: Int[Array, ""]) -> Any:
    """A number, or what a schedule says it is after so many steps."""
    return number(steps) if callable(number) else number
