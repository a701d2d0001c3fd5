"""Observations and their weights, checked where a person can read the answer.

Outside `jit` what cannot be used is counted in a ValueError. Inside, where nothing can
be raised, the members of a batch that it concerns become NaN; the others do not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ngvi.families.domains import NON_NEGATIVE, Domain, Joint
from ngvi.families.parameters import is_concrete


class Data(NamedTuple):
    """Observations that formulas can use."""

    x: Any
    """Shape (n, *b, *event), with interior points where an observation was none."""
    weights: Float[Array, "n"]
    usable: Bool[Array, "*b"]
    """Which members of a batch were given only what they can use."""


def check_data(
    name: str,
    x: Any,
    weights: Float[Array, "n"] | None,
    support: Domain | Joint,
    dtype: Any,
) -> Data:
    """Hold observations to their support, and weights to zero or more.

    Args:
        name: what to call the method that was given them.
        x: observations, shape (n, *b, *event).
        weights: how much each counts, one by default; an observation of weight zero may
            lie anywhere.
        support: where the others must lie.
        dtype: of what is given without a floating dtype.

    Raises:
        ValueError: the weights' shape is not (n,) or, outside `jit`, a weight or an
            observation cannot be used.
    """
    x = support.as_floats(x, dtype)
    inside = support.holds(x)
    count = inside.shape[:1]
    w = jnp.ones(count, dtype) if weights is None else weights
    w = NON_NEGATIVE.as_floats(w, dtype)
    if w.shape != count:
        raise ValueError(
            f"{name}: the weights must be one number for each observation, of shape "
            f"{count}, got {w.shape}"
        )
    right = NON_NEGATIVE.holds(w)
    if is_concrete(right) and not bool(right.all()):
        raise ValueError(f"{name}: the weights must be zero or more, and finite")
    wrong = ~inside & (w != 0).reshape(-1, *[1] * (inside.ndim - 1))
    if is_concrete(wrong) and bool(wrong.any()):
        raise ValueError(
            f"{name}: {int(wrong.sum())} of {wrong.size} observations are not "
            f"{support.description}"
        )
    usable = right.all() & ~wrong.any(0)
    return Data(support.replace_outside(x, inside), w, usable)


def nan_unless(valid: Bool[Array, "*b"], tree: Any) -> Any:
    """A pytree of arrays (*b, *e), NaN for those of a batch that are not valid."""

    def masked(leaf: Array) -> Array:
        mask = jnp.expand_dims(valid, tuple(range(valid.ndim - leaf.ndim, 0)))
        return jnp.where(mask, leaf, jnp.nan)

    return jax.tree.map(masked, tree)
