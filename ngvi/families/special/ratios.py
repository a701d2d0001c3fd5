"""Logarithms of ratios and their distance from the tangent, kept at both ends.

    log_ratio(x, y)        log(x/y),               ≈ (x − y)/y as x → y
    log_ratio_gap(x, y)    log(x/y) − (x − y)/y  ≤ 0,  ≈ −½ ((x − y)/y)²
    poisson_divergence     x log(x/y) − x + y    ≥ 0
    log1p_minus(r)         log(1 + r) − r        ≤ 0,  ≈ −½ r²
    expm1_minus(z)         eᶻ − 1 − z            ≥ 0,  ≈ ½ z²

for x, y > 0, not checked, and r > −1. The divergences of scale families are made of
them: near x = y the first difference is what has the digits, far from it the ratio is,
because x/y − 1 has none left of a small ratio.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special import tables
from ngvi.families.special.calculus import polynomial, with_partials

Values = Float[Array, "*s"]


class Logarithm(NamedTuple):
    """log(1 + r) and its distance from its tangent.

    1 + r = 2ⁿ (1 + t) with √½ ≤ 1 + t < √2, and s = t / (2 + t).
    """

    near: Array  # n = 0, t = r
    s: Values
    cube: Values  # atanh s − s
    value: Values  # log(1 + r)
    excess: Values  # r − log(1 + r)


def logarithm(r: Values, one_plus_r: Values) -> Logarithm:
    """log(1 + r) = n log 2 + 2 atanh(s) and, without the digits that cancel,
    r − log(1 + r) = (2ⁿ − 1)(1 + t) − n log 2 + s t − 2 (atanh s − s).

    Near 0 it is r that has the digits, elsewhere 1 + r: both are given.
    """
    n, scaled = _split(one_plus_r)
    t = jnp.where(n == 0, r, scaled - 1)
    s = t / (2 + t)
    squared = s * s
    terms = 10 if jnp.finfo(s.dtype).bits > 32 else 5
    cube = s * squared * polynomial([1 / (2 * k + 3) for k in range(terms)], squared)
    beyond, log_power = one_plus_r - scaled, n.astype(s.dtype) * math.log(2)
    value = log_power + 2 * (s + cube)
    excess = (beyond - log_power) + (s * t - 2 * cube)
    # What is too small to have an exponent counts as zero; infinity has one.
    zero = one_plus_r < jnp.finfo(s.dtype).tiny
    value = jnp.where(one_plus_r < jnp.inf, value, beyond)
    value = jnp.where(zero, -jnp.inf, value)
    return Logarithm(n == 0, s, cube, value, jnp.where(zero, jnp.inf, excess))


def _split(x: Values) -> tuple[Array, Values]:
    """n and x/2ⁿ between √½ and √2, of positive x: from the bits, at no cost."""
    info = jnp.finfo(x.dtype)
    integer = jnp.dtype(f"int{info.bits}")
    bits = jax.lax.bitcast_convert_type(x, integer)
    half = jax.lax.bitcast_convert_type(jnp.sqrt(jnp.asarray(0.5, x.dtype)), integer)
    n = (bits - half) >> info.nmant
    return n, jax.lax.bitcast_convert_type(bits - (n << info.nmant), x.dtype)


def logarithm_excess(r: Values, one_plus_r: Values) -> Values:
    """r − log(1 + r) ≥ 0; 1 + r is given too, for its digits where r is next to −1."""
    return logarithm(r, one_plus_r).excess


@with_partials(lambda _, r: -r / (1 + r))
def log1p_minus(r: Values) -> Values:
    """log(1 + r) − r ≤ 0 for r > −1; −½ r² + ⅓ r³ as r → 0."""
    return jnp.where(r > -1, -logarithm_excess(r, 1 + r), jnp.nan)


@with_partials(lambda _, x, y: 1 / x, lambda _, x, y: -1 / y)
def log_ratio(x: Values, y: Values) -> Values:
    """log(x/y) for x, y > 0, to rounding also where x and y nearly agree."""
    return _logarithm_of(x, y).value


# Not divided twice: that would be compiled to a division by x y, which underflows.
@with_partials(
    lambda _, x, y: (y - x) / y * (1 / x), lambda _, x, y: (x - y) / y * (1 / y)
)
def log_ratio_gap(x: Values, y: Values) -> Values:
    """log(x/y) − (x − y)/y ≤ 0 for x, y > 0."""
    return -_logarithm_of(x, y).excess


def _logarithm_of(x: Values, y: Values) -> Logarithm:
    """Of x/y."""
    inverse = 1 / y
    return logarithm((x - y) * inverse, x * inverse)


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
