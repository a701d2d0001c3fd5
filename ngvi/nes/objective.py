"""How an objective is evaluated: compiled into the search, or called by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from ngvi.executors import Executor, Workers
from ngvi.nes.constraints import Constraints
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.start import Start
from ngvi.nes.tracing import TracedObjective, try_trace


def make_objective(
    fun: Callable[..., Any],
    start: Start,
    args: tuple[Any, ...],
    sign: float,
    vectorized: bool | None,
    executor: Executor | Workers | None,
    timeout: float | None,
    retries: int,
    constraints: Constraints | None,
    mesh: Mesh | None,
) -> TracedObjective | HostObjective:
    """What the options of `minimize` with these names stand for.

    Args:
        start: of the search.
        sign: −1 maximises.

    Raises:
        TypeError, ValueError: options that are none, or do not go together.
    """
    if not callable(fun):
        raise TypeError(f"fun must be callable, got {type(fun).__name__}")
    if executor is not None and vectorized:
        raise ValueError("an executor evaluates single points: leave vectorized out")
    if timeout is not None:
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        if executor is None:
            raise ValueError(
                "a timeout needs an executor or workers: a call in this process cannot "
                "be given up (workers=1 makes it one in another)"
            )
    traced = None
    if executor is None and vectorized is not False:
        traced = try_trace(fun, start.layout, start.x0, args, sign, bool(vectorized))
    if traced is not None and constraints is not None:
        limits = constraints.traced(start.x0)
        if limits is not None:
            traced = replace(traced, constraints=limits)
        else:
            # What calls Python between generations compiles a generation's values.
            traced = None
            if not vectorized:
                fun, vectorized = jax.vmap(fun, (0, *[None] * len(args))), True
            fun = jax.jit(fun)
    if traced is not None:
        return replace(traced, mesh=mesh)
    if mesh is not None:
        raise ValueError(
            "a mesh is for JAX functions; executors and workers are for others"
        )
    return HostObjective(
        fun,
        start.layout,
        sign,
        args,
        bool(vectorized),
        executor,
        timeout,
        retries,
        constraints,
    )
