"""The one update: mirror descent on an exponential family.

    minimise  L(q) = E_q[ℓ(z)] − τ Entropy(q)
    λ⁺ = argmin_μ ⟨∇_μ L, μ⟩ + (1/ρ) KL(q_μ ‖ q_λ)  =  (1 − ρτ) λ − ρ ∇_μ E_q[ℓ]

| algorithm                       | family     | ∇_μ E_q[ℓ]    | τ | retraction   |
|---------------------------------|------------|---------------|---|--------------|
| natural-gradient VI, BLR        | any        | first, second | 1 | first order  |
| conjugate updates, SVI, CVI     | conjugate  | exact         | 1 | none (ρ = 1) |
| improved BLR                    | Gaussian   | first, second | 1 | second order |
| xNES, SNES                      | Gaussian   | zeroth, ranks | 0 | exponential  |
| PBIL, compact GA                | Bernoulli  | zeroth, ranks | 0 | step in μ    |

For a Gaussian the same update is written in the frame of its root, z = m + Aε:

    γ = Aᵀ E[∇ℓ],   M = Aᵀ E[∇²ℓ] A − τI,
    S⁺ = A⁻ᵀ R(ρM) A⁻¹,   m⁺ = m − ρ A R(ρM)⁻¹ γ,

where no affine change of z changes γ, M or anything computed from them.

Source: Khan and Rue (2023), The Bayesian learning rule, section 3; Glasmachers et al.
(2010), Exponential natural evolution strategies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import ExponentialFamily, Gaussian
from ngvi.families.base import Params
from ngvi.linalg.base import LinearStructure, Retracted, Tangent

Family = TypeVar("Family", bound=ExponentialFamily)
Retraction = Callable[[Array], Array]


def mirror_step(
    q: Family,
    mean_gradient: Params,
    step_size: float | Float[Array, ""],
    temperature: float | Float[Array, ""] = 1.0,
) -> Family:
    """λ⁺ = (1 − ρτ) λ − ρ ∇_μ E_q[ℓ], for any family with a constant base measure.

    Args:
        q: the current distribution.
        mean_gradient: ∇_μ E_q[ℓ], a pytree like `q.mean_params`.
        step_size: ρ.
        temperature: τ, the weight of the entropy.
    """
    keep = 1 - step_size * temperature
    moved = jax.tree.map(
        lambda p, g: keep * p - step_size * g, q.natural_params, mean_gradient
    )
    return q.with_natural_params(moved)


def mean_step(
    q: Family,
    gradient: Params,
    step_size: float | Float[Array, ""],
    inside: Callable[[Params], Params] = lambda params: params,
) -> Family:
    """μ⁺ = μ − ρ ∇_λ E_q[ℓ]: along the same tangent vector, straight in μ.

    Where a family's λ run off to infinity, as on the border of the probabilities, its μ
    do not. ∇_λ E_q[ℓ] = E_q[ℓ(x) (T(x) − μ)].

    Args:
        q: the current distribution.
        gradient: ∇_λ E_q[ℓ], a pytree like `q.mean_params`.
        step_size: ρ.
        inside: brings mean parameters back to where the family has a member.
    """
    moved = jax.tree.map(lambda m, g: m - step_size * g, q.mean_params, gradient)
    return q.with_mean_params(inside(moved))


class Direction(NamedTuple):
    """A natural gradient of L, or another tangent vector, in a Gaussian's frame."""

    mean: Float[Array, "d"]
    """γ."""
    curvature: Tangent
    """M, in the layout of the precision's structure."""


def inner(precision: LinearStructure, a: Direction, b: Direction) -> Float[Array, ""]:
    """The Fisher inner product ⟨γ, γ′⟩ + ½ tr(M M′)."""
    of_means = precision.dot(a.mean, b.mean)
    return of_means + precision.tangent_inner(a.curvature, b.curvature) / 2


def fisher_length(precision: LinearStructure, d: Direction) -> Float[Array, ""]:
    """√(‖γ‖² + ½‖M‖²_F): about √(2 KL) to the optimum, the same in all units."""
    return jnp.sqrt(inner(precision, d, d))


class Step(NamedTuple):
    """A Gaussian moved along a direction."""

    q: Gaussian
    kl: Float[Array, ""]
    """KL(q⁺ ‖ q), exactly."""
    displacement: Direction
    """The tangent vector from q to q⁺: −ρ times the direction, to first order."""


def gaussian_path(
    q: Gaussian, direction: Direction, retraction: Retraction
) -> Callable[[float | Float[Array, ""]], Step]:
    """ρ ↦ the whitened step of length ρ; the spectrum of M is computed once."""
    along = q.precision.along(direction.curvature)

    def step(rho: float | Float[Array, ""]) -> Step:
        moved: Retracted = along(jnp.asarray(rho), retraction)
        shift = rho * moved.solve(direction.mean)
        mean = q.mean - q.precision.unwhiten(shift)
        dim, squared = q.precision.whole_dim, q.precision.dot(shift, shift)
        kl = (moved.trace_inverse - dim + moved.logdet + squared) / 2
        displacement = Direction(
            moved.matrix.whiten(mean - q.mean),
            jax.tree.map(jnp.negative, moved.log),
        )
        return Step(Gaussian(mean, moved.matrix), kl, displacement)

    return step


def gaussian_step(
    q: Gaussian,
    direction: Direction,
    step_size: float | Float[Array, ""],
    retraction: Retraction,
) -> Gaussian:
    """S⁺ = A⁻ᵀ R(ρM) A⁻¹, m⁺ = m − ρ A γ: the mean moves in the old frame.

    So evolution strategies move: their γ is a weighted mean of draws, where the new
    mean is to lie. `gaussian_path` moves the mean in the new frame.
    """
    step = jax.tree.map(lambda leaf: step_size * leaf, direction)
    precision = q.precision.retract(step.curvature, retraction)
    return Gaussian(q.mean - q.precision.unwhiten(step.mean), precision)


def sum_step(
    q: Gaussian,
    shift: Float[Array, "d"],
    eps: Float[Array, "n d"],
    weights: Float[Array, "n"],
    rest: float | Float[Array, ""],
    retraction: Retraction,
) -> Gaussian:
    """`gaussian_step` of length 1 along γ = −shift and M = −Σ wᵢ εᵢεᵢᵀ − rest I.

    Where the draws are few, M need not be formed.
    """
    negative = jnp.negative(weights), jnp.negative(rest)
    precision = q.precision.retract_sum(eps, *negative, retraction)
    return Gaussian(q.mean + q.precision.unwhiten(shift), precision)


def moments_step(
    q: Gaussian,
    shift: Float[Array, "d"],
    eps: Float[Array, "n d"],
    weights: Float[Array, "n"],
    keep: float | Float[Array, ""],
) -> Gaussian:
    """m⁺ = m + A·shift, Σ⁺ = A (keep I + Σ wᵢ εᵢεᵢᵀ) Aᵀ: a step in the second moments.

    With keep = 1 − Σ w it is `gaussian_step` along M = −Σ wᵢ (εᵢεᵢᵀ − I) with the
    covariance's retraction, for a structure that has no linear tangents: Σ⁺ is outside
    of it, and the nearest member is taken.
    """
    precision = q.precision.absorb(eps, weights, keep)
    return Gaussian(q.mean + q.precision.unwhiten(shift), precision)
