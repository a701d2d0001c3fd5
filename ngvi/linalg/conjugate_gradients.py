"""Solves by products alone: preconditioned conjugate gradients.

The iterate xᵢ minimises φ(x) = ½ xᵀ P x − bᵀ x over a space that one product with P
widens by a dimension. The error in the norm of P falls by (√κ − 1)/(√κ + 1) or faster
a step, κ the condition of M⁻¹ P with the preconditioner M. Two rules end it:

- the residual, ‖b − P x‖ ≤ tolerance ‖b‖;
- if asked for, the progress: for k = max(10, i/10),
  φ(xᵢ) < 0 and (φ(xᵢ) − φ(xᵢ₋ₖ)) / φ(xᵢ) < k progress. A step of an optimiser needs a
  good value of its quadratic model and not a small residual.

A vector may be given in parts, a list of arrays: a product that works on parts spares
the copies of a joined vector, and a loop of large vectors is as slow as the memory.

Sources: Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear
systems; Martens (2010), Deep learning via Hessian-free optimization, section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import dot, join, split

Vector = Any
"""An array (*b, d), or a list of such, its parts; the leading axes number vectors."""

Product = Callable[[Vector], Vector]

_LONG = 2**14
"""Numbers, from which on a part is summed in rows."""
_ROW = 1_000


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
    x: Vector
    residual: Vector
    square: Float[Array, "*b"]
    """rᵀ r."""
    direction: Vector
    """The last one; the next is made where it is needed, so that it takes its place."""
    framed: Float[Array, "*b"]
    """rᵀ M⁻¹ r where the last direction was made, infinite before the first."""
    values: Float[Array, "n *b"]
    """φ of every iterate, where progress is asked for."""
    going: Bool[Array, "*b"]
    converged: Bool[Array, "*b"]
    iterations: Int[Array, "*b"]
    indefinite: Bool[Array, "*b"]


def conjugate_gradients(
    mv: Product,
    b: Vector,
    preconditioner: PositiveDefinite | None = None,
    *,
    tolerance: float | Float[Array, ""] = 1e-5,
    max_iterations: int | None = None,
    progress: float | Float[Array, ""] | None = None,
    start: Vector | None = None,
) -> tuple[Vector, SolveInfo]:
    """P⁻¹ b, with derivatives by another solve.

    Several right sides share the products; each stops by itself.

    Args:
        mv: x ↦ P x, P symmetric and positive definite; with leading axes if b has any,
            in parts if b is.
        b: the right sides.
        preconditioner: M ≈ P.
        tolerance: of ‖b − P x‖ / ‖b‖.
        max_iterations: 10 D unless given.
        progress: Martens' limit, such as 5e-4.
        start: x₀, zero unless given.
    """

    def solve(mv: Product, b: Vector) -> tuple[Vector, SolveInfo]:
        rules = tolerance, max_iterations, progress
        return _iterate(mv, b, preconditioner, *rules, start)

    return lax.custom_linear_solve(
        mv, _right_sides(mv, b), solve, symmetric=True, has_aux=True
    )


def solve_positive(
    mv: Product,
    b: Vector,
    preconditioner: PositiveDefinite | None,
    tolerance: float | Float[Array, ""],
    max_iterations: int | None,
) -> Vector:
    """P⁻¹ b alone, by its residual; NaN if P is seen not to be positive definite."""

    def solve(mv: Product, b: Vector) -> Vector:
        x, info = _iterate(mv, b, preconditioner, tolerance, max_iterations)
        return _nan_where(info.indefinite, x)

    return lax.custom_linear_solve(mv, _right_sides(mv, b), solve, symmetric=True)


def _right_sides(mv: Product, b: Vector) -> Vector:
    """One for each product of a matrix with leading axes."""
    return _broadcast(b, jax.eval_shape(mv, b))


def _iterate(
    mv: Product,
    b: Vector,
    preconditioner: PositiveDefinite | None,
    tolerance: float | Float[Array, ""],
    max_iterations: int | None,
    progress: float | Float[Array, ""] | None = None,
    start: Vector | None = None,
) -> tuple[Vector, SolveInfo]:
    """The loop, on right sides with all leading axes."""
    sizes = [part.shape[-1] for part in jax.tree.leaves(b)]
    limit = 10 * sum(sizes) if max_iterations is None else max_iterations
    size = jnp.sqrt(_dot(b, b))
    target = tolerance * size

    def step(s: _State) -> _State:
        z, framed = s.residual, s.square
        if preconditioner is not None:
            z = _precondition(preconditioner, s.residual)
            framed = _dot(s.residual, z)
        turn = jnp.where(s.going, framed / s.framed, 0)
        direction = _plus(z, turn, s.direction)
        image = mv(direction)
        curvature = _dot(direction, image)
        moved = s.going & (curvature > 0)
        length = jnp.where(moved, framed / curvature, 0)
        x = _plus(s.x, length, direction)
        r = _plus(s.residual, -length, image)
        square = _dot(r, r)
        values, slow = s.values, jnp.zeros_like(s.going)
        if progress is not None:
            value = -_dot(x, jax.tree.map(jnp.add, r, b)) / 2
            values = values.at[s.taken + 1].set(value)
            slow = _slow(values, s.taken + 1, progress)
        done = moved & (slow | (jnp.sqrt(square) <= target))
        return _State(
            taken=s.taken + 1,
            x=x,
            residual=r,
            square=square,
            direction=direction,
            framed=framed,
            values=values,
            going=moved & ~done,
            converged=s.converged | done,
            iterations=s.iterations + moved,
            indefinite=s.indefinite | (s.going & (curvature < 0)),
        )

    zero = jax.tree.map(jnp.zeros_like, b)
    first = zero if start is None else _broadcast(start, b)
    r = b if start is None else jax.tree.map(jnp.subtract, b, mv(first))
    square = _dot(r, r)
    no = jnp.zeros(size.shape, bool)
    done = jnp.sqrt(square) <= target
    state = _State(
        taken=jnp.asarray(0),
        x=first,
        residual=r,
        square=square,
        direction=zero,
        framed=jnp.full_like(square, jnp.inf),
        values=jnp.zeros((0 if progress is None else limit + 1, *no.shape), size.dtype),
        # Not where b is NaN.
        going=jnp.sqrt(square) > target,
        converged=done,
        iterations=jnp.zeros(no.shape, int),
        indefinite=no,
    )
    state = lax.while_loop(lambda s: s.going.any() & (s.taken < limit), step, state)
    x = _nan_where(jnp.isnan(size), state.x)
    left = jax.tree.map(jnp.subtract, b, mv(x))
    return x, SolveInfo(
        iterations=state.iterations,
        residual=jnp.sqrt(_dot(left, left)) / jnp.where(size > 0, size, 1),
        converged=state.converged,
        indefinite=state.indefinite,
    )


def _slow(
    values: Float[Array, "n *b"], taken: Int[Array, ""], progress: float | Array
) -> Bool[Array, "*b"]:
    """Martens' rule after so many steps."""
    window = jnp.maximum(10, taken // 10)
    value, before = values[taken], values[jnp.maximum(taken - window, 0)]
    gained = (value - before) / value
    return (taken > window) & (value < 0) & (gained < window * progress)


# -- vectors in parts ------------------------------------------------------------------


def _plus(x: Vector, c: Float[Array, "*b"], y: Vector) -> Vector:
    """x + c y."""
    return jax.tree.map(lambda x, y: x + c[..., None] * y, x, y)


def _dot(x: Vector, y: Vector) -> Float[Array, "*b"]:
    """⟨x, y⟩."""
    return reduce(jnp.add, jax.tree.leaves(jax.tree.map(_dot_of_parts, x, y)))


def _dot_of_parts(x: Float[Array, "*b d"], y: Float[Array, "*b d"]) -> Array:
    """⟨x, y⟩; the sums of a long vector are a product with ones.

    That is one pass, by all threads of a processor; XLA's sum is three, mostly by one.
    """
    length = x.shape[-1]
    if length < _LONG:
        return dot(x, y)[..., 0]
    products = x * y
    whole = length - length % _ROW
    rows = products[..., :whole].reshape(*x.shape[:-1], -1, _ROW)
    sums = jnp.matmul(rows, jnp.ones(_ROW, rows.dtype), precision="highest")
    return sums.sum(-1) + products[..., whole:].sum(-1)


def _precondition(m: PositiveDefinite, r: Vector) -> Vector:
    """M⁻¹ r."""
    parts, structure = jax.tree.flatten(r)
    solved = split(m.solve(join(parts)), [part.shape[-1] for part in parts])
    return jax.tree.unflatten(structure, solved)


def _broadcast(x: Vector, like: Vector) -> Vector:
    return jax.tree.map(
        lambda x, to: jnp.broadcast_to(x, to.shape).astype(to.dtype), x, like
    )


def _nan_where(wrong: Bool[Array, "*b"], x: Vector) -> Vector:
    return jax.tree.map(lambda part: jnp.where(wrong[..., None], jnp.nan, part), x)
