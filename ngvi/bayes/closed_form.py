"""Closed-form updates of blocks whose conditional is in the block's own family.

Given all other sites, log p as a function of a conjugate block's x is ⟨c, T(x)⟩ plus a
constant, with c a function of the others, and the best q of the block is

    λ = E_q[c(others)]:   the update of `ngvi.mirror.step` with ρ = 1.

c is measured at draws of the others, see `ngvi.bayes.conditionals`; for a discrete site
one entry after the other.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.blocks import Block, Blocks, base_sizes, place
from ngvi.bayes.conditionals import local, measured, weighed_values
from ngvi.bayes.target import Data, Target
from ngvi.families import Bernoulli, Categorical, Gaussian
from ngvi.linalg import Dense
from ngvi.mirror.frames import Members
from ngvi.mirror.regression import control_variates, expected
from ngvi.mirror.step import mirror_step


class _Centred:
    """The statistics of all blocks at draws, less their means."""

    def __init__(self, blocks: Blocks, members: Members, z: Float[Array, "n d"]):
        parts, groups, number = [], [], 0
        self.columns: dict[Block, slice] = {}
        start = 0
        for block, q in zip(blocks, members, strict=True):
            t = q.flatten(q.sufficient_statistics(block.constrain(block.take(z))))
            t = (t - q.flatten(q.mean_params)).reshape(len(z), -1)
            each = t.shape[1] // block.count
            groups.append(number + np.repeat(np.arange(block.count), each))
            number += block.count
            self.columns[block] = slice(start, start + t.shape[1])
            start += t.shape[1]
            parts.append(t)
        self.values = jnp.concatenate(parts, -1)
        self.groups = np.concatenate(groups)

    def without(self, block: Block) -> tuple[Float[Array, "n c"], ...]:
        """Control variates for what depends on the other blocks."""
        own = self.columns[block]
        kept = np.delete(np.arange(len(self.groups)), np.r_[own])
        return control_variates(self.values[:, kept], self.groups[kept])

    def without_entry(
        self, block: Block, entry: Any
    ) -> tuple[Float[Array, "n c"], ...]:
        """The same for one entry of a discrete block: its own statistics are zeros."""
        own = self.columns[block]
        each = (own.stop - own.start) // block.count
        at = jnp.arange(len(self.groups)) - own.start
        mine = (at >= entry * each) & (at < (entry + 1) * each)
        return control_variates(jnp.where(mine, 0, self.values), self.groups)


def closed_form(
    target: Target,
    data: Data,
    blocks: Blocks,
    number: int,
    members: Members,
    eps: Float[Array, "n e"],
    own: Float[Array, "p m b"],
) -> tuple[Any, Float[Array, ""]]:
    """The best q of a conjugate block given the others', and how far it is.

    Args:
        target: the density.
        data: its arrays.
        blocks: all of them.
        number: which one moves.
        members: of each.
        eps: base draws for all.
        own: base draws for the points a continuous block is measured at.

    Returns:
        The block's members, unchanged where an update would leave the family, and the
        squared Fisher length of the way: ⟨Δλ, Δμ⟩, the symmetrised divergence.
    """
    block, q = blocks[number], members[number]
    blank = jnp.zeros((len(eps), target.dim), eps.dtype)
    z = place(blocks, tuple(_spread(q) for q in members), eps, blank)
    if block.classes:
        return _discrete(target, data, blocks, number, members, eps, z)
    coefficients = measured(target, data, block, q, own, z)[0]
    shape = coefficients.shape[1:]
    variates = _Centred(blocks, members, z).without(block)
    mean = expected(coefficients.reshape(len(z), -1), variates).reshape(shape)
    family = local(block, q)[0]
    moved = mirror_step(family, jax.tree.map(jnp.negative, family.unflatten(mean)), 1.0)
    way = _squared_way(family, moved)
    if isinstance(q, Gaussian):
        # In the frame of q; back in its coordinates.
        root = q.precision.inverse_root @ moved.precision.inverse_root
        inverse = q.precision.root @ moved.precision.root
        moved = Gaussian(q.place(moved.mean), Dense(inverse, root))
    return _if_valid(moved, q, way)


def _discrete(
    target: Target,
    data: Data,
    blocks: Blocks,
    number: int,
    members: Members,
    eps: Float[Array, "n e"],
    z: Float[Array, "n d"],
) -> tuple[Any, Float[Array, ""]]:
    """One entry after the other, each from its exact conditional."""
    block, before = blocks[number], members[number]
    sizes = base_sizes(blocks, members)
    own = slice(sum(sizes[:number]), sum(sizes[: number + 1]))

    def update(entry: Array, q: Any) -> Any:
        # Where entries meet, later ones see what earlier ones have become.
        here = place((block,), (_spread(q),), eps[:, own], z)
        now = (*members[:number], q, *members[number + 1 :])
        variates = _Centred(blocks, now, here).without_entry(block, entry)
        values = weighed_values(target, data, block, entry, here)
        found = expected(values, variates)
        flat = q.flatten(q.natural_params).reshape(block.count, -1)
        flat = flat.at[entry].set(jnp.clip(found, -_SURE, _SURE))
        params = q.natural_params
        return q.with_natural_params(flat.reshape(params.shape))

    moved = jax.lax.fori_loop(0, block.count, update, before)
    return _if_valid(moved, before, _squared_way(before, moved))


_SPREAD = 0.1
"""Of each value's probability, what is shared out evenly where draws are regressed on:
a value that no draw has would leave no trace, and its coefficient be lost."""


def _spread(q: Any) -> Any:
    """A discrete member nearer to even; any other as it is."""
    if isinstance(q, Bernoulli):
        return Bernoulli.from_probs((1 - _SPREAD) * q.probs + _SPREAD / 2)
    if isinstance(q, Categorical):
        even = _SPREAD / q.logits.shape[-1]
        return Categorical.from_probs((1 - _SPREAD) * q.probs + even)
    return q


_SURE = 80.0
"""Log odds beyond which nothing changes."""


def _squared_way(q: Any, moved: Any) -> Float[Array, ""]:
    def change(of: Any) -> Any:
        return jax.tree.map(jnp.subtract, of(moved), of(q))

    natural = change(lambda m: m.natural_params)
    mean = change(lambda m: m.mean_params)
    products = jax.tree.map(lambda a, b: (a * b).sum(), natural, mean)
    return jnp.maximum(jax.tree.reduce(jnp.add, products), 0)


def _if_valid(moved: Any, q: Any, way: Array) -> tuple[Any, Float[Array, ""]]:
    leaves = jax.tree.leaves(moved)
    valid = jnp.isfinite(way)
    for leaf in leaves:
        valid &= jnp.isfinite(leaf).all()
    kept = jax.tree.map(lambda a, b: jnp.where(valid, a, b), moved, q)
    return kept, jnp.where(valid, way, jnp.inf)
