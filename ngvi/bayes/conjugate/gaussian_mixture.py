"""Gaussian mixtures: every part is conjugate, and has a posterior.

    π ~ Dirichlet(α₀),  (m_k, Σ_k) ~ NIW₀,  z_i ~ π,  x_i ~ N(m_z, Σ_z),
    q = q(π) Π_k q(m_k, Σ_k) Π_i r_i(z),

    r_ik ∝ exp(E log π_k + ⟨μ_k, c(x_i)⟩),
    λ_π⁺ = (1 − ρ) λ_π + ρ (λ₀ + s Σ_i r_i),
    λ_k⁺ = (1 − ρ) λ_k + ρ (λ₀ + s Σ_i r_ik c(x_i)),

where c(x) is what an observation adds to the natural parameters of its prior (see
`ngvi.families.conjugacy`) and μ_k = E[T(m_k, Σ_k)]. With diagonal covariances the prior
of each coordinate is a normal-gamma family. ρ = 1 on all data is variational Bayesian
EM; minibatches take stochastic steps.

Source: Attias (2000), A variational Bayesian framework for graphical models, for the
model; Bishop (2006), Pattern recognition and machine learning, section 10.2.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.bayes.conjugate.update import Ascent, ascend, conjugate_step, divergence
from ngvi.families import (
    Dirichlet,
    Gaussian,
    Normal,
    NormalGamma,
    NormalInverseWishart,
)
from ngvi.families.conjugacy import pair_of
from ngvi.families.special.tables import HALF_LOG_2PI

Components = NormalInverseWishart | NormalGamma
Data = Float[Array, "n p"]


class Mixture(NamedTuple):
    """A prior, of one member for all components, or a posterior, of one for each."""

    weights: Dirichlet
    components: Any
    """A batch of (K,) normal-inverse-Wishart members, or of (K, p) normal-gamma."""


def _likelihood(components: Components) -> type:
    return Normal if isinstance(components, NormalGamma) else Gaussian


def terms(components: Components, x: Data) -> Any:
    """c(x) of each datum."""
    likelihood = _likelihood(components)
    return pair_of(components, likelihood).terms(components, likelihood, x)


def log_joint(q: Mixture, x: Data) -> Float[Array, "n K"]:
    """E log π_k + E log N(x_i | m_k, Σ_k)."""

    def pairs(mean: Array, term: Array) -> Array:
        count = q.weights.concentration.shape[-1]
        return term.reshape(len(x), -1) @ mean.reshape(count, -1).T

    each = jax.tree.map(pairs, q.components.mean_params, terms(q.components, x))
    log_density = jax.tree.reduce(jnp.add, each) - x.shape[1] * HALF_LOG_2PI
    return log_density + q.weights.mean_params


def move(
    q: Mixture,
    prior: Mixture,
    x: Data,
    r: Float[Array, "n K"],
    step_size: float | Float[Array, ""] = 1.0,
    scale: float | Float[Array, ""] = 1.0,
) -> Mixture:
    """A step of weights and components along the statistics of some data."""
    expected = jax.tree.map(
        lambda c: jnp.tensordot(r, c, (0, 0)), terms(q.components, x)
    )
    return Mixture(
        conjugate_step(q.weights, prior.weights, r.sum(0), step_size, scale),
        conjugate_step(q.components, prior.components, expected, step_size, scale),
    )


def _bound(q: Mixture, prior: Mixture, logs: Float[Array, "n K"]) -> Float[Array, ""]:
    """With the best r: what the data are worth, less KL(q ‖ prior)."""
    price = divergence(q.weights, prior.weights)
    price += divergence(q.components, prior.components)
    return jax.nn.logsumexp(logs, axis=1).sum() - price


@partial(jax.jit, static_argnames="room")
def fit(
    q: Mixture, prior: Mixture, x: Data, tol: float, most: int, room: int
) -> Ascent:
    """Variational Bayesian EM; the bounds are those before each step."""

    def step(q: Mixture) -> tuple[Mixture, Float[Array, ""]]:
        logs = log_joint(q, x)
        moved = move(q, prior, x, jax.nn.softmax(logs, axis=1))
        return moved, _bound(q, prior, logs)

    return ascend(step, q, tol, most, room)


@jax.jit
def stochastic_step(
    q: Mixture, prior: Mixture, x: Data, step_size: float, scale: float
) -> Mixture:
    """A step along the statistics of a minibatch, `scale` times."""
    r = jax.nn.softmax(log_joint(q, x), axis=1)
    return move(q, prior, x, r, step_size, scale)


@jax.jit
def bound(q: Mixture, prior: Mixture, x: Data) -> Float[Array, ""]:
    """The evidence lower bound, with the best r."""
    return _bound(q, prior, log_joint(q, x))


@jax.jit
def begin(prior: Mixture, x: Data, r: Float[Array, "n K"]) -> Mixture:
    """q for given r."""
    repeated = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (r.shape[1], *leaf.shape)),
        prior.components,
    )
    return move(Mixture(prior.weights, repeated), prior, x, r)


@jax.jit
def responsibilities(q: Mixture, x: Data) -> Float[Array, "n K"]:
    """r."""
    return jax.nn.softmax(log_joint(q, x), axis=1)


@partial(jax.jit, static_argnames="count")
def sample(q: Mixture, key: Key[Array, ""], count: int) -> tuple[Data, Int[Array, "n"]]:
    """New data, each with parameters of its own, and their components."""
    of_weights, of_labels, of_parts, of_rows = jax.random.split(key, 4)
    weights = q.weights.sample(of_weights, (count,))
    labels = jax.random.categorical(of_labels, jnp.log(weights))
    parts = q.components.sample(of_parts, (count,))
    mean, spread = jax.tree.map(lambda leaf: leaf[jnp.arange(count), labels], parts)
    eps = jax.random.normal(of_rows, mean.shape, mean.dtype)
    if isinstance(q.components, NormalGamma):
        return mean + eps / jnp.sqrt(spread), labels
    root = jnp.linalg.cholesky(spread)
    return mean + jnp.einsum("nij,nj->ni", root, eps), labels


@jax.jit
def log_predictive(q: Mixture, x: Data) -> Float[Array, "n"]:
    """log p(x | data), the parameters integrated over: a mixture of Student's t."""
    predictive = q.components.predictive(_likelihood(q.components))
    logs = predictive.log_prob(x[:, None])
    if isinstance(q.components, NormalGamma):
        logs = logs.sum(-1)
    return jax.nn.logsumexp(logs + jnp.log(q.weights.mean), axis=1)
