"""Differences of the gamma function's logarithm that keep their digits.

With b = a + d, a > 0 and b > 0:

    bregman_log_gamma(a, d)    log Γ(b) − log Γ(a) − d ψ(a)  ≥ 0,  ≈ ½ d² ψ'(a)
    digamma_difference(a, d)   ψ(b) − ψ(a),                        ≈ d ψ'(a)
    bregman_digamma(a, d)      ψ(b) − ψ(a) − d ψ'(a)         ≤ 0,  ≈ ½ d² ψ''(a)
    trigamma_difference(a, d)  ψ'(b) − ψ'(a),                      ≈ d ψ''(a)
    log1p_minus(x)             log(1 + x) − x                ≤ 0,  ≈ −½ x²

and what the gamma function adds in the first to Stirling's leading term,

    bregman_log_gamma_excess(a, b)  bregman_log_gamma(a, d) − [b log(b/a) − d]  ≥ 0,

the divergence of f(a) = log Γ(a) − a log a + a ≈ −½ log a. The bracket is a Poisson
divergence, which in gamma and Dirichlet families cancels against the one of their
means; what is left of both is small and all that counts when a is large and a mean
stays where it is.

The first is the Kullback–Leibler divergence that gamma, beta, Dirichlet and Wishart
families are made of. Subtracting the three logarithms leaves nothing of it in float32
at a = 10⁸, d = 1.

Method: one step of the recurrence, to x = a + 1 and y = b + 1, adds terms of the sum's
own sign. There log Γ(x) is (x − ½) log x − x + δ(x), whose first part has differences
in closed form in r = d/x. The remainder is, to rounding, a sum of partial fractions,

    δ(x) = Σ_j c_j x / (x² + T_j) = Σ_j c_j Re 1/(x + i √T_j),

so its differences are exact too: with X = x + i √T and Y = X + d,

    1/Y − 1/X + d/X²     = d² / (X² Y)
    1/X² − 1/Y²          = d (1/(X Y²) + 1/(X² Y))
    1/Y² − 1/X² + 2d/X³  = d² (1/(X² Y²) + 2/(X³ Y)).

For the excess, f(a) = f(a + 1) + h(a) with h(a) = (a + 1) log(1 + 1/a) − 1, both
convex. With w = −d / (b (a + 1)) the divergence of h is

    (b + 1) log(1 + w) + d/a  =  d² / (a b (a + 1)) − (b + 1) (w − log(1 + w)).

The relative errors are a few units of rounding (in float64 up to 6e-15 for differences
of ψ and ψ'), however small or large d is beside a. NaN outside the domain. The first
two derivatives in a and d keep the digits too, being made of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special import tables
from ngvi.families.special.calculus import with_partials
from ngvi.families.special.gamma import (
    log_minus_digamma,
    tetragamma,
    trigamma,
    trigamma_excess,
)
from ngvi.families.special.ratios import atanh_excess, log_ratio

Values = Float[Array, "*s"]


@with_partials(lambda _, x: -x / (1 + x))
def log1p_minus(x: Values) -> Values:
    """log(1 + x) − x ≤ 0 for x > −1; −½ x² + ⅓ x³ as x → 0."""
    return jnp.where(x > -1, -logarithm_excess(x, 1 + x), jnp.nan)


@with_partials(
    lambda _, a, d: bregman_digamma(a, d), lambda _, a, d: digamma_difference(a, d)
)
def bregman_log_gamma(a: Values, d: Values) -> Values:
    """log Γ(a + d) − log Γ(a) − d ψ(a) ≥ 0, for a > 0 and a + d > 0."""
    e = _ends(a, d)
    log = _logarithm(d * e.u, e.y * e.u)
    # y log(y/x) − d, whose near form cannot underflow before the result does.
    near = d * log.s + 2 * e.y * log.cube
    entropic = jnp.where(log.near, near, e.y * log.value - d)
    smooth = entropic + (log.excess / 2 + _curvature(e, d))
    return _inside(a, e.b, logarithm_excess(d / a, e.b / a) + smooth)


@with_partials(
    lambda _, a, b: (a - b) * trigamma_excess(a) / a,
    lambda _, a, b: _excess_slope(a, b),
)
def bregman_log_gamma_excess(a: Values, b: Values) -> Values:
    """f(b) − f(a) − (b − a) f'(a) for f(a) = log Γ(a) − a log a + a; a, b > 0.

    It takes b, not d: of a b far below a, a + d has lost the digits.
    """
    d = b - a
    e = _Ends(b, a + 1, b + 1, 1 / (a + 1), 1 / (b + 1))
    log = _logarithm(d * e.u, e.y * e.u)
    w = -d * e.u / e.b
    step = _logarithm(w, e.y * e.u * (a / e.b))
    shift = jnp.where(
        w < 1,
        (d / a) * (d / e.b) * e.u - e.y * step.excess,
        e.y * step.value + d / a,
    )
    return _inside(a, e.b, shift + (log.excess / 2 + _curvature(e, d)))


def _excess_slope(a: Values, b: Values) -> Values:
    """f'(b) − f'(a)."""
    d = b - a
    near = jnp.abs(d) < a / 2
    close = digamma_difference(a, jnp.where(near, d, 0)) - log_ratio(b, a)
    return jnp.where(near, close, log_minus_digamma(a) - log_minus_digamma(b))


@with_partials(
    lambda _, a, d: trigamma_difference(a, d), lambda _, a, d: trigamma(a + d)
)
def digamma_difference(a: Values, d: Values) -> Values:
    """ψ(a + d) − ψ(a), for a > 0 and a + d > 0."""
    e = _ends(a, d)

    def term(q2: Values, p2: Values, pq: Values) -> Values:
        return e.v * (1 - p2 - 2 * pq) * (1 + q2) + e.u * (1 - q2 - 2 * pq) * (1 + p2)

    curved = d * e.u * e.v * (0.5 + _fractions(e, term, 2))
    value = d / a / e.b + (_logarithm(d * e.u, e.y * e.u).value + curved)
    return _inside(a, e.b, value)


@with_partials(
    lambda _, a, d: trigamma_difference(a, d) - d * tetragamma(a),
    lambda _, a, d: trigamma_difference(a, d),
)
def bregman_digamma(a: Values, d: Values) -> Values:
    """ψ(a + d) − ψ(a) − d ψ'(a) ≤ 0, for a > 0 and a + d > 0."""
    e = _ends(a, d)

    def term(q2: Values, p2: Values, pq: Values) -> Values:
        real_22 = ((1 - q2) * (1 - p2) - 4 * pq) * (1 + q2)
        real_31 = (1 - 3 * q2 - pq * (3 - q2)) * (1 + p2) ** 2
        return e.v * real_22 * (1 + p2) + 2 * e.u * real_31

    curved = (d * e.u) ** 2 * e.v * (0.5 + _fractions(e, term, 3))
    value = (d / a) ** 2 / e.b + (_logarithm(d * e.u, e.y * e.u).excess + curved)
    return _inside(a, e.b, -value)


@with_partials(
    lambda _, a, d: tetragamma(a + d) - tetragamma(a),
    lambda _, a, d: tetragamma(a + d),
)
def trigamma_difference(a: Values, d: Values) -> Values:
    """ψ'(a + d) − ψ'(a), for a > 0 and a + d > 0; not its own derivative in a."""
    e = _ends(a, d)
    u, v = e.u, e.v

    def term(q2: Values, p2: Values, pq: Values) -> Values:
        real_13 = (1 - 3 * p2 - pq * (3 - p2)) * (1 + q2) ** 2
        real_22 = ((1 - q2) * (1 - p2) - 4 * pq) * (1 + q2) * (1 + p2)
        real_31 = (1 - 3 * q2 - pq * (3 - q2)) * (1 + p2) ** 2
        return v * v * real_13 + u * v * real_22 + u * u * real_31

    smooth = d * u * v * (1 + (u + v) / 2 + 2 * _fractions(e, term, 3))
    shift = d / a / e.b * (1 / a + 1 / e.b)
    return _inside(a, e.b, -(shift + smooth))


class _Ends(NamedTuple):
    """b = a + d, x = a + 1, y = b + 1, and u = 1/x, v = 1/y."""

    b: Values
    x: Values
    y: Values
    u: Values
    v: Values


def _ends(a: Values, d: Values) -> _Ends:
    b = a + d
    return _Ends(b, a + 1, b + 1, 1 / (a + 1), 1 / (b + 1))


class _Logarithm(NamedTuple):
    """log(1 + r) and its distance from its tangent, with s = r / (2 + r)."""

    near: Array  # −½ < r < 1: series in s
    s: Values
    cube: Values  # atanh s − s, only where near
    value: Values  # log(1 + r)
    excess: Values  # r − log(1 + r)


def _logarithm(r: Values, one_plus_r: Values) -> _Logarithm:
    """From log(1 + r) = 2 atanh(s) near 0; elsewhere from 1 + r, given for r → −1."""
    near = (r > -0.5) & (r < 1)
    s = r / (2 + r)
    cube = atanh_excess(s)
    far = jnp.log(one_plus_r)
    value = jnp.where(near, 2 * (s + cube), far)
    excess = jnp.where(near, s * r - 2 * cube, r - far)
    return _Logarithm(near, s, cube, value, excess)


def logarithm_excess(r: Values, one_plus_r: Values) -> Values:
    """r − log(1 + r) ≥ 0; 1 + r is given too, for its digits where r is next to −1."""
    return _logarithm(r, one_plus_r).excess


def _curvature(e: _Ends, d: Values) -> Values:
    """The divergence of δ at x = a + 1."""
    fractions = _fractions(e, lambda q2, p2, pq: (1 - q2 - 2 * pq) * (1 + p2), 2)
    return (d * e.u) ** 2 * e.v * fractions


def _fractions(
    ends: _Ends, numerator: Callable[[Values, Values, Values], Values], power: int
) -> Values:
    """Σ_j c_j numerator(q², p², pq) / ((1 + q²)(1 + p²))^power, q = √T u, p = √T v."""
    total = jnp.zeros_like(ends.u)
    for pole, weight in zip(tables.BINET_POLES, tables.BINET_WEIGHTS, strict=True):
        q2, p2, pq = (pole * w for w in (ends.u**2, ends.v**2, ends.u * ends.v))
        scale = weight / ((1 + q2) * (1 + p2)) ** power
        total = total + numerator(q2, p2, pq) * scale
    return total


def _inside(a: Values, b: Values, value: Values) -> Values:
    return jnp.where((a > 0) & (b > 0), value, jnp.nan)
