"""Pareto-smoothed importance weights.

The largest M = ⌈min(S/5, 3√S)⌉ of S weights are fitted by a generalised Pareto
distribution above the next largest, u, and replaced by its quantiles in their order,

    w₍ⱼ₎ ← u + F⁻¹((j − ½)/M),     F(x) = 1 − (1 + k x/σ)^(−1/k),

none above the largest raw weight. The shape k, k-hat, says how many moments the weights
have: they have a variance below ½, and the estimates are of use up to about 0.7.

Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance
sampling, section 3; Zhang and Stephens (2009), A new and efficient estimation method
for the generalized Pareto distribution (the fit).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

# A tail of fewer has no shape that could be told.
_SHORTEST_TAIL = 5
# Its reciprocal sets the grid, and must be a number.
_SMALLEST_QUARTILE = 1e-290
# Draws that the prior on k, ½, counts as.
_PRIOR = 10


def smoothed(
    log_weight: Float[np.ndarray, "s"],
) -> tuple[Float[np.ndarray, "s"], float]:
    """Normalised log weights, and k-hat: infinite where there is no tail to fit.

    Args:
        log_weight: finite, up to a constant.
    """
    x = log_weight - log_weight.max()
    count = math.ceil(min(x.size / 5, 3 * math.sqrt(x.size)))
    khat = math.inf
    if count >= _SHORTEST_TAIL:
        order = np.argsort(x, kind="stable")
        tail, cutoff = order[-count:], max(x[order[-count - 1]], _log_tiny(x))
        tail = tail[x[tail] > cutoff]
        if tail.size >= _SHORTEST_TAIL:
            excess = np.exp(x[tail]) - np.exp(cutoff)
            khat, scale = fit_generalised_pareto(excess)
            if math.isfinite(khat):
                levels = (np.arange(tail.size) + 0.5) / tail.size
                quantiles = scale * _relative_quantiles(levels, khat)
                x = x.copy()
                x[tail] = np.minimum(np.log(np.exp(cutoff) + quantiles), 0.0)
    return x - np.logaddexp.reduce(x), khat


def fit_generalised_pareto(excess: Float[np.ndarray, "m"]) -> tuple[float, float]:
    """Shape k and scale σ of a generalised Pareto distribution.

    The likelihood is profiled over θ = −k/σ, whose posterior mean is taken over a grid;
    k is then drawn a little towards ½.

    Args:
        excess: in ascending order, positive.
    """
    m = excess.size
    grid = 30 + int(math.sqrt(m))
    quartile = max(float(excess[max(int(m / 4 + 0.5) - 1, 0)]), _SMALLEST_QUARTILE)
    steps = np.arange(1, grid + 1) - 0.5
    theta = 1 / excess[-1] + (1 - np.sqrt(grid / steps)) / (3 * quartile)
    shape = np.log1p(-theta[:, None] * excess).mean(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        profile = m * (np.log(-theta / shape) - shape - 1)
    profile = np.where(np.isfinite(profile), profile, -np.inf)
    weights = np.exp(profile - profile.max())
    # So light that they only add noise.
    weights[weights < 10 * np.finfo(float).eps * weights.sum()] = 0
    best = float((weights / weights.sum()) @ theta)
    k = float(np.log1p(-best * excess).mean())
    return (m * k + _PRIOR * 0.5) / (m + _PRIOR), -k / best


def _relative_quantiles(levels: np.ndarray, k: float) -> np.ndarray:
    """F⁻¹ in units of σ."""
    if abs(k) < 1e-12:
        return -np.log1p(-levels)
    with np.errstate(over="ignore"):  # none is above the largest weight in the end
        return np.expm1(-k * np.log1p(-levels)) / k


def _log_tiny(x: np.ndarray) -> float:
    return math.log(np.finfo(x.dtype).tiny)
