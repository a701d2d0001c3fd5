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
from jax.sharding import Mesh
from jaxtyping import Array, Int

from ngvi.families.parameters import is_concrete
from ngvi.nets.optimizers.blocks import along_axes
from ngvi.nets.optimizers.factors import Cutting, Factors, shared_work
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


class ShampooState(NamedTuple):
    """Between two steps."""

    count: Int[Array, ""]  # type: ignore[assignment]
    mu: Any
    """M."""
    factors: Any
    """A pytree like the parameters, of `Factors`: L_i and its root."""
    graft: Any
    """The other optimiser's state."""


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
    mesh: Mesh | None = None,
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
        mesh: of devices, over whose first axis the roots are shared out.

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
    checked_decay(b1=b1)
    checked("b2", b2, 0, 1)
    checked("eps", eps, 0)
    checked("every", every, 1)
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
    cutting = Cutting(block_size, min_ndim, root_dtype)

    def init(params: Any) -> ShampooState:
        factors = jax.tree.map(cutting.zeros, params)
        mu = zeros(params, mu_dtype)
        return ShampooState(jnp.zeros((), jnp.int32), mu, factors, grafted.init(params))

    def rooted(order: int, total: Array, old: Array, weight: Array, e: Array) -> Array:
        """L_i^(−1/2k)."""
        power = 1 / (2 * order) if exponent is None else exponent
        mean = (total / weight).astype(total.dtype)
        return inverse_power(mean, power, e.astype(mean.dtype), root).astype(old.dtype)

    def renewed(factors: list[Factors], turn: int, count: Array) -> list[Factors]:
        """With roots, if those of some tensors are due; the first step is number 0."""

        def roots() -> Any:
            weight = 1 - b2 ** (count + 1) if debias else 1
            weight = jnp.where(b2 == 1, 1, weight)
            return shared_work(rooted, factors, mesh, weight, jnp.asarray(eps))

        # At first the statistics change much: where few gradients have been seen the
        # preconditioner is large, and must shrink as soon as others are.
        soon = (count < every) & (count & (count - 1) == 0)
        due = (count + turn) % every == 0
        made = jax.lax.cond(due | soon, roots, lambda: [list(f.made) for f in factors])
        pairs = zip(factors, made, strict=True)
        return [f._replace(made=tuple(of_tensor)) for f, of_tensor in pairs]

    def update(
        gradients: Any, state: ShampooState, params: Any = None, **extra: Any
    ) -> tuple[Any, ShampooState]:
        mu = averaged(state.mu, gradients, b1)
        moving = unbiased(mu, b1, state.count + 1) if debias else mu
        steps, graft_state = grafted.update(gradients, state.graft, params, **extra)

        cut = [cutting.blocks(g) for g in jax.tree.leaves(gradients)]
        # β₂ = 1 is the sum of all, as first published.
        new = jnp.where(b2 == 1, 1, 1 - b2)
        kept = [
            f if blocks is None else f.seen(blocks.split(wide(g)), b2, new)
            for blocks, (g, f) in zip(cut, each(gradients, state.factors), strict=True)
        ]
        if stagger:
            turns = enumerate(kept)
            kept = [renewed([f], turn, state.count)[0] for turn, f in turns]
        else:
            kept = renewed(kept, 0, state.count)
        made = []
        for blocks, f, (m, s) in zip(cut, kept, each(moving, steps), strict=True):
            if blocks is None:
                # Without another optimiser, the momentum alone.
                made.append(m if graft is None else s)
                continue
            p = blocks.join(along_axes(blocks.split(wide(m)), f.made))
            made.append(p if graft is None else _of_length(p, s))
        updates, factors = (shaped(gradients, leaves) for leaves in (made, kept))
        state = ShampooState(state.count + 1, mu, factors, graft_state)
        return like(updates, gradients), state

    direction = optax.GradientTransformationExtraArgs(init, update)
    return with_rate(direction, learning_rate, weight_decay, mask)


def _of_length(direction: Array, step: Array) -> Array:
    """A direction, as long as a step; nothing if it has none."""
    length = jnp.linalg.norm(direction)
    scale = jnp.linalg.norm(wide(step)) / jnp.where(length > 0, length, 1)
    return scale * direction
