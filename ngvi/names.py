"""What people read: names of functions and of single numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any


def name_of(function: Callable[..., Any]) -> str:
    """What to call a model, a log density or an objective."""
    return getattr(function, "__name__", type(function).__name__)


def scalar_names(name: str, shape: Sequence[int]) -> Iterator[str]:
    """The bare name of a scalar; x[0], x[1], … or L[0,0], … of an array's entries."""
    if not shape:
        yield name
        return
    for index in product(*map(range, shape)):
        yield f"{name}[{','.join(map(str, index))}]"
