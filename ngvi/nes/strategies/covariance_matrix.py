"""CMA-ES: recombination weights, two learning rates, and evolution paths.

Source: Hansen (2016), The CMA evolution strategy: a tutorial; Ros and Hansen (2008), A
simple modification in CMA-ES achieving linear time and space complexity.
"""

from __future__ import annotations

import math

import numpy as np

from ngvi.linalg import Dense, Diagonal
from ngvi.mirror import retractions
from ngvi.nes.shaping import log_ranks, recombination_weights
from ngvi.nes.strategies.popsize import checked_popsize
from ngvi.nes.strategy import Strategy
from ngvi.nes.updates.learning_rates import LearningRates
from ngvi.nes.updates.paths import Paths


def cma(
    dim: int,
    popsize: int | None = None,
    separable: bool = False,
    adaptive: bool = False,
) -> Strategy:
    """CMA-ES with active (negative) weights: Hansen (2016), table 1.

    Args:
        dim: D.
        popsize: draws in a generation; by default 4 + 3 log D.
        separable: a diagonal covariance.
        adaptive: learning rates that follow the signal of the updates, see
            `ngvi.nes.updates.learning_rates`: for noisy and multimodal objectives.
    """
    count = checked_popsize(dim, popsize)
    positive = recombination_weights(count)
    mass = 1 / (positive**2).sum()
    rank_one = 2 / ((dim + 1.3) ** 2 + mass)
    rank_mu = 2 * (0.25 + mass + 1 / mass - 2) / ((dim + 2) ** 2 + mass)
    if separable:
        rank_one, rank_mu = rank_one * (dim + 2) / 3, rank_mu * (dim + 2) / 3
    rank_mu = min(1 - rank_one, rank_mu)
    scale_memory = (mass + 2) / (dim + mass + 5)
    excess = max(0.0, math.sqrt((mass - 1) / (dim + 1)) - 1)
    paths = Paths(
        mass=float(mass),
        scale_memory=float(scale_memory),
        scale_damping=float(1 + 2 * excess + scale_memory),
        shape_memory=float((4 + mass / dim) / (dim + 4 + 2 * mass / dim)),
        rank_one=float(rank_one),
        learning=LearningRates() if adaptive else None,
    )
    shape = _active(count, positive, mass, rank_one, rank_mu, dim)
    return Strategy(
        Diagonal if separable else Dense,
        tuple(positive.tolist()),
        tuple(shape.tolist()),
        1.0,
        float(rank_mu),
        retractions.covariance,
        paths,
    )


def _active(
    count: int,
    positive: np.ndarray,
    mass: float,
    rank_one: float,
    rank_mu: float,
    dim: int,
) -> np.ndarray:
    """The weights of the covariance: negative ones for the worse half."""
    raw = np.minimum(log_ranks(count, (count + 1) / 2), 0)
    negative_mass = raw.sum() ** 2 / (raw**2).sum()
    limit = min(
        1 + rank_one / rank_mu,
        1 + 2 * negative_mass / (mass + 2),
        (1 - rank_one - rank_mu) / (dim * rank_mu),
    )
    return positive - limit * raw / raw.sum()
