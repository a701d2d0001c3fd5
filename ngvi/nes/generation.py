"""One generation with its bookkeeping: the search, the best point, the stop tests.

    run = begin(strategy, x0, sigma, box)
    eps, points = propose(strategy, run, key, box)
    values = …                                      of the objective, at the points
    run = digest(strategy, run, eps, points, values, stopping, box)

The compiled loop of a JAX objective (`ngvi.nes.run`), the loop of any other one
(`ngvi.nes.attempt`) and the ask/tell object (`ngvi.nes.optimizer`) are all made of
these; so they draw the same points. How the distribution moves is `ngvi.nes.search`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.families.parameters import as_floats
from ngvi.nes import search
from ngvi.nes.history import observe
from ngvi.nes.lagrangian import Lagrangian, judge
from ngvi.nes.lattice import Domain, Lattice
from ngvi.nes.shaping import rank
from ngvi.nes.stopping import (
    TESTS,
    Record,
    Stopping,
    block_length,
    empty_record,
    measure,
    remember,
)
from ngvi.nes.strategies import Strategy
from ngvi.pytrees import pytree


@pytree
class Run:
    """A search in progress."""

    state: search.State
    scale: Float[Array, "d"]
    """The standard deviations at the start."""
    best_point: Float[Array, "d"]
    """Inside the bounds; x0 until a value is known."""
    best_value: Float[Array, ""]
    median: Float[Array, ""]
    """Of the last generation."""
    record: Record
    failed: Int[Array, ""]
    """Evaluations that gave no finite number."""
    measured: Float[Array, "t"]
    """What `stopping.TESTS` saw in the last generation."""
    fired: Bool[Array, "t"]
    lagrangian: Lagrangian | None = None
    """With constraints."""

    @property
    def stopped(self) -> Bool[Array, ""]:
        """Whether a test said stop."""
        return self.fired.any()


def run_key(seed: int, number: int) -> Key[Array, ""]:
    """The key of the number-th run of a search."""
    return jax.random.fold_in(jax.random.key(seed), number)


def begin(
    strategy: Strategy,
    x0: Float[Array, "d"],
    sigma: Float[Array, "d"] | float,
    box: Domain | None = None,
) -> Run:
    """The run before its first generation."""
    (x0,) = as_floats(x0)
    sigma = jnp.broadcast_to(jnp.asarray(sigma, x0.dtype), x0.shape)
    mean = x0 if box is None else box.invert(x0)
    state = search.init(strategy, mean, sigma)
    scale = jnp.sqrt(state.q.variance)
    if isinstance(box, Lattice):
        state, scale = box.keep_margin(state, scale, strategy.popsize)
        x0 = box.place(x0)
    inf = jnp.asarray(jnp.inf, x0.dtype)
    return Run(
        state=state,
        scale=scale,
        best_point=x0,
        best_value=inf,
        median=inf,
        record=empty_record(x0.size, strategy.popsize, x0.dtype),
        failed=jnp.zeros((), int),
        measured=jnp.full(len(TESTS), inf),
        fired=jnp.zeros(len(TESTS), bool),
    )


def regrow(strategy: Strategy, run: Run) -> Run:
    """The run with another population: the search goes on, its record begins anew."""
    dim, dtype = run.scale.size, run.scale.dtype
    return replace(run, record=empty_record(dim, strategy.popsize, dtype))


def propose(
    strategy: Strategy, run: Run, key: Key[Array, ""], box: Domain | None = None
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """The base draws of the next generation, and the points x they stand for.

    Args:
        strategy: see `ngvi.nes.strategies`.
        run: see `begin`.
        key: one for the whole run; every generation makes its own of it.
        box: the bounds.
    """
    key = jax.random.fold_in(key, run.state.generation)
    eps = search.ask(strategy, run.state, key)
    return eps, place(run, eps, box)


def place(
    run: Run, eps: Float[Array, "n d"], box: Domain | None = None
) -> Float[Array, "n d"]:
    """Where base draws lie in x."""
    y = run.state.q.place(eps)
    return y if box is None else box.place(y)


def digest(
    strategy: Strategy,
    run: Run,
    eps: Float[Array, "n d"],
    points: Float[Array, "n d"],
    values: Float[Array, "n *c"],
    stopping: Stopping,
    box: Domain | None = None,
) -> Run:
    """The run after a generation.

    Args:
        strategy: see `ngvi.nes.strategies`.
        run: that `eps` was asked of.
        eps: base draws.
        points: the x they stand for.
        values: of the objective, to be minimised, each followed by those of the
            constraints if there are any. What is not finite ranks last.
        stopping: the limits of the stop tests.
        box: the bounds.
    """
    number = run.state.generation
    if run.lagrangian is None:
        finite = jnp.isfinite(values)
        ranking = rank(jnp.where(finite, values, jnp.inf).astype(eps.dtype))
        better = ranking.values[0] < run.best_value
        best = jnp.where(better, ranking.values[0], run.best_value)
        size, lagrangian = best, None
        best_point = jnp.where(better, points[ranking.place[0]], run.best_point)
        failed = (~finite).sum()
        progress = ranking.values[jnp.asarray([0, strategy.popsize // 2])]
    else:
        judged = judge(run.lagrangian, values.astype(eps.dtype), run.scale.size)
        ranking, lagrangian, failed = judged.ranking, judged.lagrangian, judged.failed
        best, size = lagrangian.best_value, ranking.values[0]
        at, stopping = judged.best, judged.limits(stopping)
        best_point = jnp.where(at > 0, points[at - 1], run.best_point)
        progress = judged.lacking
    length = block_length(run.scale.size, strategy.popsize)
    record = remember(run.record, number, ranking.values[0], progress, length)
    state, scale = search.tell_ranks(strategy, run.state, eps, ranking), run.scale
    if isinstance(box, Lattice):
        state, scale = box.keep_margin(state, scale, strategy.popsize)
    measured, fired = measure(
        state.q, scale, record, number, length, ranking.values[-1], best, stopping, size
    )
    return Run(
        state=state,
        scale=scale,
        best_point=best_point,
        best_value=best,
        median=ranking.values[strategy.popsize // 2],
        record=record,
        failed=run.failed + failed,
        measured=measured,
        fired=fired,
        lagrangian=lagrangian,
    )


def step(
    strategy: Strategy,
    run: Run,
    key: Key[Array, ""],
    box: Domain | None,
    eps: Float[Array, "n d"],
    points: Float[Array, "n d"],
    values: Float[Array, "n *c"],
    stopping: Stopping,
) -> tuple[Run, Float[Array, "n d"], Float[Array, "n d"], Float[Array, "r"]]:
    """`digest`, and `propose` for the next generation: one call of a compiled program.

    Returns:
        The run, the next draws and points, and in one array all that the host wants to
        know: the points, the history's row, and 1 if a test says stop.
    """
    run = digest(strategy, run, eps, points, values, stopping, box)
    eps, points = propose(strategy, run, key, box)
    stopped = run.stopped[None].astype(eps.dtype)
    report = jnp.concatenate([points.ravel(), observe(run, box), stopped])
    return run, eps, points, report


class Programs(NamedTuple):
    """The compiled functions of a strategy."""

    begin: Callable[..., Run]
    propose: Callable[..., tuple[Array, Array]]
    step: Callable[..., tuple[Run, Array, Array, Array]]


@cache
def programs(strategy: Strategy) -> Programs:
    """Compiled for one strategy: a static argument would be hashed in every call."""
    return Programs(*(jax.jit(partial(f, strategy)) for f in (begin, propose, step)))
