"""The Poisson family.

    λ = log r,   T(x) = x,   μ = r,   A(λ) = e^λ,   h(x) = 1/x!.

Source: Johnson, Kemp and Kotz (2005), Univariate discrete distributions, chapter 4.
"""

from __future__ import annotations

from typing import ClassVar, Self

import jax.numpy as jnp
from jax.scipy.special import gammaincc
from jaxtyping import Array, Float, Int, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.count_sampling import as_counts, beyond, draw_poisson
from ngvi.families.domains import POSITIVE, Domain, whole_numbers
from ngvi.families.parameters import as_floats, family, only_if, parameter
from ngvi.families.special import log_gamma
from ngvi.families.special.count_densities import poisson_log_prob
from ngvi.families.special.expectations import (
    poisson_entropy,
    poisson_log_factorial,
)
from ngvi.families.special.ratios import poisson_divergence
from ngvi.linalg import Diagonal, PositiveDefinite

Values = Float[Array, "*b"]


@family
class Poisson(ExponentialFamily):
    """Poisson(rate r) on {0, 1, …}: p(x) = rˣ e⁻ʳ / x!.

    Args:
        rate: r > 0, the mean, shape (*b,).

    Example:
        >>> q = Poisson(4.0)
        >>> float(q.mean), float(q.variance)
        (4.0, 4.0)
    """

    rate: Values = parameter(POSITIVE)

    support: ClassVar[Domain] = whole_numbers(0)
    numpyro_names: ClassVar[tuple[str, ...]] = ("Poisson",)

    @property
    def natural_params(self) -> Values:
        return jnp.log(self.rate)

    @classmethod
    def from_natural(cls, params: Values) -> Self:
        return cls(jnp.exp(params))

    @classmethod
    def from_mean(cls, params: Values) -> Self:
        return cls(params)

    @classmethod
    def natural_from_mean(cls, params: Values) -> Values:
        (rate,) = as_floats(params)
        return only_if(rate, POSITIVE, "Poisson: mean parameter", jnp.log(rate))

    def log_partition(self, params: Values) -> Values:
        return jnp.exp(params)

    def sufficient_statistics(self, x: Values) -> Values:
        return self.as_floats(x)

    def log_base_measure(self, x: Values) -> Values:
        x = self.as_floats(x)
        return -log_gamma(x + 1)

    def expected_log_base_measure(self) -> Values:
        return -poisson_log_factorial(self.rate)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        rate = jnp.broadcast_to(self.rate, (*shape, *self.batch_shape))
        return draw_poisson(key, rate)

    @property
    def mean_params(self) -> Values:
        return self.rate

    @property
    def fisher(self) -> PositiveDefinite:
        return Diagonal(jnp.sqrt(self.rate)[..., None])

    @property
    def mean(self) -> Values:
        return self.rate

    @property
    def variance(self) -> Values:
        return self.rate

    @property
    def mode(self) -> Int[Array, "*b"]:
        return as_counts(jnp.floor(self.rate))

    def cdf(self, x: Values) -> Values:
        k = jnp.floor(self.as_floats(x))
        inside = jnp.isfinite(k) & (k >= 0)
        value = gammaincc(jnp.where(inside, k, 0) + 1, self.rate)
        return beyond(k, inside, value)

    # Closed forms that keep their digits from r = 1e-6 to r = 1e8.

    def _log_density(self, x: Values) -> Values:
        return poisson_log_prob(x, self.rate)

    def entropy(self) -> Values:
        return poisson_entropy(self.rate)

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        return poisson_divergence(self.rate, other.rate)
