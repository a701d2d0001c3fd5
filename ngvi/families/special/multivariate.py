"""The multivariate gamma function, of Wishart families.

    multivariate_log_gamma(a, p)   ¼ p (p − 1) log π + Σ_{i<p} log Γ(a − i/2)
    multivariate_digamma(a, p)     ψ_p(a) = Σ_{i<p} ψ(a − i/2)
    wishart_gap(a, p)              p log a − ψ_p(a) > 0
    wishart_gap_slope(a, p)        p/a − ψ_p'(a) < 0
    inverse_wishart_gap(s, p)      a with wishart_gap(a, p) = s, for s > 0

for a > m = (p − 1)/2, p a Python integer; NaN outside. The gap is the logarithm of the
determinant of the mean of a Wishart matrix with 2a degrees of freedom, minus the mean
logarithm of the determinant; its inverse is their maximum-likelihood estimate. With
c = a − m it is a sum of positive terms over j = 0, ..., p − 1,

    gap = Σ_j log(a / (c + j/2)) + [log − ψ](c + j/2),

about 1/c for small c and p (p + 1)/(4a) for large a.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import lax
from jaxtyping import Array, Float

from ngvi.families.special.calculus import summed, with_partials
from ngvi.families.special.gamma import (
    digamma,
    log_gamma,
    log_minus_digamma,
    trigamma,
    trigamma_excess,
)
from ngvi.families.special.inverses import inverse_log_minus_digamma
from ngvi.families.special.newton import invert_power_like, steps_for
from ngvi.families.special.tables import EULER_GAMMA

Values = Float[Array, "*s"]


@partial(jax.jit, static_argnums=1)
def _multivariate_trigamma(a: Values, p: int) -> Values:
    return summed(lambda i: trigamma(a - i / 2), p, a)


@with_partials(lambda _, a, p: multivariate_digamma(a, p), fixed=1)
def multivariate_log_gamma(a: Values, p: int) -> Values:
    """log Γ_p(a) for a > (p − 1)/2; its derivative is `multivariate_digamma`."""
    constant = 0.25 * p * (p - 1) * math.log(math.pi)
    return constant + summed(lambda i: log_gamma(a - i / 2), p, a)


@with_partials(lambda _, a, p: _multivariate_trigamma(a, p), fixed=1)
def multivariate_digamma(a: Values, p: int) -> Values:
    """ψ_p(a) = Σ_{i<p} ψ(a − i/2) for a > (p − 1)/2."""
    return summed(lambda i: digamma(a - i / 2), p, a)


def wishart_gap(a: Values, p: int) -> Values:
    """p log a − ψ_p(a) > 0, decreasing, for a > (p − 1)/2."""
    return _gap(a - _limit(p), p)


def wishart_gap_slope(a: Values, p: int) -> Values:
    """p/a − ψ_p'(a) < 0, the derivative of `wishart_gap`."""
    return _gap_slope(a - _limit(p), p)


def inverse_wishart_gap(s: Values, p: int) -> Values:
    """a > (p − 1)/2 with p log a − ψ_p(a) = s, for s > 0.

    Where s is so large that a rounds to its limit, the next larger number is returned.
    """
    if p == 1:
        return inverse_log_minus_digamma(s)
    a = _inverse_gap(s, p) + _limit(p)
    smallest = np.nextafter(np.asarray(_limit(p), a.dtype), np.asarray(np.inf, a.dtype))
    return jnp.where(a < smallest, a - lax.stop_gradient(a) + smallest, a)


@partial(jax.jit, static_argnums=1)
def _gap_slope(c: Values, p: int) -> Values:
    """d gap / dc = p/a − Σ_j ψ'(c + j/2) < 0, as a sum of terms of one sign."""
    a = c + _limit(p)

    def term(j: Array) -> Values:
        x = c + j / 2
        return (trigamma_excess(x) + (_limit(p) - j / 2) / a) / x

    return -summed(term, p, c)


@with_partials(lambda _, c, p: _gap_slope(c, p), fixed=1)
def _gap(c: Values, p: int) -> Values:
    """The gap as a function of c = a − (p − 1)/2 > 0."""

    def term(j: Array) -> Values:
        x = c + j / 2
        return jnp.log1p((_limit(p) - j / 2) / x) + log_minus_digamma(x)

    return summed(term, p, c)


@with_partials(lambda c, _, p: 1 / _gap_slope(c, p), fixed=1)
def _inverse_gap(s: Values, p: int) -> Values:
    # (1 + αc) / (c (1 + βc)) has the right 1/c and constant at 0 and p(p+1)/(4c) at ∞.
    constant = p * math.log(_limit(p)) + EULER_GAMMA
    constant -= float(scipy.special.digamma(np.arange(1, p) / 2).sum())
    beta = constant / (p * (p + 1) / 4 - 1)
    lead = s - beta * p * (p + 1) / 4
    root = jnp.sqrt(lead * lead + 4 * beta * s)
    start = jnp.where(lead > 0, 2 / (root + lead), (root - lead) / (2 * beta * s))

    def gap(c: Values) -> tuple[Values, Values]:
        value = _gap(c, p)
        return value, c * _gap_slope(c, p) / value

    steps = steps_for(s, 3, 4) + (p > 20) + (p > 100)  # the start is worse for large p
    c = invert_power_like(gap, s, start, steps)
    return jnp.where(s > 0, c, jnp.nan)


def _limit(p: int) -> float:
    return (p - 1) / 2
