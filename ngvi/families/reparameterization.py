"""Draws that move with the parameters although no formula made them from these.

A draw x of a distribution with cdf F(x; θ) and density p keeps its quantile when

    dx/dθ = −(∂F/∂θ) / p(x; θ),

whatever algorithm x came from, rejection included. A family says what this velocity is,
in closed form where the quotient of two small tails would lose its digits.

Source: Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from ngvi.families.special.calculus import with_partials

Velocity = Callable[..., Float[Array, "*s"]]


def moving_with(
    draw: Float[Array, "*s"],
    parameters: tuple[Float[Array, "*b"], ...],
    velocities: tuple[Velocity, ...],
) -> Float[Array, "*s"]:
    """The draw itself, differentiable in its parameters.

    Args:
        draw: x, whose own derivatives are dropped.
        parameters: θ, arrays that broadcast against x.
        velocities: for each parameter, (x, *θ) ↦ ∂x/∂θ of x's shape.
    """

    def partial(velocity: Velocity) -> Callable[..., Array]:
        return lambda value, _, *theta: velocity(value, *theta)

    def still(value: Array, *_: Array) -> Array:
        return 0 * value

    @with_partials(still, *(partial(v) for v in velocities))
    def place(x: Array, *_: Array) -> Array:
        return x

    return place(jax.lax.stop_gradient(draw), *parameters)
