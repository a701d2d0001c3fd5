"""The figures of a fit and its posterior, each from arrays to a matplotlib Figure.

Every function takes what it needs and nothing else, leaves out what is not finite, and
returns a figure of its own; ``figure.savefig("trace.png")`` works on any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngvi.report.canvas import (
    GRID,
    OBSERVED,
    POSTERIOR,
    REFERENCE,
    log_axis,
    new_axes,
    new_figure,
    say_nothing_to_draw,
    styled,
)
from ngvi.report.scalars import finite, tame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import Dataset

Array = NDArray[np.float64]

WIDE = 390.0
# More points than this add bytes to a scatter plot and nothing to the eye.
MOST_POINTS = 400


@styled
def elbo_trace(history: Dataset) -> Figure:
    """Draw the ELBO of each iteration, and where the number of draws grew.

    Args:
        history: One dimension, iteration; variables elbo and, if known, draws.
    """
    figure, axes = new_axes(WIDE, 230, x="iteration", y="ELBO (nats)")
    iteration, elbo = _iterations(history), _column(history, "elbo")
    if not np.isfinite(elbo).any():
        say_nothing_to_draw(axes)
        return figure
    _trace(axes, iteration, elbo)
    # The first steps may gain thousands of nats, against which the end is a flat line.
    known = np.sort(elbo[np.isfinite(elbo)])
    top, middle, bottom = known[-1], known[known.size // 4], known[0]
    # Less than a tenth of a nat is nothing, and would only show rounding errors.
    span = max(4 * (top - middle), 0.1)
    if top - bottom > 2 * span:
        axes.set_ylim(top - span, top + 0.1 * span)
        if below := int((known < axes.get_ylim()[0]).sum()):
            note = f"ELBO (nats); {below} early values lie below the axis"
            axes.set_title(note, loc="left")
    _mark_growth(axes, history, iteration)
    return figure


@styled
def fisher_length_trace(history: Dataset) -> Figure:
    """Draw the Fisher length of the natural gradient, in log scale.

    Args:
        history: One dimension, iteration; variables fisher_length and, if known, draws.
    """
    title = "Fisher length of the natural gradient"
    figure, axes = new_axes(WIDE, 230, x="iteration", y=title)
    iteration, length = _iterations(history), _column(history, "fisher_length")
    length = np.where(length > 0, length, np.nan)
    if not np.isfinite(length).any():
        say_nothing_to_draw(axes)
        return figure
    _trace(axes, iteration, length)
    log_axis(axes, "y")
    _mark_growth(axes, history, iteration)
    return figure


@styled
def marginal(draws: ArrayLike, prior: ArrayLike | None = None) -> Figure:
    """Draw the distribution of one scalar quantity, its median and its 90% interval.

    Args:
        draws: Posterior draws, any shape.
        prior: Draws from the prior, outlined for comparison.
    """
    figure, axes = new_axes(150, 92, grid="")
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    values = finite(draws)
    if values.size == 0:
        say_nothing_to_draw(axes)
        return figure
    edges = histogram_edges(values)
    heights = np.histogram(values, edges)[0] / values.size / np.diff(edges)
    axes.stairs(heights, edges, fill=True, color=POSTERIOR, alpha=0.45, linewidth=0)
    if prior is not None and (before := finite(prior)).size:
        density = np.histogram(before, edges)[0] / before.size / np.diff(edges)
        axes.stairs(density, edges, color=REFERENCE, linewidth=1.0)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    # The interval sits on the base line, where it hides none of the shape.
    base = -0.07 * heights.max()
    axes.plot([low, high], [base, base], color=POSTERIOR, linewidth=2.2)
    axes.plot([middle], [base], "o", color=POSTERIOR, markersize=4.5)
    axes.set_ylim(2 * base, 1.05 * heights.max())
    axes.locator_params(axis="x", nbins=3)
    return figure


@styled
def pair_plot(columns: Mapping[str, ArrayLike]) -> Figure:
    """Draw every pair of a few scalar quantities against each other.

    Args:
        columns: Draws by name, all of shape (S,).
    """
    names = list(columns)
    table = np.stack([tame(columns[name]) for name in names])
    table = table[:, np.isfinite(table).all(axis=0)]
    size = len(names)
    figure = new_figure(140 * size, 122 * size)
    if table.shape[1] == 0:
        say_nothing_to_draw(figure.add_subplot())
        return figure
    grid = figure.subplots(size, size, squeeze=False, sharex="col")
    thin = table[:, :: max(table.shape[1] // MOST_POINTS, 1)]
    for row, column in np.ndindex(size, size):
        axes = cast("Axes", grid[row, column])
        if column > row:
            axes.set_axis_off()
            # Adding zero turns a correlation that rounds to -0.00 into 0.00.
            r = round(float(np.corrcoef(table[row], table[column])[0, 1]), 2) + 0.0
            axes.text(
                0.5,
                0.5,
                f"{r:.2f}".replace("-", "\N{MINUS SIGN}"),
                ha="center",
                va="center",
                transform=axes.transAxes,
                fontsize=9.5 + 4 * abs(np.nan_to_num(r)),
            )
            continue
        if column == row:
            edges = histogram_edges(table[row])
            counts = np.histogram(table[row], edges)[0]
            axes.stairs(counts, edges, fill=True, color=POSTERIOR, alpha=0.45)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        else:
            axes.plot(
                thin[column],
                thin[row],
                ".",
                color=POSTERIOR,
                alpha=0.35,
                markersize=4.2,
                markeredgewidth=0,
            )
            axes.set_xlim(_central(table[column]))
            axes.set_ylim(_central(table[row]))
            axes.locator_params(axis="y", nbins=4)
            # The scale of a row is that of its first panel.
            axes.tick_params(labelleft=column == 0)
        axes.locator_params(axis="x", nbins=3)
        if row == size - 1:
            axes.set_xlabel(shorten(names[column]))
        if column == 0:
            axes.set_ylabel(shorten(names[row]))
    return figure


def histogram_edges(values: Array) -> Array:
    """Return bin edges: on the integers if the draws are, else over the central 99%."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 40 and are_whole(values):
        return np.arange(low - 0.5, high + 1.0)
    low, high = _central(values)
    edges = np.linspace(low, high, int(np.clip(2 * values.size ** (1 / 3), 12, 36)) + 1)
    # Neighbouring edges coincide where the draws differ by less than rounding errors.
    if (np.diff(edges) <= 0).any():
        centre = float(np.median(values))
        width = max(abs(centre), 1.0) * 1e-3
        edges = np.array([centre - width, centre + width])
    return edges


def are_whole(values: Array) -> bool:
    """Say whether all values are integers, and small enough to differ by one half."""
    return bool((values == np.round(values)).all() and np.abs(values).max() < 1e12)


def shorten(name: str, longest: int = 18) -> str:
    """Return a name that fits beside an axis."""
    return (
        name
        if len(name) <= longest
        else name[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def _central(values: Array) -> tuple[float, float]:
    """Return the range of the central 99%, or all of it where that is hardly wider."""
    low, high = (float(q) for q in np.quantile(values, [0.005, 0.995]))
    least, most = float(values.min()), float(values.max())
    slack = 0.15 * (high - low)
    low = least if least >= low - slack else low
    high = most if most <= high + slack else high
    if not high > low:
        width = max(abs(low), 1.0) * 1e-3
        return low - width, high + width
    return low, high


def _column(history: Dataset, name: str) -> Array:
    """Return a column of the history, or NaN where it was not kept."""
    if name not in history:
        return np.full(_iterations(history).size, np.nan)
    return tame(history[name].to_numpy()).ravel()


def _iterations(history: Dataset) -> Array:
    """Return the numbers of the iterations."""
    if "iteration" in history.variables:
        return history["iteration"].to_numpy().astype(float).ravel()
    size = max((history[name].size for name in history.data_vars), default=0)
    return np.arange(1, size + 1, dtype=float)


def _trace(axes: Axes, iteration: Array, values: Array) -> None:
    """Draw a line, with a mark at each iteration while they can be told apart."""
    marker = "o" if values.size <= 60 else ""
    axes.plot(iteration, values, color=POSTERIOR, marker=marker, markersize=3.2)
    axes.locator_params(axis="x", integer=True)


def _mark_growth(axes: Axes, history: Dataset, iteration: Array) -> None:
    """Mark the iterations at which the objective was given more draws."""
    draws = _column(history, "draws")
    if draws.size != iteration.size:
        return
    grown = np.flatnonzero((np.diff(draws) > 0) & (draws[1:] < 1e9)) + 1
    for index in grown[:8]:
        where = (iteration[index - 1] + iteration[index]) / 2
        axes.axvline(where, color=OBSERVED, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.text(
            where,
            1.0,
            f" {draws[index]:,.0f} draws",
            transform=axes.get_xaxis_transform(),
            va="top",
            fontsize=8.5,
            color=OBSERVED,
            bbox={"facecolor": "none", "edgecolor": GRID, "linewidth": 0, "pad": 1},
        )
