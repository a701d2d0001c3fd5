"""Advantages: how much better an action was than what the policy does in its place.

    δ_t = r_t + γ V(s_{t+1}) − V(s_t)          V(s_{t+1}) = 0 where the process ended
    A_t = Σ_k (γλ)ᵏ δ_{t+k}                    up to the end of the episode

λ = 1 gives the discounted return less V(s_t), unbiased and noisy; λ = 0 gives δ_t, with
the bias of V. A time limit is no end of the process: the sum stops, V goes on.

Source: Schulman et al. (2016), High-dimensional continuous control using generalized
advantage estimation.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def generalized_advantages(
    rewards: Float[Array, "t *n"],
    values: Float[Array, "t *n"],
    next_values: Float[Array, "t *n"],
    terminated: Bool[Array, "t *n"],
    ended: Bool[Array, "t *n"],
    discount: float = 0.99,
    trace: float = 0.95,
) -> Float[Array, "t *n"]:
    """A_t; A_t + V(s_t) is what V(s_t) is fitted to.

    Args:
        rewards: r_t.
        values: V(s_t).
        next_values: V(s_{t+1}) of the state an action led to, not of a new episode's.
        terminated: whether the process ended there.
        ended: whether the episode did, by that or by a time limit.
        discount: γ.
        trace: λ.
    """
    surprise = rewards + discount * jnp.where(terminated, 0, next_values) - values
    kept = discount * trace * (1 - ended.astype(surprise.dtype))

    def back(
        after: Float[Array, "*n"], now: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        surprise, kept = now
        advantage = surprise + kept * after
        return advantage, advantage

    nothing = jnp.zeros_like(surprise[0])
    return jax.lax.scan(back, nothing, (surprise, kept), reverse=True)[1]


def standardized(advantages: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """With mean zero and, unless all are equal, standard deviation one."""
    centred = advantages - advantages.mean()
    scale = jnp.sqrt((centred**2).mean())
    return jnp.where(scale > 0, centred / jnp.where(scale > 0, scale, 1), centred)
