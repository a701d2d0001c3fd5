"""Policy search by ranks: plain gradients of the mean, for which momentum helps.

Source: Salimans et al. (2017), Evolution strategies as a scalable alternative to
reinforcement learning; Sehnke et al. (2010), Parameter-exploring policy gradients.
"""

from __future__ import annotations

import math
from typing import Literal

from ngvi.linalg import Diagonal, Isotropic
from ngvi.mirror import retractions
from ngvi.nes.draws import mirrored
from ngvi.nes.shaping import centered_ranks
from ngvi.nes.strategies.popsize import checked_popsize, paired_popsize
from ngvi.nes.strategy import Strategy, Update
from ngvi.nes.updates.momentum import Momentum
from ngvi.nes.updates.natural import Natural

Optimizer = Literal["none", "momentum", "adam"]
_OPTIMIZERS: dict[str, Update] = {
    "none": Natural(),
    "momentum": Momentum(),
    "adam": Momentum(square_decay=0.999),
}


def _optimizer(name: str) -> Update:
    if name not in _OPTIMIZERS:
        known = ", ".join(map(repr, _OPTIMIZERS))
        raise ValueError(f"optimizer must be one of {known}, not {name!r}")
    return _OPTIMIZERS[name]


def openes(
    dim: int,
    popsize: int | None = None,
    rate: float = 1.0,
    optimizer: Optimizer = "none",
) -> Strategy:
    """OpenAI's evolution strategy: centered ranks, a covariance that stays.

    Args:
        dim: D.
        popsize: draws in a generation; by default 4 + 3 log D.
        rate: of the mean, in standard deviations.
        optimizer: of the mean: "none", "momentum" or "adam".

    Raises:
        ValueError: another optimizer.
    """
    weights = tuple(centered_ranks(checked_popsize(dim, popsize)).tolist())
    return Strategy(
        Isotropic,
        weights,
        weights,
        rate,
        0.0,
        retractions.exponential,
        _optimizer(optimizer),
    )


def pgpe(
    dim: int,
    popsize: int | None = None,
    rate: float = 2.0,
    shape_rate: float | None = None,
    optimizer: Optimizer = "none",
) -> Strategy:
    """Policy gradients with parameter-based exploration: draws in pairs m ± σε.

    Within a pair the difference of the two utilities moves the mean, their sum σ:

        m⁺ = m + η σ Σ (u₊ − u₋) ε,   σ⁺ = σ + η_σ σ Σ (u₊ + u₋)(ε² − 1).

    Args:
        dim: D.
        popsize: draws in a generation, two in a pair; by default 4 + 3 log D.
        rate: of the mean, η.
        shape_rate: of the standard deviations, η_σ; by default half of SNES's.
        optimizer: of the mean: "none", "momentum" or "adam".

    Raises:
        ValueError: another optimizer.
    """
    weights = tuple(centered_ranks(paired_popsize(dim, popsize)).tolist())
    if shape_rate is None:
        shape_rate = (3 + math.log(dim)) / (10 * math.sqrt(dim))
    return Strategy(
        Diagonal,
        weights,
        weights,
        rate,
        2 * shape_rate,
        retractions.deviations,
        _optimizer(optimizer),
        mirrored,
    )
