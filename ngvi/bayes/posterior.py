"""What `ngvi.fit` returns: a Gaussian on ℝᴰ and everything asked of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.density import Density, InMemory
from ngvi.bayes.diagnostics import (
    EVEN_WEIGHTS,
    Comparison,
    Diagnostics,
    Verdict,
    compare,
    efficiency,
    judge,
    pareto_smoothed,
)
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.record import FitRecord
from ngvi.bayes.replicates import generative, log_likelihoods, observed_sites
from ngvi.bayes.structure import Structure
from ngvi.bayes.summaries import Sites, Summaries, columns
from ngvi.bayes.target import Data, Target, coordinate_names
from ngvi.families import Gaussian
from ngvi.mirror.draws import antithetic, sobol_normals

if TYPE_CHECKING:
    import pandas as pd

    from ngvi.bayes.archive import Archive

SUMMARY_DRAWS = 2048
# The tails that a Gaussian misses are rare under it: they take more draws to be seen
# than a mean takes to be known.
_CHECK_BLOCKS = 4
_LARGEST_CHECK = 30_000_000
# Fewer draws of very many coordinates, and fewer at a time where there are many numbers
# to compute: memory stays bounded.
_FEWEST_DRAWS = 128
_SUMMARY_NUMBERS = 2**25
_BATCH = 256
_BATCH_NUMBERS = 2**22
_LARGEST_SLOPES = 25_000_000
_PROBES = 64


class Weighed(NamedTuple):
    """Draws from q with their importance weights."""

    log_weight: np.ndarray
    weights: np.ndarray
    """Pareto-smoothed, summing to 1."""
    khat: float
    sites: Sites

    @classmethod
    def of(cls, log_p: np.ndarray, log_q: np.ndarray, sites: Sites) -> Weighed:
        log_weight = (log_p - log_q).astype(np.float64)
        return cls(log_weight, *pareto_smoothed(log_weight), sites)


class Posterior(Summaries):
    """A Gaussian approximation of a posterior, and how far it can be trusted.

    Printing it shows the table of `summary` and the verdict.

    Attributes:
        gaussian: q on the unconstrained space, a `ngvi.families.Gaussian`; its
            coordinates are named by `coordinate_names`.
        history: one entry a trial step: iteration, elbo, fisher_length, step (0 where
            rejected), draws.
        record: how the fit went, before anything was computed from its draws.
    """

    def __init__(
        self,
        target: Target,
        data: Data,
        gaussian: Gaussian,
        record: FitRecord,
        trace: dict[str, dict[str, Any]] | None,
        density: Density | None = None,
    ) -> None:
        self.gaussian = gaussian
        self.history = record.history
        self.name = record.name
        self._target = target
        self._data = data
        self.record = record
        self._trace = trace
        self._density = density or InMemory(target, data)

    def with_gaussian(self, gaussian: Gaussian) -> Posterior:
        """The same model and data under another Gaussian, for comparisons."""
        return Posterior(
            self._target,
            self._data,
            gaussian,
            self.record,
            self._trace,
            self._density,
        )

    @property
    def structure(self) -> Structure | None:
        """Which coordinates may be correlated: in words when printed, and as a picture
        by `structure.plot()`."""
        return self.record.structure

    @property
    def model_target(self) -> ModelTarget | None:
        """What is static about the NumPyro model; None for a plain log density."""
        return self._target if isinstance(self._target, ModelTarget) else None

    @property
    def trace(self) -> dict[str, dict[str, Any]] | None:
        """The recorded run of the NumPyro model; None for a plain log density."""
        return self._trace

    def update(self, *args: Any, **kwargs: Any) -> Posterior:
        """The posterior of what this one is of and of new data, by one natural step.

        It costs two evaluations of the new data, is exact where their likelihood is
        Gaussian in the unconstrained parameters, and good where they are few beside
        the data before; the verdict says when they were not. The whole fit is
        `ngvi.fit(model, *args, prior=posterior, **kwargs)`.

        Args:
            *args: the model's arguments, with new data in them.
            **kwargs: its keyword arguments.

        Raises:
            ValueError: the model has other sites with these data, or the data are
                undefined; the message names the site.
            TypeError: the posterior is of a log density that is not known to be a
                likelihood alone.
        """
        from ngvi.bayes.updating import update

        return update(self, self._target, self._data, args, kwargs)

    # -- draws -------------------------------------------------------------------

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the unconstrained coordinates, in the order of `gaussian`."""
        return self._target.names

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
        eps = jax.random.normal(
            jax.random.key(seed), (num_samples, self.gaussian.dim), self._dtype
        )
        sites = self.evaluate(eps)[2]
        return {name: jnp.asarray(value) for name, value in sites.items()}

    @property
    def _dtype(self) -> Any:
        return self.gaussian.mean.dtype

    def evaluate(
        self, eps: Float[Array, "s d"]
    ) -> tuple[np.ndarray, np.ndarray, Sites]:
        """What lies at base draws ε, computed in batches and gathered on the host.

        Args:
            eps: shape (S, D); the draws are `gaussian.place(eps)`.

        Returns:
            log p and log q of the unconstrained draws, (S,) each, and the sites.
        """
        points = self.gaussian.place(eps)
        log_p, sites = self._density.at(points, self._batch_size)
        # JAX sorts dictionaries; a reader expects the order of the model's program.
        order = [name for name in self._trace or sites if name in sites]
        sites = {name: sites[name] for name in order}
        log_q = np.asarray(self.gaussian.log_prob(points))
        return log_p, log_q, sites

    @property
    def _batch_size(self) -> int:
        """How many draws the model is evaluated at in one go."""
        trace = self._trace or {}
        observed = sum(np.size(trace[name]["value"]) for name in observed_sites(trace))
        each = self.gaussian.dim + observed
        return int(np.clip(_BATCH_NUMBERS // each, 1, _BATCH))

    @property
    def _num_draws(self) -> int:
        """How many draws a summary is computed from."""
        affordable = _SUMMARY_NUMBERS // self.gaussian.dim // 2 * 2
        return int(np.clip(affordable, _FEWEST_DRAWS, SUMMARY_DRAWS))

    def _block_eps(self, block: int) -> np.ndarray:
        """Matched Sobol draws, so that Gaussian moments are exact, in random order."""
        rng = np.random.default_rng([self.record.diagnostics.seed, block])
        half = sobol_normals(self.gaussian.dim, self._num_draws // 2, rng)
        return rng.permutation(antithetic(half))

    @cached_property
    def _summary_eps(self) -> np.ndarray:
        return self._block_eps(0)

    @cached_property
    def _summary_draws(self) -> tuple[np.ndarray, np.ndarray, Sites]:
        return self.evaluate(jnp.asarray(self._summary_eps, self._dtype))

    @cached_property
    def _weighed(self) -> Weighed:
        """Draws to hold q against the posterior: the summary's, and more where the
        weights are uneven."""
        blocks = [self._summary_draws]
        weighed = Weighed.of(*blocks[0])
        numbers = self._flat[1].size * _CHECK_BLOCKS
        if efficiency(weighed.weights) > EVEN_WEIGHTS or numbers > _LARGEST_CHECK:
            return weighed
        for block in range(1, _CHECK_BLOCKS):
            eps = jnp.asarray(self._block_eps(block), self._dtype)
            blocks.append(self.evaluate(eps))
        return Weighed.of(*jax.tree.map(lambda *x: np.concatenate(x), *blocks))

    # -- moments -----------------------------------------------------------------

    @property
    def _sites(self) -> Sites:
        return self._summary_draws[2]

    @cached_property
    def _standard_errors(self) -> np.ndarray:
        """Of each scalar quantity's mean, from the finite draws of the fit, (K,).

        A shift δ of the whitened mean moves E[f] by Cov(f, ε)·δ (Stein's lemma). Where
        there are too many slopes to compute, a site that is a coordinate by itself has
        that one's share of its sd, and others have none (NaN).
        """
        values = self._flat[1]
        if values.shape[1] * self.gaussian.dim > _LARGEST_SLOPES:
            return values.std(0) * self._relative_errors()
        slopes = (values - values.mean(0)).T @ self._summary_eps / len(values)
        return np.sqrt(slopes**2 @ self.record.mean_variance)

    def _relative_errors(self) -> np.ndarray:
        """Standard errors of the coordinates' means in sds, by random signs, at the
        quantities that are coordinates; NaN elsewhere."""
        rng = np.random.default_rng(0)
        signs = rng.choice([-1.0, 1.0], (_PROBES, self.gaussian.dim))
        shifts = np.sqrt(self.record.mean_variance) * signs
        moved = self.gaussian.precision.unwhiten(jnp.asarray(shifts, self._dtype))
        variance = np.asarray(self.gaussian.variance)
        of_coordinates = np.sqrt((np.asarray(moved) ** 2).mean(0) / variance)
        found = dict(zip(self.coordinate_names, of_coordinates, strict=True))
        if isinstance(self._target, ModelTarget):
            # The coordinates of a simplex, say, are none of its entries.
            for site in self._target.sites:
                if site.shape != site.unconstrained_shape:
                    names = coordinate_names(site.name, site.unconstrained_shape)
                    found.update(dict.fromkeys(names, np.nan))
        return np.array([found.get(name, np.nan) for name in self._flat[0]])

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

    # -- trust -------------------------------------------------------------------

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """What the fit did, and k-hat."""
        return replace(self.record.diagnostics, khat=self._weighed.khat)

    @property
    def log_weights(self) -> np.ndarray:
        """log p − log q of the draws that k-hat and the verdict are computed from."""
        return self._weighed.log_weight

    @cached_property
    def comparison(self) -> Comparison:
        """Means and sds of every quantity held against the reweighted draws."""
        _, weights, _, sites = self._weighed
        if not np.isfinite(weights).all():
            weights = np.full(weights.shape, 1 / weights.size)
        return compare(self._flat[0], columns(sites), weights)

    @cached_property
    def verdict(self) -> Verdict:
        """How far the answer can be trusted, why, and what to do next."""
        sd = self._flat[1].std(0)
        errors = self._standard_errors[sd > 0] / sd[sd > 0]
        # One that was not computed is NaN.
        largest = float(np.nan_to_num(errors).max(initial=0))
        return judge(self.diagnostics, self.comparison, largest)

    # -- the model's data ----------------------------------------------------------

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

    def _model(self) -> tuple[ModelTarget, tuple, dict[str, Any]]:
        if not isinstance(self._target, ModelTarget):
            raise TypeError(
                "This posterior is of a plain log density: only a NumPyro model says "
                "what its observations are."
            )
        args, kwargs = self._target.arguments.join(self._data)
        return self._target, args, kwargs

    def _latent_draws(self, num_samples: int | None, seed: int) -> dict[str, Array]:
        target = self._model()[0]
        draws = (
            self._summary_draws[2]
            if num_samples is None
            else self.sample(num_samples, seed=seed)
        )
        return {site.name: jnp.asarray(draws[site.name]) for site in target.sites}

    def predictive(
        self,
        *args: Any,
        num_samples: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> dict[str, Array]:
        """Draws of the observed sites from the posterior predictive distribution.

        Args:
            *args: new arguments of the model; with none at all, those of the fit.
            num_samples: S; by default one for each summary draw.
            seed: of the noise.
            **kwargs: new keyword arguments. Observations among them are ignored.

        Returns:
            For each observed site and deterministic site an array (S, *site shape).

        Raises:
            TypeError: the posterior is of a plain log density.
        """
        from numpyro.infer import Predictive

        target, fitted_args, fitted_kwargs = self._model()
        if not args and not kwargs:
            self._needs_data("predictive()", "give it arguments of the model")
            args, kwargs = fitted_args, fitted_kwargs
        latent = self._latent_draws(num_samples, seed)
        predict = Predictive(
            generative(target.program), posterior_samples=latent, parallel=True
        )
        draws = predict(jax.random.key(seed), *args, **kwargs)
        return {k: v for k, v in draws.items() if k not in latent}

    def log_likelihood(self, num_samples: int | None = None, *, seed: int = 0) -> Sites:
        """log p(yᵢ | draw) for each observed site, shape (S, *site batch shape).

        Raises:
            TypeError: the posterior is of a plain log density, or discrete sites were
                summed out, so that single observations have no density of their own.
        """
        target = self._model()[0]
        if target.enumerated:
            raise TypeError(
                "Discrete sites were summed out of this model: its log likelihood does "
                "not split into observations given the continuous sites."
            )
        self._needs_data(
            "log_likelihood()", "fit a part of them with prior=posterior, and ask that"
        )
        trace = self._trace or {}
        sites = observed_sites(trace)
        numbers = sum(np.size(trace[name]["value"]) for name in sites)
        latent = jax.device_get(self._latent_draws(num_samples, seed))
        return log_likelihoods(target, self._data, latent, sites, numbers)

    # -- out -----------------------------------------------------------------------

    def archive(self, *, predictive: bool = True, prior: bool = False) -> Archive:
        """Everything about this posterior as labelled arrays, see
        `ngvi.bayes.archive.Archive`."""
        from ngvi.bayes.export import archive

        return archive(self, predictive=predictive, prior=prior)

    def to_arviz(self, *, predictive: bool = True, prior: bool = False) -> Any:
        """The posterior for ArviZ: an InferenceData (0.x) or a DataTree (1.x).

        Args:
            predictive: also posterior_predictive and log_likelihood.
            prior: also prior and prior_predictive, where the priors are proper.
        """
        return self.archive(predictive=predictive, prior=prior).to_arviz()

    def save(self, path: Any) -> None:
        """Write `to_arviz()` and the verdict as netCDF; `ngvi.load` reads it.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        from ngvi.bayes.archive import check_writable

        path = check_writable(path)  # before the predictions are computed
        self.archive().write(path)

    def as_guide(self) -> tuple[Any, dict[str, Array]]:
        """This posterior as a NumPyro guide: (AutoMultivariateNormal, its params), for
        `numpyro.infer.Predictive(guide=…, params=…)` and the like."""
        from ngvi.bayes.guide import as_guide

        return as_guide(self)

    def nuts(self, **options: Any) -> Any:
        """Exact draws by NumPyro's NUTS, started and preconditioned from this fit; see
        `ngvi.bayes.nuts.nuts`."""
        from ngvi.bayes.nuts import nuts

        self._needs_data("nuts()", "fit a model to data in memory")
        return nuts(self, **options)
