"""Restarts: does a fit from elsewhere come to the same answer?

Fits of the same model and data begin so many posterior sds from the mean, in every
direction, with draws of their own. Where they end apart there are several optima, or
one that is not reached; where they agree, other modes farther away may still be there.

The verdict begins six of them, three and ten sds away to both sides in directions at
right angles: a compiled fit costs little beside the compilation of the first. One that
ends elsewhere with an ELBO that is higher, or little lower, has found a part of the
posterior that q leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from ngvi.bayes.approximation import GaussianApproximation

if TYPE_CHECKING:
    import pandas as pd

    from ngvi.bayes.sampled import Sampled

_DISTANCES = (10.0, 10.0, 3.0)
"""In sds a coordinate, of the verdict's restarts, to both sides of the mean."""
_LARGEST = 1_000_000
"""Numbers in the gradients of a fit, up to which the verdict begins others."""
_APART, _FAINT = 1.0, 4.0
"""A mean's distance in sds from which another fit is another answer, and nats of the
ELBO below which it is no part of the posterior."""


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
    def rival(self) -> int | None:
        """Which fit has the highest ELBO of those that ended elsewhere, with a part in
        the posterior that is not faint; None if there is none."""
        others = [
            (elbo, number)
            for number, (elbo, apart) in enumerate(
                zip(self.elbos, self.apart, strict=True)
            )
            if apart > _APART and elbo > self.elbos[0] - _FAINT
        ]
        return max(others)[1] if others else None

    @property
    def agree(self) -> bool:
        """All fits have converged, with means within a quarter of an sd."""
        return all(self.converged) and max(self.apart) < 0.25

    def __str__(self) -> str:
        return self.summary().to_string(float_format=lambda x: f"{x:.3f}")

    __repr__ = __str__


def restarts(posterior: Sampled, number: int, distance: float) -> Restarts:
    """See `ngvi.Posterior.restarts`."""
    if number < 1:
        raise ValueError(f"number must be at least 1, not {number}.")
    if not distance > 0:
        raise ValueError(f"distance must be positive, not {distance}.")
    seed = posterior.record.diagnostics.seed
    eps = np.random.default_rng([seed, 8]).standard_normal(
        (number, posterior.gaussian.dim)
    )
    return _begun_at(posterior, distance * eps)


def elsewhere(posterior: Sampled) -> Restarts | None:
    """Restarts from near and far, for the verdict; None where they would cost too much
    or mean nothing: for data in batches, q beside a Gaussian, or no gradients."""
    counts = posterior.record.diagnostics
    numbers = counts.gradient_evaluations * posterior.gaussian.dim
    possible = (
        isinstance(posterior.approximation, GaussianApproximation)
        and not posterior.streamed
        and posterior.target.differentiable
    )
    if not possible or numbers > _LARGEST:
        return None
    rng = np.random.default_rng([counts.seed, 9])
    dim = posterior.gaussian.dim
    frame = np.linalg.qr(rng.standard_normal((dim, min(dim, len(_DISTANCES)))))[0].T
    directions = np.resize(np.sqrt(dim) * frame, (len(_DISTANCES), dim))
    eps = np.array(_DISTANCES)[:, None] * directions
    return _begun_at(posterior, np.concatenate([eps, -eps]))


def _begun_at(posterior: Sampled, eps: np.ndarray) -> Restarts:
    """Fits that begin at `posterior.gaussian.place(eps)`, where the density is finite
    there."""
    from ngvi.bayes.run import run_again

    first = posterior.record.diagnostics
    mean, sd = posterior.gaussian.mean, np.sqrt(np.asarray(posterior.gaussian.variance))
    rows = [(first.seed, first.elbo, first.converged, 0.0)]
    points = posterior.gaussian.place(jnp.asarray(eps, mean.dtype))
    for seed, point in enumerate(points, first.seed + 1):
        try:
            again = run_again(posterior, point, seed=seed)
        except ValueError:  # the density is not finite so far out
            continue
        apart = np.abs(np.asarray(again.gaussian.mean - mean)) / sd
        reached = again.record.diagnostics
        rows.append((seed, reached.elbo, reached.converged, float(apart.max())))
    return Restarts(*zip(*rows, strict=True))
