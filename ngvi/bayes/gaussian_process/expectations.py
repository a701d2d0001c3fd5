"""E_q[log p(y | f)] for normal f: closed forms, or Gauss–Hermite quadrature.

    Gaussian   log p(y | m) − v/(2σ²)
    Poisson    log p(y | m) + eᵐ − e^(m + v/2)
    others     Σ_i w_i log p(y | m + √v x_i)

The derivatives in m and v are those of the same expression, so that what is maximised
is one function: by Bonnet's and Price's theorems they are E[∂ log p] and ½ E[∂² log p],
and the gradient in the mean parameters (m, m² + v) of f is

    g₁ = ∂_m E − 2 m ∂_v E,   g₂ = ∂_v E.

Source: Khan and Lin (2017), Conjugate-computation variational inference, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.gaussian_process.prior import Marginals
from ngvi.fisher.likelihoods import (
    Bernoulli,
    Elementwise,
    Gaussian,
    Poisson,
    StudentT,
)

NODES = 32

Values = Float[Array, "n"]


class Expected(NamedTuple):
    """E_q[log p(y | f)] of each datum, and its gradient in f's mean parameters."""

    value: Values
    first: Values
    """g₁."""
    second: Values
    """g₂: −½ the precision of the datum's site; negative where log p is concave."""


def expected_log_prob(likelihood: Elementwise, y: Values, f: Marginals) -> Values:
    """E_q[log p(y | f)] of each datum."""
    mean, variance = f
    if isinstance(likelihood, Gaussian):
        excess = variance / jnp.asarray(likelihood.scale) ** 2
        return likelihood.log_prob_each(y, mean) - excess / 2
    if isinstance(likelihood, Poisson):
        excess = jnp.exp(mean) - jnp.exp(mean + variance / 2)
        return likelihood.log_prob_each(y, mean) + excess
    at, weights = places(f)
    logs = likelihood.log_prob_each(jnp.broadcast_to(y, at.shape), at)
    return weights @ logs


def expected(likelihood: Elementwise, y: Values, f: Marginals) -> Expected:
    """The same with its gradient."""

    def total(f: Marginals) -> tuple[Array, Array]:
        each = expected_log_prob(likelihood, y, f)
        return each.sum(), each

    slope, each = jax.grad(total, has_aux=True)(f)
    return Expected(each, slope.mean - 2 * f.mean * slope.variance, slope.variance)


def places(f: Marginals) -> tuple[Float[Array, "nodes n"], Float[Array, "nodes"]]:
    """Where to look at f, and the weights of these places."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    dtype = f.mean.dtype
    at = f.mean + jnp.sqrt(f.variance) * jnp.asarray(nodes, dtype)[:, None]
    return at, jnp.asarray(weights / weights.sum(), dtype)


@jax.jit
def log_predictive(likelihood: Elementwise, y: Values, f: Marginals) -> Values:
    """log E_q[p(y | f)] of each datum."""
    if isinstance(likelihood, Gaussian):
        wide = jnp.sqrt(jnp.asarray(likelihood.scale) ** 2 + f.variance)
        return Gaussian(wide).log_prob_each(y, f.mean)
    at, weights = places(f)
    logs = likelihood.log_prob_each(jnp.broadcast_to(y, at.shape), at)
    return jax.nn.logsumexp(logs, axis=0, b=weights[:, None])


@jax.jit
def predicted_moments(likelihood: Elementwise, f: Marginals) -> tuple[Values, Values]:
    """Mean and sd of y, the noise included; NaN where there is none."""
    mean, variance = f
    if isinstance(likelihood, Poisson):
        level = jnp.exp(mean + variance / 2)
        return level, jnp.sqrt(level + level**2 * jnp.expm1(variance))
    if isinstance(likelihood, Gaussian | StudentT):
        noise = jnp.asarray(likelihood.scale) ** 2
        if isinstance(likelihood, StudentT):
            df = jnp.asarray(likelihood.df)
            exists = df > 2
            noise *= jnp.where(exists, df / jnp.where(exists, df - 2, 1), jnp.nan)
        return mean, jnp.sqrt(variance + noise)
    at, weights = places(f)
    levels = likelihood.mean_each(at)
    level = weights @ levels
    if isinstance(likelihood, Bernoulli):
        return level, jnp.sqrt(level * (1 - level))
    raise NotImplementedError(
        f"the sd of y under {type(likelihood).__name__} is not known here"
    )
