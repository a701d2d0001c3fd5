"""The logistic function and its kin, kept to their digits at both ends.

    softplus(x)                log(1 + eˣ)
    sigmoid(x)                 1 / (1 + e⁻ˣ)
    sigmoid_slope(x)           σ(x) σ(−x)
    logit(p)                   log p − log(1 − p)
    binary_entropy(x)          −p log p − (1 − p) log(1 − p),  p = σ(x)
    logistic_kl(x, y)          KL of the two-valued laws of logits x and y
    stopped_logistic_kl(x, y)  the same times 1 + eˣ
    softplus_change(x, y)      log(1 + eʸ) − log(1 + eˣ)
    log1mexp(v)                log(1 − eᵛ), v < 0
    odds(v)                    eᵛ / (1 − eᵛ), v < 0
    log_expm1_ratio(y)         log((eʸ − 1)/y), y > 0

At x = ±80 in float32 the smaller of the two probabilities is 2e-35: 1 − p is 1 or 0,
and whatever is formed from it has no digits. Here both come from exponentials of the
smaller one's logit, and derivatives of all orders are written in the same way, where
those of the usual implementations subtract from one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special import tables
from ngvi.families.special.calculus import polynomial, with_partials
from ngvi.families.special.ratios import (
    atanh_excess,
    expm1_minus,
    expm1_minus_series,
    twice_atanh,
)

Values = Float[Array, "*s"]


@with_partials(lambda _, x: sigmoid(x))
def softplus(x: Values) -> Values:
    """log(1 + eˣ)."""
    tail = jnp.exp(-jnp.abs(x))
    return jnp.maximum(x, 0) + twice_atanh(tail / (2 + tail))


@with_partials(lambda _, x: sigmoid_slope(x))
def sigmoid(x: Values) -> Values:
    """1 / (1 + e⁻ˣ)."""
    return jax.lax.logistic(x)


@with_partials(lambda slope, x: -slope * jnp.tanh(x / 2))
def sigmoid_slope(x: Values) -> Values:
    """σ(x) σ(−x), the variance of a Bernoulli variable."""
    tail = jnp.exp(-jnp.abs(x))
    return tail / (1 + tail) ** 2


@with_partials(lambda _, p: 1 / (p * (1 - p)))
def logit(p: Values) -> Values:
    """log p − log(1 − p) for 0 < p < 1."""
    return jnp.log(p / (1 - p))


@with_partials(lambda _, x: -x * sigmoid_slope(x))
def binary_entropy(x: Values) -> Values:
    """The entropy of a Bernoulli variable with logit x."""
    size = jnp.abs(x)
    tail = jnp.exp(-size)
    return twice_atanh(tail / (2 + tail)) + size * (tail / (1 + tail))


@with_partials(
    lambda _, x, y: (x - y) * sigmoid_slope(x), lambda _, x, y: _sigmoid_change(x, y)
)
def logistic_kl(x: Values, y: Values) -> Values:
    """KL(Bernoulli with logit x ‖ Bernoulli with logit y)."""
    y = jnp.where(x > 0, -y, y)
    x = -jnp.abs(x)
    # From here on p = σ(x) ≤ ½; the divergence is log(1 + p (eᵈ − 1)) − p d.
    d, near, p, excess, growth, s = _change(x, y)
    cube = 2 * atanh_excess(s)
    close = p * excess - s * growth + cube
    return jnp.where(near, close, jnp.maximum(y, 0) - p * d + (2 * s + cube))


@with_partials(lambda _, x, y: -sigmoid(x), lambda _, x, y: sigmoid(y))
def softplus_change(x: Values, y: Values) -> Values:
    """log(1 + eʸ) − log(1 + eˣ), to rounding also where x and y nearly agree."""
    c = _change(x, y)
    step = jnp.where(c.near, 0, jnp.maximum(y, 0) - jnp.maximum(x, 0))
    return step + twice_atanh(c.s)


class _Change(NamedTuple):
    """From logit x to logit y."""

    d: Values  # y − x
    near: Array  # |d| < 1
    p: Values  # σ(x)
    excess: Values  # eᵈ − 1 − d, only where near
    growth: Values  # p (eᵈ − 1), only where near
    s: Values  # 2 atanh s is log(1 + growth), or the change of log(1 + e^{−|x|})


def _change(x: Values, y: Values) -> _Change:
    d = y - x
    start, end = jnp.exp(-jnp.abs(x)), jnp.exp(-jnp.abs(y))
    p = jnp.where(x > 0, 1, start) / (1 + start)
    near = jnp.abs(d) < 1
    excess = expm1_minus_series(d)
    growth = p * (d + excess)
    s = jnp.where(near, growth / (2 + growth), (end - start) / (2 + start + end))
    return _Change(d, near, p, excess, growth, s)


@with_partials(
    lambda _, x, y: jnp.exp(x) * softplus_change(-x, -y),
    lambda _, x, y: _exp_change(x, y) * sigmoid(-y),
)
def stopped_logistic_kl(x: Values, y: Values) -> Values:
    """(1 + eˣ) logistic_kl(x, y): that of trials up to the first of probability
    σ(−x)."""
    return (1 + jnp.exp(x)) * logistic_kl(x, y)


@with_partials(lambda _, x, y: -jnp.exp(x), lambda _, x, y: jnp.exp(y))
def _exp_change(x: Values, y: Values) -> Values:
    """eʸ − eˣ."""
    return jnp.sign(x - y) * jnp.exp(jnp.maximum(x, y)) * jnp.expm1(-jnp.abs(y - x))


@with_partials(lambda _, x, y: -sigmoid_slope(x), lambda _, x, y: sigmoid_slope(y))
def _sigmoid_change(x: Values, y: Values) -> Values:
    """σ(y) − σ(x)."""
    sign = jnp.where(y > x, 1, -1).astype(x.dtype)
    # σ(x) σ(−y) (e^{y−x} − 1), from the end where the exponential is below one.
    scale = jax.lax.logistic(-sign * x) * jax.lax.logistic(sign * y)
    return -sign * scale * jnp.expm1(-jnp.abs(y - x))


@with_partials(lambda _, v: -odds(v))
def log1mexp(v: Values) -> Values:
    """log(1 − eᵛ) for v < 0."""
    near = v > -0.6931472
    # Each branch sees values of its own side only.
    return jnp.where(
        near,
        jnp.log(-jnp.expm1(jnp.where(near, v, -1))),
        jnp.log1p(-jnp.exp(jnp.where(near, -1, v))),
    )


@with_partials(lambda value, v: value * (1 + value))
def odds(v: Values) -> Values:
    """eᵛ / (1 − eᵛ) for v < 0."""
    return jnp.exp(v) / -jnp.expm1(v)


def expm1_excess_rate(y: Values) -> Values:
    """(eʸ − 1 − y)/y: ½ y as y → 0, also where y² underflows."""
    tiny = jnp.abs(y) < jnp.finfo(y.dtype).eps
    safe = jnp.where(tiny, 1, y)
    return jnp.where(tiny, y / 2, expm1_minus(safe) / safe)


@with_partials(lambda _, y: log_expm1_ratio_slope(y))
def log_expm1_ratio(y: Values) -> Values:
    """log((eʸ − 1)/y) for y > 0: ½ y as y → 0."""
    near = y < 1
    small, large = jnp.where(near, y, 1), jnp.where(near, 1, y)
    return jnp.where(
        near,
        jnp.log1p(expm1_excess_rate(small)),
        large + jnp.log(-jnp.expm1(-large)) - jnp.log(large),
    )


@with_partials(lambda slope, y: _slope_slope(slope, y))
def log_expm1_ratio_slope(y: Values) -> Values:
    """eʸ/(eʸ − 1) − 1/y for y > 0, the derivative of `log_expm1_ratio`: ½ to 1."""
    near = y < 1
    small, large = jnp.where(near, y, 1), jnp.where(near, 1, y)
    series = 0.5 + small * polynomial(tables.BERNOULLI, small * small)
    return jnp.where(near, series, -1 / jnp.expm1(-large) - 1 / large)


def _slope_slope(slope: Values, y: Values) -> Values:
    """The derivative of `log_expm1_ratio_slope`, s (1 − s) + (1 − 2 s)/y."""
    near = y < 1
    small, large = jnp.where(near, y, 1), jnp.where(near, 1, y)
    terms = [c * (2 * k + 1) for k, c in enumerate(tables.BERNOULLI)]
    far = slope * (1 - slope) + (1 - 2 * slope) / large
    return jnp.where(near, polynomial(terms, small * small), far)
