"""How far importance weights can be trusted: k-hat of a report, and what it may be.

Plain NumPy: a report needs no compiler.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngvi.bayes import psis
from ngvi.report.scalars import finite

Array = NDArray[np.float64]


def fit_tail(log_weights: ArrayLike) -> psis.Tail | None:
    """Fit the tail of the importance ratios exp(log_weights).

    Args:
        log_weights: log p - log q at each draw; any shape. Values that are not
            finite are left out.

    Returns:
        The fit, or None where fewer than five weights make a tail.
    """
    return psis.fit_tail(finite(log_weights))


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
