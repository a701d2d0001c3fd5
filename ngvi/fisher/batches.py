"""Data in batches: sums over all examples in memory for one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

Sums = TypeVar("Sums")


class Batch(NamedTuple):
    """Examples, along the first axis of every leaf; or one of them, without it."""

    x: Any
    y: Any = None
    """Labels, where they are needed."""
    keys: Key[Array, "n"] | None = None
    """One an example, where something is drawn: no draw depends on how the data are
    cut into batches."""


def count(examples: Any) -> int:
    """N, the length of the first axis."""
    return jax.tree.leaves(examples)[0].shape[0]


def sum_over(function: Callable[[Any], Sums], examples: Any, size: int | None) -> Sums:
    """Σ function(part) over parts of this size, the last one smaller where it must be.

    Args:
        function: of some examples, to a pytree of sums over them.
        examples: all, along the first axis of every leaf.
        size: of a part; None for all at once.
    """
    n = count(examples)
    size = n if size is None else min(size, n)
    times, left = divmod(n, size)
    if times == 1:
        total = function(_range(examples, 0, size))
    else:
        parts = jax.tree.map(
            lambda leaf: leaf[: times * size].reshape(times, size, *leaf.shape[1:]),
            examples,
        )
        shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], parts))
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(
            lambda sums, part: (jax.tree.map(jnp.add, sums, function(part)), None),
            nothing,
            parts,
        )
    if left:
        rest = function(_range(examples, times * size, n))
        total = jax.tree.map(jnp.add, total, rest)
    return total


def _range(examples: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[start:stop], examples)
