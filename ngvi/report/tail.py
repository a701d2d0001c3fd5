"""The tail of the importance weights: the generalised Pareto fit behind k-hat.

The largest M = min(S/5, 3 sqrt(S)) of S importance ratios p/q are compared with the
generalised Pareto distribution, whose survival function above a cut-off u is

    P(w > u + x | w > u) = (1 + k x / sigma)^(-1/k).

k counts the moments that exist: below 1/2 the weights have a finite variance, above
1 not even a mean. The estimate of k is that of Zhang and Stephens (2009), Technometrics
51(3), shrunk towards 1/2 as in Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR
25(72), appendix. Plain NumPy: a report needs no compiler.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngvi.bayes.psis import fit_generalised_pareto
from ngvi.report.scalars import finite

Array = NDArray[np.float64]

# Fewer weights than this say nothing about a tail.
SMALLEST_TAIL = 5


class Tail(NamedTuple):
    """The largest importance ratios, relative to the largest of all.

    Attributes:
        cutoff: The largest ratio that is not in the tail, u.
        ratios: The tail, in increasing order; shape (M,).
        share: M / S, the probability that a ratio is in the tail.
        k: Shape of the fitted distribution (k-hat).
        sigma: Its scale.
    """

    cutoff: float
    ratios: Array
    share: float
    k: float
    sigma: float

    def survival(self, ratio: ArrayLike) -> Array:
        """Return the fitted probability that a ratio exceeds ``ratio``."""
        scaled = np.maximum(np.asarray(ratio, float) - self.cutoff, 0.0) / self.sigma
        if abs(self.k) < 1e-8:
            return self.share * np.exp(-scaled)
        base = np.maximum(1.0 + self.k * scaled, np.finfo(float).tiny)
        return self.share * base ** (-1.0 / self.k)


def fit_tail(log_weights: ArrayLike) -> Tail | None:
    """Fit the tail of the importance ratios exp(log_weights).

    Args:
        log_weights: log p - log q at each draw; any shape. Values that are not
            finite are left out.

    Returns:
        The fit, or None where fewer than five distinct weights make a tail.
    """
    log_weights = finite(log_weights)
    size = log_weights.size
    if size == 0:
        return None
    length = math.ceil(min(0.2 * size, 3.0 * math.sqrt(size)))
    if length < SMALLEST_TAIL or length >= size:
        return None
    # Only ratios of ratios matter, and the largest ratio as unit cannot overflow.
    ratios = np.exp(np.sort(log_weights)[-length - 1 :] - log_weights.max())
    cutoff, tail = float(ratios[0]), ratios[1:]
    excess = tail - cutoff
    if np.unique(excess[excess > 0]).size < SMALLEST_TAIL:
        return None
    k, sigma = fit_generalised_pareto(excess)
    return Tail(cutoff, tail, length / size, k, sigma)


def khat_threshold(draws: int) -> float:
    """Return the largest k-hat that this many draws can make up for: at most 0.7."""
    if draws < 2:
        return math.nan
    return min(1.0 - 1.0 / math.log10(draws), 0.7) if draws > 10 else 0.0


def effective_draws(log_weights: ArrayLike) -> float:
    """Return (sum w)^2 / sum w^2, the draws left after importance weighting."""
    log_weights = finite(log_weights)
    if log_weights.size == 0:
        return math.nan
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def pointwise_khat(log_weights: ArrayLike, log_likelihood: ArrayLike) -> Array:
    """Return k-hat of leaving out each observation in turn.

    The draws come from q, so the ratio for the posterior without observation i is
    p / (q * likelihood_i): one fit corrects for both.

    Args:
        log_weights: log p - log q, shape (S,).
        log_likelihood: Shape (S, N).

    Returns:
        Shape (N,); NaN where a tail cannot be fitted.
    """
    weights = np.asarray(log_weights, float)
    pointwise = np.asarray(log_likelihood, float)
    with np.errstate(invalid="ignore"):
        ratios = weights[:, None] - pointwise
    fits = (fit_tail(column) for column in ratios.T)
    return np.array([math.nan if fit is None else fit.k for fit in fits])
