"""What a posterior says of observations: replicated, new, and how likely they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ngvi.bayes.model_trace import count_observations, observed_sites
from ngvi.bayes.replicates import generative, log_likelihoods
from ngvi.bayes.summaries import Sites

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior


def latent_draws(
    posterior: Posterior, num_samples: int | None, seed: int
) -> dict[str, Array]:
    """Draws of the latent sites; those of the summary if `num_samples` is None."""
    target = posterior._model()
    draws = (
        posterior._summary_draws.sites
        if num_samples is None
        else posterior.sample(num_samples, seed=seed)
    )
    return {site.name: jnp.asarray(draws[site.name]) for site in target.sites}


def predictive(
    posterior: Posterior,
    args: tuple,
    kwargs: dict[str, Any],
    num_samples: int | None,
    seed: int,
) -> dict[str, Array]:
    """See `ngvi.Posterior.predictive`."""
    from numpyro.infer import Predictive

    target = posterior._model()
    if not args and not kwargs:
        posterior._needs_data("predictive()", "give it arguments of the model")
        args, kwargs = target.arguments.join(posterior.data)
    latent = latent_draws(posterior, num_samples, seed)
    predict = Predictive(
        generative(target.program), posterior_samples=latent, parallel=True
    )
    draws = predict(jax.random.key(seed), *args, **kwargs)
    return {k: v for k, v in draws.items() if k not in latent}


def log_likelihood(posterior: Posterior, num_samples: int | None, seed: int) -> Sites:
    """See `ngvi.Posterior.log_likelihood`."""
    latent = latent_draws(posterior, num_samples, seed)
    return log_likelihood_at(posterior, jax.device_get(latent))


def log_likelihood_at(posterior: Posterior, latent: Sites) -> Sites:
    """log p(yᵢ | draw) for each observed site, (S, *site batch shape), at draws of the
    latent sites.

    Raises:
        TypeError: there is no such thing; the message says why.
    """
    target = posterior._model()
    if target.enumerated:
        raise TypeError(
            "Discrete sites were summed out of this model: its log likelihood does "
            "not split into observations given the continuous sites."
        )
    posterior._needs_data(
        "log_likelihood()", "fit a part of them with prior=posterior, and ask that"
    )
    trace = posterior.trace or {}
    sites, numbers = observed_sites(trace), count_observations(trace)
    return log_likelihoods(target, posterior.data, latent, sites, numbers)
