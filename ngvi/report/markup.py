"""Small pieces of HTML that the sections of a report are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: object, spec: str = ",.4g") -> str:
    """Return a number as text for a sentence; a dash where there is none.

    Args:
        value: A number, or anything else that a record may hold in its place.
        spec: How to format it.
    """
    if value is None or isinstance(value, str | bytes):
        return MISSING if value is None else escape(str(value))
    try:
        value = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return escape(str(value))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}\N{INFINITY}"
    if spec.endswith("d"):
        value = round(value)
    text = format(value, spec)
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def seconds(value: object) -> str:
    """Return a duration with a sensible number of digits."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return number(value)
    if value >= 100:
        return f"{number(value, ',d')} s"
    return f"{number(value, '.2f' if value < 10 else '.1f')} s"


def section(title: str, *parts: str) -> str:
    """Return a section under its heading."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def left_out(title: str, reason: str) -> str:
    """Return a section that only says why it is empty."""
    return section(title, f'<p class="note">Left out: {escape(reason)}</p>')


def figure(svg: str, caption: str = "", kind: str = "card") -> str:
    """Return a picture on a card. The caption is HTML already."""
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{caption}{svg}</figure>' if svg else ""


def grid(kind: str, figures: Iterable[str]) -> str:
    """Return pictures side by side, as many as there is room for."""
    content = "\n".join(item for item in figures if item)
    return f'<div class="grid {kind}">\n{content}\n</div>' if content else ""


def bullets(title: str, items: Iterable[object]) -> str:
    """Return a list under a heading; nothing where there are no items."""
    rows = "".join(f"<li>{escape(str(item))}</li>" for item in items)
    return f"<div><h3>{escape(title)}</h3><ul>{rows}</ul></div>" if rows else ""


def tiles(cells: Mapping[str, tuple[str, str]]) -> str:
    """Return numbers with their names. Values and remarks are HTML already."""
    rows = []
    for name, (value, remark) in cells.items():
        small = f"<small>{remark}</small>" if remark else ""
        rows.append(f"<div><dt>{escape(name)}</dt><dd>{value}{small}</dd></div>")
    return f'<dl class="numbers">{"".join(rows)}</dl>'


def name(text: object) -> str:
    """Return the name of a site or a quantity, set as code."""
    return f'<span class="name">{escape(str(text))}</span>'
