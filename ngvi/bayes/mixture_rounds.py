"""The rounds of a mixture's fit: when they end, and what checkpoints keep of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ngvi.bayes.pool import Contents
from ngvi.mirror.mixture import MixtureState

_ROUNDS = 12
_GAIN = 0.01
"""Nats that a round must gain for another one."""


class Kept(NamedTuple):
    """What a checkpoint has, a pytree."""

    best: MixtureState
    pool: Contents


def rounds_of(kept: Kept) -> int:
    """A number that every round increases."""
    return len(kept.pool.sources)


@dataclass
class Rounds:
    """How far a fit has come."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_elbo: float = -np.inf
    slow: int = 0
    """Rounds in a row that gained little."""
    evaluations: int = 0
    over: str | None = None
    """Why there are no more."""

    def add(self, row: dict[str, float], enough: bool, late: bool) -> bool:
        """One more; whether it is the best one."""
        gain = row["elbo"] - self.best_elbo
        self.history.append(row)
        self.slow = 0 if gain >= _GAIN else self.slow + 1
        if enough or self.slow == 2:
            self.over = "converged: more components gain nothing"
        elif late:
            self.over = "the time allowed was used up"
        elif len(self.history) == _ROUNDS:
            self.over = "the rounds allowed were used up"
        self.best_elbo = max(row["elbo"], self.best_elbo)
        return gain > 0
