"""The chi-squared family: gamma with the rate ½ in the base measure.

    λ = ν/2 − 1,   T(x) = log x,   μ = ψ(ν/2) + log 2,
    A(λ) = log Γ(ν/2) + ν/2 log 2,   log h = −x/2.

μ → λ by the inverse of ψ.

Source: Johnson, Kotz and Balakrishnan (1994), Continuous univariate distributions 1,
chapter 18.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import gammainc
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.gamma import log_density, positive
from ngvi.families.parameters import family, parameter
from ngvi.families.special import (
    bregman_log_gamma_excess,
    digamma,
    inverse_digamma,
    log_gamma,
    log_minus_digamma,
    poisson_divergence,
    stirling_remainder,
    trigamma,
)
from ngvi.linalg import Diagonal, PositiveDefinite


@family
class ChiSquared(ExponentialFamily):
    """ChiSquared(df ν) on x > 0: the squared length of ν standard normal numbers.

    Args:
        df: ν > 0, the degrees of freedom, not only whole numbers, shape (*b,).

    Example:
        >>> q = ChiSquared(3.0)
        >>> float(q.mean), float(q.variance)
        (3.0, 6.0)
    """

    df: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = POSITIVE
    numpyro_names: ClassVar[tuple[str, ...]] = ("Chi2",)

    @property
    def natural_params(self) -> Float[Array, "*b"]:
        return self.df / 2 - 1

    @classmethod
    def from_natural(cls, params: Float[Array, "*b"]) -> Self:
        return cls(2 * (jnp.asarray(params) + 1))

    @classmethod
    def from_mean(cls, params: Float[Array, "*b"]) -> Self:
        return cls(2 * inverse_digamma(jnp.asarray(params) - math.log(2)))

    def log_partition(self, params: Float[Array, "*b"]) -> Float[Array, "*b"]:
        half = params + 1
        return log_gamma(half) + half * math.log(2)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.log(x)

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return -x / 2

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return -self.df / 2

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        log_x = jax.random.loggamma(key, self.df / 2, shape, self.dtype)
        return positive(2 * jnp.exp(log_x))

    @property
    def mean(self) -> Float[Array, "*b"]:
        return self.df

    @property
    def variance(self) -> Float[Array, "*b"]:
        return 2 * self.df

    @property
    def mode(self) -> Float[Array, "*b"]:
        return jnp.where(self.df >= 2, self.df - 2, jnp.nan)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return gammainc(*jnp.broadcast_arrays(self.df / 2, jnp.maximum(x, 0) / 2))

    # Closed forms, as for the gamma family.

    @property
    def mean_params(self) -> Float[Array, "*b"]:
        return digamma(self.df / 2) + math.log(2)

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        half = self.df / 2
        rate = jnp.full_like(half, 0.5)
        return log_density(half, rate, x)

    def entropy(self) -> Float[Array, "*b"]:
        half = self.df / 2
        return (
            jnp.log(8 * math.pi * half) / 2
            + stirling_remainder(half)
            + (half - 1) * log_minus_digamma(half)
        )

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        a, b = self.df / 2, other.df / 2
        return bregman_log_gamma_excess(a, b) + poisson_divergence(b, a)

    @property
    def fisher(self) -> PositiveDefinite:
        return Diagonal(jnp.sqrt(trigamma(self.df / 2))[..., None])
