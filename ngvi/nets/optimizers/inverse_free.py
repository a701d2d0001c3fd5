"""Inverse-free Shampoo: a structured Kronecker-factored preconditioner, by products.

The Fisher matrix of a weight tensor is taken for S₁ ⊗ … ⊗ S_k, S_i⁻¹ = K_i K_iᵀ, and
the K_i move as `ngvi.nets.optimizers.moving_roots` says. With the whitened gradient H
of a batch of B examples and d_i the length of axis i,

    H   = G ×₁ K₁ᵀ … ×_k K_kᵀ,
    W_i = B H_(i) H_(i)ᵀ / Π d_j + λ (Π ‖K_j‖²_F / d_j) K_iᵀ K_i,   j ≠ i,
    step along  G ×₁ K₁ K₁ᵀ … ×_k K_k K_kᵀ.

There is no root of the curvature, as in second-order methods. Where it comes to rest
gradients are white, but for λ.

Source: Lin, Dangel, Eschenhagen, Bae, Turner and Makhzani (2024), Can we remove the
square-root in adaptive gradient methods?
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ngvi.nets.optimizers.blocks import Blocked, Blocks, along_axes, gram
from ngvi.nets.optimizers.moving_roots import MovingRoots, Structure
from ngvi.nets.optimizers.pieces import (
    Mask,
    Rate,
    checked,
    each,
    like,
    shaped,
    wide,
    with_rate,
)


class Roots(NamedTuple):
    """Of one tensor, one array for each axis, of every block; vectors for diagonals."""

    roots: tuple[Float[Array, "n b *b"], ...]
    """K_i."""
    momenta: tuple[Float[Array, "n b *b"], ...]
    """M_i."""


class InverseFreeState(NamedTuple):
    """Between two steps."""

    count: Int[Array, ""]  # type: ignore[assignment]
    factors: Any
    """A pytree like the parameters, of `Roots`."""


def inverse_free_shampoo(
    learning_rate: Rate,
    rate: Any = 0.05,
    decay: Any = 0.5,
    damping: Any = 1e-3,
    *,
    momentum: Any = 0.9,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
    structure: Structure = "dense",
    rank: int = 8,
    batch_size: Any = 1,
    initial_scale: Any = None,
    every: Any = 1,
    block_size: int = 512,
    factor_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Inverse-free Shampoo with structured factors, and momentum of its steps.

    Args:
        learning_rate: a number or a schedule.
        rate: ρ, of K_i.
        decay: α, of M_i.
        damping: λ. Where gradients vanish it is all there is of the curvature, and a
            step that of gradient descent with learning_rate/λ.
        momentum: of the steps: each is added to this times the sum before.
        weight_decay, mask: decoupled, as in `optax.adamw`.
        structure: of K_i: "dense", "diagonal", "triangular" or "hierarchical". Memory
            and time are saved by "diagonal", and by smaller blocks; the others are kept
            as dense matrices with zeros, and have fewer numbers to learn.
        rank: of "hierarchical".
        batch_size: B, where G is the mean over a batch and the curvature that of one
            example.
        initial_scale: K_i = this · I at first; by default such that the curvature of
            the first gradient, and λ, have mean one once they are whitened.
        every: steps between two of K_i.
        block_size: an axis longer than this is cut, and each block has its own K_i.
        factor_dtype: of K_i and M_i, and of all products with them; bfloat16 is safe.

    Raises:
        ValueError: a setting outside of its range.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from ngvi.nets.optimizers import inverse_free_shampoo
        >>> optimizer = inverse_free_shampoo(0.3, damping=1.0, momentum=0.0)
        >>> update = jax.jit(optimizer.update)
        >>> params = jnp.ones((3, 2))
        >>> state = optimizer.init(params)
        >>> loss = lambda w: (w**2).sum()
        >>> for _ in range(30):
        ...     updates, state = update(jax.grad(loss)(params), state)
        ...     params = optax.apply_updates(params, updates)
        >>> bool(loss(params) < 0.2)
        True
    """
    moving = MovingRoots(structure, rank, rate, decay)
    checked("damping", damping, 0)
    checked("every", every, 1)
    checked("block_size", block_size, 1)

    def begin(leaf: Array) -> Roots:
        blocks = Blocks.of(leaf.shape, block_size)
        scale = 1 if initial_scale is None else initial_scale
        dtype = factor_dtype or wide(leaf).dtype
        starts = [(scale * one).astype(dtype) for one in ones(blocks)]
        return Roots(tuple(starts), tuple(map(jnp.zeros_like, starts)))

    def ones(blocks: Blocks) -> list[Array]:
        """I for each axis, zero where there is padding."""
        inside = [jnp.asarray(blocks.inside(i), float) for i in range(blocks.order)]
        if structure == "diagonal":
            return inside
        return [one[..., None] * jnp.eye(one.shape[1]) for one in inside]

    def init(params: Any) -> InverseFreeState:
        return InverseFreeState(jnp.zeros((), jnp.int32), jax.tree.map(begin, params))

    def moved(g: Blocked, factors: Roots, blocks: Blocks) -> Roots:
        """K_i a step on."""
        white = _whitened(g, factors.roots)
        lengths = [blocks.inside(i).sum(1) for i in range(blocks.order)]
        squares = [(k**2).sum(range(1, k.ndim)) for k in factors.roots]
        roots, momenta = [], []
        for i, (k, m, one) in enumerate(zip(*factors, ones(blocks), strict=True)):
            others = [j for j in range(blocks.order) if j != i]
            if structure == "diagonal":
                data = (white**2).sum([j + 1 for j in others])
                prior = k**2
            else:
                data, prior = gram(white, i), k.mT @ k
            weight = batch_size / math.prod(lengths[j] for j in others)
            ridge = damping * math.prod(squares[j] / lengths[j] for j in others)
            away = _each(weight, data) + _each(ridge, prior) - one
            k, m = moving.moved(k, m, away)
            roots.append(k)
            momenta.append(m)
        return Roots(tuple(roots), tuple(momenta))

    def fitted(g: Blocked, factors: Roots, blocks: Blocks) -> Roots:
        """K_i scaled so that the first gradient and λ have mean square one."""
        entries = math.prod(blocks.inside(i).sum(1) for i in range(blocks.order))
        squares = batch_size * (wide(g) ** 2).sum(range(1, g.ndim)) / entries
        squares = squares + damping
        scale = jnp.where(squares > 0, squares, 1) ** (-1 / (2 * blocks.order))
        scaled = tuple(_each(scale, k).astype(k.dtype) for k in factors.roots)
        return factors._replace(roots=scaled)

    def update(
        gradients: Any, state: InverseFreeState, params: Any = None, **extra: Any
    ) -> tuple[Any, InverseFreeState]:
        made, kept = [], []
        for gradient, factors in each(gradients, state.factors):
            blocks = Blocks.of(gradient.shape, block_size)
            if not blocks.order:
                # A number has no axis, and stays as it is.
                made.append(gradient)
                kept.append(factors)
                continue
            g = blocks.split(gradient.astype(factors.roots[0].dtype))
            changes = [(state.count % every == 0, moved)]
            if initial_scale is None:
                changes.insert(0, (state.count == 0, fitted))
            for due, change in changes:
                new = partial(change, blocks=blocks)
                factors = jax.lax.cond(due, new, lambda _, same: same, g, factors)
            white = _whitened(g, factors.roots)
            made.append(blocks.join(_along(white, factors.roots)))
            kept.append(factors)
        updates, roots = shaped(gradients, made), shaped(gradients, kept)
        return like(updates, gradients), InverseFreeState(state.count + 1, roots)

    direction = optax.GradientTransformationExtraArgs(init, update)
    steady = optax.chain(direction, optax.trace(momentum))
    return with_rate(steady, learning_rate, weight_decay, mask)


def _whitened(g: Blocked, roots: tuple[Array, ...]) -> Blocked:
    """G ×₁ K₁ᵀ … ×_k K_kᵀ."""
    return _along(g, tuple(k.mT if k.ndim == 3 else k for k in roots))


def _along(x: Blocked, roots: tuple[Array, ...]) -> Blocked:
    """x ×₁ K₁ … ×_k K_k, of matrices or of the diagonals of some."""
    if roots[0].ndim == 3:
        return along_axes(x, roots)
    for axis, k in enumerate(roots):
        x = x * k.reshape(len(k), *[1] * axis, -1, *[1] * (x.ndim - axis - 2))
    return x


def _each(numbers: Any, x: Array) -> Array:
    """x times a number for each block."""
    return jnp.reshape(numbers, (-1, *[1] * (x.ndim - 1))) * x
