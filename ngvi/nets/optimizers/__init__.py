"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.extras import extra

with extra("nets", "ngvi.nets.optimizers"):
    from ngvi.nets.optimizers.diagonal import diagonal
    from ngvi.nets.optimizers.diagonal_estimates import (
        fisher_diagonal,
        gauss_newton_bartlett,
        hutchinson,
        squared_mean_gradient,
    )
    from ngvi.nets.optimizers.hessian_diagonals import (
        adahessian,
        sophia,
    )
    from ngvi.nets.optimizers.inverse_free import (
        inverse_free_shampoo,
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
    from ngvi.nets.optimizers.shampoo import shampoo
    from ngvi.nets.optimizers.singd import singd
    from ngvi.nets.optimizers.soap import soap
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
    "shampoo",
    "singd",
    "soap",
    "sophia",
    "squared_gradient",
    "squared_mean_gradient",
    "stochastic_natural_gradient",
    "svrg",
    "train",
    "trpo",
]
