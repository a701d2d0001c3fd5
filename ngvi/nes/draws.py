"""Base draws ε ~ N(0, I) of a generation.

| draws         | what is exact, and not only so on average              |
|---------------|--------------------------------------------------------|
| `independent` | nothing                                                |
| `mirrored`    | Σ εᵢ = 0, and every odd moment                         |
| `orthogonal`  | εᵢ ⊥ εⱼ within D draws: no direction is tried twice    |

Each ε alone has the normal distribution in all of them, so every mean of f(ε) is
unbiased. Selection within a pair shortens the path of the mean: with `mirrored` draws a
path that adapts σ sees steps shorter than they are, so it suits strategies without.

Source: Brockhoff et al. (2010), Mirrored sampling and sequential selection for
evolution strategies; Choromanski et al. (2018), Structured evolution with compact
architectures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Key

from ngvi.linalg.batching import diagonal_of

Draws = Callable[[Key[Array, ""], int, int, Any], Float[Array, "n d"]]
"""(key, how many, dimension, dtype) ↦ ε."""


def longest(dim: int) -> float:
    """How far out the draw of a point from elsewhere may be: Hansen (2011), Injecting
    external solutions into CMA-ES."""
    return math.sqrt(dim) + 2 * dim / (dim + 2)


def independent(
    key: Key[Array, ""], count: int, dim: int, dtype: Any
) -> Float[Array, "n d"]:
    """Independent normals."""
    return _normals(key, (count, dim), dtype)


def _normals(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
) -> Float[Array, "*s"]:
    """N(0, 1), in single precision faster than by `jax.random.normal`.

    Threefry makes two words at a time. That folds them into one number, lest it depend
    on how the draws are shared out among devices; here each word is a number.
    """
    size = math.prod(shape)
    threefry = jax.random.key_impl(key) == "threefry2x32"
    if dtype != jnp.float32 or not threefry or size >= 2**32:
        return jax.random.normal(key, shape, dtype)
    counts = jnp.arange(size, dtype=jnp.uint32)
    bits = threefry_2x32(jax.random.key_data(key), counts)
    # 23 bits, the middle of their interval: never ±1, where erf⁻¹ is infinite.
    level = ((bits >> 9).astype(dtype) + 0.5) * 2.0**-22 - 1
    return (math.sqrt(2) * jax.lax.erf_inv(level)).reshape(shape)


def mirrored(
    key: Key[Array, ""], count: int, dim: int, dtype: Any
) -> Float[Array, "n d"]:
    """[ε; −ε]; of an odd number the last one is alone."""
    # Else each would be made twice, for itself and for its mirror image.
    half = jax.lax.optimization_barrier(_normals(key, ((count + 1) // 2, dim), dtype))
    return jnp.concatenate([half, -half])[:count]


def orthogonal(
    key: Key[Array, ""], count: int, dim: int, dtype: Any
) -> Float[Array, "n d"]:
    """Directions that are orthonormal, and as random as that allows, within each D
    draws; lengths as of independent normals."""
    width = min(count, dim)
    blocks = -(-count // width)
    of_directions, of_lengths = jax.random.split(key)
    normals = _normals(of_directions, (blocks, dim, width), dtype)
    basis, triangle = jnp.linalg.qr(normals)
    # The signs make the basis uniform over all of them; QR alone prefers some.
    basis = basis * jnp.sign(diagonal_of(triangle))[:, None, :]
    directions = basis.mT.reshape(-1, dim)[:count]
    squares = jax.random.chisquare(of_lengths, dim, (count, 1), dtype)
    return jnp.sqrt(squares) * directions
