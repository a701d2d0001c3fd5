"""What a conditional is made of, measured from gradients and values of log p.

Given all other sites, log p as a function of a conjugate block's x is ⟨c, T(x)⟩ plus a
constant. Nothing is read off the model's text: c is regressed on gradients of log p at
a few points, for all members of a block at once (`ngvi.mirror.regression`); of a
discrete site it is differences of values, for one entry at a time. What a block's
statistics leave of the gradients tells whether it is conjugate. A Gaussian is measured
in its own frame, z = m + Aε, so that far from 0 no digits are lost.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.bayes.blocks import Block, Blocks, place
from ngvi.bayes.quick import Compiled, Work
from ngvi.bayes.target import Data, Target
from ngvi.families import Bernoulli, Gaussian
from ngvi.linalg import Dense
from ngvi.mirror.frames import Members
from ngvi.mirror.regression import from_gradients


def own_points(block: Block, size: int) -> int:
    """At how many points a continuous block is measured: a few equations more than
    there are unknowns.

    Args:
        block: the block.
        size: how many statistics one member has.
    """
    return -(-(size + 2) // block.coordinates.shape[1]) + 1


def _standard(q: Gaussian) -> Gaussian:
    """N(0, I), of q's shape."""
    eye = jnp.broadcast_to(jnp.eye(q.dim, dtype=q.dtype), q.precision.root.shape)
    return Gaussian(jnp.zeros_like(q.mean), Dense(eye, eye))


def local(block: Block, q: Any) -> tuple[Any, Any]:
    """A member in the coordinates it is measured in, and the coordinates as a function
    of those: of a Gaussian ε ↦ z, of others z itself."""
    if isinstance(q, Gaussian):
        return _standard(q), q.place
    return q, lambda part: part


def measured(
    target: Target,
    data: Data,
    block: Block,
    q: Any,
    own: Float[Array, "p m b"],
    others: Float[Array, "n d"],
) -> tuple[Float[Array, "n m k"], Float[Array, "n m"]]:
    """c of a continuous block at draws of the others, and the share of the gradients
    that it leaves.

    Args:
        target: the density.
        data: its arrays.
        block: the block.
        q: its members.
        own: base draws of the points it is measured at.
        others: whole points, whose coordinates in the block do not matter.
    """
    family, to_coordinates = local(block, q)
    points = block.unconstrain(family.place(own))

    def statistics(points: Float[Array, "p m d"]) -> Float[Array, "p m k"]:
        return family.flatten(family.sufficient_statistics(block.constrain(points)))

    def slopes(unit: Float[Array, "d"]) -> Float[Array, "p m k"]:
        along = jnp.broadcast_to(unit, points.shape)
        return jax.jvp(statistics, (points,), (along,))[1]

    units = jnp.eye(points.shape[-1], dtype=points.dtype)
    design = jnp.moveaxis(jax.vmap(slopes)(units), 0, -1)

    def log_p(point: Float[Array, "m d"], rest: Float[Array, "d"]) -> Array:
        """On the block's own support, less the base measure."""
        part = to_coordinates(point)
        x = block.constrain(part)
        base = family.log_base_measure(x).sum() + block.log_det(part).sum()
        return -target.potential(data, block.put(rest, part)) - base

    def at(rest: Float[Array, "d"]) -> Float[Array, "p m d"]:
        return jax.vmap(jax.grad(log_p), (0, None))(points, rest)

    gradients = jax.lax.map(at, others, batch_size=min(64, len(others)))
    return from_gradients(design, gradients)


def weighed_values(
    target: Target,
    data: Data,
    block: Block,
    entry: Any,
    others: Float[Array, "n d"],
) -> Float[Array, "n k"]:
    """c of one entry of a discrete block: log p of each value less that of the last, or
    for yes or no of the first."""
    place_of = jnp.asarray(block.coordinates)[entry, 0]

    def log_p(value: Array, rest: Float[Array, "d"]) -> Array:
        return -target.potential(data, rest.at[place_of].set(value))

    values = block.low + jnp.arange(block.classes, dtype=others.dtype)

    def at(rest: Float[Array, "d"]) -> Float[Array, "c"]:
        return jax.vmap(log_p, (0, None))(values, rest)

    logs = jax.lax.map(at, others, batch_size=min(64, len(others)))
    if block.family is Bernoulli:
        return logs[:, 1:] - logs[:, :1]
    return logs[:, :-1] - logs[:, -1:]


def _work(target: Target, _: Blocks, tried: Any, data: Data, *rest: Any) -> Work:
    _, _, eps, owns = rest
    return target, data, len(eps) * sum(len(own) for own in owns)


@partial(Compiled, static_argnums=(0, 1, 2), work=_work)
def residuals(
    target: Target,
    blocks: Blocks,
    tried: tuple[Block, ...],
    data: Data,
    members: Members,
    candidates: Members,
    eps: Float[Array, "n e"],
    owns: tuple[Float[Array, "p m b"], ...],
) -> tuple[Float[Array, "n m"], ...]:
    """For each block that is tried, the share of the gradients that its statistics
    leave, at each draw and of each member.

    Args:
        target: the density.
        blocks: all of them.
        tried: blocks to try in the place of those of the same sites.
        data: the density's arrays.
        members: of `blocks`.
        candidates: of `tried`.
        eps: base draws of `blocks`.
        owns: for each of `tried`, base draws of the points it is measured at.
    """
    z = place(blocks, members, eps, jnp.zeros((len(eps), target.dim), eps.dtype))
    return tuple(
        measured(target, data, block, q, own, z)[1]
        for block, q, own in zip(tried, candidates, owns, strict=True)
    )
