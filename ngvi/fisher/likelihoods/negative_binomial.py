"""The negative binomial likelihood, of counts more spread than Poisson's.

The mean is μ = exp f and the variance μ + μ²/r. In (log μ, log r) the Fisher matrix is
diagonal:

    Λ_μ = μ r/(μ + r),   Λ_r = r² { E[ψ'(r) − ψ'(r + y)] − μ/(r (r + μ)) }.

With the generating function G(t) = E[e^{−ty}] = (1 + (μ/r)(1 − e⁻ᵗ))⁻ʳ, Binet's
integrals of ψ' and log Γ turn these expectations, and those of a divergence between
different r, into

    E[ψ'(r) − ψ'(r + y)] = ∫₀^∞ t e^{−rt} (1 − G(t))/(1 − e⁻ᵗ) dt,
    E[log Γ(r + y) − log Γ(r)] = ∫₀^∞ {μ e⁻ᵗ − e^{−rt} (1 − G(t))/(1 − e⁻ᵗ)} dt/t,

which are smooth in log t: the trapezium rule there has about 1e-12 of the largest term
at a fixed cost, for small and for huge counts. Where r is so large that counts are as
good as Poisson's, Λ_r ≈ μ²/(2r²) is a small difference and has an absolute error of
about 1e-15 r μ (float64).

Source: Lawless (1987), Negative binomial and mixed Poisson regression; NIST Digital
Library of Mathematical Functions, §5.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.count_sampling import draw_poisson
from ngvi.families.domains import Domain, whole_numbers
from ngvi.families.parameters import family as record
from ngvi.families.special.count_densities import negative_binomial_log_prob
from ngvi.families.special.logistic import (
    logistic_kl,
    softplus,
    stopped_logistic_kl,
)
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values

NODES = 160
"""Points of the trapezium rule in log t; they span at most 70 units of it."""


@record
class NegativeBinomial(Elementwise):
    """Counts y of mean exp f and variance μ + μ²/r.

    Args:
        concentration: r > 0, one number or one for each output; None where it is
            learned: the outputs are then the pair (log μ, log r).
    """

    concentration: Any = None

    location: ClassVar[str] = "log mean"
    support: ClassVar[Domain] = whole_numbers(0)

    def _log_r(self, f: tuple[Values, ...]) -> Values:
        return self.log_parameter("concentration", f)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        log_r = self._log_r(f)
        r, u = jnp.exp(log_r), f[0] - log_r
        some = y > 0
        safe = jnp.where(some, y, 1)
        inner = (safe + r) * logistic_kl(jnp.log(safe) - log_r, u)
        return 2 * jnp.where(some, inner, r * softplus(u))

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        log_r = self._log_r(f)
        return negative_binomial_log_prob(jnp.exp(log_r), y, f[0] - log_r)

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Array:
        rate_key, count_key = jax.random.split(key)
        log_r = self._log_r(f)
        log_rate = jax.random.loggamma(rate_key, jnp.exp(log_r), dtype=log_r.dtype)
        return draw_poisson(count_key, jnp.exp(log_rate + f[0] - log_r))

    def mean_each(self, *f: Values) -> Values:
        return jnp.exp(f[0])

    def information(self, *f: Values) -> Triangle:
        log_r = self._log_r(f)
        # μ r/(μ + r): nothing overflows where either is huge.
        mean = jnp.exp(-jnp.logaddexp(-f[0], -log_r))
        if self.concentration is not None:
            return ((mean,),)
        return (mean,), (jnp.zeros_like(mean), _of_concentration(f[0], log_r))

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        log_r, other_log_r = self._log_r(f), self._log_r(g)
        r = jnp.exp(log_r)
        u = f[0] - log_r
        if self.concentration is not None:
            return r * stopped_logistic_kl(u, g[0] - other_log_r)
        return _divergence(f[0], log_r, g[0], other_log_r)


def _of_concentration(log_mean: Values, log_r: Values) -> Values:
    """Λ_r."""
    mean, r = jnp.exp(log_mean), jnp.exp(log_r)

    def integrand(t: Values) -> Values:
        decay = -jnp.expm1(-t)
        gap = -jnp.expm1(-r * jnp.log1p(mean / r * decay))
        # The second term is μ/(r (r + μ)) as an integral.
        return jnp.exp(-r * t) * (t / decay * gap + jnp.expm1(-mean * t))

    total = _integrate(integrand, mean + r, r)
    return r**2 * jnp.maximum(total, 0)


def _divergence(
    log_mean: Values, log_r: Values, other_log_mean: Values, other_log_r: Values
) -> Values:
    """KL between negative binomials of different concentrations."""
    mean, r, other_r = jnp.exp(log_mean), jnp.exp(log_r), jnp.exp(other_log_r)

    def integrand(t: Values) -> Values:
        decay = -jnp.expm1(-t)
        gap = -jnp.expm1(-r * jnp.log1p(mean / r * decay))
        # e^{−r′t} − e^{−rt}.
        change = -jnp.exp(-r * t) * -jnp.expm1((r - other_r) * t)
        change = jnp.where(
            r > other_r, change, jnp.exp(-other_r * t) * -jnp.expm1((other_r - r) * t)
        )
        return change * gap / decay / t

    shape = _integrate(integrand, mean + r, jnp.minimum(r, other_r))
    u, other_u = log_mean - log_r, other_log_mean - other_log_r
    stops = other_r * softplus(other_u) - r * softplus(u)
    events = mean * (softplus(-other_u) - softplus(-u))
    return shape + stops + events


def _integrate(
    integrand: Callable[[Values], Values], fastest: Values, slowest: Values
) -> Values:
    """∫₀^∞ of what changes at rates between two, over log t by the trapezium rule."""
    low = -jnp.log(fastest) - 37
    high = jnp.log(40 / slowest)
    step = (high - low) / (NODES - 1)

    def add(k: int, total: Values) -> Values:
        t = jnp.exp(low + k * step)
        return total + integrand(t) * t

    terms = jax.vmap(lambda k: add(k, jnp.zeros_like(low)))(jnp.arange(NODES))
    return terms.sum(0) * step
