"""Variational simulation-based calibration: does the fit work on this model's data?

Parameters θ* are drawn from the prior, data given them, and those are fitted: if q were
the posterior, the rank of θ* among draws from q would be uniform, on average over data
sets. Ranks piled up at both ends are of a q too narrow, in the middle of one too wide,
to one side of one that is off to the other.

    bias    mean of Φ⁻¹(rank) : 0 if calibrated, in posterior sds
    spread  sd of Φ⁻¹(rank)   : 1 if calibrated, above it where q is too narrow

It speaks of data like the prior's, and of averages over them: not of the data at hand.

Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian
inference algorithms with simulation-based calibration; Yao, Vehtari, Simpson and Gelman
(2018), Yes, but did it work?, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float
from numpyro import handlers
from scipy.special import ndtri
from scipy.stats import chi2, norm

from ngvi.bayes.fit import fit
from ngvi.bayes.model_trace import Trace, observed_sites
from ngvi.bayes.numpyro_model import ModelTarget, model_target
from ngvi.bayes.replicates import from_prior, generative
from ngvi.bayes.summaries import columns
from ngvi.names import name_of, scalar_names
from ngvi.terminal.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 255
"""From each q: ranks are from 0 to 255."""
LEVEL = 0.01
"""Of the test whether a quantity is calibrated, over all of them together."""
_FEWEST = 10


@dataclass(frozen=True)
class Calibration:
    """Ranks of true parameters among draws from the fits to their data.

    Printing it shows a row a quantity and the verdict; `plot` the histograms.
    """

    names: tuple[str, ...]
    ranks: Float[np.ndarray, "n k"]
    """From 0 to `DRAWS`, for the N fits that ended."""
    failed: int
    """Fits that raised an error or did not converge; they have no ranks."""

    @property
    def scores(self) -> Float[np.ndarray, "n k"]:
        """Φ⁻¹ of the ranks: standard normal if calibrated."""
        return ndtri((self.ranks + 0.5) / (DRAWS + 1))

    @property
    def bias(self) -> Float[np.ndarray, "k"]:
        """Mean scores."""
        return self.scores.mean(0)

    @property
    def spread(self) -> Float[np.ndarray, "k"]:
        """Root mean squared scores."""
        return np.sqrt((self.scores**2).mean(0))

    def summary(self) -> pd.DataFrame:
        """A row a quantity: bias, spread, how often the central intervals of 50 % and
        90 % hold the truth, and the p-value of its being calibrated."""
        import pandas as pd

        levels = (self.ranks + 0.5) / (DRAWS + 1)

        def covered(part: float) -> np.ndarray:
            return (np.abs(levels - 0.5) < part / 2).mean(0)

        return pd.DataFrame(
            {
                "bias": self.bias,
                "spread": self.spread,
                "in 50 %": covered(0.5),
                "in 90 %": covered(0.9),
                "p": self.p_values,
            },
            index=list(self.names),
        )

    @property
    def p_values(self) -> Float[np.ndarray, "k"]:
        """Of each quantity's mean score and mean squared score, the smaller doubled."""
        count, scores = len(self.ranks), self.scores
        of_bias = 2 * norm.sf(np.abs(scores.mean(0)) * np.sqrt(count))
        squares = (scores**2).sum(0)
        of_spread = 2 * np.minimum(chi2.cdf(squares, count), chi2.sf(squares, count))
        return np.minimum(2 * np.minimum(of_bias, of_spread), 1.0)

    @property
    def calibrated(self) -> bool:
        """No quantity is off by more than chance, all of them considered."""
        return bool(self.p_values.min() * len(self.names) > LEVEL)

    def __str__(self) -> str:
        table = self.summary().to_string(float_format=lambda v: f"{v:.2f}", max_rows=40)
        head = f"{len(self.ranks)} simulated data sets"
        if self.failed:
            head += f", and {self.failed} whose fits failed"
        return f"{head}\n\n{table}\n\n{self.verdict}"

    __repr__ = __str__

    @property
    def verdict(self) -> str:
        """In words, with the worst quantity."""
        if self.calibrated:
            return (
                "Calibrated, as far as so many data sets can tell: no bias and no "
                "spread is off by more than chance."
            )
        worst = int(np.argmin(self.p_values))
        bias, spread = self.bias[worst], self.spread[worst]
        width = "too narrow" if spread > 1 else "too wide"
        return (
            f"Not calibrated: '{self.names[worst]}' has bias {bias:+.2f} sd and spread "
            f"{spread:.2f} (above 1 is q too narrow; here it is {width})."
        )

    def plot(self, names: tuple[str, ...] | None = None, bins: int = 16) -> Any:
        """Histograms of the ranks with the band that uniform ones stay in 99 % of the
        time, for the twelve quantities that are furthest off; returns the figure."""
        from ngvi.bayes.calibration_plot import plot

        return plot(self, names, bins)


def calibrate(
    model: Callable[..., Any],
    *args: Any,
    num_simulations: int = 100,
    seed: int = 0,
    progress: bool | None = None,
    fit_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Calibration:
    """Variational simulation-based calibration of `ngvi.fit` on a model.

    Args:
        model: a NumPyro model with proper priors.
        *args: its arguments. Observations among them are replaced by simulated ones of
            the same shape; what else the model reads from them stays as it is.
        num_simulations: N, data sets simulated and fitted. They share one compiled
            program.
        seed: of the simulations.
        progress: show a progress line; by default when stderr is a terminal.
        fit_options: of `ngvi.fit`, such as {"covariance": "diagonal"}.
        **kwargs: the model's keyword arguments.

    Returns:
        The ranks; printing them shows a table, `plot()` the histograms.

    Raises:
        ValueError: a prior is improper or cannot be drawn from, the model observes
            nothing, or hardly a fit ended.

    Example:
        >>> print(ngvi.calibrate(model, x, y))                   # doctest: +SKIP
        >>> ngvi.calibrate(model, x, y).plot()                   # doctest: +SKIP
    """
    if num_simulations < _FEWEST:
        raise ValueError(
            f"num_simulations must be at least {_FEWEST}, not {num_simulations}."
        )
    target, data, _, trace = model_target(model, args, kwargs, None)
    observed = observed_sites(trace)
    if not observed:
        raise ValueError("The model observes nothing: there are no data to simulate.")
    latent = tuple(site.name for site in target.sites)
    simulated = _simulated(
        target, data, trace, latent + observed, num_simulations, seed
    )
    conditioned = _given(model)
    options = {"progress": False, **(fit_options or {})}
    ranks, failed = [], 0
    with Progress(progress, f"calibrating {conditioned.__name__}") as bar:
        for i in range(num_simulations):
            values = {site: simulated[site][i] for site in observed}
            truth = {site: simulated[site][i : i + 1] for site in latent}
            try:
                posterior = fit(conditioned, values, *args, **options, **kwargs)
                draws = jax.device_get(posterior.sample(DRAWS, seed=seed + i))
            except ValueError:
                failed += 1
                continue
            if not posterior.diagnostics.converged:
                failed += 1
                continue
            of_sites = {site: draws[site] for site in latent}
            ranks.append((columns(of_sites) < columns(truth)).sum(0))
            bar.update(iteration=i + 1, elbo=posterior.diagnostics.elbo)
    if len(ranks) < _FEWEST:
        raise ValueError(
            f"{failed} of {num_simulations} fits to simulated data failed: data from "
            "the priors are nothing like the model's own. Narrow the priors."
        )
    names = [n for k in latent for n in scalar_names(k, simulated[k].shape[1:])]
    return Calibration(tuple(names), np.array(ranks), failed)


def _given(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model as a function of its observations too, so that they are data."""
    free = generative(model)

    def conditioned(observed: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return handlers.condition(free, data=observed)(*args, **kwargs)

    conditioned.__name__ = name_of(model)
    return conditioned


def _simulated(
    target: ModelTarget,
    data: Any,
    trace: Trace,
    sites: tuple[str, ...],
    count: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Parameters and observations from the prior, (N, *site shape)."""
    numbers = sum(np.size(trace[site]["value"]) for site in sites)
    try:
        return from_prior(target, data, count, sites, numbers, seed)
    except NotImplementedError as error:
        raise ValueError(
            f"A prior cannot be drawn from ({error or 'improper'}): calibration needs "
            "proper priors."
        ) from error
