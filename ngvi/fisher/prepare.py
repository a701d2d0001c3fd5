"""What a user gave, checked once, as a `Problem`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.parameters import is_concrete
from ngvi.fisher.batches import Batch, count
from ngvi.fisher.kinds import Kind
from ngvi.fisher.layers import Network, discover
from ngvi.fisher.layers.find import UNUSED
from ngvi.fisher.likelihoods import as_likelihood
from ngvi.fisher.problem import Apply, Problem


def as_key(key: Key[Array, ""] | int) -> Key[Array, ""]:
    """A key as it is, or that of a seed."""
    return jax.random.key(key) if isinstance(key, int) else key


def prepare(
    apply: Apply,
    params: Any,
    data: Any,
    likelihood: Any,
    kind: Kind,
    key: Key[Array, ""] | int,
    batch_size: int | None,
) -> Problem:
    """Everything checked, once, at the surface."""
    params = _arrays(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must be floating numbers, got "
                f"{leaf.dtype}: keep it in apply, or in x"
            )
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    x, y = _arrays(x), _arrays(y)
    n = _number(x)
    if kind.needs_labels and y is None:
        raise ValueError(
            f"{type(kind).__name__} needs labels: data must be (x, y), got x alone"
        )
    used = as_likelihood(likelihood)
    network, outputs = _traced_once(apply, _signature(params), _signature(x))
    used.check_outputs(outputs)
    if y is not None and is_concrete(*jax.tree.leaves(y)):
        used.check_labels(outputs, y)
    _check_used(network)
    keys = jax.random.split(as_key(key), n) if kind.needs_key else None
    batch = Batch(x, y if kind.needs_labels else None, keys)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size is None and _is_spread(batch):
        batch_size = n
    return Problem(used, params, batch, apply, kind, network, batch_size)


def _is_spread(batch: Batch) -> bool:
    """Whether the examples lie on several devices: cut apart, they would be moved."""
    leaves = [leaf for leaf in jax.tree.leaves(batch) if is_concrete(leaf)]
    return any(len(leaf.sharding.device_set) > 1 for leaf in leaves)


def _arrays(tree: Any) -> Any:
    """The tree with arrays for leaves; `asarray` takes its time even of an array."""

    def array(leaf: Any) -> Array:
        return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)

    return jax.tree.map(array, tree)


def _number(x: Any) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(x)
    if not leaves:
        raise ValueError("x has no arrays: nothing says how many examples there are")
    for path, leaf in leaves:
        if jnp.ndim(leaf) == 0 or len(leaf) != len(leaves[0][1]):
            raise ValueError(
                "the first axis of every leaf of x numbers the examples: x"
                f"{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, the first "
                f"leaf {jnp.shape(leaves[0][1])}"
            )
    n = count(x)
    if n == 0:
        raise ValueError("there are no examples (N = 0)")
    return n


def _check_outputs(outputs: Any, n: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
        if leaf.shape[:1] != (n,):
            raise ValueError(
                f"the outputs of apply need the {n} examples along their first axis, "
                f"got shape {leaf.shape} at outputs{jax.tree_util.keystr(path)}"
            )


def _check_used(network: Network) -> None:
    unused = [
        network.names[leaf]
        for leaf, reason in zip(network.rest, network.reasons, strict=True)
        if reason == UNUSED
    ]
    if unused:
        raise ValueError(
            f"the outputs do not depend on the parameters {', '.join(unused)}: their "
            "curvature is zero; leave them out of params"
        )


Signature = tuple[Any, tuple[tuple[tuple[int, ...], Any], ...]]


def _signature(tree: Any) -> Signature:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


@lru_cache(maxsize=128)
def _traced_once(apply: Apply, params: Signature, x: Signature) -> tuple[Network, Any]:
    """The layers, and the shapes of the outputs, with the examples first."""
    of_params, of_x = (
        jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
        for treedef, leaves in (params, x)
    )
    outputs = jax.eval_shape(apply, of_params, of_x)
    _check_outputs(outputs, count(of_x))
    return discover(apply, of_params, of_x), outputs
