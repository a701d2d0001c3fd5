"""The inverse Gaussian (Wald) family.

    λ = (−c/(2m²), −c/2),   T(x) = (x, 1/x),   μ = (m, 1/m + 1/c),
    A(λ) = −½ log c − c/m = −½ log(−2λ₂) − 2 √(λ₁λ₂),   log h = −½ log(2πx³).

μ → λ: m = E[x], 1/c = E[1/x] − 1/E[x].

Source: Tweedie (1957), Statistical properties of inverse Gaussian distributions;
Michael, Schucany and Haas (1976) for draws.
"""

from __future__ import annotations

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.gamma import Pair, positive
from ngvi.families.parameters import as_floats, family, only_if, parameter
from ngvi.families.reparameterization import moving_with
from ngvi.families.special import log_ratio_gap, mills_ratio, scaled_exp1
from ngvi.families.special.calculus import with_partials
from ngvi.families.special.tables import HALF_LOG_2PI


@family
class InverseGaussian(ExponentialFamily):
    """InverseGaussian(loc m, concentration c) on x > 0.

    p(x) = √(c/(2πx³)) exp(−c (x − m)²/(2m²x)): the time at which a Brownian motion with
    drift 1/m first reaches √c.

    Args:
        loc: m > 0, the mean, shape (*b,).
        concentration: c > 0, so that the variance is m³/c, shape (*b,).

    Example:
        >>> q = InverseGaussian(2.0, 4.0)
        >>> [float(v) for v in q.mean_params]
        [2.0, 0.75]
    """

    loc: Float[Array, "*b"] = parameter(POSITIVE)
    concentration: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = POSITIVE

    @property
    def natural_params(self) -> Pair:
        half = -self.concentration / 2
        return half / self.loc**2, half

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        return cls(jnp.sqrt(params[1] / params[0]), -2 * params[1])

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        mean, mean_inverse = params
        return cls(mean, 1 / (mean_inverse - 1 / mean))

    @classmethod
    def natural_from_mean(cls, params: Pair) -> Pair:
        mean, mean_inverse = as_floats(*params)
        gap = mean_inverse - 1 / mean
        name = "InverseGaussian: the less of E[x] and E[1/x] - 1/E[x]"
        half = only_if(jnp.minimum(mean, gap), POSITIVE, name, -0.5 / gap)
        return half / mean**2, half

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        cross = jnp.sqrt(-params[0]) * jnp.sqrt(-params[1])
        return -jnp.log(-2 * params[1]) / 2 - 2 * cross

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return x, 1 / x

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return -HALF_LOG_2PI - 1.5 * jnp.log(x)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        mean_log = jnp.log(self.loc) - self._log_deficit
        return -HALF_LOG_2PI - 1.5 * mean_log

    @property
    def _log_deficit(self) -> Float[Array, "*b"]:
        """log E[x] − E[log x]."""
        return scaled_exp1(2 * self.concentration / self.loc)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        normal_key, choice_key = jax.random.split(key)
        shape = (*shape, *self.batch_shape)
        m, c = self.loc, self.concentration
        # Two values of x share the distance c (x − m)²/(m²x), which is chi-squared:
        # m r and m/r, and the smaller has the probability 1/(1 + r).
        normal = jax.random.normal(normal_key, shape, self.dtype)
        w = m / (2 * c) * normal**2
        r = 1 / (1 + w + jnp.sqrt(w) * jnp.sqrt(2 + w))
        choice = jax.random.uniform(choice_key, shape, self.dtype)
        x = positive(jnp.where(choice * (1 + r) < 1, m * r, m / r))
        return moving_with(x, (m, c), (_velocity_loc, _velocity_concentration))

    @property
    def mean(self) -> Float[Array, "*b"]:
        return self.loc

    @property
    def variance(self) -> Float[Array, "*b"]:
        return self.loc**3 / self.concentration

    @property
    def mode(self) -> Float[Array, "*b"]:
        ratio = 1.5 * self.loc / self.concentration
        return self.loc / (ratio + jnp.hypot(jnp.ones_like(ratio), ratio))

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        within = (x > 0) & (x < jnp.inf)
        value = _cdf(jnp.where(within, x, 1), self.loc, self.concentration)
        outside = jnp.where(jnp.isnan(x), jnp.nan, x > 0)
        return jnp.where(within, value, outside)

    # Closed forms: A's two terms are large beside their difference from −log h.

    @property
    def mean_params(self) -> Pair:
        return self.loc, 1 / self.loc + 1 / self.concentration

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        u = _standardized(x, self.loc, self.concentration)
        return (
            (jnp.log(self.concentration) - u**2) / 2 - HALF_LOG_2PI - 1.5 * jnp.log(x)
        )

    def entropy(self) -> Float[Array, "*b"]:
        scale = 1.5 * jnp.log(self.loc) - jnp.log(self.concentration) / 2
        return (HALF_LOG_2PI + 0.5) + scale - 1.5 * self._log_deficit

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        shift = (self.loc - other.loc) / other.loc
        gap = log_ratio_gap(other.concentration, self.concentration)
        return (other.concentration / self.loc * shift**2 - gap) / 2

    def _fit(self, x: Float[Array, "n *b"], weights: Float[Array, "n"]) -> Self:
        mean = jnp.tensordot(weights, x, 1)
        # E[1/x] − 1/E[x] as a mean of squares.
        spread = jnp.tensordot(weights, ((x - mean) / mean) ** 2 / x, 1)
        return type(self)(mean, 1 / spread)


def _standardized(x: Array, m: Array, c: Array) -> Array:
    """u = √(c/x) (x/m − 1): the density of x is √(c/x³) φ(u)."""
    return jnp.sqrt(c / x) * ((x - m) / m)


def _upper(x: Array, m: Array, c: Array) -> Array:
    """The Mills ratio R(v) at v = √(c/x) (x/m + 1)."""
    return mills_ratio(jnp.sqrt(c / x) * ((x + m) / m))


# As φ(u) = e^{2c/m} φ(v), the cdf Φ(u) + e^{2c/m} Φ(−v) is Φ(u) + φ(u) R(v), where
# nothing overflows. In its derivatives by m the densities cancel.


def _velocity_loc(x: Array, m: Array, c: Array) -> Array:
    return 2 * (x / m) ** 2 * jnp.sqrt(c / x) * _upper(x, m, c)


def _velocity_concentration(x: Array, m: Array, c: Array) -> Array:
    return x / c * (1 - 2 * (x / m) * jnp.sqrt(c / x) * _upper(x, m, c))


def _density(x: Array, m: Array, c: Array) -> Array:
    return jnp.sqrt(c / x) / x * _normal_density(_standardized(x, m, c))


def _normal_density(u: Array) -> Array:
    return jnp.exp(-(u**2) / 2 - HALF_LOG_2PI)


@with_partials(
    lambda _, x, m, c: _density(x, m, c),
    lambda _, x, m, c: -_velocity_loc(x, m, c) * _density(x, m, c),
    lambda _, x, m, c: -_velocity_concentration(x, m, c) * _density(x, m, c),
)
def _cdf(x: Array, m: Array, c: Array) -> Array:
    u = _standardized(x, m, c)
    return ndtr(u) + _normal_density(u) * _upper(x, m, c)
