"""The normal-gamma family: the conjugate prior of a normal mean and precision.

Over x (the mean) and τ (the precision): τ ~ Gamma(a, b), x | τ ~ N(m, 1/(κτ)).

    T = (τx, τx², τ, log τ),   λ = (κm, −½ κ, −b − ½ κm², a − ½),
    μ = (m a/b, 1/κ + m² a/b, a/b, ψ(a) − log b),
    A(λ) = log Γ(a) − a log b − ½ log κ,   log h = −½ log 2π.

μ → λ: m = E[τx]/E[τ], 1/κ = E[τx²] − m E[τx], and a, b as in `Gamma`. Data y with
likelihood N(y | x, 1/τ) add (y, −½, −½ y², ½) to λ.

Source: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution,
section 3.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, REAL, Joint
from ngvi.families.gamma import Gamma
from ngvi.families.parameters import family, parameter
from ngvi.families.special import log_gamma, log_ratio_gap
from ngvi.families.special.tables import LOG_2PI

Values = Float[Array, "*b"]
Four = tuple[Values, Values, Values, Values]


class MeanAndPrecision(NamedTuple):
    """The mean and the precision of a normal distribution.

    Also a pair of their shapes, or of their domains.
    """

    mean: Any  # shape (*b,)
    precision: Any  # shape (*b,)


@family
class NormalGamma(ExponentialFamily):
    """NormalGamma(loc m, kappa κ, concentration a, rate b) over (mean, precision).

    Args:
        loc: m, the mean of the mean, shape (*b,).
        kappa: κ > 0, how many observations m is worth, shape (*b,).
        concentration: a > 0, of the precision's gamma distribution, shape (*b,).
        rate: b > 0, of the precision's gamma distribution, shape (*b,).

    An event is a pair (mean, precision).

    Example:
        >>> q = NormalGamma(1.0, 2.0, 3.0, 4.0)
        >>> [float(v) for v in q.mean]
        [1.0, 0.75]
    """

    loc: Values = parameter(REAL)
    kappa: Values = parameter(POSITIVE)
    concentration: Values = parameter(POSITIVE)
    rate: Values = parameter(POSITIVE)

    support: ClassVar[Joint] = Joint(MeanAndPrecision(REAL, POSITIVE))

    @property
    def event_shape(self) -> Any:
        """The shapes of the two arrays."""
        return MeanAndPrecision((), ())

    @property
    def precision(self) -> Gamma:
        """The marginal distribution of the precision."""
        return Gamma(self.concentration, self.rate)

    @property
    def natural_params(self) -> Four:
        linear = self.kappa * self.loc
        rate = self.rate + linear * self.loc / 2
        return linear, -self.kappa / 2, -rate, self.concentration - 0.5

    @classmethod
    def from_natural(cls, params: Four) -> Self:
        return cls(*_usual(params))

    @classmethod
    def from_mean(cls, params: Four) -> Self:
        linear, square, mean, mean_log = params
        loc = linear / mean
        precision = Gamma.from_mean((mean_log, mean))
        return cls(
            loc, 1 / (square - loc * linear), precision.concentration, precision.rate
        )

    def log_partition(self, params: Four) -> Values:
        _, kappa, a, b = _usual(params)
        return log_gamma(a) - a * jnp.log(b) - jnp.log(kappa) / 2

    def sufficient_statistics(self, x: MeanAndPrecision) -> Four:
        mean, precision = x
        linear = precision * mean
        return linear, linear * mean, precision, jnp.log(precision)

    def log_base_measure(self, x: MeanAndPrecision) -> Values:
        return super().log_base_measure(x) - LOG_2PI / 2

    def expected_log_base_measure(self) -> Values:
        return jnp.full_like(self.loc, -LOG_2PI / 2)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> MeanAndPrecision:
        of_precision, of_mean = jax.random.split(key)
        precision = self.precision.sample(of_precision, shape)
        eps = jax.random.normal(of_mean, precision.shape, self.dtype)
        return self._given(precision, eps)

    def _given(self, precision: Values, eps: Values) -> MeanAndPrecision:
        scale = 1 / (jnp.sqrt(self.kappa) * jnp.sqrt(precision))
        return MeanAndPrecision(self.loc + scale * eps, precision)

    @property
    def base_size(self) -> int:
        return 3

    def place(self, eps: Float[Array, "*b 3"]) -> MeanAndPrecision:
        return self._given(self.precision.place(eps[..., 1:]), eps[..., 0])

    @property
    def mean(self) -> MeanAndPrecision:
        # The mean is Student's t with 2a degrees of freedom.
        loc = jnp.where(self.concentration > 0.5, self.loc, jnp.nan)
        return MeanAndPrecision(loc, self.precision.mean)

    @property
    def variance(self) -> MeanAndPrecision:
        a = self.concentration
        diverges = jnp.where(a > 0.5, jnp.inf, jnp.nan)
        variance = jnp.where(a > 1, self.rate / (self.kappa * (a - 1)), diverges)
        return MeanAndPrecision(variance, self.precision.variance)

    @property
    def mode(self) -> MeanAndPrecision:
        excess = self.concentration - 0.5
        excess = jnp.where(excess >= 0, excess, jnp.nan)
        return MeanAndPrecision(self.loc, excess / self.rate)

    # Closed forms: the gamma's, and the normal's given the precision.

    @property
    def mean_params(self) -> Four:
        mean_log, mean = self.precision.mean_params
        linear = mean * self.loc
        return linear, 1 / self.kappa + linear * self.loc, mean, mean_log

    def fisher_product(self, direction: Four) -> Four:
        # Through the parameters: λ has lost the digits of what is small beside κm².
        linear, half, rate, power = direction
        kappa = -2 * half
        loc = (linear - kappa * self.loc) / self.kappa
        rate = -rate - (kappa * self.loc / 2 + self.kappa * loc) * self.loc
        return self._mean_params_along(loc, kappa, power, rate)

    def _log_density(self, x: MeanAndPrecision) -> Values:
        mean, precision = x
        weight = self.kappa * precision
        normal = jnp.log(weight) - LOG_2PI - weight * (mean - self.loc) ** 2
        return self.precision._log_density(precision) + normal / 2

    def entropy(self) -> Values:
        mean_log = self.precision.mean_params[0]
        normal = 1 + LOG_2PI - jnp.log(self.kappa) - mean_log
        return self.precision.entropy() + normal / 2

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        gap = log_ratio_gap(other.kappa, self.kappa)
        shift = other.kappa * (self.loc - other.loc) ** 2 * self.precision.mean
        return self.precision.kl(other.precision) + (shift - gap) / 2

    def _fit(self, x: MeanAndPrecision, weights: Float[Array, "n"]) -> Self:
        # About the first mean: 1/κ is no difference of large numbers far from 0.
        mean, precision = x
        near = super()._fit(MeanAndPrecision(mean - mean[0], precision), weights)
        return type(self)(near.loc + mean[0], near.kappa, near.concentration, near.rate)


def _usual(params: Four) -> Four:
    """m, κ, a and b of λ."""
    linear, half, rate, power = params
    kappa = -2 * half
    loc = linear / kappa
    return loc, kappa, power + 0.5, -rate - linear * loc / 2
