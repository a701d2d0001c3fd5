"""CMA-ES: recombination weights, two learning rates, and evolution paths.

Source: Hansen (2016), The CMA evolution strategy: a tutorial; Ros and Hansen (2008), A
simple modification in CMA-ES achieving linear time and space complexity; Akimoto and
Hansen (2016), Projection-based restricted covariance matrix adaptation for high
dimension.
"""

from __future__ import annotations

import math

import numpy as np

from ngvi.linalg import Dense, Diagonal, SpikedCovariance
from ngvi.mirror import retractions
from ngvi.nes.checks import check_whole
from ngvi.nes.shaping import log_ranks, recombination_weights
from ngvi.nes.strategies.popsize import checked_popsize
from ngvi.nes.strategy import Strategy, Structure
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
    structure = Diagonal if separable else Dense
    faster = (dim + 2) / 3 if separable else 1.0
    learning = LearningRates() if adaptive else None
    return _with_paths(structure, dim, popsize, faster, learning)


def spiked_cma(dim: int, popsize: int | None = None, spikes: int = 3) -> Strategy:
    """CMA-ES with a diagonal covariance that is long in a few directions, for large D.

    A generation costs O(n D k). Of the rates those of CMA-ES, faster by as much as
    there is less to be learned, D (k + 1) numbers: for k = 0 it is sep-CMA-ES.

    Args:
        dim: D.
        popsize: draws in a generation; by default 4 + 3 log D.
        spikes: k, how many directions.

    Raises:
        ValueError: k is no whole number from 1 on.
    """
    spikes = check_whole("spikes", spikes, 1)
    if dim == 1:
        return cma(dim, popsize, separable=True)
    spikes = min(spikes, dim - 1)
    faster = max(1.0, (dim + 2) / (3 * (spikes + 1)))
    return _with_paths(SpikedCovariance, dim, popsize, faster, spikes=spikes)


def _with_paths(
    structure: Structure,
    dim: int,
    popsize: int | None,
    faster: float,
    learning: LearningRates | None = None,
    spikes: int = 0,
) -> Strategy:
    """With the rates of the covariance so many times as fast."""
    count = checked_popsize(dim, popsize)
    positive = recombination_weights(count)
    mass = 1 / (positive**2).sum()
    rank_one = faster * 2 / ((dim + 1.3) ** 2 + mass)
    rank_mu = faster * 2 * (0.25 + mass + 1 / mass - 2) / ((dim + 2) ** 2 + mass)
    rank_mu = min(1 - rank_one, rank_mu)
    scale_memory = (mass + 2) / (dim + mass + 5)
    excess = max(0.0, math.sqrt((mass - 1) / (dim + 1)) - 1)
    paths = Paths(
        mass=float(mass),
        scale_memory=float(scale_memory),
        scale_damping=float(1 + 2 * excess + scale_memory),
        shape_memory=float((4 + mass / dim) / (dim + 4 + 2 * mass / dim)),
        rank_one=float(rank_one),
        learning=learning,
    )
    return Strategy(
        structure,
        tuple(positive.tolist()),
        tuple(_active(count, positive, mass, rank_one, rank_mu, dim).tolist()),
        1.0,
        float(rank_mu),
        retractions.covariance,
        paths,
        spikes=spikes,
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
