"""Multi-layer perceptrons: dense layers with a nonlinearity between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Params = list[dict[str, Array]]


@dataclass(frozen=True)
class MLP:
    """x ↦ W_L φ(… φ(W₁ x + b₁) …) + b_L; hashable, so that equal ones compile once.

    Args:
        sizes: of the input, the hidden layers and the output.
        activation: φ, elementwise.

    Example:
        >>> import jax
        >>> from ngvi.fisher import MLP, fisher
        >>> net = MLP((4, 8, 3))
        >>> params = net.init(jax.random.key(0))
        >>> x = jax.random.normal(jax.random.key(1), (5, 4))
        >>> fisher(net, params, x, likelihood="categorical", structure="kronecker").dim
        67
    """

    sizes: tuple[int, ...]
    activation: Callable[[Any], Array] = jnp.tanh

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(
                "sizes must be those of the input, any hidden layers and the output, "
                f"all positive, got {self.sizes}"
            )

    def init(self, key: Key[Array, ""], dtype: Any = None) -> Params:
        """Weights of variance 1 / inputs, biases of zero (LeCun et al., 1998)."""
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        keys = jax.random.split(key, len(pairs))
        return [
            {
                "w": jax.random.normal(k, (i, o), dtype) / jnp.sqrt(i).astype(dtype),
                "b": jnp.zeros(o, dtype),
            }
            for k, (i, o) in zip(keys, pairs, strict=True)
        ]

    def __call__(self, params: Params, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        """The outputs."""
        for layer in params[:-1]:
            x = self.activation(x @ layer["w"] + layer["b"])
        return x @ params[-1]["w"] + params[-1]["b"]
