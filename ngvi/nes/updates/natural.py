"""The plain natural gradient of the expected utility.

    γ = −η_m Σ uᵢ εᵢ,   M = −η Σ vᵢ (εᵢ εᵢᵀ − I).

Source: Wierstra et al. (2014), Natural evolution strategies.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.mirror.step import sum_step
from ngvi.nes.shaping import Ranking
from ngvi.nes.strategy import State, Strategy, Update, weights


@dataclass(frozen=True)
class Natural(Update):
    """One step along the natural gradient; nothing is remembered."""

    def begin(self, q: Gaussian) -> None:
        return None

    def move(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> State:
        u, v = weights(strategy, ranking, eps.dtype)
        shift, v = strategy.mean_rate * (u @ eps), strategy.shape_rate * v
        q = sum_step(state.q, shift, eps, v, -v.sum(), strategy.retraction)
        return State(q, None, state.generation + 1)
