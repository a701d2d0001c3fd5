"""The Fisher engine: every kind of curvature, in every structure, of any model."""

from ngvi.fisher.curvature import Curvature, Damped, SingularMatrixError
from ngvi.fisher.engine import explain, fisher, fisher_vector_product
from ngvi.fisher.likelihoods import Likelihood

__all__ = [
    "Curvature",
    "Damped",
    "Likelihood",
    "SingularMatrixError",
    "explain",
    "fisher",
    "fisher_vector_product",
]
