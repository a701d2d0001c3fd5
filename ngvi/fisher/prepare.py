"""What a user gave, checked once, as a `Problem`."""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.parameters import is_concrete
from ngvi.fisher.batches import Batch, count
from ngvi.fisher.kinds import Kind
from ngvi.fisher.layers import Network, discover
from ngvi.fisher.layers.find import UNUSED
from ngvi.fisher.likelihoods import Likelihood, as_likelihood
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
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    params, of_params = _arrays(params)
    x, of_x = _arrays(x)
    y, _ = _arrays(y)
    used = as_likelihood(likelihood)
    network, outputs, n = _traced_once(apply, of_params, of_x)
    used.check_outputs(outputs)
    if y is not None:
        _check_labels(likelihood, used, outputs, y)
    elif kind.needs_labels:
        raise ValueError(
            f"{type(kind).__name__} needs labels: data must be (x, y), got x alone"
        )
    keys = jax.random.split(as_key(key), n) if kind.needs_key else None
    batch = Batch(x, y if kind.needs_labels else None, keys)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size is None and _is_spread(batch):
        batch_size = n
    return Problem(used, params, batch, apply, kind, network, batch_size)


def _is_spread(batch: Batch) -> bool:
    """Whether the examples lie on several devices: cut apart, they would be moved."""
    leaves = jax.tree.leaves(batch.x)
    known = [leaf for leaf in leaves if not isinstance(leaf, jax.core.Tracer)]
    return any(leaf.sharding.num_devices > 1 for leaf in known)


Signature = tuple[Any, tuple[tuple[tuple[int, ...], Any], ...]]


def _arrays(tree: Any) -> tuple[Any, Signature]:
    """The tree with arrays for leaves, and what a program would be compiled for."""
    leaves, treedef = jax.tree.flatten(tree)
    if not all(isinstance(leaf, jax.Array) for leaf in leaves):
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        tree = jax.tree.unflatten(treedef, leaves)
    return tree, (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))


# -- the labels ------------------------------------------------------------------------


class _Passed(NamedTuple):
    """Labels that have been looked at, and what they were held to."""

    labels: weakref.ref[Array]
    spec: Any
    outputs: Any

    def held_to(self, spec: Any, outputs: Any) -> bool:
        return self.spec is spec and self.outputs is outputs


_PASSED: dict[int, _Passed] = {}
"""By the address of an array of labels, as long as there is one."""


def _check_labels(spec: Any, likelihood: Likelihood, outputs: Any, y: Any) -> None:
    """Hold labels to a likelihood and outputs: an array once, for nothing changes it.

    To look at labels is to wait for them, and to copy them from another device.
    """
    if not is_concrete(*jax.tree.leaves(y)):
        return
    address = id(y)
    before = _PASSED.get(address)
    if before is not None and before.labels() is y and before.held_to(spec, outputs):
        return
    likelihood.check_labels(outputs, y)
    if isinstance(y, jax.Array):
        labels = weakref.ref(y, lambda _: _PASSED.pop(address, None))
        _PASSED[address] = _Passed(labels, spec, outputs)


# -- what follows from shapes alone ----------------------------------------------------


@lru_cache(maxsize=128)
def _traced_once(
    apply: Apply, params: Signature, x: Signature
) -> tuple[Network, Any, int]:
    """The layers, the shapes of the outputs, with the examples first, and N."""
    of_params, of_x = (
        jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
        for treedef, leaves in (params, x)
    )
    _check_params(of_params)
    n = _number(of_x)
    outputs = jax.eval_shape(apply, of_params, of_x)
    _check_outputs(outputs, n)
    network = discover(apply, of_params, of_x)
    _check_used(network)
    return network, outputs, n


def _check_params(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must be floating numbers, got "
                f"{leaf.dtype}: keep it in apply, or in x"
            )


def _number(x: Any) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(x)
    if not leaves:
        raise ValueError("x has no arrays: nothing says how many examples there are")
    for path, leaf in leaves:
        if not leaf.shape or leaf.shape[:1] != leaves[0][1].shape[:1]:
            raise ValueError(
                "the first axis of every leaf of x numbers the examples: x"
                f"{jax.tree_util.keystr(path)} has shape {leaf.shape}, the first leaf "
                f"{leaves[0][1].shape}"
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
