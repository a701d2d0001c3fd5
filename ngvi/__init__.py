"""Natural gradients: variational inference for NumPyro models with honest posteriors,
evolution strategies for black boxes, Bayesian nets, a Fisher engine for any model."""

import importlib
from typing import TYPE_CHECKING, Any

from ngvi import nes
from ngvi.bayes.calibration import Calibration, calibrate
from ngvi.bayes.fit import fit
from ngvi.bayes.fits import Each, Fits
from ngvi.bayes.load import LoadedPosterior, load
from ngvi.bayes.many import fit_many
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.stream import Stream, StreamError
from ngvi.nes.minimize import minimize

if TYPE_CHECKING:
    from ngvi import fisher, nets

__version__ = "0.1.0"
__all__ = [
    "Calibration",
    "Each",
    "Fits",
    "LoadedPosterior",
    "Posterior",
    "Stream",
    "StreamError",
    "calibrate",
    "fisher",
    "fit",
    "fit_many",
    "load",
    "minimize",
    "nes",
    "nets",
]


def __getattr__(name: str) -> Any:
    """Parts that not everybody needs are imported when they are asked for."""
    if name in ("fisher", "nets"):
        return importlib.import_module(f"ngvi.{name}")
    raise AttributeError(f"module 'ngvi' has no attribute {name!r}")
