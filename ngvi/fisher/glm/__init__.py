"""Generalised linear models, fitted by natural gradients."""

from ngvi.fisher.glm.links import Link
from ngvi.fisher.glm.models import glm, linear_regression, logistic, poisson
from ngvi.fisher.glm.multinomial import MultinomialResult, multinomial
from ngvi.fisher.glm.result import GLMResult

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
