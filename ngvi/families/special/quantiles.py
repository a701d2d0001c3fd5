"""Gamma and von Mises numbers as smooth functions of a base draw and the parameters.

    log_gamma_quantile(s, a)     log F⁻¹(Φ(s)) of a gamma of concentration a ≥ 1, rate 1
    von_mises_quantile(s, κ)     F⁻¹(Φ(s)) of a von Mises of mean 0, between −π and π

s is a standard normal, so both tails have digits. Fixed s make an expectation under the
distribution a plain function of its parameters, which a line search can trust; at a
fixed s a number moves with its parameter as an implicitly reparameterised draw does.

Method: Newton's on the logarithm of the smaller tail, in log x, where that is concave:
from below it never overshoots. It starts at Wilson and Hilferty's cube or, if that is
larger, at the lower bound (u Γ(a + 1))^(1/a). For von Mises, bisection and Newton.

Source: Wilson and Hilferty (1931), The distribution of chi-square; Figurnov, Mohamed
and Mnih (2018), Implicit reparameterization gradients.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammainc, gammaincc, log_ndtr, ndtr
from jaxtyping import Array, Float

from ngvi.families.reparameterization import moving_with
from ngvi.families.special.gamma import log_gamma
from ngvi.families.special.von_mises import von_mises_cdf, von_mises_density

Values = Float[Array, "*s"]
_NEWTON_STEPS = 6
_BISECTIONS = 12


def log_gamma_quantile(score: Values, concentration: Values) -> Values:
    """log x with P(X ≤ x) = Φ(score), X ~ Gamma(concentration, 1); see above.

    Args:
        score: s.
        concentration: a ≥ 1.
    """
    score, a = jnp.broadcast_arrays(score, concentration)
    log_x = lax.stop_gradient(_solve(lax.stop_gradient(score), lax.stop_gradient(a)))
    return moving_with(log_x, (a,), (_velocity,))


def _velocity(log_x: Values, a: Values) -> Values:
    x = jnp.exp(log_x)
    return lax.random_gamma_grad(a, x) / x


def _solve(score: Values, a: Values) -> Values:
    lower = score < 0
    log_tail = log_ndtr(-jnp.abs(score))
    cube = 1 - 1 / (9 * a) + score / (3 * jnp.sqrt(a))
    hilferty = jnp.log(a) + 3 * jnp.log(jnp.maximum(cube, 1e-3))
    bound = (log_ndtr(score) + log_gamma(a + 1)) / a

    def step(_: int, log_x: Values) -> Values:
        x = jnp.exp(log_x)
        tail = jnp.where(lower, gammainc(a, x), gammaincc(a, x))
        tail = jnp.maximum(tail, jnp.finfo(x.dtype).tiny)
        log_slope = a * log_x - x - log_gamma(a) - jnp.log(tail)
        excess = jnp.where(lower, 1, -1) * (jnp.log(tail) - log_tail)
        return log_x - jnp.clip(excess * jnp.exp(-log_slope), -1, 1)

    return lax.fori_loop(0, _NEWTON_STEPS, step, jnp.maximum(hilferty, bound))


def von_mises_quantile(score: Values, concentration: Values) -> Values:
    """x with P(X ≤ x) = Φ(score), X ~ VonMises(0, κ); see above.

    Args:
        score: s.
        concentration: κ ≥ 0.
    """
    score, kappa = jnp.broadcast_arrays(score, concentration)
    fixed = lax.stop_gradient(kappa)
    level = ndtr(lax.stop_gradient(score))

    def halve(_: int, ends: tuple[Values, Values]) -> tuple[Values, Values]:
        low, high = ends
        middle = (low + high) / 2
        below = von_mises_cdf(middle, fixed) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    # The mass beyond 9 standard deviations of the narrow ones is not met.
    reach = jnp.minimum(math.pi, 9 / jnp.sqrt(jnp.maximum(fixed, 1e-6)))
    ends = lax.fori_loop(0, _BISECTIONS, halve, (-reach, reach))
    x = lax.fori_loop(
        0,
        _NEWTON_STEPS // 2,
        lambda _, x: jnp.clip(
            x - (von_mises_cdf(x, fixed) - level) / von_mises_density(x, fixed),
            *ends,
        ),
        (ends[0] + ends[1]) / 2,
    )

    def velocity(x: Values, kappa: Values) -> Values:
        slope = jax.jvp(
            lambda k: von_mises_cdf(x, k), (kappa,), (jnp.ones_like(kappa),)
        )[1]
        return -slope / von_mises_density(x, kappa)

    return moving_with(x, (kappa,), (velocity,))
