"""Likelihoods: what a model's outputs say of its labels."""

from ngvi.fisher.likelihoods.base import Likelihood
from ngvi.fisher.likelihoods.bounded import Beta, VonMises
from ngvi.fisher.likelihoods.choose import as_likelihood
from ngvi.fisher.likelihoods.classes import Categorical, Ordinal
from ngvi.fisher.likelihoods.counts import Bernoulli, Binomial, Poisson
from ngvi.fisher.likelihoods.elementwise import Elementwise
from ngvi.fisher.likelihoods.exponential_family import NaturalParameters
from ngvi.fisher.likelihoods.from_numpyro import FromNumPyro
from ngvi.fisher.likelihoods.negative_binomial import NegativeBinomial
from ngvi.fisher.likelihoods.normal import (
    Gaussian,
    HeteroscedasticGaussian,
    MultivariateGaussian,
)
from ngvi.fisher.likelihoods.positive import Exponential, Gamma
from ngvi.fisher.likelihoods.product import Product
from ngvi.fisher.likelihoods.soft_bernoulli import SoftBernoulli
from ngvi.fisher.likelihoods.student_t import StudentT

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Elementwise",
    "Exponential",
    "FromNumPyro",
    "Gamma",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "MultivariateGaussian",
    "NaturalParameters",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "Product",
    "SoftBernoulli",
    "StudentT",
    "VonMises",
    "as_likelihood",
]
