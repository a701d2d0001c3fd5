"""Draws of Poisson and binomial counts, exact for small and for huge means.

Below a mean of 10 by inversion: one uniform number and the probabilities in turn. From
there on by transformed rejection, which takes 1.2 trials a draw at any mean. The trial
count is drawn as a whole distance from the mean and its log probability ratio is a
saddle-point form, so that float32 serves as well at a mean of 1e8 as at 10.

Source: Hörmann (1993), The transformed rejection method for generating Poisson random
variables, algorithm PTRS; The generation of binomial random variates, algorithm BTRS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.families.special.count_densities import (
    log_factorial_excess,
    poisson_deviance,
    poisson_log_prob,
)

Values = Float[Array, "*s"]
Counts = Int[Array, "*s"]
INVERSION_LIMIT = 10.0


def whole_dtype() -> Any:
    """The integer dtype of draws: JAX's default."""
    return jnp.result_type(int)


def as_counts(x: Values, valid: Any = True) -> Counts:
    """Whole numbers as integers, the largest integer beyond; −1 where not valid."""
    limit = jnp.iinfo(whole_dtype()).max
    fits = x < float(limit)
    counts = jnp.where(fits, x, 0).astype(whole_dtype())
    return jnp.where(valid & ~jnp.isnan(x), jnp.where(fits, counts, limit), -1)


def beyond(k: Values, inside: Array, value: Values) -> Values:
    """A distribution function's values; elsewhere 0 below the counts, 1 at infinity."""
    elsewhere = jnp.where(jnp.isnan(k), jnp.nan, (k > 0).astype(value.dtype))
    return jnp.where(inside, value, elsewhere + 0 * value)


def draw_poisson(key: Key[Array, ""], mean: Values) -> Counts:
    """One draw for every mean; −1 where it is NaN."""
    small = mean < INVERSION_LIMIT
    few_key, many_key = jax.random.split(key)
    m = jnp.where(small, mean, 1)
    few = _invert(few_key, small, m, jnp.exp(-m), lambda k: m / k)
    m = jnp.where(mean >= INVERSION_LIMIT, mean, INVERSION_LIMIT)
    spread = jnp.sqrt(m)
    b = 0.931 + 2.53 * spread
    a = -0.059 + 0.02483 * b
    hat = jnp.log(1.1239 + 1.1328 / (b - 3.4))

    def log_ratio(x: Values) -> Values:
        return poisson_log_prob(x, m)

    squeeze = 0.9277 - 3.6224 / (b - 2)
    many = _reject(many_key, ~small, m, 0.43, (a, b, hat, squeeze), log_ratio, jnp.inf)
    counts = jnp.where(small, as_counts(few), many)
    return jnp.where(jnp.isnan(mean), -1, counts)


def draw_binomial(key: Key[Array, ""], n: Values, p: Values, q: Values) -> Counts:
    """One draw of Binomial(n, p) for every entry, q = 1 − p; −1 where p is NaN."""
    less, more = jnp.minimum(p, q), jnp.maximum(p, q)
    mean = n * less
    small = mean < INVERSION_LIMIT
    few_key, many_key = jax.random.split(key)
    odds = jnp.where(small, less / more, 0)
    none = jnp.exp(n * jnp.log1p(-jnp.where(small, less, 0)))
    few = _invert(few_key, small, mean, none, lambda k: ((n + 1) / k - 1) * odds)

    large = mean >= INVERSION_LIMIT
    size = jnp.where(large, n, 4 * INVERSION_LIMIT)
    rate, rest = jnp.where(large, less, 0.5), jnp.where(large, more, 0.5)
    m = size * rate
    spread = jnp.sqrt(m * rest)
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * rate
    top = jnp.floor(m + rate)

    def log_prob(x: Values) -> Values:
        left = jnp.maximum(size - x, 0)
        deviance = poisson_deviance(x, m) + poisson_deviance(left, size * rest)
        return -deviance - log_factorial_excess(x) - log_factorial_excess(left)

    hat = jnp.log((2.83 + 5.1 / b) * spread) + log_prob(top)
    squeeze = 0.92 - 4.2 / b
    many = _reject(many_key, large, m, 0.5, (a, b, hat, squeeze), log_prob, size)
    counts = jnp.where(small, as_counts(few), many)
    flipped = jnp.where(p > q, as_counts(n) - counts, counts)
    return jnp.where(jnp.isnan(p), -1, flipped)


def _invert(
    key: Key[Array, ""],
    wanted: Array,
    mean: Values,
    none: Values,
    factor: Callable[[Values], Values],
) -> Values:
    """The counts at uniform levels, from P(0) and the factors P(k)/P(k − 1)."""
    level = jax.random.uniform(key, mean.shape, mean.dtype)
    negligible = jnp.finfo(mean.dtype).eps / 16

    def unfinished(state: tuple) -> Array:
        k, probability, level = state
        more = (probability > negligible) | (k < mean)
        return wanted & (level >= probability) & more

    def advance(state: tuple) -> tuple:
        k, probability, level = state
        moving = unfinished(state)
        return (
            jnp.where(moving, k + 1, k),
            jnp.where(moving, probability * factor(k + 1), probability),
            jnp.where(moving, level - probability, level),
        )

    start = (jnp.zeros_like(mean), none, level)
    return jax.lax.while_loop(lambda s: unfinished(s).any(), advance, start)[0]


def _reject(
    key: Key[Array, ""],
    wanted: Array,
    mean: Values,
    shift: float,
    constants: tuple[Values, Values, Values, Values],
    log_prob: Callable[[Values], Values],
    limit: Any,
) -> Counts:
    """Transformed rejection; counts are the floor of the mean and a whole distance."""
    a, b, log_hat, squeeze = constants
    floor = jnp.floor(mean)
    tiny = jnp.finfo(mean.dtype).tiny

    def advance(state: tuple) -> tuple:
        key, distance, done = state
        key, first, second = jax.random.split(key, 3)
        u = jax.random.uniform(first, mean.shape, mean.dtype, -0.5, 0.5)
        v = jax.random.uniform(second, mean.shape, mean.dtype, tiny, 1.0)
        edge = jnp.maximum(0.5 - jnp.abs(u), tiny)
        trial = jnp.floor((2 * a / edge + b) * u + ((mean - floor) + shift))
        x = floor + trial
        inside = (x >= 0) & (x <= limit)
        height = jnp.log(v) + log_hat - jnp.log(a / edge**2 + b)
        fine = height <= log_prob(jnp.where(inside, x, floor))
        accept = inside & (fine | ((edge >= 0.07) & (v <= squeeze)))
        return key, jnp.where(done, distance, trial), done | accept

    start = (key, jnp.zeros_like(mean), ~wanted)
    _, distance, _ = jax.lax.while_loop(lambda s: ~s[2].all(), advance, start)
    # Whole numbers beyond the digits of a float, below the range of an integer.
    limit_int = jnp.iinfo(whole_dtype()).max
    fits = floor + distance < float(limit_int) * 0.99
    base = as_counts(jnp.where(fits, floor, 0))
    whole = jnp.where(fits, distance, 0).astype(whole_dtype())
    return jnp.where(fits, base + whole, as_counts(floor + distance))
