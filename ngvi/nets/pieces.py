"""The work of a step in pieces: parts of a batch in turn, draws on several devices.

Neither changes the estimates but in rounding: a mean over a batch is the mean over its
equal parts, and the draws of the weights do not know of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import Batch, count
from ngvi.meshes import in_parts

Means = TypeVar("Means")
Result = TypeVar("Result")


def over_parts(
    function: Callable[[Batch], tuple[Means, Any]], batch: Batch, parts: int
) -> tuple[Means, Any]:
    """Means over a batch, in the memory of a part; and what there is of each example.

    Args:
        function: of a part: means over it, and a pytree with the examples first.
        batch: B examples.
        parts: how many, one after the other.

    Raises:
        ValueError: B is no multiple of their number.
    """
    if parts == 1:
        return function(batch)
    n = count(batch)
    if n % parts:
        raise ValueError(
            f"accumulate={parts} takes a batch in as many equal parts, but it has {n} "
            "examples: choose a batch size that is a multiple of it"
        )
    cut = jax.tree.map(
        lambda leaf: leaf.reshape(parts, n // parts, *leaf.shape[1:]), batch
    )
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], cut))
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(sums: Means, part: Batch) -> tuple[Means, Any]:
        means, each = function(part)
        return jax.tree.map(jnp.add, sums, means), each

    sums, each = jax.lax.scan(add, nothing, cut)
    means = jax.tree.map(lambda leaf: leaf / parts, sums)
    return means, jax.tree.map(lambda leaf: leaf.reshape(n, *leaf.shape[2:]), each)


def over_draws(
    function: Callable[[Float[Array, "p"], Key[Array, ""]], Result],
    ws: Float[Array, "s p"],
    keys: Key[Array, "s"],
    mesh: Mesh | None,
) -> Result:
    """The function of every draw, along a first axis.

    Args:
        function: of weights and a key.
        ws, keys: of s draws.
        mesh: over whose first axis they are shared out; None for one device.
    """
    # The compiler shares out all that is computed of each; what it computes is the
    # same. (In `shard_map` a gradient inside could be summed over the devices.)
    return jax.vmap(function)(*in_parts((ws, keys), mesh))
