"""The categorical family, and what it shares with the multinomial one.

    λ_k = l_k − l_K,   T(x)_k = x_k,   μ_k = n p_k   (k = 1, …, K − 1),
    A(λ) = n log(1 + Σ exp λ_k),   h(x) = n! / Π x_k!.

p = softmax(l): the K logits l are given up to a constant, λ is what they are relative
to the last one. A categorical variable is the number, from 0, of the class that the
one trial of n = 1 fell into. The Fisher matrix n (diag p − p pᵀ) is a diagonal minus a
matrix of rank one, with remainder p_K: a natural gradient costs O(K).

Source: Agresti (2013), Categorical data analysis, section 1.2.
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
from ngvi.families.domains import REAL_VECTOR, SIMPLEX, Domain, whole_numbers
from ngvi.families.parameters import checked, family, is_concrete, parameter
from ngvi.families.special.softmax import (
    log_softmax,
    log_sum_exp,
    softmax,
    softmax_entropy,
    softmax_kl,
)
from ngvi.linalg import DiagonalMinusRankOne, PositiveDefinite

Values = Float[Array, "*b"]
Classes = Float[Array, "*b k"]
Free = Float[Array, "*b k-1"]

LOGITS = Domain(
    "a finite vector of two numbers or more",
    1,
    lambda v, xp: xp.isfinite(v).all(-1) & (v.shape[-1] > 1),
)


def with_last(params: Free) -> Classes:
    """λ and the last class's 0."""
    params = jnp.asarray(params)
    zero = jnp.zeros((*params.shape[:-1], 1), params.dtype)
    return jnp.concatenate([params, zero], -1)


def natural_from_probs(probs: Free) -> Free:
    """λ from p without its last entry; all NaN where p is not positive."""
    natural = jnp.log(probs / (1 - probs.sum(-1, keepdims=True)))
    # Less zero, or NaN: a mask would keep this from being fused into one pass.
    return natural - 0 * natural.sum(-1, keepdims=True)


def valid_natural_params(cls: type, natural: Free) -> Free:
    """λ; outside `jit` a NaN is an error."""
    if is_concrete(natural):
        checked(natural, REAL_VECTOR, f"{cls.__name__}: natural parameters")
    return natural


class ClassCounts(ExponentialFamily):
    """How often each of K classes occurs in n independent trials."""

    logits: Classes

    @property
    @abstractmethod
    def _trials(self) -> int:
        """n."""

    @property
    def probs(self) -> Classes:
        """p, the probabilities of the classes."""
        return softmax(self.logits)

    @property
    def natural_params(self) -> Free:
        return self.logits[..., :-1] - self.logits[..., -1:]

    @property
    def mean_params(self) -> Free:
        return self._trials * softmax(self.logits)[..., :-1]

    def log_partition(self, params: Free) -> Values:
        return self._trials * log_sum_exp(with_last(params))

    @property
    def fisher(self) -> PositiveDefinite:
        p, n = self.probs, self._trials
        kept = p[..., :-1]
        return DiagonalMinusRankOne(n * kept, n**0.5 * kept, p[..., -1])

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        return self._trials * softmax_kl(self.logits, other.logits)


@family
class Categorical(ClassCounts):
    """Categorical(p) on the class numbers 0, …, K − 1, p = softmax(l).

    Args:
        logits: l, up to a constant, shape (*b, K), K ≥ 2.

    Example:
        >>> q = Categorical.from_probs([0.5, 0.25, 0.25])
        >>> [round(float(p), 2) for p in q.mean_params]
        [0.5, 0.25]
    """

    logits: Classes = parameter(LOGITS)

    natural_everywhere: ClassVar[bool] = True
    numpyro_names: ClassVar[tuple[str, ...]] = ("CategoricalLogits", "CategoricalProbs")

    @classmethod
    def from_probs(cls, probs: Classes) -> Self:
        """The member with these probabilities: positive, summing to one."""
        p = jnp.asarray(probs)
        return cls(jnp.log(checked(p, SIMPLEX, "Categorical: probs")))

    @property
    def support(self) -> Domain:
        return whole_numbers(0, self.logits.shape[-1] - 1)

    @property
    def _trials(self) -> int:
        return 1

    @classmethod
    def from_natural(cls, params: Free) -> Self:
        return cls(with_last(params))

    @classmethod
    def from_mean(cls, params: Free) -> Self:
        return cls(with_last(natural_from_probs(jnp.asarray(params))))

    @classmethod
    def natural_from_mean(cls, params: Free) -> Free:
        return valid_natural_params(cls, natural_from_probs(jnp.asarray(params)))

    def sufficient_statistics(self, x: Values) -> Free:
        numbers = jnp.arange(self.logits.shape[-1] - 1)
        return (x[..., None] == numbers).astype(self.dtype)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Int[Array, "*s"]:
        level = jax.random.uniform(key, (*shape, *self.batch_shape), self.dtype)
        below = jnp.cumsum(self.probs, -1)
        passed = (level * below[..., -1])[..., None] >= below[..., :-1]
        valid = ~jnp.isnan(below[..., -1])
        return as_counts(passed.sum(-1).astype(self.dtype), valid)

    @property
    def base_size(self) -> int:
        return 1

    def place(self, eps: Float[Array, "*b 1"]) -> Values:
        below = jnp.cumsum(self.probs, -1)[..., :-1]
        return (ndtr(eps) >= below).sum(-1).astype(self.dtype)

    @property
    def mode(self) -> Int[Array, "*b"]:
        likeliest = jnp.argmax(self.logits, -1).astype(self.dtype)
        return as_counts(likeliest, ~jnp.isnan(self.logits[..., 0]))

    def cdf(self, x: Values) -> Values:
        """P(the class number is ≤ x)."""
        x = self.as_floats(x)
        numbers = jnp.arange(self.logits.shape[-1])
        below = jnp.where(x[..., None] >= numbers, self.probs, 0).sum(-1)
        # The last sum is one but for its rounding.
        everything = jnp.where(x >= numbers[-1], 1 + 0 * below, below)
        return jnp.where(jnp.isnan(x), jnp.nan, everything)

    def _log_density(self, x: Values) -> Values:
        here = x[..., None] == jnp.arange(self.logits.shape[-1])
        return jnp.where(here, log_softmax(self.logits), 0).sum(-1)

    def entropy(self) -> Values:
        return softmax_entropy(self.logits)
