"""Tails of the normal and the exponential kind, without their exponential factor.

    mills_ratio(x)    Φ(−x)/φ(x) = e^{x²/2} ∫_x^∞ e^{−t²/2} dt,      1/x as x → ∞, x ≥ 0
    scaled_exp1(x)    eˣ E₁(x) = ∫_0^∞ e⁻ᵗ/(x + t) dt,  −log x − γ at 0, 1/x at ∞, x > 0

Tail probabilities under- or overflow where these are plain numbers. NaN outside the
domain.

Their derivatives are x mills_ratio(x) − 1 ≈ −1/x² and scaled_exp1(x) − 1/x ≈ −1/x²,
which subtraction would lose for large x.

Method: mills_ratio(x) and 1 − x mills_ratio(x) are each one rational function of
1/(1 + x/2.5), and for x ≥ 1 so is 1 − x scaled_exp1(x) of 1/x, interpolated at
Chebyshev points with 60 digits: relative errors up to 5e-15. Below 1, E₁ is its series.

Source: NIST Digital Library of Mathematical Functions, §6.6 and §7.8.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special.calculus import polynomial, rational, with_partials
from ngvi.families.special.tables import EULER_GAMMA

Values = Float[Array, "*s"]

# mills_ratio(x)/t in powers of t = 1/(1 + x/2.5), 0 ≤ t ≤ 1.
_MILLS_NUMERATOR = (
    0.40000000000000016,
    1.0571692124824543,
    3.7321019691476548,
    7.0279189224202539,
    12.530539573213882,
    16.617304148632672,
    18.883552695838114,
    17.182869617977169,
    12.567562823977071,
    6.824593159643043,
    2.2981955921241912,
)
# Its denominator.
_MILLS_DENOMINATOR = (
    1.0,
    1.6429230312065161,
    6.8473318916008711,
    8.8224100722443856,
    15.781059957040944,
    14.814872905572074,
    14.414766391184419,
    8.951214446153728,
    4.7569716734835969,
    1.6367373576963408,
    0.37920209149651786,
    0.040270197353692257,
)
# (1 − x mills_ratio(x))/t² in powers of the same t.
_MILLS_DEFICIT_NUMERATOR = (
    0.16000000000000004,
    0.40514369823003849,
    1.7738842482812169,
    3.5860247298079491,
    7.6905963368242926,
    11.693106828132423,
    15.887748124119114,
    17.023766707948182,
    14.76537203193006,
    9.3981480234077759,
    3.6904639439163066,
    0.096749707001551875,
)
# Its denominator.
_MILLS_DEFICIT_DENOMINATOR = (
    1.0,
    0.53214811393803031,
    7.5024803238259245,
    3.9866806707757312,
    19.495747098078548,
    9.4240589057136494,
    21.502953835389568,
    8.4579887203426984,
    9.8374294288992845,
    2.6698406852193228,
    1.520560116418259,
    0.20045830891333495,
    0.040658172084559507,
)
# x (1 − x scaled_exp1(x)) in powers of t = 1/x, 0 ≤ t ≤ 1.
_EXP1_DEFICIT_NUMERATOR = (
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
_EXP1_DEFICIT_DENOMINATOR = (
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


@with_partials(lambda _, x: -_mills_deficit(x))
def mills_ratio(x: Values) -> Values:
    """Φ(−x)/φ(x) > 0 for x ≥ 0, the normal distribution's."""
    t = 1 / (1 + x / 2.5)
    value = t * rational(_MILLS_NUMERATOR, _MILLS_DENOMINATOR, t)
    return jnp.where(x >= 0, value, jnp.nan)


def _mills_deficit(x: Values) -> Values:
    """1 − x mills_ratio(x), ≈ 1/x² as x → ∞."""
    t = 1 / (1 + x / 2.5)
    value = t * t * rational(_MILLS_DEFICIT_NUMERATOR, _MILLS_DEFICIT_DENOMINATOR, t)
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
    return jnp.exp(low) * (polynomial(_SERIES, low) - (jnp.log(low) + EULER_GAMMA))


def _far(x: Values) -> Values:
    t = 1 / jnp.maximum(x, 1)
    return t * rational(_EXP1_DEFICIT_NUMERATOR, _EXP1_DEFICIT_DENOMINATOR, t)
