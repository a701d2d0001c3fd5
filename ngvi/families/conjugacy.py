"""Conjugate pairs: Bayes' rule as a sum of natural parameters.

A prior is conjugate to a likelihood if log p(y | θ), as a function of θ, is a
combination of the prior's own statistics,

    log p(y | θ) = ⟨c(y), T(θ)⟩ + what depends on y alone,

so that λ_posterior = λ_prior + Σᵢ wᵢ c(yᵢ). A row of `conjugate_pairs.PAIRS` says what
c is, and the predictive distribution of a further y where it is a known one.

Source: Diaconis and Ylvisaker (1979), Conjugate priors for exponential families;
Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.base import ExponentialFamily, Params
from ngvi.families.data import check_data
from ngvi.families.domains import Domain, Joint
from ngvi.families.parameters import fixed_fields

Likelihood = ExponentialFamily | type[ExponentialFamily]


class Pair(NamedTuple):
    """How observations of a likelihood change a prior over its parameter θ."""

    terms: Callable[[Any, Any, Any], Params]
    """(prior, likelihood, y) ↦ c(y), each leaf with the leading axes of y."""
    predictive: Callable[[Any, Any], Any] | None = None
    """(prior, likelihood) ↦ the distribution of y, of `numpyro.distributions`."""
    known: bool = False
    """Whether something about the likelihood must be known, besides what is fixed."""
    support: Callable[[Any, Any], Domain | Joint] = lambda _, likelihood: (
        likelihood.support
    )
    """(prior, likelihood) ↦ where y lies."""


def pair_of(prior: ExponentialFamily, likelihood: Likelihood) -> Pair:
    """The row for a prior and a likelihood.

    Raises:
        TypeError: they are no conjugate pair known here, or a class was given as a
            likelihood about which something must be known.
    """
    from ngvi.families.conjugate_pairs import PAIRS

    cls = likelihood if isinstance(likelihood, type) else type(likelihood)
    row = PAIRS.get((type(prior), cls))
    if row is None:
        known = [y.__name__ for p, y in PAIRS if p is type(prior)]
        raise TypeError(
            f"{type(prior).__name__} is not conjugate to {cls.__name__}; it is to "
            f"{', '.join(known) or 'none'}"
        )
    if isinstance(likelihood, type) and (row.known or fixed_fields(cls)):
        raise TypeError(
            f"pass a member of {cls.__name__}, not the class: those of its parameters "
            f"that {type(prior).__name__} does not speak of must be known"
        )
    return row


def observe(
    prior: ExponentialFamily,
    likelihood: Likelihood,
    y: Any,
    weights: Float[Array, "n"] | None = None,
) -> Any:
    """The posterior; see `ExponentialFamily.observe`."""
    row = pair_of(prior, likelihood)
    support = row.support(prior, likelihood)
    y, w, usable = check_data("observe", y, weights, support, prior.dtype)
    batch = len(prior.batch_shape)

    def posterior(start: Array, term: Array) -> Array:
        event, found = start.shape[batch:], term.shape[1:]
        if found[len(found) - len(event) :] != event:
            raise ValueError(
                f"observe: one observation adds {found} numbers to the λ of this "
                f"{type(prior).__name__}, which has {event}"
            )
        mask = jnp.expand_dims(usable, tuple(range(-len(event), 0)))
        return start + jnp.where(mask, jnp.tensordot(w, term, 1), jnp.nan)

    terms = row.terms(prior, likelihood, y)
    return prior.with_natural_params(
        jax.tree.map(posterior, prior.natural_params, terms)
    )


def predictive(prior: ExponentialFamily, likelihood: Likelihood) -> Any:
    """The distribution of one y; see `ExponentialFamily.predictive`."""
    row = pair_of(prior, likelihood)
    if row.predictive is None:
        raise NotImplementedError(
            f"the predictive distribution of {type(prior).__name__} and this "
            "likelihood is none of numpyro.distributions"
        )
    return row.predictive(prior, likelihood)
