"""Logarithms of ratios and their distance from the tangent, kept at both ends.

    log_ratio(x, y)        log(x/y),               ≈ (x − y)/y as x → y
    log_ratio_gap(x, y)    log(x/y) − (x − y)/y  ≤ 0,  ≈ −½ ((x − y)/y)²
    poisson_divergence     x log(x/y) − x + y    ≥ 0
    expm1_minus(z)         eᶻ − 1 − z            ≥ 0,  ≈ ½ z²

for x, y > 0. The divergences of scale families are made of them: near x = y the first
difference is what has the digits, far from it the ratio is, because x/y − 1 has none
left of a small ratio.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special import tables
from ngvi.families.special.calculus import polynomial, with_partials

Values = Float[Array, "*s"]


@with_partials(lambda _, x, y: 1 / x + 0 * y, lambda _, x, y: -1 / y + 0 * x)
def log_ratio(x: Values, y: Values) -> Values:
    """log(x/y) for x, y > 0, to rounding also where x and y nearly agree."""
    near, ratio, _, s = _parts(x, y)
    return jnp.where(near, twice_atanh(s), jnp.log(ratio))


# Not divided twice: that would be compiled to a division by x y, which underflows.
@with_partials(
    lambda _, x, y: (y - x) / y * (1 / x), lambda _, x, y: (x - y) / y * (1 / y)
)
def log_ratio_gap(x: Values, y: Values) -> Values:
    """log(x/y) − (x − y)/y ≤ 0 for x, y > 0."""
    near, ratio, r, s = _parts(x, y)
    return jnp.where(near, 2 * atanh_excess(s) - s * r, jnp.log(ratio) - r)


@with_partials(lambda _, x, y: log_ratio(x, y), lambda _, x, y: (y - x) / y)
def poisson_divergence(x: Values, y: Values) -> Values:
    """x log(x/y) − x + y ≥ 0 for x, y > 0."""
    return -x * log_ratio_gap(y, x)


@with_partials(lambda _, z: jnp.expm1(z))
def expm1_minus(z: Values) -> Values:
    """eᶻ − 1 − z ≥ 0."""
    near = jnp.abs(z) < 1
    return jnp.where(near, expm1_minus_series(z), jnp.expm1(z) - z)


def expm1_minus_series(z: Values) -> Values:
    """eᶻ − 1 − z for |z| ≤ 1."""
    order = 18 if jnp.finfo(z.dtype).bits > 32 else 11
    terms = [1 / math.factorial(k) for k in range(2, order + 1)]
    return z * z * polynomial(terms, z)


def twice_atanh(s: Values) -> Values:
    """2 atanh s = log((1 + s)/(1 − s)) for |s| < ½: of s = (x − y)/(x + y), log(x/y).

    Without a logarithm, which is dearer than this and inexact near 0.
    """
    return 2 * (s + atanh_excess(s))


def atanh_excess(s: Values) -> Values:
    """atanh s − s for |s| < ½."""
    count = len(tables.ATANH) if jnp.finfo(s.dtype).bits > 32 else 8
    squared = s * s
    return s * squared * polynomial(tables.ATANH[:count], squared)


def _parts(x: Values, y: Values) -> tuple[Array, Values, Values, Values]:
    """Whether x/y is near 1; x/y; (x − y)/y; (x − y)/(x + y)."""
    inverse = 1 / y
    near = (2 * x > y) & (x < 2 * y)
    return near, x * inverse, (x - y) * inverse, (x - y) / (x + y)
