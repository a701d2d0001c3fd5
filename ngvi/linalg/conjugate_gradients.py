"""Solves by products alone: preconditioned conjugate gradients.

The iterate xᵢ minimises φ(x) = ½ xᵀ P x − bᵀ x over a space that one product with P
widens by a dimension. The error in the norm of P falls by (√κ − 1)/(√κ + 1) or faster
a step, κ the condition of M⁻¹ P with the preconditioner M. Two rules end it:

- the residual, ‖b − P x‖ ≤ tolerance ‖b‖;
- if asked for, the progress: for k = max(10, i/10),
  φ(xᵢ) < 0 and (φ(xᵢ) − φ(xᵢ₋ₖ)) / φ(xᵢ) < k progress. A step of an optimiser needs a
  good value of its quadratic model and not a small residual.

Sources: Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear
systems; Martens (2010), Deep learning via Hessian-free optimization, section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import dot

Product = Callable[[Float[Array, "*b d"]], Float[Array, "*b d"]]


class SolveInfo(NamedTuple):
    """How a solve went, for every right side."""

    iterations: Int[Array, "*b"]
    residual: Float[Array, "*b"]
    """‖b − P x‖ / ‖b‖, by a product of its own."""
    converged: Bool[Array, "*b"]
    """Whether a rule ended it, and not the number of iterations or `indefinite`."""
    indefinite: Bool[Array, "*b"]
    """Whether a direction p with pᵀ P p < 0 was met, which ends a solve."""


class _State(NamedTuple):
    taken: Int[Array, ""]
    x: Float[Array, "*b d"]
    residual: Float[Array, "*b d"]
    direction: Float[Array, "*b d"]
    square: Float[Array, "*b 1"]
    """rᵀ M⁻¹ r."""
    values: Float[Array, "n *b"]
    """φ of every iterate, where progress is asked for."""
    going: Bool[Array, "*b"]
    converged: Bool[Array, "*b"]
    iterations: Int[Array, "*b"]
    indefinite: Bool[Array, "*b"]


def conjugate_gradients(
    mv: Product,
    b: Float[Array, "*b d"],
    preconditioner: PositiveDefinite | None = None,
    *,
    tolerance: float | Float[Array, ""] = 1e-5,
    max_iterations: int | None = None,
    progress: float | Float[Array, ""] | None = None,
    start: Float[Array, "*b d"] | None = None,
) -> tuple[Float[Array, "*b d"], SolveInfo]:
    """P⁻¹ b, with derivatives by another solve.

    Several right sides share the products; each stops by itself.

    Args:
        mv: x ↦ P x, P symmetric and positive definite; with leading axes if b has any.
        b: the right sides.
        preconditioner: M ≈ P.
        tolerance: of ‖b − P x‖ / ‖b‖.
        max_iterations: 10 D unless given.
        progress: Martens' limit, such as 5e-4.
        start: x₀, zero unless given.
    """

    def solve(mv: Product, b: Array) -> tuple[Array, SolveInfo]:
        rules = tolerance, max_iterations, progress
        return _iterate(mv, b, preconditioner, *rules, start)

    return lax.custom_linear_solve(
        mv, _right_sides(mv, b), solve, symmetric=True, has_aux=True
    )


def solve_positive(
    mv: Product,
    b: Float[Array, "*b d"],
    preconditioner: PositiveDefinite | None,
    tolerance: float | Float[Array, ""],
    max_iterations: int | None,
) -> Float[Array, "*b d"]:
    """P⁻¹ b alone, by its residual; NaN if P is seen not to be positive definite."""

    def solve(mv: Product, b: Array) -> Array:
        x, info = _iterate(mv, b, preconditioner, tolerance, max_iterations)
        return jnp.where(info.indefinite[..., None], jnp.nan, x)

    return lax.custom_linear_solve(mv, _right_sides(mv, b), solve, symmetric=True)


def _right_sides(mv: Product, b: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """One for each product of a matrix with leading axes."""
    return jnp.broadcast_to(b, jax.eval_shape(mv, b).shape)


def _iterate(
    mv: Product,
    b: Float[Array, "*b d"],
    preconditioner: PositiveDefinite | None,
    tolerance: float | Float[Array, ""],
    max_iterations: int | None,
    progress: float | Float[Array, ""] | None = None,
    start: Float[Array, "*b d"] | None = None,
) -> tuple[Float[Array, "*b d"], SolveInfo]:
    """The loop, on right sides with all leading axes."""
    shape = b.shape
    limit = 10 * shape[-1] if max_iterations is None else max_iterations
    first = jnp.zeros_like(b)
    if start is not None:
        first = jnp.broadcast_to(start, shape).astype(b.dtype)
    target = tolerance * _norm(b)

    def precondition(r: Array) -> Array:
        return r if preconditioner is None else preconditioner.solve(r)

    def step(s: _State) -> _State:
        image = mv(s.direction)
        curvature = dot(s.direction, image)
        ahead = s.going[..., None] & (curvature > 0)
        length = jnp.where(ahead, s.square / curvature, 0)
        x = s.x + length * s.direction
        r = s.residual - length * image
        z = precondition(r)
        square = dot(r, z)
        values, slow = s.values, jnp.zeros_like(s.going)
        if progress is not None:
            value = -dot(x, r + b)[..., 0] / 2
            values = values.at[s.taken + 1].set(value)
            slow = _slow(values, s.taken + 1, progress)
        moved = ahead[..., 0]
        done = moved & (slow | (_norm(r) <= target))
        return _State(
            taken=s.taken + 1,
            x=x,
            residual=r,
            direction=z + jnp.where(ahead, square / s.square, 0) * s.direction,
            square=square,
            values=values,
            going=moved & ~done,
            converged=s.converged | done,
            iterations=s.iterations + moved,
            indefinite=s.indefinite | (s.going & (curvature[..., 0] < 0)),
        )

    r = b if start is None else b - mv(first)
    z = precondition(r)
    no = jnp.zeros(shape[:-1], bool)
    done = _norm(r) <= target
    state = _State(
        taken=jnp.asarray(0),
        x=first,
        residual=r,
        direction=z,
        square=dot(r, z),
        values=jnp.zeros((0 if progress is None else limit + 1, *no.shape), b.dtype),
        # Not where b is NaN.
        going=_norm(r) > target,
        converged=done,
        iterations=jnp.zeros(no.shape, int),
        indefinite=no,
    )
    state = lax.while_loop(lambda s: s.going.any() & (s.taken < limit), step, state)
    x = jnp.where(jnp.isnan(_norm(b))[..., None], jnp.nan, state.x)
    left, size = _norm(b - mv(x)), _norm(b)
    return x, SolveInfo(
        iterations=state.iterations,
        residual=left / jnp.where(size > 0, size, 1),
        converged=state.converged,
        indefinite=state.indefinite,
    )


def _norm(x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    return jnp.sqrt(dot(x, x))[..., 0]


def _slow(
    values: Float[Array, "n *b"], taken: Int[Array, ""], progress: float | Array
) -> Bool[Array, "*b"]:
    """Martens' rule after so many steps."""
    window = jnp.maximum(10, taken // 10)
    value, before = values[taken], values[jnp.maximum(taken - window, 0)]
    gained = (value - before) / value
    return (taken > window) & (value < 0) & (gained < window * progress)
