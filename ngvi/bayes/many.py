"""`ngvi.fit_many`: the same model fitted to many data sets, with many seeds, or under
many hyper-parameters, by one compiled program.

A single fit of a small model takes a millisecond or a few, and some ten times as
long to be set up from Python. Here that is done once, so that a simulation study, a
sensitivity analysis or a bootstrap of thousands of fits takes seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.bayes import compile_time
from ngvi.bayes.checks import faults_in_words
from ngvi.bayes.fits import Each, Fits, Series, data_of
from ngvi.bayes.numpyro_model import ModelTarget, model_target
from ngvi.bayes.plan import LowRank, Plan
from ngvi.bayes.problem import Problem
from ngvi.bayes.programs import solve
from ngvi.bayes.stream import Stream
from ngvi.bayes.streamed import faults_of
from ngvi.bayes.structure import Covariance, choose
from ngvi.bayes.target import Arguments, Data, Target, function_target
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder
from ngvi.names import name_of
from ngvi.terminal.progress import Progress

_CALLS = 20
"""Programs that many fits are cut into, so that their progress can be seen."""
_NUMBERS_AT_ONCE = 2**26
"""In the draws of fits that an accelerator runs side by side."""


def fit_many(
    model: Callable[..., Any],
    *args: Any,
    covariance: Covariance = "auto",
    seed: int | Each = 0,
    init: Any = None,
    init_strategy: Callable[..., Any] | None = None,
    settings: loop.Settings | None = None,
    at_once: int | None = None,
    progress: bool | None = None,
    **kwargs: Any,
) -> Fits:
    """Fit a model many times: to many data sets, with many seeds, hyper-parameters.

    What differs from fit to fit is an `Each`; all else is the same in all of them:

        fits = ngvi.fit_many(model, x, y=ngvi.Each(simulated), scale=ngvi.Each([1, 5]))

    Args:
        model: as in `ngvi.fit`.
        *args: its arguments; arrays, or an `Each` of n arrays of one shape or numbers.
        covariance, init, init_strategy, settings: as in `ngvi.fit`; where a fit starts
            is found once, with the first values of each.
        seed: of the base draws, or an `Each` of seeds.
        at_once: fits that run side by side (`vmap`). By default one on a CPU, which
            has nothing to gain, and as many as fit in memory on an accelerator.
        progress: show a progress line; by default when stderr is a terminal.
        **kwargs: the model's keyword arguments.

    Returns:
        n posteriors, made when they are asked for: `fits[i]`; and means and sds of all
        of them as arrays.

    Raises:
        ValueError: nothing is an `Each`, their lengths differ, an observed value is
            undefined or outside its support (the fit is named), the model computes a
            shape or branch from an array, or its data come in batches.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, ngvi
        >>> def model(y, scale):
        ...     mu = numpyro.sample("mu", dist.Normal(0.0, scale))
        ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> fits = ngvi.fit_many(model, jnp.array([1.0, 3.0]), ngvi.Each([0.1, 10.0]))
        >>> fits.mean["mu"].round(2).tolist()
        [0.04, 1.99]
    """
    started = time.perf_counter()
    count = _count((args, kwargs, seed))
    if args and isinstance(args[0], Stream):
        raise ValueError("fit_many needs data in memory, not a Stream.")
    first_args, first_kwargs = _values((args, kwargs), lambda each: each.values[0])
    trace = None
    target: Target
    if init is None:
        target, data, point, trace = model_target(
            model, first_args, first_kwargs, init_strategy
        )
    else:
        target, data, point = function_target(model, init, first_args, first_kwargs)
    name = name_of(model)
    with compile_time.measure() as compiling, Progress(progress, name) as bar:
        if isinstance(target, ModelTarget) and target.subsampled:
            raise ValueError("fit_many needs all rows: drop subsample_size.")
        plan, structure = choose(covariance, target, data, point, trace)
        if isinstance(plan, LowRank):
            raise ValueError(
                f"{target.dim:,d} dimensions are fitted with low rank, one by one: "
                "give covariance='structured' or 'diagonal'."
            )
        every, own = _every(target, data, args, kwargs)
        _check(target, own, every, point)
        settings = plan.settings(settings or loop.Settings())
        draws, seeds = _draws(plan, seed, count, point.dtype)
        problem = Problem(target, every, point, plan, settings, draws)
        series = Series(problem, structure, own, isinstance(seed, Each), seeds)
        states = _run(series, count, at_once, bar)
    return Fits(series, states, name, compiling.split(started))


def _is_each(value: Any) -> bool:
    return isinstance(value, Each)


def _values(tree: Any, one: Callable[[Each], Any]) -> Any:
    return jax.tree.map(lambda x: one(x) if _is_each(x) else x, tree, is_leaf=_is_each)


def _count(tree: Any) -> int:
    """How many fits there are."""
    lengths = {len(x) for x in jax.tree.leaves(tree, is_leaf=_is_each) if _is_each(x)}
    if not lengths:
        raise ValueError("Nothing differs from fit to fit: give an ngvi.Each.")
    if len(lengths) > 1:
        listed = ", ".join(map(str, sorted(lengths)))
        raise ValueError(f"All Each must be of one length, got {listed}.")
    return lengths.pop()


def _every(
    target: Any, first: Data, args: tuple, kwargs: dict[str, Any]
) -> tuple[Data, tuple[bool, ...]]:
    """The arrays of all fits, and which of them have a first axis of fits."""
    arguments, every = Arguments.split(*_values((args, kwargs), lambda e: e.values))
    if len(every.arrays) != len(first.arrays) or arguments != target.arguments:
        raise ValueError(
            "The model computes a shape or a branch from the values of an array, so "
            "that every fit would be a program of its own: fit one by one."
        )
    pairs = zip(every.arrays, first.arrays, strict=True)
    return every, tuple(all_.ndim > one.ndim for all_, one in pairs)


def _over_fits(own: tuple[bool, ...]) -> Data:
    """Of data, which axis is that of fits: as `in_axes` of `vmap`."""
    return Data(tuple(0 if o else None for o in own))  # type: ignore[misc]


def _check(
    target: Target, own: tuple[bool, ...], every: Data, point: Float[Array, "d"]
) -> None:
    """Refuse observations that no fit could use.

    Raises:
        ValueError: names the first such fit and the site.
    """
    if not isinstance(target, ModelTarget) or not any(own):
        return
    for name, (bad, outside) in _faults(target, own, every, point).items():
        fits = np.flatnonzero(np.asarray(bad) + np.asarray(outside))
        if fits.size:
            i = fits[0]
            words = faults_in_words(name, int(bad[i]), int(outside[i]))
            raise ValueError(f"Fit {i}: {words}.")


@partial(jax.jit, static_argnums=(0, 1))
def _faults(
    target: ModelTarget, own: tuple[bool, ...], every: Data, point: Float[Array, "d"]
) -> dict[str, tuple[Int[Array, "n"], Int[Array, "n"]]]:
    one = partial(faults_of, target)
    return jax.vmap(one, in_axes=(_over_fits(own), None))(every, point)


def _draws(
    plan: Plan, seed: int | Each, count: int, dtype: Any
) -> tuple[Ladder, tuple[int, ...]]:
    """The base draws, those of each fit along a first axis if seeds differ."""
    if not isinstance(seed, Each):
        return plan.draws(seed, dtype), (seed,) * count
    seeds = tuple(int(s) for s in seed.values)
    ladders = [plan.draws(s, dtype) for s in seeds]
    return jax.tree.map(lambda *x: jnp.stack(x), *ladders), seeds


def _run(series: Series, count: int, at_once: int | None, bar: Progress) -> loop.State:
    """The last states, along a first axis."""
    if at_once is None:
        numbers = sum(x.size for x in jax.tree.leaves(series.problem.draws))
        each = numbers // (count if series.own_draws else 1)
        fits = int(np.clip(_NUMBERS_AT_ONCE // max(each, 1), 1, count))
        at_once = 1 if jax.default_backend() == "cpu" else fits
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, not {at_once}.")
    a_call = max(at_once, -(-count // _CALLS))
    states = []
    for start in range(0, count, a_call):
        which = np.minimum(np.arange(start, start + a_call), count - 1)
        states.append(_solved(series, at_once, jnp.asarray(which)))
        done = min(start + a_call, count)
        bar.update(iteration=done, elbo=float(_last_elbo(states[-1])))
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *states)


def _last_elbo(states: loop.State) -> Float[Array, ""]:
    return states.trace.elbo[-1, jnp.maximum(states.iteration[-1] - 1, 0)]


def _solved(series: Series, at_once: int, which: Int[Array, "k"]) -> loop.State:
    """Some of the fits."""
    target, data, point, plan, settings, draws = series.problem
    static = target, plan, settings, series.own, series.own_draws, at_once
    return _compiled(*static, data, point, draws, which)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _compiled(
    target: Target,
    plan: Plan,
    settings: loop.Settings,
    own: tuple[bool, ...],
    own_draws: bool,
    at_once: int,
    data: Data,
    point: Float[Array, "d"],
    draws: Ladder,
    which: Int[Array, "k"],
) -> loop.State:
    def one(i: Int[Array, ""]) -> loop.State:
        mine = data_of(data, own, i)
        ladder = jax.tree.map(lambda x: x[i], draws) if own_draws else draws
        return solve(target, plan, settings, mine, point, ladder)

    return jax.lax.map(one, which, batch_size=at_once if at_once > 1 else None)
