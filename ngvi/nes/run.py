"""The whole search of a JAX objective as one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.nes.generation import Run, begin, digest, propose
from ngvi.nes.history import observe
from ngvi.nes.lattice import Domain
from ngvi.nes.stopping import Stopping, bounded
from ngvi.nes.strategies import Strategy

Batch = Callable[..., Float[Array, "n"]]


def advance(
    strategy: Strategy,
    values_at: Batch,
    rows: int,
    run: Run,
    key: Key[Array, ""],
    box: Domain | None,
    args: tuple[Any, ...],
    stopping: Stopping,
    limit: int | Int[Array, ""] = 0,
) -> tuple[Run, Float[Array, "g c"], Int[Array, ""]]:
    """Generations until a test says stop or a limit is reached.

    Args:
        strategy: see `ngvi.nes.strategies`.
        values_at: the objective at points (n, D), called with `args` too.
        rows: room for the history; 0 keeps none.
        run: see `ngvi.nes.generation.begin`.
        key: of the run.
        box: the bounds.
        args: further arguments of the objective, traced.
        stopping: the limits.
        limit: with a history, at most so many generations, and no more than `rows`.

    Returns:
        The run, the history's rows, and how many generations there were.
    """
    row = jax.eval_shape(observe, run, box)
    last = jnp.minimum(stopping.maxfevals // strategy.popsize, stopping.maxiter)
    Carry = tuple[Run, Float[Array, "g c"], Int[Array, ""]]

    def goes_on(carry: Carry) -> Array:
        run, _, done = carry
        on = ~run.stopped & (run.state.generation < last)
        return on & (done < limit) if rows else on

    def generation(carry: Carry) -> Carry:
        run, history, done = carry
        eps, points = propose(strategy, run, key, box)
        values = values_at(points, *args)
        run = digest(strategy, run, eps, points, values, stopping, box)
        if rows:
            history = history.at[done].set(observe(run, box))
        return run, history, done + 1

    history = jnp.zeros((rows, *row.shape), row.dtype)
    return jax.lax.while_loop(goes_on, generation, (run, history, jnp.zeros((), int)))


def run(
    strategy: Strategy,
    fun: Callable[..., Float[Array, ""]],
    mean: Float[Array, "d"],
    sigma: Float[Array, "d"] | float,
    key: Key[Array, ""],
    max_generations: int | Int[Array, ""],
    *,
    args: tuple[Any, ...] = (),
    box: Domain | None = None,
    stopping: Stopping | None = None,
) -> Run:
    """A whole search as one pure function: `jit` it, or `vmap` it over seeds or data.

    Args:
        strategy: of `ngvi.nes.strategies`; static under `jit`.
        fun: x (D,) ↦ the value to be minimised, a JAX function.
        mean: where the search starts.
        sigma: the standard deviation, one for all or each coordinate's.
        key: of the draws.
        max_generations: a limit.
        args: further arguments of `fun`.
        box: bounds, see `ngvi.nes.bounds.make_box`.
        stopping: the other limits.

    Returns:
        The run at its end: `best_point`, `best_value`, `state` (with how many
        generations there were), `failed`, `fired`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi import nes
        >>> def search(key):
        ...     start = jnp.ones(3)
        ...     return nes.run(nes.snes(3), lambda x: x @ x, start, 0.3, key, 200)
        >>> runs = jax.vmap(search)(jax.random.split(jax.random.key(0), 100))
        >>> bool((runs.best_value < 1e-4).all())
        True
    """
    limits = bounded(replace(stopping or Stopping(), maxiter=max_generations))
    at_all = jax.vmap(fun, in_axes=(0, *(None for _ in args)))
    start = begin(strategy, mean, sigma, box)
    return advance(strategy, at_all, 0, start, key, box, args, limits)[0]
