"""How the figures look, and how they become SVG that follows the page's colours.

Figures are drawn with matplotlib's object interface: no pyplot, so no open windows and
no figure kept alive. Each is drawn in a handful of named colours that are legible on
white and on black; on a page, ``inline_svg`` replaces them by CSS variables, so that
one picture serves the light and the dark mode.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK = "#6b7583"
GRID = "#c4cad3"
POSTERIOR = "#3d7ab8"
OBSERVED = "#d2762f"
REFERENCE = "#8a94a3"
LIMIT = "#c8494c"
DASHED: Any = (0, (4, 3))

# The page's stylesheet defines these, once for each mode.
CSS_VARIABLES = {
    INK: "--plot-ink",
    GRID: "--plot-grid",
    POSTERIOR: "--plot-posterior",
    OBSERVED: "--plot-observed",
    REFERENCE: "--plot-reference",
    LIMIT: "--plot-limit",
}

RC_PARAMS: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    # A site may be called "$a$", which is a name and no formula.
    "text.parse_math": False,
    "text.usetex": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": [-4, 5],
    "axes.titlesize": 9.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": "inherit",
    "ytick.labelcolor": "inherit",
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.major.width": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.55,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.3,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    # Text stays text: it takes the page's font, can be selected, and is small.
    "svg.fonttype": "none",
    # The same archive gives the same page.
    "svg.hashsalt": "ngvi",
}


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a plotting function draw in the house style, whatever the user's is."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib as mpl

        with mpl.rc_context(RC_PARAMS):
            return function(*args, **kwargs)

    return draw


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; a point of it is about a pixel of the page."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), layout="constrained")


def new_axes(
    width: float,
    height: float,
    *,
    x: str = "",
    y: str = "",
    grid: Literal["x", "y", "both", ""] = "y",
) -> tuple[Figure, Axes]:
    """Return a figure with one set of labelled axes.

    Args:
        width: In points.
        height: In points.
        x: Label of the horizontal axis.
        y: What the vertical axis measures; written above it, where it reads level.
        grid: "x", "y", "both" or "" for the grid lines wanted.
    """
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    if grid:
        axes.grid(axis=grid)
    if x:
        axes.set_xlabel(x)
    if y:
        axes.set_title(y, loc="left", color=INK)
    return figure, axes


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers ("1e-3") rather than formulas.

    Call it when everything is drawn: the ticks depend on how many decades there are.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    narrow = high < 60 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def plain(value: float) -> str:
    """Return a tick's number without padding: 0.01, 100, 1e-6."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def say_nothing_to_draw(axes: Axes, why: str = "no finite values") -> None:
    """Write into empty axes why they are."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)


def inline_svg(figure: Figure, label: str, prefix: str) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: The figure.
        label: What it shows, for people who do not see it.
        prefix: Makes the identifiers of this picture unique on its page.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with mpl.rc_context(RC_PARAMS), warnings.catch_warnings():
        # A glyph that matplotlib's font lacks is no loss: the page's font draws it.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # An inline picture needs no namespaces; matplotlib's stylesheet would leak into
    # the page; and an identifier that nothing refers to only adds bytes.
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    numbers = dict(zip(sorted(used, key=svg.index), itertools.count(1)))
    svg = re.sub(r"<[^>]+>", lambda m: _tidy(m.group(), numbers, prefix), svg)
    svg = re.sub(r">\s+<", "><", svg)
    for colour, variable in CSS_VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    opening = f'<svg role="img" aria-label="{escape(label)}"'
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    return opening + svg.removeprefix("<svg")


def _tidy(tag: str, numbers: dict[str, int], prefix: str) -> str:
    """Round the coordinates in a tag, and rename or drop its identifiers."""

    def rename(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name in numbers:
            return f"{start}{prefix}-{numbers[name]}{end}"
        return "" if start.startswith(" id") else match.group()

    tag = re.sub(r'( id="|url\(#|href="#)([^)"]+)([)"])', rename, tag)
    return re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m.group()):.2f}", tag)
