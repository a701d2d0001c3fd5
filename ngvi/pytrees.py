"""Frozen dataclasses that JAX takes apart, and inner products of pytrees."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def pytree(cls: Class) -> Class:
    """A frozen dataclass, and a pytree of all but its static fields.

    It is `jax.tree_util.register_dataclass` with one field more, static and hidden: the
    class itself. JAX 0.10 to 0.12 take the structures of two registered dataclasses
    for equal where only the classes differ, though their hashes do not agree. Most
    often the hash decides; now and then a program compiled for one of them would be run
    on the other.

    Args:
        cls: with annotated fields, as for `dataclasses.dataclass`; static are those
            made by `field(metadata={"static": True})`.
    """
    made: Any = cls
    made.__annotations__ = {**inspect.get_annotations(cls), "pytree_type": "type"}
    made.pytree_type = field(
        default=cls, kw_only=True, repr=False, compare=False, metadata={"static": True}
    )
    made = dataclass(frozen=True)(made)
    return jax.tree_util.register_dataclass(made)


def inner(a: Any, b: Any) -> Float[Array, ""]:
    """⟨a, b⟩ of two pytrees."""
    products = jax.tree.map(lambda x, y: (x * y).sum(), a, b)
    return jnp.asarray(sum(jax.tree.leaves(products)))
