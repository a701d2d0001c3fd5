"""The figures of the importance weights: how far the approximation is from exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ngvi.bayes.psis import Tail
from ngvi.report.canvas import (
    DASHED,
    LIMIT,
    POSTERIOR,
    REFERENCE,
    log_axis,
    new_axes,
    say_nothing_to_draw,
    styled,
)
from ngvi.report.plots import MOST_POINTS, WIDE
from ngvi.report.scalars import finite
from ngvi.report.tail import khat_threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def sorted_weights(log_weights: ArrayLike) -> Figure:
    """Draw the importance weights p/q from the largest to the smallest.

    Args:
        log_weights: log p - log q at each draw, up to a constant; any shape.
    """
    label = "draws, the heaviest first (%)"
    figure, axes = new_axes(WIDE, 230, x=label, y="weight (the mean is 1)")
    ordered = np.sort(finite(log_weights))[::-1]
    if ordered.size < 2:
        say_nothing_to_draw(axes)
        return figure
    log_mean = ordered[0] + np.log(np.exp(ordered - ordered[0]).mean())
    # Below a thousandth of the mean a weight is nothing: it would stretch the axis.
    weights = np.exp(np.maximum(ordered - log_mean, np.log(1e-3)))
    rank = 100 * (np.arange(ordered.size) + 0.5) / ordered.size
    keep = np.unique(np.geomspace(1, ordered.size, 300).astype(int)) - 1
    keep = np.union1d(keep, np.linspace(0, ordered.size - 1, 200).astype(int))
    axes.axhline(1.0, color=REFERENCE, linewidth=1.0, linestyle=DASHED)
    axes.plot(rank[keep], weights[keep], color=POSTERIOR)
    axes.set_xlim(0, 100)
    log_axis(axes, "y")
    return figure


@styled
def weight_tail(tail: Tail, draws: int) -> Figure:
    """Draw how often a weight exceeds a size, the fitted tail, and the limit for k.

    Both axes are logarithmic, so a tail of shape k ends with slope -1/k: the flatter,
    the more a few draws decide. The limit has the scale of the fit and the largest k
    that this number of draws can make up for.

    Args:
        tail: The fitted tail.
        draws: Number of draws S, which sets the limit.
    """
    label = "weight, relative to the largest"
    title = "share of draws with a larger weight"
    figure, axes = new_axes(WIDE, 230, x=label, y=title, grid="both")
    size = tail.ratios.size
    exceedance = tail.share * (size - np.arange(size) - 0.5) / size
    axes.plot(
        tail.ratios,
        exceedance,
        "o",
        color=POSTERIOR,
        alpha=0.55,
        markersize=3.6,
        markeredgewidth=0,
        label="largest weights",
    )
    line = np.geomspace(tail.ratios[0], 1.0, 60)
    fitted = tail.survival(line)
    visible = fitted >= exceedance[-1] / 4
    axes.plot(
        line[visible],
        fitted[visible],
        color=POSTERIOR,
        linewidth=1.4,
        label=f"fit, k-hat {tail.k:.2f}",
    )
    limit = khat_threshold(draws)
    if limit > 0:
        # With the scale of the fit, so that the fit is below it just when k is.
        guide = tail._replace(k=limit).survival(line)
        axes.plot(
            line,
            guide,
            color=LIMIT,
            linewidth=1.2,
            linestyle=DASHED,
            label=f"limit, k = {limit:.2f}",
        )
        lowest = min(exceedance[-1], fitted[visible].min(initial=1.0))
        axes.set_ylim(lowest / 2, 1.5 * exceedance[0])
    log_axis(axes, "x")
    log_axis(axes, "y")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@styled
def pointwise_k(khat: ArrayLike, limit: float) -> Figure:
    """Draw k-hat of leaving out each observation.

    Args:
        khat: One value an observation, shape (N,).
        limit: The largest value at which leaving one out can be trusted.
    """
    figure, axes = new_axes(WIDE, 200, x="observation", y="k-hat without it")
    values = np.asarray(khat, float).ravel()
    index = np.flatnonzero(np.isfinite(values))
    if index.size == 0:
        say_nothing_to_draw(axes)
        return figure
    # The worst are the ones to find; of the others a few hundred tell the story.
    worst = index[np.argsort(-values[index])][:MOST_POINTS]
    index = np.union1d(worst, index[:: max(index.size // MOST_POINTS, 1)])
    high = values[index] > limit
    for rows, colour in ((index[~high], POSTERIOR), (index[high], LIMIT)):
        axes.plot(
            rows,
            values[rows],
            "o",
            color=colour,
            alpha=0.75,
            markersize=4,
            markeredgewidth=0,
        )
    axes.axhline(limit, color=LIMIT, linewidth=1.0, linestyle=DASHED)
    axes.locator_params(axis="x", integer=True)
    return figure
