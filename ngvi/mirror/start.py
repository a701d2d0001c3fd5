"""Where a fit begins: a point and a covariance that know the scale of the problem.

The Hessian of ℓ at the given point, scaled to a unit diagonal and with its eigenvalues
made positive, gives a first frame. BFGS in that frame descends ℓ itself, one gradient
an iteration: far cheaper than drawing when the point is far away. Where it comes to
rest the Hessian is taken anew; if it is not that of a mode, the descent goes on from
there. A descent that does not soon end at a proper mode is thrown away (the density of
a hierarchical model can rise without bound where its scales collapse), and the fit
starts at the given point. No part depends on the units of a coordinate, except the
width of the differences that stand in for a Hessian that JAX cannot form.

Precisions of other structures begin without a descent, see `ngvi.mirror.coloured` and
`ngvi.mirror.secants`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.linalg import Dense, PositiveDefinite
from ngvi.mirror.estimates import Potential

_ROUNDS = 5
"""How often the frame is renewed before a descent is given up."""


class Start(NamedTuple):
    """A point and a precision there."""

    point: Float[Array, "d"]
    precision: PositiveDefinite
    gradients: Int[Array, ""]
    """Gradient evaluations spent; a Hessian-vector product counts as two."""
    value: Float[Array, ""]
    """ℓ at the given point."""
    finite: Bool[Array, ""]
    """Whether ℓ and its gradient are finite there."""
    descended: Bool[Array, ""] | bool = False
    """Whether a descent from there ended at a proper mode, and that was taken."""


class _Frame(NamedTuple):
    """ℓ around a point to second order, its curvature made positive."""

    point: Float[Array, "d"]
    value: Float[Array, ""]
    gradient: Float[Array, "d"]
    inverse_root: Float[Array, "d d"]
    proper: Bool[Array, ""]
    """The Hessian was positive definite as it is."""

    def decrement(self) -> Float[Array, ""]:
        """½ gᵀH⁻¹g: how far ℓ would fall to the model's minimum."""
        return ((self.gradient @ self.inverse_root) ** 2).sum() / 2


def _second_order(
    potential: Potential, point: Float[Array, "d"]
) -> tuple[Float[Array, ""], Float[Array, "d"], Float[Array, "d d"]]:
    """ℓ, ∇ℓ and ∇²ℓ, forward over reverse; by differences of ∇ℓ where a custom rule (an
    ODE solver's, say) allows no forward mode. A start needs no more digits."""

    def along(v: Array) -> tuple:
        return jax.jvp(jax.value_and_grad(potential), (point,), (v,))

    directions = jnp.eye(point.size, dtype=point.dtype)
    try:
        # The value and gradient do not depend on v: computed once for all columns.
        (value, gradient), (_, hessian) = jax.vmap(along, out_axes=(None, 0))(
            directions
        )
    except TypeError:
        value, gradient = jax.value_and_grad(potential)(point)
        width = jnp.finfo(point.dtype).eps ** (1 / 3) * (1 + jnp.abs(point))
        both = jnp.concatenate([jnp.diag(width), -jnp.diag(width)])
        ahead, behind = jnp.split(jax.lax.map(jax.grad(potential), point + both), 2)
        hessian = (ahead - behind) / (2 * width[:, None])
    return value, gradient, hessian


def _frame(potential: Potential, point: Float[Array, "d"]) -> _Frame:
    dim, dtype = point.size, point.dtype

    value, gradient, hessian = _second_order(potential, point)
    hessian = (hessian + hessian.T) / 2
    usable = jnp.isfinite(hessian).all()
    hessian = jnp.where(usable, hessian, jnp.eye(dim, dtype=dtype))
    diagonal = jnp.abs(jnp.diagonal(hessian))
    # Where there is no curvature, a slope tells a scale, if there is one.
    slope = jnp.abs(jnp.where(jnp.isfinite(gradient), gradient, 0.0))
    fallback = jnp.where(slope > 0, slope, 1.0)
    scale = jnp.where(diagonal > 0, jnp.sqrt(diagonal), fallback)
    values, vectors = jnp.linalg.eigh(hessian / scale[:, None] / scale)
    size = jnp.abs(values)
    rounding = 10 * dim * jnp.finfo(dtype).eps * size.max()
    proper = usable & (values > rounding).all() & (diagonal > 0).all()
    # An eigenvalue that happens to vanish on an indefinite Hessian tells no scale.
    largest = jnp.where(size.max() > 0, size.max(), 1.0)
    size = jnp.where(proper, size, jnp.maximum(size, 1e-6 * largest))
    inverse_root = vectors / jnp.sqrt(size) / scale[:, None]
    return _Frame(point, value, gradient, inverse_root, proper)


class _Descent(NamedTuple):
    y: Float[Array, "d"]
    value: Float[Array, ""]
    gradient: Float[Array, "d"]
    inverse_hessian: Float[Array, "d d"]
    step: Float[Array, ""]
    evaluations: Int[Array, ""]


def _descend(
    potential: Potential, frame: _Frame, used: Int[Array, ""], budget: int, goal: Array
) -> tuple[Float[Array, "d"], Int[Array, ""]]:
    """BFGS in y, z = point + A y, until ½ gᵀH⁻¹g < goal or the budget is used up.

    Returns:
        The point reached and the gradients used so far, those before included.
    """

    def evaluate(y: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(
            lambda y: potential(frame.point + frame.inverse_root @ y)
        )(y)

    def unfinished(s: _Descent) -> Array:
        predicted = s.gradient @ s.inverse_hessian @ s.gradient / 2
        return (s.evaluations < budget) & (s.step > 1e-10) & ~(predicted < goal)

    def trial(s: _Descent) -> _Descent:
        direction = -s.inverse_hessian @ s.gradient
        slope = s.gradient @ direction
        move = s.step * direction
        value, gradient = evaluate(s.y + move)
        finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
        accept = finite & (value <= s.value + 1e-4 * s.step * slope)

        change = gradient - s.gradient
        product = move @ change
        positive = product > 1e-10 * jnp.linalg.norm(move) * jnp.linalg.norm(change)
        inverse = 1 / jnp.where(positive, product, 1.0)
        left = jnp.eye(move.size, dtype=move.dtype) - inverse * jnp.outer(move, change)
        updated = left @ s.inverse_hessian @ left.T + inverse * jnp.outer(move, move)

        # The parabola through value, slope and rejected value has its minimum here.
        excess = value - s.value - s.step * slope
        bottom = -slope * s.step**2 / (2 * jnp.where(excess > 0, excess, jnp.inf))
        shorter = jnp.where(
            finite, jnp.clip(bottom, 0.1 * s.step, 0.5 * s.step), 0.1 * s.step
        )
        return _Descent(
            jnp.where(accept, s.y + move, s.y),
            jnp.where(accept, value, s.value),
            jnp.where(accept, gradient, s.gradient),
            jnp.where(accept & positive, updated, s.inverse_hessian),
            jnp.where(accept, 1.0, shorter),
            s.evaluations + 1,
        )

    dim, dtype = frame.point.size, frame.point.dtype
    first = _Descent(
        jnp.zeros(dim, dtype),
        frame.value,
        frame.gradient @ frame.inverse_root,
        jnp.eye(dim, dtype=dtype),
        jnp.ones((), dtype),
        used,
    )
    last = jax.lax.while_loop(unfinished, trial, first)
    return frame.point + frame.inverse_root @ last.y, last.evaluations


class _Search(NamedTuple):
    first: _Frame
    frame: _Frame
    point: Float[Array, "d"]
    used: Int[Array, ""]
    rounds: Int[Array, ""]


def find_start(potential: Potential, point: Float[Array, "d"]) -> Start:
    """The start of a fit from a given point.

    Args:
        potential: ℓ, twice differentiable.
        point: where to begin.
    """
    dim = point.size
    budget, goal = 50 + 4 * dim, 0.01 * dim

    def arrived(s: _Search) -> Array:
        return s.frame.proper & (s.frame.decrement() < goal) & (s.rounds > 0)

    def searching(s: _Search) -> Array:
        return (s.rounds < _ROUNDS) & (s.used < budget) & ~arrived(s)

    def renew(s: _Search) -> _Search:
        frame = _frame(potential, s.point)
        # Where the Hessian is indefinite a small gradient may be that of a saddle.
        close = jnp.where(frame.proper, goal, 1e-4 * goal)
        reached, used = _descend(potential, frame, s.used, budget, close)
        first = jax.tree.map(
            lambda a, b: jnp.where(s.rounds == 0, a, b), frame, s.first
        )
        return _Search(first, frame, reached, used, s.rounds + 1)

    nothing = _Frame(
        point,
        jnp.zeros((), point.dtype),
        point,
        jnp.eye(dim, dtype=point.dtype),
        jnp.asarray(False),
    )
    zero = jnp.zeros((), int)
    end = jax.lax.while_loop(
        searching, renew, _Search(nothing, nothing, point, zero, zero)
    )
    take = arrived(end)
    chosen = jax.tree.map(lambda a, b: jnp.where(take, a, b), end.frame, end.first)
    return Start(
        chosen.point,
        Dense.from_inverse_root(chosen.inverse_root),
        end.used + 2 * dim * end.rounds,
        end.first.value,
        jnp.isfinite(end.first.value) & jnp.isfinite(end.first.gradient).all(),
        take,
    )
