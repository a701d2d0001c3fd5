"""The normal and log-normal families on numbers.

    λ = (m/σ², −1/(2σ²)),   T(x) = (x, x²),   μ = (m, m² + σ²),
    A(λ) = m²/(2σ²) + log σ,   log h = −½ log 2π.

Of a log-normal x, log x is normal: T(log x) replaces T(x) and h gains 1/x. For vectors
see `ngvi.families.Gaussian`.
"""

from __future__ import annotations

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, REAL, Domain
from ngvi.families.parameters import checked, family, parameter
from ngvi.families.special import log_ratio_gap
from ngvi.families.special.tables import HALF_LOG_2PI

Pair = tuple[Float[Array, "*b"], Float[Array, "*b"]]


@family
class Normal(ExponentialFamily):
    """Normal(loc m, scale σ) on the line.

    Args:
        loc: m, shape (*b,).
        scale: σ > 0, the standard deviation, shape (*b,).

    Example:
        >>> q = Normal(0.0, 2.0)
        >>> [float(v) for v in q.mean_params]
        [0.0, 4.0]
    """

    loc: Float[Array, "*b"] = parameter(REAL)
    scale: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = REAL
    numpyro_names: ClassVar[tuple[str, ...]] = ("Normal",)

    @property
    def natural_params(self) -> Pair:
        precision = self.scale**-2
        return self.loc * precision, -0.5 * precision

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        variance = -0.5 / params[1]
        return cls(params[0] * variance, jnp.sqrt(variance))

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        mean, square = params
        return cls(mean, jnp.sqrt(square - mean**2))

    @classmethod
    def natural_from_mean(cls, params: Pair) -> Pair:
        mean, square = params
        variance = checked(square - mean**2, POSITIVE, f"{cls.__name__}: variance")
        return mean / variance, -0.5 / variance

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        linear, half = params
        return -(linear**2) / (4 * half) - jnp.log(-2 * half) / 2

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return x, x**2

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.full_like(x, -HALF_LOG_2PI)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return jnp.full_like(self.loc, -HALF_LOG_2PI)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        eps = jax.random.normal(key, (*shape, *self.batch_shape, 1), self.dtype)
        return self.place(eps)

    @property
    def base_size(self) -> int:
        return 1

    def place(self, eps: Float[Array, "*b 1"]) -> Float[Array, "*b"]:
        return self.loc + self.scale * eps[..., 0]

    @property
    def mean(self) -> Float[Array, "*b"]:
        return self.loc

    @property
    def variance(self) -> Float[Array, "*b"]:
        return self.scale**2

    @property
    def mode(self) -> Float[Array, "*b"]:
        return self.loc

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return ndtr((x - self.loc) / self.scale)

    # Closed forms: no squared mean from which a small variance would be subtracted.

    @property
    def mean_params(self) -> Pair:
        return self.loc, self.loc**2 + self.scale**2

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        eps = (x - self.loc) / self.scale
        return -(eps**2) / 2 - jnp.log(self.scale) - HALF_LOG_2PI

    def entropy(self) -> Float[Array, "*b"]:
        return 0.5 + HALF_LOG_2PI + jnp.log(self.scale)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        shift = (other.loc - self.loc) / other.scale
        # ½(r² − 1) − log r with r = σ/σ′, as a sum of terms that are not negative.
        growth = (self.scale - other.scale) / other.scale
        gap = log_ratio_gap(self.scale, other.scale)
        return (growth**2 + shift**2) / 2 - gap

    def _fit(self, x: Float[Array, "n *b"], weights: Float[Array, "n"]) -> Self:
        shift = x[0]
        mean = shift + jnp.tensordot(weights, x - shift, 1)
        return type(self)(mean, jnp.sqrt(jnp.tensordot(weights, (x - mean) ** 2, 1)))


@family
class LogNormal(Normal):
    """LogNormal(loc m, scale σ) on x > 0: log x is Normal(m, σ).

    Args:
        loc: m, the mean of log x, shape (*b,).
        scale: σ > 0, the standard deviation of log x, shape (*b,).
    """

    support: ClassVar[Domain] = POSITIVE
    numpyro_names: ClassVar[tuple[str, ...]] = ("LogNormal",)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return super().sufficient_statistics(jnp.log(x))

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return super().log_base_measure(x) - jnp.log(x)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return super().expected_log_base_measure() - self.loc

    def place(self, eps: Float[Array, "*b 1"]) -> Float[Array, "*b"]:
        return jnp.exp(super().place(eps))

    @property
    def mean(self) -> Float[Array, "*b"]:
        return jnp.exp(self.loc + self.scale**2 / 2)

    @property
    def variance(self) -> Float[Array, "*b"]:
        return jnp.expm1(self.scale**2) * self.mean**2

    @property
    def mode(self) -> Float[Array, "*b"]:
        return jnp.exp(self.loc - self.scale**2)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return super().cdf(jnp.log(jnp.maximum(x, 0)))

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return super()._log_density(jnp.log(x)) - jnp.log(x)

    def entropy(self) -> Float[Array, "*b"]:
        return super().entropy() + self.loc

    def _fit(self, x: Float[Array, "n *b"], weights: Float[Array, "n"]) -> Self:
        return super()._fit(jnp.log(x), weights)
