"""Diagonals of the Hessian as preconditioners: AdaHessian and Sophia.

With M and V the averages of `ngvi.nets.optimizers.diagonal`, V of what is told,

    AdaHessian:  M̂ / ((√V̂)^k + ε),          V of D ∘ D, D Hutchinson's estimate,
    Sophia:      clip(M / max(γ V, ε), ρ),   V of D, Hutchinson's or Gauss-Newton's,

hats for averages divided by 1 − βᵗ.

Sources: Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney (2021), AdaHessian: an
adaptive second order optimizer for machine learning, algorithm 1; Liu, Li, Hall, Liang
and Ma (2024), Sophia: a scalable stochastic second-order optimizer for language model
pre-training, algorithm 3.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ngvi.nets.optimizers.diagonal import (
    DiagonalState,
    averaged_diagonal,
    diagonal,
)
from ngvi.nets.optimizers.diagonal_estimates import (
    Estimate,
    averaged_windows,
    hutchinson,
    mapped,
)
from ngvi.nets.optimizers.pieces import Mask, Rate, checked, wide, with_rate


def adahessian(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    hessian_power: Any = 1.0,
    estimate: Estimate | None = None,
    average_windows: bool = True,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
    every: Any = 1,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaHessian: Adam with the Hessian's diagonal in the place of the gradient.

    Its `update` takes the loss of the batch as a function of the parameters:

        updates, state = optimizer.update(gradients, state, params, obj_fn=loss)

    Args:
        learning_rate: a number or a schedule.
        b1: β₁, of M.
        b2: β₂, of V, the average of D².
        eps: ε.
        hessian_power: k in (√V̂)^k; below 1 the step depends less on the curvature.
        estimate: D, `hutchinson()` by default.
        average_windows: average D over the windows of convolutions.
        weight_decay, mask: decoupled, as in `optax.adamw`.
        every: steps between two estimates. Under `vmap` there is one in every step.
        mu_dtype: of M; bfloat16 is safe.

    Raises:
        ValueError: a setting outside of its range; in `update`, no `obj_fn`.

    Source: see the module.
    """
    used = hutchinson() if estimate is None else estimate
    if average_windows:
        used = averaged_windows(used)
    return diagonal(
        learning_rate,
        mapped(used, jnp.square),
        b1,
        b2,
        eps,
        # (√V)^k of the average of D².
        power=hessian_power / 2,
        weight_decay=weight_decay,
        mask=mask,
        every=every,
        mu_dtype=mu_dtype,
    )


def sophia(
    learning_rate: Rate,
    estimate: Estimate | None = None,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    *,
    gamma: Any = 0.01,
    clip: Any = 1.0,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
    every: Any = 10,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Sophia: a Newton step of the diagonal, each of its entries clipped.

    Where the curvature is small or negative it steps by the sign of M. The paper's
    Sophia-H is the default, which needs `obj_fn`; its Sophia-G needs `batch`:

        sophia(learning_rate, gauss_newton_bartlett(apply, likelihood), gamma=0.05)

    `optax.contrib.sophia` divides M by 1 − βᵗ, and by the V of the step before: its
    first step is one of signs whatever the curvature is.

    Args:
        learning_rate: a number or a schedule.
        estimate: D, `hutchinson()` by default.
        b1: β₁, of M.
        b2: β₂, of V: of the estimates, not of the steps.
        eps: ε.
        gamma: γ: the smaller, the more entries are clipped; a tenth to a half should
            not be.
        clip: ρ.
        weight_decay, mask: decoupled, as in `optax.adamw`.
        every: steps between two estimates. Under `vmap` there is one in every step.
        mu_dtype: of M; bfloat16 is safe.

    Raises:
        ValueError: a setting outside of its range; in `update`, what the estimate
            needs is missing.

    Source: see the module.
    """
    checked("gamma", gamma, 0)
    checked("clip", clip, 0)

    def direction(state: DiagonalState) -> Any:
        return jax.tree.map(
            lambda m, v: jnp.clip(wide(m) / jnp.maximum(gamma * v, eps), -clip, clip),
            state.mu,
            state.nu,
        )

    used = hutchinson() if estimate is None else estimate
    averages = averaged_diagonal(used, b1, b2, every, mu_dtype, direction)
    return with_rate(averages, learning_rate, weight_decay, mask)
