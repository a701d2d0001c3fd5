"""CR-FM-NES in numbers.

Source: Nomura and Ono (2022), Fast moving natural evolution strategy for
high-dimensional problems, table 1.
"""

from __future__ import annotations

import math

from ngvi.linalg import SpikedCovariance
from ngvi.mirror import retractions
from ngvi.nes.draws import mirrored
from ngvi.nes.shaping import nes_weights
from ngvi.nes.strategies.popsize import paired_popsize
from ngvi.nes.strategy import Strategy
from ngvi.nes.updates.fast_moving import FastMoving


def cr_fm_nes(dim: int, popsize: int | None = None) -> Strategy:
    """Cost-reduced fast moving NES: a diagonal and one long direction, for large D.

    Args:
        dim: D.
        popsize: draws in a generation, two in a pair; by default 4 + 3 log D.
    """
    count = paired_popsize(dim, popsize)
    weights = nes_weights(count)
    mass = float(1 / ((weights + 1 / count) ** 2).sum())
    update = FastMoving(
        mass=mass,
        scale_memory=(mass + 2) / (dim + mass + 5),
        shape_memory=(4 + mass / dim) / (dim + 4 + 2 * mass / dim),
        rank_one=max(0.0, (dim - 5) / 3 / ((dim + 1.3) ** 2 + mass)),
        distance=_distance_rate(dim) * min(1.0, math.sqrt(count / dim)),
        stagnating_rate=math.tanh((0.024 * count + 0.7 * dim + 20) / (dim + 12)),
        converging_rate=2 * math.tanh((0.025 * count + 0.75 * dim + 10) / (dim + 4)),
    )
    shape_rate = math.tanh(
        (min(0.02 * count, 3 * math.log(dim)) + 5) / (0.23 * dim + 25)
    )
    numbers = tuple(weights.tolist())
    return Strategy(
        SpikedCovariance,
        numbers,
        numbers,
        1.0,
        shape_rate,
        retractions.deviations,
        update,
        mirrored,
    )


def _distance_rate(dim: int) -> float:
    """The a with (1 + a²) exp(a²/2) = 0.24 (10 + D), by Newton's method."""
    goal, a = math.log(0.24 * (10 + dim)), 1.0
    for _ in range(50):
        a -= (math.log1p(a**2) + a**2 / 2 - goal) / (2 * a / (1 + a**2) + a)
    return a
