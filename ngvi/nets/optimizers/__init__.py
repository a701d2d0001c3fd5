"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.nets.optimizers.diagonal import (
    adahessian,
    diagonal_fisher,
    scale_by_adahessian,
    scale_by_diagonal,
    scale_by_sophia,
    sophia,
)
from ngvi.nets.optimizers.diagonal_estimates import (
    fisher_diagonal,
    gauss_newton_bartlett,
    hutchinson,
    squared_gradient,
)
from ngvi.nets.optimizers.policy import (
    CartPole,
    Environment,
    GaussNewtonBaseline,
    Pendulum,
    PolicyBatch,
    PolicyOptimizer,
    PolicyTrainer,
    natural_policy_gradient,
    policy_gradient,
    trpo,
)
from ngvi.nets.optimizers.shampoo import (
    scale_by_shampoo,
    shampoo,
)
from ngvi.nets.optimizers.soap import (
    scale_by_soap,
    soap,
)

__all__ = [
    "CartPole",
    "Environment",
    "GaussNewtonBaseline",
    "Pendulum",
    "PolicyBatch",
    "PolicyOptimizer",
    "PolicyTrainer",
    "adahessian",
    "diagonal_fisher",
    "fisher_diagonal",
    "gauss_newton_bartlett",
    "hutchinson",
    "natural_policy_gradient",
    "policy_gradient",
    "scale_by_adahessian",
    "scale_by_diagonal",
    "scale_by_shampoo",
    "scale_by_soap",
    "scale_by_sophia",
    "shampoo",
    "soap",
    "sophia",
    "squared_gradient",
    "trpo",
]
