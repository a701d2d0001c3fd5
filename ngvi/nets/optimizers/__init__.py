"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.extras import extra

with extra("nets", "ngvi.nets.optimizers"):
    from ngvi.nets.optimizers.diagonal import diagonal, scale_by_diagonal
    from ngvi.nets.optimizers.diagonal_estimates import (
        fisher_diagonal,
        gauss_newton_bartlett,
        hutchinson,
        squared_mean_gradient,
    )
    from ngvi.nets.optimizers.hessian_diagonals import (
        adahessian,
        scale_by_adahessian,
        scale_by_sophia,
        sophia,
    )
    from ngvi.nets.optimizers.inverse_free import (
        inverse_free_shampoo,
        scale_by_inverse_free_shampoo,
    )
    from ngvi.nets.optimizers.optimizer import CurvatureOptimizer
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
    from ngvi.nets.optimizers.shampoo import scale_by_shampoo, shampoo
    from ngvi.nets.optimizers.soap import scale_by_soap, soap
    from ngvi.nets.optimizers.state import Anchor, Info, State
    from ngvi.nets.optimizers.svrg import svrg
    from ngvi.nets.optimizers.train import train

__all__ = [
    "Anchor",
    "CartPole",
    "CurvatureOptimizer",
    "Environment",
    "GaussNewtonBaseline",
    "Info",
    "Pendulum",
    "PolicyBatch",
    "PolicyOptimizer",
    "PolicyTrainer",
    "Settings",
    "State",
    "adahessian",
    "diagonal",
    "diagonal_fisher",
    "ekfac",
    "fisher_diagonal",
    "gauss_newton",
    "gauss_newton_bartlett",
    "hessian_free",
    "hutchinson",
    "inverse_free_shampoo",
    "kfac",
    "natural_gradient",
    "natural_policy_gradient",
    "policy_gradient",
    "scale_by_adahessian",
    "scale_by_diagonal",
    "scale_by_inverse_free_shampoo",
    "scale_by_shampoo",
    "scale_by_soap",
    "scale_by_sophia",
    "shampoo",
    "soap",
    "sophia",
    "squared_gradient",
    "squared_mean_gradient",
    "stochastic_natural_gradient",
    "svrg",
    "train",
    "trpo",
]
