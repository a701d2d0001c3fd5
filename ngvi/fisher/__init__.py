"""The Fisher engine: every kind of curvature, in every structure, of any model."""

from ngvi.fisher.curvature import Curvature, SingularMatrixError
from ngvi.fisher.damped import Damped
from ngvi.fisher.engine import explain, fisher, fisher_vector_product
from ngvi.fisher.geometry import fisher_kernel, mean_kl, natural_gradient_flow
from ngvi.fisher.laplace import Laplace, laplace
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.mlp import MLP
from ngvi.fisher.regression import (
    GLMResult,
    MultinomialResult,
    glm,
    linear_regression,
    logistic,
    multinomial,
    poisson,
)
from ngvi.fisher.running import RunningCurvature, Stale
from ngvi.fisher.trust_region import (
    TrustRegionStep,
    adapted_damping,
    best_combination,
    reduction_ratio,
    trust_region_step,
)

__all__ = [
    "MLP",
    "Curvature",
    "Damped",
    "GLMResult",
    "Laplace",
    "Likelihood",
    "MultinomialResult",
    "RunningCurvature",
    "SingularMatrixError",
    "Stale",
    "TrustRegionStep",
    "adapted_damping",
    "best_combination",
    "explain",
    "fisher",
    "fisher_kernel",
    "fisher_vector_product",
    "glm",
    "laplace",
    "linear_regression",
    "logistic",
    "mean_kl",
    "multinomial",
    "natural_gradient_flow",
    "poisson",
    "reduction_ratio",
    "trust_region_step",
]
