"""Products with the mean Hessian from gradients alone, for precisions of low rank.

A secant is the derivative's product with a step, averaged along it. With z = m + Aε:

    (∇ℓ(m + u) − ∇ℓ(m − u)) / 2 ≈ H u,   u = A ε,

and for a direction a of unit length in S, with ε taken orthogonal to it,

    H a ≈ mean (∇ℓ(m + Aε + a) − ∇ℓ(m + Aε − a)) / 2.

That is Stein's estimate with two points for the normal along a in place of random ones:
exact for a cubic ℓ, and for any ℓ the better, the less its Hessian varies over q.

The first, of the draws themselves, tell the diagonal: diag(H) = diag(C) + diag(H − C),
where what is off the diagonal of H − C is noise, which vanishes as C, what is known of
H, becomes H.

Source: Bekas, Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.linalg import LearnedLowRank
from ngvi.linalg.learned_low_rank import Measured, count_probes
from ngvi.mirror.estimates import Estimate, Potential, assemble
from ngvi.mirror.start import Start

_AROUND = 4
"""Draws around which the secants along the probes are taken."""
_START_PROBES = 16


def from_secants(potential: Potential, q: Gaussian, eps: Array) -> Estimate:
    """An `Estimator` of q with a `LearnedLowRank` precision, from draws [ε; −ε]."""
    precision: Any = q.precision
    gradient_at = jax.vmap(jax.grad(potential))
    half = len(eps) // 2
    values, gradients = jax.vmap(jax.value_and_grad(potential))(q.place(eps))
    away = precision.unwhiten(eps[:half])
    known = precision.known
    rest = (gradients[:half] - gradients[half:]) / 2 - known.mv(away)
    diagonal = (away * rest).sum(0) / (away**2).sum(0) + known.diagonal()

    around = away[: _AROUND // 2]

    def product(of_probe: tuple[Array, Array]) -> Array:
        along, dual = of_probe
        across = around - (around @ dual)[:, None] * along
        centers = q.mean + jnp.concatenate([across, -across])
        ends = jnp.concatenate([centers + along, centers - along])
        ahead, behind = jnp.split(gradient_at(ends), 2)
        return (ahead - behind).mean(0) / 2

    probes = precision.probes().T
    products = jax.lax.map(product, (probes, precision.mv(probes))).T
    curvature = Measured(products, diagonal)
    return assemble(q, values, eps, precision.whiten_gradient(gradients), curvature)


def secants(rank: int) -> int:
    """Gradients that an estimate takes beside those of its draws, for this rank."""
    return 2 * _AROUND * count_probes(rank)


def find_low_rank_start(
    potential: Potential, point: Float[Array, "d"], rank: int
) -> Start:
    """A diagonal to start a fit with at a given point: the sizes of the Hessian's rows
    there, four times over, for deviations half as large as those of the curvature.

    Args:
        potential: ℓ, twice differentiable.
        point: where to begin. A row that has no curvature gets deviations of ½.
        rank: room for so many directions.
    """
    gradient = jax.grad(potential)
    value, slope = jax.value_and_grad(potential)(point)

    def product(v: Array) -> Array:
        return jax.jvp(gradient, (point,), (v,))[1]

    shape = _START_PROBES, len(point)
    signs = jax.random.rademacher(jax.random.key(0), shape, point.dtype)
    products = jax.lax.map(product, signs)
    # The diagonal, or what else is in its row where it is small.
    rows = jnp.abs((signs * products).mean(0))
    usable = jnp.isfinite(rows) & (rows > 0)
    nothing = jnp.zeros((len(point), rank), point.dtype)
    return Start(
        point,
        LearnedLowRank.from_factor(4 * jnp.where(usable, rows, 1.0), nothing),
        jnp.asarray(1 + 2 * _START_PROBES),
        value,
        jnp.isfinite(value) & jnp.isfinite(slope).all(),
    )
