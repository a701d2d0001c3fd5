"""One generation with its bookkeeping: the search, the best point, the stop tests.

The whole loop of a JAX objective, the loop of a host objective and the ask/tell object
are all made of `begin`, `propose` and `digest`; so they draw the same points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.families import Gaussian
from ngvi.families.parameters import as_floats
from ngvi.nes import search
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

# A history of the mean is D numbers a generation.
LARGEST_HISTORY = 40
_COLUMNS = ("best", "median", "sigma", "axis_ratio")


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
    else:
        judged = judge(run.lagrangian, values.astype(eps.dtype), run.scale.size)
        ranking, lagrangian, failed = judged.ranking, judged.lagrangian, judged.failed
        best, size = lagrangian.best_value, ranking.values[0]
        at, stopping = judged.best, judged.limits(stopping)
        best_point = jnp.where(at > 0, points[at - 1], run.best_point)
    least, median = ranking.values[0], ranking.values[strategy.popsize // 2]
    length = block_length(run.scale.size, strategy.popsize)
    record = remember(run.record, number, least, median, length)
    if run.lagrangian is not None:
        first, middle = judged.lacking[0], judged.lacking[1]
        lacking = remember(run.record, number, first, middle, length)
        record = replace(record, blocks=lacking.blocks)
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
        median=median,
        record=record,
        failed=run.failed + failed,
        measured=measured,
        fired=fired,
        lagrangian=lagrangian,
    )


def geometric_mean_sd(q: Gaussian) -> Float[Array, ""]:
    """One number for the size of a distribution."""
    return jnp.exp(jnp.log(q.variance).mean() / 2)


def observe(run: Run, box: Domain | None = None) -> Float[Array, "c"]:
    """The history's row of the last generation, see `columns`."""
    q = run.state.q
    last = (run.state.generation - 1) % run.record.recent.size
    # At most the ratio of the longest to the shortest axis, at least one D-th of it.
    axis_ratio = jnp.sqrt(q.variance.sum() * q.precision.diagonal().sum()) / q.dim
    best, median = run.record.recent[last], run.median
    if run.lagrangian is not None:
        best, median = run.lagrangian.first[0], run.lagrangian.median
    numbers = jnp.stack([best, median, geometric_mean_sd(q), axis_ratio])
    if run.lagrangian is not None:
        first = run.lagrangian.violations(run.lagrangian.first).max()
        numbers = jnp.append(numbers, first)
    if q.dim > LARGEST_HISTORY:
        return numbers
    mean = q.mean if box is None else box.place(q.mean)
    return jnp.concatenate([numbers, mean, jnp.sqrt(q.variance)])


def row_without_distribution(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The history's row of an exchange that no distribution was sampled for."""
    row = np.array([values.min(), np.median(values), np.nan, np.nan])
    if mean.size > LARGEST_HISTORY:
        return row
    return np.concatenate([row, mean, np.full_like(mean, np.nan)])


def columns(rows: np.ndarray, constrained: bool = False) -> dict[str, np.ndarray]:
    """The history's columns by name.

    `best` and `median` are of the generation's values, `sigma` is the geometric mean of
    the standard deviations, `axis_ratio` √(tr C · tr C⁻¹)/D, `mean` is in x; it and
    `sd` are left out where D > 40. With constraints the best and the median point are
    those by rank, and `maxcv` is the largest violation of the best one.
    """
    names = [*_COLUMNS, *["maxcv"] * constrained]
    found = dict(zip(names, rows.T[: len(names)], strict=True))
    rest = rows[:, len(names) :]
    if rest.shape[1]:
        found["mean"], found["sd"] = np.split(rest, 2, axis=1)
    return found


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
