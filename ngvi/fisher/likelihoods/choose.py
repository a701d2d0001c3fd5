"""From a name, a family or a function to a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ngvi.families import ExponentialFamily
from ngvi.fisher.likelihoods.base import Likelihood
from ngvi.fisher.likelihoods.bounded import Beta, VonMises
from ngvi.fisher.likelihoods.classes import Categorical, Ordinal
from ngvi.fisher.likelihoods.counts import Bernoulli, Poisson
from ngvi.fisher.likelihoods.exponential_family import NaturalParameters
from ngvi.fisher.likelihoods.from_numpyro import FromNumPyro
from ngvi.fisher.likelihoods.negative_binomial import NegativeBinomial
from ngvi.fisher.likelihoods.normal import Gaussian, HeteroscedasticGaussian
from ngvi.fisher.likelihoods.positive import Exponential, Gamma
from ngvi.fisher.likelihoods.soft_bernoulli import SoftBernoulli
from ngvi.fisher.likelihoods.student_t import StudentT

NAMES: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "beta": Beta,
    "categorical": Categorical,
    "exponential": Exponential,
    "gamma": Gamma,
    "gaussian": Gaussian,
    "heteroscedastic_gaussian": HeteroscedasticGaussian,
    "negative_binomial": NegativeBinomial,
    "ordinal": Ordinal,
    "poisson": Poisson,
    "soft_bernoulli": SoftBernoulli,
    "student_t": StudentT,
    "von_mises": VonMises,
}


def as_likelihood(spec: Any) -> Likelihood:
    """The likelihood that a specification names.

    Args:
        spec: a likelihood, which is returned; a name such as "poisson", for one with
            its defaults (a noise that can be learned is an output, but for
            "gaussian", sd 1, and "student_t", scale 1 and 4 degrees of freedom); a
            class or a member of `ngvi.families`, whose natural parameters are the
            outputs; or a function from the outputs of an example to a distribution of
            NumPyro.

    Raises:
        ValueError: the name is not known.
        TypeError: it is none of these.

    Example:
        >>> as_likelihood("gaussian")
        Gaussian(scale=1.0)
    """
    if isinstance(spec, Likelihood):
        return spec
    if isinstance(spec, str):
        if spec == "binomial":
            raise ValueError(
                "a binomial likelihood needs its number of trials: pass "
                "Binomial(total_count)"
            )
        if spec not in NAMES:
            known = ", ".join(sorted([*NAMES, "binomial"]))
            raise ValueError(f"unknown likelihood {spec!r}; known are {known}")
        return NAMES[spec]()
    if isinstance(spec, ExponentialFamily):
        return NaturalParameters.of(spec)
    if isinstance(spec, type):
        if issubclass(spec, ExponentialFamily):
            return NaturalParameters(spec)
        if issubclass(spec, Likelihood):
            return spec()
    elif callable(spec):
        return FromNumPyro(spec)
    raise TypeError(
        "a likelihood must be a Likelihood, its name, an exponential family of "
        "ngvi.families or a function from outputs to a distribution of NumPyro, got "
        f"{spec!r}"
    )
