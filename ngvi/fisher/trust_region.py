"""Steps that are as long as the curvature can be trusted.

In a ball of the divergence, KL(p_θ ‖ p_{θ+s}) ≤ δ, the best linear descent is

    s = −√(2δ / gᵀ F⁻¹ g) F⁻¹ g,

and since ½ sᵀ F s is the divergence only for short steps, the step is halved until the
measured divergence fits and the loss is lower.

Where F is damped, s = −(F + λ)⁻¹ g scaled by √(2δ / sᵀ F s), without λ: it is the
divergence that is bounded.

Source: Schulman et al. (2015), Trust region policy optimization, appendix C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.fisher.curvature import Curvature
from ngvi.pytrees import inner

Loss = Callable[[Any], Float[Array, ""]]


class TrustRegionStep(NamedTuple):
    """A step and how it was found."""

    params: Any
    """After the step; as before where none was accepted."""
    accepted: Bool[Array, ""]
    loss: Float[Array, ""]
    """At `params`."""
    kl: Float[Array, ""]
    """The measured divergence of the step."""
    halvings: Int[Array, ""]
    """Of the full step."""
    ratio: Float[Array, ""]
    """The descent over that of the linear model."""


def trust_region_step(
    loss: Loss,
    kl: Loss,
    params: Any,
    curvature: Curvature,
    max_kl: float | Float[Array, ""],
    damping: float | Float[Array, ""] = 0.0,
    max_halvings: int = 10,
    **solve: Any,
) -> TrustRegionStep:
    """One natural-gradient step in a ball of the divergence, with a line search.

    Args:
        loss: L(θ).
        kl: θ′ ↦ the mean KL(p_θ ‖ p_θ′), such as
            `lambda new: mean_kl(apply, params, new, x, likelihood=...)`.
        params: θ.
        curvature: F at θ, of any structure.
        max_kl: δ, in nats.
        damping: λ of the solve.
        max_halvings: after as many the step is given up.
        **solve: options of a matrix-free structure, see `Curvature.damp`.

    Returns:
        The step; nothing moved if no length was both inside of the ball and lower.
    """
    before, gradient = jax.value_and_grad(loss)(params)
    direction = curvature.solve(gradient, damping=damping, **solve)
    square = curvature.quadratic(direction)
    length = jnp.sqrt(2 * max_kl / jnp.maximum(square, jnp.finfo(square.dtype).tiny))
    slope = length * inner(gradient, direction)

    def at(halvings: Int[Array, ""]) -> Any:
        part = length * 0.5**halvings
        return jax.tree.map(
            lambda p, d: p - part.astype(p.dtype) * d, params, direction
        )

    def fits(halvings: Int[Array, ""]) -> Bool[Array, ""]:
        moved = at(halvings)
        return (kl(moved) <= max_kl) & (loss(moved) < before)

    halvings = jax.lax.while_loop(
        lambda n: (n < max_halvings) & ~fits(n), lambda n: n + 1, jnp.asarray(0)
    )
    accepted = fits(halvings)
    moved = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), at(halvings), params
    )
    after = loss(moved)
    ratio = (before - after) / (slope * 0.5**halvings)
    return TrustRegionStep(moved, accepted, after, kl(moved), halvings, ratio)


def reduction_ratio(
    before: Float[Array, ""],
    after: Float[Array, ""],
    gradient: Any,
    step: Any,
    curvature: Curvature,
    damping: float | Float[Array, ""] = 0.0,
) -> Float[Array, ""]:
    """The change of the loss over that of its quadratic model.

    (L(θ + s) − L(θ)) / (gᵀ s + ½ sᵀ (F + λ) s)
    """
    model = inner(gradient, step) + curvature.quadratic(step) / 2
    return (after - before) / (model + damping * inner(step, step) / 2)


def adapted_damping(
    damping: float | Float[Array, ""],
    ratio: Float[Array, ""],
    factor: float = 1.5,
    minimum: float = 0.0,
) -> Float[Array, ""]:
    """Levenberg and Marquardt's rule: less damping after a ratio above ¾, more below ¼.

    Args:
        damping: λ.
        ratio: from `reduction_ratio`; NaN counts as below.
        factor: λ is divided or multiplied by it.
        minimum: of λ.

    Source: Martens (2010), Deep learning via Hessian-free optimization, section 4.1.
    """
    damping = jnp.asarray(damping)
    grown = jnp.where(ratio >= 0.25, damping, damping * factor)
    return jnp.maximum(jnp.where(ratio > 0.75, damping / factor, grown), minimum)


def best_combination(
    gradient: Any,
    directions: list[Any],
    curvature: Curvature,
    damping: float | Float[Array, ""] = 0.0,
) -> tuple[Float[Array, "k"], Float[Array, ""]]:
    """The coefficients c that minimise the quadratic model along a few directions.

        M(c) = bᵀ c + ½ cᵀ A c,   bᵢ = gᵀ dᵢ,   Aᵢⱼ = dᵢᵀ (F + λ) dⱼ,   c = −A⁻¹ b

    With the natural gradient and the last step for directions: the learning rate
    (negative) and the momentum.

    Returns:
        c, and M(c) ≤ 0.

    Source: Martens and Grosse (2015), section 7.
    """
    images = [curvature.mv(d) for d in directions]
    b = jnp.stack([inner(gradient, d) for d in directions])
    a = jnp.stack(
        [
            jnp.stack([inner(d, m) + damping * inner(d, e) for d in directions])
            for e, m in zip(directions, images, strict=True)
        ]
    )
    # Directions may be parallel, as the first two steps are.
    c = -jnp.linalg.lstsq(a, b)[0]
    return c, b @ c / 2
