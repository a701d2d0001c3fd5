"""Hessians with a known pattern from a few products: to start a fit with, or to step.

Where coordinates of one colour meet in no row of the Hessian, its product with the sum
of their unit vectors shows all of their columns at once. So it takes as many products
as coordinates meet, however many there are in all.

Source: Curtis, Powell and Reid (1974), On the estimation of sparse Jacobian matrices;
Opper and Archambeau (2009), The variational Gaussian approximation revisited.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.linalg import BlockArrow, Chain, ChainArrow, Tree
from ngvi.linalg.base import Entries
from ngvi.mirror.estimates import (
    Estimate,
    Estimator,
    Potential,
    assemble,
    over_draws,
)
from ngvi.mirror.start import Start


class Pattern(Protocol):
    """Which coordinates meet."""

    def probes(self, dtype: Any) -> Float[Array, "colours d"]:
        """For each colour the sum of its unit vectors."""
        ...

    def read(self, products: Float[Array, "colours d"]) -> Entries:
        """The matrix that maps the probes to these products."""
        ...


def _second_order(
    potential: Potential, point: Float[Array, "d"], pattern: Pattern, at_once: int = 1
) -> tuple[Float[Array, ""], Float[Array, "d"], Entries]:
    """ℓ, ∇ℓ and the entries of ∇²ℓ, so many products at a time."""
    (value, gradient), push = jax.linearize(jax.value_and_grad(potential), point)
    probes = pattern.probes(point.dtype)
    products = jax.lax.map(lambda v: push(v)[1], probes, batch_size=at_once)
    return value, gradient, pattern.read(products)


def second_order_inside(pattern: Pattern, at_once: int | None = None) -> Estimator:
    """Price's estimate: AᵀHA with H = mean ∇²ℓ(z) inside of the precision's pattern.

    It is local where draws are not: the part of H at a few coordinates comes from these
    alone, whatever the others do. For a structure whose tangents are entries.

    Args:
        pattern: of the precision, and of ∇²ℓ.
        at_once: draws at which ℓ is evaluated in one go; by default all.
    """

    def estimate(potential: Potential, q: Gaussian, eps: Array) -> Estimate:
        def one(z: Array) -> tuple[Array, Array, Entries]:
            colours = pattern.probes(z.dtype).shape[0]
            return _second_order(potential, z, pattern, colours)

        away = q.precision.unwhiten_matched(eps)
        points = q.mean + away
        values, gradients, hessians = over_draws(one, points, at_once)
        hessian = jax.tree.map(lambda h: h.mean(0), hessians)
        whitened = q.precision.whiten_gradient(gradients)
        curvature = q.precision.as_tangent(hessian)
        # Of the points' own ε: the matched ones are not at A times those given.
        own = q.precision.whiten(away)
        return assemble(q, values, own, whitened, curvature)

    return estimate


def find_sparse_start(
    potential: Potential, point: Float[Array, "d"], pattern: Tree | Chain
) -> Start:
    """A precision to start a fit with at a given point: the curvature of ℓ there, made
    positive, with deviations half as large.

    Unlike in few dimensions, no descent to the mode of the density goes before: with
    thousands of blocks a hierarchical model's mode is thousands of nats from its mass
    (all groups shrink together while their scale grows, or the other way), and the way
    back is longer than that from the prior's center.

    Args:
        potential: ℓ, twice differentiable.
        point: where to begin.
        pattern: of ∇²ℓ.
    """
    value, gradient, entries = _second_order(potential, point, pattern)
    leaves = jax.tree.leaves(entries)
    kind: Any = BlockArrow if isinstance(pattern, Tree) else ChainArrow
    identity = kind.identity(pattern, point.dtype)
    usable = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    usable = identity.everywhere(usable)
    entries = jax.tree.map(
        lambda h, i: jnp.where(usable, h, i), entries, identity.entries()
    )
    precision = kind.nearly(pattern, entries)
    value, gradient = identity.added_up(value, gradient)
    return Start(
        point,
        precision.scale(4.0),
        jnp.asarray(1 + 2 * pattern.colours),
        value,
        identity.everywhere(jnp.isfinite(value) & jnp.isfinite(gradient).all()),
    )
