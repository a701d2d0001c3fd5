"""Shampoo: a Kronecker-factored preconditioner from gradients alone.

A weight tensor of order k with gradient G keeps a matrix for each of its axes and steps
along

    L_i ← β₂ L_i + (1 − β₂) G_(i) G_(i)ᵀ,       P = M ×₁ L₁^(−1/2k) … ×_k L_k^(−1/2k),

with G_(i) its unfolding along axis i and M the average of the gradients; of a matrix,
P = L^(−¼) M R^(−¼). The roots are computed every so many steps. Only P's direction is
used: its length, tensor by tensor, is that of another optimiser's step (*grafting*),
whose learning rate then fits. What has fewer than two axes is left to that optimiser.

Sources: Gupta, Koren and Singer (2018), Shampoo: preconditioned stochastic tensor
optimization, algorithms 1 and 2; Anil, Gupta, Koren, Regan and Singer (2020), Scalable
second order optimization for deep learning; Shi et al. (2023), A distributed data-
parallel PyTorch implementation of the distributed Shampoo optimizer for training neural
networks at-scale.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ngvi.families.parameters import is_concrete
from ngvi.nets.optimizers.blocks import Blocks, along_axes, gram
from ngvi.nets.optimizers.inverse_roots import Method, inverse_power
from ngvi.nets.optimizers.pieces import (
    Mask,
    Rate,
    averaged,
    checked,
    checked_decay,
    each,
    like,
    shaped,
    unbiased,
    wide,
    with_rate,
    zeros,
)


class Factors(NamedTuple):
    """Of one tensor, one array for each axis; none if it is not preconditioned."""

    statistics: tuple[Float[Array, "n b b"], ...]
    """L_i, of every block."""
    roots: tuple[Float[Array, "n b b"], ...]
    """L_i^(−1/2k), as last computed."""


class ShampooState(NamedTuple):
    """Between two steps."""

    count: Int[Array, ""]  # type: ignore[assignment]
    mu: Any
    """M."""
    factors: Any
    """A pytree like the parameters, of `Factors`."""
    graft: Any
    """The other optimiser's state."""


def scale_by_shampoo(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-6,
    *,
    every: Any = 10,
    exponent: float | None = None,
    block_size: int = 128,
    min_ndim: int = 2,
    graft: optax.GradientTransformation | Literal["adam"] | None = "adam",
    root: Method = "eigh",
    debias: bool = True,
    stagger: bool = False,
    mu_dtype: Any = None,
    root_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition by Shampoo; see `shampoo`."""
    checked_decay(b1=b1)
    checked("b2", b2, 0, 1)
    checked("eps", eps, 0)
    checked("every", every, 1)
    checked("block_size", block_size, 1)
    if root not in ("eigh", "newton"):
        raise ValueError(f"root must be 'eigh' or 'newton', got {root!r}")
    if root == "newton" and exponent is not None and (1 / exponent) % 1:
        raise ValueError(
            f"root='newton' computes powers −1/p with p whole, got {exponent=}: take "
            "root='eigh'"
        )
    if graft == "adam":
        if is_concrete(b2) and b2 == 1:
            raise ValueError(
                "graft='adam' needs b2 below 1: with the sum over all steps take "
                "graft=optax.scale_by_rss(), which is AdaGrad, or None"
            )
        graft = optax.scale_by_adam(b1, b2)
    grafted = optax.with_extra_args_support(graft or optax.identity())

    def blocks_of(leaf: Array) -> Blocks | None:
        blocks = Blocks.of(leaf.shape, block_size)
        return blocks if blocks.order >= max(min_ndim, 1) else None

    def power(blocks: Blocks) -> float:
        return 1 / (2 * blocks.order) if exponent is None else exponent

    def begin(leaf: Array) -> Factors:
        blocks = blocks_of(leaf)
        if blocks is None:
            return Factors((), ())
        dtype = wide(leaf).dtype
        shapes = [(blocks.count, size, size) for size in blocks.sizes]
        statistics = tuple(jnp.zeros(shape, dtype) for shape in shapes)
        roots = tuple(jnp.zeros(shape, root_dtype or dtype) for shape in shapes)
        return Factors(statistics, roots)

    def init(params: Any) -> ShampooState:
        factors = jax.tree.map(begin, params)
        mu = zeros(params, mu_dtype)
        return ShampooState(jnp.zeros((), jnp.int32), mu, factors, grafted.init(params))

    def renewed(
        index: int, blocks: Blocks, factors: Factors, gradient: Array, count: Array
    ) -> Factors:
        """With the gradient of another step, the first of which has the number 0."""
        parts = blocks.split(wide(gradient))
        # β₂ = 1 is the sum of all, as first published.
        new = jnp.where(b2 == 1, 1, 1 - b2)
        statistics = tuple(
            (b2 * old + new * gram(parts, axis)).astype(old.dtype)
            for axis, old in enumerate(factors.statistics)
        )
        weight = 1 - b2 ** (count + 1) if debias else 1
        weight = jnp.where(b2 == 1, 1, weight)

        def roots() -> tuple[Array, ...]:
            return tuple(
                inverse_power(
                    (total / weight).astype(total.dtype), power(blocks), eps, root
                ).astype(old.dtype)
                for total, old in zip(statistics, factors.roots, strict=True)
            )

        turn = (count + (index if stagger else 0)) % every == 0
        # At first the statistics change much: where few gradients have been seen the
        # preconditioner is large, and must shrink as soon as others are.
        soon = (count < every) & (count & (count - 1) == 0)
        return Factors(
            statistics, jax.lax.cond(turn | soon, roots, lambda: factors.roots)
        )

    def update(
        gradients: Any, state: ShampooState, params: Any = None, **extra: Any
    ) -> tuple[Any, ShampooState]:
        mu = averaged(state.mu, gradients, b1)
        moving = unbiased(mu, b1, state.count + 1) if debias else mu
        steps, graft_state = grafted.update(gradients, state.graft, params, **extra)

        kept, made = [], []
        together = each(gradients, state.factors, moving, steps)
        for i, (g, f, m, s) in enumerate(together):
            blocks = blocks_of(g)
            if blocks is None:
                kept.append(f)
                # Without another optimiser, the momentum alone.
                made.append(m if graft is None else s)
                continue
            f = renewed(i, blocks, f, g, state.count)
            p = blocks.join(along_axes(blocks.split(wide(m)), f.roots))
            kept.append(f)
            made.append(p if graft is None else _of_length(p, s))
        updates, factors = (shaped(gradients, leaves) for leaves in (made, kept))
        state = ShampooState(state.count + 1, mu, factors, graft_state)
        return like(updates, gradients), state

    return optax.GradientTransformationExtraArgs(init, update)


def shampoo(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-6,
    *,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
    every: Any = 10,
    exponent: float | None = None,
    block_size: int = 128,
    min_ndim: int = 2,
    graft: optax.GradientTransformation | Literal["adam"] | None = "adam",
    root: Method = "eigh",
    debias: bool = True,
    stagger: bool = False,
    mu_dtype: Any = None,
    root_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Shampoo, grafted to Adam: its learning rates are Adam's.

    Of other tensors than matrices, axes of size one are left out, and leading ones are
    merged while they fit into a block: the kernel of a convolution becomes a matrix.

    Args:
        learning_rate: a number or a schedule.
        b1: β₁, of M.
        b2: β₂; 1 for the sum over all steps, as first published.
        eps: what is added to L_i, relative to its norm; see `inverse_roots`.
        weight_decay, mask: decoupled, as in `optax.adamw`.
        every: steps between two computations of the roots; at first they are computed
            also after 1, 2, 4, 8, … steps. Under `vmap` every step computes them.
        exponent: instead of 1/2k.
        block_size: an axis longer than this is cut, and each block has its own
            matrices: a step costs block_size³ at most.
        min_ndim: what has fewer axes is left to grafting. With 1 a vector has its full
            matrix L^(−½).
        graft: another transformation whose steps give the lengths, such as
            `optax.identity()` (SGD) or `optax.scale_by_rss()` (AdaGrad); None for P's
            own length.
        root: "eigh", or "newton" for products alone; see `inverse_roots`.
        debias: divide averages by 1 − βᵗ.
        stagger: the tensors take turns, so that no step computes the roots of all.
        mu_dtype: of M; bfloat16 is safe.
        root_dtype: of the roots; in bfloat16 a step is off by 2⁻⁸, times up to
            eps^(−1/2k) where L_i is singular. The L_i are at least float32, as an
            average over many steps must be.

    Raises:
        ValueError: a setting outside of its range.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from ngvi.nets.optimizers import shampoo
        >>> optimizer = shampoo(0.1)
        >>> update = jax.jit(optimizer.update)
        >>> params = jnp.ones((3, 2))
        >>> state = optimizer.init(params)
        >>> loss = lambda w: (w**2).sum()
        >>> for _ in range(32):
        ...     updates, state = update(jax.grad(loss)(params), state)
        ...     params = optax.apply_updates(params, updates)
        >>> bool(loss(params) < 0.2)
        True
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        eps,
        every=every,
        exponent=exponent,
        block_size=block_size,
        min_ndim=min_ndim,
        graft=graft,
        root=root,
        debias=debias,
        stagger=stagger,
        mu_dtype=mu_dtype,
        root_dtype=root_dtype,
    )
    return with_rate(direction, learning_rate, weight_decay, mask)


def _of_length(direction: Array, step: Array) -> Array:
    """A direction, as long as a step; nothing if it has none."""
    length = jnp.linalg.norm(direction)
    scale = jnp.linalg.norm(wide(step)) / jnp.where(length > 0, length, 1)
    return scale * direction
