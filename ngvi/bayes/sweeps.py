"""The fit of a mean field, as compiled programs: sweeps over its blocks.

A sweep moves each conjugate block to its best q given the others (the update with
ρ = 1), one after the other, then the free blocks together by a few accepted natural
steps. All expectations are over draws placed by the same base draws in every sweep, so
that sweeps converge; fresh draws say afterwards what the fixed ones over-fitted.

    L(q) = mean [ℓ(z) + Σ_b log |∂x_b/∂z_b|] − Σ_b Entropy(q_b)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.bayes.blocks import Blocks, base_sizes, entropy, place
from ngvi.bayes.closed_form import closed_form
from ngvi.bayes.quick import Compiled, Work
from ngvi.bayes.target import Data, Target
from ngvi.mirror.descent import Descent, again, begin, descend
from ngvi.mirror.frames import Members, retraction
from ngvi.pytrees import pytree

INNER_TRIALS = 10
"""Of the free blocks in a sweep, where conjugate ones move too."""
_WHILE = 10
"""Sweeps after which one that is no shorter tells that none will be."""


class Sweeping(NamedTuple):
    """What is static about a fit."""

    blocks: Blocks
    conjugate: tuple[bool, ...]
    """Which blocks have a closed form."""
    tolerance: float
    """The Fisher length of a sweep at which it has converged."""
    at_once: int
    """Draws at which ℓ is evaluated in one go."""

    @property
    def free(self) -> tuple[int, ...]:
        """The numbers of the blocks that have none."""
        return tuple(i for i, c in enumerate(self.conjugate) if not c)

    @property
    def free_blocks(self) -> Blocks:
        """Those blocks."""
        return tuple(self.blocks[i] for i in self.free)


class BaseDraws(NamedTuple):
    """Standard normals, the same in every sweep."""

    free: Float[Array, "n e"]
    """For all blocks, in the objective of the free ones."""
    conjugate: Float[Array, "k e"]
    """For all blocks, in the expectations of closed forms."""
    own: tuple[Float[Array, "p m b"], ...]
    """For each block, of the points a closed form is measured at."""


@pytree
class State:
    """Everything a fit needs to go on."""

    members: Members
    descent: Descent | None
    sweeps: Int[Array, ""]
    length: Float[Array, ""]
    """The Fisher length of the last sweep."""
    trace: Float[Array, "t 2"]
    """For each sweep its ELBO and its Fisher length."""

    @property
    def trials(self) -> Int[Array, ""]:
        """Trial steps of the free blocks."""
        return jnp.zeros((), int) if self.descent is None else self.descent.trials


def start(plan: Sweeping, members: Members, sweeps: int) -> State:
    """A state with room for so many sweeps."""
    dtype = jax.tree.leaves(members)[0].dtype
    own = tuple(members[i] for i in plan.free)
    return State(
        members=members,
        descent=begin(own) if own else None,
        sweeps=jnp.zeros((), int),
        length=jnp.asarray(jnp.inf, dtype),
        trace=jnp.zeros((sweeps, 2), dtype),
    )


def energy(
    target: Target, data: Data, blocks: Blocks, z: Float[Array, "n d"], at_once: int
) -> Float[Array, "n"]:
    """ℓ on the blocks' own supports, at each draw."""

    def one(point: Float[Array, "d"]) -> Float[Array, ""]:
        jacobians = sum(block.log_det(block.take(point)).sum() for block in blocks)
        return target.potential(data, point) + jacobians

    if at_once >= len(z):
        return jax.vmap(one)(z)
    return jax.lax.map(one, z, batch_size=at_once)


def _with(members: Members, numbers: tuple[int, ...], own: Members) -> Members:
    every = list(members)
    for number, q in zip(numbers, own, strict=True):
        every[number] = q
    return tuple(every)


def _sweep(
    target: Target, plan: Sweeping, data: Data, state: State, draws: BaseDraws
) -> State:
    members, squared = state.members, jnp.zeros((), state.length.dtype)
    for number, conjugate in enumerate(plan.conjugate):
        if conjugate:
            q, way = closed_form(
                target,
                data,
                plan.blocks,
                number,
                members,
                draws.conjugate,
                draws.own[number],
            )
            members = _with(members, (number,), (q,))
            squared += way
    blank = jnp.zeros((len(draws.free), target.dim), draws.free.dtype)
    z = place(plan.blocks, members, draws.free, blank)
    descent = state.descent
    if descent is not None:
        sizes = base_sizes(plan.blocks, members)
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        eps = jnp.concatenate(
            [draws.free[:, ends[i] - sizes[i] : ends[i]] for i in plan.free], -1
        )

        def objective(own: Members) -> Float[Array, ""]:
            points = place(plan.free_blocks, own, eps, z)
            energies = energy(target, data, plan.blocks, points, plan.at_once)
            return energies.mean() - entropy(own)

        limit = descent.trials + INNER_TRIALS
        if any(plan.conjugate):
            descent = again(descent)
        descent = descend(objective, descent, plan.tolerance / 2, limit)
        members = _with(members, plan.free, descent.members)
        fixed = tuple(q for q, c in zip(members, plan.conjugate, strict=True) if c)
        value = descent.value - entropy(fixed)
        squared += descent.length**2
    else:
        energies = energy(target, data, plan.blocks, z, plan.at_once)
        value = energies.mean() - entropy(members)
    length = jnp.sqrt(squared)
    row = jnp.stack([-value, length]).astype(state.trace.dtype)
    return replace(
        state,
        members=members,
        descent=descent,
        sweeps=state.sweeps + 1,
        length=length.astype(state.length.dtype),
        trace=state.trace.at[state.sweeps].set(row),
    )


def stuck(state: State) -> Bool[Array, ""]:
    """No step of the free blocks lowers L any further, or L is not finite."""
    if state.descent is None:
        return jnp.asarray(False)
    return state.descent.stuck | (
        ~jnp.isfinite(state.descent.value) & ~state.descent.fresh
    )


def at_rest(state: State, plan: Sweeping) -> Bool[Array, ""]:
    """Neither the last sweep was long, nor are all to come together if they go on to
    shrink at the last two's rate; or short ones have ceased to shrink, as the errors of
    regressions on few draws let them."""
    earlier = state.trace[jnp.maximum(state.sweeps - 1 - _WHILE, 0), 1]
    stalled = (state.sweeps > _WHILE) & (state.length > 0.9 * earlier)
    before = state.trace[jnp.maximum(state.sweeps - 2, 0), 1]
    rate = jnp.clip(state.length / before, 0, 0.99)
    rest = jnp.where(state.sweeps > 1, rate / (1 - rate), 1.0) * state.length
    # Not finite: the sweep before had no length, or this one has none yet.
    longest = jnp.where(jnp.isfinite(rest), jnp.maximum(rest, state.length), jnp.inf)
    return (longest <= plan.tolerance) | (stalled & (state.length <= plan.tolerance))


def _work_of_sweeps(target: Target, plan: Sweeping, data: Data, *rest: Any) -> Work:
    draws = next(part for part in rest if isinstance(part, BaseDraws))
    points = sum(len(own) for own in draws.own)
    each = len(draws.free) * INNER_TRIALS + len(draws.conjugate) * points
    return target, data, INNER_TRIALS * each


def _work_of_draws(
    target: Target, plan: Sweeping, data: Data, members: Members, eps: Array
) -> Work:
    return target, data, len(eps)


@partial(Compiled, static_argnums=(0, 1), work=_work_of_sweeps)
def advance(
    target: Target,
    plan: Sweeping,
    data: Data,
    state: State,
    draws: BaseDraws,
    limit: Int[Array, ""],
) -> State:
    """Sweeps up to the `limit`-th, or until they have converged or are stuck."""

    def moving(state: State) -> Array:
        going = ~at_rest(state, plan) & ~stuck(state)
        return going & (state.sweeps < limit)

    return jax.lax.while_loop(
        moving, lambda s: _sweep(target, plan, data, s, draws), state
    )


class Unseen(NamedTuple):
    """A fit held against draws that it has not seen."""

    elbo: Float[Array, ""]
    error: Float[Array, ""]
    """Standard error of the ELBO's difference from the one on the fit's draws."""
    gradient: Float[Array, "k"]
    """The natural gradient of the free blocks there."""


@partial(Compiled, static_argnums=(0, 1), work=_work_of_draws)
def check(
    target: Target,
    plan: Sweeping,
    data: Data,
    members: Members,
    eps: Float[Array, "s e"],
) -> Unseen:
    """The ELBO, and the natural gradient of the free blocks, on unseen draws."""
    own = tuple(members[i] for i in plan.free)
    move, size = retraction(own) if own else (lambda xi: (), 0)

    def value(xi: Float[Array, "k"]) -> tuple[Array, Array]:
        moved = _with(members, plan.free, move(xi))
        blank = jnp.zeros((len(eps), target.dim), eps.dtype)
        z = place(plan.blocks, moved, eps, blank)
        energies = energy(target, data, plan.blocks, z, plan.at_once)
        rest = energies + _log_q(plan.blocks, moved, z)
        return energies.mean() - entropy(moved), jax.lax.stop_gradient(rest)

    zero = jnp.zeros(size, eps.dtype)
    (_, rest), gradient = jax.value_and_grad(value, has_aux=True)(zero)
    pairs = rest.reshape(2, -1).mean(0)
    return Unseen(-rest.mean(), jnp.std(pairs) / jnp.sqrt(pairs.size), gradient)


def _log_q(
    blocks: Blocks, members: Members, z: Float[Array, "n d"]
) -> Float[Array, "n"]:
    """On the blocks' own supports. Its mean is minus the entropy, and beside ℓ it
    cancels what varies: all of it where q is the posterior."""
    pairs = zip(blocks, members, strict=True)
    logs = (q.log_prob(b.constrain(b.take(z))).sum(-1) for b, q in pairs)
    return sum(logs, start=jnp.zeros(len(z), z.dtype))


@partial(jax.jit, static_argnums=(0, 1))
def entropy_error(
    target: Target, plan: Sweeping, members: Members, eps: Float[Array, "n e"]
) -> Float[Array, ""]:
    """By how much the mean of −log q over draws misses the entropy: so much less is an
    ELBO that has the one in place of the other."""
    z = place(plan.blocks, members, eps, jnp.zeros((len(eps), target.dim), eps.dtype))
    return -_log_q(plan.blocks, members, z).mean() - entropy(members)
