"""The sections of a report that are words and numbers."""

from __future__ import annotations

from html import escape

from ngvi.bayes.diagnostics import SHAPES
from ngvi.report import markup
from ngvi.report.scalars import finite
from ngvi.report.tail import khat_threshold
from ngvi.report.view import Archive, Record, diagnostics, log_weights
from ngvi.terminal.table import align_decimals, format_columns

MOST_ROWS = 200
YES_NO: dict[object, str] = {True: "yes", False: "no"}

LEVELS = {
    "trustworthy": (
        "good",
        "\N{CHECK MARK}",
        "Means, standard deviations and intervals of this fit can be used.",
    ),
    "means only": (
        "fair",
        "\N{ALMOST EQUAL TO}",
        "Posterior means can be used. Do not rely on standard deviations, intervals "
        "or tail probabilities.",
    ),
    "do not trust": (
        "bad",
        "\N{MULTIPLICATION SIGN}",
        "Do not use these numbers before the points below are dealt with.",
    ),
}


def headline(record: Record) -> str:
    """Return the name of the model and one line about what was fitted."""
    found = diagnostics(record)
    words = []
    if found.get("covariance") is not None:
        name = str(found["covariance"])
        words.append(SHAPES.get(name, f"Gaussian with {escape(name)} covariance"))
    if found.get("dimension") is not None:
        words.append(f"{markup.number(found['dimension'], ',d')} dimensions")
    if found.get("seed") is not None:
        words.append(f"seed {escape(str(found['seed']))}")
    if record.get("ngvi"):
        words.append(f"ngvi {escape(str(record['ngvi']))}")
    title = escape(str(record.get("model") or "Unnamed model"))
    line = f'<p class="soft">{" · ".join(words)}</p>' if words else ""
    return f"<header>\n<h1>{title}</h1>\n{line}\n</header>"


def verdict_banner(record: Record) -> str:
    """Return the verdict with its reasons and what to do next."""
    verdict = record.get("verdict") or {}
    level = str(verdict.get("level") or "no verdict was recorded")
    tone, sign, meaning = LEVELS.get(level, ("none", "?", ""))
    lists = markup.bullets("Why", verdict.get("reasons") or ())
    lists += markup.bullets("What to do next", verdict.get("advice") or ())
    meaning = f"<p>{meaning}</p>" if meaning else ""
    lists = f'<div class="lists">{lists}</div>' if lists else ""
    return (
        f'<section class="verdict {tone}">\n<h2><span class="sign" aria-hidden="true">'
        f"{sign}</span>{escape(level.capitalize())}</h2>\n{meaning}{lists}\n</section>"
    )


def key_numbers(archive: Archive) -> str:
    """Return the numbers that sum up a fit, and why it stopped."""
    found = diagnostics(archive.record)
    if not found:
        return '<p class="note">The archive holds no diagnostics.</p>'
    weights = log_weights(archive)
    size = 0 if weights is None else finite(weights).size
    limit = f"limit {khat_threshold(size):.2f}" if size > 1 else ""
    converged = YES_NO.get(found.get("converged"), markup.MISSING)
    length, rejected = found.get("fisher_length"), found.get("rejected_steps")

    def count(name: str) -> str:
        return markup.number(found.get(name), ",d")

    cells = {
        "ELBO": (markup.number(found.get("elbo"), ",.3f"), "nats"),
        "Pareto k-hat": (markup.number(found.get("khat"), ".2f"), limit),
        "Converged": (
            converged,
            "" if length is None else f"Fisher length {markup.number(length, '.1e')}",
        ),
        "Iterations": (
            count("iterations"),
            f"{count('rejected_steps')} steps rejected" if rejected else "",
        ),
        "Gradient evaluations": (count("gradient_evaluations"), ""),
        "Draws": (
            count("draws"),
            "in the objective" if found.get("draws") is not None else "",
        ),
        "Compiling": (markup.seconds(found.get("seconds_compiling")), ""),
        "Running": (markup.seconds(found.get("seconds_running")), ""),
    }
    reason = str(found.get("stop_reason") or "").strip()
    reason += "" if reason.endswith(".") else "."
    line = f'<p class="note">Stopped: {escape(reason)}</p>' if reason != "." else ""
    return markup.tiles(cells) + line


def posterior_table(record: Record) -> str:
    """Return the summary of the posterior as a table that scrolls in its own box."""
    title, summary = "Posterior", record.get("summary")
    if not summary or not summary.get("data"):
        return markup.left_out(title, "the archive holds no summary.")
    import pandas as pd

    total = len(summary["index"])
    frame = pd.DataFrame(summary["data"], summary["index"], summary["columns"])
    frame = frame.iloc[:MOST_ROWS]
    # Figure and punctuation spaces are as wide as a digit and a point, and so keep
    # the decimal points in line; number parsers strip them as they do any space.
    columns = [
        align_decimals(cells, point="\N{PUNCTUATION SPACE}", digit="\N{FIGURE SPACE}")
        for cells in format_columns(frame)
    ]
    head = "".join(f'<th scope="col">{escape(str(c))}</th>' for c in frame.columns)
    rows, last_site = [], None
    for label, *cells in zip(map(str, frame.index), *columns, strict=True):
        site = label.partition("[")[0]
        mark = "" if site == last_site else ' class="site"'
        last_site = site
        numbers = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(
            f'<tr{mark}><th scope="row" title="{escape(label)}">'
            f"{markup.name(label)}</th>{numbers}</tr>"
        )
    note = ""
    if total > MOST_ROWS:
        note = (
            f'<p class="note">The first {MOST_ROWS:,d} of {total:,d} rows; '
            "<code>posterior.summary()</code> has them all.</p>"
        )
    table = (
        '<div class="card scroll" tabindex="0" role="region" '
        'aria-label="Posterior summary">\n<table><thead><tr><th scope="col">'
        f"quantity</th>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )
    return markup.section(title, table, note)
