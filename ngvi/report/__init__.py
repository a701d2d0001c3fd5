"""What a person looks at: the progress line, tables, and the HTML report.

    from ngvi.report import write
    write(posterior.archive(), "eight_schools.html")

``render`` and ``write`` turn an archive into one self-contained HTML page,
``text_table`` prints a summary for a terminal, and ``Progress`` is the line that
the fit loop keeps up to date. Importing this package loads none of matplotlib,
pandas, xarray, scipy or tqdm: each is imported where it is first needed.
"""

from ngvi.report.html import render, write
from ngvi.report.progress import Progress
from ngvi.report.table import text_table

__all__ = ["Progress", "render", "text_table", "write"]
