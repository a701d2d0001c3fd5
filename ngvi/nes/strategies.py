"""Gaussian search strategies, as numbers: weights by rank, and rates.

| strategy      | structure | mean  | shape and scale        | retraction  | paths |
|---------------|-----------|-------|------------------------|-------------|-------|
| xNES          | dense     | η = 1 | (9 + 3 log D)/(5 D√D)  | exponential | no    |
| SNES          | diagonal  | η = 1 | (3 + log D)/(5√D)      | exponential | no    |
| isotropic NES | isotropic | η = 1 | (3 + log D)/(5√D)      | exponential | no    |
| CMA-ES        | dense     | c = 1 | c_μ and c₁, path for σ | covariance  | yes   |
| sep-CMA-ES    | diagonal  | c = 1 | (D + 2)/3 times as fast| covariance  | yes   |
| OpenES        | fixed     | η     | none                   | –           | no    |

All of them step along the same tangent vector, γ = −Σ uᵢεᵢ and M = −Σ vᵢ(εᵢεᵢᵀ − I):
the natural gradient of the expected utility.

Source: Wierstra et al. (2014), Natural evolution strategies; Hansen (2016), The CMA
evolution strategy: a tutorial; Ros and Hansen (2008), A simple modification in CMA-ES
achieving linear time and space complexity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ngvi.linalg import Dense, Diagonal, Isotropic
from ngvi.mirror import retractions
from ngvi.mirror.step import Retraction
from ngvi.nes.checks import check_popsize
from ngvi.nes.draws import Draws, independent
from ngvi.nes.shaping import (
    centered_ranks,
    log_ranks,
    nes_weights,
    recombination_weights,
)

Structure = type[Dense] | type[Diagonal] | type[Isotropic]


@dataclass(frozen=True)
class Paths:
    """CMA-ES's evolution paths: step-size adaptation and the rank-one update."""

    mass: float
    """μ_eff, the variance effective number of parents."""
    scale_memory: float
    """c_σ."""
    scale_damping: float
    """d_σ."""
    shape_memory: float
    """c_c."""
    rank_one: float
    """c₁."""


@dataclass(frozen=True)
class Strategy:
    """How a Gaussian search distribution moves; hashable, so that `jit` knows it."""

    structure: Structure
    """Of the precision."""
    mean_weights: tuple[float, ...]
    """By rank, best first, for the mean."""
    shape_weights: tuple[float, ...]
    """By rank, best first, for the covariance."""
    mean_rate: float
    shape_rate: float
    """Of the covariance."""
    retraction: Retraction
    paths: Paths | None = None
    draws: Draws = independent
    """Where ε comes from, see `ngvi.nes.draws`."""

    @property
    def popsize(self) -> int:
        """How many draws a generation has."""
        return len(self.mean_weights)


def default_popsize(dim: int) -> int:
    """4 + ⌊3 log D⌋."""
    return 4 + int(3 * math.log(dim))


def checked_popsize(dim: int, popsize: int | None) -> int:
    """The popsize asked for, or the default for D."""
    return default_popsize(dim) if popsize is None else check_popsize(popsize)


def _natural(structure: Structure, popsize: int, rate: float) -> Strategy:
    weights = tuple(nes_weights(popsize).tolist())
    return Strategy(structure, weights, weights, 1.0, rate, retractions.exponential)


def xnes(dim: int, popsize: int | None = None) -> Strategy:
    """Exponential NES: a full covariance, moved by the matrix exponential."""
    rate = (9 + 3 * math.log(dim)) / (5 * dim * math.sqrt(dim))
    return _natural(Dense, checked_popsize(dim, popsize), min(rate, 1.0))


def snes(dim: int, popsize: int | None = None) -> Strategy:
    """Separable NES: a diagonal covariance."""
    rate = (3 + math.log(dim)) / (5 * math.sqrt(dim))
    return _natural(Diagonal, checked_popsize(dim, popsize), rate)


def isotropic_nes(dim: int, popsize: int | None = None) -> Strategy:
    """NES with one standard deviation for all coordinates."""
    rate = (3 + math.log(dim)) / (5 * math.sqrt(dim))
    return _natural(Isotropic, checked_popsize(dim, popsize), rate)


def openes(dim: int, popsize: int | None = None, rate: float = 1.0) -> Strategy:
    """OpenAI's evolution strategy: centered ranks, a covariance that stays."""
    weights = tuple(centered_ranks(checked_popsize(dim, popsize)).tolist())
    return Strategy(Isotropic, weights, weights, rate, 0.0, retractions.exponential)


def cma(dim: int, popsize: int | None = None, separable: bool = False) -> Strategy:
    """CMA-ES with active (negative) weights; `separable` keeps a diagonal covariance.

    Source: Hansen (2016), table 1.
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
