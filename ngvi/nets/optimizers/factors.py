"""What Shampoo and SOAP keep of a tensor: Gram matrices, and what is made of them.

A tensor with gradient G has for each of its axes an average L_i of G_(i) G_(i)ᵀ, its
*statistic*, and of that a matrix which is computed only now and then: a root, or
eigenvectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ngvi.nets.optimizers.blocks import Blocked, Blocks, gram
from ngvi.nets.optimizers.devices import Task, shared_out
from ngvi.nets.optimizers.pieces import checked, wide


class Factors(NamedTuple):
    """Of one tensor, one array for each axis; none if it stays as it is."""

    statistics: tuple[Float[Array, "n b b"], ...]
    """L_i, of every block."""
    made: tuple[Float[Array, "n b b"], ...]
    """Of each, as last computed."""

    def seen(self, x: Blocked, old: Any, new: Any) -> Factors:
        """old L_i + new G_(i) G_(i)ᵀ, of another gradient."""
        statistics = tuple(
            (old * total + new * gram(x, axis)).astype(total.dtype)
            for axis, total in enumerate(self.statistics)
        )
        return self._replace(statistics=statistics)


@dataclass(frozen=True)
class Cutting:
    """Which tensors have factors, and in how large blocks.

    Args:
        block_size: an axis longer than this is cut.
        min_ndim: what has fewer axes has no factors.
        dtype: of what is made of the statistics; theirs by default.
    """

    block_size: int
    min_ndim: int
    dtype: Any

    def __post_init__(self) -> None:
        checked("block_size", self.block_size, 1)

    def blocks(self, leaf: Array) -> Blocks | None:
        """Of a tensor; None if it has no factors."""
        blocks = Blocks.of(leaf.shape, self.block_size)
        return blocks if blocks.order >= max(self.min_ndim, 1) else None

    def zeros(self, leaf: Array) -> Factors:
        """Before the first gradient."""
        blocks, dtype = self.blocks(leaf), wide(leaf).dtype
        sizes = () if blocks is None else blocks.sizes
        count = 0 if blocks is None else blocks.count
        statistics, made = (
            tuple(jnp.zeros((count, size, size), kind) for size in sizes)
            for kind in (dtype, self.dtype or dtype)
        )
        return Factors(statistics, made)


def shared_work(
    function: Callable[..., Any],
    factors: Sequence[Factors],
    mesh: Mesh | None,
    *arguments: Any,
) -> list[list[Any]]:
    """function(L_i, what was made of it, order of the tensor, *arguments) of all.

    Args:
        function: what is costly.
        factors: of some tensors.
        mesh: over whose devices they are shared out; None for one device.
        arguments: arrays, the same for all.
    """

    def task(order: int, total: Array, old: Array) -> Task:
        def of_axis(*given: Any) -> Any:
            return function(order, *given)

        count, size, _ = total.shape
        return Task(of_axis, (total, old, *arguments), count * size**3)

    tasks = [
        task(len(of_tensor.made), *pair)
        for of_tensor in factors
        for pair in zip(*of_tensor, strict=True)
    ]
    found = iter(shared_out(tasks, mesh))
    return [[next(found) for _ in of_tensor.made] for of_tensor in factors]
