"""What noisy natural gradients are compared with; needs optax.

| baseline               | posterior of the weights                          |
|------------------------|---------------------------------------------------|
| `maximum_a_posteriori` | the mode                                          |
| `deep_ensemble`        | several modes                                     |
| `bayes_by_backprop`    | mean field, by Adam on the ELBO                   |
| `mc_dropout`           | a mode, with hidden units left out at random      |
| `laplace_posterior`    | the curvature at the mode                         |
| `swag`                 | the iterates of a descent that goes on from there |

`ensemble` makes a mixture of any of those that are trained, and of the rows of
`ngvi.nets`, from several starts in one program.
"""

from ngvi.nets.baselines.backprop import bayes_by_backprop
from ngvi.nets.baselines.descent import Descent, DescentRule, DescentState
from ngvi.nets.baselines.dropout import Dropout, mc_dropout
from ngvi.nets.baselines.ensembles import deep_ensemble, ensemble
from ngvi.nets.baselines.laplace import laplace_posterior
from ngvi.nets.baselines.point import Point, maximum_a_posteriori
from ngvi.nets.baselines.swag import Swag, swag
from ngvi.nets.posterior import PartialPosterior

__all__ = [
    "Descent",
    "DescentRule",
    "DescentState",
    "Dropout",
    "PartialPosterior",
    "Point",
    "Swag",
    "bayes_by_backprop",
    "deep_ensemble",
    "ensemble",
    "laplace_posterior",
    "maximum_a_posteriori",
    "mc_dropout",
    "swag",
]
