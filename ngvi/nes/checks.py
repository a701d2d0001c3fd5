"""What a whole number must be."""

from __future__ import annotations

from typing import Any


def check_whole(name: str, value: Any, least: int, reason: str = "") -> int:
    """The number as an int; refuse what is none, or too small a one.

    Raises:
        ValueError: the message has the name.
    """
    try:
        good = value == int(value) and value >= least
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}{reason}"
        )
    return int(value)


def check_popsize(popsize: Any) -> int:
    """A population as an int.

    Raises:
        ValueError: it is no whole number, or there is nothing to rank.
    """
    reason = ": a rank needs something to compare with"
    return check_whole("popsize", popsize, 2, reason)
