"""The objective as a JAX program, if it is one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ngvi.meshes import filled_up, whole
from ngvi.nes.evaluation import check_shape
from ngvi.nes.layout import Layout


@dataclass(frozen=True)
class TracedConstraints:
    """Constraints as a JAX function of a vector and data; equal as objectives are."""

    at: Callable[[Float[Array, "d"], Any], Float[Array, "m"]] = field(compare=False)
    program: str


@dataclass(frozen=True)
class TracedObjective:
    """A JAX objective at points (n, D); hashable, so that `jit` knows it.

    Two are equal if their programs are, whatever functions they were traced from: one
    function is another program once the data change that it closes over.
    """

    fun: Callable[..., Any] = field(compare=False)
    program: str
    """A digest of it."""
    layout: Layout
    sign: float = 1.0
    """−1 maximises."""
    vectorized: bool = False
    constraints: TracedConstraints | None = None
    """Their data are the last of the arguments; their values follow each value."""
    mesh: Mesh | None = None
    """Over whose first axis points are shared out."""

    def __call__(self, points: Float[Array, "n d"], *args: Any) -> Float[Array, "n *c"]:
        values = self._both(filled_up(points, self.mesh), *args)
        return whole(values, self.mesh)[: len(points)]

    def _both(self, points: Float[Array, "n d"], *args: Any) -> Float[Array, "n *c"]:
        if self.constraints is None:
            return self._values(points, *args)
        *args, data = args  # type: ignore[assignment]
        c = jax.vmap(self.constraints.at, (0, None))(points, data)
        return jnp.column_stack([self._values(points, *args), c.astype(points.dtype)])

    def _values(self, points: Float[Array, "n d"], *args: Any) -> Float[Array, "n"]:
        if self.vectorized:
            values = self.fun(self.layout.unflatten(points), *args)
        else:
            values = jax.vmap(lambda x: self.fun(self.layout.unflatten(x), *args))(
                points
            )
        return self.sign * values.reshape(points.shape[0]).astype(points.dtype)


def try_trace(
    fun: Callable[..., Any],
    layout: Layout,
    x0: Float[Array, "d"],
    args: tuple[Any, ...],
    sign: float,
    vectorized: bool,
) -> TracedObjective | None:
    """The objective as a JAX function, or None if it is none.

    A function whose program differs from one tracing to the next draws noise, or
    counts, in Python; compiled it would be another function, so it counts as none. So
    does one whose program calls Python.

    Raises:
        ValueError: it is one, but its value is no number (with `vectorized`: not one
            for each point).
    """
    point = jnp.stack([x0, x0]) if vectorized else x0
    found = program_of(lambda x, *rest: fun(layout.unflatten(x), *rest), point, *args)
    if found is None:
        return None
    program, shape = found
    check_shape(getattr(shape, "shape", None), 2 if vectorized else None, shape)
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(shape.dtype, kind) for kind in kinds):
        raise ValueError(f"fun must return real numbers, got {shape.dtype}")
    return TracedObjective(fun, program, layout, sign, vectorized)


def program_of(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any] | None:
    """A digest of a function's program and the shape of its value.

    None if it is no JAX function, or another one each time, or calls Python.
    """

    def trace() -> tuple[str, Any]:
        # A new function each time: JAX would give back the old program of an old one.
        traced, shape = jax.make_jaxpr(
            lambda *given: function(*given), return_shape=True
        )(*arguments)
        text = re.sub(r"0x[0-9a-f]+", "", str(traced))
        digest = hashlib.sha256(text.encode())
        for constant in traced.consts:
            digest.update(_bytes(constant))
        calls_python = "_callback[" in text
        return "" if calls_python else digest.hexdigest(), shape

    try:
        program, shape = trace()
        again, _ = trace()
    except Exception:  # whatever keeps a Python function from being traced
        return None
    if not program or program != again:
        return None
    return program, shape


def _bytes(constant: Any) -> bytes:
    if jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    return np.asarray(constant).tobytes()
