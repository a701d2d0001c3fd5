"""Bayesian nets: Gaussian posteriors over weights, by noisy natural gradients."""

from ngvi.nets.algorithm import Algorithm
from ngvi.nets.mixture import Mixture
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import WeightPosterior
from ngvi.nets.prior import GammaPrior, Prior
from ngvi.nets.rows import (
    blocks,
    full,
    ivon,
    noisy_adam,
    noisy_ekfac,
    noisy_kfac,
    slang,
    vadam,
    vogn,
)
from ngvi.nets.update import Info, Rule, State

__all__ = [
    "Algorithm",
    "GammaPrior",
    "Info",
    "Mixture",
    "ObservationNoise",
    "Prior",
    "Rule",
    "State",
    "WeightPosterior",
    "blocks",
    "full",
    "ivon",
    "noisy_adam",
    "noisy_ekfac",
    "noisy_kfac",
    "slang",
    "vadam",
    "vogn",
]
