"""Natural-gradient variational inference for NumPyro models, with honest posteriors."""

from ngvi.bayes.fit import fit
from ngvi.bayes.load import LoadedPosterior, load
from ngvi.bayes.posterior import Posterior

__version__ = "0.1.0"
__all__ = ["LoadedPosterior", "Posterior", "fit", "load"]
