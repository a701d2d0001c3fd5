"""The Bernoulli family, and what it shares with the binomial one.

    λ = log p − log(1 − p),   T(x) = x,   μ = n p,
    A(λ) = n log(1 + exp λ),   h(x) = n! / (x! (n − x)!);

a Bernoulli variable is the case n = 1, h = 1. Both store λ, the logit: a probability
next to one keeps its distance from one, as one next to zero does.

Source: Johnson, Kemp and Kotz (2005), Univariate discrete distributions, chapter 3.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Int, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.count_sampling import as_counts
from ngvi.families.domains import PROBABILITY, REAL, Domain, whole_numbers
from ngvi.families.parameters import as_floats, checked, family, only_if, parameter
from ngvi.families.special.logistic import (
    binary_entropy,
    logistic_kl,
    logit,
    sigmoid,
    sigmoid_slope,
    softplus,
)
from ngvi.linalg import Diagonal, PositiveDefinite

Values = Float[Array, "*b"]


class Successes(ExponentialFamily):
    """The number of successes in n independent trials of one probability."""

    logits: Values

    @property
    @abstractmethod
    def _trials(self) -> int:
        """n."""

    @property
    def probs(self) -> Values:
        """p, the probability of a success."""
        return sigmoid(self.logits)

    @property
    def natural_params(self) -> Values:
        return self.logits

    @property
    def mean_params(self) -> Values:
        return self._trials * sigmoid(self.logits)

    def log_partition(self, params: Values) -> Values:
        return self._trials * softplus(params)

    def sufficient_statistics(self, x: Values) -> Values:
        return self.as_floats(x)

    @property
    def mean(self) -> Values:
        return self.mean_params

    @property
    def variance(self) -> Values:
        return self._trials * sigmoid_slope(self.logits)

    @property
    def fisher(self) -> PositiveDefinite:
        return Diagonal(jnp.sqrt(self.variance)[..., None])

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        return self._trials * logistic_kl(self.logits, other.logits)


@family
class Bernoulli(Successes):
    """Bernoulli(p) on {0, 1}, p = 1/(1 + e⁻ˡ) the probability of 1.

    Args:
        logits: l = log p − log(1 − p), shape (*b,).

    Example:
        >>> q = Bernoulli.from_probs(0.25)
        >>> round(float(q.mean), 4), round(float(q.variance), 4)
        (0.25, 0.1875)
    """

    logits: Values = parameter(REAL)

    support: ClassVar[Domain] = whole_numbers(0, 1)
    natural_everywhere: ClassVar[bool] = True
    numpyro_names: ClassVar[tuple[str, ...]] = ("BernoulliLogits", "BernoulliProbs")

    @classmethod
    def from_probs(cls, probs: Values) -> Self:
        """The member with this probability of 1, 0 < p < 1."""
        return cls(logit(checked(probs, PROBABILITY, "Bernoulli: probs")))

    @property
    def _trials(self) -> int:
        return 1

    @classmethod
    def from_natural(cls, params: Values) -> Self:
        return cls(params)

    @classmethod
    def from_mean(cls, params: Values) -> Self:
        return cls(logit(jnp.asarray(params)))

    @classmethod
    def natural_from_mean(cls, params: Values) -> Values:
        (p,) = as_floats(params)
        return only_if(p, PROBABILITY, "Bernoulli: mean parameter", logit(p))

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        level = jax.random.uniform(key, (*shape, *self.batch_shape), self.dtype)
        return as_counts(
            (level < self.probs).astype(self.dtype), ~jnp.isnan(self.logits)
        )

    @property
    def base_size(self) -> int:
        return 1

    def place(self, eps: Float[Array, "*b 1"]) -> Values:
        return (ndtr(eps[..., 0]) < self.probs).astype(self.dtype)

    @property
    def mode(self) -> Int[Array, "*b"]:
        one = (self.logits > 0).astype(self.dtype)
        return as_counts(one, ~jnp.isnan(self.logits))

    def cdf(self, x: Values) -> Values:
        failure = sigmoid(-self.logits)
        return jnp.where(x < 0, 0 * failure, jnp.where(x < 1, failure, 1 + 0 * failure))

    def _log_density(self, x: Values) -> Values:
        return -softplus(jnp.where(x > 0, -self.logits, self.logits))

    def entropy(self) -> Values:
        return binary_entropy(self.logits)
