"""The gamma function's logarithm and its derivatives, for a > 0.

    log_gamma(a)           log Γ(a)
    digamma(a)             ψ(a)  = (log Γ)'
    trigamma(a)            ψ'(a)
    tetragamma(a)          ψ''(a)

and what is left of them once the leading term of Stirling's series is taken off, which
families of gamma type need where subtracting would leave no correct digit:

    stirling_remainder(a)  δ(a) = log Γ(a) − (a − ½) log a + a − ½ log 2π  ≈ 1/(12a)
    log_minus_digamma(a)   log a − ψ(a)                                    ≈ 1/(2a)
    trigamma_excess(a)     a ψ'(a) − 1                                     ≈ 1/(2a)

Method: the recurrence Γ(a + 2) = a (a + 1) Γ(a) brings a < 2 into [2, 4), and from 2
upwards one rational function of 1/a² is exact to rounding (`tables`). The shift is
written so that the terms added are of one sign, or no more than a few times the sum.
Relative errors are a few units of rounding, in float32 as in float64, except next to
the zeros of log Γ (1 and 2) and of ψ (1.46), where it is the absolute error that is.

All take arrays of any shape, keep their dtype, and give NaN for a ≤ 0 and for NaN.
log Γ, ψ and ψ' are differentiated as the next one, so that derivatives keep the digits.

Source: NIST Digital Library of Mathematical Functions, §5.5, §5.9 and §5.11.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special import tables
from ngvi.families.special.calculus import polynomial, rational, with_partials

Values = Float[Array, "*s"]


@with_partials(lambda _, a: digamma(a))
def log_gamma(a: Values) -> Values:
    """log Γ(a) for a > 0."""
    small, x, r = _shifted(a)
    remainder = r * _ratio(tables.BINET_NUMERATOR, tables.BINET_DENOMINATOR, r)
    stirling = (x - 0.5) * (jnp.log(x) - 1) + (tables.LOG_2PI / 2 - 0.5 + remainder)
    return _inside(a, stirling - jnp.log(jnp.where(small, a * (a + 1), 1)))


@with_partials(lambda _, a: trigamma(a))
def digamma(a: Values) -> Values:
    """ψ(a), the derivative of log Γ, for a > 0."""
    small, x, r = _shifted(a)
    gap = r * (0.5 + r * _ratio(tables.GAP_NUMERATOR, tables.GAP_DENOMINATOR, r))
    return _inside(a, jnp.log(x) - (gap + _reciprocals(small, a)))


@jax.jit
def tetragamma(a: Values) -> Values:
    """ψ''(a) < 0 for a > 0; differentiated through its implementation."""
    small, _, r = _shifted(a)
    tail = _ratio(tables.TETRAGAMMA_NUMERATOR, tables.TETRAGAMMA_DENOMINATOR, r)
    low = jnp.where(small, a, 1)
    shift = jnp.where(small, 2 * low**-3 + 2 * (low + 1) ** -3, 0)
    return _inside(a, -(r * r * (1 + r * (1 + r * tail)) + shift))


@with_partials(lambda _, a: tetragamma(a))
def trigamma(a: Values) -> Values:
    """ψ'(a) for a > 0."""
    small, _, r = _shifted(a)
    shift = jnp.where(small, a**-2 + (a + 1) ** -2, 0)
    return _inside(a, r * (1 + _excess(r)) + shift)


@with_partials(lambda _, a: -trigamma_excess(a) / a)
def log_minus_digamma(a: Values) -> Values:
    """log a − ψ(a) > 0: 1/a + log a + γ as a → 0, 1/(2a) + 1/(12a²) as a → ∞."""
    small, _, r = _shifted(a)
    gap = r * (0.5 + r * _ratio(tables.GAP_NUMERATOR, tables.GAP_DENOMINATOR, r))
    log_ratio = jnp.log(jnp.where(small, a * r, 1))
    return _inside(a, gap + (_reciprocals(small, a) + log_ratio))


@jax.jit
def _trigamma_excess_slope(a: Values) -> Values:
    """d/da (a ψ'(a) − 1) = ψ'(a) + a ψ''(a) < 0, ≈ −1/(2a²) as a → ∞."""
    small, _, r = _shifted(a)
    tail = _ratio(tables.EXCESS_NUMERATOR, tables.EXCESS_DENOMINATOR, r)
    curved = _ratio(tables.TETRAGAMMA_NUMERATOR, tables.TETRAGAMMA_DENOMINATOR, r)
    slope = r * r * (r * (tail - curved) - 0.5)
    # At a + 2: (ψ' + x ψ'')(x) − 2 ψ''(x), and the derivative of 1/a + a/(a + 1)².
    low = jnp.where(small, a, 1)
    tetragamma_at_x = -r * r * (1 + r * (1 + r * curved))
    shift = (1 - low) * (low + 1) ** -3 - 2 * tetragamma_at_x - low**-2
    return _inside(a, slope + jnp.where(small, shift, 0))


@with_partials(lambda _, a: _trigamma_excess_slope(a))
def trigamma_excess(a: Values) -> Values:
    """a ψ'(a) − 1 > 0: 1/a − 1 as a → 0, 1/(2a) + 1/(6a²) as a → ∞."""
    small, _, r = _shifted(a)
    excess = _excess(r)
    low = jnp.where(small, a, 1)
    # a (ψ'(a+2) + 1/a² + 1/(a+1)²) − 1; ψ'(a+2) = r (1 + excess) and a r − 1 = −2 r.
    shifted = low * r * excess + (1 / low - 2 * r + low * (low + 1) ** -2)
    return _inside(a, jnp.where(small, shifted, excess))


@jax.jit
def stirling_remainder(a: Values) -> Values:
    """δ(a) = log Γ(a) − (a − ½) log a + a − ½ log 2π > 0, ≈ 1/(12a) as a → ∞.

    Differentiated through its implementation.
    """
    small, _, r = _shifted(a)
    remainder = r * _ratio(tables.BINET_NUMERATOR, tables.BINET_DENOMINATOR, r)
    low = jnp.where(small, a, 1)
    tiny = (low + 0.5) * jnp.log((low + 1) / low) - 1
    first = jnp.where(low < 0.5, tiny, _stirling_step(low))
    steps = first + _stirling_step(low + 1)
    return _inside(a, remainder + jnp.where(small, steps, 0))


def stirling_remainder_of(n: float) -> float:
    """δ(n) of a Python number n ≥ 1."""
    pairs = zip(tables.BINET_WEIGHTS, tables.BINET_POLES, strict=True)
    return sum(c * n / (n * n + pole) for c, pole in pairs)


def _shifted(a: Values) -> tuple[Array, Values, Values]:
    """Whether a < 2, x = a + 2 or a, and 1/x."""
    small = a < 2
    x = jnp.where(small, a + 2, a)
    return small, x, 1 / x


def _ratio(
    numerator: tuple[float, ...], denominator: tuple[float, ...], r: Values
) -> Values:
    return rational(numerator, denominator, r * r)


def _excess(r: Values) -> Values:
    """x ψ'(x) − 1 at x = 1/r ≥ 2."""
    tail = _ratio(tables.EXCESS_NUMERATOR, tables.EXCESS_DENOMINATOR, r)
    return r * (0.5 + r * tail)


def _reciprocals(small: Array, a: Values) -> Values:
    """1/a + 1/(a + 1) where a is small, else 0."""
    return jnp.where(small, (2 * a + 1) / (a * (a + 1)), 0)


def _stirling_step(a: Values) -> Values:
    """δ(a) − δ(a + 1) = (a + ½) log(1 + 1/a) − 1 for a ≥ ½, by its series.

    It is atanh(s)/s − 1 with s = 1/(2a + 1).
    """
    s = 1 / (2 * a + 1)
    return s * s * polynomial(tables.ATANH, s * s)


def _inside(a: Values, value: Values) -> Values:
    return jnp.where(a > 0, value, jnp.nan)
