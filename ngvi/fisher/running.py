"""Curvature over many batches: running averages, and factorisations that are kept.

    F_t = (1 − w_t) F_{t−1} + w_t F(batch t),   w_t = (1 − β)/(1 − βᵗ)

is the exponential average with the bias of its start corrected; β = 1 gives w_t = 1/t,
the mean over all batches. Of Kronecker factors each is averaged: A and G by themselves
are closer to stationary than their product.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature, section 5; Kingma and Ba (2015), Adam, section 3.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ngvi.fisher.curvature import Curvature
from ngvi.fisher.damped import Damped
from ngvi.pytrees import pytree


@pytree
class RunningCurvature:
    """An average over batches; a pytree, so that it goes through `jit` and `scan`.

    Made by `RunningCurvature.begin(curvature, decay)` from that of the first batch.
    """

    curvature: Curvature
    """F_t."""
    batches: Int[Array, ""]
    """t."""
    decay: float = field(metadata={"static": True})
    """β."""

    @classmethod
    def begin(cls, curvature: Curvature, decay: float = 0.95) -> Self:
        """Of one batch.

        Args:
            curvature: of the first batch.
            decay: β from 0 (the last batch alone) to 1 (the mean over all).

        Raises:
            ValueError: another decay.
        """
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {decay}")
        return cls(curvature, jnp.asarray(1), decay)

    def update(self, curvature: Curvature) -> Self:
        """With the curvature of another batch, of the same structure."""
        t = self.batches + 1
        averaged = self.curvature.average(curvature, self._weight(t))
        return type(self)(averaged, t, self.decay)

    def _weight(self, t: Int[Array, ""]) -> Float[Array, ""]:
        if self.decay == 1:
            return 1 / t
        return (1 - self.decay) / (1 - self.decay ** t.astype(float))


@pytree
class Stale:
    """A factorisation that is renewed every so many steps.

    Made by `Stale.begin`; a pytree, so that it goes through `jit` and `scan`. Under
    `jit` the decompositions of a step that does not renew are not computed.
    """

    damped: Damped
    """F + λ as it was when it was last renewed."""
    age: Int[Array, ""]
    """Steps since."""
    every: int = field(metadata={"static": True})

    @classmethod
    def begin(
        cls, curvature: Curvature, damping: Any, every: int, factored: bool = False
    ) -> Self:
        """Factorised now.

        Args:
            curvature: F.
            damping: λ.
            every: steps between two factorisations.
            factored: see `Curvature.damp`.

        Raises:
            ValueError: not at least one step.
        """
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        damped = curvature.damp(damping, factored=factored)
        return cls(damped, jnp.asarray(0), every)

    def update(
        self, curvature: Curvature, damping: Any, factored: bool = False
    ) -> Self:
        """A step on: renewed from this curvature if its time has come."""
        age = self.age + 1
        due = age >= self.every
        damped = jax.lax.cond(
            due,
            lambda: curvature.damp(damping, factored=factored),
            lambda: self.damped,
        )
        return type(self)(damped, jnp.where(due, 0, age), self.every)
