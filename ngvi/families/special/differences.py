"""Differences of the gamma function's logarithm that keep their digits.

With b = a + d, a > 0 and b > 0:

    bregman_log_gamma(a, d)    log Γ(b) − log Γ(a) − d ψ(a)  ≥ 0,  ≈ ½ d² ψ'(a)
    digamma_difference(a, d)   ψ(b) − ψ(a),                        ≈ d ψ'(a)
    trigamma_difference(a, d)  ψ'(b) − ψ'(a),                      ≈ d ψ''(a)

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
    1/X³ − 1/Y³          = d (1/(X Y³) + 1/(X² Y²) + 1/(X³ Y)).

For the excess, f(a) = f(a + 1) + h(a) with h(a) = (a + 1) log(1 + 1/a) − 1, both
convex. With w = −d / (b (a + 1)) the divergence of h is

    (b + 1) log(1 + w) + d/a  =  d² / (a b (a + 1)) − (b + 1) (w − log(1 + w)).

The relative errors are a few units of rounding (in float64 up to 6e-15 for differences
of ψ and ψ'), however small or large d is beside a. NaN outside the domain. The first
two derivatives are made of these; in a, with d fixed, the first is a difference of two
terms ≈ d ψ'(a) and has their errors.
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
from ngvi.families.special.ratios import log_ratio, logarithm, logarithm_excess

Values = Float[Array, "*s"]


@with_partials(
    lambda _, a, d: _bregman_slope(a, d), lambda _, a, d: digamma_difference(a, d)
)
def bregman_log_gamma(a: Values, d: Values) -> Values:
    """log Γ(a + d) − log Γ(a) − d ψ(a) ≥ 0, for a > 0 and a + d > 0."""
    e = _ends(a, d)
    log = logarithm(d * e.u, e.y * e.u)
    # y log(y/x) − d, whose near form cannot underflow before the result does.
    near = d * log.s + 2 * e.y * log.cube
    entropic = jnp.where(log.near, near, e.y * log.value - d)
    smooth = entropic + (log.excess / 2 + stirling_bregman(d, e.u, e.v))
    return _inside(a, e.b, logarithm_excess(d / a, e.b / a) + smooth)


@with_partials(
    lambda _, a, d: trigamma_difference(a, d) - d * tetragamma(a),
    lambda _, a, d: trigamma_difference(a, d),
)
def _bregman_slope(a: Values, d: Values) -> Values:
    """ψ(b) − ψ(a) − d ψ'(a)."""
    return digamma_difference(a, d) - d * trigamma(a)


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
    log = logarithm(d * e.u, e.y * e.u)
    w = -d * e.u / e.b
    step = logarithm(w, e.y * e.u * (a / e.b))
    shift = jnp.where(
        w < 1,
        (d / a) * (d / e.b) * e.u - e.y * step.excess,
        e.y * step.value + d / a,
    )
    return _inside(a, e.b, shift + (log.excess / 2 + stirling_bregman(d, e.u, e.v)))


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

    curved = d * e.u * e.v * (0.5 + _fractions(e.u, e.v, term, 2))
    value = d / a / e.b + (logarithm(d * e.u, e.y * e.u).value + curved)
    return _inside(a, e.b, value)


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

    smooth = d * u * v * (1 + (u + v) / 2 + 2 * _fractions(e.u, e.v, term, 3))
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


def stirling_bregman(d: Values, u: Values, v: Values) -> Values:
    """δ(y) − δ(x) − d δ'(x) ≥ 0 for y = x + d, u = 1/x, v = 1/y; x, y ≥ 1."""
    fractions = _fractions(u, v, lambda q2, p2, pq: (1 - q2 - 2 * pq) * (1 + p2), 2)
    return (d * u) ** 2 * v * fractions


def stirling_change(d: Values, u: Values, v: Values) -> Values:
    """δ(y) − δ(x) for y = x + d, u = 1/x, v = 1/y; x, y ≥ 1."""
    return -d * u * v * _fractions(u, v, lambda q2, p2, pq: 1 - pq, 1)


def _fractions(
    u: Values,
    v: Values,
    numerator: Callable[[Values, Values, Values], Values],
    power: int,
) -> Values:
    """Σ_j c_j numerator(q², p², pq) / ((1 + q²)(1 + p²))^power, q = √T u, p = √T v."""
    total = jnp.zeros_like(u)
    for pole, weight in zip(tables.BINET_POLES, tables.BINET_WEIGHTS, strict=True):
        q2, p2, pq = (pole * w for w in (u**2, v**2, u * v))
        scale = weight / ((1 + q2) * (1 + p2)) ** power
        total = total + numerator(q2, p2, pq) * scale
    return total


def _inside(a: Values, b: Values, value: Values) -> Values:
    return jnp.where((a > 0) & (b > 0), value, jnp.nan)
