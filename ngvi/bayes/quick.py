"""Programs that run briefly are compiled quickly.

Of the first fit to a small model nearly all time is spent compiling, half of it on
optimisations that save its run milliseconds. So there are two programs of each
function, of which one is compiled: without those optimisations where the work of a
fit, counted from shapes alone, is little; so that equal calls run equal programs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, lru_cache, partial
from typing import Any

import jax
import numpy as np

from ngvi.bayes.target import Data, Target
from ngvi.mirror.draws import Ladder

_TRIALS = 100
"""What a fit may take, each at all draws of the first level."""
_BRIEF = 3e9
"""Elementary operations: a second or two where they are not optimised."""
_OPTIONS = (
    {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
    {"xla_backend_optimization_level": 0},
)
"""The first that XLA knows is used: not all of its versions have the emitters."""


class Compiled:
    """`jax.jit` of a function of (target, plan, settings, data, …, draws, …), the first
    three static."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._jit = partial(jax.jit, function, static_argnums=(0, 1, 2))
        self._well = self._jit()

    def __call__(self, *args: Any) -> Any:
        """The function's result."""
        return self._program(*args)(*args)

    def lower(self, *args: Any) -> Any:
        """The program before XLA compiles it."""
        return self._program(*args).lower(*args)

    def _program(self, target: Target, _: Any, __: Any, data: Data, *rest: Any) -> Any:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(rest)):
            return self._well  # part of another program, which has options of its own
        draws = next(part for part in rest if isinstance(part, Ladder))
        return self._quick if is_brief(target, data, draws) else self._well

    @cached_property
    def _quick(self) -> Any:
        return self._jit(compiler_options=_options())


def is_brief(target: Any, data: Data, draws: Ladder) -> bool:
    """Whether a fit takes so little work that compiling it well does not pay."""
    arrays = jax.tree.leaves((data, draws))
    if any(len(a.sharding.device_set) > 1 for a in arrays if isinstance(a, jax.Array)):
        return False
    leaves, structure = jax.tree.flatten(data)
    shapes = tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)
    of_density = 3 * _of_density(target, structure, shapes, draws.batches.dtype)
    work = draws.batch_size * (of_density + target.dim**2)
    return _TRIALS * work < _BRIEF


@lru_cache(256)
def _of_density(target: Any, structure: Any, shapes: tuple, dtype: Any) -> float:
    leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    data = jax.tree.unflatten(structure, leaves)
    point = jax.ShapeDtypeStruct((target.dim,), dtype)
    return operations(jax.make_jaxpr(target.potential)(data, point).jaxpr)


def operations(jaxpr: Any) -> float:
    """Elementary operations of a traced function: results' entries, and what products
    of matrices add up; loops of unknown length count once."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [
            getattr(part, "jaxpr", part)
            for value in equation.params.values()
            for part in (value if isinstance(value, tuple | list) else (value,))
            if hasattr(getattr(part, "jaxpr", part), "eqns")
        ]
        entries = sum(int(np.prod(v.aval.shape)) for v in equation.outvars)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            entries *= 2 * int(np.prod([shape[axis] for axis in contracted]))
        repeated = equation.params.get("length", 1) if inner else 1
        total += repeated * sum(map(operations, inner)) if inner else entries
    return total


@cache
def _options() -> dict[str, Any] | None:
    """What makes XLA compile quickly; None where that is not known."""
    if jax.default_backend() != "cpu":
        return None
    for options in _OPTIONS:
        try:
            jax.jit(lambda x: x + 1, compiler_options=options).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:  # no such option
            continue
        return options
    return None
