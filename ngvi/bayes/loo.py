"""Leave-one-out cross-validation from the draws of one fit.

The posterior without observation i is reached from q by the importance weights

    log rᵢ = log p − log q − log p(yᵢ | z),

which correct for q at the same time; Pareto smoothing tells by k-hat for which i they
are of use. Then  elpd = Σᵢ log Σ_s wᵢₛ p(yᵢ | z_s).

Source: Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using
leave-one-out cross-validation; Magnusson et al. (2019), Bayesian leave-one-out
cross-validation for large data (the correction for an approximate posterior).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ngvi.bayes.importance import KHAT_LIMIT
from ngvi.bayes.predictions import log_likelihood_at
from ngvi.bayes.psis import smoothed
from ngvi.bayes.summaries import columns
from ngvi.bayes.weighted_draws import WeightedDraws

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior


@dataclass(frozen=True)
class LeaveOneOut:
    """Expected log predictive density of observations left out.

    Printing it shows the estimates and for how many observations they are unsure.
    """

    elpd: float
    se: float
    """Standard error of `elpd`, from how it varies between observations."""
    p_loo: float
    """Effective number of parameters: what fitting yᵢ too gains."""
    pointwise: Float[np.ndarray, "n"]
    """log p(yᵢ | all others), in the order of the observed sites and their entries."""
    khat: Float[np.ndarray, "n"]
    """Of the weights of each observation."""

    @property
    def unsure(self) -> int:
        """Observations with k-hat above 0.7."""
        return int((self.khat > KHAT_LIMIT).sum())

    def __str__(self) -> str:
        lines = [
            f"elpd_loo {self.elpd:10.2f}  (se {self.se:.2f})",
            f"p_loo    {self.p_loo:10.2f}",
            f"{self.unsure} of {self.khat.size} observations have k-hat above "
            f"{KHAT_LIMIT}.",
        ]
        if self.unsure:
            lines.append("For those, fit the model without them, or refine the fit.")
        return "\n".join(lines)

    __repr__ = __str__


def loo(posterior: Posterior) -> LeaveOneOut:
    """See `ngvi.Posterior.loo`."""
    target = posterior._model()
    at = posterior._summary_draws
    latent = {site.name: at.sites[site.name] for site in target.sites}
    parts = log_likelihood_at(posterior, latent)
    if not parts:
        raise TypeError("The model observes nothing: there is nothing to leave out.")
    ratio = (
        np.zeros(len(at.log_p))  # the draws are of the posterior itself
        if isinstance(posterior.approximation, WeightedDraws)
        else (at.log_p - at.log_q).astype(np.float64)
    )
    return leave_one_out(columns(parts), ratio)


def leave_one_out(
    log_likelihood: Float[np.ndarray, "s n"], log_ratio: Float[np.ndarray, "s"]
) -> LeaveOneOut:
    """From arrays.

    Args:
        log_likelihood: log p(yᵢ | z_s) at S draws from q.
        log_ratio: log p − log q of the draws, up to a constant; zeros for draws of the
            posterior.

    Raises:
        ValueError: a number is not finite.
    """
    if not (np.isfinite(log_likelihood).all() and np.isfinite(log_ratio).all()):
        raise ValueError(
            "Leave-one-out needs finite log likelihoods and densities at all draws."
        )
    whole = smoothed(log_ratio)[0] if np.ptp(log_ratio) > 0 else log_ratio * 0.0
    whole = whole - np.logaddexp.reduce(whole)
    count = log_likelihood.shape[1]
    pointwise, khat = np.empty(count), np.empty(count)
    for i, column in enumerate(log_likelihood.T):
        weights, khat[i] = smoothed(log_ratio - column)
        pointwise[i] = np.logaddexp.reduce(weights + column)
    fitted = np.logaddexp.reduce(whole[:, None] + log_likelihood, axis=0)
    return LeaveOneOut(
        elpd=float(pointwise.sum()),
        se=float(np.sqrt(count) * pointwise.std()),
        p_loo=float((fitted - pointwise).sum()),
        pointwise=pointwise,
        khat=khat,
    )
