"""Nonlinearities by name: functions that can be pickled, as JAX's own cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return jnp.tanh(x)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return jax.nn.relu(x)


def silu(x: Array) -> Array:
    """x σ(x)."""
    return jax.nn.silu(x)


def gelu(x: Array) -> Array:
    """x Φ(x), Φ by its approximation with tanh."""
    return jax.nn.gelu(x)


def logistic(x: Array) -> Array:
    """σ(x)."""
    return jax.nn.sigmoid(x)


NAMES: dict[str, Callable[[Array], Array]] = {
    f.__name__: f for f in (tanh, relu, silu, gelu, logistic)
}


def as_activation(spec: Any) -> Callable[[Array], Array]:
    """The function of this name; a function is returned as it is.

    Raises:
        ValueError: it is neither.
    """
    if callable(spec):
        return spec
    if spec not in NAMES:
        known = ", ".join(sorted(NAMES))
        raise ValueError(f"activation must be a function or {known}, got {spec!r}")
    return NAMES[spec]
