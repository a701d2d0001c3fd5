"""Curvature of the objective learned along the path: L-BFGS in the moving frame.

The Fisher metric already is the best one for a quadratic ℓ: there the natural gradient
points at the optimum. Third and fourth derivatives of ℓ couple mean and covariance; a
few pairs of (displacement, change of natural gradient) learn that coupling, and the fit
converges in a half to a quarter of the iterations. In the frame of the root, pairs of
earlier iterates keep their coordinates (the frame itself moves), so nothing here
depends on the units of z.

Source: Nocedal and Wright (2006), algorithm 7.4; Huang, Gallivan and Absil (2015), A
Broyden class of quasi-Newton methods for Riemannian optimization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.mirror.step import Direction
from ngvi.pytrees import pytree

Inner = Callable[[Direction, Direction], Float[Array, ""]]


def _combine(a: Direction, c: Float[Array, ""], b: Direction) -> Direction:
    return jax.tree.map(lambda x, y: x + c * y, a, b)


@pytree
class Memory:
    """The last pairs, newest first; `weight` 0 marks an empty slot, else 1/⟨s, y⟩."""

    moved: Direction
    changed: Direction
    weight: Float[Array, "m"]

    @classmethod
    def empty(cls, size: int, like: Direction) -> Self:
        """No pairs yet, room for `size`."""
        slots = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)
        return cls(slots, slots, jnp.zeros(size, like.mean.dtype))

    def forget(self) -> Self:
        """The same room, empty."""
        return type(self)(self.moved, self.changed, jnp.zeros_like(self.weight))

    def push(self, moved: Direction, changed: Direction, inner: Inner) -> Self:
        """Add a pair if it shows positive curvature clearly, else change nothing."""
        product = inner(moved, changed)
        lengths = jnp.sqrt(inner(moved, moved) * inner(changed, changed))
        good = (product > 1e-3 * lengths) & jnp.isfinite(product)

        def shift(slots: Array, new: Array) -> Array:
            return jnp.where(good, jnp.roll(slots, 1, 0).at[0].set(new), slots)

        return type(self)(
            jax.tree.map(shift, self.moved, moved),
            jax.tree.map(shift, self.changed, changed),
            shift(self.weight, 1 / jnp.where(good, product, 1)),
        )

    def direction(
        self,
        gradient: Direction,
        inner: Inner,
        precondition: Callable[[Direction], Direction],
    ) -> Direction:
        """The two-loop recursion: the inverse Hessian times the natural gradient."""
        pairs = (self.moved, self.changed, self.weight)

        def newest_first(d: Direction, pair: tuple) -> tuple[Direction, Array]:
            moved, changed, weight = pair
            a = weight * inner(moved, d)
            return _combine(d, -a, changed), a

        def oldest_first(d: Direction, pair: tuple) -> tuple[Direction, None]:
            moved, changed, weight, a = pair
            return _combine(d, a - weight * inner(changed, d), moved), None

        d, coefficients = jax.lax.scan(newest_first, gradient, pairs)
        d, _ = jax.lax.scan(
            oldest_first, precondition(d), (*pairs, coefficients), reverse=True
        )
        return d
