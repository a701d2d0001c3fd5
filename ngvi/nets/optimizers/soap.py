"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

A weight tensor with gradient G keeps L_i ← β L_i + (1 − β) G_(i) G_(i)ᵀ for each axis,
as Shampoo does, but only their eigenvectors Q_i are used: in that basis, which moves
slowly, Adam runs. Of a matrix, with left and right bases,

    G′ = Q_Lᵀ G Q_R,        M ← β₁ M + (1 − β₁) G,        V ← β₂ V + (1 − β₂) G′ ∘ G′,
    N  = Q_L (Q_Lᵀ M̂ Q_R / (√V̂ + ε)) Q_Rᵀ,

hats for averages divided by 1 − βᵗ. Every so many steps the bases are renewed by one
step of power iteration, Q ← QR(L Q), after their columns are sorted by diag(Qᵀ L Q),
and V with them.

Where Q = I it is Adam. The first step only measures: its updates are zero, for a
gradient in the basis of its own Gram matrix would say nothing of the others.

Source: Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade (2025),
SOAP: improving and stabilizing Shampoo using Adam, algorithms 3 and 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from ngvi.nets.optimizers.blocks import Blocked, along_axes
from ngvi.nets.optimizers.factors import Cutting, Factors, shared_work
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


class SoapState(NamedTuple):
    """Between two steps."""

    count: Int[Array, ""]  # type: ignore[assignment]
    """t + 1, the first step only measuring; zero before it."""
    mu: Any
    """M."""
    nu: Any
    """V, of the blocks of a tensor that has a basis."""
    bases: Any
    """A pytree like the parameters, of `Factors`: L_i and Q_i, in columns."""


def soap(
    learning_rate: Rate,
    b1: Any = 0.95,
    b2: Any = 0.95,
    eps: Any = 1e-8,
    *,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
    basis_decay: Any = None,
    every: Any = 10,
    block_size: int = 1024,
    min_ndim: int = 2,
    mu_dtype: Any = None,
    basis_dtype: Any = None,
    mesh: Mesh | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam in Shampoo's eigenbasis.

    Args:
        learning_rate: a number or a schedule; Adam's are too, or larger.
        b1: β₁, of M.
        b2: β₂, of V.
        eps: ε.
        weight_decay, mask: decoupled, as in `optax.adamw`.
        basis_decay: β, of L_i; that of V by default.
        every: steps between two renewals of the bases. Under `vmap` they are renewed
            in every step.
        block_size: an axis longer than this is cut, and each block has its own bases.
        min_ndim: what has fewer axes goes through Adam as it is; axes count as in
            `shampoo`.
        mu_dtype: of M; bfloat16 is safe.
        basis_dtype: of Q_i; in bfloat16 they are orthonormal to three digits.
        mesh: of devices, over whose first axis the bases' factorisations are shared
            out.

    Raises:
        ValueError: a setting outside of its range.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from ngvi.nets.optimizers import soap
        >>> optimizer = soap(0.1)
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
    decay = b2 if basis_decay is None else basis_decay
    checked_decay(b1=b1, b2=b2, basis_decay=decay)
    checked("eps", eps, 0)
    checked("every", every, 1)
    cutting = Cutting(block_size, min_ndim, basis_dtype)

    def empty(leaf: Array) -> Array:
        """V, of zeros."""
        blocks = cutting.blocks(leaf)
        shape = leaf.shape if blocks is None else (blocks.count, *blocks.sizes)
        return jnp.zeros(shape, wide(leaf).dtype)

    def init(params: Any) -> SoapState:
        nu, bases = (jax.tree.map(made, params) for made in (empty, cutting.zeros))
        return SoapState(jnp.zeros((), jnp.int32), zeros(params, mu_dtype), nu, bases)

    def measure(gradients: Any, state: SoapState) -> tuple[Any, Any, Any, Any]:
        """The first step."""
        bases = []
        for g, basis in each(gradients, state.bases):
            blocks = cutting.blocks(g)
            if blocks is not None:
                basis = basis.seen(blocks.split(wide(g)), decay, 1 - decay)
            bases.append(basis)
        found = zip(bases, shared_work(_decomposed, bases, mesh), strict=True)
        bases = [basis._replace(made=tuple(made)) for basis, made in found]
        nothing = jax.tree.map(jnp.zeros_like, gradients)
        return nothing, state.mu, state.nu, shaped(gradients, bases)

    def step(gradients: Any, state: SoapState) -> tuple[Any, Any, Any, Any]:
        """Any other."""
        t = state.count
        mu = averaged(state.mu, gradients, b1)
        made, squares, bases = [], [], []
        for g, m, v, basis in each(gradients, mu, state.nu, state.bases):
            blocks = cutting.blocks(g)
            g, m = wide(g), wide(m)
            if blocks is not None:
                g, m = blocks.split(g), blocks.split(m)
                turned, m = (_turned(x, basis, backward=True) for x in (g, m))
            else:
                turned = g
            v = averaged(v, turned**2, b2)
            n = unbiased(m, b1, t) / (jnp.sqrt(unbiased(v, b2, t)) + eps)
            if blocks is not None:
                n = blocks.join(_turned(n, basis))
                basis = basis.seen(g, decay, 1 - decay)
            made.append(n)
            squares.append(v)
            bases.append(basis)
        squares, bases = jax.lax.cond(
            t % every == 0, renewed, lambda *same: same, squares, bases
        )
        updates, nu, kept = (shaped(gradients, x) for x in (made, squares, bases))
        return like(updates, gradients), mu, nu, kept

    def renewed(squares: list[Array], bases: list[Factors]) -> tuple[Any, Any]:
        """The bases a step of power iteration on; and V's axes."""
        turned, kept = [], []
        found = shared_work(_iterated, bases, mesh)
        for v, basis, of_tensor in zip(squares, bases, found, strict=True):
            for axis, (_, order) in enumerate(of_tensor):
                along = [1] * v.ndim
                along[0], along[axis + 1] = order.shape
                v = jnp.take_along_axis(v, order.reshape(along), axis=axis + 1)
            turned.append(v)
            kept.append(basis._replace(made=tuple(q for q, _ in of_tensor)))
        return turned, kept

    def update(
        gradients: Any, state: SoapState, params: Any = None, **extra: Any
    ) -> tuple[Any, SoapState]:
        first = state.count == 0
        updates, *rest = jax.lax.cond(first, measure, step, gradients, state)
        return updates, SoapState(state.count + 1, *rest)

    direction = optax.GradientTransformationExtraArgs(init, update)
    return with_rate(direction, learning_rate, weight_decay, mask)


def _turned(x: Blocked, basis: Factors, backward: bool = False) -> Blocked:
    """Out of a basis, or backward into it."""
    vectors = [wide(q) for q in basis.made]
    return along_axes(x, [q.mT for q in vectors] if backward else vectors)


def _decomposed(order: int, total: Array, old: Array) -> Array:
    """The eigenvectors, of the greatest eigenvalue first."""
    return jnp.linalg.eigh(total)[1][..., ::-1].astype(old.dtype)


def _iterated(order: int, total: Array, q: Array) -> tuple[Array, Array]:
    """One step of power iteration, and how the columns were sorted for it."""
    wider = wide(q)
    values = jnp.einsum("nab,nac,ncb->nb", wider, total, wider)
    places = jnp.argsort(-values, axis=-1)
    sorted_q = jnp.take_along_axis(wider, places[:, None], axis=-1)
    return jnp.linalg.qr(total @ sorted_q)[0].astype(q.dtype), places
