"""Estimates of the natural gradient of E_q[ℓ] for a Gaussian q, from base draws ε.

With z = m + Aε, G = Aᵀ∇ℓ(z) and means over the draws:

- zeroth order (values):    γ = mean (ℓ − ℓ̄) ε,  AᵀHA = mean (ℓ − ℓ̄) (ε εᵀ − I)
- first order (gradients):  γ = mean G,          AᵀHA = Sym mean ε Gᵀ       (Stein)
- second order (Hessians):  γ = mean G,          AᵀHA = mean Aᵀ∇²ℓ(z)A      (Price)

First order with draws whose sample mean is 0 and covariance I is exact for a quadratic
ℓ, and is the exact gradient of the objective mean ℓ(m + Aε) + ½τ log det S for these
draws.

Source: Opper and Archambeau (2009), The variational Gaussian approximation revisited;
Lin, Khan and Schmidt (2019), Stein's lemma for the reparameterization trick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.linalg import Dense
from ngvi.linalg.base import Tangent
from ngvi.mirror.step import Direction

_FLOOR = 1e-2
"""The least curvature, in q's own metric, that a mean steps by."""

Potential = Callable[[Float[Array, "d"]], Float[Array, ""]]
"""ℓ, the function whose expectation is minimised."""


class Estimate(NamedTuple):
    """Means over draws; the estimate from several batches is the mean of theirs."""

    value: Float[Array, ""]
    """mean ℓ."""
    gradient: Direction
    """(γ, M)."""
    spread: Float[Array, "d"]
    """mean over antithetic pairs of (pair mean of G − τε)²: what γ's error comes from,
    since the part of G that is linear in ε carries none."""
    curvature: Float[Array, "d d"] | None
    """AᵀHA in full, where the structure keeps less of it in M and the mean is to step
    in this richer metric; else None."""


Estimator = Callable[[Potential, Gaussian, Float[Array, "n d"]], Estimate]


def over_draws(
    function: Callable[[Array], Any], points: Float[Array, "n d"], at_once: int | None
) -> Any:
    """A function of each point, so many in one go; of all if None."""
    if at_once is None or at_once >= len(points):
        return jax.vmap(function)(points)
    return jax.lax.map(function, points, batch_size=at_once)


def assemble(
    q: Gaussian,
    values: Float[Array, "n"],
    eps: Float[Array, "n d"],
    gradients: Float[Array, "n d"],
    curvature: Tangent,
    temperature: float = 1.0,
    full: Float[Array, "d d"] | None = None,
) -> Estimate:
    """The estimate from values, whitened gradients and AᵀHA."""
    identity = q.precision.tangent_identity()
    error = jax.tree.map(lambda c, i: c - temperature * i, curvature, identity)
    residual = gradients - temperature * eps
    half = eps.shape[0] // 2
    pairs = (residual[:half] + residual[half : 2 * half]) / 2
    return Estimate(
        values.mean(),
        Direction(gradients.mean(0), error),
        (pairs**2).mean(0),
        full,
    )


@dataclass(frozen=True)
class FirstOrder:
    """Stein's estimate from gradients, for moment-matched draws [ε; −ε], N > D.

    With a precision in which few coordinates meet, and draws matched as far as it sees,
    more draws than such coordinates are enough. It is linear in ℓ: where ℓ is a sum
    over batches of data, `at` of each may be summed and assembled once.
    """

    temperature: float = 1.0
    """τ."""
    full_curvature: bool = False
    """Also return AᵀHA in full, for a mean that steps in a richer metric than the
    structure of the precision."""
    at_once: int | None = None
    """Draws at which ℓ is evaluated in one go; by default all."""

    def __call__(self, potential: Potential, q: Gaussian, eps: Array) -> Estimate:
        found = q.precision.added_up(*self.at(potential, q.place(eps)))
        return self.assemble(q, eps, *found)

    def at(
        self, potential: Potential, points: Float[Array, "n d"]
    ) -> tuple[Float[Array, "n"], Float[Array, "n d"]]:
        """ℓ and ∇ℓ at draws from q."""
        return over_draws(jax.value_and_grad(potential), points, self.at_once)

    def assemble(
        self,
        q: Gaussian,
        eps: Float[Array, "n d"],
        values: Float[Array, "n"],
        gradients: Float[Array, "n d"],
    ) -> Estimate:
        """The estimate from ℓ and ∇ℓ at m + Aε."""
        whitened = q.precision.whiten_gradient(gradients)
        full = None
        if self.full_curvature:
            cross = eps.T @ whitened / eps.shape[0]
            full = (cross + cross.T) / 2
        curvature = q.precision.tangent(eps, whitened)
        return assemble(q, values, eps, whitened, curvature, self.temperature, full)


def zeroth_order(
    temperature: float = 1.0, shape: Callable[[Array], Array] | None = None
) -> Estimator:
    """From values alone.

    Args:
        temperature: τ; 0 for evolution strategies.
        shape: what to put in place of the values ℓᵢ (ranks, utilities); by default
            the values themselves. Their mean is subtracted.
    """

    def estimate(potential: Potential, q: Gaussian, eps: Array) -> Estimate:
        values = jax.vmap(potential)(q.place(eps))
        shaped = values if shape is None else shape(values)
        weighted = (shaped - shaped.mean())[:, None] * eps
        curvature = q.precision.tangent(eps, weighted)
        return assemble(q, values, eps, weighted, curvature, temperature)

    return estimate


def second_order(temperature: float = 1.0) -> Estimator:
    """Price's estimate from Hessians, for any number of draws [ε; −ε]."""

    def estimate(potential: Potential, q: Gaussian, eps: Array) -> Estimate:
        def one(z: Array) -> tuple[Array, Array, Array]:
            value, gradient = jax.value_and_grad(potential)(z)
            return value, gradient, jax.hessian(potential)(z)

        values, gradients, hessians = jax.vmap(one)(q.place(eps))
        whitened = q.precision.whiten_gradient(gradients)
        curvature = q.precision.whiten_curvature(hessians.mean(0))
        return assemble(q, values, eps, whitened, curvature, temperature)

    return estimate


def mean_metric(
    estimate: Estimate,
) -> Callable[[Float[Array, "d"]], Float[Array, "d"]]:
    """γ ↦ C⁻¹γ with C the full whitened curvature, made positive: the mean's step in a
    richer metric than q's own. The identity where no full curvature was estimated."""
    if estimate.curvature is None:
        return lambda gamma: gamma
    values, vectors = jnp.linalg.eigh(estimate.curvature)
    size = jnp.sqrt(jnp.maximum(jnp.abs(values), _FLOOR))
    return Dense(vectors * size, vectors / size).solve
