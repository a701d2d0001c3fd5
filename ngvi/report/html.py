"""The report of a fit: one HTML page that needs nothing else.

    write(posterior.archive(), "eight_schools.html")

The page opens with the verdict, since that decides how the rest is to be read, and
then goes from the answer (the posterior) to the reasons to believe it (convergence,
predictive checks, importance weights). Styles are inline, pictures are inline SVG that
follows the reader's light or dark mode, and there are no scripts.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from ngvi.report.css import STYLESHEET
from ngvi.report.pictures import (
    Pictures,
    convergence,
    marginals,
    pairs,
    predictive_checks,
    weights,
)
from ngvi.report.sections import (
    headline,
    key_numbers,
    posterior_table,
    verdict_banner,
)
from ngvi.report.view import Archive

NO_PLOTS = (
    '<p class="note card">Pictures are left out because matplotlib is not installed: '
    "<code>pip install 'ngvi[plots]'</code> adds them.</p>"
)


def render(archive: Archive) -> str:
    """Return the report of a fit as one self-contained HTML page.

    Sections whose group the archive does not hold say so in a sentence. Without
    matplotlib the page has its text and tables, and says how to get the pictures.

    Args:
        archive: What a fit leaves behind: ``groups``, a dict of xarray data sets, and
            ``record``, a dict of plain values (model, verdict, diagnostics, summary).

    Returns:
        The page; the same archive always gives the same text.
    """
    pictures = Pictures()
    record = archive.record
    body = [
        headline(record),
        verdict_banner(record),
        key_numbers(archive),
        "" if pictures.available else NO_PLOTS,
        posterior_table(record),
        convergence(archive, pictures),
        marginals(archive, pictures),
        pairs(archive, pictures),
        predictive_checks(archive, pictures),
        weights(archive, pictures),
    ]
    title = escape(str(record.get("model") or "ngvi fit"))
    content = "\n".join(part for part in body if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · ngvi report</title>
<style>{STYLESHEET}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
"""


def write(archive: Archive, path: str | Path) -> Path:
    """Write the report of a fit to a file.

    Args:
        archive: What a fit leaves behind; see ``render``.
        path: Where to; folders on the way are created.

    Returns:
        The path of the file.
    """
    path = Path(path)
    page = render(archive)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
