"""The history of a search: a row a generation, read by columns.

| column       | of the generation                                                     |
|--------------|-----------------------------------------------------------------------|
| evaluations  | how many there had been after it, of all runs                         |
| best, median | of its values; with constraints at the best and the median by rank    |
| sigma        | the geometric mean of the standard deviations                         |
| axis_ratio   | √(tr C · tr C⁻¹)/D                                                    |
| maxcv        | with constraints: the largest violation of the best by rank           |
| mean, sd     | of the distribution, in x; left out where D > 40                      |
| run, popsize | which run it was of, −1 along the axes; how many points it had        |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.nes.lattice import Domain

if TYPE_CHECKING:
    from ngvi.nes.generation import Run

# A history of the mean is D numbers a generation.
_LARGEST = 40


def geometric_mean_sd(q: Gaussian) -> Float[Array, ""]:
    """One number for the size of a distribution."""
    return jnp.exp(jnp.log(q.variance).mean() / 2)


def observe(run: Run, box: Domain | None = None) -> Float[Array, "c"]:
    """The row of the last generation."""
    q = run.state.q
    last = (run.state.generation - 1) % run.record.recent.size
    # At most the ratio of the longest to the shortest axis, at least one D-th of it.
    axis_ratio = jnp.sqrt(q.variance.sum() * q.precision.diagonal().sum()) / q.dim
    best, median = run.record.recent[last], run.median
    if run.lagrangian is not None:
        best, median = run.lagrangian.first[0], run.lagrangian.median
    numbers = jnp.stack([best, median, geometric_mean_sd(q), axis_ratio])
    if run.lagrangian is not None:
        first = run.lagrangian.violations(run.lagrangian.first).max()
        numbers = jnp.append(numbers, first)
    if q.dim > _LARGEST:
        return numbers
    mean = q.mean if box is None else box.place(q.mean)
    return jnp.concatenate([numbers, mean, jnp.sqrt(q.variance)])


def without_distribution(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The row of an exchange that no distribution was sampled for."""
    row = np.array([values.min(), np.median(values), np.nan, np.nan])
    if mean.size > _LARGEST:
        return row
    return np.concatenate([row, mean, np.full_like(mean, np.nan)])


class History:
    """The rows of all runs so far.

    Args:
        constrained: whether they are of a search with constraints.
    """

    def __init__(self, constrained: bool) -> None:
        self._names = ["best", "median", "sigma", "axis_ratio"]
        self._names += ["maxcv"] * constrained
        self._known: dict[str, np.ndarray] = {}
        self._new: list[tuple[int, int, int, np.ndarray]] = []

    def add(self, row: np.ndarray, evaluations: int, run: int, popsize: int) -> None:
        """A generation more."""
        self._new.append((evaluations, run, popsize, row))

    def restore(self, columns: dict[str, np.ndarray]) -> None:
        """Take the place of the history that these columns are of."""
        self._known, self._new = columns, []

    def columns(self) -> dict[str, np.ndarray]:
        """All rows, by column; none before the first."""
        if self._new:
            evaluations, runs, popsizes, rows = zip(*self._new, strict=True)
            counts = {"run": np.array(runs), "popsize": np.array(popsizes)}
            new = {"evaluations": np.array(evaluations)} | self._named(rows) | counts
            old = self._known or {name: column[:0] for name, column in new.items()}
            self._known = {name: np.concatenate([old[name], new[name]]) for name in new}
            self._new = []
        return dict(self._known)

    def _named(self, rows: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        table, count = np.stack(rows), len(self._names)
        named = dict(zip(self._names, table.T[:count], strict=True))
        if table.shape[1] > count:
            named["mean"], named["sd"] = np.split(table[:, count:], 2, axis=1)
        return named
