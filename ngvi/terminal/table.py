"""Tables of posterior summaries: how many digits to print, and how to align them.

A number is worth as many decimals as its posterior standard deviation supports. The
rows of one site share their decimals, so that a vector reads as a column; the
Monte Carlo standard error, being smaller, has its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

# Beyond these sizes a fixed-point number is harder to read than an exponent.
LARGEST_FIXED = 1e7
MOST_DECIMALS = 7
LONGEST_NAME = 40


def text_table(frame: DataFrame, *, max_rows: int | None = 40) -> str:
    """Return a summary as a fixed-width table for a terminal.

    Args:
        frame: One row a scalar quantity ("theta[0]"), numeric columns such as mean,
            sd, q5, median, q95, mcse. Decimals follow the column ``sd``.
        max_rows: Rows shown before the middle is hidden; None shows all.

    Returns:
        The table, without a newline at its end.
    """
    total = len(frame)
    if total == 0:
        return "(no quantities to summarise)"
    head, tail = total, 0
    if max_rows is not None and total > max_rows:
        tail = max(max_rows // 8, 1) if max_rows > 1 else 0
        head = max(max_rows - tail, 1)
    shown = list(range(head)) + list(range(total - tail, total))
    frame = frame.iloc[shown]

    names = [_shorten(str(name)) for name in frame.index]
    columns = [align_decimals(cells) for cells in format_columns(frame)]
    headers = [str(column) for column in frame.columns]
    widths = [
        max(len(header), *map(len, cells))
        for header, cells in zip(headers, columns, strict=True)
    ]
    name_width = max(map(len, names))

    lines = [_line("", name_width, headers, widths)]
    lines += [
        _line(name, name_width, cells, widths)
        for name, cells in zip(names, zip(*columns, strict=True), strict=True)
    ]
    if not columns:
        lines = names
    if hidden := total - len(shown):
        note = f"... {hidden:,d} rows hidden; .summary() has all {total:,d} ..."
        lines.insert(head + bool(columns), note)
    return "\n".join(lines)


def format_columns(frame: DataFrame) -> list[list[str]]:
    """Return the cells of each column as text, with the decimals they deserve.

    Args:
        frame: A summary indexed by names such as "theta[0]".

    Returns:
        One list of strings a column, not padded. Missing values read "nan".
    """
    names = [str(name) for name in frame.index]
    sites = [name.partition("[")[0] for name in names]
    titles = [str(title) for title in frame.columns]
    numbers = [[_number(cell) for cell in frame.iloc[:, j]] for j in range(len(titles))]
    # Without an sd there is no scale to go by: each number then stands for itself.
    spread = numbers[titles.index("sd")] if "sd" in titles else None

    cells: list[list[str]] = []
    for title, values in zip(titles, numbers, strict=True):
        if title.startswith("mcse"):
            scales, digits = values, 2
        elif spread is not None and _on_the_scale_of_sd(title):
            scales, digits = spread, 3
        else:
            cells.append([f"{value:.4g}" for value in values])
            continue
        column = []
        rows = zip(sites, values, scales, strict=True)
        for _, group in groupby(rows, key=lambda row: row[0]):
            _, site_values, site_scales = zip(*group, strict=True)
            decimals = decimals_for(site_scales, digits)
            column += [_format(value, decimals, digits) for value in site_values]
        cells.append(column)
    return cells


def decimals_for(scales: Iterable[float], digits: int) -> int | None:
    """Return the decimals that show these scales to about ``digits`` digits.

    The largest scale gets ``digits`` significant digits and the smallest at least one
    fewer, so that one precise element does not vanish among imprecise ones.

    Args:
        scales: Standard deviations, or standard errors, of one site.
        digits: Significant digits wanted.

    Returns:
        A number of decimals, or None where no scale is positive and finite.
    """
    usable = [scale for scale in scales if math.isfinite(scale) and scale > 0]
    if not usable:
        return None
    smallest = digits - 2 - math.floor(math.log10(min(usable)))
    largest = digits - 1 - math.floor(math.log10(max(usable)))
    return max(smallest, largest, 0)


def align_decimals(
    cells: Sequence[str], *, point: str = " ", digit: str = " "
) -> list[str]:
    """Pad numbers on the right so that their decimal points stand in one line.

    Args:
        cells: Numbers as text.
        point: What stands for a missing decimal point.
        digit: What stands for a missing decimal.

    Returns:
        The cells, to be set flush right.
    """
    # Exponents and "nan" have no place in the grid of decimals and stay as they are.
    fixed = [cell.lstrip("-").replace(".", "", 1).isdigit() for cell in cells]
    decimals = [len(cell.partition(".")[2]) for cell in cells]
    most = max((d for d, ok in zip(decimals, fixed, strict=True) if ok), default=0)
    padded = []
    for cell, count, ok in zip(cells, decimals, fixed, strict=True):
        pad = digit * (most - count) + (point if most and not count else "")
        padded.append(cell + pad if ok else cell)
    return padded


def _number(cell: object) -> float:
    """Return a cell as a float; what is missing or not a number becomes NaN."""
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _on_the_scale_of_sd(title: str) -> bool:
    """Say whether a column is measured in the units of the quantity itself."""
    quantile = title.startswith("q") and title[1:].replace(".", "", 1).isdigit()
    return quantile or title in {"mean", "sd", "median", "mode"}


def _format(value: float, decimals: int | None, digits: int) -> str:
    """Return a number with these decimals, or with an exponent when that is shorter."""
    if decimals is None or not math.isfinite(value):
        return f"{value:.4g}"
    if decimals > MOST_DECIMALS or abs(value) >= LARGEST_FIXED:
        return f"{value:.{max(digits, 1)}e}"
    return f"{value:.{decimals}f}"


def _shorten(name: str) -> str:
    """Return a name that fits its column, keeping both its ends."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 3) // 2
    return f"{name[: LONGEST_NAME - 3 - half]}...{name[-half:]}"


def _line(name: str, width: int, cells: Iterable[str], widths: Sequence[int]) -> str:
    """Return one row: the name flush left, the cells flush right."""
    padded = (f"{cell:>{size}}" for cell, size in zip(cells, widths, strict=True))
    return "  ".join([f"{name:<{width}}", *padded]).rstrip()
