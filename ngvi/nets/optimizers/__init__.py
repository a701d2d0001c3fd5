"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.nets.optimizers.optimizer import CurvatureOptimizer
from ngvi.nets.optimizers.rows import (
    diagonal_fisher,
    ekfac,
    gauss_newton,
    hessian_free,
    kfac,
    natural_gradient,
    squared_gradient,
    stochastic_natural_gradient,
)
from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.optimizers.state import Anchor, Info, State
from ngvi.nets.optimizers.train import train

__all__ = [
    "Anchor",
    "CurvatureOptimizer",
    "Info",
    "Settings",
    "State",
    "diagonal_fisher",
    "ekfac",
    "gauss_newton",
    "hessian_free",
    "kfac",
    "natural_gradient",
    "squared_gradient",
    "stochastic_natural_gradient",
    "train",
]
