"""Hessians with the pattern of a tree from a few products, and descents with them.

Where coordinates of one colour meet in no row of the Hessian, its product with the sum
of their unit vectors shows all of their columns at once. So it takes as many products
as coordinates meet, however many there are, and Newton's method costs as little as some
gradients.

Source: Curtis, Powell and Reid (1974), On the estimation of sparse Jacobian matrices;
Nocedal and Wright (2006), section 3.4, Newton's method with Hessian modification.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.linalg import BlockArrow, Tree
from ngvi.linalg.tree import Blocks
from ngvi.mirror.estimates import Potential

_ROUNDS = 30
"""Newton steps after which a descent is given up."""
_HALVINGS = 12


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
    """A point and a precision there, as in `ngvi.mirror.start.Start`."""

    point: Float[Array, "d"]
    precision: BlockArrow
    gradients: Int[Array, ""]
    """Gradient evaluations spent; a Hessian-vector product counts as two."""
    descended: Bool[Array, ""]
    """Whether the descent ended at a proper mode, and that was taken."""
    value: Float[Array, ""]
    """ℓ at the given point."""
    finite: Bool[Array, ""]
    """Whether ℓ and its gradient are finite there."""


class _Frame(NamedTuple):
    """ℓ around a point to second order, its curvature made positive."""

    point: Float[Array, "d"]
    value: Float[Array, ""]
    gradient: Float[Array, "d"]
    precision: BlockArrow
    proper: Bool[Array, ""]
    decrement: Float[Array, ""]
    """½ gᵀH⁻¹g: how far ℓ would fall to the model's minimum."""


def _frame(potential: Potential, point: Float[Array, "d"], tree: Tree) -> _Frame:
    value, gradient, entries = second_order(potential, point, tree)
    leaves = jax.tree.leaves(entries)
    usable = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    identity = BlockArrow.identity(tree, point.dtype).root
    entries = jax.tree.map(lambda h, i: jnp.where(usable, h, i), entries, identity)
    precision, proper = BlockArrow.nearly(tree, entries)
    decrement = (precision.whiten_gradient(gradient) ** 2).sum() / 2
    return _Frame(point, value, gradient, precision, proper & usable, decrement)


class _Descent(NamedTuple):
    first: _Frame
    frame: _Frame
    used: Int[Array, ""]
    rounds: Int[Array, ""]
    moving: Bool[Array, ""]


def find_sparse_start(
    potential: Potential, point: Float[Array, "d"], tree: Tree
) -> SparseStart:
    """The start of a fit from a given point, by Newton's method.

    A descent that does not soon end at a proper mode is thrown away, as by
    `ngvi.mirror.start.find_start`: the fit then starts at the given point.

    Args:
        potential: ℓ, twice differentiable.
        point: where to begin.
        tree: the pattern of ∇²ℓ.
    """
    goal = 0.01 * point.size

    def arrived(s: _Descent) -> Array:
        return s.frame.proper & (s.frame.decrement < goal)

    def searching(s: _Descent) -> Array:
        return ~arrived(s) & s.moving & (s.rounds < _ROUNDS)

    def step(s: _Descent) -> _Descent:
        frame = s.frame
        direction = -frame.precision.solve(frame.gradient)

        def too_long(carry: tuple[Array, Array, Array]) -> Array:
            length, value, halvings = carry
            enough = value <= frame.value - 2e-4 * length * frame.decrement
            return ~enough & (halvings < _HALVINGS)

        def shorten(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            length, _, halvings = carry
            length = length / 2
            value = potential(frame.point + length * direction)
            return length, value, halvings + 1

        one = jnp.ones((), point.dtype)
        whole = one, potential(frame.point + direction), jnp.zeros((), int)
        length, value, halvings = jax.lax.while_loop(too_long, shorten, whole)
        moved = frame.point + length * direction
        lower = jnp.isfinite(value) & (value < frame.value)
        # A new frame costs as much at the old point: its result is not used then.
        renewed = _frame(potential, jnp.where(lower, moved, frame.point), tree)
        spent = halvings + 1 + _cost(tree)
        return _Descent(s.first, renewed, s.used + spent, s.rounds + 1, lower)

    first = _frame(potential, point, tree)
    zero, moving = jnp.zeros((), int), jnp.asarray(True)
    begun = _Descent(first, first, zero + _cost(tree), zero, moving)
    end = jax.lax.while_loop(searching, step, begun)
    take = arrived(end)
    chosen = jax.tree.map(lambda a, b: jnp.where(take, a, b), end.frame, first)
    finite = jnp.isfinite(first.value) & jnp.isfinite(first.gradient).all()
    return SparseStart(
        chosen.point, chosen.precision, end.used, take, first.value, finite
    )


def _cost(tree: Tree) -> int:
    """Gradients for a frame."""
    return 1 + 2 * tree.colours
