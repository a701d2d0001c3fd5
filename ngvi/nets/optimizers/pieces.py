"""What the transformations of this package have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ngvi.families.parameters import is_concrete
from ngvi.nets.schedules import Number

Rate = Array | Number
"""That of a step: a number, one that is injected, or a schedule."""
Mask = Any | Callable[[Any], Any]
"""A pytree of booleans like the parameters or a prefix of it, or a function to one."""


def with_rate(
    direction: optax.GradientTransformation,
    learning_rate: Rate,
    weight_decay: Any = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A step along a direction, the weights decaying apart from it.

    Args:
        direction: of the step.
        learning_rate: its length.
        weight_decay: added to the direction, times the parameters.
        mask: which of them decay.
    """
    # Without decay no parameters are asked for.
    none = isinstance(weight_decay, float | int) and weight_decay == 0
    decay = [] if none else [optax.add_decayed_weights(weight_decay, mask)]
    return optax.chain(direction, *decay, optax.scale_by_learning_rate(learning_rate))


def checked(name: str, value: Any, least: float, most: float = float("inf")) -> None:
    """Hold a setting to its range where it is known, so not one that is injected.

    Raises:
        ValueError: outside of it.
    """
    if is_concrete(value) and not least <= value <= most:
        bounded = most < float("inf")
        wanted = f"from {least:g} to {most:g}" if bounded else f"at least {least:g}"
        raise ValueError(f"{name} must be {wanted}, got {value}")


def checked_decay(**decays: Any) -> None:
    """Hold the decays of running averages to theirs, by name.

    Raises:
        ValueError: outside of it.
    """
    for name, value in decays.items():
        if is_concrete(value) and not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {value}")


def wide(x: Array) -> Array:
    """In single precision or better, where statistics are kept.

    An average of rate 0.001 over bfloat16 numbers would not move at all.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def averaged(old: Any, new: Any, decay: Any) -> Any:
    """β old + (1 − β) new of two pytrees, in the precision of the old one."""
    return jax.tree.map(
        lambda o, n: (decay * wide(o) + (1 - decay) * wide(n)).astype(o.dtype), old, new
    )


def unbiased(average: Any, decay: Any, count: Array) -> Any:
    """An average that began at zero over 1 − βᵗ; at least in single precision."""
    return jax.tree.map(
        lambda a: (wide(a) / (1 - decay**count)).astype(wide(a).dtype), average
    )


def like(updates: Any, gradients: Any) -> Any:
    """Updates in the precision the gradients came in."""
    return jax.tree.map(lambda u, g: u.astype(g.dtype), updates, gradients)


def zeros(params: Any, dtype: Any = None) -> Any:
    """A pytree of zeros like the parameters, in single precision or better."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(p, dtype=dtype or wide(p).dtype), params
    )


def each(tree: Any, *others: Any) -> Iterator[tuple[Any, ...]]:
    """The leaves of a pytree, each with what is in its place in the others."""
    treedef: Any = jax.tree.structure(tree)
    leaves = jax.tree.leaves(tree)
    return zip(leaves, *(treedef.flatten_up_to(o) for o in others), strict=True)


def shaped(tree: Any, leaves: list[Any]) -> Any:
    """Leaves, or pytrees, in the places of those of a pytree."""
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
