"""A picture of a search: what to look at when it ended where it should not have.

Four panels over the evaluations: how far the values were above the answer, the size and
the shape of the search distribution, its mean, and its standard deviation in each
coordinate. A search that works makes straight lines downwards in the first; the others
say why one does not: a σ that falls too early or never, an axis ratio that still grows,
a coordinate that runs to a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from ngvi.extras import extra
from ngvi.names import scalar_names
from ngvi.report.canvas import (
    GRID,
    INK,
    OBSERVED,
    POSTERIOR,
    REFERENCE,
    log_axis,
    new_figure,
    say_nothing_to_draw,
    styled,
)
from ngvi.report.scalars import tame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from scipy.optimize import OptimizeResult

Array = Float[np.ndarray, "g"]

_WIDTH, _HEIGHT = 720.0, 250.0
"""Of the figure, and of a row of panels, in points."""
_NAMED = 10
"""More coordinates than this are not named one by one."""
_NARROW, _WIDE = 0.05, 0.2
"""Of the width: a shorter run has no room for its label, or for one in words."""
_PAD = 16
"""Of titles above the populations."""
_FEW = 40
"""Rows that are drawn with a mark each."""


def plot(result: OptimizeResult, path: str | PathLike[str] | None = None) -> Figure:
    """Draw the history of a search.

    Values are drawn as distances from the answer, in log scale, so that those as good
    as it have no place; those of a noisy objective as they are. Runs are shaded in turn
    and named by their populations; "axes" is the search along the axes, before the
    first of them. Above 40 dimensions there are two panels: the history has no
    coordinates.

    Args:
        result: of `ngvi.minimize`.
        path: a file to write the picture to (.png, .svg, .pdf, …).

    Returns:
        A figure of its own, not one of pyplot's.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the search ended before its first generation.

    Example:
        >>> import jax.numpy as jnp, ngvi
        >>> found = ngvi.minimize(lambda x: x @ x, jnp.ones(2), budget=100)
        >>> figure = ngvi.nes.plot(found)
    """
    with extra("plots", "ngvi.nes.plot"):
        import matplotlib  # noqa: F401
    if not result.history:
        raise ValueError(
            "there is nothing to draw: the search ended before its first generation "
            f"({result.message})"
        )
    figure = _draw(result)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


@styled
def _draw(result: OptimizeResult) -> Figure:
    history = result.history
    rows = 2 if "mean" in history else 1
    figure = new_figure(_WIDTH, rows * _HEIGHT)
    figure.set_facecolor("white")
    figure.suptitle(_headline(result), x=0.012, ha="left", fontsize=10.5)
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False)
    (_noisy_values if "fun_error" in result else _values)(panels[0, 0], result)
    _distribution(panels[0, 1], history)
    if rows == 2:
        names = list(_names(result.x))
        _coordinates(panels[1, 0], history, "mean", names)
        _coordinates(panels[1, 1], history, "sd", names)
        log_axis(panels[1, 1], "y")
        panels[1, 0].set_title("mean, by coordinate", loc="left")
        panels[1, 1].set_title("standard deviation, by coordinate", loc="left")
        _name_coordinates(figure, panels[1, 0], names)
    for axes in panels.flat:
        _mark_runs(axes, history, labels=axes in panels[0])
        axes.grid(axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in panels[-1]:
        axes.set_xlabel("evaluations")
    return figure


def _headline(result: OptimizeResult) -> str:
    runs = len({run for run in result.history["run"].tolist() if run >= 0})
    parts = [f"best value {result.fun:.6g}", f"{result.nfev:,} evaluations"]
    parts += [f"{runs} runs"] * (runs > 1)
    parts += [f"{result.nfailed:,} failed"] * (result.nfailed > 0)
    return ", ".join(parts) + f"; ended by {result.message.partition(':')[0]}"


def _values(axes: Axes, result: OptimizeResult) -> None:
    """How far above the answer the values were."""
    history = result.history
    sign = -1 if result.get("maximize", False) else 1
    best, median = (
        sign * (tame(history[name]) - result.fun) for name in ("best", "median")
    )
    # Better than the answer is only what could not be it.
    violates = history.get("maxcv", 0.0) > result.get("maxcv", 0.0)
    best_so_far = np.where((best < 0) | violates, np.nan, best)
    best_so_far = _positive(np.fmin.accumulate(best_so_far))
    side = "below" if sign < 0 else "above"
    title = f"distance {side} the best value found"
    axes.set_title(title, loc="left", pad=_PAD)
    _line(axes, history, _positive(median), REFERENCE, "a generation's median", lw=0.9)
    _line(axes, history, _positive(best), OBSERVED, "a generation's best", lw=0.9)
    axes.plot(
        history["evaluations"],
        best_so_far,
        color=POSTERIOR,
        label="best so far",
        drawstyle="steps-post",
        linewidth=2,
    )
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines()):
        known = np.isfinite(best).any()
        say_nothing_to_draw(axes, "all values are equal" if known else "no value")
        return
    log_axis(axes, "y")
    _legend(axes)


def _noisy_values(axes: Axes, result: OptimizeResult) -> None:
    """The values: no distance from what they scatter around has a logarithm."""
    history = result.history
    axes.set_title("values", loc="left", pad=_PAD)
    median, best = tame(history["median"]), tame(history["best"])
    _line(axes, history, median, REFERENCE, "a generation's median", lw=1.6)
    _line(axes, history, best, OBSERVED, "a generation's best", lw=0.9)
    axes.axhline(result.fun, color=POSTERIOR, label="mean at the answer")
    _legend(axes)


def _distribution(axes: Axes, history: dict[str, np.ndarray]) -> None:
    """Its size and its shape."""
    axes.set_title("σ and axis ratio", loc="left", pad=_PAD)
    sigma, ratio = _positive(history["sigma"]), _positive(history["axis_ratio"])
    if not np.isfinite(sigma).any():
        say_nothing_to_draw(axes, "no distribution: a search along the axes only")
        return
    _line(axes, history, sigma, POSTERIOR, "σ, geometric mean", lw=1.8)
    _line(axes, history, ratio, OBSERVED, "axis ratio", lw=1.3, linestyle=(0, (4, 1)))
    log_axis(axes, "y")
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=True, facecolor="white", edgecolor="none", handlelength=2)


def _coordinates(
    axes: Axes, history: dict[str, np.ndarray], column: str, names: list[str]
) -> None:
    values = tame(history[column])
    values = _positive(values) if column == "sd" else values
    if not np.isfinite(values).any():
        say_nothing_to_draw(axes, "no distribution: a search along the axes only")
    for line, name, color in zip(values.T, names, _colors(len(names)), strict=True):
        _line(axes, history, line, color, name, lw=1.3)


def _line(
    axes: Axes,
    history: dict[str, np.ndarray],
    values: Array,
    color: Any,
    label: str,
    lw: float,
    **style: Any,
) -> None:
    """A line that is broken where a run ends."""
    starts = np.flatnonzero(np.diff(history["run"])) + 1
    evaluations = np.insert(history["evaluations"].astype(float), starts, np.nan)
    values = np.insert(values, starts, np.nan)
    gap = ~np.isfinite(np.pad(values, 1, constant_values=np.nan))
    alone = gap[:-2] & gap[2:]
    axes.plot(
        evaluations,
        values,
        color=color,
        label=label,
        linewidth=lw,
        marker="o",
        markersize=3,
        markevery=alone | (len(values) <= _FEW),
        **style,
    )


def _mark_runs(axes: Axes, history: dict[str, np.ndarray], labels: bool) -> None:
    """A line where one begins, a shade on every other, its population if wanted."""
    evaluations, run, popsize = (
        history[name] for name in ("evaluations", "run", "popsize")
    )
    # Along the axes an exchange has as many points as it needs.
    changed = (np.diff(run) != 0) | ((np.diff(popsize) != 0) & (run[1:] >= 0))
    first = np.concatenate([[0], np.flatnonzero(changed) + 1])
    ends = evaluations[np.append(first[1:], len(run)) - 1]
    begins = np.concatenate([[0], ends[:-1]])
    axes.set_xlim(0, evaluations[-1] * 1.01)
    for at, begin, end in zip(first, begins, ends, strict=True):
        if begin:
            axes.axvline(begin, color=GRID, linewidth=0.8, zorder=0)
        if run[at] % 2 and run[at] > 0:
            axes.axvspan(begin, end, color=GRID, alpha=0.3, linewidth=0, zorder=0)
        width = (end - begin) / evaluations[-1]
        if labels and width >= _NARROW:
            words = "population " if width >= _WIDE else ""
            axes.text(
                (begin + end) / 2,
                1.01,
                "axes" if run[at] < 0 else f"{words}{popsize[at]:,d}",
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=8,
            )


def _name_coordinates(figure: Figure, axes: Axes, names: list[str]) -> None:
    if len(names) <= _NAMED:
        handles = axes.get_lines()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return
    figure.supxlabel(
        f"{len(names)} coordinates, {names[0]} (dark) to {names[-1]} (light)",
        fontsize=9.5,
        color=INK,
    )


def _names(x: Any) -> Iterator[str]:
    """Of the numbers of a pytree, in the order of the coordinates."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(x)[0]:
        site = jax.tree_util.keystr(path, simple=True, separator=".")
        yield from scalar_names(site or "x", np.shape(leaf))


def _colors(count: int) -> Any:
    """Dark to light, also to those who see no hues; none too light for paper."""
    import matplotlib as mpl

    return mpl.colormaps["viridis"](np.linspace(0, 0.85, count))


def _positive(values: np.ndarray) -> np.ndarray:
    """NaN for what has no logarithm."""
    values = tame(values)
    return np.where(values > 0, values, np.nan)
