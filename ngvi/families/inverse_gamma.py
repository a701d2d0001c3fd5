"""The inverse gamma family: 1/x is gamma.

    λ = (−a − 1, −b),   T(x) = (log x, 1/x),   μ = (log b − ψ(a), a/b),
    A(λ) = log Γ(a) − a log b,   h = 1.

μ → λ: log a − ψ(a) = log E[1/x] + E[log x] as for the gamma family, b = a / E[1/x].

Source: Minka (2002), Estimating a gamma distribution.
"""

from __future__ import annotations

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaincc
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.gamma import (
    Pair,
    gamma_divergence,
    peak,
    place_log_gamma,
    positive,
)
from ngvi.families.parameters import family, parameter
from ngvi.families.special import (
    digamma,
    inverse_log_minus_digamma,
    log_gamma,
    log_minus_digamma,
    log_ratio_gap,
    stirling_remainder,
)
from ngvi.families.special.tables import HALF_LOG_2PI


@family
class InverseGamma(ExponentialFamily):
    """InverseGamma(concentration a, rate b) on x > 0: p(x) ∝ x⁻ᵃ⁻¹ exp(−b/x).

    Args:
        concentration: a > 0, the shape, shape (*b,).
        rate: b > 0, the scale of x and the rate of 1/x, shape (*b,).

    Example:
        >>> q = InverseGamma(3.0, 4.0)
        >>> float(q.mean), float(q.variance)
        (2.0, 4.0)
    """

    concentration: Float[Array, "*b"] = parameter(POSITIVE)
    rate: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = POSITIVE
    numpyro_names: ClassVar[tuple[str, ...]] = ("InverseGamma",)

    @property
    def natural_params(self) -> Pair:
        return -self.concentration - 1, -self.rate

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        return cls(-params[0] - 1, -params[1])

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        mean_log, mean_inverse = params
        a = inverse_log_minus_digamma(jnp.log(mean_inverse) + mean_log)
        return cls(a, a / mean_inverse)

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        a, b = -params[0] - 1, -params[1]
        return log_gamma(a) - a * jnp.log(b)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return jnp.log(x), 1 / x

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        log_x = -jax.random.loggamma(key, self.concentration, shape, self.dtype)
        return positive(jnp.exp(log_x + jnp.log(self.rate)))

    @property
    def base_size(self) -> int:
        return 2

    def place(self, eps: Float[Array, "*b 2"]) -> Float[Array, "*b"]:
        log_x = -place_log_gamma(eps, self.concentration)
        return positive(jnp.exp(log_x + jnp.log(self.rate)))

    @property
    def mean(self) -> Float[Array, "*b"]:
        above = self.concentration - 1
        return jnp.where(above > 0, self.rate / above, jnp.inf)

    @property
    def variance(self) -> Float[Array, "*b"]:
        above = self.concentration - 2
        return jnp.where(above > 0, self.mean**2 / above, jnp.inf)

    @property
    def mode(self) -> Float[Array, "*b"]:
        return self.rate / (self.concentration + 1)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        inverse = self.rate / jnp.where(x > 0, x, 1)
        tail = gammaincc(*jnp.broadcast_arrays(self.concentration, inverse))
        return jnp.where(x > 0, tail, jnp.where(jnp.isnan(x), jnp.nan, 0))

    # Closed forms, as for the gamma family.

    @property
    def mean_params(self) -> Pair:
        mean_log = jnp.log(self.rate) - digamma(self.concentration)
        return mean_log, self.concentration / self.rate

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        a = self.concentration
        # The gap is one of ratios: both are scaled so that rate/x does not underflow.
        scale = jnp.where(x > 1, 2.0**24, 1)
        gap = log_ratio_gap(self.rate * (scale / x), a * scale)
        return a * gap + peak(a) - jnp.log(x)

    def entropy(self) -> Float[Array, "*b"]:
        a = self.concentration
        return (
            HALF_LOG_2PI
            + jnp.log(self.rate)
            - 1.5 * jnp.log(a)
            + stirling_remainder(a)
            + (a + 1) * log_minus_digamma(a)
        )

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return gamma_divergence(
            self.concentration, self.rate, other.concentration, other.rate
        )
