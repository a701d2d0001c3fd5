"""The multinomial family.

    λ_k = l_k − l_K,   T(x)_k = x_k,   μ_k = n p_k   (k = 1, …, K − 1),
    A(λ) = n log(1 + Σ exp λ_k),   h(x) = n! / Π x_k!,

p = softmax(l), as in `ngvi.families.categorical`.

Source: Agresti (2013), Categorical data analysis, section 1.2.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from ngvi.families.binomial import is_count
from ngvi.families.categorical import (
    LOGITS,
    ClassCounts,
    Classes,
    Free,
    Values,
    natural_from_probs,
    valid_natural_params,
    with_last,
)
from ngvi.families.count_sampling import as_counts, draw_binomial
from ngvi.families.domains import SIMPLEX, Domain, counts
from ngvi.families.numpyro_bridge import common_number
from ngvi.families.parameters import checked, family, fixed, parameter
from ngvi.families.special.count_densities import (
    log_factorial_excess,
    poisson_deviance,
)
from ngvi.families.special.expectations import (
    multinomial_entropy,
    multinomial_log_coefficient,
)
from ngvi.families.special.softmax import log_softmax, softmax, softmax_entropy


@family
class Multinomial(ClassCounts):
    """Multinomial(n, p) on vectors of K counts that sum to n, p = softmax(l).

    Args:
        logits: l, up to a constant, shape (*b, K), K ≥ 2.
        total_count: n ≥ 1, the same for a whole batch.

    Example:
        >>> q = Multinomial.from_probs([0.5, 0.25, 0.25], total_count=8)
        >>> [float(m) for m in q.mean.round(4)]
        [4.0, 2.0, 2.0]
    """

    logits: Classes = parameter(LOGITS)
    total_count: int = fixed("a whole number, 1 or more", is_count)

    numpyro_names: ClassVar[tuple[str, ...]] = ("MultinomialLogits", "MultinomialProbs")

    @classmethod
    def from_probs(cls, probs: Classes, total_count: int) -> Self:
        """The member with these probabilities: positive, summing to one."""
        p = jnp.asarray(probs)
        return cls(jnp.log(checked(p, SIMPLEX, "Multinomial: probs")), total_count)

    @property
    def support(self) -> Domain:
        return counts(self.total_count)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.logits.shape[-1:]

    @property
    def _trials(self) -> int:
        return self.total_count

    @classmethod
    def from_natural(cls, params: Free, total_count: int) -> Self:
        return cls(with_last(params), total_count)

    @classmethod
    def from_mean(cls, params: Free, total_count: int) -> Self:
        natural = natural_from_probs(jnp.asarray(params) / total_count)
        return cls(with_last(natural), total_count)

    @classmethod
    def natural_from_mean(cls, params: Free, total_count: int) -> Free:
        natural = natural_from_probs(jnp.asarray(params) / total_count)
        return valid_natural_params(cls, natural)

    def sufficient_statistics(self, x: Classes) -> Free:
        return self.as_floats(x)[..., :-1]

    def log_base_measure(self, x: Classes) -> Values:
        x = self.as_floats(x)
        share = jnp.where(x > 0, x, self.total_count) / self.total_count
        excess = (x * jnp.log(share) + log_factorial_excess(x)).sum(-1)
        return self._excess(x) - excess

    def _excess(self, x: Classes) -> Array:
        return log_factorial_excess(jnp.full((), self.total_count, x.dtype))

    def expected_log_base_measure(self) -> Values:
        return multinomial_log_coefficient(*self._moments)

    @property
    def _moments(self) -> tuple[int, Classes, Classes, Values]:
        """n, p, 1 − p and −Σ p log p."""
        p = self.probs
        k = p.shape[-1]
        likeliest = jnp.arange(k) == jnp.argmax(self.logits, -1, keepdims=True)
        rest = jnp.where(likeliest, 0, p).sum(-1, keepdims=True)
        q = jnp.where(likeliest, rest, 1 - p)
        return self.total_count, p, q, softmax_entropy(self.logits)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s k"]:
        """One binomial draw for each class but the last, given those before it."""
        logits = jnp.broadcast_to(self.logits, (*shape, *self.logits.shape))
        # Each class's logit against all those after it.
        p = softmax(logits)
        after = jnp.cumsum(p[..., ::-1], -1)[..., ::-1]
        share, rest = p[..., :-1] / after[..., :-1], after[..., 1:] / after[..., :-1]
        keys = jax.random.split(key, p.shape[-1] - 1)

        def draw(left: Array, given: tuple) -> tuple[Array, Array]:
            key, p, q = given
            count = draw_binomial(key, left, p, q)
            return left - count.astype(left.dtype), count

        columns = (keys, jnp.moveaxis(share, -1, 0), jnp.moveaxis(rest, -1, 0))
        left, drawn = jax.lax.scan(
            draw, jnp.full(p.shape[:-1], self.total_count, self.dtype), columns
        )
        valid = ~jnp.isnan(p[..., 0])
        last = as_counts(left, valid)[..., None]
        return jnp.concatenate([jnp.moveaxis(drawn, 0, -1), last], -1)

    @property
    def mean(self) -> Classes:
        return self.total_count * self.probs

    @property
    def mode(self) -> Int[Array, "*b k"]:
        """By adding to ⌊n p⌋, of which every mode has at least so much, fewer than K
        trials one by one, where each raises the density most."""
        p = self.probs
        start = jnp.floor(self.total_count * p)
        left = self.total_count - start.sum(-1, keepdims=True)

        def add(i: Array, x: Classes) -> Classes:
            best = jnp.argmax(p / (x + 1), -1, keepdims=True)
            return x + ((jnp.arange(p.shape[-1]) == best) & (i < left))

        mode = jax.lax.fori_loop(0, p.shape[-1] - 1, add, start)
        return as_counts(mode, ~jnp.isnan(p))

    @property
    def variance(self) -> Classes:
        n, p, q, _ = self._moments
        return n * p * q

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.MultinomialLogits(self.logits, self.total_count)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        n = common_number(distribution.total_count, "Multinomial: total_count")
        return cls(distribution.logits, int(n))

    def _log_density(self, x: Classes) -> Values:
        # Independent Poisson counts, given their total: no factorials to cancel.
        log_p = log_softmax(self.logits)
        p = jnp.exp(log_p)
        normal = p > jnp.finfo(p.dtype).tiny
        near = poisson_deviance(x, self.total_count * jnp.where(normal, p, 1))
        share = jnp.where(x > 0, x, 1) / self.total_count
        far = x * (jnp.log(share) - log_p - 1)
        deviance = jnp.where(normal, near, far)
        return self._excess(x) - (deviance + log_factorial_excess(x)).sum(-1)

    def entropy(self) -> Values:
        return multinomial_entropy(*self._moments)
