"""Arrays shared out over the devices of a mesh, by JAX's own sharding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def placed(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """Arrays cut along these axes of the mesh, first axis first; whole without any."""
    # The mesh anew, for its axes may be of a kind along which XLA does not divide the
    # work by itself.
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(*axes))


def in_parts(arrays: Any, mesh: Mesh | None) -> Any:
    """In a program, arrays in equal parts along the mesh's first axis; as they are
    without a mesh."""
    if mesh is None:
        return arrays
    return jax.lax.with_sharding_constraint(arrays, placed(mesh, mesh.axis_names[0]))


def filled_up(rows: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The same, with the last row again until all parts are equal."""
    if mesh is None:
        return rows
    missing = -len(rows) % mesh.devices.shape[0]
    padding = [(0, missing)] + [(0, 0)] * (rows.ndim - 1)
    return in_parts(jnp.pad(rows, padding, mode="edge"), mesh)


def whole(arrays: Any, mesh: Mesh | None) -> Any:
    """In a program, arrays that every device has."""
    if mesh is None:
        return arrays
    return jax.lax.with_sharding_constraint(arrays, placed(mesh))
