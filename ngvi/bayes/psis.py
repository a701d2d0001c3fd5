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
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

# A tail of fewer has no shape that could be told.
_SHORTEST_TAIL = 5
# Its reciprocal sets the grid, and must be a number.
_SMALLEST_QUARTILE = 1e-290
# Draws that the prior on k, ½, counts as.
_PRIOR = 10


class Tail(NamedTuple):
    """The largest weights, in units of the largest of all, and what was fitted."""

    draws: Int[np.ndarray, "m"]
    """Which they are, in ascending order of their weights."""
    ratios: Float[np.ndarray, "m"]
    cutoff: float
    """u, the largest weight that is not in the tail."""
    share: float
    """M/S, the probability that a weight is in the tail."""
    k: float
    scale: float
    """σ."""

    def survival(self, ratio: ArrayLike) -> Float[np.ndarray, "..."]:
        """The fitted probability that a weight exceeds `ratio`."""
        scaled = np.maximum(np.asarray(ratio, float) - self.cutoff, 0.0) / self.scale
        if abs(self.k) < 1e-8:
            return self.share * np.exp(-scaled)
        base = np.maximum(1.0 + self.k * scaled, np.finfo(float).tiny)
        return self.share * base ** (-1.0 / self.k)


def fit_tail(log_weight: Float[np.ndarray, "s"]) -> Tail | None:
    """The tail of some weights; None where too few are in it to fit.

    Args:
        log_weight: finite, up to a constant.
    """
    count = math.ceil(min(log_weight.size / 5, 3 * math.sqrt(log_weight.size)))
    if count < _SHORTEST_TAIL:
        return None
    x = log_weight - log_weight.max()
    order = np.argsort(x, kind="stable")
    draws, log_cutoff = order[-count:], max(x[order[-count - 1]], _log_tiny(x))
    draws = draws[x[draws] > log_cutoff]
    if draws.size < _SHORTEST_TAIL:
        return None
    ratios, cutoff = np.exp(x[draws]), np.exp(log_cutoff)
    k, scale = fit_generalised_pareto(ratios - cutoff)
    return Tail(draws, ratios, cutoff, draws.size / x.size, k, scale)


def smoothed(
    log_weight: Float[np.ndarray, "s"],
) -> tuple[Float[np.ndarray, "s"], float]:
    """Normalised log weights, and k-hat: infinite where there is no tail to fit.

    Args:
        log_weight: finite, up to a constant.
    """
    x, tail = log_weight - log_weight.max(), fit_tail(log_weight)
    if tail is not None and math.isfinite(tail.k):
        levels = (np.arange(tail.draws.size) + 0.5) / tail.draws.size
        quantiles = tail.scale * _relative_quantiles(levels, tail.k)
        x[tail.draws] = np.minimum(np.log(tail.cutoff + quantiles), 0.0)
    return x - np.logaddexp.reduce(x), math.inf if tail is None else tail.k


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
