"""`ngvi.fit(log_density, init=…, gradients=False)`: a density that is only evaluated.

The log density may be any Python function of numbers: a simulator, a compiled library,
NumPy. It runs on the host, one point at a time. The fit is the one of all Gaussians,
with its estimates by least squares from values (`ngvi.mirror.values`): a full
covariance up to 20 dimensions, else a diagonal one.

The budget: a sweep of one trial takes twice as many values as there are coefficients
(1 + D + D(D + 1)/2 for a full covariance), more where unseen draws disagree, and a fit
typically 10 to 30 trials; `settings.max_iterations` bounds them. The start takes some
ten values a coordinate to find its scale.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes import compile_time
from ngvi.bayes.checkpointing import Attributes, Saver, identity
from ngvi.bayes.fit_in_memory import fit_in_memory
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.problem import Problem
from ngvi.bayes.programs import compiled_resume
from ngvi.bayes.record import FitRecord
from ngvi.bayes.structure import Structure
from ngvi.bayes.target import Arguments, ById, Data, FunctionTarget
from ngvi.executors import Dispatcher, Executor, Tally, Workers
from ngvi.executors.dispatch import Call
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, PositiveDefinite
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder, ladder
from ngvi.mirror.estimates import Estimator, Potential
from ngvi.mirror.start import Start
from ngvi.mirror.values import by_regression, coefficients
from ngvi.names import name_of
from ngvi.terminal.progress import Progress

LARGEST_FULL = 20
"""Dimensions up to which a covariance is fitted in full."""
_LEVELS = 7
_FEWEST = 32
_CHECK = 512
_MOST_TRIALS = 200
_HALVINGS = 60


@dataclass(frozen=True)
class HostTarget(FunctionTarget):
    """A log density that runs on the host, on NumPy arrays."""

    host_arguments: Any = None
    """(args, kwargs), as they were given."""
    dispatcher: Any = None
    """What evaluates many points side by side, if anything does."""

    @property
    def differentiable(self) -> bool:
        return False

    def joint(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        shape = jax.ShapeDtypeStruct((), z.dtype)
        return jax.pure_callback(self.host, shape, z, vmap_method="expand_dims")

    def host(self, z: Any) -> np.ndarray:
        """−log p at points (*b, d); +∞ where it is not a number."""
        points = np.asarray(z)
        flat = points.reshape(-1, points.shape[-1])
        if self.dispatcher is None:
            found = [self._here(point) for point in flat]
        else:
            found = self.dispatcher.value.gather([self._call(point) for point in flat])
        values = -np.array([float(value) for value in found], points.dtype)
        values = np.where(np.isnan(values), np.inf, values)
        return values.reshape(points.shape[:-1])

    def at(self, point: np.ndarray) -> float:
        """−log p at one point."""
        return float(self.host(point))

    def _params(self, point: np.ndarray) -> Any:
        ends = np.cumsum(self.sizes)[:-1]
        parts = zip(np.split(point, ends), self.shapes, strict=True)
        leaves = [part.reshape(shape) for part, shape in parts]
        return jax.tree.unflatten(self.treedef, leaves)

    def _here(self, point: np.ndarray) -> Any:
        args, kwargs = self.host_arguments.value
        return self.function(self._params(point), *args, **kwargs)

    def _call(self, point: np.ndarray) -> Call:
        """What makes the function and its arguments, for every try."""
        args, kwargs = self.host_arguments.value
        function = partial(self.function, **kwargs) if kwargs else self.function
        return lambda: (function, self._params(point.copy()), *args)


def host_target(
    log_density: Callable[..., Any],
    init: Any,
    args: tuple,
    kwargs: dict[str, Any],
    dispatcher: Dispatcher | None = None,
) -> tuple[HostTarget, Data, Float[Array, "d"]]:
    """The target of a log density that JAX cannot trace, and where it starts.

    Raises:
        ValueError: `init` is missing or holds no number, or the function returns no
            finite number there.
    """
    if init is None:
        raise ValueError(
            "gradients=False is for a log density: give it a start, init=…. A NumPyro "
            "model has gradients."
        )
    leaves, treedef = jax.tree.flatten(init)
    arrays = [np.asarray(leaf, float) for leaf in leaves]
    if not sum(a.size for a in arrays):
        raise ValueError("init holds no number: nothing to infer.")
    start = jnp.concatenate([jnp.asarray(a).ravel() for a in arrays])
    arguments, data = Arguments.split((), {})
    target = HostTarget(
        log_density,
        arguments,
        treedef,
        tuple(a.shape for a in arrays),
        start.dtype.name,
        ById((args, kwargs)),
        None if dispatcher is None else ById(dispatcher),
    )
    value = log_density(init, *args, **kwargs)
    if np.shape(value) != ():
        raise ValueError(
            f"The log density must return a scalar; it returned shape "
            f"{np.shape(value)}."
        )
    if not np.isfinite(float(value)):
        raise ValueError(
            f"The log density at the start is {float(value)}. Start where it is "
            "finite: init=…"
        )
    return target, data, start


def scales(target: HostTarget, start: np.ndarray) -> tuple[np.ndarray, int]:
    """For each coordinate a step to either side at which −log p has risen by about ½ on
    average, found by doubling and halving; and how many values that took."""
    origin, count = target.at(start), 1
    found = np.ones(start.size)
    for i in range(start.size):
        step, grown = 1.0, 0
        for _ in range(_HALVINGS):
            away = np.zeros(start.size)
            away[i] = step
            sides = target.host(np.stack([start + away, start - away]))
            count += 2
            rise = sides.mean() - origin
            if rise > 2:
                if grown > 0:
                    break
                step, grown = step / 2, -1
            elif rise < 0.125 and grown >= 0:
                step, grown = 2 * step, 1
            else:
                break
        found[i] = step if np.isfinite(step) else 1.0
    return found, count


@dataclass
class _Start(Attributes):
    """What the start took; kept with the state in checkpoints."""

    values: int = 0


@dataclass(frozen=True)
class Valued:
    """A plan without gradients, see `ngvi.bayes.plan.Plan`."""

    dim: int

    @property
    def covariance(self) -> str:
        """Its name."""
        return "full" if self.full else "diagonal"

    @property
    def full(self) -> bool:
        """Whether correlations are fitted."""
        return self.dim <= LARGEST_FULL

    def draws(self, seed: int, dtype: Any) -> Ladder:
        """Two for each coefficient, and 64 times as many at most."""
        count = max(2 * coefficients(self.dim, self.full), _FEWEST)
        check = max(_CHECK, count)
        return ladder(self.dim, count, _LEVELS, check + check % 2, seed, dtype)

    def settings(self, settings: loop.Settings) -> loop.Settings:
        """Steps are towards the mean curvature; the budget is one of trials."""
        most = min(settings.max_iterations, _MOST_TRIALS)
        return replace(settings, max_iterations=most, from_hessians=True)

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        """The given point with deviations of 1."""
        value = potential(point)
        precision = self.precision(jnp.ones(self.dim, point.dtype))
        zero = jnp.zeros((), int)
        return Start(point, precision, zero, value, jnp.isfinite(value))

    def precision(self, sd: Float[Array, "d"]) -> PositiveDefinite:
        """Of independent coordinates with these deviations."""
        return Dense.from_deviations(sd) if self.full else Diagonal(1 / sd)

    def estimator(self) -> Estimator:
        """Least squares."""
        return by_regression


def fit_black_box(
    log_density: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    *,
    init: Any,
    seed: int,
    progress: bool | None,
    settings: loop.Settings | None,
    executor: Executor | Workers | None = None,
    timeout: float | None = None,
    checkpoint: str | PathLike[str] | None = None,
    every: int | None = None,
) -> Posterior:
    """The posterior of a log density that is only evaluated.

    Args:
        log_density: called as `log_density(params, *args, **kwargs)` → a number.
        args: what it is called with.
        kwargs: and by keyword.
        init: a pytree of numbers where the fit starts.
        seed: of the base draws.
        progress: show a progress line.
        settings: tolerances and limits.
        executor: evaluates points side by side.
        timeout: seconds for one evaluation there.
        checkpoint: a folder to write to and to go on from.
        every: trials between checkpoints, by default 1: a trial may take hours.

    Raises:
        ValueError: what `host_target` and `Saver` raise.
    """
    started = time.perf_counter()
    tally = Tally()
    dispatcher = None if executor is None else Dispatcher(executor, tally, timeout)
    target, data, point = host_target(log_density, init, args, kwargs, dispatcher)
    name = name_of(log_density)
    plan = Valued(target.dim)
    settings = plan.settings(settings or loop.Settings())
    draws, spent = plan.draws(seed, point.dtype), _Start()

    def begin(sd: Array) -> loop.State:
        q = Gaussian(point, plan.precision(sd))
        return compiled_resume(target, plan, settings, data, q, draws)

    plain = np.ndarray, jax.Array, int, float, str
    seen = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, plain)]
    known = partial(identity, target, seen, point, plan.covariance, settings, seed)
    with (
        compile_time.measure() as compiling,
        Progress(progress, name) as bar,
        Saver(checkpoint, 1 if every is None else every, known) as saver,
    ):
        saver.beside = spent
        state = saver.resumed(lambda: jax.eval_shape(begin, point))
        if state is None:
            sd, spent.values = scales(target, np.asarray(point))
            state = begin(jnp.asarray(sd, point.dtype))
        problem = Problem(target, data, point, plan, settings, draws)
        end = fit_in_memory(problem, state, bar, saver)
    if tally.first_error is not None:
        failed = tally.raised + tally.timed_out + tally.lost
        warnings.warn(
            f"{failed} evaluations failed, the first by {tally.first_error}; such "
            "points count as of density zero.",
            stacklevel=3,
        )
    record = FitRecord.of(
        end.state,
        name=name,
        structure=Structure(plan.covariance, target.dim),
        seed=seed,
        seconds=compiling.split(started),
        stop_reason=end.stop_reason,
    )
    d = record.diagnostics
    values = spent.values + d.gradient_evaluations + d.value_evaluations
    counted = replace(d, gradient_evaluations=0, value_evaluations=values)
    record = replace(record, diagnostics=counted)
    return Posterior(target, data, end.state.q, record, None)
