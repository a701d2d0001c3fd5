"""`ngvi.fit`: from a model to a posterior, with no setting to touch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ngvi.bayes import compile_time
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.numpyro_model import blame, model_target, undefined_arguments
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.record import FitRecord
from ngvi.bayes.target import Data, Target, function_target
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder, ladder
from ngvi.mirror.estimates import Estimator, first_order
from ngvi.mirror.start import find_start
from ngvi.terminal.progress import Progress

Covariance = Literal["auto", "full", "diagonal"]

# A full covariance costs D² numbers and D³ operations a step; so do a start from the
# Hessian and a mean that steps with full curvature.
LARGEST_FULL = 1000


def choose_covariance(covariance: Covariance, dim: int) -> Literal["full", "diagonal"]:
    """What "auto" means for D dimensions.

    Raises:
        ValueError: an unknown name.
    """
    if covariance not in ("auto", "full", "diagonal"):
        raise ValueError(
            f"covariance must be 'auto', 'full' or 'diagonal', not {covariance!r}."
        )
    if covariance == "auto":
        return "full" if dim <= LARGEST_FULL else "diagonal"
    return covariance


def make_draws(covariance: str, dim: int, seed: int, dtype: Any) -> Ladder:
    """The base draws of a fit: a function of the dimension and one integer."""
    exact = covariance == "full" or dim <= LARGEST_FULL
    # 2D + 2 antithetic draws integrate every quadratic exactly; a diagonal precision
    # of many dimensions makes do with fewer.
    batch = 2 * (dim + 1) if exact else 64
    largest = max(64 * dim, 1024) if exact else 1024
    levels = 1 + int(np.ceil(np.log2(max(largest / batch, 1))))
    check = 1024 if not exact else max(1024, 2 ** int(np.ceil(np.log2(4 * dim))))
    return ladder(dim, batch, levels, check, seed, dtype)


def _estimator(covariance: str, dim: int) -> Estimator:
    return first_order(full_curvature=covariance == "diagonal" and dim <= LARGEST_FULL)


class Beginning(NamedTuple):
    """Where a fit starts."""

    state: loop.State
    value: Float[Array, ""]
    """−log p at the given point."""
    finite: Bool[Array, ""]
    """Whether it and its gradient are finite there."""


def begin(
    target: Target,
    covariance: str,
    settings: loop.Settings,
    data: Data,
    point: Float[Array, "d"],
    draws: Ladder,
) -> Beginning:
    """The state a fit starts from: a descent from `point`, or `point` itself."""
    potential = partial(target.potential, data)
    dim = target.dim
    precision: Dense | Diagonal
    if dim <= LARGEST_FULL or covariance == "full":
        start = find_start(potential, point)
        mean, spent = start.point, start.gradients
        value, finite = start.value, start.finite
        if covariance == "full":
            precision = Dense.from_inverse_root(start.inverse_root)
        else:
            precision = Diagonal(1 / jnp.sqrt((start.inverse_root**2).sum(-1)))
    else:
        mean, spent = point, jnp.ones((), int)
        value, gradient = jax.value_and_grad(potential)(point)
        finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
        precision = Diagonal(jnp.full(dim, 10.0, point.dtype))
    estimator = _estimator(covariance, dim)
    q = Gaussian(mean, precision)
    state = loop.initial_state(potential, estimator, q, draws, settings)
    state = replace(state, gradients=state.gradients + spent)
    return Beginning(state, value, finite)


def advance(
    target: Target,
    covariance: str,
    settings: loop.Settings,
    data: Data,
    state: loop.State,
    draws: Ladder,
    limit: int | Array,
) -> loop.State:
    """Trial steps up to the `limit`-th, or until the fit stops."""
    potential = partial(target.potential, data)
    estimator = _estimator(covariance, target.dim)
    return loop.run(potential, estimator, state, draws, settings, limit)


def solve(
    target: Target,
    covariance: str,
    settings: loop.Settings,
    data: Data,
    point: Float[Array, "d"],
    draws: Ladder,
) -> loop.State:
    """A whole fit as one pure function: `vmap` it over draws (seeds) or data."""
    state = begin(target, covariance, settings, data, point, draws).state
    return advance(
        target, covariance, settings, data, state, draws, settings.max_iterations
    )


# Compiled once for equal targets and shapes: the data are arguments.
_begin = jax.jit(begin, static_argnums=(0, 1, 2))
_advance = jax.jit(advance, static_argnums=(0, 1, 2))


def fit(
    model: Callable[..., Any],
    *args: Any,
    covariance: Covariance = "auto",
    seed: int = 0,
    init: Any = None,
    init_strategy: Callable[..., Any] | None = None,
    progress: bool | None = None,
    settings: loop.Settings | None = None,
    **kwargs: Any,
) -> Posterior:
    """Fit the best Gaussian, on the unconstrained space, to a model's posterior.

    Minimises KL(q ‖ posterior) over Gaussians q by natural-gradient steps until the
    natural gradient vanishes; no setting needs tuning, and nothing depends on the units
    of the data. The answer comes with a verdict on how far it can be trusted.

    Args:
        model: a NumPyro model, called as `model(*args, **kwargs)`; or, with `init`, a
            log density called as `model(params, *args, **kwargs)` → scalar.
        *args: the model's arguments. Arrays may change between fits without a new
            compilation; other values are part of the compiled program.
        covariance: "full", "diagonal", or "auto" (full up to 1,000 dimensions).
        seed: of the base draws. The same seed gives the same answer.
        init: for a log density: a pytree of numbers where the fit starts, which also
            says what `params` looks like.
        init_strategy: for a NumPyro model: where the fit starts, as in
            `numpyro.infer`; by default the center of the prior.
        progress: show a progress line on stderr; by default when it is a terminal.
        settings: tolerances and limits, see `ngvi.mirror.loop.Settings`.
        **kwargs: the model's keyword arguments; one that has the name of an option
            above goes by position.

    Returns:
        The posterior; printing it shows a table and the verdict. Ctrl-C returns the
        best state so far, marked as interrupted.

    Raises:
        ValueError: a model with nothing to infer or with unusable observations, or a
            log density that is not finite at the start; the message names the site.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, ngvi
        >>> def model(y):
        ...     mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> posterior = ngvi.fit(model, jnp.array([1.0, 2.0, 3.0]))
        >>> round(float(posterior.mean["mu"]), 2)
        1.99

    Source: Khan and Rue (2023), The Bayesian learning rule; Lin, Schmidt and Khan
    (2020), Handling the positive-definite constraint in the Bayesian learning rule.
    """
    started = time.perf_counter()
    settings = settings or loop.Settings()
    trace = None
    target: Target
    if init is None:
        target, data, point, trace = model_target(model, args, kwargs, init_strategy)
    else:
        target, data, point = function_target(model, init, args, kwargs)
    chosen = choose_covariance(covariance, target.dim)
    draws = make_draws(chosen, target.dim, seed, point.dtype)
    name = getattr(model, "__name__", type(model).__name__)

    stop_reason = None
    with compile_time.measure() as compiling, Progress(progress, name) as bar:
        state, value, finite = _begin(target, chosen, settings, data, point, draws)
        if not finite:
            undefined = undefined_arguments(args, kwargs)
            raise ValueError(_not_finite(trace, value) + undefined)
        limit, stride = 0, 1
        try:
            while int(state.status) == loop.RUNNING:
                limit = min(limit + stride, settings.max_iterations)
                before = time.perf_counter()
                state = _advance(target, chosen, settings, data, state, draws, limit)
                _show(bar, state)
                quick = time.perf_counter() - before < 0.2
                stride = min(4 * stride, 128) if quick else max(stride // 2, 1)
        except KeyboardInterrupt:
            stop_reason = INTERRUPTED
    seconds = time.perf_counter() - started
    record = FitRecord.of(
        state,
        name=name,
        covariance=chosen,
        seed=seed,
        seconds_compiling=min(compiling.seconds, seconds),
        seconds_running=max(seconds - compiling.seconds, 0.0),
        stop_reason=stop_reason,
    )
    return Posterior(target, data, state.q, record, trace)


def _not_finite(trace: dict[str, Any] | None, value: Array) -> str:
    text = f"The log density at the start is {-float(value)}."
    if np.isfinite(value):
        text = "The gradient of the log density at the start is not finite."
    if trace is None:
        return f"{text} Start where it is finite: init=…"
    return f"{text} {blame(trace)} Try another init_strategy."


def _show(bar: Progress, state: loop.State) -> None:
    last = max(int(state.iteration) - 1, 0)
    bar.update(
        iteration=last + 1,
        elbo=float(state.trace.elbo[last]),
        fisher_length=float(state.trace.fisher_length[last]),
        step=float(state.trace.step[last]),
        draws=int(state.trace.draws[last]),
    )
