"""CR-FM-NES: one long direction among many, found fast, and far moves made fast.

The covariance is δ(I + v vᵀ)δ, so a generation costs O(n D). A path p_σ of the mean as
CMA-ES's says what the search does:

| ‖p_σ‖         | the search | rate η_σ of the scale | weights                    |
|---------------|------------|-----------------------|----------------------------|
| ≥ χ           | moves      | 1                     | ∝ w(rank) exp(α‖εᵢ‖) − 1/n |
| from 0.1 χ on | stagnates  | middle                | by rank                    |
| less          | converges  | large                 | by rank                    |

where χ = E‖ε‖. With these weights u,

    m⁺ = m + A Σ uᵢεᵢ,   M = −η_B Σ uᵢ(εᵢεᵢᵀ − I) − c₁ (p_c p_cᵀ − I),
    log det C⁺ = log det C + η_σ Σ uᵢ (‖εᵢ‖² − D).

Source: Nomura and Ono (2022), Fast moving natural evolution strategy for
high-dimensional problems, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.nes.shaping import Ranking
from ngvi.nes.strategy import State, Strategy, Update, step, weights
from ngvi.nes.updates.paths import Memory, expected_length, lengthen, with_path


@dataclass(frozen=True)
class FastMoving(Update):
    """Weights by distance while the search moves, a scale rate for each of its states;
    the strategy's `shape_rate` is η_B."""

    mass: float
    """μ_eff."""
    scale_memory: float
    """c_σ."""
    shape_memory: float
    """c_c."""
    rank_one: float
    """c₁."""
    distance: float
    """α."""
    stagnating_rate: float
    converging_rate: float

    def begin(self, q: Gaussian) -> Memory:
        return Memory(jnp.zeros_like(q.mean), jnp.zeros_like(q.mean))

    def move(
        self,
        strategy: Strategy,
        state: State,
        eps: Float[Array, "n d"],
        ranking: Ranking,
    ) -> State:
        q, memory = state.q, state.memory
        u, _ = weights(strategy, ranking, eps.dtype)
        scale_path = lengthen(memory.scale_path, u @ eps, self.scale_memory, self.mass)
        ratio = jnp.linalg.norm(scale_path) / expected_length(q.dim)
        lengths = jnp.linalg.norm(eps, axis=1)
        u = jnp.where(ratio >= 1, self._by_distance(u, lengths), u)
        rate = jnp.where(ratio >= 0.1, self.stagnating_rate, self.converging_rate)
        rate = jnp.where(ratio >= 1, 1.0, rate).astype(q.dtype)

        ascent = u @ eps
        shape_path = lengthen(memory.shape_path, ascent, self.shape_memory, self.mass)
        terms = with_path(shape_path, self.rank_one, eps, strategy.shape_rate * u)
        moved = step(strategy, q, strategy.mean_rate * ascent, terms.curvature(q))

        # The volume is the scale's alone to change.
        growth = rate * (u @ (lengths**2 - q.dim))
        excess = q.precision.logdet() - growth - moved.precision.logdet()
        precision = moved.precision.scale(jnp.exp(excess / q.dim))
        # The path as it is seen from the new frame, less what σ alone changes.
        shape_path = precision.whiten(q.precision.unwhiten(shape_path))
        shape_path = jnp.exp(growth / (2 * q.dim)) * shape_path
        return State(
            Gaussian(moved.mean, precision),
            Memory(scale_path, shape_path),
            state.generation + 1,
        )

    def _by_distance(
        self, u: Float[Array, "n"], lengths: Float[Array, "n"]
    ) -> Float[Array, "n"]:
        """The positive weights times exp(α‖ε‖), zero in sum as before."""
        exponent = self.distance * (lengths - lengths.max())
        positive = jnp.maximum(u + 1 / len(u), 0) * jnp.exp(exponent)
        return positive / positive.sum() - 1 / len(u)
