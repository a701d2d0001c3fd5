"""An equation that is a layer in one parameter, and where its entries belong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.fisher.layers.trace import Atom
from ngvi.fisher.layers.views import Move, Shape

Read = Callable[[Atom], Array]
Arrangement = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, eq=False)
class Use:
    """An equation that is a layer in the parameter at `leaf`.

    Args:
        kind: the layer's kind; "shift" for a parameter that is only added.
        moves: from the leaf to the matrix (rows, outputs).
        factor: of the parameter before it meets the inputs.
        axes: those of z that are positions and those that are outputs.
        rows_of: the (positions, rows) of inputs a_t from what the graph's values are;
            (positions, outputs) of a scale; row numbers, (positions,), of an embedding.
    """

    kind: str
    leaf: int
    moves: tuple[Move, ...]
    factor: float
    rows: int
    outputs: int
    shape: Shape
    axes: Arrangement
    rows_of: Callable[[Read], Array]

    @property
    def positions(self) -> int:
        return math.prod(self.shape[axis] for axis in self.axes[0])

    def spread(self, matrix: Float[Array, "positions outputs"]) -> Array:
        """The array in the layout of z."""
        order = [*self.axes[0], *self.axes[1]]
        apart = matrix.reshape([self.shape[axis] for axis in order])
        return apart.transpose(np.argsort(order).tolist())

    def gather(self, z: Array) -> Float[Array, "positions outputs"]:
        """The inverse of `spread`."""
        order = (*self.axes[0], *self.axes[1])
        whole = jnp.broadcast_to(z, self.shape).transpose(order)
        return whole.reshape(self.positions, self.outputs)

    def later(
        self,
        shape: Shape,
        along: Sequence[int],
        change: Callable[[Array, Read], Array],
    ) -> Use:
        """The use seen from an equation further on, which changes its inputs.

        Args:
            shape: of that equation's z.
            along: which of its axes the axes of this z are.
            change: what it makes of the inputs in the layout of this z.
        """
        outputs = tuple(along[axis] for axis in self.axes[1])
        axes = (others(len(shape), outputs), outputs)

        def rows_of(read: Read) -> Float[Array, "positions outputs"]:
            return use.gather(change(self.spread(self.rows_of(read)), read))

        use = replace(self, shape=shape, axes=axes, rows_of=rows_of)
        return use

    def columns(self) -> np.ndarray:
        """The number of the output that each entry of z belongs to, in z's layout."""
        sizes = [self.shape[axis] for axis in self.axes[1]]
        numbers = np.arange(self.outputs).reshape(sizes)
        order = [*self.axes[0], *self.axes[1]]
        whole = np.broadcast_to(numbers, [self.shape[axis] for axis in order])
        return whole.transpose(np.argsort(order).tolist())


def without_repeats(array: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The entries, flat, along the axes on which the array changes, and those axes."""
    axes = []
    for axis, (size, stride) in enumerate(zip(array.shape, array.strides, strict=True)):
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        # What NumPy repeats has stride zero; what was copied must be compared.
        if size > 1 and stride != 0 and not (array == first).all():
            axes.append(axis)
        else:
            array = first
    return array.reshape(-1), tuple(axes)


def others(rank: int, *taken: Sequence[int]) -> tuple[int, ...]:
    """The axes of an array of this rank that are in none of the groups."""
    gone = {axis for axes in taken for axis in axes}
    return tuple(axis for axis in range(rank) if axis not in gone)
