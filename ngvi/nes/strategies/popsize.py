"""How many draws a generation has, where no one says."""

from __future__ import annotations

import math

from ngvi.nes.checks import check_popsize


def checked_popsize(dim: int, popsize: int | None) -> int:
    """The popsize asked for, or 4 + ⌊3 log D⌋."""
    return 4 + int(3 * math.log(dim)) if popsize is None else check_popsize(popsize)


def paired_popsize(dim: int, popsize: int | None) -> int:
    """`checked_popsize`, by default an even one, for draws in pairs."""
    count = checked_popsize(dim, popsize)
    return count + count % 2 if popsize is None else count
