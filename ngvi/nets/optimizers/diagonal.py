"""Diagonal preconditioners: a power of the curvature's diagonal, averaged.

    M ← β₁ M + (1 − β₁) G,     V ← β₂ V + (1 − β₂) D,
    step along  M̂ / ((V̂ + ε₀)^q + ε),

hats for averages divided by 1 − βᵗ. The estimate D and the power q make the optimiser:

| optimiser                  | D                              | q    | β₁  |
|----------------------------|--------------------------------|------|-----|
| Adam                       | ĝ ∘ ĝ                          | 1/2  | 0.9 |
| RMSProp, without hats      | ĝ ∘ ĝ                          | 1/2  | 0   |
| diagonal natural gradient  | the Fisher matrix' diagonal    | 1    | any |
| AdaHessian                 | Hutchinson's of the Hessian, ² | k/2  | 0.9 |

and Sophia steps along clip(M / max(γ V, ε), ρ), with no hats. D may be estimated in
every few steps only.

Sources: Kingma and Ba (2015), Adam: a method for stochastic optimization; Yao, Gholami,
Shen, Mustafa, Keutzer and Mahoney (2021), AdaHessian: an adaptive second order
optimizer for machine learning, algorithm 1; Liu, Li, Hall, Liang and Ma (2024), Sophia:
a scalable stochastic second-order optimizer for language model pre-training,
algorithm 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ngvi.nets.optimizers.diagonal_estimates import (
    Estimate,
    averaged_windows,
    hutchinson,
    mapped,
    squared_mean_gradient,
)
from ngvi.nets.optimizers.pieces import (
    Mask,
    Rate,
    averaged,
    checked,
    like,
    unbiased,
    wide,
    with_rate,
    zeros,
)
from ngvi.pytrees import pytree


@pytree
class DiagonalState:
    """Between two steps."""

    count: Int[Array, ""]
    measured: Int[Array, ""]
    """How often D was estimated."""
    mu: Any
    """M."""
    nu: Any
    """V."""
    estimate: Any
    """The state of the estimate."""


def scale_by_diagonal(
    estimate: Estimate | None = None,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    eps_root: Any = 0.0,
    power: Any = 0.5,
    every: Any = 1,
    debias: bool = True,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition by a power of a diagonal; see `diagonal`."""
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
    return _transformation(used, b1, b2, every, mu_dtype, direction)


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
    direction = scale_by_diagonal(
        estimate,
        b1,
        b2,
        eps,
        eps_root=eps_root,
        power=power,
        every=every,
        debias=debias,
        mu_dtype=mu_dtype,
    )
    return with_rate(direction, learning_rate, weight_decay, mask)


def scale_by_adahessian(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    hessian_power: Any = 1.0,
    estimate: Estimate | None = None,
    average_windows: bool = True,
    every: Any = 1,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition by AdaHessian; see `adahessian`."""
    used = hutchinson() if estimate is None else estimate
    if average_windows:
        used = averaged_windows(used)
    # (√V)^k of the average of D².
    return scale_by_diagonal(
        mapped(used, jnp.square),
        b1,
        b2,
        eps,
        power=hessian_power / 2,
        every=every,
        mu_dtype=mu_dtype,
    )


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
    direction = scale_by_adahessian(
        b1,
        b2,
        eps,
        hessian_power=hessian_power,
        estimate=estimate,
        average_windows=average_windows,
        every=every,
        mu_dtype=mu_dtype,
    )
    return with_rate(direction, learning_rate, weight_decay, mask)


def scale_by_sophia(
    estimate: Estimate | None = None,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    *,
    gamma: Any = 0.01,
    clip: Any = 1.0,
    every: Any = 10,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition by Sophia; see `sophia`."""
    checked("gamma", gamma, 0)
    checked("clip", clip, 0)

    def direction(state: DiagonalState) -> Any:
        return jax.tree.map(
            lambda m, v: jnp.clip(wide(m) / jnp.maximum(gamma * v, eps), -clip, clip),
            state.mu,
            state.nu,
        )

    used = hutchinson() if estimate is None else estimate
    return _transformation(used, b1, b2, every, mu_dtype, direction)


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

    Where the curvature is small or negative it steps by the sign of M. In the paper
    Sophia-H is the default here, and Sophia-G

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
    direction = scale_by_sophia(
        estimate, b1, b2, eps, gamma=gamma, clip=clip, every=every, mu_dtype=mu_dtype
    )
    return with_rate(direction, learning_rate, weight_decay, mask)


def _transformation(
    estimate: Estimate,
    b1: Any,
    b2: Any,
    every: Any,
    mu_dtype: Any,
    direction: Callable[[DiagonalState], Any],
) -> optax.GradientTransformationExtraArgs:
    """The averages M and V, and a direction from them."""
    checked("b1", b1, 0, 1)
    checked("b2", b2, 0, 1)
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
