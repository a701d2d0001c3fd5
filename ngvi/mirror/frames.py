"""Natural gradients of any family in a frame in which its Fisher matrix is I.

Around a member q a tangent vector is a vector ξ, and `retraction(q)` maps it to a
member that cannot leave the family:

- a Gaussian with root A moves to mean m + A γ and root A (I + X + ½ X²), X lower
  triangular and so the new diagonal positive; ξ = (γ, X) up to the factors that make
  the Fisher matrix I;
- any other family moves by φ⁺ = φ + R⁻ᵀ ξ in the coordinates without bounds of
  `ngvi.families.charts`, with R Rᵀ the Fisher matrix in φ.

So the gradient of L(retraction(q)(ξ)) in ξ at 0 is the natural gradient, and its length
the Fisher length: no Fisher system is left to solve, and a product of families is its
factors' frames side by side.

Source: Lin, Schmidt and Khan (2020), Handling the positive-definite constraint in the
Bayesian learning rule, for the Gaussian's retraction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.families import ExponentialFamily, Gaussian
from ngvi.families.charts import from_free, to_free
from ngvi.linalg import Dense

Vector = Float[Array, "n"]
Members = tuple[Any, ...]
"""Independent members, each a batch (M,) of a family."""


def retraction(members: Members) -> tuple[Callable[[Vector], Members], int]:
    """ξ ↦ members, at these members for ξ = 0; and the length of ξ.

    Args:
        members: Gaussians have dense precisions, in the frame of their stored roots.
    """
    frames = [_gaussian(q) if isinstance(q, Gaussian) else _general(q) for q in members]
    sizes = [size for _, size in frames]
    ends = np.cumsum(sizes)[:-1]

    def moved(xi: Vector) -> Members:
        parts = jnp.split(xi, ends)
        return tuple(move(part) for (move, _), part in zip(frames, parts, strict=True))

    return moved, sum(sizes)


def _general(q: ExponentialFamily) -> tuple[Callable[[Vector], Any], int]:
    free = to_free(q)
    shape = free.shape

    def both(coordinates: Array) -> tuple[Array, Array]:
        member = from_free(q, coordinates)
        params = member.natural_params, member.mean_params
        return member.flatten(params[0]), member.flatten(params[1])

    def row(unit: Vector) -> tuple[Array, Array]:
        return jax.jvp(both, (free,), (jnp.broadcast_to(unit, shape),))[1]

    # ∂μ/∂φ is the Fisher matrix in λ times ∂λ/∂φ.
    natural, mean = jax.vmap(row)(jnp.eye(shape[-1], dtype=free.dtype))
    fisher = jnp.einsum("i...k,j...k->...ij", natural, mean)
    fisher = (fisher + fisher.mT) / 2
    # In units of its diagonal: parameters may differ in scale by many decades.
    units = jnp.sqrt(jnp.diagonal(fisher, axis1=-2, axis2=-1))
    scaled = fisher / (units[..., :, None] * units[..., None, :])
    eye = jnp.eye(shape[-1], dtype=free.dtype)
    root = jnp.linalg.cholesky(scaled + 4 * jnp.finfo(free.dtype).eps * eye)

    def move(xi: Vector) -> Any:
        step = jax.scipy.linalg.solve_triangular(
            root, xi.reshape(*shape, 1), lower=True, trans="T"
        )[..., 0]
        return from_free(q, free + step / units)

    return move, int(np.prod(shape))


def _gaussian(q: Gaussian) -> tuple[Callable[[Vector], Any], int]:
    root, dim = q.precision.inverse_root, q.dim
    rows, columns = np.tril_indices(dim)
    # KL = ½ Σ_{i>j} x² + Σ_i x² to second order.
    units = np.where(rows == columns, 0.5**0.5, 1.0).astype(root.dtype)
    each = dim + rows.size
    batch = q.batch_shape

    def move(xi: Vector) -> Gaussian:
        xi = xi.reshape(*batch, each)
        x = jnp.zeros((*batch, dim, dim), root.dtype)
        x = x.at[..., rows, columns].set(units * xi[..., dim:])
        grown = root + root @ x + root @ (x @ x) / 2
        mean = q.mean + (root @ xi[..., :dim, None])[..., 0]
        return Gaussian(mean, Dense.from_inverse_root(grown))

    return move, int(np.prod((*batch, each)))
