"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.nets.optimizers.diagonal import (
    adahessian,
    diagonal,
    scale_by_adahessian,
    scale_by_diagonal,
    scale_by_sophia,
    sophia,
)
from ngvi.nets.optimizers.diagonal_estimates import (
    fisher_diagonal,
    gauss_newton_bartlett,
    hutchinson,
    squared_mean_gradient,
)
from ngvi.nets.optimizers.inverse_free import (
    inverse_free_shampoo,
    scale_by_inverse_free_shampoo,
)
from ngvi.nets.optimizers.shampoo import scale_by_shampoo, shampoo
from ngvi.nets.optimizers.soap import scale_by_soap, soap
from ngvi.nets.optimizers.svrg import svrg

__all__ = [
    "adahessian",
    "diagonal",
    "fisher_diagonal",
    "gauss_newton_bartlett",
    "hutchinson",
    "inverse_free_shampoo",
    "scale_by_adahessian",
    "scale_by_diagonal",
    "scale_by_inverse_free_shampoo",
    "scale_by_shampoo",
    "scale_by_soap",
    "scale_by_sophia",
    "shampoo",
    "soap",
    "sophia",
    "squared_mean_gradient",
    "svrg",
]
