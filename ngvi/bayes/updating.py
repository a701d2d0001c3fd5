"""Bayes' rule, batch after batch: the posterior of earlier data is the prior of later.

    ℓ(z) = −log lik(new data | z) − log q(z)

stands for −log p(z, new data) wherever a fit needs it. The one natural step of length 1
from q itself,

    S⁺ = S + E_q[∇²(−log lik)],     m⁺ = m − S⁺⁻¹ E_q[∇(−log lik)],

is exact where the likelihood is Gaussian in z, and elsewhere a cheap update.

Source: Jones, Chang and Murphy (2024), Bayesian online natural gradient (BONG);
Kulhavý and Zarrop (1993), On a general concept of forgetting.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to

from ngvi.bayes import compile_time
from ngvi.bayes.checks import undefined_arguments
from ngvi.bayes.diagnostics import ONE_STEP
from ngvi.bayes.load import LoadedPosterior
from ngvi.bayes.model_trace import Trace, base_support, count_observations
from ngvi.bayes.numpyro_model import ModelTarget, model_target
from ngvi.bayes.plan import Plan, plan_of
from ngvi.bayes.record import FitRecord
from ngvi.bayes.target import Data, FunctionTarget, Target, function_target
from ngvi.families import Gaussian
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior

# Of the ladder of draws, the level that an update uses: four times its first.
_LEVEL = 2
_TRIALS = 12


def weighed(
    data: Data,
    target: Target,
    trace: Trace | None,
    prior: Posterior | LoadedPosterior | Gaussian | None,
    forgetting: float,
    power: float,
) -> Data:
    """The data with what is to be fitted of prior and likelihood.

    Raises:
        ValueError: the prior is of other sites than the model, or of other shapes; a
            weight is not in its range or has nothing to weigh.
        TypeError: the prior is neither a posterior nor a Gaussian, or its q is none.
    """
    if not 0 <= forgetting <= 1:
        raise ValueError(f"forgetting must be from 0 to 1, not {forgetting}.")
    if not power > 0 or not np.isfinite(power):
        raise ValueError(f"likelihood_power must be positive, not {power}.")
    if forgetting and prior is None:
        raise ValueError("forgetting needs a prior=… to forget.")
    if isinstance(target, FunctionTarget):
        if forgetting:
            raise ValueError(
                "forgetting goes back to the model's own prior, which a log likelihood "
                "does not have: fit a NumPyro model."
            )
        if power != 1 and prior is None:
            raise ValueError(
                "likelihood_power needs to know the likelihood: with prior=… the "
                "function is the log likelihood."
            )
    dtype = jnp.result_type(float)
    if prior is not None:
        data = data._replace(prior=_gaussian(prior, target, trace))
    if forgetting:
        data = data._replace(forgetting=jnp.asarray(forgetting, dtype))
    if power != 1:
        data = data._replace(power=jnp.asarray(power, dtype))
    return data


def _gaussian(
    prior: Posterior | LoadedPosterior | Gaussian, target: Target, trace: Trace | None
) -> Gaussian:
    if isinstance(prior, Gaussian):
        if prior.dim != target.dim:
            raise ValueError(
                f"The prior has {prior.dim} coordinates, the model {target.dim}."
            )
        return prior
    if not hasattr(prior, "gaussian"):
        raise TypeError(
            "prior must be what ngvi.fit returned, or a Gaussian on the unconstrained "
            f"space, not {type(prior).__name__}."
        )
    _same_sites(prior, target, trace)
    if not isinstance(prior, LoadedPosterior):
        prior._needs_gaussian(
            "A prior", "prior=posterior.gaussian has its mean and covariance"
        )
    return prior.gaussian


def _same_sites(
    prior: Posterior | LoadedPosterior, target: Target, trace: Trace | None
) -> None:
    known = None if isinstance(prior, LoadedPosterior) else prior.target
    if not isinstance(target, ModelTarget) or not isinstance(known, ModelTarget):
        if prior.coordinate_names != target.names:
            raise ValueError(
                "The prior is of other parameters than the model: "
                f"{_few(prior.coordinate_names)} there, {_few(target.names)} here."
            )
        return
    before = {site.name: site for site in known.sites}
    now = {site.name: site for site in target.sites}
    for name in now.keys() - before.keys():
        raise ValueError(f"The latent site '{name}' is not in the prior.")
    for name in before.keys() - now.keys():
        raise ValueError(f"The prior's latent site '{name}' is not in the model.")
    for name, site in now.items():
        old = before[name].unconstrained_shape
        if old != site.unconstrained_shape:
            raise ValueError(
                f"The latent site '{name}' has the unconstrained shape "
                f"{site.unconstrained_shape} here and {old} in the prior."
            )
        runs = (trace or {}, getattr(prior, "trace", None) or {})
        if all(name in run for run in runs):
            kinds = [_transform(run[name]["fn"].support) for run in runs]
            if kinds[0] != kinds[1]:
                raise ValueError(
                    f"The latent site '{name}' has another support than in the prior: "
                    f"its transform is {kinds[0]} here and {kinds[1]} there."
                )
    if [*before] != [*now]:
        raise ValueError(
            f"The model has its sites in another order ({_few(tuple(now))}) than the "
            f"prior ({_few(tuple(before))})."
        )


def _transform(support: Any) -> str:
    return type(biject_to(base_support(support))).__name__


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


@partial(jax.jit, static_argnums=(0, 1, 2))
def absorb(
    target: Target,
    plan: Plan,
    settings: loop.Settings,
    data: Data,
    draws: Ladder,
    level: Array,
    goal: Array,
    limit: Array,
) -> loop.State:
    """Natural steps from the prior's Gaussian towards the posterior of these data.

    The first has length 1 unless that raises the objective: then it is cut.

    Args:
        target, plan, settings: static.
        data: with a prior.
        draws: the ladder of base draws.
        level: which of its levels.
        goal: a Fisher length; above it there are more steps. Infinite for one.
        limit: trials at most, the evaluation of the prior included.

    Returns:
        A state, evaluated where it stands.
    """
    assert data.prior is not None
    potential, estimator = partial(target.potential, data), plan.estimator()
    state = loop.initial_state(potential, estimator, data.prior, draws, settings)
    # As far as the data say: one batch may tell much more than the prior.
    infinite = jnp.full_like(state.radius, jnp.inf)
    state = replace(state, level=level, radius=infinite)

    def unfinished(state: loop.State) -> Array:
        rejected = state.tries > 0
        begun = state.iteration < 2
        far = state.length > goal
        return (begun | rejected | far) & (state.iteration < limit)

    return jax.lax.while_loop(
        unfinished,
        lambda s: loop.trial(potential, estimator, s, draws, settings),
        state,
    )


def update(posterior: Posterior, args: tuple, kwargs: dict[str, Any]) -> Posterior:
    """One natural step on new data; see `ngvi.Posterior.update`."""
    started = time.perf_counter()
    trace = None
    target: Target
    before, known = posterior.target, posterior.data
    if isinstance(before, ModelTarget):
        target, data, _, trace = model_target(before.model, args, kwargs, None)
    elif isinstance(before, FunctionTarget) and known.prior is not None:
        init = before.params(posterior.gaussian.mean)
        target, data, _ = function_target(before.function, init, args, kwargs)
    else:
        raise TypeError(
            "This posterior is of a plain log density, which may hold a prior: "
            "ngvi.fit(log_likelihood, ..., init=..., prior=posterior)."
        )
    data = weighed(data, target, trace, posterior, 0.0, 1.0)
    precision = posterior.gaussian.precision
    plan = plan_of(precision, count_observations(trace or {}))
    with compile_time.measure() as compiling:
        settings = plan.settings(loop.Settings())
        draws = plan.draws(
            posterior.record.diagnostics.seed, precision.diagonal().dtype
        )
        level = min(_LEVEL, draws.levels - 1)
        state = absorb(target, plan, settings, data, draws, level, np.inf, _TRIALS)
        if bool(state.fresh):
            undefined = undefined_arguments(args, kwargs)
            raise ValueError(f"The log likelihood is not finite.{undefined}")
        length = float(state.length)
    record = FitRecord.of(
        state,
        name=posterior.name,
        structure=posterior.record.structure,
        seed=posterior.record.diagnostics.seed,
        seconds=compiling.split(started),
        stop_reason=ONE_STEP,
        converged=length < settings.loose_tolerance,
    )
    return type(posterior)(target, data, state.q, record, trace)
