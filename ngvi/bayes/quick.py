"""Programs that run briefly are compiled quickly.

Of the first fit to a small model nearly all time is spent compiling, much of it (with
JAX 0.10 half, with 0.12 a quarter) on optimisations that save its run milliseconds. So
there are two programs of each function, of which one is compiled: without those
optimisations where the work to be done, counted from shapes alone, is little; so that
equal calls run equal programs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import Any

import jax

from ngvi.bayes.target import Data, Target
from ngvi.bayes.traced import traced

TRIALS = 100
"""What a fit or a descent may take."""
_BRIEF = 3e9
"""Elementary operations: a second or two where they are not optimised."""
_OPTIONS = (
    {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
    {"xla_backend_optimization_level": 0},
)
"""The first that XLA knows is used: not all of its versions have the emitters."""

Work = tuple[Target, Data, float]
"""A target, its data, and how often its gradient is evaluated there."""


class Compiled:
    """`jax.jit` of a function that evaluates a target.

    Args:
        function: what is compiled.
        static_argnums: as `jax.jit` takes them.
        work: what a call with the function's arguments is to do.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        static_argnums: tuple[int, ...],
        work: Callable[..., Work],
    ) -> None:
        self._jit = partial(jax.jit, function, static_argnums=static_argnums)
        self._well, self._work = self._jit(), work

    def __call__(self, *args: Any) -> Any:
        """The function's result."""
        return self._program(*args)(*args)

    def lower(self, *args: Any) -> Any:
        """The program before XLA compiles it."""
        return self._program(*args).lower(*args)

    def _program(self, *args: Any) -> Any:
        for leaf in jax.tree.leaves(args):
            if isinstance(leaf, jax.core.Tracer):
                # A part of another program, which has options of its own.
                return self._well
            if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
                return self._well
        return self._quick if is_brief(*self._work(*args)) else self._well

    @cached_property
    def _quick(self) -> Any:
        return self._jit(compiler_options=_options())


def is_brief(target: Any, data: Data, evaluations: float) -> bool:
    """Whether there is so little work that compiling it well does not pay."""
    each = 3 * traced(target, data).operations + target.dim**2
    return evaluations * each < _BRIEF


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
