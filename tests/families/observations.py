"""Observations of a member to try its methods on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Shape = tuple[int, ...]


def draws(q: Any, key: Any, count: int) -> Any:
    """Draws as floats, also of discrete families: what T and log h take."""
    return jax.tree.map(lambda v: v.astype(q.dtype), q.sample(key, (count,)))


def interior(q: Any, shape: Shape = ()) -> Any:
    """Observations inside the support, without the cost of compiling a sampler."""
    like = jax.eval_shape(lambda q: q.sample(jax.random.key(0), shape), q)
    missing = jax.tree.map(lambda v: jnp.full(v.shape, jnp.nan, q.dtype), like)
    return q.support.replace_outside(missing, jnp.zeros(shape + q.batch_shape, bool))
