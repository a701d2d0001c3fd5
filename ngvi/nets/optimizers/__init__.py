"""Optimisers by natural gradients and curvature, in the manner of optax."""

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

__all__ = [
    "CartPole",
    "Environment",
    "GaussNewtonBaseline",
    "Pendulum",
    "PolicyBatch",
    "PolicyOptimizer",
    "PolicyTrainer",
    "natural_policy_gradient",
    "policy_gradient",
    "trpo",
]
