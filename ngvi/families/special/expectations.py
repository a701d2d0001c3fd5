"""Expected log factorials and entropies of counts, to rounding at a fixed cost.

    poisson_log_factorial(m)          E[log X!],  X ~ Poisson(m)
    poisson_entropy(m)                its entropy
    multinomial_entropy(n, p, q)      entropy of Multinomial(n, p), q = 1 − p
    multinomial_log_coefficient(…)    E[log n!/Π X_k!]
    negative_binomial_entropy(r, u)   entropy of X with mean r eᵘ

Method: from log x! = ∫₀^∞ [x − (1 − e⁻ˣᵗ)/(1 − e⁻ᵗ)] e⁻ᵗ dt/t, with G(u) = E[uˣ] and
m = E[X],

    E[log X!] = log Γ(m + 1) + J,   J = ∫₀^∞ [G(e⁻ᵗ) − e⁻ᵐᵗ] dt / (t (eᵗ − 1)).

The integrand is positive, by Jensen, and so J has all its digits. What is left of an
entropy once log Γ(m + 1) is written by Stirling's formula is ½ log(2π variance), the
small remainders δ, and J: no large terms that cancel, whatever the counts. J is
tabulated for Poisson and a series for the others, see `count_gaps`.

Source: Knessl (1998), Integral representations and asymptotic expansions for Shannon
and Renyi entropies.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.families.special.calculus import polynomial, rational
from ngvi.families.special.count_gaps import binomial_gap, negative_binomial_gap
from ngvi.families.special.count_tables import (
    GAP_MIDDLE,
    GAP_SERIES,
    POISSON_DENOMINATOR,
    POISSON_NUMERATOR,
)
from ngvi.families.special.differences import bregman_log_gamma, stirling_change
from ngvi.families.special.gamma import (
    digamma,
    log_gamma,
    stirling_remainder,
    stirling_remainder_of,
)
from ngvi.families.special.logistic import softplus
from ngvi.families.special.tables import EULER_GAMMA, HALF_LOG_2PI

Values = Float[Array, "*s"]
SMALL_COUNT = 15
"""Up to so many trials a sum over all counts is as good and faster."""


# -- Poisson -------------------------------------------------------------------------


def poisson_log_factorial(mean: Values) -> Values:
    """E[log X!] of a Poisson variable."""
    low = mean < 10
    large = jnp.where(low, 10, mean)
    return jnp.where(
        low, _poisson_small(mean), log_gamma(large + 1) + _poisson_gap(large)
    )


def poisson_entropy(mean: Values) -> Values:
    """The entropy of a Poisson variable."""
    low = mean < 10
    small, large = jnp.where(low, mean, 1), jnp.where(low, 10, mean)
    remainder = stirling_remainder(large) + _poisson_gap(large)
    return jnp.where(
        low,
        _rare(small) + _poisson_small(small),
        HALF_LOG_2PI + jnp.log(large) / 2 + remainder,
    )


def _rare(mean: Values) -> Values:
    """m − m log m, 0 at 0."""
    return mean * (1 - jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny)))


def _poisson_small(mean: Values) -> Values:
    """E[log X!] for means up to 10."""
    x = jnp.minimum(mean, 10)
    return x * x * rational(POISSON_NUMERATOR, POISSON_DENOMINATOR, x)


def _poisson_gap(mean: Values) -> Values:
    """J for means from 10 upwards."""
    middle = polynomial(GAP_MIDDLE, 30 / jnp.clip(mean, 10, 30) - 2)
    far = polynomial(GAP_SERIES, 1 / jnp.maximum(mean, 30))
    return jnp.where(mean < 30, middle, far)


# -- binomial and multinomial --------------------------------------------------------


def multinomial_entropy(
    count: int, p: Float[Array, "*s k"], q: Float[Array, "*s k"], entropy: Values
) -> Values:
    """The entropy of Multinomial(n, p).

    Args:
        count: n.
        p: the probabilities of the classes.
        q: 1 − p, computed without cancellation.
        entropy: −Σ p log p.
    """
    if count <= SMALL_COUNT:
        coefficient = multinomial_log_coefficient(count, p, q, entropy)
        return count * entropy - coefficient
    constant = HALF_LOG_2PI + math.log(count) / 2 + stirling_remainder_of(count)
    p, q = _classes_first(p, q)
    return _less_total(p, _count_terms(count, p, q), constant)


def multinomial_log_coefficient(
    count: int, p: Float[Array, "*s k"], q: Float[Array, "*s k"], entropy: Values
) -> Values:
    """E[log n!/Π X_k!], X ~ Multinomial(n, p); see `multinomial_entropy`."""
    if count <= SMALL_COUNT:
        p, q = _classes_first(p, q)
        terms = _summed_log_factorial(count, p, q)
        return -_less_total(p, terms, math.lgamma(count + 1))
    return count * entropy - multinomial_entropy(count, p, q, entropy)


def _classes_first(*arrays: Float[Array, "*s k"]) -> list[Float[Array, "k *s"]]:
    """Sums over a leading axis are vectorised."""
    return [jnp.moveaxis(a, -1, 0) for a in arrays]


def _less_total(
    p: Float[Array, "k *s"], terms: Float[Array, "k *s"], total: float
) -> Values:
    """Σ terms − total, the total already taken off the term of a class with p > ½."""
    return terms.sum(0) - jnp.where((p > 0.5).any(0), 0, total)


def _summed_log_factorial(count: int, p: Values, q: Values) -> Values:
    """E[log X!] for p ≤ ½, E[log X! − log n!] for p > ½, X ~ Binomial(n, p)."""
    less = np.array([math.lgamma(k + 1) for k in range(count + 1)])
    more = less[::-1] - less[-1]
    ways = np.array([float(math.comb(count, k)) for k in range(count + 1)])
    likely = p > 0.5
    small, large = jnp.where(likely, q, p), jnp.where(likely, p, q)
    odds = small / large
    low = polynomial([float(c) for c in (ways * less)[1:]], odds)
    high = polynomial([float(c) for c in (ways * more)[1:]], odds)
    return jnp.where(likely, high, low) * odds * large**count


def _count_terms(count: int, p: Values, q: Values) -> Values:
    """The share of one class in the entropy of many counts.

    With a = n p this is log Γ(a + 1) + a − a log a + J for p ≤ ½; for p > ½ it is less
    by what all classes together have too much, ½ log 2πn + δ(n).
    """
    n = float(count)
    likely = p > 0.5
    a = n * jnp.where(likely, 0.25, p)
    low = a < 1
    small, large = jnp.where(low, a, 0.5), jnp.where(low, 1, a)
    rare = jnp.where(
        low,
        _log_gamma_from_one(small) + _rare(small),
        HALF_LOG_2PI + jnp.log(large) / 2 + stirling_remainder(large),
    )
    left = jnp.where(likely, q, 0.25)
    # δ(n q) − δ(n)
    change = stirling_change(-n * left, jnp.full_like(left, 1 / n), 1 / (n - n * left))
    common = jnp.log1p(-left) / 2 + change
    return jnp.where(likely, common, rare) + binomial_gap(p, q, count)


def _log_gamma_from_one(x: Values) -> Values:
    """log Γ(1 + x), to rounding also as x → 0."""
    return bregman_log_gamma(jnp.ones_like(x), x) - EULER_GAMMA * x


# -- negative binomial ---------------------------------------------------------------


def negative_binomial_entropy(count: float, u: Values) -> Values:
    """The entropy of a negative binomial variable with mean r eᵘ, r = `count`."""
    r = float(count)
    m = jnp.exp(u)
    a = r * m
    low = a < 1
    small, large = jnp.where(low, m, 0.5 / r), jnp.where(low, 1 / r, m)
    full = jnp.full_like(u, r)
    b = r * large
    far = (
        HALF_LOG_2PI
        + jnp.log(b) / 2
        + jnp.log1p(large) / 2
        + stirling_remainder(full)
        + stirling_remainder(b)
        - stirling_remainder(b + r)
    )
    c = r * small
    v = jnp.where(low, u, -math.log(2 * r))
    near = (
        r * softplus(v)
        + c * softplus(-v)
        + _log_gamma_from_one(c)
        - bregman_log_gamma(full, c)
        - c * digamma(full)
    )
    return jnp.where(low, near, far) + negative_binomial_gap(u, r)
