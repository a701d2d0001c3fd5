"""Natural-gradient steps of any families until none is left to take.

Minimises a plain function L of independent members, such as an expectation over draws
placed by fixed normals less the members' entropies. In the frame of
`ngvi.mirror.frames` the gradient is the natural gradient, so that plain descent is the
update λ⁺ = λ − ρ ∇_μ L with a retraction; a few pairs of (displacement, change of
gradient) add what the Fisher metric does not know (see `ngvi.mirror.memory`). A trial
is accepted only if it is finite and lowers L enough, inside a cap on its Fisher length
that grows with success and shrinks with failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.mirror.frames import Members, retraction
from ngvi.mirror.memory import Memory
from ngvi.mirror.step import Direction
from ngvi.pytrees import pytree

Objective = Callable[[Members], Float[Array, ""]]

_PAIRS = 8
_MAX_TRIES = 25
# A first step may be this long for each √n of the frame's n coordinates.
_FIRST_CAP = 0.3


@pytree
class Descent:
    """Where a descent is."""

    members: Members
    value: Float[Array, ""]
    """L."""
    gradient: Float[Array, "n"]
    """The natural gradient, in the frame of the members."""
    memory: Memory
    cap: Float[Array, ""]
    """The longest Fisher length of the next trial."""
    shrink: Float[Array, ""]
    """How much shorter than the full step the next trial is."""
    tries: Int[Array, ""]
    """Rejections since the last accepted step."""
    trials: Int[Array, ""]
    rejected: Int[Array, ""]
    fresh: Bool[Array, ""]
    """L has not been evaluated at these members yet."""

    @property
    def length(self) -> Float[Array, ""]:
        """Of the natural gradient: about √(2 (L − min L))."""
        return jnp.linalg.norm(self.gradient)

    @property
    def stuck(self) -> Bool[Array, ""]:
        """No step lowers L any further."""
        return self.tries >= _MAX_TRIES


def _inner(a: Direction, b: Direction) -> Float[Array, ""]:
    return a.mean @ b.mean


def _evaluate(
    objective: Objective, members: Members
) -> tuple[Float[Array, ""], Float[Array, "n"]]:
    move, size = retraction(members)
    zero = jnp.zeros(size, jax.tree.leaves(members)[0].dtype)
    return jax.value_and_grad(lambda xi: objective(move(xi)))(zero)


def begin(members: Members) -> Descent:
    """A descent from these members, nothing evaluated yet."""
    size = retraction(members)[1]
    dtype = jax.tree.leaves(members)[0].dtype
    gradient, zero = jnp.zeros(size, dtype), jnp.zeros((), int)
    return Descent(
        members=members,
        value=jnp.asarray(jnp.inf, dtype),
        gradient=gradient,
        memory=Memory.empty(_PAIRS, Direction(gradient, ())),
        cap=jnp.asarray(_FIRST_CAP * size**0.5, dtype),
        shrink=jnp.ones((), dtype),
        tries=zero,
        trials=zero,
        rejected=zero,
        fresh=jnp.asarray(True),
    )


def again(state: Descent) -> Descent:
    """The same descent, of an objective that has changed a little."""
    return replace(
        state,
        shrink=jnp.ones_like(state.shrink),
        tries=jnp.zeros_like(state.tries),
        fresh=jnp.asarray(True),
    )


def _trial(objective: Objective, state: Descent) -> Descent:
    natural = Direction(state.gradient, ())
    direction = state.memory.direction(natural, _inner, lambda d: d).mean
    slope = direction @ state.gradient
    downhill = slope > 1e-3 * jnp.linalg.norm(direction) * state.length
    direction = jnp.where(downhill, direction, state.gradient)
    length = jnp.linalg.norm(direction)
    rho = state.shrink * jnp.minimum(1, state.cap / jnp.maximum(length, state.cap))
    step = -jnp.where(state.fresh, 0, rho) * direction
    members = retraction(state.members)[0](step)
    value, gradient = _evaluate(objective, members)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    noise = 8 * jnp.finfo(value.dtype).eps * (1 + jnp.abs(state.value))
    enough = value <= state.value + 1e-4 * (step @ state.gradient) + noise
    accepted = state.fresh | (finite & enough)
    pushed = state.memory.push(
        Direction(step, ()), Direction(gradient - state.gradient, ()), _inner
    )
    memory = jax.tree.map(
        lambda x, y: jnp.where(state.fresh, x, y), state.memory, pushed
    )
    capped = state.cap < length
    new = Descent(
        members=members,
        value=value,
        gradient=gradient,
        memory=memory,
        cap=jnp.where(capped, 2, 1) * state.cap,
        shrink=jnp.ones_like(rho),
        tries=0 * state.tries,
        trials=state.trials,
        rejected=state.rejected,
        fresh=jnp.asarray(False),
    )
    old = replace(
        state,
        shrink=state.shrink / 3,
        cap=jnp.minimum(state.cap, rho * length),
        tries=state.tries + 1,
        rejected=state.rejected + 1,
    )
    chosen = jax.tree.map(lambda x, y: jnp.where(accepted, x, y), new, old)
    return replace(chosen, trials=state.trials + 1)


def descend(
    objective: Objective,
    state: Descent,
    tolerance: float,
    limit: int | Int[Array, ""],
) -> Descent:
    """Trials up to the `limit`-th in all, or until the Fisher length is small.

    Args:
        objective: L.
        state: from `begin`, `again` or an earlier call.
        tolerance: the Fisher length at which to stop.
        limit: trials in all.
    """

    def moving(state: Descent) -> Array:
        going = (state.length > tolerance) & ~state.stuck & jnp.isfinite(state.value)
        return (state.fresh | going) & (state.trials < limit)

    return jax.lax.while_loop(moving, lambda s: _trial(objective, s), state)
