"""Posterior predictive checks: do data drawn from the fitted model look like ours?

What is drawn depends on the data: calibration for yes and no, an interval for each of
a few observations, frequencies for counts, a density for the rest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngvi.report.canvas import (
    DASHED,
    OBSERVED,
    POSTERIOR,
    REFERENCE,
    new_axes,
    say_nothing_to_draw,
    styled,
)
from ngvi.report.plots import WIDE, are_whole
from ngvi.report.scalars import tame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Kind = Literal["binary", "few", "count", "continuous"]

MOST_INTERVALS = 40
MOST_COUNTS = 40
# Replicated data sets compared bin by bin; more of them do not change the band.
MOST_REPLICATES = 500

EXPLAIN: dict[Kind, str] = {
    "binary": "Observations are grouped by their predicted probability. Each observed "
    "frequency should lie within the 90% interval of replicated data.",
    "few": "Each observation with the 50% and 90% intervals of replicated data.",
    "count": "How often each value occurs, with the 90% interval of replicated data.",
    "continuous": "The distribution of the observations, with the pointwise 90% band "
    "of replicated data.",
}


class Check(NamedTuple):
    """The observations of one site and their replications, missing ones left out.

    Attributes:
        kind: What sort of data these are.
        observed: Shape (N,).
        replicated: Shape (S, N).
        covered: Share of the observations within their own 90% predictive interval.
    """

    kind: Kind
    observed: Array
    replicated: Array
    covered: float


def compare(observed: ArrayLike, replicated: ArrayLike) -> Check:
    """Pair observations with their replications.

    Args:
        observed: Any shape; values that are not finite count as missing.
        replicated: The same shape behind one leading dimension of draws.

    Returns:
        The pairs, with the kind of the data.

    Raises:
        ValueError: If the shapes differ, or no observation or no draw is left.
    """
    seen, drawn = tame(observed), tame(replicated)
    if drawn.shape[1:] != seen.shape:
        raise ValueError(
            f"the observations have shape {seen.shape}, "
            f"their replications {drawn.shape[1:]}"
        )
    seen, drawn = seen.ravel(), drawn.reshape(drawn.shape[0], -1)
    kept = np.isfinite(seen)
    seen, drawn = seen[kept], drawn[:, kept]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if seen.size == 0:
        raise ValueError("no observation is finite")
    if drawn.shape[0] == 0:
        raise ValueError("no replicated data set is finite")
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    covered = float(((seen >= low) & (seen <= high)).mean())
    return Check(_kind(seen, drawn), seen, drawn, covered)


@styled
def predictive_check(check: Check) -> Figure:
    """Draw the observations of one site against data replicated from the posterior.

    Args:
        check: The pairs, from ``compare``.
    """
    draw = {
        "binary": _calibration,
        "few": _intervals,
        "count": _frequencies,
        "continuous": _densities,
    }[check.kind]
    figure, axes = new_axes(WIDE, 250, grid="both" if check.kind == "binary" else "y")
    draw(axes, check.observed, check.replicated)
    if axes.has_data():
        figure.legend(loc="outside upper left", ncols=3)
    else:
        say_nothing_to_draw(axes)
    return figure


def _kind(observed: Array, replicated: Array) -> Kind:
    """Tell yes/no data, counts and measurements apart by their values."""
    low = min(observed.min(), replicated.min())
    high = max(observed.max(), np.quantile(replicated, 0.995))
    whole = are_whole(observed) and are_whole(replicated)
    if whole and low >= 0 and max(observed.max(), replicated.max()) <= 1:
        return "binary"
    if observed.size <= MOST_INTERVALS:
        return "few"
    return "count" if whole and high - low <= MOST_COUNTS else "continuous"


def _calibration(axes: Axes, observed: Array, replicated: Array) -> None:
    """Draw observed frequencies against predicted probabilities, in ten groups."""
    probability = replicated.mean(axis=0)
    groups = int(np.clip(observed.size // 10, 1, 10))
    # Ties must not be split between groups, or their order in the data would show.
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, groups + 1)[1:-1]))
    member = np.searchsorted(edges, probability, side="right")
    rows = [np.flatnonzero(member == g) for g in np.unique(member)]
    x = [probability[r].mean() for r in rows]
    replicas = np.stack([replicated[:, r].mean(axis=1) for r in rows])
    low, high = np.quantile(replicas, [0.05, 0.95], axis=1)
    axes.plot([0, 1], [0, 1], color=REFERENCE, linewidth=1.0, linestyle=DASHED)
    _draw_replicated(axes, x, low, high, 3.0)
    _draw_observed(axes, x, [observed[r].mean() for r in rows])
    axes.set_xlabel("predicted probability")
    axes.set_title("frequency of 1", loc="left")


def _intervals(axes: Axes, observed: Array, replicated: Array) -> None:
    """Draw an interval for each observation, ordered by what was predicted."""
    order = np.argsort(np.median(replicated, axis=0), kind="stable")
    quantiles = np.quantile(replicated[:, order], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    place = np.arange(order.size)
    _draw_replicated(axes, place, quantiles[0], quantiles[4], 1.8)
    _draw_replicated(axes, place, quantiles[1], quantiles[3], 5.0, "50%")
    _draw_observed(axes, place, observed[order])
    axes.set_xlabel("observation, ordered by the predicted median")
    if order.size <= 20:
        axes.set_xticks(place, [str(i) for i in order])
    else:
        axes.set_xticks([])
    # A heavy tail or two must not flatten everything else.
    spread = quantiles[3] - quantiles[1]
    reach = 12 * max(float(np.median(spread)), math.ulp(1.0))
    middle = float(np.median(quantiles[2]))
    low = max(quantiles[0].min(), min(middle - reach, quantiles[1].min()))
    high = min(quantiles[4].max(), max(middle + reach, quantiles[3].max()))
    low, high = min(low, observed.min()), max(high, observed.max())
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _frequencies(axes: Axes, observed: Array, replicated: Array) -> None:
    """Draw the number of times each value occurs."""
    high = max(observed.max(), np.quantile(replicated, 0.995))
    low = min(observed.min(), np.quantile(replicated, 0.005))
    edges = np.arange(low - 0.5, high + 1.0)
    values = edges[:-1] + 0.5
    band = _binned(replicated, edges, [0.05, 0.5, 0.95])
    axes.bar(
        values,
        np.histogram(observed, edges)[0],
        width=0.8,
        color=OBSERVED,
        alpha=0.45,
        label="observed",
    )
    _draw_replicated(axes, values, band[0], band[2], 2.4)
    axes.plot(values, band[1], "o", color=POSTERIOR, markersize=3.6)
    axes.set_xlabel("value")
    axes.set_title("observations", loc="left")
    axes.locator_params(axis="x", integer=True)


def _densities(axes: Axes, observed: Array, replicated: Array) -> None:
    """Draw a histogram of the observations over the band of the replicated ones."""
    low, high = np.quantile(replicated, [0.002, 0.998])
    low, high = min(low, observed.min()), max(high, observed.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(2 * observed.size ** (1 / 3), 10, 40))
    edges = np.linspace(low, high, bins + 1)
    scale = observed.size * (edges[1] - edges[0])
    band = _binned(replicated, edges, [0.05, 0.5, 0.95]) / scale
    axes.stairs(
        band[2],
        edges,
        baseline=band[0],
        fill=True,
        color=POSTERIOR,
        alpha=0.3,
        linewidth=0,
        label="replicated, 90%",
    )
    axes.stairs(band[1], edges, color=POSTERIOR, linewidth=1.2, baseline=None)
    axes.stairs(
        np.histogram(observed, edges)[0] / scale,
        edges,
        color=OBSERVED,
        linewidth=1.6,
        baseline=None,
        label="observed",
    )
    axes.set_xlabel("value")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom=0)


def _draw_replicated(
    axes: Axes,
    x: ArrayLike,
    low: Array,
    high: Array,
    width: float,
    label: str = "replicated, 90%",
) -> None:
    """Draw an interval of replicated data at each place."""
    axes.vlines(x, low, high, color=POSTERIOR, linewidth=width, alpha=0.6, label=label)


def _draw_observed(axes: Axes, x: ArrayLike, values: ArrayLike) -> None:
    """Draw the observed value at each place."""
    axes.plot(x, values, "o", color=OBSERVED, markersize=5, zorder=3, label="observed")


def _binned(replicated: Array, edges: Array, quantiles: list[float]) -> Array:
    """Return quantiles, over replicated data sets, of the counts in each bin."""
    thin = replicated[:: max(replicated.shape[0] // MOST_REPLICATES, 1)]
    counts = np.stack([np.histogram(row, edges)[0] for row in thin])
    return np.quantile(counts, quantiles, axis=0)
