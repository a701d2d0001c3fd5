"""Restarts: does a fit from elsewhere come to the same answer?

Fits of the same model and data begin `distance` posterior sds from the mean, in every
direction, with draws of their own. Where they end apart there are several optima, or
one that is not reached; where they agree, other modes farther away may still be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.target import FunctionTarget

if TYPE_CHECKING:
    import pandas as pd

    from ngvi.bayes.posterior import Posterior


@dataclass(frozen=True)
class Restarts:
    """A fit a row; printing shows the table of `summary`."""

    seeds: tuple[int, ...]
    elbos: tuple[float, ...]
    converged: tuple[bool, ...]
    apart: tuple[float, ...]
    """Largest distance of a coordinate's mean from the first fit's, in its sds."""

    def summary(self) -> pd.DataFrame:
        """A row for each fit, by its seed; the first is the one asked about."""
        import pandas as pd

        columns = {
            "ELBO": self.elbos,
            "converged": self.converged,
            "means apart, sd": self.apart,
        }
        return pd.DataFrame(columns, index=pd.Index(self.seeds, name="seed"))

    @property
    def agree(self) -> bool:
        """All fits have converged, with means within a quarter of an sd."""
        return all(self.converged) and max(self.apart) < 0.25

    def __str__(self) -> str:
        return self.summary().to_string(float_format=lambda x: f"{x:.3f}")

    __repr__ = __str__


def restarts(posterior: Posterior, number: int, distance: float) -> Restarts:
    """See `ngvi.Posterior.restarts`."""
    if number < 1:
        raise ValueError(f"number must be at least 1, not {number}.")
    if not distance > 0:
        raise ValueError(f"distance must be positive, not {distance}.")
    first = posterior.record.diagnostics
    rng = np.random.default_rng([first.seed, 8])
    mean, sd = posterior.gaussian.mean, np.sqrt(np.asarray(posterior.gaussian.variance))
    rows = [(first.seed, first.elbo, first.converged, 0.0)]
    for seed in range(first.seed + 1, first.seed + 1 + number):
        eps = distance * rng.standard_normal((1, posterior.gaussian.dim))
        point = posterior.gaussian.place(jnp.asarray(eps, mean.dtype))
        again = _from(posterior, point, seed)
        apart = np.abs(np.asarray(again.gaussian.mean - mean)) / sd
        reached = again.record.diagnostics
        rows.append((seed, reached.elbo, reached.converged, float(apart.max())))
    return Restarts(*zip(*rows, strict=True))


def _from(posterior: Posterior, point: Any, seed: int) -> Posterior:
    """The same fit, begun at one point of the unconstrained space."""
    from numpyro.infer import init_to_value

    from ngvi.bayes.fit import fit

    target, data = posterior._target, posterior._data
    assert isinstance(target, ModelTarget | FunctionTarget)
    args, kwargs = target.arguments.join(data)
    options: dict[str, Any] = {
        "covariance": posterior.record.diagnostics.covariance,
        "seed": seed,
        "progress": False,
    }
    if isinstance(target, FunctionTarget):
        init = target.params(point[0])
        return fit(target.function, *args, init=init, **options, **kwargs)
    sites = posterior.at(point).sites
    names = [site.name for site in target.sites]
    strategy = init_to_value(values={k: jnp.asarray(sites[k][0]) for k in names})
    return fit(target.model, *args, init_strategy=strategy, **options, **kwargs)
