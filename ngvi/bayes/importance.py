"""q held against the posterior by the importance weights of its draws.

Draws from q are weighed by p/q. Pareto smoothing of the weights' tail gives k-hat:
below 0.7 the weighted draws estimate the posterior itself, so q's means and standard
deviations can be held against theirs, quantity by quantity.

Source: Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work?; Vehtari et al.
(2024), Pareto smoothed importance sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ngvi.bayes.psis import smoothed

KHAT_LIMIT = 0.7
EVEN_WEIGHTS = 0.9
"""Relative effective sample size above which the weights are so even that the shape of
their tail, which is all k-hat measures, carries no weight."""
_MOST_ENTRIES = 100
"""Of a site, whose k-hat is computed."""


@dataclass(frozen=True)
class Comparison:
    """q held against the reweighted draws, one entry a scalar quantity."""

    names: tuple[str, ...]
    efficiency: float
    mean_error: np.ndarray
    """(mean of q − reweighted mean) / reweighted sd."""
    sd_ratio: np.ndarray
    """sd of q / reweighted sd."""


def pareto_smoothed(log_weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised, Pareto-smoothed weights and k-hat.

    Args:
        log_weight: log p − log q of S draws, shape (S,).

    Returns:
        Weights that sum to 1, shape (S,), and k-hat: infinite, with NaN weights, where
        a log weight is not finite, and 0 where all are equal.
    """
    if not np.isfinite(log_weight).all():
        return np.full(log_weight.shape, np.nan), float("inf")
    if np.ptp(log_weight) < 1e-5:  # q is the posterior; a tail of rounding has no shape
        return np.full(log_weight.shape, 1 / log_weight.size), 0.0
    log_weights, khat = smoothed(log_weight)
    return np.exp(log_weights), khat


def site_khats(
    log_weight: np.ndarray, sites: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """k-hat of w (z − z̄)², the worst over the entries of each site.

    Args:
        log_weight: log p − log q of S draws, shape (S,).
        sites: the draws, (S, *site shape). Of very many entries some are looked at.
    """
    found = {}
    for name, draws in sites.items():
        entries = np.reshape(draws, (len(draws), -1))
        if not np.isrealobj(entries) or not np.isfinite(log_weight).all():
            found[name] = float("nan")
            continue
        stride = -(-entries.shape[1] // _MOST_ENTRIES)
        khats = [0.0]
        for column in entries[:, ::stride].T.astype(np.float64):
            deviation = np.abs(column - column.mean())
            if (deviation > 0).any():
                size = np.maximum(deviation, np.finfo(float).tiny)
                khats.append(pareto_smoothed(log_weight + 2 * np.log(size))[1])
        found[name] = max(khats)
    return found


def efficiency(weights: np.ndarray) -> float:
    """Effective sample size of normalised weights over their number, 1/(S Σw²)."""
    return float(1 / (len(weights) * (weights**2).sum()))


def compare(names: list[str], values: np.ndarray, weights: np.ndarray) -> Comparison:
    """Means and sds of q against the reweighted ones.

    Args:
        names: of K scalar quantities.
        values: draws from q, shape (S, K).
        weights: normalised, shape (S,).
    """
    mean, sd = values.mean(0), values.std(0)
    reweighted = weights @ values
    spread = np.sqrt(np.maximum(weights @ (values - reweighted) ** 2, 0))
    varies = (spread > 0) & (sd > 0)
    safe = np.where(varies, spread, 1.0)
    return Comparison(
        tuple(names),
        efficiency(weights),
        np.where(varies, (mean - reweighted) / safe, 0.0),
        np.where(varies, sd / safe, 1.0),
    )
