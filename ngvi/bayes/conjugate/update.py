"""Stochastic variational inference of conjugate-exponential models: the one update.

Where all conditionals are conjugate, ∇_μ E_q[ℓ] of a factor of q with natural
parameters λ is minus the λ of its prior and the sufficient statistics that the other
factors expect, so that `mirror_step` reads

    λ⁺ = (1 − ρ) λ + ρ (λ_prior + s E[statistics]).

With all data (s = 1) and ρ = 1 it is coordinate ascent, variational Bayesian EM: the
bound never falls. With a minibatch, s = N/B and ρ_t = (t + delay)^−κ, ½ < κ ≤ 1, it is
stochastic variational inference.

Source: Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference,
section 2.
"""

from __future__ import annotations

from typing import TypeVar

import jax
from jaxtyping import Array, Float

from ngvi.families import ExponentialFamily
from ngvi.families.base import Params
from ngvi.mirror import mirror_step

Family = TypeVar("Family", bound=ExponentialFamily)


def conjugate_step(
    q: Family,
    prior: Family,
    statistics: Params,
    step_size: float | Float[Array, ""] = 1.0,
    scale: float | Float[Array, ""] = 1.0,
) -> Family:
    """λ⁺ = (1 − ρ) λ + ρ (λ_prior + s E[statistics]).

    Args:
        q: the factor as it is.
        prior: of the same family, its leaves broadcasting with those of q.
        statistics: what the data of a batch add to λ, a pytree like `q.mean_params`.
        step_size: ρ.
        scale: s, how many times the batch stands for.
    """
    gradient = jax.tree.map(
        lambda p, s: -(p + scale * s), prior.natural_params, statistics
    )
    return mirror_step(q, gradient, step_size)


def robbins_monro(step: int, delay: float, decay: float) -> float:
    """ρ_t = (t + delay)^−κ of step t = 1, 2, …"""
    return (step + delay) ** -decay
