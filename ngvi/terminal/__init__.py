"""Words and numbers for a terminal: the progress line and fixed-width tables.

Importing this package loads neither pandas nor tqdm.
"""

from ngvi.terminal.progress import Progress
from ngvi.terminal.table import text_table

__all__ = ["Progress", "text_table"]
