"""Retractions: how far a precision moves along a tangent and stays positive definite.

S⁺ = B R(X) Bᵀ, with X = ρM the step in the frame of the root and R applied to its
spectrum. All agree with exp to first order.

| name         | R(x)               | known as                                       |
|--------------|--------------------|------------------------------------------------|
| first_order  | 1 + x              | plain natural gradient, mirror descent, BLR    |
| second_order | 1 + x + ½x²        | improved Bayesian learning rule, IVON          |
| exponential  | exp x              | xNES, SNES                                     |
| safeguarded  | 1 + x, bent at −.8 | the default of `ngvi.fit`                      |
| covariance   | 1/(1 − x)          | CMA-ES: first order in S⁻¹ in place of S       |
| deviations   | 1/(1 − ½x)²        | PGPE, CR-FM-NES: first order in S^−½           |

First order is exact in one step on a quadratic and positive iff x > −1; second order
and exp are always positive but overshoot from a far too small precision.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

_BEND = -0.8


def first_order(x: Array) -> Array:
    """1 + x: the mirror-descent step itself."""
    return 1 + x


def second_order(x: Array) -> Array:
    """1 + x + ½x² ≥ ½."""
    return 1 + x + x**2 / 2


def exponential(x: Array) -> Array:
    """exp x."""
    return jnp.exp(x)


def safeguarded(x: Array) -> Array:
    """1 + x above −0.8; below, the hyperbola that continues it smoothly to 0.

    So a precision that is far too large falls tenfold in one step (R(−1) = 0.1), where
    second order can only halve it and first order would lose positivity.
    """
    at = 1 + _BEND
    tail = at**2 / (1 + 2 * _BEND - jnp.minimum(x, _BEND))
    return jnp.where(x > _BEND, 1 + x, tail)


def covariance(x: Array) -> Array:
    """1/(1 − x): the step of order one in the covariance, positive iff x < 1."""
    return 1 / (1 - x)


def deviations(x: Array) -> Array:
    """1/(1 − ½x)²: the step of order one in the standard deviations.

    None falls more than tenfold in a step, however large x is.
    """
    return 1 / (1 - jnp.minimum(x, 1.8) / 2) ** 2
