"""Convolutions as products with patches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.fisher.layers.gradients import check

PLANE = ("NHWC", "HWIO", "NHWC")

CASES: dict[str, tuple[tuple, tuple, dict[str, Any]]] = {
    "one axis": ((3, 7), (4, 3, 2), {"dimension_numbers": ("NCH", "OIH", "NCH")}),
    "strides, padding and holes": (
        (6, 5, 2),
        (3, 2, 2, 4),
        {
            "window_strides": (2, 1),
            "padding": ((2, 1), (0, 3)),
            "rhs_dilation": (2, 3),
            "dimension_numbers": PLANE,
        },
    ),
    "a fractional stride and a cut edge": (
        (6, 5, 2),
        (2, 3, 2, 4),
        {
            "padding": ((-1, 2), (1, -2)),
            "lhs_dilation": (2, 3),
            "dimension_numbers": PLANE,
        },
    ),
    "three axes in an odd layout": (
        (2, 4, 3, 5),
        (2, 2, 3, 2, 2),
        {"padding": "SAME", "dimension_numbers": ("CHNWD", "HIOWD", "HNWDC")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_convolution(name: str) -> None:
    picture, kernel, options = CASES[name]
    options = {"window_strides": (1,) * (len(kernel) - 2), "padding": "VALID"} | options
    numbers = options["dimension_numbers"]
    batch, out = numbers[0].index("N"), numbers[2]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        z = lax.conv_general_dilated(jnp.moveaxis(x, 0, batch), params["W"], **options)
        z = jnp.moveaxis(z, out.index("N"), 0)
        # The bias is added where the channels have come to be.
        channel = out.replace("N", "").index("C") + 1
        shape = [-1 if axis == channel else 1 for axis in range(z.ndim)]
        return jnp.tanh(z + params["b"].reshape(shape))

    rng = np.random.default_rng(0)
    channels = kernel[numbers[1].index("O")]
    params = {
        "W": jnp.asarray(rng.normal(size=kernel)),
        "b": jnp.asarray(rng.normal(size=channels)),
    }
    network = check(apply, params, jnp.asarray(rng.normal(size=(2, *picture))))
    (layer,) = network.layers
    assert layer.kind == "convolution" and layer.has_bias


def test_transposed_convolution() -> None:
    """Its kernel comes turned round."""

    def apply(kernel: jax.Array, x: jax.Array) -> jax.Array:
        options = {"dimension_numbers": PLANE, "transpose_kernel": True}
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", **options)

    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 4)))
    (layer,) = check(apply, kernel, jnp.ones((2, 3, 4, 4))).layers
    assert layer.kind == "convolution" and layer.outputs == 2


def test_grouped_convolution_is_left_over() -> None:
    def apply(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=PLANE, feature_group_count=2
        )

    network = check(apply, jnp.ones((3, 3, 1, 4)), jnp.ones((2, 4, 4, 2)))
    assert "grouped convolution" in network.reasons[0]
