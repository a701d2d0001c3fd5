"""Averages over draws of the weights, for some rows: what predictions are made of.

With w_s ~ q, s = 1 … S, and f_s = f(w_s, x):

    p(y | x)  ≈ (1/S) Σ p(y | f_s),
    E[y | x]  ≈ the mean of E[y | f_s],
    var[y | x] ≈ the variance of E[y | f_s] + the mean of var[y | f_s].

The variance's first part is what the weights do not know, its second the noise. Where
the noise's precision γ has a posterior of its own, p(y | f_s) is Student's t.

A function of `At` gives leaves with the rows first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.likelihoods import (
    Bernoulli,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
)
from ngvi.nets.observation_noise import ObservationNoise

LABELS = 16
"""Drawn for every draw of the weights, where quantiles are wanted."""


class Moments(NamedTuple):
    """Of y at every row."""

    mean: Array
    sd: Array
    """Of y, its noise included; infinite where the noise has no variance."""
    sd_of_mean: Array
    """Of E[y | f] over the weights alone."""


class At(NamedTuple):
    """Some rows, with what is drawn for all of them."""

    outputs: Any
    """f, the draws first."""
    y: Any
    keys: Key[Array, "b"]
    likelihood: Likelihood
    noise: ObservationNoise | None
    """Where it is learned: q(γ) of every draw, that of its component in a mixture."""
    noise_sd: Float[Array, "s"] | None
    """1/√γ of every draw, where the noise is learned."""
    levels: Any


def outputs(at: At) -> Any:
    return swapped(at.outputs)


def mean(at: At) -> Any:
    return _over_pairs(at.likelihood.mean, at.outputs).mean(0)


def moments(at: At) -> Moments:
    means = _over_pairs(at.likelihood.mean, at.outputs)
    of_weights = means.var(0)
    variance = of_weights + _noise_variance(at, means)
    return Moments(means.mean(0), jnp.sqrt(variance), jnp.sqrt(of_weights))


def _noise_variance(at: At, means: Array) -> Array:
    """The mean of var[y | f] over the draws."""
    likelihood = at.likelihood
    if at.noise is not None:
        a, b = at.noise.q.concentration, at.noise.q.rate
        tiny = jnp.finfo(a.dtype).tiny
        return jnp.where(a > 1, b / jnp.maximum(a - 1, tiny), jnp.inf).mean()
    if isinstance(likelihood, Gaussian):
        return jnp.asarray(likelihood.scale) ** 2
    if isinstance(likelihood, HeteroscedasticGaussian):
        return jnp.exp(2 * at.outputs[1]).mean(0)
    if isinstance(likelihood, Bernoulli):
        return (means * (1 - means)).mean(0)
    if isinstance(likelihood, Poisson):
        return means.mean(0)
    return ((_labels_drawn(at) - means) ** 2).mean(0)


def log_density(at: At) -> Float[Array, "b"]:
    if at.noise is not None:
        given = jax.vmap(ObservationNoise.log_predictive, (0, 0, None))
        each = given(at.noise, at.outputs, at.y)
    else:
        log_prob = jax.vmap(at.likelihood.log_prob)
        each = jax.vmap(log_prob, (0, None))(at.outputs, at.y)
    return jax.scipy.special.logsumexp(each, 0) - jnp.log(len(each))


def labels(at: At) -> Any:
    return swapped(_labels_drawn(at))


def quantiles(at: At) -> Float[Array, "b q *o"]:
    def again(repeat: Any) -> Any:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, repeat))(at.keys)
        return _labels_drawn(at._replace(keys=keys))

    drawn = jax.vmap(again)(jnp.arange(LABELS))
    drawn = drawn.reshape(-1, *drawn.shape[2:])
    return swapped(jnp.quantile(drawn, at.levels, axis=0))


def _labels_drawn(at: At) -> Any:
    """A label for every draw and row."""
    draws = jax.tree.leaves(at.outputs)[0].shape[0]
    keys = jax.vmap(lambda key: jax.random.split(key, draws), out_axes=1)(at.keys)
    if at.noise_sd is None:
        return jax.vmap(jax.vmap(at.likelihood.sample))(keys, at.outputs)

    def noisy(key: Key[Array, ""], f: Array, sd: Array) -> Array:
        return f + sd * jax.random.normal(key, f.shape, f.dtype)

    return jax.vmap(jax.vmap(noisy, (0, 0, None)))(keys, at.outputs, at.noise_sd)


def _over_pairs(function: Callable[[Any], Any], outputs: Any) -> Array:
    return jax.vmap(jax.vmap(function))(outputs)


def swapped(tree: Any) -> Any:
    """Rows before draws, or the other way round."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tree)
