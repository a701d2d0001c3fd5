"""CMA-ES: evolution paths adapt the scale and add one more draw to the covariance.

    p_σ⁺ = (1 − c_σ) p_σ + √(c_σ(2 − c_σ)μ_eff) Σ uᵢεᵢ,   p_c likewise,
    σ⁺ = σ exp(c_σ/d_σ (‖p_σ‖/χ − 1)),   M = −c₁ (p_c p_cᵀ − I) − c_μ Σ vᵢ (εᵢ εᵢᵀ − I).

Paths live in the frame of the root: no affine change of x changes any number here.

A spiked covariance takes the same step in its second moments and then the nearest
member, as in VkD-CMA-ES. With `learning` the whole step, of the mean and of the
covariance with its scale, is made shorter as its signal asks, see
`ngvi.nes.updates.learning_rates`.

Source: Hansen (2016), The CMA evolution strategy: a tutorial, figure 6; Akimoto and
Hansen (2016), Projection-based restricted covariance matrix adaptation for high
dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ngvi.families import Gaussian
from ngvi.linalg.base import Tangent
from ngvi.mirror.step import moments_step, sum_step
from ngvi.nes.shaping import Ranking
from ngvi.nes.strategy import State, Strategy, Update, spread, weights
from ngvi.nes.updates.learning_rates import LearningRates, Signals


class Memory(NamedTuple):
    """The paths, in the frame."""

    scale_path: Float[Array, "d"]
    """p_σ."""
    shape_path: Float[Array, "d"]
    """p_c, in units of the scale."""
    signals: Signals | None = None


def lengthen(
    path: Float[Array, "d"], ascent: Float[Array, "d"], memory: float, mass: float
) -> Float[Array, "d"]:
    """A path one generation on: of selection by chance it has the length of a draw."""
    return (1 - memory) * path + math.sqrt(memory * (2 - memory) * mass) * ascent


def expected_length(dim: int) -> float:
    """χ, E‖ε‖ of ε ~ N(0, I)."""
    return math.sqrt(dim) * (1 - 1 / (4 * dim) + 1 / (21 * dim**2))


class Terms(NamedTuple):
    """−M = Σ wᵢ xᵢxᵢᵀ − c I: the path first, then the population."""

    x: Float[Array, "n d"]
    weights: Float[Array, "n"]
    lost: Float[Array, ""]
    """c."""

    def curvature(self, q: Gaussian) -> Tangent:
        """−M in the layout of the precision."""
        return spread(q.precision, self.x, self.weights, self.lost)


def with_path(
    path: Float[Array, "d"],
    rank_one: float,
    eps: Float[Array, "n d"],
    v: Float[Array, "n"],
) -> Terms:
    """−M = c₁ (p pᵀ − I) + Σ vᵢ (εᵢεᵢᵀ − I)."""
    weights = jnp.concatenate([jnp.full(1, rank_one, v.dtype), v])
    return Terms(jnp.concatenate([path[None], eps]), weights, weights.sum())


@dataclass(frozen=True)
class Paths(Update):
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
    learning: LearningRates | None = None

    def begin(self, q: Gaussian) -> Memory:
        nothing = jnp.zeros_like(q.mean)
        signals = None if self.learning is None else self.learning.begin(q)
        return Memory(nothing, nothing, signals)

    def move(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> State:
        q, memory = state.q, state.memory
        u, v = weights(strategy, ranking, eps.dtype)
        ascent = u @ eps
        generation = state.generation + 1
        scale_path = lengthen(memory.scale_path, ascent, self.scale_memory, self.mass)
        length, expected = jnp.linalg.norm(scale_path), expected_length(q.dim)
        short = self._is_short(length / expected, generation, q.dim)
        shape_path = lengthen(
            memory.shape_path,
            jnp.where(short, ascent, 0),
            self.shape_memory,
            self.mass,
        )
        growth = self.scale_memory / self.scale_damping * (length / expected - 1)
        factor = jnp.exp(jnp.minimum(growth, 1.0))
        ascent = strategy.mean_rate * ascent
        terms = self._terms(strategy, eps, v, shape_path, short)
        signals = memory.signals
        if self.learning is None:
            moved = _moved(strategy, q, ascent, terms)
            moved = Gaussian(moved.mean, moved.precision.scale(factor**-2))
        else:
            moved, signals = self.learning.move(
                strategy, q, signals, ascent, terms.curvature(q), factor
            )
            # Of a part of the step only the volume says what of it was scale.
            volumes = q.precision.logdet() - moved.precision.logdet()
            factor = jnp.exp(volumes / (2 * q.dim))
        # The path as it is seen from the new frame, less what σ alone changes.
        shape_path = moved.precision.whiten(q.precision.unwhiten(factor * shape_path))
        return State(moved, Memory(scale_path, shape_path, signals), generation)

    def _is_short(
        self, ratio: Float[Array, ""], generation: Int[Array, ""], dim: int
    ) -> Array:
        """While σ still has far to go the rank-one path stalls."""
        age = 1 - (1 - self.scale_memory) ** (2 * generation)
        return ratio / jnp.sqrt(age) < 1.4 + 2 / (dim + 1)

    def _terms(
        self,
        strategy: Strategy,
        eps: Float[Array, "n d"],
        v: Float[Array, "n"],
        shape_path: Float[Array, "d"],
        short: Array,
    ) -> Terms:
        # A stalled path is shorter than it should be: less is taken off in its place.
        missing = jnp.where(short, 0.0, self.shape_memory * (2 - self.shape_memory))
        long = eps.shape[1] / jnp.maximum((eps**2).sum(1), 1e-30)
        bounded = jnp.where(v < 0, v * long, v)
        terms = with_path(shape_path, self.rank_one, eps, strategy.shape_rate * bounded)
        lost = self.rank_one * (1 - missing) + strategy.shape_rate * v.sum()
        return terms._replace(lost=lost)


def _moved(
    strategy: Strategy, q: Gaussian, ascent: Float[Array, "d"], terms: Terms
) -> Gaussian:
    if strategy.spikes:
        return moments_step(q, ascent, terms.x, terms.weights, 1 - terms.lost)
    return sum_step(q, ascent, terms.x, terms.weights, -terms.lost, strategy.retraction)
