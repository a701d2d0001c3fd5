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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.families import Gaussian
from ngvi.linalg.learned_low_rank import Measured, count_probes
from ngvi.mirror.estimates import Estimate, Estimator, Potential, assemble, over_draws

_AROUND = 4
"""Draws around which the secants along the probes are taken."""
_START_PROBES = 16


def from_secants(temperature: float = 1.0, at_once: int | None = None) -> Estimator:
    """Of q with a `LearnedLowRank` precision, from draws [ε; −ε].

    Args:
        temperature: τ.
        at_once: draws at which ℓ is evaluated in one go; by default all.
    """

    def estimate(potential: Potential, q: Gaussian, eps: Array) -> Estimate:
        precision: Any = q.precision
        gradient = jax.grad(potential)
        half = len(eps) // 2
        function = jax.value_and_grad(potential)
        values, gradients = over_draws(function, q.place(eps), at_once)
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
            ahead, behind = jnp.split(over_draws(gradient, ends, at_once), 2)
            return (ahead - behind).mean(0) / 2

        probes = precision.probes().T
        products = jax.lax.map(product, (probes, precision.mv(probes))).T
        return assemble(
            q,
            values,
            eps,
            precision.whiten_gradient(gradients),
            Measured(products, diagonal),
            temperature,
        )

    return estimate


def secants(rank: int) -> int:
    """Gradients that an estimate takes beside those of its draws, for this rank."""
    return 2 * _AROUND * count_probes(rank)


class DiagonalStart(NamedTuple):
    """Where a fit in many dimensions begins."""

    diagonal: Float[Array, "d"]
    """Of a precision."""
    gradients: Int[Array, ""]
    """Gradient evaluations spent; a Hessian-vector product counts as two."""
    value: Float[Array, ""]
    """ℓ there."""
    finite: Bool[Array, ""]
    """Whether ℓ and its gradient are finite there."""


def find_diagonal_start(
    potential: Potential, point: Float[Array, "d"]
) -> DiagonalStart:
    """The sizes of the Hessian's rows at a point, four times over: deviations half as
    large as those of the curvature. Where it has none, deviations of 1."""
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
    return DiagonalStart(
        4 * jnp.where(usable, rows, 1.0),
        jnp.asarray(1 + 2 * _START_PROBES),
        value,
        jnp.isfinite(value) & jnp.isfinite(slope).all(),
    )
