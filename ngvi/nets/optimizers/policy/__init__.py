"""Policies moved by natural gradients, and what they act in."""

from ngvi.nets.optimizers.policy.advantages import generalized_advantages
from ngvi.nets.optimizers.policy.baseline import GaussNewtonBaseline
from ngvi.nets.optimizers.policy.environments import CartPole, Environment, Pendulum
from ngvi.nets.optimizers.policy.rollouts import begin, episode_returns, rollout
from ngvi.nets.optimizers.policy.rows import (
    PolicyOptimizer,
    natural_policy_gradient,
    policy_gradient,
    trpo,
)
from ngvi.nets.optimizers.policy.surrogate import PolicyBatch
from ngvi.nets.optimizers.policy.train import PolicyTrainer

__all__ = [
    "CartPole",
    "Environment",
    "GaussNewtonBaseline",
    "Pendulum",
    "PolicyBatch",
    "PolicyOptimizer",
    "PolicyTrainer",
    "begin",
    "episode_returns",
    "generalized_advantages",
    "natural_policy_gradient",
    "policy_gradient",
    "rollout",
    "trpo",
]
