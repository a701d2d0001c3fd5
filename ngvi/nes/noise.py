"""Noisy objectives: populations that grow, and answers that are no lucky draws.

The larger the population, the more noise recombination averages away: at equal cost
better than evaluating the points of a small one again. Whether the noise hides the way
is seen without further evaluations: while there is progress the medians of successive
generations fall. Mann-Kendall's statistic of the last W medians f₁ … f_W,

    z = Σ_{i<j} sign(fⱼ − fᵢ) / √(W (W − 1) (2W + 5)/18),

is about standard normal without a trend. Where it is above −1.5 the population doubles,
as often as the budget allows for W generations of it.

The best value ever seen is the luckiest one, and its point no better than others. So
the answer is the distribution's mean, which has seen all values, and it is evaluated
again, many times, for its value and to choose among runs.

Source: Beyer and Hellwig (2016), Evolution under strong noise: a self-adaptive
evolution strategy can reach the lower performance bound (the pcCMSA-ES), for growth by
a test of the trend; Mann (1945), Nonparametric tests against trend; Hansen et al.
(2009), A method for handling uncertainty in evolutionary optimization, whose
re-evaluations it is measured against in `benchmarks/noise_nes.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from ngvi.nes.evaluation import HostObjective
from ngvi.nes.stopping import Stopping
from ngvi.nes.tracing import TracedObjective

WINDOW = 20
# Generations between two looks at it: a compiled loop has to stop for them.
LOOKS = 5
# Times the usual population: smaller ones shrink too soon, larger ones waste a budget.
FIRST_GROWTH = 6
_NO_TREND = -1.5
_LARGEST_SHARE = 50
_MOST = 1000


def trend(values: Sequence[float]) -> float:
    """Mann-Kendall's z: far below zero if the values fall."""
    array, count = np.array(values, float), len(values)
    later, earlier = array[None, :], array[:, None]
    # Not the sign of a difference: infinities are equal.
    signs = (later > earlier).astype(int) - (later < earlier).astype(int)
    scale = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return float(np.triu(signs, 1).sum()) / scale


def stalls(medians: Sequence[float]) -> bool:
    """Whether the medians of the last generations say that noise hides the way."""
    return len(medians) >= WINDOW and trend(medians[-WINDOW:]) > _NO_TREND


def reserve(evaluations: int, popsize: int) -> int:
    """How many of a run's evaluations are for its answer: a fiftieth, at most 1000."""
    wanted = min(max(evaluations // _LARGEST_SHARE, 1), _MOST)
    return max(min(wanted, evaluations - popsize), 0)


@dataclass
class NoisyRun:
    """What a run knows about a noisy objective."""

    target: float
    """For the median of a generation: a single value may be a lucky one."""
    medians: list[float] = field(default_factory=list)
    """Of the last generations, since the population has grown."""
    reserved: int = 0
    """Evaluations for the answer."""
    value: float | None = None
    """Of the answer, to be minimised, once it has been evaluated again."""
    error: float = math.nan
    """Its standard error."""
    judged: int = 0
    """Evaluations of it."""
    failed: int = 0
    """Those of them that gave no finite number."""

    def limits(self, limits: Stopping, popsize: int) -> Stopping:
        """The limits of the run: without the reserve, nor tests of the best value."""
        self.reserved = reserve(int(limits.maxfevals), popsize)
        left = int(limits.maxfevals) - self.reserved
        return replace(limits, maxfevals=left, ftarget=-math.inf, stagnation=0.0)

    def see(self, median: float) -> None:
        """The median of another generation."""
        self.medians = [*self.medians[1 - WINDOW :], median]

    @property
    def on_target(self) -> bool:
        """Whether the last median is good enough."""
        return bool(self.medians) and self.medians[-1] <= self.target

    def wants(self, popsize: int, left: int) -> bool:
        """Whether the population should grow to this, with so many evaluations left."""
        enough = left >= WINDOW * popsize and not self.on_target
        return enough and stalls(self.medians)

    def judge(
        self,
        objective: TracedObjective | HostObjective,
        args: tuple[Any, ...],
        point: np.ndarray,
        left: int,
    ) -> None:
        """Evaluate the answer again and again: as often as was set aside for it."""
        count = min(self.reserved, left)
        if count < 1 or self.value is not None:
            return
        points = np.repeat(point[None], count, axis=0)
        if isinstance(objective, TracedObjective):
            values = np.asarray(objective(jnp.asarray(points), *args), float)
        else:
            objective.tally.spare = left - count
            values = objective(points)
        good = values[np.isfinite(values)]
        self.value = float(good.mean()) if good.size else math.inf
        if good.size > 1:
            self.error = float(good.std(ddof=1)) / math.sqrt(good.size)
        self.judged, self.failed = count, count - good.size
