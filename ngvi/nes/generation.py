"""One generation with its bookkeeping: the search, the best point, the stop tests.

The whole loop of a JAX objective, the loop of a host objective and the ask/tell object
are all made of `begin`, `propose` and `digest`; so they draw the same points.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.families import Gaussian
from ngvi.nes import search
from ngvi.nes.bounds import Box
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

# A history of the mean is D numbers a generation.
LARGEST_HISTORY = 40


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
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
    evaluations: Int[Array, ""]
    failed: Int[Array, ""]
    """Evaluations that gave no finite number."""
    measured: Float[Array, "t"]
    """What `stopping.TESTS` saw in the last generation."""
    fired: Bool[Array, "t"]

    @property
    def stopped(self) -> Bool[Array, ""]:
        """Whether a test said stop."""
        return self.fired.any()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """What the history keeps of a generation."""

    evaluations: Int[Array, "*g"]
    best: Float[Array, "*g"]
    """The generation's best value."""
    median: Float[Array, "*g"]
    sigma: Float[Array, "*g"]
    """The geometric mean of the standard deviations."""
    axis_ratio: Float[Array, "*g"]
    """√(tr C · tr C⁻¹)/D: at most the ratio of the longest to the shortest axis, at
    least one D-th of it, and 1 for a sphere."""
    mean: Float[Array, "*g m"]
    """In x; empty where D > 40."""
    sd: Float[Array, "*g m"]


def run_key(seed: int, number: int) -> Key[Array, ""]:
    """The key of the number-th run of a search."""
    return jax.random.fold_in(jax.random.key(seed), number)


def begin(
    strategy: Strategy,
    x0: Float[Array, "d"],
    sigma: Float[Array, "d"] | float,
    box: Box | None = None,
) -> Run:
    """The run before its first generation."""
    x0 = jnp.asarray(x0)
    sigma = jnp.broadcast_to(jnp.asarray(sigma, x0.dtype), x0.shape)
    mean = x0 if box is None else box.invert(x0)
    state = search.init(strategy, mean, sigma)
    zero, inf = jnp.zeros((), int), jnp.asarray(jnp.inf, x0.dtype)
    return Run(
        state=state,
        scale=jnp.sqrt(state.q.variance),
        best_point=x0,
        best_value=inf,
        median=inf,
        record=empty_record(x0.size, strategy.popsize, x0.dtype),
        evaluations=zero,
        failed=zero,
        measured=jnp.full(len(TESTS), inf),
        fired=jnp.zeros(len(TESTS), bool),
    )


def propose(
    strategy: Strategy, run: Run, key: Key[Array, ""], box: Box | None = None
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
    run: Run, eps: Float[Array, "n d"], box: Box | None = None
) -> Float[Array, "n d"]:
    """Where base draws lie in x."""
    y = run.state.q.place(eps)
    return y if box is None else box.place(y)


def digest(
    strategy: Strategy,
    run: Run,
    eps: Float[Array, "n d"],
    points: Float[Array, "n d"],
    values: Float[Array, "n"],
    stopping: Stopping,
) -> Run:
    """The run after a generation.

    Args:
        strategy: see `ngvi.nes.strategies`.
        run: that `eps` was asked of.
        eps: base draws.
        points: the x they stand for.
        values: of the objective, to be minimised. What is not finite ranks last.
        stopping: the limits of the stop tests.
    """
    finite = jnp.isfinite(values)
    values = jnp.where(finite, values, jnp.inf).astype(eps.dtype)
    number = run.state.generation
    order = jnp.argsort(values)
    ordered, least = values[order], order[0]
    better = values[least] < run.best_value
    best = jnp.where(better, values[least], run.best_value)
    length = block_length(run.scale.size, strategy.popsize)
    median = ordered[strategy.popsize // 2]
    record = remember(run.record, number, ordered[0], median, length)
    state = search.tell(strategy, run.state, eps, values)
    measured, fired = measure(
        state.q, run.scale, record, number, length, ordered[-1], best, stopping
    )
    return Run(
        state=state,
        scale=run.scale,
        best_point=jnp.where(better, points[least], run.best_point),
        best_value=best,
        median=median,
        record=record,
        evaluations=run.evaluations + values.size,
        failed=run.failed + (~finite).sum(),
        measured=measured,
        fired=fired,
    )


def geometric_mean_sd(q: Gaussian) -> Float[Array, ""]:
    """One number for the size of a distribution."""
    return jnp.exp(jnp.log(q.variance).mean() / 2)


def observe(run: Run, box: Box | None = None) -> Row:
    """The history's row of the last generation."""
    q = run.state.q
    shown = slice(None) if q.dim <= LARGEST_HISTORY else slice(0)
    mean = q.mean if box is None else box.place(q.mean)
    last = (run.state.generation - 1) % run.record.recent.size
    return Row(
        evaluations=run.evaluations,
        best=run.record.recent[last],
        median=run.median,
        sigma=geometric_mean_sd(q),
        axis_ratio=jnp.sqrt(q.variance.sum() * q.precision.diagonal().sum()) / q.dim,
        mean=mean[shown],
        sd=jnp.sqrt(q.variance)[shown],
    )
