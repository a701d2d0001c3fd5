"""Layers as matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher.layers import discover


def test_matrix_of_a_dense_layer() -> None:
    """The kernel's inputs are rows, whatever its layout, and the bias is the last."""
    params = {"W": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([7.0, 8.0])}
    network = discover(lambda p, x: x @ p["W"].T + p["b"], params, jnp.ones((4, 3)))
    (layer,) = network.layers
    matrix = layer.matrix(jax.tree.leaves(params))
    np.testing.assert_array_equal(matrix, [[0, 3], [1, 4], [2, 5], [7, 8]])
    x = jnp.array([1.0, 2.0, 3.0])
    outputs, (inputs,) = network.run(params, x, network.zero_shifts(params))
    np.testing.assert_array_equal(inputs, [[1, 2, 3, 1]])
    np.testing.assert_allclose((inputs @ matrix)[0], outputs)


@pytest.mark.parametrize("mode", ["clip", "fill", "wrap"])
def test_rows_outside_the_table(mode: str) -> None:
    """The gradient goes where the lookup went, or nowhere."""
    table, ids = jnp.ones((5, 2)), jnp.array([-1, 2, 9])

    def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
        return jnp.take(table, ids, axis=0, mode=mode, fill_value=0.0)

    network = discover(look_up, table, ids[None])
    (layer,) = network.layers
    outputs, (inputs,) = network.run(table, ids, network.zero_shifts(table))
    slopes = jnp.arange(6.0).reshape(3, 2)
    direct = jax.grad(lambda table: (slopes * look_up(table, ids)).sum())(table)
    np.testing.assert_array_equal(layer.gradient(inputs, slopes), direct)
    np.testing.assert_array_equal(layer.one_hot(inputs).T @ slopes, direct)
    np.testing.assert_array_equal(outputs, look_up(table, ids))


def test_rows_of_a_norm() -> None:
    params = {"b": jnp.ones(3), "w": jnp.ones(3)}
    network = discover(lambda p, x: x * p["w"] + p["b"], params, jnp.ones((4, 3)))
    (layer,) = network.layers
    _, (inputs,) = network.run(params, jnp.arange(3.0), network.zero_shifts(params))
    np.testing.assert_array_equal(inputs, [[[0, 1, 2], [1, 1, 1]]])
    with pytest.raises(ValueError, match="'w' scales and shifts"):
        layer.one_hot(inputs)
