"""Restarts: growing populations, and small ones between them.

A run that has come to rest in a local optimum is followed by another from a random
place. Large runs double their population each time (IPOP): they see more of the
landscape. Small runs have one of the populations used so far, at most half the last
large one's, and a smaller first σ: they find narrow valleys cheaply. Whichever kind has
spent less goes next. Populations are powers of two times the first, so that a compiled
program serves many runs.

Source: Hansen (2009), Benchmarking a BI-population CMA-ES on the BBOB-2009 function
testbed; Auger and Hansen (2005), A restart CMA evolution strategy with increasing
population size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

# As many populations that end at the best value known make it trustworthy.
ENOUGH_AGREE = 3


@dataclass(frozen=True)
class Schedule:
    """Which run is on, and what the earlier ones have come to."""

    popsize: int
    """Of the first run."""
    number: int = 0
    """Of restarts so far."""
    doublings: int = 0
    """Of the last large run's population."""
    exponent: int = 0
    """Of this run's population."""
    shrink: float = 1.0
    """This run's σ over the first run's."""
    large: bool = False
    spent_large: int = 0
    spent_small: int = 0
    last_large: int = 0
    """Evaluations of the last large run."""
    agree: int = 0
    """Large runs, and the first, that converged to the best value."""

    @property
    def current_popsize(self) -> int:
        """Of this run."""
        return self.popsize * 2**self.exponent

    @property
    def share(self) -> int | None:
        """Evaluations allowed to this run, if fewer than all that are left."""
        if self.large or self.number == 0:
            return None
        return max(self.last_large // 2, self.current_popsize)

    def after(self, spent: int, seed: int) -> Self:
        """The schedule of the next run.

        Args:
            spent: evaluations of the run that has ended.
            seed: of the search.
        """
        if self.large:
            done = replace(self, spent_large=self.spent_large + spent, last_large=spent)
        else:
            done = replace(self, spent_small=self.spent_small + spent)
        done = replace(done, number=self.number + 1)
        if done.spent_large <= done.spent_small:
            doublings = done.doublings + 1
            return replace(
                done, large=True, doublings=doublings, exponent=doublings, shrink=1.0
            )
        draws = np.random.default_rng([seed, done.number, 1]).random(2)
        # λ = λ₀ (λ_large/2λ₀)^(U²), rounded down to a power of two times λ₀.
        exponent = int((done.doublings - 1) * draws[0] ** 2)
        shrink = float(10 ** (-2 * draws[1]))
        return replace(done, large=False, exponent=exponent, shrink=shrink)

    def within(self, left: int) -> Self:
        """With a population that the rest of the budget suffices for, if any does."""
        smaller = self
        while smaller.exponent and smaller.current_popsize > left:
            smaller = replace(smaller, exponent=smaller.exponent - 1)
        return smaller


def start_of(
    number: int,
    seed: int,
    x0: np.ndarray,
    sigma: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """Where a run starts: the first at x0, others at random.

    Uniformly between two bounds; elsewhere up to 2.5 standard deviations from x0.
    """
    if number == 0:
        return x0
    rng = np.random.default_rng([seed, number, 0])
    uniform = rng.random(x0.size)
    both = np.isfinite(lower) & np.isfinite(upper)
    with np.errstate(invalid="ignore"):
        inside = lower + uniform * (upper.astype(float) - lower)
    point = np.where(both, inside, x0 + 5 * sigma * (uniform - 0.5))
    return np.clip(point, lower, upper).astype(x0.dtype)
