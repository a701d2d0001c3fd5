"""Natural-gradient variational inference for NumPyro models, with honest posteriors."""

from ngvi import fisher, nes
from ngvi.bayes.fit import fit
from ngvi.bayes.load import LoadedPosterior, load
from ngvi.bayes.posterior import Posterior
from ngvi.nes.minimize import minimize

__version__ = "0.1.0"
__all__ = [
    "LoadedPosterior",
    "Posterior",
    "fisher",
    "fit",
    "load",
    "minimize",
    "nes",
]
