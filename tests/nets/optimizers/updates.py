"""A few gradients, and the updates that a transformation makes of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)
SHAPES = {"w": (4, 3), "b": (3,)}


def arrays() -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}


GRADIENTS = [arrays() for _ in range(4)]
PARAMS = arrays()
DIRECTION = -1.0
"""The learning rate whose updates are the directions themselves."""


def updates(optimizer: Any, gradients: Any = GRADIENTS, params: Any = PARAMS) -> Any:
    """Those of every step, along the first axis; compiled once."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)

    def step(state: Any, gradient: Any) -> Any:
        update, state = optimizer.update(gradient, state, params)
        return state, update

    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[1])(
        optimizer.init(params), stacked
    )
