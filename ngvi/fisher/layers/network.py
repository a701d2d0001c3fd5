"""The layers of a model, found in its computation.

A layer's pre-activations are z_t = W̄ᵀ ā_t at its positions t (the places where it
shares its weights), with ā = (a, 1) where the layer has a bias, the last row of W̄. With
g_t = ∂output/∂z_t,

    ∂output/∂W̄ = Σ_t ā_t g_tᵀ.

`Network.run` evaluates one example with a shift added to every z and hands back every
ā, so that g is the derivative with respect to the shifts.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature, section 2; for convolutions Grosse and Martens (2016); for weight
sharing Eschenhagen et al. (2023), Kronecker-factored approximate curvature for modern
neural network architectures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ngvi.fisher.layers.find import find
from ngvi.fisher.layers.layer import Layer, inputs_of, layers_of
from ngvi.fisher.layers.run import evaluate
from ngvi.fisher.layers.table import table
from ngvi.fisher.layers.trace import Graph, trace
from ngvi.fisher.layers.views import Shape

Apply = Callable[[PyTree, PyTree], PyTree]
"""(params, x) ↦ outputs, the first axis of all leaves of x and of the outputs being
that of the examples."""


@dataclass(frozen=True)
class Network:
    """The layers of `apply` and the leaves that are in none of them.

    Args:
        apply: (params, x) ↦ outputs, for a batch.
        layers: in the order of their evaluation.
        rest: the leaves in no layer, numbered as in `jax.tree.leaves(params)`.
        reasons: why, for each of `rest`.
        names: of all leaves.
        shapes: of all leaves.
    """

    apply: Apply
    layers: tuple[Layer, ...]
    rest: tuple[int, ...]
    reasons: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Once, for every call of a compiled program asks for it.
        return hash((self.apply, self.layers, self.rest))

    def zero_shifts(self, params: PyTree) -> tuple[Array, ...]:
        """Shifts that change nothing, in the precision of the layers' parameters."""
        leaves = jax.tree.leaves(params)
        return tuple(
            jnp.zeros((layer.positions, layer.outputs), leaves[layer.leaves[0]].dtype)
            for layer in self.layers
        )

    def run(
        self, params: PyTree, x: PyTree, shifts: Sequence[Array]
    ) -> tuple[PyTree, tuple[Array, ...]]:
        """One example's outputs and the inputs ā of every layer.

        Args:
            params: the parameters.
            x: one example, without the batch axis.
            shifts: for every layer (positions, outputs), added to its z.

        Raises:
            ValueError: if the layers are no longer those that were discovered, because
                shapes have changed.
        """
        graph, structure = _trace(self.apply, params, x)
        found, _ = find(graph, self.shapes)
        if layers_of(found, self.names, self.shapes) != self.layers:
            raise ValueError(
                "the model has other layers at these parameters and inputs than those "
                "discovered: discover them anew for every shape of an example"
            )
        if len(shifts) != len(self.layers):
            raise ValueError(f"{len(shifts)} shifts for {len(self.layers)} layers")
        added = {}
        for layer, shift in zip(found, shifts, strict=True):
            start = 0
            for touch in layer.touches:
                added[touch] = shift[start : start + touch.positions]
                start += touch.positions
        arguments = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, x))]
        outputs, noted = evaluate(graph, arguments, added)
        inputs = tuple(
            inputs_of(layer, noted, arguments[layer.leaves[0]].dtype) for layer in found
        )
        return jax.tree.unflatten(structure, outputs), inputs

    def explain(self, structures: Sequence[str] = ()) -> str:
        """A table of the layers, and why other parameters are in none of them.

        Args:
            structures: what each layer, then each leaf of the rest got.
        """
        return table(self, structures)


def discover(apply: Apply, params: PyTree, x: PyTree) -> Network:
    """Find the layers of a model in the computation that it does for one example.

    Args:
        apply: (params, x) ↦ outputs, with a leading axis for the examples on every
            leaf of x and of the outputs.
        params: any tree of arrays, or their shapes.
        x: a batch of examples, or their shapes.

    Raises:
        ValueError: if a leaf of `params` is no array or a leaf of x or of the outputs
            has no axis for the examples.

    >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    >>> def apply(params, x):
    ...     return x @ params["kernel"] + params["bias"]
    >>> network = discover(apply, params, jnp.ones((5, 3)))
    >>> print(network.explain())
    layer   kind   parameters    shapes    W      positions
    kernel  dense  kernel, bias  3 × 2, 2  4 × 2  1
    >>> x, shifts = jnp.arange(3.0), network.zero_shifts(params)
    >>> outputs, (inputs,) = network.run(params, x, shifts)
    >>> print(inputs)
    [[0. 1. 2. 1.]]
    """
    params, x = _shapes(params, "params"), _shapes(x, "x")
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not leaf.shape:
            raise ValueError(
                f"x{jax.tree_util.keystr(path)} is a single number: the first axis of "
                "every leaf of x numbers the examples"
            )
    example = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x
    )
    graph, _ = _trace(apply, params, example)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = tuple(
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    )
    shapes = tuple(leaf.shape for _, leaf in leaves)
    found, reasons = find(graph, shapes)
    rest = tuple(sorted(reasons))
    return Network(
        apply=apply,
        layers=layers_of(found, names, shapes),
        rest=rest,
        reasons=tuple(reasons[leaf] for leaf in rest),
        names=names,
        shapes=shapes,
    )


def _trace(
    apply: Apply, params: PyTree, x: PyTree
) -> tuple[Graph, jax.tree_util.PyTreeDef]:
    """The graph of one example, from the leaves of the parameters and of x."""

    def one(params: PyTree, x: PyTree) -> PyTree:
        outputs = apply(params, jax.tree.map(lambda leaf: leaf[None], x))
        for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
            if jnp.shape(leaf)[:1] != (1,):
                raise ValueError(
                    f"apply returned outputs{jax.tree_util.keystr(path)} of shape "
                    f"{jnp.shape(leaf)} for one example: the first axis of every leaf "
                    "of the outputs must number the examples"
                )
        return jax.tree.map(lambda leaf: leaf[0], outputs)

    return trace(one, _shapes(params, "params"), _shapes(x, "x"))


def _shapes(tree: PyTree, name: str) -> PyTree:
    """The tree with shapes in place of arrays."""

    def shape(path: jax.tree_util.KeyPath, leaf: Any) -> jax.ShapeDtypeStruct:
        try:
            return jax.eval_shape(lambda leaf: leaf, leaf)
        except TypeError:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} is {leaf!r}, no array: keep what "
                "is not a number out of the tree, for instance in apply itself"
            ) from None

    return jax.tree_util.tree_map_with_path(shape, tree)
