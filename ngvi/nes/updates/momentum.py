"""The mean by a gradient method: heavy ball or Adam on the natural gradient g = Σ uᵢεᵢ.

    momentum   v⁺ = βv + (1 − β) g,                      m⁺ = m + η A v⁺
    Adam       v as above, s⁺ = β₂s + (1 − β₂) g²,       m⁺ = m + η A v̂/(√ŝ + 10⁻⁸)

with v̂ = v⁺/(1 − βᵗ), ŝ = s⁺/(1 − β₂ᵗ). In the frame a rate of one is a standard
deviation a generation; the covariance moves along its natural gradient, if at all.

Source: Salimans et al. (2017), Evolution strategies as a scalable alternative to
reinforcement learning; Kingma and Ba (2015), Adam, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.mirror.step import sum_step
from ngvi.nes.shaping import Ranking
from ngvi.nes.strategy import State, Strategy, Update, weights

_OFFSET = 1e-8


class Memory(NamedTuple):
    """Moving averages of g and of its squares."""

    first: Float[Array, "d"]
    second: Float[Array, "d"] | None


@dataclass(frozen=True)
class Momentum(Update):
    """A heavy ball, or with `square_decay` Adam."""

    decay: float = 0.9
    """β."""
    square_decay: float | None = None
    """β₂."""

    def begin(self, q: Gaussian) -> Memory:
        nothing = jnp.zeros_like(q.mean)
        return Memory(nothing, None if self.square_decay is None else nothing)

    def move(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> State:
        u, v = weights(strategy, ranking, eps.dtype)
        generation, ascent = state.generation + 1, u @ eps
        first = self.decay * state.memory.first + (1 - self.decay) * ascent
        second, direction = None, first
        if self.square_decay is not None:
            old, decay = state.memory.second, self.square_decay
            time = generation.astype(eps.dtype)
            second = decay * old + (1 - decay) * ascent**2
            root = jnp.sqrt(second / (1 - decay**time))
            direction = first / (1 - self.decay**time) / (root + _OFFSET)
        shift, v = strategy.mean_rate * direction, strategy.shape_rate * v
        q = sum_step(state.q, shift, eps, v, -v.sum(), strategy.retraction)
        return State(q, Memory(first, second), generation)
