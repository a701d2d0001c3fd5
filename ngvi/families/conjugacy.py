"""Conjugate pairs: Bayes' rule as a sum of natural parameters.

A prior is conjugate to a likelihood if log p(y | θ), as a function of θ, is a
combination of the prior's own statistics,

    log p(y | θ) = ⟨c(y), T(θ)⟩ + what depends on y alone,

so that λ_posterior = λ_prior + Σᵢ wᵢ c(yᵢ). A row of `conjugate_pairs.PAIRS` says what
c is, which member of the likelihood a value of θ stands for, and the predictive
distribution of a further y where it is a known one.

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
from ngvi.families.domains import REAL, Domain, Joint
from ngvi.families.parameters import fixed_fields, is_concrete

Likelihood = ExponentialFamily | type[ExponentialFamily]


class Pair(NamedTuple):
    """How observations of a likelihood change a prior over its parameter θ."""

    terms: Callable[[Any, Any, Any], Params]
    """(prior, likelihood, y) ↦ c(y), each leaf with the leading axes of y."""
    member: Callable[[Any, Any], ExponentialFamily]
    """(likelihood, θ) ↦ the member of the likelihood with this parameter."""
    predictive: Callable[[Any, Any], Any] | None = None
    """(prior, likelihood) ↦ the distribution of y, of `numpyro.distributions`."""
    support: Domain | Joint | None = None
    """Where y lies, if not in the likelihood's support."""


def pair_of(prior: ExponentialFamily, likelihood: Likelihood) -> Pair:
    """The row for a prior and a likelihood.

    Raises:
        TypeError: they are no conjugate pair known here, or the likelihood has fixed
            parameters and was given as a class.
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
    if isinstance(likelihood, type) and fixed_fields(cls):
        raise TypeError(
            f"pass a member of {cls.__name__}, not the class: its fixed parameters "
            "must be known"
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
    support: Any = row.support or likelihood.support
    if isinstance(support, property):  # it depends on the member, which is unknown
        support = REAL
    y = support.as_floats(y, prior.dtype)
    wrong = ~support.holds(y)
    if is_concrete(wrong) and bool(wrong.any()):
        raise ValueError(
            f"observe: {int(wrong.sum())} of {wrong.size} observations are not "
            f"{support.description}"
        )
    y = jax.tree.map(lambda v: jnp.where(wrong.any(), jnp.nan, v), y)
    count = jax.tree.leaves(y)[0].shape[0]
    w = jnp.ones(count, prior.dtype) if weights is None else jnp.asarray(weights)

    def posterior(start: Array, term: Array) -> Array:
        return start + jnp.tensordot(w, term, 1)

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
