"""The logarithmic series family.

With p in (0, 1) and y = −log(1 − p),

    λ = log p,   T(x) = x,   μ = p / ((1 − p) y) = (eʸ − 1)/y,
    A(λ) = log(−log(1 − exp λ)) = log y,   h(x) = 1/x.

μ → λ: log((eʸ − 1)/y) = log μ has one root y, found by Newton's method on this convex
function; p = 1 − e⁻ʸ. Stored is the logit of p: log(eʸ − 1).

Source: Johnson, Kemp and Kotz (2005), Univariate discrete distributions, chapter 7;
Kemp (1981), Efficient generation of logarithmically distributed pseudo-random
variables.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.count_sampling import as_counts, beyond
from ngvi.families.domains import PROBABILITY, REAL, Domain, above, whole_numbers
from ngvi.families.parameters import checked, family, parameter
from ngvi.families.special.calculus import with_partials
from ngvi.families.special.count_gaps import log_series_mean_log
from ngvi.families.special.logistic import (
    expm1_excess_rate,
    log1mexp,
    log_expm1_ratio,
    log_expm1_ratio_slope,
    logit,
    odds,
    sigmoid,
    softplus,
    softplus_change,
    stopped_logistic_kl,
)
from ngvi.families.special.ratios import logarithm_excess
from ngvi.families.special.tables import BERNOULLI
from ngvi.linalg import Diagonal, PositiveDefinite

Values = Float[Array, "*b"]


@family
class LogSeries(ExponentialFamily):
    """LogSeries(p) on {1, 2, …}: P(x) = pˣ / (−x log(1 − p)), p = 1/(1 + e⁻ˡ).

    Args:
        logits: l = log p − log(1 − p), shape (*b,).

    Example:
        >>> q = LogSeries.from_probs(0.5)
        >>> round(float(q.mean), 4), int(q.mode)
        (1.4427, 1)
    """

    logits: Values = parameter(REAL)

    support: ClassVar[Domain] = whole_numbers(1)

    @classmethod
    def from_probs(cls, probs: Values) -> Self:
        """The member with this p, 0 < p < 1."""
        return cls(logit(checked(probs, PROBABILITY, "LogSeries: probs")))

    @property
    def probs(self) -> Values:
        """p."""
        return sigmoid(self.logits)

    @property
    def _y(self) -> Values:
        """−log(1 − p)."""
        return softplus(self.logits)

    @property
    def natural_params(self) -> Values:
        return -softplus(-self.logits)

    @classmethod
    def from_natural(cls, params: Values) -> Self:
        params = jnp.asarray(params)
        return cls(params - log1mexp(params))

    @classmethod
    def from_mean(cls, params: Values) -> Self:
        y = _y_from_log_mean(jnp.log(params))
        return cls(y + log1mexp(-y))

    @classmethod
    def natural_from_mean(cls, params: Values) -> Values:
        mean = checked(params, above(1), "LogSeries: mean parameter")
        return log1mexp(-_y_from_log_mean(jnp.log(mean)))

    def log_partition(self, params: Values) -> Values:
        return _log_partition(params)

    def sufficient_statistics(self, x: Values) -> Values:
        return self.as_floats(x)

    def log_base_measure(self, x: Values) -> Values:
        x = self.as_floats(x)
        return -jnp.log(x)

    def expected_log_base_measure(self) -> Values:
        return -log_series_mean_log(self.logits)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        # Geometric from 1 upwards, −log of whose stopping probability is uniform.
        first, second = jax.random.split(key)
        shape = (*shape, *self.batch_shape)
        tiny = jnp.finfo(self.dtype).tiny
        part = jax.random.uniform(first, shape, self.dtype, tiny, 1.0) * self._y
        time = jax.random.exponential(second, shape, self.dtype)
        rate = -log1mexp(-jnp.maximum(part, tiny))
        return as_counts(1 + jnp.floor(time / rate))

    @property
    def mean_params(self) -> Values:
        return _mean_at(self.logits)

    @property
    def mean(self) -> Values:
        return self.mean_params

    @property
    def variance(self) -> Values:
        return self.mean_params * jnp.exp(self.logits) * log_expm1_ratio_slope(self._y)

    @property
    def fisher(self) -> PositiveDefinite:
        slope = self.mean_params * log_expm1_ratio_slope(self._y)
        return Diagonal((jnp.sqrt(slope) * jnp.exp(self.logits / 2))[..., None])

    @property
    def mode(self) -> Int[Array, "*b"]:
        return as_counts(1 + 0 * self.logits)

    def cdf(self, x: Values) -> Values:
        k = jnp.floor(self.as_floats(x))
        inside = jnp.isfinite(k) & (k >= 1)
        value = 1 - _mean_power(jnp.where(inside, k, 1), self._y)
        return beyond(k, inside, value)

    def _log_density(self, x: Values) -> Values:
        # log p − log y, in which the log of a small p cancels, stands apart.
        y = self._y
        log_p = -softplus(-self.logits)
        return (x - 1) * log_p - jnp.log(x) - (y - log_expm1_ratio(y))

    def entropy(self) -> Values:
        y = self._y
        excess = expm1_excess_rate(y)
        shift = y - log_expm1_ratio(y)
        return (
            shift + softplus(-self.logits) * excess + log_series_mean_log(self.logits)
        )

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        return _divergence(self.logits, other.logits)


def _mean_slope(x: Values) -> Values:
    """dμ/dx at logit x."""
    return _mean_at(x) * log_expm1_ratio_slope(softplus(x)) * sigmoid(x)


@with_partials(lambda _, x: _mean_slope(x))
def _mean_at(x: Values) -> Values:
    """μ of the member with logit x."""
    x = jnp.maximum(x, -60)
    return jnp.exp(x) / softplus(x)


@with_partials(lambda _, x, y: -_mean_slope(x), lambda _, x, y: _mean_slope(y))
def _mean_change(x: Values, y: Values) -> Values:
    """μ at logit y less that at logit x.

    From the lesser a = −log(1 − p) to the greater b = a + d, all terms being positive,

        μ_b − μ_a = (d/b) eᵃ [(eᵈ − 1 − d)/d + (e⁻ᵃ − 1 + a)/a].
    """
    low, high = jnp.minimum(x, y), jnp.maximum(x, y)
    a, b, d = softplus(low), softplus(high), softplus_change(low, high)
    rates = expm1_excess_rate(d) - expm1_excess_rate(-a)
    share = d / jnp.maximum(b, jnp.finfo(b.dtype).tiny)
    return jnp.sign(y - x) * share * jnp.exp(a) * rates


@with_partials(
    lambda _, x, y: softplus_change(-x, -y) * _mean_slope(x),
    lambda _, x, y: _mean_change(x, y) * sigmoid(-y),
)
def _divergence(x: Values, y: Values) -> Values:
    """KL from logit x to logit y.

    With a, b the two y = −log(1 − p), h = (b − a)/a and K the divergence of two
    geometric laws, of failures before the first event of probability 1 − p, this is
    K/a − (h − log(1 + h)). The two cancel where p is small; there it is

        S′(a) K − [S(a) + (b − a) S′(a) − S(b)],   S(y) = log(y/p),

    S from its series in y or, where only a is small, with the (b − a) S′(a) of both
    terms left out.
    """
    a, b = softplus(x), softplus(y)
    whole, change = stopped_logistic_kl(x, y), softplus_change(x, y)
    both = jnp.maximum(a, b) < 1.5
    slope, curved = _log_mean_slope(jnp.minimum(a, 1.5), jnp.minimum(b, 1.5))
    low = slope * whole - change * change * curved
    first, h = a < 0.5, change / a
    log = jnp.log(b / a * jnp.where(first, sigmoid(x) / sigmoid(y), 1))
    rising = log + slope * (whole - change)
    gap = logarithm_excess(h, b / a)
    return jnp.where(both, low, jnp.where(first, rising, whole / a - gap))


def _log_mean_slope(a: Values, b: Values) -> tuple[Values, Values]:
    """S′(a), and [S(a) + (b − a) S′(a) − S(b)]/(b − a)²; a, b ≤ 1.5.

    S(y) = ½ y − q(y²): a polynomial's divided differences, by Horner's rule.
    """
    u, v = a * a, b * b
    value = slope = second = jnp.zeros_like(a)
    for power in range(len(BERNOULLI), 0, -1):
        second = second * v + slope
        slope = slope * u + value
        value = value * u + BERNOULLI[power - 1] / (2 * power)
    second, slope = second * v + slope, slope * u + value
    return 0.5 - 2 * a * slope, slope + (a + b) ** 2 * second


@with_partials(lambda _, v: _mean(v))
def _log_partition(v: Values) -> Values:
    """A(λ)."""
    return jnp.log(-log1mexp(v))


@with_partials(lambda mean, v: mean * odds(v) * log_expm1_ratio_slope(-log1mexp(v)))
def _mean(v: Values) -> Values:
    """∇A(λ)."""
    return odds(v) / -log1mexp(v)


@with_partials(lambda y, g: 1 / log_expm1_ratio_slope(y))
def _y_from_log_mean(g: Values) -> Values:
    """y > 0 with log((eʸ − 1)/y) = g > 0; NaN elsewhere."""
    y = g + jnp.log1p(g)
    for _ in range(5):
        y = y - (log_expm1_ratio(y) - g) / log_expm1_ratio_slope(y)
    return jnp.where(g > 0, y, jnp.nan)


def _gauss(
    dtype: Any, single: int, double: int, ndim: int
) -> tuple[Float[Array, "m *1"], Float[Array, "m *1"]]:
    """Gauss and Legendre's points and weights on (0, 1), along a leading axis."""
    count = double if jnp.finfo(dtype).bits > 32 else single
    points, weights = np.polynomial.legendre.leggauss(count)
    shape = (-1, *[1] * ndim)
    return (
        jnp.asarray((points + 1) / 2, dtype).reshape(shape),
        jnp.asarray(weights / 2, dtype).reshape(shape),
    )


def _mean_power(k: Values, y: Values) -> Values:
    """(1/y) ∫₀^y (1 − e⁻ʷ)ᵏ dw = P(X > k), the integrand's rise at w = log k."""
    k, y = jnp.broadcast_arrays(k, y)
    points, weights = _gauss(k.dtype, 24, 48, k.ndim)
    rise = jnp.log(k)
    ends = [jnp.clip(rise + shift, 0, y) for shift in (-4.0, 4.0, 37.0)]
    total = y - ends[-1]
    for low, high in zip([ends[0], ends[1]], ends[1:], strict=True):
        w = low + (high - low) * points
        power = jnp.exp(k * log1mexp(-jnp.maximum(w, jnp.finfo(w.dtype).tiny)))
        total = total + (high - low) * (weights * power).sum(0)
    return total / y
