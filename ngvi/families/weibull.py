"""The Weibull family of fixed concentration k, and the Rayleigh family, its k = 2.

    λ = −σ⁻ᵏ,   T(x) = xᵏ,   μ = σᵏ,   A(λ) = −log(−λ),   log h = log k + (k − 1) log x.

T is exponential, so μ → λ is −1/μ. The Rayleigh scale differs by √2: its density is
x/σ² exp(−x²/(2σ²)) and μ = 2σ².

Source: Johnson, Kotz and Balakrishnan (1994), Continuous univariate distributions 1,
chapters 18 and 21.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.exponential import ExponentialStatistic, positive_exponential
from ngvi.families.gamma import positive
from ngvi.families.numpyro_bridge import common_number
from ngvi.families.parameters import family, fixed, parameter
from ngvi.families.special import expm1_minus, log_ratio, log_ratio_gap
from ngvi.families.special.tables import EULER_GAMMA


def _is_positive(value: Any) -> bool:
    return isinstance(value, Real) and 0 < float(value) < math.inf


@family
class Weibull(ExponentialStatistic):
    """Weibull(scale σ, concentration k) on x > 0: p(x) ∝ xᵏ⁻¹ exp(−(x/σ)ᵏ).

    Args:
        scale: σ > 0, shape (*b,).
        concentration: k > 0, a Python number: one for the whole batch.

    Example:
        >>> q = Weibull(3.0, 2.0)
        >>> float(q.mean_params)  # E[x²]
        9.0
    """

    scale: Float[Array, "*b"] = parameter(POSITIVE)
    concentration: float = fixed("one positive number", _is_positive)

    support: ClassVar[Domain] = POSITIVE
    numpyro_names: ClassVar[tuple[str, ...]] = ("Weibull",)

    @property
    def mean_params(self) -> Float[Array, "*b"]:
        return self.scale**self.concentration

    @classmethod
    def from_mean(cls, params: Float[Array, "*b"], *, concentration: float) -> Self:
        return cls(jnp.asarray(params) ** (1 / concentration), concentration)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return x**self.concentration

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        k = self.concentration
        return math.log(k) + (k - 1) * jnp.log(x)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        k = self.concentration
        return math.log(k) + (k - 1) * (jnp.log(self.scale) - EULER_GAMMA / k)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        unit = positive_exponential(key, (*shape, *self.batch_shape), self.dtype)
        return positive(self.scale * unit ** (1 / self.concentration))

    @property
    def mean(self) -> Float[Array, "*b"]:
        log_factor = math.lgamma(1 + 1 / self.concentration)
        return self.scale * (math.exp(log_factor) if log_factor < 700 else math.inf)

    @property
    def variance(self) -> Float[Array, "*b"]:
        k = self.concentration
        # Γ(1 + 2/k)/Γ(1 + 1/k)² − 1, without cancellation for a large k.
        excess = math.lgamma(1 + 2 / k) - 2 * math.lgamma(1 + 1 / k)
        return self.mean**2 * (math.expm1(excess) if excess < 700 else math.inf)

    @property
    def mode(self) -> Float[Array, "*b"]:
        k = self.concentration
        # Below k = 1 the density is unbounded at 0.
        return self.scale * ((1 - 1 / k) ** (1 / k) if k >= 1 else math.nan)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return -jnp.expm1(-((jnp.maximum(x, 0) / self.scale) ** self.concentration))

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.Weibull(self.scale, self.concentration)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        return cls(
            distribution.scale,
            common_number(distribution.concentration, "Weibull: concentration"),
        )

    # Powers of x/σ, where those of x and σ would overflow.

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        k = self.concentration
        log_ratio_to_scale = jnp.log(x / self.scale)
        return (
            math.log(k)
            + k * log_ratio_to_scale
            - jnp.log(x)
            - jnp.exp(k * log_ratio_to_scale)
        )

    def entropy(self) -> Float[Array, "*b"]:
        k = self.concentration
        return jnp.log(self.scale) + (1 - math.log(k) + (1 - 1 / k) * EULER_GAMMA)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return expm1_minus(self.concentration * log_ratio(self.scale, other.scale))

    def _fit(self, x: Float[Array, "n *b"], weights: Float[Array, "n"]) -> Self:
        k, largest = self.concentration, x.max(0)
        mean = jnp.tensordot(weights, (x / largest) ** k, 1)
        return type(self)(largest * mean ** (1 / k), k)


@family
class Rayleigh(ExponentialStatistic):
    """Rayleigh(scale σ) on x > 0: the length of a vector of two N(0, σ²) numbers.

    Args:
        scale: σ > 0, where the density is largest, shape (*b,).

    Example:
        >>> float(Rayleigh(3.0).mean_params)  # E[x²]
        18.0
    """

    scale: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = POSITIVE

    @property
    def mean_params(self) -> Float[Array, "*b"]:
        return 2 * self.scale**2

    @classmethod
    def from_mean(cls, params: Float[Array, "*b"]) -> Self:
        return cls(jnp.sqrt(jnp.asarray(params) / 2))

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return x**2

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.log(2 * x)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return jnp.log(self.scale) + (1.5 * math.log(2) - EULER_GAMMA / 2)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        unit = positive_exponential(key, (*shape, *self.batch_shape), self.dtype)
        return self.scale * jnp.sqrt(2 * unit)

    @property
    def mean(self) -> Float[Array, "*b"]:
        return self.scale * math.sqrt(math.pi / 2)

    @property
    def variance(self) -> Float[Array, "*b"]:
        return self.scale**2 * (2 - math.pi / 2)

    @property
    def mode(self) -> Float[Array, "*b"]:
        return self.scale

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return -jnp.expm1(-((jnp.maximum(x, 0) / self.scale) ** 2) / 2)

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.Weibull(math.sqrt(2) * self.scale, 2.0)

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        ratio = x / self.scale
        return jnp.log(ratio) - jnp.log(self.scale) - ratio**2 / 2

    def entropy(self) -> Float[Array, "*b"]:
        return jnp.log(self.scale) + (1 - math.log(2) / 2 + EULER_GAMMA / 2)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        # r² − 1 − 2 log r with r = σ/σ′, as a sum of two terms that are not negative.
        growth = (self.scale - other.scale) / other.scale
        return growth**2 - 2 * log_ratio_gap(self.scale, other.scale)
