"""The Jacobians of the outputs, example by example, in the form layers have them in.

Column r of an example's output curvature, over √N and sent back through the model, is
one row of a tall matrix X with F = Xᵀ S X, S the signs of the columns. Of the
parameters W̄ of a dense layer that is used once, a row is the product of the layer's
input and of the gradient at its output, vec(ā gᵀ): `Factored` keeps it so, and no row
is formed. All others are `Rows`.

Of two factored parts

    Xᵀ S X′ = Σ_n (ā ā′ᵀ) ⊗ (Σ_r s_r g_r g′_rᵀ),

one matrix product of pairs with pairs, whatever the number of outputs; and where the
two are the same, both sides are symmetric and each pair is needed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.fisher.batches import Batch
from ngvi.fisher.layers import Layer
from ngvi.fisher.problem import Problem

Signs = Float[Array, "n r"] | None


class Backpropagated(NamedTuple):
    """Of the examples of a batch."""

    inputs: tuple[Array, ...]
    """ā of every layer, (n, positions, …), as `Layer` has it."""
    gradients: tuple[Float[Array, "n r positions outputs"], ...]
    """g of every layer, one for each column of the output curvature, over √N."""
    rest: tuple[Float[Array, "n r p"], ...]
    """∂f/∂θ of the other leaves, likewise."""
    signs: Signs
    """s; all 1 if None."""
    outputs: Any
    """f."""


def backpropagate(problem: Problem, batch: Batch) -> Backpropagated:
    """All columns of the output curvature sent back to the layers of the model."""
    network = problem.network
    leaves, treedef = jax.tree.flatten(problem.params)
    shifts = network.zero_shifts(problem.params)

    def one(example: Batch) -> Backpropagated:
        def outputs(rest: list[Array], shifts: tuple[Array, ...]) -> tuple[Any, Any]:
            moved = list(leaves)
            for i, leaf in zip(network.rest, rest, strict=True):
                moved[i] = leaf
            tree = jax.tree.unflatten(treedef, moved)
            return network.run(tree, example.x, shifts)

        rest = [leaves[i] for i in network.rest]
        f, pull_back, inputs = jax.vjp(outputs, rest, shifts, has_aux=True)
        columns, signs = problem.kind.columns(problem.likelihood, f, example)
        # Here, because outputs are fewer than parameters.
        columns = jax.tree.map(lambda c: c * problem.count**-0.5, columns)
        of_rest, of_shifts = jax.vmap(pull_back)(columns)
        rows = tuple(g.reshape(len(g), -1) for g in of_rest)
        return Backpropagated(inputs, of_shifts, rows, signs, f)

    return jax.vmap(one)(batch)


@dataclass(frozen=True)
class Factored:
    """X of rows vec(a gᵀ)."""

    a: Float[Array, "n i"]
    g: Float[Array, "n r o"]

    def rows(self) -> Float[Array, "n r io"]:
        """X, formed."""
        whole = self.a[:, None, :, None] * self.g[:, :, None, :]
        return whole.reshape(*self.g.shape[:2], -1)

    def squares(self, signs: Signs) -> Float[Array, "io"]:
        """The diagonal of Xᵀ S X."""
        return (self.a**2).T.dot(signed(self.g**2, signs).sum(1)).reshape(-1)


@dataclass(frozen=True)
class Rows:
    """X itself."""

    x: Float[Array, "n r p"]

    def rows(self) -> Float[Array, "n r p"]:
        return self.x

    def squares(self, signs: Signs) -> Float[Array, "p"]:
        """The diagonal of Xᵀ S X."""
        return signed(self.x**2, signs).sum((0, 1))


Part = Factored | Rows


def parts(problem: Problem, sent_back: Backpropagated) -> list[Part]:
    """X, cut in the order of `Layout`: one part a layer, one a leaf of the rest."""
    of_layers = [_of_layer(*layer) for layer in by_layer(problem, sent_back)]
    return [*of_layers, *map(Rows, sent_back.rest)]


def by_layer(
    problem: Problem, sent_back: Backpropagated
) -> Iterator[tuple[Layer, Array, Float[Array, "n r t o"]]]:
    """Each layer with its inputs and its gradients."""
    found = sent_back.inputs, sent_back.gradients
    return zip(problem.network.layers, *found, strict=True)


def _of_layer(layer: Layer, inputs: Array, g: Float[Array, "n r t o"]) -> Part:
    if is_factored(layer):
        return Factored(inputs[:, 0], g[:, :, 0])
    return Rows(layer_rows(layer, inputs, g))


def is_factored(layer: Layer) -> bool:
    """Whether an example's gradients are products, vec(ā gᵀ)."""
    return layer.positions == 1 and layer.kind in ("dense", "convolution")


def layer_rows(
    layer: Layer, inputs: Array, g: Float[Array, "n r t o"]
) -> Float[Array, "n r io"]:
    """Rows vec(Σ_t ā_t g_tᵀ)."""
    of_columns = jax.vmap(layer.gradient, (None, 0))
    matrices = jax.vmap(of_columns)(inputs, g)
    return matrices.reshape(*matrices.shape[:2], -1)


def signed(x: Float[Array, "n r *_"], signs: Signs) -> Array:
    if signs is None:
        return x
    return x * signs.reshape(*signs.shape, *[1] * (x.ndim - 2))


# -- products of two parts -------------------------------------------------------------


def square(part: Part, signs: Signs) -> Array:
    """What `expand_square` makes Xᵀ S X of; a sum over examples."""
    if isinstance(part, Rows):
        flat = part.x.reshape(-1, part.x.shape[-1])
        return signed(part.x, signs).reshape(flat.shape).T @ flat
    outer = jnp.einsum("nrk,nrl->nkl", signed(part.g, signs), part.g)
    i, j = np.triu_indices(part.a.shape[1])
    k, m = np.triu_indices(part.g.shape[2])
    return (part.a[:, i] * part.a[:, j]).T @ outer[:, k, m]


def cross(left: Part, right: Part, signs: Signs) -> Array:
    """What `expand_cross` makes Xᵀ S X′ of; a sum over examples."""
    if isinstance(left, Factored) and isinstance(right, Factored):
        outer = jnp.einsum("nrk,nrl->nkl", signed(left.g, signs), right.g)
        inputs = jnp.einsum("ni,nj->nij", left.a, right.a)
        n = len(inputs)
        return inputs.reshape(n, -1).T @ outer.reshape(n, -1)
    x, y = signed(left.rows(), signs), right.rows()
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])


def expand_square(sums: Array, layer: Layer | None) -> Float[Array, "p p"]:
    """Xᵀ S X of a layer, or of a leaf of the rest (None)."""
    if layer is None or not is_factored(layer):
        return sums
    d, o = layer.inputs, layer.outputs
    pairs, of_outputs = _pairs(d), _pairs(o)
    # Rows last: then the largest copy is of whole rows, and the only one of its size.
    whole = sums[:, of_outputs.reshape(-1)].reshape(-1, o, o).transpose(1, 0, 2)
    whole = whole[:, pairs.reshape(-1)].reshape(o, d, d, o)
    return whole.transpose(1, 0, 2, 3).reshape(d * o, d * o)


def expand_cross(
    sums: Array, left: Layer | None, right: Layer | None
) -> Float[Array, "p q"]:
    """Xᵀ S X′ of two layers, or leaves of the rest (None)."""
    layers = (left, right)
    if any(layer is None or not is_factored(layer) for layer in layers):
        return sums
    assert left is not None and right is not None
    shape = left.inputs, right.inputs, left.outputs, right.outputs
    whole = sums.reshape(shape).transpose(0, 2, 1, 3)
    return whole.reshape(left.inputs * left.outputs, -1)


def _pairs(dim: int) -> np.ndarray:
    """Where in the list of pairs i ≤ j each pair (i, j) is."""
    i, j = np.triu_indices(dim)
    where = np.zeros((dim, dim), int)
    where[i, j] = where[j, i] = np.arange(len(i))
    return where
