"""Factor analysis with entries missing: probabilistic matrix factorisation.

    y_ij ~ N(w_jᵀ z_i + b_j, 1/τ_j)  for the entries that are there,
    z_i ~ N(0, I),  w_jk ~ N(0, 1/α_k),  b_j ~ N(0, 1/α_b),  α_k, τ_j ~ Gamma.

With z̃ = (z, 1), v = (w, b) and o_ij marking the entries that are there, q is a product
over rows, columns and precisions, and the factors expect of each other

    q(z_i)   (Σ_j o_ij τ_j (y_ij E w_j − E[w_j b_j]), −½ Σ_j o_ij τ_j E[w_j w_jᵀ]),
    q(v_j)   (τ_j Σ_i o_ij y_ij E z̃_i, −½ τ_j Σ_i o_ij E[z̃_i z̃_iᵀ]),
    q(τ_j)   (½ Σ_i o_ij, −½ Σ_i o_ij E(y_ij − v_jᵀ z̃_i)²),
    q(α_k)   (p/2, −½ Σ_j E w_jk²).

The rows are local, all else is global: with all rows and ρ = 1 the bound never falls; a
minibatch of rows takes a stochastic step of the columns and their noise. The α_k of a
factor that is not needed grows until it vanishes. One τ for all columns is the noise of
matrix factorisation and of principal components.

Source: Ghahramani and Beal (2000), Variational inference for Bayesian mixtures of
factor analysers; Salakhutdinov and Mnih (2008), Bayesian probabilistic matrix
factorization.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ngvi.bayes.conjugate.update import Ascent, ascend, conjugate_step, divergence
from ngvi.families import Gamma, Gaussian
from ngvi.families.special.tables import LOG_2PI
from ngvi.linalg import Dense

LEVEL_PRECISION = 1e-2
"""α_b, for columns of variance one."""


class Data(NamedTuple):
    y: Float[Array, "n p"]
    """Zero where an entry is missing."""
    there: Float[Array, "n p"]
    """o, ones and zeros."""

    @classmethod
    def of(cls, y: Float[Array, "n p"], there: Bool[Array, "n p"]) -> Data:
        y = jnp.asarray(y)
        return cls(jnp.where(there, y, 0), jnp.asarray(there, y.dtype))


class Priors(NamedTuple):
    relevance: Gamma
    """Of every α_k."""
    noise: Gamma
    """Of every τ_j."""


class Columns(NamedTuple):
    """The global part of q."""

    loadings: Gaussian
    """q(v_j), a batch of (p,) in K + 1 dimensions."""
    relevance: Gamma
    """q(α_k)."""
    noise: Gamma
    """q(τ_j), of (p,), or of (1,) where all columns have the same."""


class Moments(NamedTuple):
    """E x and E[x xᵀ] of a batch of vectors."""

    mean: Float[Array, "b d"]
    second: Float[Array, "b d d"]

    @classmethod
    def of(cls, q: Gaussian) -> Moments:
        outer = q.mean[..., :, None] * q.mean[..., None, :]
        return cls(q.mean, q.precision.inverse_dense() + outer)

    def with_one(self) -> Moments:
        """Those of (x, 1)."""
        ones = jnp.ones((len(self.mean), 1), self.mean.dtype)
        mean = jnp.concatenate([self.mean, ones], 1)
        inner = jnp.concatenate([self.second, self.mean[:, None]], 1)
        return Moments(mean, jnp.concatenate([inner, mean[..., None]], 2))


def rows(columns: Columns, data: Data) -> Gaussian:
    """q(z_i), a batch of (n,): Bayes' rule, given the columns."""
    v = Moments.of(columns.loadings)
    k = columns.loadings.dim - 1
    weight = data.there * columns.noise.mean
    linear = (weight * data.y) @ v.mean[:, :k] - weight @ v.second[:, :k, k]
    precision = jnp.einsum("ij,jkl->ikl", weight, v.second[:, :k, :k])
    eye = jnp.broadcast_to(jnp.eye(k, dtype=linear.dtype), precision.shape)
    prior = Gaussian(jnp.zeros_like(linear), Dense(eye, eye))
    return conjugate_step(prior, prior, (linear, -precision / 2))


def misfit(v: Moments, z: Moments, data: Data) -> Float[Array, "p"]:
    """Σ_i o_ij E(y_ij − v_jᵀ z̃_i)² of each column.

    E(…)² = (y − E v · E z̃)² + tr(E[vvᵀ] E[z̃z̃ᵀ]) − (E v · E z̃)².
    """
    error = data.there * (data.y - z.mean @ v.mean.T)
    outer = v.mean[:, :, None] * v.mean[:, None]
    spread = jnp.einsum("ij,ikl->jkl", data.there, z.second)
    level = jnp.einsum("ij,ik,il->jkl", data.there, z.mean, z.mean)
    return (error**2).sum(0) + (v.second * spread - outer * level).sum((1, 2))


def loadings_prior(columns: Columns) -> Gaussian:
    """N(0, diag(E α, α_b)⁻¹), the same for each column."""
    precision = jnp.append(columns.relevance.mean, LEVEL_PRECISION)
    sd = jnp.broadcast_to(precision**-0.5, columns.loadings.mean.shape)
    return Gaussian(jnp.zeros_like(sd), jax.vmap(Dense.from_deviations)(sd))


def move(
    columns: Columns,
    priors: Priors,
    z: Moments,
    data: Data,
    step_size: float | Float[Array, ""] = 1.0,
    scale: float | Float[Array, ""] = 1.0,
) -> Columns:
    """A step of everything global along the statistics of some rows.

    Args:
        columns: as they are.
        priors: of relevance and noise.
        z: of the rows' z̃.
        data: the rows.
        step_size: ρ.
        scale: N/B of a minibatch.
    """
    p, k = columns.loadings.mean.shape[0], columns.loadings.dim - 1
    noise = jnp.broadcast_to(columns.noise.mean, (p,))
    linear = noise[:, None] * ((data.there * data.y).T @ z.mean)
    curvature = jnp.einsum("ij,ikl->jkl", data.there, z.second)
    loadings = conjugate_step(
        columns.loadings,
        loadings_prior(columns),
        (linear, -noise[:, None, None] / 2 * curvature),
        step_size,
        scale,
    )
    v = Moments.of(loadings)
    errors, counts = misfit(v, z, data), data.there.sum(0)
    if columns.noise.batch_shape == (1,):
        errors, counts = errors.sum(keepdims=True), counts.sum(keepdims=True)
    new_noise = conjugate_step(
        columns.noise, priors.noise, (counts / 2, -errors / 2), step_size, scale
    )
    squares = jnp.diagonal(v.second, axis1=1, axis2=2)[:, :k].sum(0)
    half = jnp.full_like(squares, p / 2)
    # Of the columns, not of the rows: nothing to scale.
    relevance = conjugate_step(
        columns.relevance, priors.relevance, (half, -squares / 2), step_size
    )
    return Columns(loadings, relevance, new_noise)


def bound(
    columns: Columns, priors: Priors, q: Gaussian, z: Moments, data: Data
) -> Float[Array, ""]:
    """The evidence lower bound of the entries that are there.

    Args:
        columns: the global part of q.
        priors: of relevance and noise.
        q: the rows' z.
        z: the moments of their z̃.
        data: the rows.
    """
    p, k = columns.loadings.mean.shape[0], columns.loadings.dim - 1
    v = Moments.of(columns.loadings)
    log_noise, noise = columns.noise.mean_params
    errors = misfit(v, z, data)
    likelihood = (data.there.sum(0) * (log_noise - LOG_2PI) - noise * errors).sum()
    # log p(z), of which the last square is that of the one.
    squares = jnp.trace(z.second, axis1=1, axis2=2).sum() - len(z.mean)
    of_rows = -squares - len(z.mean) * k * LOG_2PI
    # log p(w, b).
    log_relevance, relevance = columns.relevance.mean_params
    squares = jnp.diagonal(v.second, axis1=1, axis2=2).sum(0)
    of_columns = (p * log_relevance - relevance * squares[:k]).sum()
    of_columns += p * math.log(LEVEL_PRECISION) - LEVEL_PRECISION * squares[k]
    of_columns -= p * (k + 1) * LOG_2PI
    price = divergence(columns.relevance, priors.relevance)
    price += divergence(columns.noise, priors.noise)
    entropy = q.entropy().sum() + columns.loadings.entropy().sum()
    return (likelihood + of_rows + of_columns) / 2 + entropy - price


@partial(jax.jit, static_argnames="room")
def fit(
    start: Columns, priors: Priors, data: Data, tol: float, most: int, room: int
) -> Ascent:
    """Coordinate ascent; each bound is that before the columns move."""

    def step(columns: Any) -> tuple[Any, Float[Array, ""]]:
        q = rows(columns, data)
        z = Moments.of(q).with_one()
        now = bound(columns, priors, q, z, data)
        return move(columns, priors, z, data), now

    return ascend(step, start, tol, most, room)


@jax.jit
def stochastic_step(
    columns: Columns, priors: Priors, data: Data, step_size: float, scale: float
) -> Columns:
    """A step along the statistics of a minibatch of rows, `scale` times."""
    z = Moments.of(rows(columns, data)).with_one()
    return move(columns, priors, z, data, step_size, scale)


@jax.jit
def look(
    columns: Columns, priors: Priors, data: Data
) -> tuple[Gaussian, Float[Array, ""]]:
    """q(z) of rows, and the bound with it."""
    q = rows(columns, data)
    return q, bound(columns, priors, q, Moments.of(q).with_one(), data)
