"""The binomial family.

    λ = log p − log(1 − p),   T(x) = x,   μ = n p,
    A(λ) = n log(1 + exp λ),   h(x) = n! / (x! (n − x)!).

Source: Johnson, Kemp and Kotz (2005), Univariate discrete distributions, chapter 3.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc
from jaxtyping import Array, Float, Int, Key

from ngvi.families.bernoulli import Successes
from ngvi.families.count_sampling import as_counts, draw_binomial
from ngvi.families.domains import PROBABILITY, REAL, Domain, whole_numbers
from ngvi.families.numpyro_bridge import common_number
from ngvi.families.parameters import checked, family, fixed, parameter
from ngvi.families.special.count_densities import (
    binomial_log_prob,
    log_factorial_excess,
)
from ngvi.families.special.expectations import (
    multinomial_entropy,
    multinomial_log_coefficient,
)
from ngvi.families.special.logistic import binary_entropy, logit, sigmoid

Values = Float[Array, "*b"]


def is_count(n: Any) -> bool:
    """Whether this is a plain whole number from one upwards."""
    whole = isinstance(n, int | np.integer) and not isinstance(n, bool)
    return bool(whole and n >= 1)


@family
class Binomial(Successes):
    """Binomial(n, p) on {0, …, n}, p = 1/(1 + e⁻ˡ).

    Args:
        logits: l = log p − log(1 − p), shape (*b,).
        total_count: n ≥ 1, the same for a whole batch.

    Example:
        >>> q = Binomial.from_probs(0.25, total_count=8)
        >>> round(float(q.mean), 4), round(float(q.variance), 4)
        (2.0, 1.5)
    """

    logits: Values = parameter(REAL)
    total_count: int = fixed("a whole number, 1 or more", is_count)

    numpyro_names: ClassVar[tuple[str, ...]] = ("BinomialLogits", "BinomialProbs")

    @classmethod
    def from_probs(cls, probs: Values, total_count: int) -> Self:
        """The member with this probability of a success, 0 < p < 1."""
        return cls(logit(checked(probs, PROBABILITY, "Binomial: probs")), total_count)

    @property
    def support(self) -> Domain:
        return whole_numbers(0, self.total_count)

    @property
    def _trials(self) -> int:
        return self.total_count

    @classmethod
    def from_natural(cls, params: Values, total_count: int) -> Self:
        return cls(params, total_count)

    @classmethod
    def from_mean(cls, params: Values, total_count: int) -> Self:
        mean = jnp.asarray(params)
        return cls(jnp.log(mean / (total_count - mean)), total_count)

    def log_base_measure(self, x: Values) -> Values:
        x = self.as_floats(x)
        n, rest = jnp.full_like(x, self.total_count), self.total_count - x
        ratio = jnp.where((x > 0) & (rest > 0), x / n, 0.5)
        inner = -(x * jnp.log(ratio) + rest * jnp.log1p(-ratio))
        spread = jnp.where((x > 0) & (rest > 0), inner, 0)
        excess = log_factorial_excess(x) + log_factorial_excess(rest)
        return spread + log_factorial_excess(n) - excess

    def expected_log_base_measure(self) -> Values:
        return multinomial_log_coefficient(*self._as_classes)

    @property
    def _as_classes(self) -> tuple[int, Array, Array, Values]:
        p, q = sigmoid(self.logits), sigmoid(-self.logits)
        pair = jnp.stack([p, q], -1)
        return self.total_count, pair, pair[..., ::-1], binary_entropy(self.logits)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        logits = jnp.broadcast_to(self.logits, (*shape, *self.batch_shape))
        n = jnp.full_like(logits, self.total_count)
        return draw_binomial(key, n, sigmoid(logits), sigmoid(-logits))

    @property
    def mode(self) -> Int[Array, "*b"]:
        n = self.total_count
        return as_counts(jnp.minimum(jnp.floor((n + 1) * self.probs), n))

    def cdf(self, x: Values) -> Values:
        n, k = self.total_count, jnp.floor(x)
        inside = jnp.clip(k, 0, n - 1)
        value = betainc(n - inside, inside + 1, sigmoid(-self.logits))
        return jnp.where(k < 0, 0 * value, jnp.where(k >= n, 1 + 0 * value, value))

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.BinomialLogits(self.logits, self.total_count)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        n = common_number(distribution.total_count, "Binomial: total_count")
        return cls(distribution.logits, int(n))

    def _log_density(self, x: Values) -> Values:
        return binomial_log_prob(jnp.full_like(x, self.total_count), x, self.logits)

    def entropy(self) -> Values:
        return multinomial_entropy(*self._as_classes)
