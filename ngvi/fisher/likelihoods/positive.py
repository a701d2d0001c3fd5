"""Likelihoods of positive numbers.

    Gamma, fixed shape α      f = log μ             Λ = α
    Gamma, shape an output    f = (log μ, log α)    Λ = diag(α, α (α ψ'(α) − 1))
    Exponential               f = log rate or log μ  Λ = 1

The mean and the shape of a gamma are orthogonal parameters. None of these f is natural:
the Hessian of −log p for the log mean is α y/μ.

Source: McCullagh and Nelder (1989), Generalized linear models, chapter 8.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.gamma import peak, positive
from ngvi.families.parameters import family as record
from ngvi.families.parameters import fixed
from ngvi.families.special import (
    bregman_log_gamma_excess,
    expm1_minus,
    trigamma_excess,
)
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values


@record
class Gamma(Elementwise):
    """y > 0 of mean μ and shape α: variance μ²/α.

    Args:
        shape: α > 0, one number or one for each output; None where it is learned: the
            outputs are then the pair (log μ, log α), else log μ.
    """

    shape: Any = None

    location: ClassVar[str] = "log mean"
    support: ClassVar[Domain] = POSITIVE

    def _alpha(self, f: tuple[Values, ...]) -> Values:
        return self.parameter("shape", f)

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        return 2 * self._alpha(f) * expm1_minus(jnp.log(y) - f[0])

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        return peak(self._alpha(f)) - jnp.log(y) - self.unit_deviance(y, *f) / 2

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        alpha = self._alpha(f)
        log_y = jax.random.loggamma(key, alpha, dtype=alpha.dtype)
        return positive(jnp.exp(log_y - jnp.log(alpha) + f[0]))

    def mean_each(self, *f: Values) -> Values:
        return jnp.exp(f[0])

    def information(self, *f: Values) -> Triangle:
        alpha = self._alpha(f)
        if self.shape is not None:
            return ((alpha,),)
        return (alpha,), (jnp.zeros_like(alpha), alpha * trigamma_excess(alpha))

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        alpha, other = self._alpha(f), self._alpha(g)
        change = other * expm1_minus(f[0] - g[0])
        if self.shape is None:
            change = change + bregman_log_gamma_excess(alpha, other)
        return change


@record
class Exponential(Elementwise):
    """y > 0 of mean μ and variance μ²: the gamma likelihood of shape one.

    Args:
        output: what f is, "log mean" or "log rate".
    """

    output: str = fixed(
        '"log mean" or "log rate"',
        lambda name: name in ("log mean", "log rate"),
        default="log mean",
    )

    support: ClassVar[Domain] = POSITIVE

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    def _log_mean(self, f: Values) -> Values:
        return f if self.output == "log mean" else -f

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        return 2 * expm1_minus(jnp.log(y) - self._log_mean(f[0]))

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        # At y = μ the density is 1/(e y).
        return -1 - jnp.log(y) - self.unit_deviance(y, *f) / 2

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        draw = jax.random.exponential(key, f[0].shape, f[0].dtype)
        return positive(draw * jnp.exp(self._log_mean(f[0])))

    def mean_each(self, *f: Values) -> Values:
        return jnp.exp(self._log_mean(f[0]))

    def information(self, *f: Values) -> Triangle:
        return ((jnp.ones_like(f[0]),),)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        return expm1_minus(self._log_mean(f[0]) - self._log_mean(g[0]))
