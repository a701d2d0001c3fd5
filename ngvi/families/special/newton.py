"""A fixed number of Newton steps for increasing or decreasing positive functions.

Shape parameters range over twenty orders of magnitude and the functions that are to be
inverted behave like powers of them at both ends. So the steps are Newton's for log f as
a function of log x: nearly straight lines, no overshoot, no step out of x > 0.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Values = Float[Array, "*s"]


def invert_power_like(
    value_and_elasticity: Callable[[Values], tuple[Values, Values]],
    target: Values,
    start: Values,
    steps: int,
) -> Values:
    """x > 0 with f(x) = target.

    Args:
        value_and_elasticity: f(x) > 0 and x f'(x) / f(x), of one sign.
        target: values of f.
        start: a first guess of x.
        steps: from a guess e off, each step leaves an error of the order of e².
    """

    def step(_: int, x: Values) -> Values:
        value, elasticity = value_and_elasticity(x)
        # log(target / value) and exp by their [1/1] Padé approximants, exact to second
        # order: without a logarithm, and never out of x > 0.
        change = 2 * (target - value) / ((target + value) * elasticity)
        change = jnp.clip(change, -1.0, 1.0)
        return x * (2 + change) / (2 - change)

    return lax.fori_loop(0, steps, step, start)


def steps_for(x: Values, single: int, double: int) -> int:
    """How many Newton steps the dtype of x needs."""
    return double if jnp.finfo(x.dtype).bits > 32 else single
