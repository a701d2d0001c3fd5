"""Normal draws that cost less than the step they are for.

A net's weights are perturbed at every step: with JAX's default generator the normals
cost more than the gradient of a small net. In single precision they are had here from a
counter i, hashed with the two words k of a key:

    u_i = hash(hash(i c + k₁) ⊕ k₂) 2⁻³²,   ε_i = √2 erf⁻¹(2 u_i − 1),

two rounds of a multiply-and-shift hash, whose bits pass for independent in the tests of
this library: moments, correlations between counters and between keys, and the
distribution's tails, which end at 5.4. Keys themselves are still split by JAX.

Source: Wellons (2018), Prospecting for hash functions, for the constants; Salmon,
Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, for
generators by counters.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32


def normals(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
) -> Float[Array, "*_"]:
    """ε ~ N(0, I) of this shape; in other than single precision JAX's own."""
    if jnp.dtype(dtype) != jnp.float32:
        return jax.random.normal(key, shape, dtype)
    words = jax.random.key_data(key).reshape(-1)
    counter = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    bits = _hash(counter * np.uint32(0x9E3779B9) + words[0])
    bits = _hash(bits ^ words[-1])
    # 24 bits, at the middles of their cells: never 0 or 1.
    centred = (bits >> 8).astype(jnp.float32) * 2.0**-23 - (1 - 2.0**-24)
    return math.sqrt(2) * jax.lax.erf_inv(centred)


def signs(
    turn: Int[Array, ""], sizes: tuple[int, ...], dtype: Any
) -> Float[Array, "p"]:
    """1 or −1 for each layer's part of A ε, at a draw's t-th use, t = 0, 1, ….

    Layers that are independent under q stay N(0, Σ) with any signs, so that the normals
    of one draw serve several steps. The signs are Walsh functions, the parity of the
    bits of t that are in the layer's number: from use to use each layer's change, and
    over 2, 4, 8, … uses they sum to 0, as do the products of the first 1, 2, 4, …
    layers'.

    Args:
        turn: t.
        sizes: of the layers.
        dtype: of the signs.
    """
    numbers = 1 + 2 * jnp.arange(len(sizes))
    odd = jax.lax.population_count(turn & numbers) % 2
    each = (1 - 2 * odd).astype(dtype)
    return jnp.repeat(each, np.array(sizes), total_repeat_length=sum(sizes))


def _hash(x: UInt32[Array, "*_"]) -> UInt32[Array, "*_"]:
    x = (x ^ (x >> 16)) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * np.uint32(0x735A2D97)
    return x ^ (x >> 15)
