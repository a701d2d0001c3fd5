"""The gamma family, and what its kin share.

    λ = (a − 1, −b),   T(x) = (log x, x),   μ = (ψ(a) − log b, a/b),
    A(λ) = log Γ(a) − a log b,   h = 1.

μ → λ: log a − ψ(a) = log E[x] − E[log x] has one root a, found by Newton's method in
log a, and b = a / E[x].

Source: Minka (2002), Estimating a gamma distribution.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import gammainc, log_ndtr
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.parameters import family, parameter
from ngvi.families.special import (
    bregman_log_gamma_excess,
    digamma,
    inverse_log_minus_digamma,
    log_gamma,
    log_minus_digamma,
    log_ratio_gap,
    stirling_remainder,
)
from ngvi.families.special.quantiles import log_gamma_quantile

Pair = tuple[Float[Array, "*b"], Float[Array, "*b"]]


@family
class Gamma(ExponentialFamily):
    """Gamma(concentration a, rate b) on x > 0: p(x) ∝ xᵃ⁻¹ e⁻ᵇˣ.

    Args:
        concentration: a > 0, the shape, shape (*b,).
        rate: b > 0, one over the scale, shape (*b,).

    Example:
        >>> q = Gamma(2.0, 4.0)
        >>> float(q.mean), float(q.variance)
        (0.5, 0.125)
    """

    concentration: Float[Array, "*b"] = parameter(POSITIVE)
    rate: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = POSITIVE
    numpyro_names: ClassVar[tuple[str, ...]] = ("Gamma",)

    @property
    def natural_params(self) -> Pair:
        return self.concentration - 1, -self.rate

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        return cls(params[0] + 1, -params[1])

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        mean_log, mean = params
        concentration = inverse_log_minus_digamma(jnp.log(mean) - mean_log)
        return cls(concentration, concentration / mean)

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        a, b = params[0] + 1, -params[1]
        return log_gamma(a) - a * jnp.log(b)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return jnp.log(x), x

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        log_x = jax.random.loggamma(key, self.concentration, shape, self.dtype)
        return positive(jnp.exp(log_x - jnp.log(self.rate)))

    @property
    def base_size(self) -> int:
        return 2

    def place(self, eps: Float[Array, "*b 2"]) -> Float[Array, "*b"]:
        log_x = place_log_gamma(eps, self.concentration)
        return positive(jnp.exp(log_x - jnp.log(self.rate)))

    @property
    def mean(self) -> Float[Array, "*b"]:
        return self.concentration / self.rate

    @property
    def variance(self) -> Float[Array, "*b"]:
        return self.concentration / self.rate**2

    @property
    def mode(self) -> Float[Array, "*b"]:
        return jnp.where(
            self.concentration >= 1, (self.concentration - 1) / self.rate, jnp.nan
        )

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return gammainc(
            *jnp.broadcast_arrays(self.concentration, self.rate * jnp.maximum(x, 0))
        )

    # Closed forms that keep their digits from a = 1e-6 to a = 1e8.

    @property
    def mean_params(self) -> Pair:
        log_mean = digamma(self.concentration) - jnp.log(self.rate)
        return log_mean, self.concentration / self.rate

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return log_density(self.concentration, self.rate, x)

    def entropy(self) -> Float[Array, "*b"]:
        a = self.concentration
        return (
            jnp.log(2 * math.pi * a) / 2
            - jnp.log(self.rate)
            + stirling_remainder(a)
            + (a - 1) * log_minus_digamma(a)
        )

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return gamma_divergence(
            self.concentration, self.rate, other.concentration, other.rate
        )


def place_log_gamma(
    eps: Float[Array, "*b 2"], concentration: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """log x of Gamma(a, 1) at two base draws: a quantile of Gamma(a + 1, 1), times a
    uniform number to the power 1/a, so that no small a has a quantile of its own."""
    log_x = log_gamma_quantile(eps[..., 0], concentration + 1)
    return log_x + log_ndtr(eps[..., 1]) / concentration


def log_density(
    a: Float[Array, "*b"], b: Float[Array, "*b"], x: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """log q(x) of a gamma, from its value at the mean downwards."""
    return a * log_ratio_gap(x * b, a) + peak(a) - jnp.log(x)


def peak(concentration: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The log density of log x, for a gamma x, where it is largest: at the mean."""
    remainder = stirling_remainder(concentration)
    return jnp.log(concentration / (2 * math.pi)) / 2 - remainder


def gamma_divergence(
    a: Float[Array, "*b"],
    b: Float[Array, "*b"],
    other_a: Float[Array, "*b"],
    other_b: Float[Array, "*b"],
) -> Float[Array, "*b"]:
    """KL(Gamma(a, b) ‖ Gamma(a′, b′)): a change of shape, and one of the mean."""
    shape = bregman_log_gamma_excess(a, other_a)
    return shape - other_a * log_ratio_gap(a / b, other_a / other_b)


def positive(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Draws kept inside x > 0 where a tiny concentration under- or overflows."""
    limits = jnp.finfo(x.dtype)
    return jnp.clip(x, limits.tiny, limits.max)
