"""The Student-t likelihood: a location whose noise has heavy tails.

With scale σ, ν degrees of freedom and f = (m, log σ, log ν), those of them that are not
fixed,

    Λ_mm = (ν + 1)/((ν + 3) σ²),        Λ_σσ = 2ν/(ν + 3),
    Λ_σν = −2ν/((ν + 1)(ν + 3)),        Λ_mσ = Λ_mν = 0,
    Λ_νν = ν² {[ψ'(ν/2) − ψ'((ν + 1)/2)]/4 − (ν + 5)/(2ν (ν + 1)(ν + 3))}.

The braces are a difference of order ν⁻⁴ of terms of order ν⁻². With x = 1/ν the first
is x²/2 + x³/2 + Σ_{k≥2} B_2k (4ᵏ − 1) x^{2k+1}, and all but the sum combines with the
second to x⁴ (7 + 3x)/(2 (1 + x)(1 + 3x)); from ν = 30 up the sum's first terms are
exact to rounding, below it is what is left of the difference, two digits lost at most.

The Hessian of −log p is negative in m for |y − m| > σ √ν, while Λ is not. KL has no
closed form: y = m + σ √ν sinh u has the density cosh(u)⁻ᵛ in u, and the trapezium rule
in u is used, exact to rounding for ν ≥ 1 and scales that are alike.

Source: Lange, Little and Taylor (1989), Robust statistical modeling using the t
distribution, appendix B.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.domains import REAL, Domain
from ngvi.families.parameters import family as record
from ngvi.families.special import (
    bregman_log_gamma,
    log_minus_digamma,
    trigamma_difference,
)
from ngvi.families.special.calculus import polynomial
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values

LARGE_DF = 30
# B_2k (4ᵏ − 1), k = 2, …, 9.
BERNOULLI = (-0.5, 1.5, -8.5, 77.5, -1036.5, 19113.5, -464784.5, 14406217.5)
NODES = 400


@record
class StudentT(Elementwise):
    """y = m + σ t, t of Student's distribution with ν degrees of freedom.

    Args:
        scale: σ > 0, one number or one for each output; None where it is learned.
        df: ν > 0, likewise. The outputs are m, then log σ and log ν where learned: one
            array if neither is.
    """

    scale: Any = 1.0
    df: Any = 4.0

    location: ClassVar[str] = "mean"
    support: ClassVar[Domain] = REAL

    def _all(self, f: tuple[Values, ...]) -> tuple[Values, Values, Values]:
        """m, log σ, ν."""
        return f[0], self.log_parameter("scale", f), self.parameter("df", f)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        loc, log_scale, df = self._all(f)
        return (df + 1) * jnp.log1p(((y - loc) * jnp.exp(-log_scale)) ** 2 / df)

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        _, log_scale, df = self._all(f)
        return _log_peak(df) - log_scale - self.unit_deviance(y, *f) / 2

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        loc, log_scale, df = self._all(f)
        draw = jax.random.t(key, df, loc.shape, loc.dtype)
        return loc + jnp.exp(log_scale) * draw

    def mean_each(self, *f: Values) -> Values:
        loc, _, df = self._all(f)
        return jnp.where(df > 1, loc, jnp.nan)

    def information(self, *f: Values) -> Triangle:
        _, log_scale, df = self._all(f)
        zero = jnp.zeros_like(df)
        location = (df + 1) / (df + 3) * jnp.exp(-2 * log_scale)
        rows: list[tuple[Values, ...]] = [(location,)]
        if self.scale is None:
            rows.append((zero, 2 * df / (df + 3)))
        if self.df is None:
            mixed = -2 * df / ((df + 1) * (df + 3))
            cross = (zero,) if self.scale is not None else (zero, mixed)
            rows.append((*cross, _of_df(df)))
        return tuple(rows)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        loc, log_scale, df = self._all(f)
        _, other_log_scale, other_df = self._all(g)
        # The density of u falls to e⁻⁴⁰ where log cosh u = 40/ν.
        end = 40 / df
        end = end + jnp.log1p(jnp.sqrt(-jnp.expm1(-2 * end)))
        u = jnp.linspace(-1, 1, NODES, dtype=loc.dtype).reshape(-1, *[1] * loc.ndim)
        u = u * end
        size = jnp.abs(u)
        log_cosh = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
        weights = jnp.exp(-df * log_cosh)
        y = loc + jnp.exp(log_scale) * jnp.sqrt(df) * jnp.sinh(u)
        excess = self.unit_deviance(y, *g) - 2 * (df + 1) * log_cosh
        expected = (weights * excess).sum(0) / weights.sum(0) / 2
        peaks = _log_peak(df) - log_scale - _log_peak(other_df) + other_log_scale
        return expected + peaks


def _log_peak(df: Values) -> Values:
    """The log density of t at zero, log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log πν."""
    # log Γ(a + ½) − log Γ(a) less ½ ψ(a) first: both logarithms are large.
    half = jnp.full_like(df, 0.5)
    change = bregman_log_gamma(df / 2, half) - log_minus_digamma(df / 2) / 2
    return change - math.log(2 * math.pi) / 2


def _of_df(df: Values) -> Values:
    """Λ_νν."""
    x = 1 / df
    rational = x**2 * (7 + 3 * x) / (2 * (1 + x) * (1 + 3 * x))
    y = jnp.minimum(x, 1 / LARGE_DF) ** 2
    series = y * jnp.sqrt(y) * polynomial(BERNOULLI, y)
    half = jnp.full_like(df, 0.5)
    gap = -trigamma_difference(df / 2, half) / 4 * df**2
    return jnp.where(df < LARGE_DF, gap - (1 + x) / 2, series) + rational
