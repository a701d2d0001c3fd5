"""`ngvi.load`: a saved posterior, without its model."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.bayes.archive import Archive, number
from ngvi.bayes.diagnostics import Diagnostics
from ngvi.bayes.importance import pareto_smoothed
from ngvi.bayes.labels import site_name
from ngvi.bayes.stored_gaussian import restore
from ngvi.bayes.summaries import Sites, Summaries
from ngvi.bayes.verdict import Verdict
from ngvi.families import Gaussian

if TYPE_CHECKING:
    import pandas as pd
    from xarray import DataArray


class LoadedPosterior(Summaries):
    """The draws, summaries and verdict of a fit that was saved.

    It answers as `ngvi.Posterior` does, from the draws in the file, and may be the
    prior of another fit. What needs the model (more draws, predictions for new data,
    NUTS) needs the fit itself.

    Attributes:
        name: of the model.
        history: one entry a trial step: iteration, elbo, fisher_length, step, draws.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.name = str(archive.record["model"])
        history = archive.groups["fit_history"]
        self.history = {str(k): v.to_numpy() for k, v in history.variables.items()}

    @cached_property
    def _sites(self) -> Sites:
        posterior = self._archive.groups["posterior"]
        return {site_name(v): _draws(v) for v in posterior.data_vars.values()}

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the unconstrained coordinates."""
        return tuple(self._archive.record["gaussian"]["names"])

    @cached_property
    def gaussian(self) -> Gaussian:
        """q on the unconstrained space: the posterior may be the `prior` of a fit.

        Raises:
            ValueError: the file has none.
        """
        stored = self._archive.groups.get("gaussian")
        if stored is None:
            raise ValueError(
                "The file holds no Gaussian: it was written by an older ngvi, or q is "
                "none, or one with a covariance that has no form in a file."
            )
        arrays = {str(k): v.to_numpy() for k, v in stored.data_vars.items()}
        return restore(arrays, self._archive.record["gaussian"])

    @cached_property
    def _weights(self) -> np.ndarray:
        """Smoothed importance weights of the stored draws, (S,)."""
        log_weight = _draws(self._archive.groups["sample_stats"]["log_weight"])
        return pareto_smoothed(log_weight.astype(np.float64))[0]

    def sample(
        self, num_samples: int = 1000, *, seed: int = 0, resample: bool = False
    ) -> Sites:
        """Draws from the stored ones, on the model's own supports.

        Args:
            num_samples: S; without `resample` at most as many as are stored, since
                none is taken twice.
            seed: the same seed gives the same draws.
            resample: draw from the posterior itself by importance resampling of the
                stored draws, with replacement; for a posterior near a Gaussian.

        Returns:
            For each latent and deterministic site an array of shape (S, *site shape).

        Raises:
            ValueError: fewer draws are stored than asked for, or `resample` is asked
                for and the importance weights are not finite.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, not {num_samples}.")
        stored = self._archive.groups["posterior"].sizes["draw"]
        rng = np.random.default_rng(seed)
        if resample:
            if not np.isfinite(self._weights).all():
                raise ValueError("The importance weights are not finite.")
            chosen = rng.choice(stored, num_samples, p=self._weights)
        elif num_samples > stored:
            raise ValueError(
                f"The file holds {stored} draws; {num_samples} were asked for. Fit the "
                "model again for more: posterior.sample has no limit there."
            )
        else:
            chosen = rng.permutation(stored)[:num_samples]
        return self._per_site(lambda draws: draws[chosen])

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """What the fit did, and k-hat."""
        stored = self._archive.record["diagnostics"]
        values: dict[str, Any] = {}
        for field in fields(Diagnostics):
            value = stored.get(field.name)  # None where an older ngvi had no such field
            values[field.name] = number(value) if field.type == "float" else value
        return Diagnostics(**values)

    @property
    def verdict(self) -> Verdict:
        """How far the answer can be trusted, why, and what to do next."""
        stored = self._archive.record["verdict"]
        reasons, advice = tuple(stored["reasons"]), tuple(stored["advice"])
        return Verdict(stored["level"], reasons, advice)

    def summary(self) -> pd.DataFrame:
        """The table of the fit: a row for every scalar quantity with mean, sd, 5 %,
        50 %, 95 % quantiles and the standard error of the mean."""
        import pandas as pd

        stored = self._archive.record["summary"]
        data = [[number(cell) for cell in row] for row in stored["data"]]
        return pd.DataFrame(data, stored["index"], stored["columns"])

    def archive(self) -> Archive:
        """All that the file holds, as labelled arrays."""
        return self._archive

    def to_arviz(self) -> Any:
        """All that the file holds, for ArviZ: an InferenceData (0.x) or a DataTree
        (1.x)."""
        return self._archive.to_arviz()

    def save(self, path: Any) -> None:
        """Write the file anew.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        self._archive.write(path)


def _draws(array: DataArray) -> np.ndarray:
    """The values without the axis of the only chain."""
    return array.isel(chain=0).transpose("draw", ...).to_numpy()


def load(path: Any) -> LoadedPosterior:
    """Read a posterior that `posterior.save(path)` wrote.

    Args:
        path: of the file.

    Returns:
        The draws, summaries, diagnostics and verdict; the model is not needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not hold a posterior of ngvi.

    Example:
        >>> posterior = ngvi.load("eight_schools.nc")            # doctest: +SKIP
        >>> posterior.sample(500)["tau"].shape                   # doctest: +SKIP
        (500,)
    """
    return LoadedPosterior(Archive.read(path))
