"""What `ngvi.fit` returns: a distribution on ℝᴰ and everything asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from ngvi.bayes.approximation import Approximation
from ngvi.bayes.judged import Judged
from ngvi.bayes.record import FitRecord
from ngvi.bayes.summaries import Sites
from ngvi.families import Gaussian

if TYPE_CHECKING:
    import pandas as pd

    from ngvi.bayes.archive import Archive
    from ngvi.bayes.linear_response import LinearResponse
    from ngvi.bayes.loo import LeaveOneOut
    from ngvi.bayes.refinement import Refinement
    from ngvi.bayes.restarts import Restarts


class Posterior(Judged):
    """An approximation of a posterior, and how far it can be trusted.

    Printing it shows the table of `summary` and the verdict.

    Its attributes are those of `ngvi.bayes.sampled.Sampled`.
    """

    def with_approximation(
        self, q: Approximation | Gaussian, record: FitRecord | None = None
    ) -> Posterior:
        """The same model and data under another q.

        Args:
            q: on the same unconstrained space.
            record: how it was found; by default that of this one, for comparisons.
        """
        record = record or self.record
        return Posterior(self.target, self.data, q, record, self.trace, self._density)

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
                likelihood alone, or q is no Gaussian.
        """
        from ngvi.bayes.updating import update

        self._needs_gaussian("update()", "fit again, with prior=posterior.gaussian")
        return update(self, args, kwargs)

    # -- the model and its data -----------------------------------------------------

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
        from ngvi.bayes.predictions import predictive

        return predictive(self, args, kwargs, num_samples, seed)

    def log_likelihood(self, num_samples: int | None = None, *, seed: int = 0) -> Sites:
        """log p(yᵢ | draw) for each observed site, shape (S, *site batch shape).

        Raises:
            TypeError: the posterior is of a plain log density, or discrete sites were
                summed out, so that single observations have no density of their own.
        """
        from ngvi.bayes.predictions import log_likelihood

        return log_likelihood(self, num_samples, seed)

    def check(
        self,
        statistics: Mapping[str, Callable[[np.ndarray], float]] | None = None,
        *,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Posterior predictive checks: statistics of the data beside those of data that
        the fitted model makes.

        Args:
            statistics: by name, functions of an observed site's values; by default
                mean, sd, smallest and largest.
            seed: of the replicated data.

        Returns:
            A row a site and statistic: observed, mean and sd of the replicated ones,
            and p, the part of them above; near 0 or 1 the model misses this.

        Raises:
            TypeError: the posterior is of a plain log density, its data were read in
                batches, or nothing is observed.
        """
        from ngvi.bayes.predictive_checks import check

        return check(self, statistics, seed)

    def loo(self) -> LeaveOneOut:
        """Leave-one-out cross-validation by Pareto-smoothed importance weights that
        correct for q too; see `ngvi.bayes.loo`.

        Raises:
            TypeError: the posterior is of a plain log density, its data were read in
                batches, discrete sites were summed out, or nothing is observed.
            ValueError: log p or a log likelihood is not finite at a draw.
        """
        from ngvi.bayes.loo import loo

        return loo(self)

    def linear_response(self) -> LinearResponse:
        """The covariance by linear response, beside q's own: how the optimal mean
        answers to a change of the model. It sees correlations that a diagonal q lacks.

        Returns:
            Both covariances of the D unconstrained coordinates; printing it compares
            their sds.

        Raises:
            TypeError: q is not a Gaussian, or the data were read in batches.
            ValueError: more than 200 dimensions, a covariance that is neither full nor
                diagonal, or an ELBO that is not at a maximum.

        Source: Giordano, Broderick and Jordan (2018), Covariances, robustness and
        variational Bayes.
        """
        from ngvi.bayes.linear_response import linear_response

        self._needs_gaussian("linear_response()", "fit with family='gaussian'")
        self._needs_data("linear_response()", "fit a model to data in memory")
        return linear_response(self)

    def restarts(self, number: int = 4, *, distance: float = 3.0) -> Restarts:
        """Fits from elsewhere, to see whether they come to the same answer.

        Args:
            number: how many.
            distance: of their starting points, in posterior sds in every direction.

        Returns:
            ELBO, convergence and largest distance of a mean, for this fit and each of
            the others; printing it shows the table.

        Raises:
            TypeError: q is not a Gaussian, or the data were read in batches.
            ValueError: the number or the distance is not positive, or the density is
                not finite at a start.
        """
        from ngvi.bayes.restarts import restarts

        self._needs_gaussian("restarts()", "fit with family='gaussian'")
        self._needs_data("restarts()", "fit a model to data in memory")
        return restarts(self, number, distance)

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

        Of several processes all must call it, and the first one writes.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        from ngvi.bayes.archive import check_writable

        writes = jax.process_index() == 0
        if writes:
            path = check_writable(path)  # before the predictions are computed
        archive = self.archive()
        if writes:
            archive.write(path)

    def as_guide(self) -> tuple[Any, dict[str, Array]]:
        """This posterior as a NumPyro guide: (AutoMultivariateNormal, its params), for
        `numpyro.infer.Predictive(guide=…, params=…)` and the like."""
        from ngvi.bayes.guide import as_guide

        self._needs_gaussian("as_guide()", "use posterior.sample(n)")
        return as_guide(self)

    @property
    def refinement(self) -> Refinement | None:
        """What each rung of `refine` gained; None where it was not asked for."""
        return self.record.refinement

    def refine(
        self, budget: float | None = None, *, progress: bool | None = None
    ) -> Posterior:
        """A better answer: one rung after the other until the verdict is good.

        A diagonal or low-rank Gaussian is fitted anew with a full or structured
        covariance; then draws are reweighted by importance; then a mixture of Gaussians
        is grown (up to 50 dimensions); at last NUTS runs in the coordinates of the fit.

        Args:
            budget: seconds, after which no rung begins; by default there is no limit.
            progress: show progress lines; by default when stderr is a terminal.

        Returns:
            A posterior that answers everything this one does, with the best q that was
            found: a Gaussian, a mixture, or draws. Its `refinement`, when printed,
            tells what each rung gained.

        Raises:
            TypeError: the data were read in batches.
            ValueError: the budget is not positive.

        Example:
            >>> better = posterior.refine()                      # doctest: +SKIP
            >>> print(better.refinement)                         # doctest: +SKIP
        """
        from ngvi.bayes.refinement import refine

        self._needs_data("refine()", "fit a model to data in memory")
        return refine(self, budget, progress)

    def nuts(self, **options: Any) -> Any:
        """Exact draws by NumPyro's NUTS, started and preconditioned from this fit; see
        `ngvi.bayes.nuts.nuts`."""
        from ngvi.bayes.nuts import nuts

        self._needs_data("nuts()", "fit a model to data in memory")
        if not self.target.differentiable:
            raise TypeError(
                "nuts() needs gradients: the density is only evaluated, or it has "
                "discrete sites. posterior.sample(n, resample=True) needs none."
            )
        return nuts(self, **options)
