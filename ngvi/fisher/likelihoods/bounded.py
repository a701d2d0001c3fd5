"""Likelihoods of numbers between bounds: beta on (0, 1), von Mises on the circle.

Beta, by its mean m and precision φ (shapes a = m φ and b = (1 − m) φ), f = (logit m,
log φ). With s = m (1 − m) and e(a) = a ψ'(a) − 1,

    Λ_mm = φ² s² (ψ'(a) + ψ'(b)),  Λ_mφ = φ s (e(a) − e(b)),
    Λ_φφ = a e(a) + b e(b) − φ e(φ).

Von Mises, of direction m and concentration κ, f = (m, log κ), A = I₁/I₀:

    Λ_mm = κ A(κ),  Λ_κκ = κ² A'(κ),  Λ_mκ = 0.

Sources: Ferrari and Cribari-Neto (2004), Beta regression for modelling rates and
proportions; Mardia and Jupp (2000), Directional statistics, section 5.3.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families import beta, dirichlet, von_mises, von_mises_fisher
from ngvi.families.domains import PROBABILITY, REAL, Domain
from ngvi.families.parameters import family as record
from ngvi.families.special import (
    bessel_ratio,
    bessel_ratio_slope,
    log_bessel_scaled,
    trigamma,
    trigamma_excess,
)
from ngvi.families.special.calculus import with_partials
from ngvi.families.special.logistic import sigmoid, sigmoid_slope
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values

LOG_2PI = math.log(2 * math.pi)


@record
class Beta(Elementwise):
    """0 < y < 1 of mean m and variance m (1 − m)/(1 + φ).

    Args:
        precision: φ > 0, one number or one for each output; None where it is learned:
            the outputs are then the pair (logit m, log φ), else logit m.
    """

    precision: Any = None

    location: ClassVar[str] = "logit mean"
    support: ClassVar[Domain] = PROBABILITY

    def _shapes(self, f: tuple[Values, ...]) -> tuple[Values, Values]:
        phi = self.parameter("precision", f)
        return sigmoid(f[0]) * phi, sigmoid(-f[0]) * phi

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        shapes = jnp.stack(self._shapes(f), -1)
        return dirichlet.log_density(shapes, jnp.stack([y, 1 - y], -1))

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        return beta.Beta(*self._shapes(f)).sample(key)

    def mean_each(self, *f: Values) -> Values:
        return sigmoid(f[0])

    def information(self, *f: Values) -> Triangle:
        a, b = self._shapes(f)
        phi = self.parameter("precision", f)
        slope = phi * sigmoid_slope(f[0])
        mean = slope**2 * (trigamma(a) + trigamma(b))
        if self.precision is not None:
            return ((mean,),)
        first, second = trigamma_excess(a), trigamma_excess(b)
        precision = a * first + b * second - phi * trigamma_excess(phi)
        return (mean,), (slope * (first - second), precision)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        shapes = (jnp.stack(self._shapes(parts), -1) for parts in (f, g))
        return dirichlet.divergence(*shapes)


@record
class VonMises(Elementwise):
    """An angle y, p(y) ∝ exp(κ cos(y − m)); m is any number.

    Args:
        concentration: κ > 0, one number or one for each output; None where it is
            learned: the outputs are then the pair (m, log κ), else m.
    """

    concentration: Any = None

    location: ClassVar[str] = "mean"
    support: ClassVar[Domain] = REAL

    def _kappa(self, f: tuple[Values, ...]) -> Values:
        return self.parameter("concentration", f)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        return 4 * self._kappa(f) * jnp.sin((y - f[0]) / 2) ** 2

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        scaled = log_bessel_scaled(0, self._kappa(f))
        return -self.unit_deviance(y, *f) / 2 - scaled - LOG_2PI

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        return von_mises.VonMises(f[0], self._kappa(f)).sample(key)

    def mean_each(self, *f: Values) -> Values:
        """The mean direction, between −π and π."""
        return von_mises.VonMises(f[0], self._kappa(f)).mean

    def information(self, *f: Values) -> Triangle:
        kappa = self._kappa(f)
        direction = kappa * bessel_ratio(0, kappa)
        if self.concentration is not None:
            return ((direction,),)
        along = kappa * (kappa * bessel_ratio_slope(0, kappa))
        return (direction,), (jnp.zeros_like(along), along)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        kappa, other = self._kappa(f), self._kappa(g)
        turn = 2 * jnp.sin((f[0] - g[0]) / 2) ** 2
        change = other * turn * bessel_ratio(0, kappa)
        if self.concentration is None:
            change = change + _of_concentrations(kappa, other)
        return change


# Derivatives by hand: those of the implementation take minutes to compile.
@with_partials(
    lambda _, kappa, other: (kappa - other) * bessel_ratio_slope(0, kappa),
    lambda _, kappa, other: bessel_ratio(0, other) - bessel_ratio(0, kappa),
)
def _of_concentrations(kappa: Values, other: Values) -> Values:
    """KL between von Mises distributions of one direction."""
    return von_mises_fisher.divergence(kappa, other, jnp.zeros_like(kappa), 0)
