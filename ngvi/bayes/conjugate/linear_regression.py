"""Linear regression with automatic relevance: a precision for every weight, learned.

    y_i ~ N(wᵀx_i, 1/β),  w_j ~ N(0, 1/α_j),  α_j ~ Gamma,  β ~ Gamma,
    q = q(w) Π_j q(α_j) q(β),  q(w) = N(m, S⁻¹);

all statistics that a factor expects from the others are closed forms:

    q(w)     (E β Xᵀy, −½ E β XᵀX), its prior the N(0, diag(E α)⁻¹) of now,
    q(α_j)   (½, −½ E w_j²),
    q(β)     (n/2, −½ E ‖y − Xw‖²).

Steps of length one; the bound never falls. The α_j of a weight that the data do not ask
for grows until the weight vanishes.

Source: MacKay (1994), Bayesian non-linear modelling for the prediction competition;
Bishop and Tipping (2000), Variational relevance vector machines.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.bayes.conjugate.update import Ascent, ascend, conjugate_step, divergence
from ngvi.families import Gamma, Gaussian
from ngvi.families.special.tables import LOG_2PI
from ngvi.linalg import Dense


class Data(NamedTuple):
    """Rows, and what of them every iteration needs."""

    x: Float[Array, "n p"]
    y: Float[Array, "n"]
    gram: Float[Array, "p p"]
    """XᵀX."""
    product: Float[Array, "p"]
    """Xᵀy."""

    @classmethod
    def of(cls, x: Float[Array, "n p"], y: Float[Array, "n"]) -> Data:
        return cls(x, y, x.T @ x, x.T @ y)


class Priors(NamedTuple):
    relevance: Gamma
    """Of every α_j."""
    noise: Gamma
    """Of β."""


class Posterior(NamedTuple):
    weights: Gaussian
    relevance: Gamma
    """q(α_j), a batch of (p,)."""
    noise: Gamma


def squares(q: Gaussian) -> Float[Array, "p"]:
    """E w_j²."""
    return q.mean**2 + q.variance


def misfit(q: Gaussian, data: Data) -> Float[Array, ""]:
    """E ‖y − Xw‖²."""
    error = data.y - data.x @ q.mean
    return error @ error + (data.gram * q.precision.inverse_dense()).sum()


def weights_prior(relevance: Gamma) -> Gaussian:
    """N(0, diag(E α)⁻¹)."""
    mean = relevance.mean
    return Gaussian(jnp.zeros_like(mean), Dense.from_deviations(mean**-0.5))


def move(q: Posterior, priors: Priors, data: Data) -> Posterior:
    """Every factor once."""
    noise = q.noise.mean
    weights = conjugate_step(
        q.weights,
        weights_prior(q.relevance),
        (noise * data.product, -noise / 2 * data.gram),
    )
    each = squares(weights)
    relevance = conjugate_step(
        q.relevance, priors.relevance, (jnp.full_like(each, 0.5), -each / 2)
    )
    half = jnp.asarray(len(data.y) / 2, each.dtype)
    new_noise = conjugate_step(
        q.noise, priors.noise, (half, -misfit(weights, data) / 2)
    )
    return Posterior(weights, relevance, new_noise)


def bound(q: Posterior, priors: Priors, data: Data) -> Float[Array, ""]:
    """The evidence lower bound."""
    log_noise, noise = q.noise.mean_params
    log_relevance, relevance = q.relevance.mean_params
    n, p = data.x.shape
    likelihood = n * (log_noise - LOG_2PI) - noise * misfit(q.weights, data)
    prior = (log_relevance - relevance * squares(q.weights)).sum() - p * LOG_2PI
    price = divergence(q.relevance, priors.relevance)
    price += divergence(q.noise, priors.noise)
    return (likelihood + prior) / 2 + q.weights.entropy() - price


@partial(jax.jit, static_argnames="room")
def fit(data: Data, priors: Priors, tol: float, most: int, room: int) -> Ascent:
    """Coordinate ascent, from weights and noise of precision one."""
    p = data.x.shape[1]
    eye = jnp.eye(p, dtype=data.x.dtype)
    ones = jnp.ones(p, data.x.dtype)
    start = Posterior(
        Gaussian(jnp.zeros(p, data.x.dtype), Dense(eye, eye)),
        Gamma(ones, ones),
        Gamma(ones[0], ones[0]),
    )

    def step(q: Any) -> tuple[Any, Float[Array, ""]]:
        moved = move(q, priors, data)
        return moved, bound(moved, priors, data)

    return ascend(step, start, tol, most, room)
