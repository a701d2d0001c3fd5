"""Modified Bessel functions of von Mises–Fisher families, of any order ν ≥ 0.

A von Mises–Fisher distribution on the sphere of d dimensions has ν = d/2 − 1; ν is a
Python number. For κ ≥ 0:

    log_bessel(ν, κ)                Λ(κ) = log [I_ν(κ) Γ(ν + 1) (2/κ)^ν], Λ(0) = 0
    log_bessel_scaled(ν, κ)         Λ(κ) − κ
    bessel_ratio(ν, κ)              A(κ) = I_{ν+1}(κ)/I_ν(κ) = Λ'(κ), the mean's length
    one_minus_bessel_ratio(ν, κ)    1 − A(κ), ≈ (ν + ½)/κ for large κ
    bessel_ratio_slope(ν, κ)        A'(κ), 1/(2ν + 2) at 0, ≈ (ν + ½)/κ² for large κ
    inverse_bessel_ratio(ν, R, Q)   κ with A(κ) = R, from R and Q = 1 − R, 0 ≤ R < 1

Λ is the von Mises–Fisher log-normaliser against the uniform distribution on the sphere.

Method: Debye's expansion (`debye`), arranged without subtraction, wherever √(κ² + ν²)
is large enough for it to be exact to rounding. Where both are small, the same at an
order ν + n that is large enough, and n steps down by the recurrence
1/ρ_k = 2(k + 1) + κ² ρ_{k+1} for ρ_k = I_{k+1}/(κ I_k), which is stable downwards.

Relative errors: a few units of rounding for Λ and A; 1.5e-14 in float64 and 2e-6 in
float32 for 1 − A and A' where they are recovered from A (small ν, κ of about 10). NaN
outside the domain. At most 30 (float32: 12) steps are compiled, fewer for large ν.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ngvi.families.special.calculus import polynomial, with_partials
from ngvi.families.special.debye import DebyeTables, debye_tables, evaluate
from ngvi.families.special.gamma import stirling_remainder_of
from ngvi.families.special.newton import invert_power_like, steps_for
from ngvi.families.special.tables import LOG_2PI

Values = Float[Array, "*s"]


def log_bessel(nu: float, kappa: Values) -> Values:
    """Λ(κ) = log [I_ν(κ) Γ(ν + 1) (2/κ)^ν] ≥ 0, κ²/(4(ν + 1)) for small κ."""
    return _log_bessel(kappa, nu)


def log_bessel_scaled(nu: float, kappa: Values) -> Values:
    """Λ(κ) − κ ≤ 0, about −(ν + ½) log κ for large κ."""
    return _log_bessel_scaled(kappa, nu)


def bessel_ratio(nu: float, kappa: Values) -> Values:
    """A(κ) = I_{ν+1}(κ)/I_ν(κ), κ/(2ν + 2) for small κ."""
    return _ratio(kappa, nu)


def one_minus_bessel_ratio(nu: float, kappa: Values) -> Values:
    """1 − A(κ), with relative accuracy for large κ too."""
    return _one_minus_ratio(kappa, nu)


def bessel_ratio_slope(nu: float, kappa: Values) -> Values:
    """A'(κ) = 1 − A² − (2ν + 1) A/κ, the variance of the direction along the mean."""
    return _ratio_slope(kappa, nu)


def _ratio_slope_only(kappa: Values, nu: float) -> Values:
    return jnp.where(kappa >= 0, _slope_from(_expansion(kappa, nu)), jnp.nan)


@partial(jax.jit, static_argnums=1)
def _ratio_bend(kappa: Values, nu: float) -> Values:
    """A''(κ), forwards: every step of the expansion has a slope free of subtraction."""
    one = jnp.ones_like(kappa)
    return jax.jvp(lambda k: _ratio_slope_only(k, nu), (kappa,), (one,))[1]


_ratio_slope = with_partials(lambda _, kappa, nu: _ratio_bend(kappa, nu), fixed=1)(
    _ratio_slope_only
)


def inverse_bessel_ratio(nu: float, ratio: Values, complement: Values) -> Values:
    """κ ≥ 0 with A(κ) = R from R and 1 − R, of which the lesser has the digits."""
    return _inverse(ratio, complement, nu)


@with_partials(lambda _, kappa, nu: _ratio(kappa, nu), fixed=1)
def _log_bessel(kappa: Values, nu: float) -> Values:
    return _logarithms(kappa, nu)[0]


@with_partials(lambda _, kappa, nu: -_one_minus_ratio(kappa, nu), fixed=1)
def _log_bessel_scaled(kappa: Values, nu: float) -> Values:
    return _logarithms(kappa, nu)[1]


@with_partials(lambda _, kappa, nu: _ratio_slope(kappa, nu), fixed=1)
def _ratio(kappa: Values, nu: float) -> Values:
    ratio = _ratio_from(_expansion(kappa, nu), kappa)
    return jnp.where(kappa >= 0, ratio, jnp.nan)


@with_partials(lambda _, kappa, nu: -_ratio_slope(kappa, nu), fixed=1)
def _one_minus_ratio(kappa: Values, nu: float) -> Values:
    e = _expansion(kappa, nu)
    value = _complement_from(e, kappa, _ratio_from(e, kappa))
    return jnp.where(kappa >= 0, value, jnp.nan)


class _Expansion(NamedTuple):
    """Debye's expansion at each element's own order, ν where that is direct."""

    nu: float
    steps: int  # from ν up to an order that is large enough
    direct: Bool[Array, "*s"]
    low: Values  # κ where not direct, else 0
    order: Values
    s: Values  # √(κ² + order²)
    q: Values  # order²/s²
    tail: Values  # Σ_k Q_k(q) s^{−k}, k ≥ 1, over s
    rho: Values  # I_{order+1} / (κ I_order)
    debye: DebyeTables


def _expansion(kappa: Values, nu: float) -> _Expansion:
    double = jnp.finfo(kappa.dtype).bits > 32
    smallest, terms = (30, 16) if double else (12, 9)
    debye = debye_tables(terms)
    steps = max(0, math.ceil(smallest - nu))
    direct = (kappa >= smallest) | (steps == 0)
    order = jnp.where(direct, nu, nu + steps).astype(kappa.dtype)
    s = jnp.sqrt(kappa * kappa + order * order)
    q = (order / s) ** 2
    tail = evaluate(debye.ratio, q, 1 / s) / s
    rho = 1 / (s + order) + tail / s
    low = jnp.where(direct, 0, kappa)
    return _Expansion(nu, steps, direct, low, order, s, q, tail, rho, debye)


def _steps_down(e: _Expansion) -> list[tuple[float, Values]]:
    """(k, ρ_k) from the expansion's order, exclusive, down to ν."""
    rho, rows = e.rho, []
    for k in reversed(range(e.steps)):
        rho = 1 / (2 * (e.nu + k + 1) + e.low**2 * rho)
        rows.append((e.nu + k, rho))
    return rows


def _ratio_from(e: _Expansion, kappa: Values) -> Values:
    rho = [e.rho, *(rho for _, rho in _steps_down(e))][-1]
    return kappa * jnp.where(e.direct, e.rho, rho)


def _complement_from(e: _Expansion, kappa: Values, ratio: Values) -> Values:
    # S + ν − κ = ν + ν²/(S + κ)
    leading = e.order * (1 + e.order / (e.s + kappa)) / (e.s + e.order)
    return jnp.where(e.direct, leading - kappa / e.s * e.tail, 1 - ratio)


def _slope_from(e: _Expansion) -> Values:
    tail = evaluate(e.debye.slope, e.q, 1 / e.s)
    high = (e.order / (e.s + e.order) + tail / e.s) / e.s
    low = high
    for k, rho in _steps_down(e):
        low = rho**2 * (2 * k + 2 - e.low**2 * low)
    return jnp.where(e.direct, high, low)


def _logarithms(kappa: Values, nu: float) -> tuple[Values, Values]:
    """Λ(κ) and Λ(κ) − κ."""
    e = _expansion(kappa, nu)
    tail = evaluate(e.debye.logarithm, e.q, 1 / e.s) / e.s
    # At an order that is not small: Λ − (S − order), relative to its value at κ = 0.
    large = nu + e.steps
    tail_at_zero = sum(sum(p) / large**k for k, p in enumerate(e.debye.logarithm, 1))
    half = kappa / (e.s + large) * kappa / large
    bend = large * jnp.log1p(half / 2) + jnp.log1p(half) / 2 - (tail - tail_at_zero)
    if e.steps == 0:
        # S − ν − κ = −ν (S + κ − ν)/(S + κ)
        below = nu * (e.s + kappa - nu) / (e.s + kappa)
        value = large * half - bend
        scaled = jnp.where(kappa < nu, value - kappa, -below - bend)
    else:
        growth = jnp.zeros_like(kappa)  # Π_k (2k + 2)⁻¹/ρ_k − 1, of positive terms
        rho = e.rho
        for k, lower in _steps_down(e):
            term = e.low**2 * rho / (2 * k + 2)
            growth, rho = growth + term + growth * term, lower
        value = large * half - bend + jnp.log1p(growth)
        direct = _direct_logarithm(kappa, nu, e.s, tail)
        scaled = jnp.where(e.direct, direct, value - kappa)
        value = jnp.where(e.direct, direct + kappa, value)
    small = kappa < 0.1 * (nu + 2)
    series = kappa**2 * polynomial(_series_at_zero(nu), kappa**2)
    value = jnp.where(small, series, value)
    scaled = jnp.where(small, series - kappa, scaled)
    inside = kappa >= 0
    return jnp.where(inside, value, jnp.nan), jnp.where(inside, scaled, jnp.nan)


def _direct_logarithm(kappa: Values, nu: float, s: Values, tail: Values) -> Values:
    """Λ − κ at small orders and large κ."""
    if nu < 1:
        constant = math.lgamma(nu + 1) + nu * math.log(2) - LOG_2PI / 2
        leading = nu * nu / (s + kappa) - nu * jnp.log(s + nu) + constant
        return leading - jnp.log(s) / 2 + tail
    # Γ(ν + 1) by Stirling's formula, whose leading terms cancel.
    leading = nu * ((s + kappa - nu) / (s + kappa) + jnp.log((s + nu) / (2 * nu)))
    return (stirling_remainder_of(nu) + tail) - (leading + jnp.log(s / nu) / 2)


def _series_at_zero(nu: float) -> list[float]:
    """Coefficients in κ² of Λ(κ)/κ²: the logarithm of Σ_m (κ²/4)^m / (m! (ν+1)_m)."""
    series = [Fraction(1)]
    for m in range(1, 9):
        series.append(series[-1] / (4 * m * (Fraction(nu) + m)))
    logarithm = [Fraction(0)]
    for m in range(1, 9):
        earlier = [j * logarithm[j] * series[m - j] for j in range(1, m)]
        logarithm.append(series[m] - sum(earlier, Fraction(0)) / m)
    return [float(c) for c in logarithm[1:]]


@with_partials(
    lambda kappa, ratio, _, nu: jnp.where(ratio < 0.5, 1 / _ratio_slope(kappa, nu), 0),
    lambda kappa, ratio, _, nu: jnp.where(ratio < 0.5, 0, -1 / _ratio_slope(kappa, nu)),
    fixed=1,
)
def _inverse(ratio: Values, complement: Values, nu: float) -> Values:
    near_zero = ratio < 0.5

    def length(kappa: Values) -> tuple[Values, Values]:
        e = _expansion(kappa, nu)
        near = _ratio_from(e, kappa)
        value = jnp.where(near_zero, near, _complement_from(e, kappa, near))
        sign = jnp.where(near_zero, 1, -1)
        return value, sign * kappa * _slope_from(e) / value

    start = ratio * (2 * nu + 2 - ratio**2) / (complement * (1 + ratio))
    target = jnp.where(near_zero, ratio, complement)
    kappa = invert_power_like(length, target, start, steps_for(ratio, 3, 4))
    kappa = jnp.where(ratio == 0, 0, kappa)
    return jnp.where((ratio >= 0) & (complement > 0), kappa, jnp.nan)
