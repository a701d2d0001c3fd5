"""The one update of a Gaussian that is a prior times a site.

The posterior of data is a prior times their likelihood, and q a prior times a *site*
that stands for it: λ_q = λ_prior + λ_site. With ℓ = ℓ_data − log prior and τ = 1 the
prior's part of `mirror_step` stays, and the site alone moves,

    λ_site⁺ = (1 − ρ) λ_site − ρ ∇_μ E_q[ℓ_data].

For N(m, S⁻¹), S = c s + δ, with g = E_q[∇ℓ] and c ĥ = E_q[∇²ℓ_data] the gradient is
(g − E_q[∇²ℓ] m, ½ E_q[∇²ℓ]), so that in the coordinates (m, s) the same step is

    s⁺ = (1 − ρ) s + ρ ĥ,           `site_step`
    m⁺ = m − α S⁺⁻¹ g,   α = ρ.     `natural_mean_step`

Deep learning takes α and ρ apart. An ĥ of any sign moves S by a retraction in place of
the average, `retracted_site`, as `ngvi.mirror.step` does.

| published              | the site's step  | the mean's step           |
|------------------------|------------------|---------------------------|
| VOGN, noisy Adam       | diagonal         | by S⁺                     |
| noisy K-FAC and EK-FAC | Kronecker        | by S⁺                     |
| SLANG                  | low rank, cut    | by S⁺                     |
| IVON                   | retracted        | by S⁺                     |
| Vadam                  | diagonal         | by √s: no natural step    |

Source: Khan and Lin (2017), Conjugate-computation variational inference, for sites;
Khan and Rue (2023), The Bayesian learning rule, for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg import Diagonal, PositiveDefinite, Semidefinite, SemidefiniteDiagonal

Site = TypeVar("Site")


def site_step(site: Site, curvature: Site, step_size: float | Float[Array, ""]) -> Site:
    """s⁺ = (1 − ρ) s + ρ ĥ, of a matrix or of a pytree of them."""
    return jax.tree.map(
        lambda s, h: s.average(h, step_size),
        site,
        curvature,
        is_leaf=lambda leaf: isinstance(leaf, Semidefinite),
    )


def retracted_site(
    precision: Diagonal,
    change: Float[Array, "p"],
    prior: Float[Array, "p"],
    scale: float | Float[Array, ""],
    retraction: Callable[[Array], Array],
) -> SemidefiniteDiagonal:
    """The site of S moved by about so much, and still positive.

    Args:
        precision: S.
        change: that of S, to first order.
        prior: δ, which the new site is beside.
        scale: c.
        retraction: of `ngvi.mirror.retractions`.
    """
    moved = precision.retract(change / precision.entries(), retraction)
    return SemidefiniteDiagonal((moved.entries() - prior) / scale)


def natural_mean_step(
    mean: Float[Array, "p"],
    gradient: Float[Array, "p"],
    precision: PositiveDefinite,
    step_size: float | Float[Array, ""],
    trust: float | None = None,
) -> Float[Array, "p"]:
    """m⁺ = m − α S⁻¹ g.

    Args:
        mean: m.
        gradient: g.
        precision: S, once it has moved.
        step_size: α.
        trust: the longest step, (Δᵀ S Δ)^½ in units of √P.
    """
    shift = step_size * precision.solve(gradient)
    if trust is not None:
        # α gᵀ S⁻¹ g α, the squared length of the step in S.
        length = jnp.sqrt(step_size * jnp.maximum(shift @ gradient, 0))
        longest = trust * math.sqrt(len(shift))
        shift = shift * jnp.minimum(1, longest / jnp.maximum(length, longest))
    return mean - shift
