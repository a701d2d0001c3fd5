"""Tails of the normal and the exponential kind, without their exponential factor.

    mills_ratio(x)    Φ(−x)/φ(x) = e^{x²/2} ∫_x^∞ e^{−t²/2} dt,      1/x as x → ∞, x ≥ 0
    scaled_exp1(x)    eˣ E₁(x) = ∫_0^∞ e⁻ᵗ/(x + t) dt,  −log x − γ at 0, 1/x at ∞, x > 0

Tail probabilities under- or overflow where these are plain numbers. NaN outside the
domain.

Method: (1 + x) mills_ratio(x) is one rational function of 1/(1 + x), and for x ≥ 1 so
is 1 − x scaled_exp1(x) of 1/x, interpolated at Chebyshev points with 60 digits:
relative errors up to 5e-15. Below 1, E₁ is its series.

Source: NIST Digital Library of Mathematical Functions, §6.6 and §7.8.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special.calculus import polynomial, with_partials

Values = Float[Array, "*s"]
_EULER_GAMMA = 0.5772156649015329

# (1 + x) mills_ratio(x) in powers of t = 1/(1 + x), 0 ≤ t ≤ 1.
_MILLS_NUMERATOR = (
    1.0000000000000056,
    34.207507615596484,
    589.306528578356,
    6662.94787207784,
    54619.855999485866,
    340459.0681545163,
    1651624.2946421125,
    6287311.798071656,
    18704369.62649434,
    42706913.09231221,
    71915111.6641879,
    81884221.96684557,
    49786745.83296287,
)
# Its denominator.
_MILLS_DENOMINATOR = (
    1.0,
    33.207507615604285,
    556.0990209607706,
    6108.848851335063,
    48579.42214961882,
    293052.2596358439,
    1371686.6685362277,
    5021154.146481982,
    14321717.382325357,
    31341032.403065193,
    51016440.59904562,
    58367057.08606629,
    41986614.62654321,
    14318666.65471634,
)
# x (1 − x scaled_exp1(x)) in powers of t = 1/x, 0 ≤ t ≤ 1.
_DEFICIT_NUMERATOR = (
    0.9999999999999977,
    52.290626728311786,
    1106.410383599934,
    12401.064799626045,
    81082.48369799761,
    321679.8291610115,
    782708.3709364478,
    1157738.684533366,
    1013483.86387718,
    500128.05996594403,
    128062.43284050658,
    14631.43767084293,
    527.8507011318137,
    0.08409661156647553,
)
# Its denominator.
_DEFICIT_DENOMINATOR = (
    1.0,
    54.29062672830821,
    1208.9916370576132,
    14517.304313226887,
    104046.11755550886,
    465889.16178339394,
    1327595.578375913,
    2409793.2588263643,
    2748598.058012909,
    1913483.5384198872,
    773665.8400660645,
    167203.00763246496,
    16618.219735526138,
    537.9117479914856,
)
# E₁(x) + log x + γ = Σ_k (−1)ᵏ⁺¹ xᵏ/(k k!), |x| ≤ 1, to 1e-17.
_SERIES = (
    0.0,
    *((-1) ** (k + 1) / (k * math.factorial(k)) for k in range(1, 19)),
)


@with_partials(lambda value, x: x * value - 1)
def mills_ratio(x: Values) -> Values:
    """Φ(−x)/φ(x) > 0 for x ≥ 0, the normal distribution's."""
    t = 1 / (1 + x)
    value = t * polynomial(_MILLS_NUMERATOR, t) / polynomial(_MILLS_DENOMINATOR, t)
    return jnp.where(x >= 0, value, jnp.nan)


@with_partials(lambda _, x: -_exp1_deficit(x) / x)
def scaled_exp1(x: Values) -> Values:
    """eˣ E₁(x) > 0 for x > 0."""
    return jnp.where(x < 1, _near_zero(x), (1 - _far(x)) / x)


def _exp1_deficit(x: Values) -> Values:
    """1 − x scaled_exp1(x), ≈ 1/x as x → ∞."""
    return jnp.where(x < 1, 1 - x * _near_zero(x), _far(x))


def _near_zero(x: Values) -> Values:
    low = jnp.clip(x, None, 1)
    return jnp.exp(low) * (polynomial(_SERIES, low) - (jnp.log(low) + _EULER_GAMMA))


def _far(x: Values) -> Values:
    t = 1 / jnp.maximum(x, 1)
    return t * polynomial(_DEFICIT_NUMERATOR, t) / polynomial(_DEFICIT_DENOMINATOR, t)
