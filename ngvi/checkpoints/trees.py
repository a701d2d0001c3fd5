"""Pytrees as named arrays, as checkpoints hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ngvi.checkpoints.files import CheckpointError, checksum


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree, by their paths; keys as their data. What is shared out
    over processes goes to all of them."""
    whole = jax.tree.map(_whole, _without_keys(tree))
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(whole))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def from_arrays(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The pytree again.

    Args:
        arrays: from `to_arrays`.
        like: a pytree of the same structure, shapes and types; of arrays, or of what
            `jax.eval_shape` tells of them.

    Raises:
        CheckpointError: the arrays are not those of such a tree, as after an upgrade
            that keeps something else; the message names the first that is not.
    """
    plain = _without_keys(like)
    leaves, structure = jax.tree_util.tree_flatten_with_path(plain)
    found = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        wanted = jnp.shape(leaf), jnp.result_type(leaf)
        stored = arrays.get(name)
        if stored is None or (stored.shape, stored.dtype) != wanted:
            has = "nothing" if stored is None else f"{stored.dtype} {stored.shape}"
            raise CheckpointError(
                f"The checkpoint has {has} for {name}, where {wanted[1]} {wanted[0]} "
                "is needed: it was written by another version, or for another size."
            )
        found.append(jnp.asarray(stored))
    plain = jax.tree.unflatten(structure, found)
    return jax.tree.map(
        lambda leaf, value: (
            jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
            if _is_key(leaf)
            else value
        ),
        like,
        plain,
    )


def digest(tree: Any) -> str:
    """A SHA-256 of the numbers in a pytree, their shapes and types; of arrays that span
    processes the shapes and types only."""
    seen = jax.tree.map(lambda x: x if _is_here(x) else (x.shape, str(x.dtype)), tree)
    leaves = jax.tree.leaves(seen)
    words = [leaf for leaf in leaves if isinstance(leaf, str)]
    numbers = [leaf for leaf in leaves if not isinstance(leaf, str)]
    return checksum(to_arrays(numbers), {"types": words})


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _is_here(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _whole(leaf: Any) -> Any:
    if _is_here(leaf) or leaf.is_fully_replicated:
        return leaf
    everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    return jax.jit(lambda x: x, out_shardings=everywhere)(leaf)


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
