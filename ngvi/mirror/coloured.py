"""Hessians with the pattern of a tree from a few products, to start a fit with.

Where coordinates of one colour meet in no row of the Hessian, its product with the sum
of their unit vectors shows all of their columns at once. So it takes as many products
as coordinates meet, however many there are in all.

Source: Curtis, Powell and Reid (1974), On the estimation of sparse Jacobian matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.linalg import BlockArrow, Tree
from ngvi.linalg.tree import Blocks
from ngvi.mirror.estimates import Potential


def second_order(
    potential: Potential, point: Float[Array, "d"], tree: Tree
) -> tuple[Float[Array, ""], Float[Array, "d"], Blocks]:
    """ℓ, ∇ℓ and the entries of ∇²ℓ, one product at a time."""
    value, gradient = jax.value_and_grad(potential)(point)

    def product(v: Float[Array, "d"]) -> Float[Array, "d"]:
        return jax.jvp(jax.grad(potential), (point,), (v,))[1]

    products = jax.lax.map(product, tree.probes(point.dtype))
    return value, gradient, tree.read(products)


class SparseStart(NamedTuple):
    """A precision at a point."""

    precision: BlockArrow
    gradients: Int[Array, ""]
    """Gradient evaluations spent; a Hessian-vector product counts as two."""
    value: Float[Array, ""]
    """ℓ there."""
    finite: Bool[Array, ""]
    """Whether ℓ and its gradient are finite there."""


def find_sparse_start(
    potential: Potential, point: Float[Array, "d"], tree: Tree
) -> SparseStart:
    """A precision to start a fit with at a given point: the curvature of ℓ there, made
    positive, with deviations half as large.

    Unlike in few dimensions, no descent to the mode of the density goes before: with
    thousands of blocks a hierarchical model's mode is thousands of nats from its mass
    (all groups shrink together while their scale grows, or the other way), and the way
    back is longer than that from the prior's center.

    Args:
        potential: ℓ, twice differentiable.
        point: where to begin.
        tree: the pattern of ∇²ℓ.
    """
    value, gradient, entries = second_order(potential, point, tree)
    leaves = jax.tree.leaves(entries)
    usable = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    identity = BlockArrow.identity(tree, point.dtype).root
    entries = jax.tree.map(lambda h, i: jnp.where(usable, h, i), entries, identity)
    precision = BlockArrow.nearly(tree, entries)
    return SparseStart(
        precision.scale(4.0),
        jnp.asarray(1 + 2 * tree.depth),
        value,
        jnp.isfinite(value) & jnp.isfinite(gradient).all(),
    )
