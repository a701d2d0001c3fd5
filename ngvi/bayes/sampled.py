"""A q on ℝᴰ that stands for the posterior of a model: its draws and its summaries."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.approximation import Approximation, GaussianApproximation
from ngvi.bayes.density import Density, InMemory
from ngvi.bayes.drawn import Drawn, Evaluated, Weighed
from ngvi.bayes.model_trace import Trace
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.record import FitRecord
from ngvi.bayes.structure import Structure
from ngvi.bayes.summaries import Sites, Summaries
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.names import scalar_names

if TYPE_CHECKING:
    import pandas as pd


class Sampled(Summaries):
    """q, the model that it stands for, and draws on the model's own supports.

    Attributes:
        approximation: q on the unconstrained space, whose coordinates are named by
            `coordinate_names`; where it is a Gaussian, `gaussian` is it.
        target: what is static about the log density.
        data: its arrays.
        history: one entry a trial step: iteration, elbo, fisher_length, step (0 where
            rejected), draws.
        record: how the fit went, before anything was computed from its draws.
        trace: the recorded run of the NumPyro model; None for a plain log density.
    """

    def __init__(
        self,
        target: Target,
        data: Data,
        q: Approximation | Gaussian,
        record: FitRecord,
        trace: Trace | None,
        density: Density | None = None,
    ) -> None:
        if isinstance(q, Gaussian):
            q = GaussianApproximation(q, record.mean_variance)
        self.approximation = q
        self.history = record.history
        self.name = record.name
        self.target = target
        self.data = data
        self.record = record
        self.trace = trace
        self._density = density or InMemory(target, data)

    @property
    def gaussian(self) -> Gaussian:
        """q on the unconstrained space if it is a Gaussian, and the Gaussian with its
        mean and covariance if it is another distribution."""
        return self.approximation.gaussian

    @property
    def structure(self) -> Structure | None:
        """Which coordinates may be correlated: in words when printed, and as a picture
        by `structure.plot()`."""
        return self.record.structure

    @property
    def streamed(self) -> bool:
        """The data were read in batches and are not kept."""
        return not isinstance(self._density, InMemory)

    def _needs_data(self, what: str, instead: str) -> None:
        if self.streamed:
            raise TypeError(
                f"{what} needs the data, which were read in batches and are not kept: "
                f"{instead}."
            )

    def _model(self) -> ModelTarget:
        if not isinstance(self.target, ModelTarget):
            raise TypeError(
                "This posterior is of a plain log density: only a NumPyro model says "
                "what its observations are."
            )
        return self.target

    def _needs_gaussian(self, what: str, instead: str) -> None:
        if not isinstance(self.approximation, GaussianApproximation):
            kind = self.approximation.kind
            raise TypeError(f"{what} needs a Gaussian, and q is {kind}: {instead}.")

    # -- draws -------------------------------------------------------------------

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the unconstrained coordinates, in their order in q."""
        return self.target.names

    def sample(
        self, num_samples: int = 1000, *, seed: int = 0, resample: bool = False
    ) -> dict[str, Array]:
        """Independent draws, on the model's own supports.

        Args:
            num_samples: S.
            seed: the same seed gives the same draws.
            resample: draw from the posterior itself by importance resampling of a pool
                of draws, as far as k-hat allows; for a posterior near a Gaussian.

        Returns:
            For each latent and deterministic site an array of shape (S, *site shape).
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, not {num_samples}.")
        if resample:
            _, weights, khat, sites = self._weighed
            if not np.isfinite(khat):
                raise ValueError("The importance weights are not finite.")
            rng = np.random.default_rng(seed)
            chosen = rng.choice(len(weights), num_samples, p=weights)
            return {k: jnp.asarray(v[chosen]) for k, v in sites.items()}
        points = self.approximation.sample(jax.random.key(seed), num_samples)
        sites = self._drawn.at(points).sites
        return {name: jnp.asarray(value) for name, value in sites.items()}

    def evaluate(self, eps: Float[Array, "s d"]) -> Evaluated:
        """What lies at base draws ε of `gaussian`.

        Args:
            eps: shape (S, D); the draws are `gaussian.place(eps)`.

        Returns:
            log p and log q of the unconstrained draws, (S,) each, and the sites.
        """
        return self.at(self.gaussian.place(eps))

    def at(self, points: Float[Array, "s d"]) -> Evaluated:
        """What lies at unconstrained points, computed in batches and gathered on the
        host: log p and log q, (S,) each, and the sites."""
        return self._drawn.at(points)

    def log_density(self, points: Float[Array, "s d"]) -> np.ndarray:
        """log p at unconstrained points, (S,): the target's, up to a constant."""
        return self._drawn.log_p(points)

    @cached_property
    def _drawn(self) -> Drawn:
        seed = self.record.diagnostics.seed
        return Drawn(self.approximation, self._density, self.trace or {}, seed)

    @property
    def _summary_draws(self) -> Evaluated:
        return self._drawn.summary

    @property
    def _weighed(self) -> Weighed:
        return self._drawn.weighed

    # -- moments -----------------------------------------------------------------

    @property
    def _sites(self) -> Sites:
        return self._summary_draws.sites

    @cached_property
    def _standard_errors(self) -> np.ndarray:
        """Of each scalar quantity's mean, from the finite draws of the fit, (K,)."""
        names, values = self._flat
        whole = self._whole_coordinates()
        coordinates = np.array([whole.get(name, -1) for name in names], int)
        return self.approximation.mean_errors(self._drawn.points, values, coordinates)

    def _whole_coordinates(self) -> dict[str, int]:
        """The quantities that are functions of one coordinate, by its name."""
        found = {name: i for i, name in enumerate(self.coordinate_names)}
        if isinstance(self.target, ModelTarget):
            # The coordinates of a simplex, say, are none of its entries.
            for site in self.target.sites:
                if site.shape != site.unconstrained_shape:
                    for name in scalar_names(site.name, site.unconstrained_shape):
                        found.pop(name, None)
        return found

    def summary(self) -> pd.DataFrame:
        """A row for every scalar quantity: mean, sd, 5 %, 50 %, 95 % quantiles, and the
        standard error of the mean that comes from the fit's finite draws."""
        import pandas as pd

        names, values = self._flat
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
        columns = {
            "mean": values.mean(0),
            "sd": values.std(0),
            "q5": low,
            "median": middle,
            "q95": high,
            "mcse": self._standard_errors,
        }
        return pd.DataFrame(columns, index=names)
