"""Bayes by backprop: a mean-field Gaussian by ordinary gradients of the ELBO.

    q(w) = N(m, diag σ²),   σ = log(1 + e^ρ),   w = m + σ ε,
    N E_q[ℓ̄(w)] + κ KL(q ‖ prior),

descended in (m, ρ) by Adam. The KL divergence is taken in closed form, which has less
noise than the published estimate of it by the same draws.

Source: Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), Weight uncertainty in
neural networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.layout import Layout
from ngvi.fisher.problem import Apply
from ngvi.linalg import Diagonal, PositiveDefinite
from ngvi.nets.baselines.descent import Descent, DescentState, Objective
from ngvi.nets.posterior import WeightPosterior
from ngvi.nets.prior import Prior


class MeanField(NamedTuple):
    """The variables of q."""

    mean: Float[Array, "p"]
    rho: Float[Array, "p"]

    @property
    def deviations(self) -> Float[Array, "p"]:
        """σ."""
        return jax.nn.softplus(self.rho)

    @property
    def precision(self) -> Diagonal:
        """S = diag(σ⁻²)."""
        return Diagonal.from_deviations(self.deviations)


@dataclass(frozen=True)
class MinusElbo(Objective):
    """The penalty is the KL divergence from the prior.

    Args:
        samples: weights drawn for every step.
    """

    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")

    def begin(self, mean: Float[Array, "p"], precision: PositiveDefinite) -> MeanField:
        sd = jnp.sqrt(precision.inverse_diagonal())
        # The inverse of softplus, for a large σ too.
        return MeanField(mean, sd + jnp.log(-jnp.expm1(-sd)))

    def draws(
        self, variables: MeanField, key: Key[Array, ""], layout: Layout
    ) -> Float[Array, "s p"]:
        mean = variables.mean
        eps = jax.random.normal(key, (self.samples, len(mean)), mean.dtype)
        return mean + variables.deviations * eps

    def penalty(self, variables: MeanField, prior: Prior) -> Float[Array, ""]:
        return prior.kl(variables.mean, variables.precision)

    def learned(self, variables: MeanField, prior: Prior) -> Prior:
        return prior.learned(variables.mean, variables.precision)

    def posterior(self, state: DescentState) -> WeightPosterior:
        q = state.variables
        return WeightPosterior(
            q.mean, q.precision, state.prior, state.likelihood, state.noise
        )


def bayes_by_backprop(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    samples: int = 1,
    **settings: Any,
) -> Descent:
    """Mean-field variational inference by Adam, without natural gradients.

    Args:
        apply, likelihood, data_size: as in `ngvi.nets.vogn`.
        samples: weights drawn for every step.
        **settings: of `DescentRule`; and prior_precision, prior_mean, hyperprior,
            kl_weight and initial_curvature, as there.
    """
    return Descent.of(apply, likelihood, data_size, MinusElbo(samples), settings)
