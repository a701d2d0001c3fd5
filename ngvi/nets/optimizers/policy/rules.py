"""How a policy moves: along its gradient, its natural gradient, or in a ball of the KL.

    plain     θ⁺ = θ − α ∇L                         or any transformation of optax
    natural   θ⁺ = θ − α d,  (F + λ I) d = ∇L       α no more than √(2δ / dᵀ F d)
    TRPO      as natural at that length, halved until KL ≤ δ and L is lower

Source: Williams (1992), Simple statistical gradient-following algorithms for
connectionist reinforcement learning; Kakade (2002), A natural policy gradient; Schulman
et al. (2015), Trust region policy optimization, appendix C.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.fisher.curvature import Curvature
from ngvi.fisher.engine import KindName, StructureName
from ngvi.fisher.trust_region import trust_region_step
from ngvi.nets.optimizers.policy.surrogate import Surrogate
from ngvi.nets.schedules import Number, number_at
from ngvi.pytrees import inner


class PolicyInfo(NamedTuple):
    """What a step did; NaN where it was not measured."""

    loss: Float[Array, ""]
    """L after the step, less L before it: negative if the step is an improvement."""
    kl: Float[Array, ""]
    """KL(π_θ ‖ π_θ⁺), measured."""
    entropy: Float[Array, ""]
    """Of the policy that acted, −mean log π(a_t | s_t)."""
    accepted: Bool[Array, ""]
    ratio: Float[Array, ""]
    """The descent of L over that of its linear model."""
    learning_rate: Float[Array, ""]
    """α: the step over the direction."""
    damping: Float[Array, ""]
    length: Float[Array, ""]
    """√(sᵀ F s) of the step s."""
    cosine: Float[Array, ""]
    """Between the step and −∇L."""


class Turn(NamedTuple):
    """What a step is made of."""

    surrogate: Surrogate
    kept: Any
    """From the step before."""
    steps: Int[Array, ""]
    """How many were taken."""
    key: Key[Array, ""]


Moved = tuple[Any, Any, PolicyInfo]
"""The parameters after a step, what is kept, and what was done."""


class PolicyRule(ABC):
    """One of these; a frozen dataclass, hashable, so that `jit` knows it."""

    def init(self, params: Any) -> Any:
        """What is kept between steps."""
        return ()

    @abstractmethod
    def move(self, turn: Turn) -> Moved:
        """A step."""


@dataclass(frozen=True)
class PlainGradient(PolicyRule):
    """The policy gradient; see `policy_gradient`."""

    learning_rate: Number
    optimizer: Any

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser."""
        if self.optimizer is not None:
            return self.optimizer
        return optax.sgd(self.learning_rate)

    def init(self, params: Any) -> Any:
        return self.transformation().init(params)

    def move(self, turn: Turn) -> Moved:
        surrogate, kept = turn.surrogate, turn.kept
        gradient = jax.grad(surrogate.loss)(surrogate.params)
        step, kept = self.transformation().update(gradient, kept, surrogate.params)
        moved = jax.tree.map(jnp.add, surrogate.params, step)
        return moved, kept, _told(surrogate, gradient, moved)


@dataclass(frozen=True)
class NaturalGradient(PolicyRule):
    """The natural policy gradient; see `natural_policy_gradient`."""

    learning_rate: Number | None
    max_kl: Number | None
    damping: Number
    structure: StructureName
    kind: KindName
    stride: int
    options: tuple[tuple[str, Any], ...]
    """Of a matrix-free solve."""

    def move(self, turn: Turn) -> Moved:
        surrogate, kept, count, key = turn
        gradient = jax.grad(surrogate.loss)(surrogate.params)
        curvature = surrogate.curvature(self.kind, self.structure, self.stride, key)
        damping = number_at(self.damping, count)
        direction = curvature.solve(gradient, damping=damping, **dict(self.options))
        square = curvature.quadratic(direction)
        length = jnp.asarray(jnp.inf, square.dtype)
        if self.learning_rate is not None:
            length = jnp.minimum(length, number_at(self.learning_rate, count))
        if self.max_kl is not None:
            # Of a gradient that is zero the length does not matter.
            tiny = jnp.finfo(square.dtype).tiny
            max_kl = number_at(self.max_kl, count)
            longest = jnp.sqrt(2 * max_kl / jnp.maximum(square, tiny))
            length = jnp.minimum(length, longest)
        moved = jax.tree.map(
            lambda p, d: p - length.astype(p.dtype) * d, surrogate.params, direction
        )
        told = _told(surrogate, gradient, moved, curvature, damping)
        return moved, kept, told._replace(learning_rate=length)


@dataclass(frozen=True)
class TrustRegion(PolicyRule):
    """Trust region policy optimisation; see `trpo`."""

    max_kl: Number
    damping: Number
    structure: StructureName
    stride: int
    max_halvings: int
    options: tuple[tuple[str, Any], ...]

    def move(self, turn: Turn) -> Moved:
        surrogate, kept, count, key = turn
        curvature = surrogate.curvature("true", self.structure, self.stride, key)
        damping = number_at(self.damping, count)
        step = trust_region_step(
            surrogate.loss,
            surrogate.kl,
            surrogate.params,
            curvature,
            number_at(self.max_kl, count),
            damping,
            self.max_halvings,
            **dict(self.options),
        )
        gradient = jax.grad(surrogate.loss)(surrogate.params)
        told = _told(surrogate, gradient, step.params, curvature, damping)
        # The very numbers that the search went by.
        told = told._replace(accepted=step.accepted, kl=step.kl, ratio=step.ratio)
        return step.params, kept, told


def _told(
    surrogate: Surrogate,
    gradient: Any,
    moved: Any,
    curvature: Curvature | None = None,
    damping: Any = jnp.nan,
) -> PolicyInfo:
    before = surrogate.params
    step = jax.tree.map(jnp.subtract, moved, before)
    change = surrogate.loss(moved) - surrogate.loss(before)
    nan = jnp.full_like(change, jnp.nan)
    slope = inner(gradient, step)
    size = jnp.sqrt(inner(step, step) * inner(gradient, gradient))
    length = nan if curvature is None else jnp.sqrt(curvature.quadratic(step))
    return PolicyInfo(
        loss=change,
        kl=surrogate.kl(moved),
        entropy=-surrogate.log_probs.mean(),
        accepted=jnp.asarray(True),
        ratio=change / slope,
        learning_rate=nan,
        damping=jnp.asarray(damping, change.dtype),
        length=length,
        cosine=-slope / size,
    )
