"""Arrays along a chain of blocks, cut into segments that are worked on at once.

The axis of blocks becomes two, that of equally long segments and that of the blocks in
each; zeros fill up the last one. The last block of a segment is its *separator*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

_LONGEST = 512
"""Blocks in a segment."""


def segments_of(count: int) -> tuple[int, int]:
    """Segments, and their length with the separator. One segment has all blocks and
    stands for the end: its separator is none of them."""
    if count < _LONGEST:
        return 1, count + 1
    segments = -(-count // _LONGEST)
    return segments, -(-count // segments)


def fold(x: Array, axis: int) -> Array:
    """The axis of blocks in two, padded by zeros."""
    axis += x.ndim
    segments, length = segments_of(x.shape[axis])
    missing = segments * length - x.shape[axis]
    padded = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
    return padded.reshape(*x.shape[:axis], segments, length, *x.shape[axis + 1 :])


def unfold(inner: Array, separators: Array, axis: int, count: int) -> Array:
    """The inverse of `fold`, from what is inside of segments and the separators."""
    axis += inner.ndim
    shape = (*inner.shape[:axis], 1, *inner.shape[axis + 1 :])
    ends = jnp.broadcast_to(jnp.expand_dims(separators, axis - inner.ndim), shape)
    both = jnp.concatenate([inner, ends], axis)
    blocks = both.shape[axis - 1] * both.shape[axis]
    flat = both.reshape(*both.shape[: axis - 1], blocks, *both.shape[axis + 1 :])
    return jax.lax.slice_in_dim(flat, 0, count, axis=axis - 1)


def inside_of(x: Array, axis: int) -> Array:
    """All but the last."""
    return jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)


def last_of(x: Array, axis: int) -> Array:
    """The last."""
    return jax.lax.index_in_dim(x, x.shape[axis] - 1, axis, keepdims=False)


def before_each(x: Array, axis: int) -> Array:
    """Of each segment, what is given for the one before; zero for the first."""
    shifted = jnp.roll(x, 1, axis)
    first = jnp.arange(x.shape[axis]) == 0
    return jnp.where(first.reshape(-1, *[1] * (-axis - 1)), 0, shifted)


def after_each(x: Array, axis: int) -> Array:
    """Of each segment, what is given for the one after; zero for the last."""
    return jnp.flip(before_each(jnp.flip(x, axis), axis), axis)


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` along the matrices of all segments at once."""
    first = jax.tree.map(lambda x: jnp.moveaxis(x, -3, 0), xs)
    carry, ys = jax.lax.scan(body, carry, first, reverse=reverse)
    return carry, jax.tree.map(lambda y: jnp.moveaxis(y, 0, -3), ys)
