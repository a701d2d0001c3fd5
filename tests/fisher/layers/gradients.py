"""The one test every model must pass: its layers' gradients are the model's."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ngvi.fisher.layers import Network, discover
from tests.programs import compiled


def loss(outputs: PyTree) -> Array:
    """A function of the outputs, of one example or summed over a batch."""
    return sum(jnp.sum(jnp.sin(3.0 * leaf)) for leaf in jax.tree.leaves(outputs))


def check(
    apply: Callable, params: PyTree, x: PyTree, tolerance: float = 1e-12
) -> Network:
    """The layers found, after Σ_t ā_t g_tᵀ was compared with `jax.grad`."""
    network = discover(apply, params, x)

    def values(params: PyTree, x: PyTree) -> tuple:
        def one(x: PyTree) -> tuple:
            def run(shifts: tuple) -> tuple:
                return network.run(params, x, shifts)

            zeros = network.zero_shifts(params)
            outputs, pullback, inputs = jax.vjp(run, zeros, has_aux=True)
            (cotangents,) = pullback(jax.grad(loss)(outputs))
            layers = zip(network.layers, inputs, cotangents, strict=True)
            return outputs, [layer.gradient(a, g) for layer, a, g in layers]

        outputs, gradients = jax.vmap(one)(x)
        summed = [gradient.sum(0) for gradient in gradients]
        direct = jax.grad(lambda p: loss(apply(p, x)))(params)
        return outputs, apply(params, x), summed, direct

    outputs, direct_outputs, gradients, direct = compiled(values)(params, x)
    assert jax.tree.structure(outputs) == jax.tree.structure(direct_outputs)
    pairs = map(jax.tree.leaves, (outputs, direct_outputs))
    for ours, theirs in zip(*pairs, strict=True):
        _close(ours, theirs, tolerance)
    leaves, slopes = jax.tree.leaves(params), jax.tree.leaves(direct)
    covered = []
    for layer, gradient in zip(network.layers, gradients, strict=True):
        mine = [leaves[leaf] for leaf in layer.leaves]
        matrix = layer.matrix(mine)
        assert matrix.shape == gradient.shape == (layer.inputs, layer.outputs)
        for ours, theirs in zip(layer.leaves_of(matrix), mine, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        pairs = zip(layer.leaves, layer.leaves_of(gradient), strict=True)
        for leaf, ours in pairs:
            _close(ours, slopes[leaf], tolerance)
            assert np.abs(slopes[leaf]).max() > 0.0
        covered.extend(layer.leaves)
    assert sorted([*covered, *network.rest]) == list(range(len(leaves)))
    return network


def _close(ours: Array, theirs: Array, tolerance: float) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    scale = max(float(np.abs(theirs).max()), 1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * scale)
