"""Work shared out over the devices of a mesh, along its first axis.

A batch lies in parts on the devices, and the compiler makes its means, the Kronecker
factors among them, of those of the parts. Factorisations are no means, be they
inverses, eigenvectors or roots: each is done by one device, in the order of their cost
by whichever has least to do, and given to all others as a sum in which theirs are zero.

Source: Osawa, Tsuji, Ueno, Naruse, Yokota and Matsuoka (2019), Large-scale distributed
second-order optimization using Kronecker-factored approximate curvature; Anil, Gupta,
Koren, Regan and Singer (2020), Scalable second order optimization for deep learning,
for the roots of Shampoo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ngvi.linalg import (
    KroneckerEigen,
    KroneckerFactors,
    Semidefinite,
    SemidefiniteDiagonal,
)


class Task(NamedTuple):
    """Something to compute."""

    function: Callable[..., Any]
    """To a pytree of arrays; it has no arrays but its arguments."""
    arguments: tuple[Any, ...]
    cost: float
    """In cubes of rows; what is zero is done by all, for less than it takes to send."""

    def done(self) -> Any:
        """Here and now."""
        return self.function(*self.arguments)


def shared_out(tasks: Sequence[Task], mesh: Mesh | None) -> list[Any]:
    """What each task makes, computed by one device; by all devices without a mesh."""
    large = [i for i, task in enumerate(tasks) if mesh is not None and task.cost]
    found = {i: task.done() for i, task in enumerate(tasks) if i not in large}
    if large:
        assert mesh is not None
        by_owners = _by_owners([tasks[i] for i in large], mesh)
        found |= dict(zip(large, by_owners, strict=True))
    return [found[i] for i in range(len(tasks))]


def _by_owners(tasks: list[Task], mesh: Mesh) -> list[Any]:
    axis = mesh.axis_names[0]
    owners = assigned([task.cost for task in tasks], mesh.devices.shape[0])

    def on_device(arguments: list[tuple[Any, ...]]) -> list[Any]:
        me = jax.lax.axis_index(axis)

        def one(task: Task, owner: int) -> Any:
            def nothing() -> Any:
                shapes = jax.eval_shape(task.done)
                return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            return jax.lax.psum(jax.lax.cond(me == owner, task.done, nothing), axis)

        mine = [t._replace(arguments=a) for t, a in zip(tasks, arguments, strict=True)]
        return [one(*pair) for pair in zip(mine, owners, strict=True)]

    everywhere = PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(everywhere,),
        out_specs=everywhere,
        check_vma=False,
    )([task.arguments for task in tasks])


def assigned(costs: Sequence[float], devices: int) -> list[int]:
    """The device of each of some tasks: the largest first, to who has least."""
    load, owners = [0.0] * devices, [0] * len(costs)
    for task in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[task] = load.index(min(load))
        load[owners[task]] += costs[task]
    return owners


def cost_of(block: Semidefinite) -> float:
    """Of a factorisation, in cubes of rows."""
    match block:
        case KroneckerFactors():
            return block.left.shape[-1] ** 3 + block.right.shape[-1] ** 3
        case KroneckerEigen() | SemidefiniteDiagonal():
            return 0
    return block.dim**3
