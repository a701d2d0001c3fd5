"""What a Gaussian strategy is: weights by rank, rates, and the update they go to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, Isotropic, PositiveDefinite, SpikedCovariance
from ngvi.linalg.base import Tangent
from ngvi.mirror.step import Direction, Retraction, gaussian_step
from ngvi.nes.draws import Draws, independent
from ngvi.nes.shaping import Ranking, weigh
from ngvi.pytrees import pytree

Structure = type[Dense] | type[Diagonal] | type[Isotropic] | type[SpikedCovariance]


@pytree
class State:
    """What the next generation needs."""

    q: Gaussian
    memory: Any
    """The update's own: paths, moments, rates."""
    generation: Int[Array, ""]


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
    update: Update
    """What is done with them, see `ngvi.nes.updates`."""
    draws: Draws = independent
    """Where ε comes from, see `ngvi.nes.draws`."""
    spikes: int = 0
    """How many long directions a spiked covariance has."""

    @property
    def popsize(self) -> int:
        """How many draws a generation has."""
        return len(self.mean_weights)

    def precision(self, sd: Float[Array, "d"]) -> PositiveDefinite:
        """Of the first distribution, with about these standard deviations."""
        if self.spikes:
            return SpikedCovariance.from_deviations(sd, self.spikes)
        return self.structure.from_deviations(sd)


class Update(ABC):
    """What a generation's draws and weights do to a state; hashable."""

    @abstractmethod
    def begin(self, q: Gaussian) -> Any:
        """The memory before the first generation, a pytree."""

    @abstractmethod
    def move(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> State:
        """The state after a generation.

        Args:
            strategy: that the update belongs to.
            state: that the draws were asked of.
            eps: base draws.
            ranking: of their values.
        """


def weights(strategy: Strategy, ranking: Ranking, dtype: Any) -> Float[Array, "2 n"]:
    """u and v, the draws' weights for the mean and for the covariance."""
    by_rank = jnp.asarray([strategy.mean_weights, strategy.shape_weights], dtype)
    return weigh(ranking, by_rank.T).T


def spread(
    precision: Any,
    x: Float[Array, "n d"],
    weights: Float[Array, "n"],
    lost: Float[Array, ""],
) -> Tangent:
    """Σ wᵢ xᵢxᵢᵀ − c I, as much of it as the structure holds."""
    squares = precision.tangent(x, len(x) * weights[:, None] * x)
    identity = precision.tangent_identity()
    return jax.tree.map(lambda s, i: s - lost * i, squares, identity)


def step(
    strategy: Strategy, q: Gaussian, ascent: Float[Array, "d"], curvature: Tangent
) -> Gaussian:
    """The mirror step that takes the mean along `ascent`, in the frame, and the
    covariance along `curvature`, both at their full length."""
    direction = Direction(-ascent, jax.tree.map(jnp.negative, curvature))
    return gaussian_step(q, direction, 1.0, strategy.retraction)
