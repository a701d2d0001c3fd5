"""Bayesian nets: Gaussian posteriors over weights, by noisy natural gradients."""

import importlib
from typing import TYPE_CHECKING, Any

from ngvi.nets.algorithm import Algorithm
from ngvi.nets.averages import Moments
from ngvi.nets.elbo import ELBO, elbo
from ngvi.nets.linearized import linearized
from ngvi.nets.linearized_fit import Linearized
from ngvi.nets.mixture import Mixture
from ngvi.nets.numpyro_model import from_numpyro
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import PartialPosterior, WeightPosterior
from ngvi.nets.predictive import Predictive
from ngvi.nets.prior import GammaPrior, Prior
from ngvi.nets.rows import (
    blocks,
    full,
    ivon,
    last_layer,
    noisy_adam,
    noisy_ekfac,
    noisy_kfac,
    slang,
    vadam,
    vogn,
)
from ngvi.nets.state import Info, State
from ngvi.nets.train import run_epochs
from ngvi.nets.update import Rule

if TYPE_CHECKING:
    from ngvi.nets.estimators import BayesianMLPClassifier, BayesianMLPRegressor

__all__ = [
    "ELBO",
    "Algorithm",
    "BayesianMLPClassifier",
    "BayesianMLPRegressor",
    "GammaPrior",
    "Info",
    "Linearized",
    "Mixture",
    "Moments",
    "ObservationNoise",
    "PartialPosterior",
    "Predictive",
    "Prior",
    "Rule",
    "State",
    "WeightPosterior",
    "blocks",
    "elbo",
    "from_numpyro",
    "full",
    "ivon",
    "last_layer",
    "linearized",
    "noisy_adam",
    "noisy_ekfac",
    "noisy_kfac",
    "run_epochs",
    "slang",
    "vadam",
    "vogn",
]


def __getattr__(name: str) -> Any:
    """What needs scikit-learn is imported when it is asked for."""
    if name in ("BayesianMLPClassifier", "BayesianMLPRegressor"):
        return getattr(importlib.import_module("ngvi.nets.estimators"), name)
    raise AttributeError(f"module 'ngvi.nets' has no attribute {name!r}")
