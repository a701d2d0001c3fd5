"""Compiling programs that tests run once or twice."""

from __future__ import annotations

import functools

import jax

compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
"""`jax.jit` without optimisation: compiling these programs is what takes time."""
