"""The HTML report on a posterior: one self-contained page.

    from ngvi.report import write
    write(posterior.archive(), "eight_schools.html")

Importing this package loads none of matplotlib, pandas, xarray or scipy: each is
imported where it is first needed.
"""

from ngvi.report.html import render, write

__all__ = ["render", "write"]
