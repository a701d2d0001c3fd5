"""What mkdocs does beside its own work: the examples' code becomes pages.

The gallery links to `../examples/NAME.py`, which is right wherever the repository is
read. The site has the docs only, so there each example is a page made of its text.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

EXAMPLES = Path(__file__).parents[2] / "examples"


def on_files(files: Files, config: Any) -> Files:
    """A page for each example."""
    for path in sorted(EXAMPLES.glob("*.py")):
        text = f"# {path.name}\n\n````python\n{path.read_text()}````\n"
        name = f"examples/{path.stem}.md"
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the examples lead to those pages."""
    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
