"""Likelihoods of counts.

    Bernoulli     f = logit          Λ = p (1 − p)
    Binomial      f = logit          Λ = n p (1 − p)
    Poisson       f = log μ          Λ = μ

Log probabilities are written from their largest value downwards, log p = log p̂ − D/2
with the unit deviance D, so that large counts keep their digits and no term is
infinite where a logit saturates.

Source: McCullagh and Nelder (1989), Generalized linear models, table 2.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.count_sampling import draw_binomial, draw_poisson
from ngvi.families.domains import Domain, whole_numbers
from ngvi.families.parameters import family as record
from ngvi.families.special import expm1_minus
from ngvi.families.special.count_densities import log_factorial_excess
from ngvi.families.special.logistic import (
    logistic_kl,
    sigmoid,
    sigmoid_slope,
    softplus,
)
from ngvi.fisher.likelihoods.base import check_support, like
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values


@record
class Bernoulli(Elementwise):
    """y ∈ {0, 1} with logits f.

    Example:
        >>> import jax.numpy as jnp
        >>> float(Bernoulli().fisher_mv(jnp.array(0.0), jnp.array(1.0)))
        0.25
    """

    natural: ClassVar[bool] = True
    location: ClassVar[str] = "logit mean"
    support: ClassVar[Domain] = whole_numbers(0, 1)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        return 2 * softplus(jnp.where(y > 0, -f[0], f[0]))

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        return -self.unit_deviance(y, *f) / 2

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Array:
        return jax.random.bernoulli(key, sigmoid(f[0])).astype(jnp.result_type(int))

    def mean_each(self, *f: Values) -> Values:
        return sigmoid(f[0])

    def information(self, *f: Values) -> Triangle:
        return ((sigmoid_slope(f[0]),),)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        return logistic_kl(f[0], g[0])


@record
class Binomial(Elementwise):
    """y successes of n trials, with logits f.

    Args:
        total_count: n, one number or one for each output.
    """

    total_count: Any

    natural: ClassVar[bool] = True
    location: ClassVar[str] = "logit mean"
    support: ClassVar[Domain] = whole_numbers(0)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        n = like(self.total_count, f[0])
        inner = (y > 0) & (y < n)
        odds = jnp.where(inner, y, 1) / jnp.where(inner, n - y, 1)
        edge = softplus(jnp.where(y > 0, -f[0], f[0]))
        return 2 * n * jnp.where(inner, logistic_kl(jnp.log(odds), f[0]), edge)

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        n = self.parameter("total_count", f)
        # The log probability at p = y/n, where it is largest.
        largest = (
            log_factorial_excess(n)
            - log_factorial_excess(y)
            - log_factorial_excess(n - y)
        )
        return largest - self.unit_deviance(y, *f) / 2

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Array:
        n = self.parameter("total_count", f)
        return draw_binomial(key, n, sigmoid(f[0]), sigmoid(-f[0]))

    def mean_each(self, *f: Values) -> Values:
        return like(self.total_count, f[0]) * sigmoid(f[0])

    def information(self, *f: Values) -> Triangle:
        return ((like(self.total_count, f[0]) * sigmoid_slope(f[0]),),)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        return like(self.total_count, f[0]) * logistic_kl(f[0], g[0])

    def check_labels(self, outputs: Any, y: Array) -> None:
        super().check_labels(outputs, y)
        fewer = Domain(
            "no more than total_count",
            0,
            lambda value, xp: value <= xp.asarray(self.total_count),
        )
        check_support(self._name, fewer, y, tuple(outputs.shape))


@record
class Poisson(Elementwise):
    """y ~ Poisson(exp f).

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(Poisson().mean(jnp.log(jnp.array(3.0)))), 6)
        3.0
    """

    natural: ClassVar[bool] = True
    location: ClassVar[str] = "log mean"
    support: ClassVar[Domain] = whole_numbers(0)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        some = y > 0
        safe = jnp.where(some, y, 1)
        gap = jnp.where(some, f[0] - jnp.log(safe), 0)
        return 2 * jnp.where(some, safe * expm1_minus(gap), jnp.exp(f[0]))

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        return -self.unit_deviance(y, *f) / 2 - log_factorial_excess(y)

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Array:
        return draw_poisson(key, jnp.exp(f[0]))

    def mean_each(self, *f: Values) -> Values:
        return jnp.exp(f[0])

    def information(self, *f: Values) -> Triangle:
        return ((jnp.exp(f[0]),),)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        return jnp.exp(f[0]) * expm1_minus(g[0] - f[0])
