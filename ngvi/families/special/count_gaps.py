"""The integrals in the entropies of counts, as Chebyshev series in one variable.

    binomial_gap(p, q, n)          J of X ~ Binomial(n, p), q = 1 − p
    negative_binomial_gap(u, r)    J of X less that of Γ(X + r), X of mean r eᵘ
    log_series_mean_log(l)         E[log X], P(X = k) ∝ pᵏ/k, p = σ(l)

J = ∫₀^∞ [G(e⁻ᵗ) − e⁻ᵐᵗ] dt / (t (eᵗ − 1)), see `expectations`. n and r are the same for
a whole batch, so each is a function of one number. It is integrated in NumPy, at the
Chebyshev points of a variable in which it is smooth from end to end, once for each n or
r; what a program evaluates is the series. It is that of the ratio to the function's
limit at 0, and loses no digits there.

With v = log(1 + s e^u), s the scale at which the mean is one, the variable is
z = (v − c)/(v + c), c in the middle of where the function changes. The integrals are
the trapezoidal rule in a variable s with log t = s − e^{−s} (shifted and scaled to
where the integrand is), in which both ends fall off doubly exponentially.

Source: Takahasi and Mori (1974), Double exponential formulas for numerical integration;
Trefethen (2013), Approximation theory and approximation practice, chapters 3 and 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.families.special.calculus import with_partials
from ngvi.families.special.logistic import softplus

Values = Float[Array, "*s"]
POINTS = 160


class Series(NamedTuple):
    """Σ_k c_k T_k of the variable z, scaled to [−1, 1], of 0 ≤ v ≤ end."""

    coefficients: tuple[float, ...]
    centre: float
    end: float

    def at(self, v: Values) -> Values:
        v = jnp.clip(v, 0, self.end)
        # (z + 1)/(z_end + 1), from 0 to 1.
        share = v / (v + self.centre) * ((self.end + self.centre) / self.end)
        single = jnp.finfo(v.dtype).bits == 32
        return _chebyshev(2 * share - 1, _cut(self.coefficients, 1e-9 if single else 0))


def _cut(coefficients: tuple[float, ...], tolerance: float) -> tuple[float, ...]:
    sizes = np.abs(coefficients)
    kept = np.flatnonzero(sizes > tolerance * sizes.max())
    return coefficients[: int(kept[-1]) + 1]


@with_partials(lambda _, x, c: _chebyshev(x, _derivative(c)), fixed=1)
def _chebyshev(x: Values, coefficients: tuple[float, ...]) -> Values:
    """Clenshaw's recurrence."""
    first, second = jnp.zeros_like(x), jnp.zeros_like(x)
    for c in reversed(coefficients[1:]):
        first, second = 2 * x * first - second + c, first
    return x * first - second + coefficients[0]


def _derivative(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(np.polynomial.chebyshev.chebder(coefficients).tolist())


def _fitted(
    function: Callable[[np.ndarray], np.ndarray], centre: float, end: float
) -> Series:
    """The series of a function of v."""
    angles = (np.arange(POINTS) + 0.5) * (np.pi / POINTS)
    share = (1 + np.cos(angles)) / 2 * (end / (end + centre))
    values = function(centre * share / (1 - share))
    orders = np.arange(POINTS)
    c = 2 / POINTS * (np.cos(orders[:, None] * angles) @ values)
    c[0] /= 2
    return Series(_cut(tuple(c.tolist()), 1e-14), centre, end)


# -- binomial ------------------------------------------------------------------------


def binomial_gap(p: Values, q: Values, count: int) -> Values:
    """J of X ~ Binomial(n, p), q = 1 − p."""
    low, high = _binomial_series(count)
    v = jnp.log1p(count * jnp.minimum(p, q))
    return -jnp.expm1(-v) * jnp.where(p <= q, low.at(v), high.at(v))


@functools.lru_cache(256)
def _binomial_series(count: int) -> tuple[Series, Series]:
    """Of p ≤ ½ and of p > ½, in terms of the smaller of p and q."""

    def of(sign: float) -> Callable[[np.ndarray], np.ndarray]:
        def ratio(v: np.ndarray) -> np.ndarray:
            rare = np.expm1(v) / count
            mean = count * (rare if sign < 0 else 1 - rare)
            # Where it ends: e^{−mean t}, or e^{−t} where G(0) is not negligible.
            end = np.maximum(1 / (1 + mean), 1 - mean / 38)
            t, weight = _nodes(end, 1 / (1 + mean))
            growth = rare * np.expm1(sign * t)
            near = _log1p_minus(growth) + rare * _expm1_minus(sign * t)
            far = np.log1p(growth) - sign * rare * t
            gap = count * np.where(growth < 1, near, far)
            difference = _exp_difference(mean * t, gap, mean * t - gap)
            return (difference * weight / np.expm1(t)).sum(0) / -np.expm1(-v)

        # e^{sign t} goes with x counted, sign < 0, or n − x.
        return ratio

    end = math.log1p(count / 2)
    return _fitted(of(-1.0), 3.0, end), _fitted(of(1.0), 3.0, end)


# -- negative binomial ---------------------------------------------------------------


def negative_binomial_gap(u: Values, count: float) -> Values:
    """J less that of Γ(x + r), whose integrand has another factor e^{−(r−1)t}."""
    if count == 1:
        return jnp.zeros_like(u)
    v = softplus(u + math.log(max(count, 1.0)))
    return -jnp.expm1(-v) * _negative_binomial_series(float(count)).at(v)


@functools.lru_cache(256)
def _negative_binomial_series(r: float) -> Series:
    slow, scale = min(r, 1.0), max(r, 1.0)

    def ratio(v: np.ndarray) -> np.ndarray:
        m = np.expm1(v) / scale
        reach = 37 / math.expm1(min(37 / r, 80.0))
        end = np.maximum(1 / (slow + m * reach), (1 - r * np.log1p(m) / 38) / slow)
        t, weight = _nodes(end, 1 / (1 + m * scale))
        x = -np.expm1(-t)
        gap = r * (m * _expm1_minus(-t) - _log1p_minus(m * x))
        difference = _exp_difference(r * m * t, gap, r * np.log1p(m * x))
        kernel = np.expm1(-abs(r - 1) * t) / np.expm1(-t) * np.exp(-slow * t)
        total = (difference * kernel * weight).sum(0)
        return math.copysign(1, r - 1) * total / -np.expm1(-v)

    return _fitted(ratio, 6 / slow, min(38 / slow + math.log(scale), 600.0))


# -- logarithmic series --------------------------------------------------------------


def log_series_mean_log(logits: Values) -> Values:
    """E[log X] for P(X = k) = pᵏ/(k y), y = −log(1 − p), p = σ(logits).

    log x = ∫₀^∞ (e⁻ᵗ − e⁻ˣᵗ) dt/t, and E[uˣ] = −log(1 − p u)/y.
    """
    y = softplus(logits)
    return y * _log_series().at(y)


@functools.cache
def _log_series() -> Series:
    def ratio(y: np.ndarray) -> np.ndarray:
        p = -np.expm1(-y)
        t, weight = _nodes(np.ones_like(y), np.exp(-y))
        x = -np.expm1(-t)
        # (u y + log(1 − p u))/y, in which the terms of order p cancel by hand.
        small, u = np.where(p < 0.5, p, 0.25), 1 - x
        near = (_log1p_minus(-small * u) - u * _log1p_minus(-small)) / -np.log1p(-small)
        far = np.log1p(np.expm1(y) * x) / y - x
        return (np.where(p < 0.5, near, far) * weight).sum(0) / y

    return _fitted(ratio, 6.0, 600.0)


# -- in NumPy ------------------------------------------------------------------------

# In double precision, whatever the programs have: so not the functions of `ratios`.


def _nodes(end: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points t and weights, along a leading axis, of ∫ … dt/t over t > 0.

    The integrand is negligible beyond 45 `end`, and falls in proportion to t, or stays
    constant, below `start`.
    """
    low, high = -3.9, 3.9
    shift = np.maximum(np.log(end / start), 0)
    count = 120 + 9 * int(shift.max())
    step = (high - low + shift) / (count - 1)
    s = low - shift + step * np.arange(count)[:, None]
    decay = np.exp(-(s + shift))
    return end * np.exp(s - decay), (1 + decay) * step


def _exp_difference(x: np.ndarray, gap: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """e^{−rest} − e^{−x} ≥ 0, gap = x − rest."""
    near = gap < 1
    close = np.exp(-x) * np.expm1(np.where(near, gap, 0))
    return np.where(near, close, np.exp(-rest) - np.exp(-x))


def _expm1_minus(z: np.ndarray) -> np.ndarray:
    """eᶻ − 1 − z."""
    terms = [0, 0, *(1 / math.factorial(k) for k in range(2, 19))]
    small = np.clip(z, -1, 1)
    series = np.polynomial.polynomial.polyval(small, terms)
    with np.errstate(over="ignore"):
        return np.where(small == z, series, np.expm1(z) - z)


def _log1p_minus(x: np.ndarray) -> np.ndarray:
    """log(1 + x) − x."""
    near = np.abs(x) < 0.5
    s = np.where(near, x / (2 + x), 0)
    terms = [0, *(2 / (2 * k + 1) for k in range(1, 20))]
    series = s * np.polynomial.polynomial.polyval(s * s, terms) - s * x
    return np.where(near, series, np.log1p(x) - x)
