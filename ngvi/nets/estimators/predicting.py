"""Predictions of any number of rows, by few compiled programs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from ngvi.nets.predictive import Predictive

FEWEST_ROWS, MANY_ROWS = 64, 4096
"""They are filled up to a power of two from the first on, and above the second to a
multiple of it."""


def predicted(
    predictive: Predictive,
    method: str,
    key: Key[Array, ""],
    x: np.ndarray,
    *args: Any,
    y: np.ndarray | None = None,
) -> Any:
    """What a method of `Predictive` gives, as NumPy arrays with the rows first.

    Args:
        predictive: of a net and a posterior.
        method: its name.
        key: of the draws.
        x: rows.
        *args: what follows them.
        y: labels, for a method that takes them.
    """
    n = len(x)
    size = max(FEWEST_ROWS, 1 << (n - 1).bit_length())
    if n > MANY_ROWS:
        size = -(-n // MANY_ROWS) * MANY_ROWS
    rows = np.minimum(np.arange(size), n - 1)
    data = (x[rows],) if y is None else (x[rows], y[rows])
    found = getattr(predictive, method)(*data, *args, key)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:n], found)
