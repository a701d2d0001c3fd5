"""Work shared out over the devices of a mesh, along its first axis.

A batch lies in parts on the devices, and the compiler makes its means, the Kronecker
factors among them, of those of the parts. The layers' factorisations are no means: each
is done by one device, in the order of their cost by whichever has least to do, and
given to all others as a sum in which theirs are zero.

Source: Osawa, Tsuji, Ueno, Naruse, Yokota and Matsuoka (2019), Large-scale distributed
second-order optimization using Kronecker-factored approximate curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ngvi.linalg import KroneckerEigen, KroneckerFactors, Semidefinite


def shared_out(
    function: Callable[..., Any],
    blocks: Sequence[Semidefinite],
    others: Sequence[Any],
    argument: Any,
    mesh: Mesh | None,
) -> tuple[Any, ...]:
    """function(block, other, argument) of every pair, each by one device.

    Args:
        function: to a pytree of floating arrays.
        blocks: of a curvature.
        others: one for each.
        argument: the same for all.
        mesh: over whose first axis they are shared out; None for one device.
    """
    if mesh is None:
        pairs = zip(blocks, others, strict=True)
        return tuple(function(*pair, argument) for pair in pairs)
    axis = mesh.axis_names[0]
    owners = assigned([_cost(block) for block in blocks], mesh.devices.shape[0])

    def on_device(blocks: Any, others: Any, argument: Any) -> tuple[Any, ...]:
        me = jax.lax.axis_index(axis)

        def one(block: Any, other: Any, owner: int) -> Any:
            def made() -> Any:
                return function(block, other, argument)

            def nothing() -> Any:
                shapes = jax.eval_shape(made)
                return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            return jax.lax.psum(jax.lax.cond(me == owner, made, nothing), axis)

        triples = zip(blocks, others, owners, strict=True)
        return tuple(one(*triple) for triple in triples)

    everywhere = PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere),
        out_specs=everywhere,
        check_vma=False,
    )(tuple(blocks), tuple(others), argument)


def assigned(costs: Sequence[float], devices: int) -> list[int]:
    """The device of each of some tasks: the largest first, to who has least."""
    load, owners = [0.0] * devices, [0] * len(costs)
    for task in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[task] = load.index(min(load))
        load[owners[task]] += costs[task]
    return owners


def _cost(block: Semidefinite) -> float:
    """Of a factorisation, in cubes of rows."""
    match block:
        case KroneckerFactors():
            return block.left.shape[-1] ** 3 + block.right.shape[-1] ** 3
        case KroneckerEigen():
            # Its eigenvectors are there.
            return block.dim
    return block.dim**3
