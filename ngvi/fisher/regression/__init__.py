"""Generalised linear models, fitted by natural gradients."""

from ngvi.fisher.regression.links import Link
from ngvi.fisher.regression.models import glm, linear_regression, logistic, poisson
from ngvi.fisher.regression.multinomial import MultinomialResult, multinomial
from ngvi.fisher.regression.result import GLMResult

__all__ = [
    "GLMResult",
    "Link",
    "MultinomialResult",
    "glm",
    "linear_regression",
    "logistic",
    "multinomial",
    "poisson",
]
