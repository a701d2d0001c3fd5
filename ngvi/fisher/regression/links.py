"""Link functions of generalised linear models: η = g(μ).

A link is written as what the linear predictor η makes of the mean, in the three forms
that likelihoods take: μ, log μ, and logit μ for proportions. Each form is its own
formula where composing them would lose digits: logit Φ(η) is a difference of two log
distribution functions, finite where Φ(η) rounds to one.

Source: McCullagh and Nelder (1989), Generalized linear models, sections 2.2 and 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Array, Float

from ngvi.families.special.logistic import log1mexp, sigmoid, softplus

Values = Float[Array, "*s"]
Function = Callable[[Values], Values]


@dataclass(frozen=True)
class Link:
    """g, by its inverse in three forms.

    Attributes:
        name: "logit", "log", …
        of_mean: g, μ ↦ η.
        mean: η ↦ μ.
        log_mean: η ↦ log μ; NaN where μ is not positive.
        logit_mean: η ↦ log μ − log(1 − μ); NaN where μ is no proportion.
    """

    name: str
    of_mean: Function
    mean: Function
    log_mean: Function
    logit_mean: Function

    def output(self, kind: str) -> Function:
        """η ↦ what a likelihood takes: "mean", "log mean", "log rate", "logit mean"."""
        if kind == "log rate":
            return lambda eta: -self.log_mean(eta)
        return {
            "mean": self.mean,
            "log mean": self.log_mean,
            "logit mean": self.logit_mean,
        }[kind]


def _logit(p: Values) -> Values:
    return jnp.log(p) - jnp.log1p(-p)


def _same(eta: Values) -> Values:
    return eta


def _square(eta: Values) -> Values:
    # The branch of η ≥ 0: g is one to one there only.
    return jnp.where(eta >= 0, eta**2, jnp.nan)


def _cauchit_logit(eta: Values) -> Values:
    """log of ½ + atan(η)/π over ½ − atan(η)/π: of arguments of one angle."""
    # ½ + atan(η)/π = atan2(1, −η)/π.
    one = jnp.ones_like(eta)
    return jnp.log(jnp.arctan2(one, -eta)) - jnp.log(jnp.arctan2(one, eta))


IDENTITY = Link("identity", _same, _same, jnp.log, _logit)
LOG = Link("log", jnp.log, jnp.exp, _same, lambda eta: eta - log1mexp(eta))
INVERSE = Link(
    "inverse",
    lambda mean: 1 / mean,
    lambda eta: jnp.where(eta > 0, 1 / eta, jnp.nan),
    lambda eta: -jnp.log(eta),
    # 1/η is a proportion for η > 1: its odds are 1/(η − 1).
    lambda eta: -jnp.log(eta - 1),
)
SQRT = Link(
    "sqrt",
    jnp.sqrt,
    _square,
    lambda eta: 2 * jnp.log(eta),
    lambda eta: 2 * jnp.log(eta) - jnp.log1p(-(eta**2)),
)
LOGIT = Link("logit", _logit, sigmoid, lambda eta: -softplus(-eta), _same)
PROBIT = Link(
    "probit",
    ndtri,
    ndtr,
    log_ndtr,
    lambda eta: log_ndtr(eta) - log_ndtr(-eta),
)
CLOGLOG = Link(
    "cloglog",
    lambda mean: jnp.log(-jnp.log1p(-mean)),
    lambda eta: -jnp.expm1(-jnp.exp(eta)),
    lambda eta: log1mexp(-jnp.exp(eta)),
    lambda eta: log1mexp(-jnp.exp(eta)) + jnp.exp(eta),
)
CAUCHIT = Link(
    "cauchit",
    lambda mean: jnp.tan(math.pi * (mean - 0.5)),
    lambda eta: jnp.arctan2(jnp.ones_like(eta), -eta) / math.pi,
    lambda eta: jnp.log(jnp.arctan2(jnp.ones_like(eta), -eta) / math.pi),
    _cauchit_logit,
)

LINKS = {
    link.name: link
    for link in (IDENTITY, LOG, INVERSE, SQRT, LOGIT, PROBIT, CLOGLOG, CAUCHIT)
}
OWN = {"mean": IDENTITY, "log mean": LOG, "log rate": LOG, "logit mean": LOGIT}
"""The link of a likelihood whose output is the linear predictor itself, or minus it."""


def as_link(spec: Link | str | None, kind: str) -> Link:
    """The link that a name stands for; None for the likelihood's own.

    Raises:
        ValueError: the name is not known.
    """
    if spec is None:
        return OWN[kind]
    if isinstance(spec, Link):
        return spec
    if spec not in LINKS:
        raise ValueError(f"unknown link {spec!r}; known are {', '.join(sorted(LINKS))}")
    return LINKS[spec]
