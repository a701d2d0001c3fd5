"""Inverses of log a − ψ(a) and of ψ(a).

    inverse_log_minus_digamma(s)   a > 0 with log a − ψ(a) = s, for s > 0
    inverse_digamma(y)             a > 0 with ψ(a) = y, for real y

The first is the maximum-likelihood shape of a gamma family, s being the logarithm of
the mean minus the mean logarithm. A closed-form start within a few per cent, then a
fixed count of Newton steps to rounding; derivatives of any order by the implicit
function theorem. NaN outside the domain.

Source: Minka, Estimating a Dirichlet distribution (2000), and Estimating a gamma
distribution (2002), for the starts.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special.calculus import with_partials
from ngvi.families.special.gamma import (
    digamma,
    log_minus_digamma,
    trigamma_excess,
)
from ngvi.families.special.newton import invert_power_like, steps_for
from ngvi.families.special.tables import EULER_GAMMA

Values = Float[Array, "*s"]


@with_partials(lambda a, _: -a / trigamma_excess(a))
def inverse_log_minus_digamma(s: Values) -> Values:
    """a > 0 with log a − ψ(a) = s, for s > 0: 1/s for large s, 1/(2s) for small s."""
    # The positive root of 6 s a² + (s − 3) a − 1 = 0, without cancellation.
    root = jnp.sqrt((s - 3) ** 2 + 24 * s)
    start = jnp.where(s > 3, 2 / (root + s - 3), (root + 3 - s) / (12 * s))

    def gap(a: Values) -> tuple[Values, Values]:
        value = log_minus_digamma(a)
        return value, -trigamma_excess(a) / value

    a = invert_power_like(gap, s, start, steps_for(s, 2, 3))
    return jnp.where(s > 0, a, jnp.nan)


@with_partials(lambda a, _: a / (trigamma_excess(a) + 1))
def inverse_digamma(y: Values) -> Values:
    """a > 0 with ψ(a) = y: −1/y for y → −∞, e^y + ½ for y → ∞."""
    # ψ(a) ≈ −1/a − γ + 1.3 a below, ψ(a + ½) ≈ log a + 1/(24 a²) above, each with one
    # constant moved (from ζ(2) and from 0) so that they meet within 1 per cent.
    low = -(y + EULER_GAMMA)
    power = jnp.exp(jnp.maximum(y, -2.0))
    above = power + 0.5 - 1 / (24 * power + 3.2)
    below = 2 / (low + jnp.sqrt(low * low + 4 * 1.3))
    a = jnp.where(y > -2, above, below)
    for _ in range(steps_for(a, 2, 3)):
        # Newton in log a; exp by its [1/1] Padé approximant.
        change = (y - digamma(a)) / (trigamma_excess(a) + 1)
        a = a * (2 + change) / (2 - change)
    return jnp.where(jnp.isfinite(power), a, power)
