"""What a posterior evaluates its draws with: log p and the sites' values."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.quick import Compiled, Work
from ngvi.bayes.target import Data, Target


class Density(Protocol):
    """log p at draws, gathered on the host."""

    def at(
        self, points: Float[Array, "s d"], at_once: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """log p of unconstrained points, (S,), and the sites there, (S, *site shape).

        Args:
            points: where.
            at_once: how many of them the model may be evaluated at in one go.
        """
        ...


def _work(target: Target, data: Data, z: Float[Array, "s d"]) -> Work:
    return target, data, len(z)


@partial(Compiled, static_argnums=(0,), work=_work)
def _at(
    target: Target, data: Data, z: Float[Array, "s d"]
) -> tuple[Float[Array, "s"], dict[str, Array]]:
    def one(z: Array) -> tuple[Array, dict[str, Array]]:
        return -target.potential(data, z), target.constrain(data, z)

    return jax.vmap(one)(z)


class InMemory:
    """Of data that are at hand."""

    def __init__(self, target: Target, data: Data) -> None:
        self.target, self.data = target, data

    def at(
        self, points: Float[Array, "s d"], at_once: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        count = points.shape[0]
        padded = jnp.pad(points, ((0, -count % at_once), (0, 0)), mode="edge")
        parts = []
        for start in range(0, padded.shape[0], at_once):
            batch = padded[start : start + at_once]
            parts.append(jax.device_get(_at(self.target, self.data, batch)))
        return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
