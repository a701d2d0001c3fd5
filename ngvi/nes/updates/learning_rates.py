"""Learning rates that follow the signal of the updates: LRA-CMA-ES.

A generation of the strategy would take the mean and the covariance along Δ_m and Δ_Σ;
in the frame of the root, where the Fisher metric is the plain one, these are

    δ = A⁻¹ Δ_m,   Z = A⁻¹ Δ_Σ A⁻ᵀ = σ⁺²/σ² (I − M) − I,   of length ‖δ‖ and ‖Z‖_F/√2.

Of each, moving averages E of the vector and V of its squared length estimate

    SNR = (‖E‖² − β/(2 − β) V) / (V − ‖E‖²),
    η⁺ = min(1, η exp(min(γη, β) clip(SNR/(αη) − 1, −1, 1))),

and the step taken is (η_m Δ_m, η_Σ Δ_Σ). A slower mean wants a larger scale: σ is then
multiplied by η_m/η_m⁺. On noisy and multimodal objectives the rates fall, which does
what a larger population would; elsewhere they stay near one.

Source: Nomura, Akimoto and Ono (2023), CMA-ES with learning rate adaptation: can
CMA-ES with default population size solve multimodal and noisy problems?, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.linalg.base import Tangent
from ngvi.nes.strategy import Strategy, step


class Signals(NamedTuple):
    """What is known of the updates."""

    mean: Float[Array, "d"]
    """E of δ."""
    shape: Tangent
    """E of Z."""
    mean_power: Float[Array, ""]
    """V of δ."""
    shape_power: Float[Array, ""]
    mean_rate: Float[Array, ""]
    """η_m."""
    shape_rate: Float[Array, ""]
    """η_Σ."""


@dataclass(frozen=True)
class LearningRates:
    """Rates for mean and covariance; the strategy's retraction is `covariance`."""

    goal: float = 1.4
    """α, the signal-to-noise ratio over η that is kept."""
    mean_memory: float = 0.1
    """β of the mean."""
    shape_memory: float = 0.03
    """β of the covariance."""
    haste: float = 0.1
    """γ."""

    def begin(self, q: Gaussian) -> Signals:
        """Nothing known, rates of one."""
        zero, one = jnp.zeros((), q.dtype), jnp.ones((), q.dtype)
        shape = jax.tree.map(jnp.zeros_like, q.precision.tangent_identity())
        return Signals(jnp.zeros_like(q.mean), shape, zero, zero, one, one)

    def move(
        self,
        strategy: Strategy,
        q: Gaussian,
        signals: Signals,
        ascent: Float[Array, "d"],
        curvature: Tangent,
        factor: Float[Array, ""],
    ) -> tuple[Gaussian, Signals]:
        """The distribution after a part of its step, and the signals with the step.

        Args:
            strategy: that steps.
            q: the distribution before.
            signals: before.
            ascent: δ.
            curvature: −M.
            factor: σ⁺/σ.
        """
        precision = q.precision

        def average(old: Array, new: Array, memory: float) -> Array:
            return (1 - memory) * old + memory * new

        def power(shape: Tangent) -> Float[Array, ""]:
            return precision.inner(shape, shape) / 2

        identity = precision.tangent_identity()
        change = jax.tree.map(lambda m, i: factor**2 * (i + m) - i, curvature, identity)
        mean = average(signals.mean, ascent, self.mean_memory)
        shape = jax.tree.map(
            lambda old, new: average(old, new, self.shape_memory),
            signals.shape,
            change,
        )
        mean_power = average(signals.mean_power, ascent @ ascent, self.mean_memory)
        shape_power = average(signals.shape_power, power(change), self.shape_memory)
        mean_rate = self._follow(
            signals.mean_rate, mean @ mean, mean_power, self.mean_memory
        )
        shape_rate = self._follow(
            signals.shape_rate, power(shape), shape_power, self.shape_memory
        )
        part = jax.tree.map(lambda z: shape_rate * z, change)
        moved = step(strategy, q, mean_rate * ascent, part)
        scaled = moved.precision.scale((mean_rate / signals.mean_rate) ** 2)
        signals = Signals(mean, shape, mean_power, shape_power, mean_rate, shape_rate)
        return Gaussian(moved.mean, scaled), signals

    def _follow(
        self,
        rate: Float[Array, ""],
        signal: Float[Array, ""],
        power: Float[Array, ""],
        memory: float,
    ) -> Float[Array, ""]:
        noise = jnp.maximum(power - signal, jnp.finfo(power.dtype).tiny)
        ratio = (signal - memory / (2 - memory) * power) / noise
        change = jnp.clip(ratio / (self.goal * rate) - 1, -1, 1)
        rate = rate * jnp.exp(jnp.minimum(self.haste * rate, memory) * change)
        return jnp.minimum(rate, 1)
