"""Adaptation sampling: a rate that grows while a longer step would have been better.

A generation's draws xᵢ ~ q are judged twice: as they are, and with importance weights
wᵢ = q′(xᵢ)/q(xᵢ), as if the last step had been made with 3/2 of its rate and had led
to q′. A weighted Mann-Whitney test compares the two samples by the ranks of their
values: with n values in one, n′ = Σ wᵢ in the other,

    U = Σᵢ wᵢ (#{j worse than i} + ½ #{j equal to i}),
    p = Φ((U − ½ n n′)/√(n n′ (n + n′ + 1)/12))

is the confidence that q′ is the better one. Where p ≥ ½ − 1/(3(D + 1)) the rate becomes
min(1.1 η, 1), else 0.9 η + 0.1 η₀.

Source: Schaul (2011), Studies in continuous black-box optimization, appendix B;
Wierstra et al. (2014), Natural evolution strategies, on adaptation sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.linalg.base import Tangent
from ngvi.nes.shaping import Ranking, weigh
from ngvi.nes.strategy import State, Strategy, Update, spread, step, weights


class Memory(NamedTuple):
    """The rate, and what a step with another one needs."""

    rate: Float[Array, ""]
    last: Gaussian
    ascent: Float[Array, "d"]
    spread: Tangent


def confidence(ranking: Ranking, importance: Float[Array, "n"]) -> Float[Array, ""]:
    """p of the weighted Mann-Whitney test: with these weights the values are smaller
    than without."""
    n, total = len(importance), importance.sum()
    # Of the k-th best n − k are worse, and it is equal to itself; ties share.
    worse = n - jnp.arange(n, dtype=importance.dtype) - 0.5
    u = importance @ weigh(ranking, worse)
    deviation = jnp.sqrt(n * total * (n + total + 1) / 12)
    return ndtr((u - n * total / 2) / jnp.maximum(deviation, 1e-30))


@dataclass(frozen=True)
class AdaptationSampling(Update):
    """The rate of the covariance follows the test; `shape_rate` is where it starts."""

    scale_only: bool = False
    """Of the scale alone, as xNES has it; the rest of the shape keeps its rate."""
    longer: float = 1.5
    haste: float = 0.1

    def begin(self, q: Gaussian) -> Memory:
        nothing = jax.tree.map(jnp.zeros_like, q.precision.tangent_identity())
        # A rate of 0 is none yet: the strategy says which is the first.
        return Memory(jnp.zeros((), q.dtype), q, jnp.zeros_like(q.mean), nothing)

    def move(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> State:
        q, memory = state.q, state.memory
        rate = self._next_rate(strategy, state, eps, ranking)
        u, v = weights(strategy, ranking, eps.dtype)
        whole = spread(q.precision, eps, v, v.sum())
        memory = Memory(rate, q, strategy.mean_rate * (u @ eps), whole)
        moved = self._step(strategy, memory, rate)
        return State(moved, memory, state.generation + 1)

    def _next_rate(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> Float[Array, ""]:
        q, rate = state.q, state.memory.rate
        other = self._step(strategy, state.memory, self.longer * rate)
        there = other.precision.whiten(q.place(eps) - other.mean)
        ratio = (eps**2).sum(1) - (there**2).sum(1)
        volumes = other.precision.logdet() - q.precision.logdet()
        p = confidence(ranking, jnp.exp((ratio + volumes) / 2))
        grows = p >= 0.5 - 1 / (3 * (q.dim + 1))
        back = (1 - self.haste) * rate + self.haste * strategy.shape_rate
        rate = jnp.where(grows, jnp.minimum((1 + self.haste) * rate, 1), back)
        first = state.generation == 0
        return jnp.where(first, strategy.shape_rate, rate).astype(q.dtype)

    def _step(
        self, strategy: Strategy, memory: Memory, rate: Float[Array, ""]
    ) -> Gaussian:
        precision = memory.last.precision
        identity = precision.tangent_identity()
        curvature = jax.tree.map(lambda s: rate * s, memory.spread)
        if self.scale_only:
            along = precision.inner(memory.spread, identity) / precision.dim
            curvature = jax.tree.map(
                lambda s, i: (
                    strategy.shape_rate * s + (rate - strategy.shape_rate) * along * i
                ),
                memory.spread,
                identity,
            )
        return step(strategy, memory.last, memory.ascent, curvature)
