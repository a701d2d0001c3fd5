"""One layer: its weights as one matrix W̄, and the gradient of that matrix.

With a the layer's inputs at position t, ā = (a, 1) where there is a bias (the last row
of W̄), and g the cotangents of its pre-activations z_t = W̄ᵀ ā_t,

    ∂/∂W̄ = Σ_t ā_t g_tᵀ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.fisher.layers.find import Found, Touch
from ngvi.fisher.layers.views import Move, Shape, View, do, undo


@dataclass(frozen=True)
class Layer:
    """One layer of a model.

    What `Network.run` hands back as its inputs depends on the kind:

    - "dense", "convolution": ā_t, (positions, inputs), the homogeneous 1 last;
    - "embedding": the rows that are looked up, (positions,), whole numbers; `inputs`
      stands for a place outside the table (`one_hot` and `gradient` take care of it);
    - "scale_shift", z_t = w ∘ a_t + b: every output has inputs of its own, the vector
      (a_to, 1), and the array is (positions, inputs, outputs) with inputs = 2, or 1 for
      a layer that only scales or only shifts.

    Args:
        name: where its parameters are in the tree.
        kind: as above.
        leaves: its parameters, numbered as in `jax.tree.leaves(params)`: the kernel (or
            scale), then the bias (or shift).
        has_kernel: whether the first leaf is a kernel.
        has_bias: whether the last leaf is a bias.
        inputs: the rows of W̄, with the bias.
        outputs: the columns of W̄.
        positions: how often an example uses W̄.
        moves: for each leaf, from it to its rows of W̄.
        shapes: of the leaves.
    """

    name: str
    kind: str
    leaves: tuple[int, ...]
    has_kernel: bool
    has_bias: bool
    inputs: int
    outputs: int
    positions: int
    moves: tuple[tuple[Move, ...], ...]
    shapes: tuple[Shape, ...]

    def matrix(self, leaves: Sequence[Array]) -> Float[Array, "inputs outputs"]:
        """W̄ from this layer's leaves (those numbered `self.leaves`)."""
        pairs = zip(self.moves, leaves, strict=True)
        return jnp.concatenate([do(moves, jnp.asarray(leaf)) for moves, leaf in pairs])

    def leaves_of(self, matrix: Float[Array, "inputs outputs"]) -> tuple[Array, ...]:
        """This layer's leaves from W̄; the inverse of `matrix`."""
        parts = [matrix] if len(self.leaves) == 1 else [matrix[:-1], matrix[-1:]]
        pairs = zip(self.moves, parts, strict=True)
        return tuple(undo(moves, part) for moves, part in pairs)

    def gradient(
        self, inputs: Array, cotangents: Float[Array, "positions outputs"]
    ) -> Float[Array, "inputs outputs"]:
        """Σ_t ā_t g_tᵀ of one example."""
        if self.kind == "embedding":
            zeros = jnp.zeros((self.inputs, self.outputs), cotangents.dtype)
            return zeros.at[inputs].add(cotangents, mode="drop")
        if self.kind == "scale_shift":
            return jnp.einsum("tio,to->io", inputs, cotangents)
        return inputs.T @ cotangents

    def one_hot(
        self, inputs: Array, dtype: Any = None
    ) -> Float[Array, "positions inputs"]:
        """ā_t as rows; those of an embedding have a single 1, of the given dtype."""
        if self.kind == "scale_shift":
            raise ValueError(
                f"layer {self.name!r} scales and shifts: every output has inputs of "
                "its own, so that there is no one row a position"
            )
        if self.kind == "embedding":
            return jax.nn.one_hot(inputs, self.inputs, dtype=dtype)
        return inputs


def layers_of(
    found: Sequence[Found], names: Sequence[str], shapes: Sequence[Shape]
) -> tuple[Layer, ...]:
    """What was found, under the names of the leaves."""
    sizes = Counter(branch for name in names for branch in _branches(name))
    layers = []
    for layer in found:
        use = layer.touches[0].use
        has_bias = layer.bias is not None
        mine = tuple(shapes[leaf] for leaf in layer.leaves)
        bias = View(layer.leaves[-1], mine[-1], mine[-1])
        layers.append(
            Layer(
                name=_name(layer.leaves, names, sizes),
                kind="scale_shift" if use.kind == "shift" else use.kind,
                leaves=layer.leaves,
                has_kernel=layer.kernel is not None,
                has_bias=has_bias,
                inputs=use.rows + has_bias,
                outputs=use.outputs,
                positions=sum(touch.positions for touch in layer.touches),
                moves=(use.moves, bias.as_row())[: len(mine)],
                shapes=mine,
            )
        )
    return tuple(layers)


def _name(leaves: Sequence[int], names: Sequence[str], sizes: Mapping[str, int]) -> str:
    """The highest branch of the tree that holds these leaves and no other."""
    shared = set.intersection(*(set(_branches(names[leaf])) for leaf in leaves))
    alone = [branch for branch in shared if sizes[branch] == len(leaves)]
    return min(alone, key=len, default=names[leaves[0]])


def _branches(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def inputs_of(layer: Found, noted: Mapping[Touch, Array], dtype: Any) -> Array:
    """ā at all positions, as `Layer` says, from what the layer's uses were given."""
    parts = [_inputs(layer, touch, noted[touch], dtype) for touch in layer.touches]
    return jnp.concatenate(parts)


def _inputs(layer: Found, touch: Touch, rows: Array, dtype: Any) -> Array:
    use = touch.use
    if use.kind == "embedding":
        return rows
    rows = rows.astype(dtype)
    if use.kind in ("scale_shift", "shift"):
        rows = rows[:, None]
    parts = [] if layer.kernel is None else [rows * use.factor]
    if layer.bias is not None:
        # A bias that is multiplied by a number on its way has that for its 1.
        one = use.factor if touch.bias is None else touch.bias[2]
        parts.append(jnp.full((len(rows), 1, *rows.shape[2:]), one, dtype))
    return jnp.concatenate(parts, axis=1)
