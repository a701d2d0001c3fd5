"""The geometric family.

    λ = log(1 − p),   T(x) = x,   μ = (1 − p)/p,   A(λ) = −log(1 − exp λ),   h = 1.

Stored is the logit of p, which keeps both p and 1 − p.

Source: Johnson, Kemp and Kotz (2005), Univariate discrete distributions, chapter 5.
"""

from __future__ import annotations

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.families.count_sampling import as_counts
from ngvi.families.domains import PROBABILITY, REAL
from ngvi.families.negative_binomial import Events, log_odds, natural_from_mean
from ngvi.families.parameters import checked, family, parameter
from ngvi.families.special.logistic import binary_entropy, logit, sigmoid, softplus

Values = Float[Array, "*b"]


@family
class Geometric(Events):
    """Geometric(p) on {0, 1, …}: the failures before the first success.

    p(x) = p (1 − p)ˣ, p = 1/(1 + e⁻ˡ).

    Args:
        logits: l = log p − log(1 − p), shape (*b,).

    Example:
        >>> q = Geometric.from_probs(0.25)
        >>> round(float(q.mean), 4), round(float(q.variance), 4)
        (3.0, 12.0)
    """

    logits: Values = parameter(REAL)

    numpyro_names: ClassVar[tuple[str, ...]] = ("GeometricLogits", "GeometricProbs")

    @classmethod
    def from_probs(cls, probs: Values) -> Self:
        """The member with this probability of a success, 0 < p < 1."""
        return cls(logit(checked(probs, PROBABILITY, "Geometric: probs")))

    @property
    def probs(self) -> Values:
        """p, the probability of a success."""
        return sigmoid(self.logits)

    @property
    def _stops(self) -> float:
        return 1

    @property
    def _log_odds(self) -> Values:
        return -self.logits

    @classmethod
    def from_natural(cls, params: Values) -> Self:
        return cls(-log_odds(params))

    @classmethod
    def from_mean(cls, params: Values) -> Self:
        return cls(-jnp.log(params))

    @classmethod
    def natural_from_mean(cls, params: Values) -> Values:
        return natural_from_mean(cls.__name__, jnp.asarray(params))

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        shape = (*shape, *self.batch_shape)
        time = jax.random.exponential(key, shape, self.dtype)
        return as_counts(jnp.floor(time / softplus(self.logits)))

    @property
    def mode(self) -> Int[Array, "*b"]:
        return as_counts(0 * self.logits)

    def cdf(self, x: Values) -> Values:
        trials = jnp.maximum(jnp.floor(x) + 1, 0)
        return -jnp.expm1(-trials * softplus(self.logits))

    def _log_density(self, x: Values) -> Values:
        return -(x * softplus(self.logits) + softplus(-self.logits))

    def entropy(self) -> Values:
        return self._mean_trials * binary_entropy(self.logits)
