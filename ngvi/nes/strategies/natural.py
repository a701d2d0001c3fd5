"""Natural evolution strategies proper: the natural gradient and nothing else.

Source: Wierstra et al. (2014), Natural evolution strategies, table 1.
"""

from __future__ import annotations

import math

from ngvi.linalg import Dense, Diagonal, Isotropic
from ngvi.mirror import retractions
from ngvi.nes.shaping import nes_weights
from ngvi.nes.strategies.popsize import checked_popsize
from ngvi.nes.strategy import Strategy, Structure, Update
from ngvi.nes.updates.adaptation_sampling import AdaptationSampling
from ngvi.nes.updates.natural import Natural


def _natural(
    structure: Structure, popsize: int, rate: float, update: Update
) -> Strategy:
    weights = tuple(nes_weights(popsize).tolist())
    return Strategy(
        structure, weights, weights, 1.0, rate, retractions.exponential, update
    )


def xnes(dim: int, popsize: int | None = None, adaptive: bool = False) -> Strategy:
    """Exponential NES: a full covariance, moved by the matrix exponential.

    Args:
        dim: D.
        popsize: draws in a generation; by default 4 + 3 log D.
        adaptive: the scale's rate by adaptation sampling.
    """
    rate = (9 + 3 * math.log(dim)) / (5 * dim * math.sqrt(dim))
    update = AdaptationSampling(scale_only=True) if adaptive else Natural()
    return _natural(Dense, checked_popsize(dim, popsize), min(rate, 1.0), update)


def snes(dim: int, popsize: int | None = None, adaptive: bool = False) -> Strategy:
    """Separable NES: a diagonal covariance.

    Args:
        dim: D.
        popsize: draws in a generation; by default 4 + 3 log D.
        adaptive: the rate by adaptation sampling.
    """
    rate = (3 + math.log(dim)) / (5 * math.sqrt(dim))
    update = AdaptationSampling() if adaptive else Natural()
    return _natural(Diagonal, checked_popsize(dim, popsize), rate, update)


def isotropic_nes(dim: int, popsize: int | None = None) -> Strategy:
    """NES with one standard deviation for all coordinates."""
    rate = (3 + math.log(dim)) / (5 * math.sqrt(dim))
    return _natural(Isotropic, checked_popsize(dim, popsize), rate, Natural())
