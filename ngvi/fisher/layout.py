"""Parameters as one vector, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.fisher.layers import Layer, Network
from ngvi.linalg import PositiveDefinite, Reordered
from ngvi.linalg.batching import join, over_leading_axes, split

Vectors = Any
"""A pytree like the parameters, or an array of length P in the order of
`jax.flatten_util.ravel_pytree`; with any leading axes."""


@dataclass(frozen=True)
class Layout:
    """The order of a curvature's rows: the layers' W̄, row by row, then all else.

    Two other forms are taken and given by a `Curvature`: pytrees like the parameters,
    and flat vectors in the order of `jax.flatten_util.ravel_pytree`. Any of them may
    have leading axes.

    Args:
        treedef: of the parameters.
        shapes: of their leaves.
        layers: whose parameters come first.
        rest: the indices of the other leaves.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    layers: tuple[Layer, ...]
    rest: tuple[int, ...]

    @classmethod
    def of(cls, params: Any, network: Network | None = None) -> Layout:
        """That of these parameters; without a network, the order of `ravel_pytree`."""
        leaves, treedef = jax.tree.flatten(params)
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        if network is None:
            return cls(treedef, shapes, (), tuple(range(len(leaves))))
        return cls(treedef, shapes, network.layers, network.rest)

    @property
    def dim(self) -> int:
        """P, the number of parameters."""
        return sum(self.leaf_sizes)

    @property
    def leaf_sizes(self) -> tuple[int, ...]:
        """The number of parameters of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of parameters of each layer, and of each leaf of the rest."""
        layers = [layer.inputs * layer.outputs for layer in self.layers]
        return (*layers, *(self.leaf_sizes[i] for i in self.rest))

    # -- pytrees -----------------------------------------------------------------------

    def vector(self, tree: Any) -> Float[Array, "*b p"]:
        """The vector of a pytree like the parameters.

        Raises:
            ValueError: another structure, or other shapes.
        """
        leaves, treedef = jax.tree.flatten(tree)
        if treedef != self.treedef:
            raise ValueError(
                f"expected a pytree like the parameters, {self.treedef}, got {treedef}"
            )
        return over_leading_axes(self._vector, self._leading(leaves))(leaves)

    def _vector(self, leaves: list[Array]) -> Float[Array, "p"]:
        return join(self._parts(leaves))

    def _parts(self, leaves: list[Array]) -> list[Array]:
        matrices = [
            layer.matrix([leaves[i] for i in layer.leaves]) for layer in self.layers
        ]
        parts = [*matrices, *(leaves[i] for i in self.rest)]
        return [part.reshape(-1) for part in parts]

    def tree(self, vector: Float[Array, "*b p"]) -> Any:
        """The inverse of `vector`."""
        leaves = over_leading_axes(self._leaves, vector.ndim - 1)(vector)
        return jax.tree.unflatten(self.treedef, leaves)

    def _leaves(self, vector: Float[Array, "p"]) -> list[Array]:
        return self._leaves_of(split(vector, self.sizes))

    def _leaves_of(self, parts: list[Array]) -> list[Array]:
        leaves: dict[int, Array] = {}
        for layer, part in zip(self.layers, parts, strict=False):
            matrix = part.reshape(layer.inputs, layer.outputs)
            leaves |= zip(layer.leaves, layer.leaves_of(matrix), strict=True)
        for i, part in zip(self.rest, parts[len(self.layers) :], strict=True):
            leaves[i] = part.reshape(self.shapes[i])
        return [leaves[i] for i in range(len(self.shapes))]

    def parts(self, tree: Any) -> list[Float[Array, "_"]]:
        """The vector of a pytree like the parameters, in parts of `sizes`."""
        return self._parts(jax.tree.leaves(tree))

    def tree_of(self, parts: list[Float[Array, "_"]]) -> Any:
        """The inverse of `parts`."""
        return jax.tree.unflatten(self.treedef, self._leaves_of(parts))

    def _leading(self, leaves: list[Any]) -> int:
        """How many leading axes the leaves have."""
        count = jnp.ndim(leaves[0]) - len(self.shapes[0])
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if jnp.shape(leaf)[count:] != shape:
                raise ValueError(
                    f"expected leaves of the parameters' shapes, {self.shapes}, after "
                    f"any leading axes, got {[jnp.shape(leaf) for leaf in leaves]}"
                )
        return count

    # -- vectors in either form --------------------------------------------------------

    def is_flat(self, v: Vectors) -> bool:
        """Whether it is an array of length P, and no pytree.

        A single parameter with axes of its own is taken for a pytree.
        """
        if not isinstance(v, jax.Array | np.ndarray):
            return False
        shape = self.shapes[0]
        is_leaf = jax.tree_util.treedef_is_leaf(self.treedef) and len(shape) != 1
        return not (is_leaf and v.shape[v.ndim - len(shape) :] == shape)

    def from_any(self, v: Vectors) -> Float[Array, "*b p"]:
        """The vector of either form.

        Raises:
            ValueError: another length, structure or shape.
        """
        if not self.is_flat(v):
            return self.vector(v)
        if v.shape[-1:] != (self.dim,):
            raise ValueError(
                f"expected a vector of {self.dim} parameters, or a pytree like the "
                f"parameters, got an array of shape {v.shape}"
            )
        return self.from_flat(jnp.asarray(v))

    # -- flat vectors ------------------------------------------------------------------

    def from_flat(self, flat: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """The vector of one in the order of `ravel_pytree`."""
        if not self.layers:
            return flat
        return over_leading_axes(self._from_flat, flat.ndim - 1)(flat)

    def _from_flat(self, flat: Float[Array, "p"]) -> Float[Array, "p"]:
        parts = zip(split(flat, self.leaf_sizes), self.shapes, strict=True)
        return self._vector([part.reshape(shape) for part, shape in parts])

    def to_flat(self, vector: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """The inverse of `from_flat`."""
        if not self.layers:
            return vector
        return over_leading_axes(self._to_flat, vector.ndim - 1)(vector)

    def _to_flat(self, vector: Float[Array, "p"]) -> Float[Array, "p"]:
        return join([leaf.reshape(-1) for leaf in self._leaves(vector)])


def in_flat_order(layout: Layout, matrix: PositiveDefinite) -> PositiveDefinite:
    """A matrix in the order of a layout, as one in the order of `ravel_pytree`."""
    if not layout.layers:
        return matrix
    numbers = jnp.arange(layout.dim)
    return Reordered(matrix, layout.from_flat(numbers), layout.to_flat(numbers))
