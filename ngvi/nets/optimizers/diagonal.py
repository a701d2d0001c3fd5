"""Diagonal preconditioners: a power of the curvature's diagonal, averaged.

    M ← β₁ M + (1 − β₁) G,     V ← β₂ V + (1 − β₂) D,
    step along  M̂ / ((V̂ + ε₀)^q + ε),

hats for averages divided by 1 − βᵗ. The estimate D and the power q make the optimiser:

| optimiser                 | D                              | q   | β₁  |
|---------------------------|--------------------------------|-----|-----|
| Adam                      | ĝ ∘ ĝ                          | 1/2 | 0.9 |
| RMSProp, without hats     | ĝ ∘ ĝ                          | 1/2 | 0   |
| diagonal natural gradient | the Fisher matrix' diagonal    | 1   | any |
| AdaHessian                | Hutchinson's, squared          | k/2 | 0.9 |

D may be estimated in every few steps only.

Source: Kingma and Ba (2015), Adam: a method for stochastic optimization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ngvi.nets.optimizers.diagonal_estimates import Estimate, squared_mean_gradient
from ngvi.nets.optimizers.pieces import (
    Mask,
    Rate,
    averaged,
    checked,
    checked_decay,
    like,
    unbiased,
    with_rate,
    zeros,
)


class DiagonalState(NamedTuple):
    """Between two steps."""

    count: Int[Array, ""]  # type: ignore[assignment]
    measured: Int[Array, ""]
    """How often D was estimated."""
    mu: Any
    """M."""
    nu: Any
    """V."""
    estimate: Any
    """The state of the estimate."""


def diagonal(
    learning_rate: Rate,
    estimate: Estimate | None = None,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    eps_root: Any = 0.0,
    power: Any = 0.5,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
    every: Any = 1,
    debias: bool = True,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition by a power of a diagonal; by default it is Adam.

    The natural gradient with the diagonal of a Fisher matrix has `power=1` and a
    damping `eps` to match; its `update` takes the batch:

        optimizer = diagonal(
            0.1, fisher_diagonal(apply, "categorical"), power=1, eps=1e-3
        )
        updates, state = optimizer.update(gradients, state, params, batch=(x, y))

    Args:
        learning_rate: a number or a schedule.
        estimate: D, of `ngvi.nets.optimizers.diagonal_estimates`; ĝ ∘ ĝ by default.
        b1: β₁, of M.
        b2: β₂, of V.
        eps: ε.
        eps_root: ε₀.
        power: q. What is negative in V̂, of an indefinite curvature, counts as zero.
        weight_decay, mask: decoupled, as in `optax.adamw`.
        every: steps between two estimates. Under `vmap` there is one in every step.
        debias: whether averages are divided by 1 − βᵗ.
        mu_dtype: of M; bfloat16 is safe.

    Raises:
        ValueError: a setting outside of its range; in `update`, what the estimate
            needs is missing.
    """
    checked("eps", eps, 0)
    checked("eps_root", eps_root, 0)

    def direction(state: DiagonalState) -> Any:
        m, v = state.mu, state.nu
        if debias:
            m, v = unbiased(m, b1, state.count), unbiased(v, b2, state.measured)
        return jax.tree.map(
            lambda m, v: m / ((jnp.maximum(v, 0) + eps_root) ** power + eps), m, v
        )

    used = squared_mean_gradient() if estimate is None else estimate
    averages = averaged_diagonal(used, b1, b2, every, mu_dtype, direction)
    return with_rate(averages, learning_rate, weight_decay, mask)


def averaged_diagonal(
    estimate: Estimate,
    b1: Any,
    b2: Any,
    every: Any,
    mu_dtype: Any,
    direction: Callable[[DiagonalState], Any],
) -> optax.GradientTransformationExtraArgs:
    """A transformation from the averages M and V to a direction."""
    checked_decay(b1=b1, b2=b2)
    checked("every", every, 1)
    estimate = optax.with_extra_args_support(estimate)

    def init(params: Any) -> DiagonalState:
        none = jnp.zeros((), jnp.int32)
        averages = zeros(params, mu_dtype), zeros(params)
        return DiagonalState(none, none, *averages, estimate.init(params))

    def update(
        gradients: Any, state: DiagonalState, params: Any = None, **extra: Any
    ) -> tuple[Any, DiagonalState]:
        def measured() -> tuple[Array, Any, Any]:
            found, own = estimate.update(gradients, state.estimate, params, **extra)
            return state.measured + 1, averaged(state.nu, found, b2), own

        def same() -> tuple[Array, Any, Any]:
            return state.measured, state.nu, state.estimate

        times, nu, own = jax.lax.cond(state.count % every == 0, measured, same)
        mu = averaged(state.mu, gradients, b1)
        state = DiagonalState(state.count + 1, times, mu, nu, own)
        return like(direction(state), gradients), state

    return optax.GradientTransformationExtraArgs(init, update)
