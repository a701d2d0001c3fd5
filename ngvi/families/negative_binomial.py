"""The negative binomial family, and what it shares with the geometric one, r = 1.

Events occur before a fixed number r of stops; u is the log odds of an event against a
stop. Then

    λ = log σ(u) = −log(1 + e⁻ᵘ) < 0,   T(x) = x,   μ = r eᵘ,
    A(λ) = −r log(1 − exp λ),   h(x) = Γ(x + r) / (Γ(r) x!).

Divergence and entropy are those of one Bernoulli trial of logit u, times the expected
number r (1 + eᵘ) of trials, the entropy less E[log h].

Source: Johnson, Kemp and Kotz (2005), Univariate discrete distributions, chapter 5.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc
from jaxtyping import Array, Float, Int, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.count_sampling import as_counts, beyond, draw_poisson
from ngvi.families.domains import POSITIVE, PROBABILITY, REAL, Domain, whole_numbers
from ngvi.families.numpyro_bridge import common_number
from ngvi.families.parameters import checked, family, fixed, only_if, parameter
from ngvi.families.special import log_gamma
from ngvi.families.special.count_densities import negative_binomial_log_prob
from ngvi.families.special.expectations import negative_binomial_entropy
from ngvi.families.special.logistic import (
    binary_entropy,
    log1mexp,
    logit,
    sigmoid,
    softplus,
    stopped_logistic_kl,
)
from ngvi.linalg import Diagonal, PositiveDefinite

Values = Float[Array, "*b"]


def natural_from_mean(name: str, mean: Values) -> Values:
    """λ from the expected number of events before a stop."""
    natural = -jnp.log1p(1 / mean)
    return only_if(mean, POSITIVE, f"{name}: mean parameter", natural)


def log_odds(params: Values) -> Values:
    """u from λ."""
    params = jnp.asarray(params)
    return params - log1mexp(params)


class Events(ExponentialFamily):
    """The number of events before r stops."""

    support: ClassVar[Domain] = whole_numbers(0)

    @property
    @abstractmethod
    def _stops(self) -> float:
        """r."""

    @property
    @abstractmethod
    def _log_odds(self) -> Values:
        """u."""

    @property
    def natural_params(self) -> Values:
        return -softplus(-self._log_odds)

    @property
    def mean_params(self) -> Values:
        return self._stops * jnp.exp(self._log_odds)

    def log_partition(self, params: Values) -> Values:
        return -self._stops * log1mexp(params)

    def sufficient_statistics(self, x: Values) -> Values:
        return self.as_floats(x)

    @property
    def mean(self) -> Values:
        return self.mean_params

    @property
    def variance(self) -> Values:
        return self.mean_params * (1 + jnp.exp(self._log_odds))

    @property
    def fisher(self) -> PositiveDefinite:
        root = jnp.sqrt(self.mean_params) * jnp.sqrt(1 + jnp.exp(self._log_odds))
        return Diagonal(root[..., None])

    @property
    def _mean_trials(self) -> Values:
        return self._stops * (1 + jnp.exp(self._log_odds))

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        return self._stops * stopped_logistic_kl(self._log_odds, other._log_odds)


@family
class NegativeBinomial(Events):
    """NegativeBinomial(r, p) on {0, 1, …}: p(x) ∝ Γ(x + r)/x! pˣ.

    p = 1/(1 + e⁻ˡ) is the probability of what is counted, as in NumPyro; SciPy's and
    some textbooks' p is 1 − p here. A Poisson variable whose rate is Gamma(r, e⁻ˡ).

    Args:
        logits: l = log p − log(1 − p), shape (*b,); the mean is r eˡ.
        total_count: r > 0, any real number, the same for a whole batch.

    Example:
        >>> q = NegativeBinomial.from_probs(0.75, total_count=2)
        >>> round(float(q.mean), 4), round(float(q.variance), 4)
        (6.0, 24.0)
    """

    logits: Values = parameter(REAL)
    total_count: float = fixed(
        "a positive number",
        lambda r: not isinstance(r, bool) and math.isfinite(r) and float(r) > 0,
    )

    numpyro_names: ClassVar[tuple[str, ...]] = (
        "GammaPoisson",
        "NegativeBinomial2",
        "NegativeBinomialLogits",
        "NegativeBinomialProbs",
    )

    @classmethod
    def from_probs(cls, probs: Values, total_count: float) -> Self:
        """The member with this probability of what is counted, 0 < p < 1."""
        p = checked(probs, PROBABILITY, "NegativeBinomial: probs")
        return cls(logit(p), total_count)

    @property
    def probs(self) -> Values:
        """p, the probability of what is counted."""
        return sigmoid(self.logits)

    @property
    def _stops(self) -> float:
        return self.total_count

    @property
    def _log_odds(self) -> Values:
        return self.logits

    @classmethod
    def from_natural(cls, params: Values, total_count: float) -> Self:
        return cls(log_odds(params), total_count)

    @classmethod
    def from_mean(cls, params: Values, total_count: float) -> Self:
        return cls(jnp.log(params) - math.log(total_count), total_count)

    @classmethod
    def natural_from_mean(cls, params: Values, total_count: float) -> Values:
        return natural_from_mean(cls.__name__, jnp.asarray(params) / total_count)

    def log_base_measure(self, x: Values) -> Values:
        x = self.as_floats(x)
        r = jnp.full_like(x, self.total_count)
        return log_gamma(x + r) - log_gamma(r) - log_gamma(x + 1)

    def expected_log_base_measure(self) -> Values:
        return self._mean_trials * binary_entropy(self.logits) - self.entropy()

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        rate_key, count_key = jax.random.split(key)
        shape = (*shape, *self.batch_shape)
        log_rate = jax.random.loggamma(rate_key, self.total_count, shape, self.dtype)
        return draw_poisson(count_key, jnp.exp(log_rate + self.logits))

    @property
    def mode(self) -> Int[Array, "*b"]:
        return as_counts(jnp.floor(max(self.total_count - 1, 0) * jnp.exp(self.logits)))

    def cdf(self, x: Values) -> Values:
        k = jnp.floor(self.as_floats(x))
        inside = jnp.isfinite(k) & (k >= 0)
        failures = jnp.where(inside, k, 0)
        r = jnp.full_like(failures, self.total_count)
        value = betainc(r, failures + 1, sigmoid(-self.logits))
        return beyond(k, inside, value)

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.NegativeBinomialLogits(self.total_count, self.logits)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        r = common_number(distribution.concentration, "NegativeBinomial: total_count")
        return cls(-jnp.log(distribution.rate), r)

    def _log_density(self, x: Values) -> Values:
        r = jnp.full_like(x, self.total_count)
        return negative_binomial_log_prob(r, x, self.logits)

    def entropy(self) -> Values:
        return negative_binomial_entropy(self.total_count, self.logits)
