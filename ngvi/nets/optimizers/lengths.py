"""How long a step is: learning rate and momentum, given or of the quadratic model.

    s = −α d + μ v,   c = (−α, μ) minimises bᵀ c + ½ cᵀ A c,
    b = (gᵀ d, gᵀ v),   A = (d, v)ᵀ (F_exact + λ + η) (d, v)

d the natural gradient and v the last step.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature, sections 6.4 and 7; for the clipping Ba, Grosse and Martens
(2017), Distributed second-order optimization using Kronecker-factored approximations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.optimizers.state import State
from ngvi.nets.schedules import Number, number_at

Quadratic = Callable[[Float[Array, "k p"]], Float[Array, "k k"]]
"""Of directions dᵢ: dᵢᵀ F_exact dⱼ."""


class Proposed(NamedTuple):
    step: Float[Array, "p"]
    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    square: Float[Array, ""]
    """sᵀ F s, NaN where it is not known."""


def proposed(
    rule: Settings,
    state: State,
    natural: Float[Array, "p"],
    gradient: Float[Array, "p"],
    quadratic: Quadratic,
) -> Proposed:
    """s = −α d + μ s_last."""
    dtype = gradient.dtype
    direction = natural
    if callable(rule.weight_decay) or rule.weight_decay > 0:
        decayed = number_now(rule.weight_decay, state, dtype) * state.weights
        for kept in (state.decayed, state.trainable):
            decayed = decayed if kept is None else decayed * kept
        direction = natural + decayed
    both = jnp.stack([direction, state.velocity])
    exact = None
    if rule.learning_rate is None or rule.diagnostics:
        exact = quadratic(both)
    momentum = (
        None if rule.momentum is None else number_now(rule.momentum, state, dtype)
    )
    if rule.learning_rate is None:
        assert exact is not None
        a = exact + (state.damping + rule.l2) * (both @ both.T)
        alpha, mu = _best(a, both @ gradient, momentum)
    else:
        assert momentum is not None
        alpha, mu = number_now(rule.learning_rate, state, dtype), momentum
        if rule.max_kl is not None:
            # ½ α² gᵀ d is ½ sᵀ (F + λ) s of the natural gradient's part.
            kl = alpha**2 * (gradient @ natural) / 2
            alpha = alpha * jnp.minimum(1, jnp.sqrt(rule.max_kl / kl))
    coefficients = jnp.stack([-alpha, mu])
    square = jnp.asarray(jnp.nan, dtype)
    if exact is not None:
        square = jnp.maximum(coefficients @ exact @ coefficients, 0)
    if rule.learning_rate is None and rule.max_kl is not None:
        part = jnp.minimum(1, jnp.sqrt(2 * rule.max_kl / square))
        coefficients, square = part * coefficients, part**2 * square
    s = coefficients @ both
    return Proposed(s, -coefficients[0], coefficients[1], square)


def _best(
    a: Float[Array, "2 2"], b: Float[Array, "2"], momentum: Float[Array, ""] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """α and μ that minimise bᵀ c + ½ cᵀ a c, c = (−α, μ); α alone at a given μ."""
    if momentum is None:
        determinant = a[0, 0] * a[1, 1] - a[0, 1] ** 2
        # Directions may be parallel to rounding, and the first step has none before it.
        apart = determinant > 8 * jnp.finfo(a.dtype).eps * a[0, 0] * a[1, 1]
        best = (a[0, 1] * b[0] - a[0, 0] * b[1]) / jnp.where(apart, determinant, 1)
        momentum = jnp.where(apart, best, 0)
    return (b[0] + a[0, 1] * momentum) / a[0, 0], momentum


def number_now(number: Number, state: State, dtype: Any) -> Float[Array, ""]:
    """That of this step."""
    return jnp.asarray(number_at(number, state.steps), dtype)
