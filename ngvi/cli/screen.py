"""What `ngvi` prints for a person."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ngvi.bayes.archive import Archive
    from ngvi.bayes.posterior import Posterior

WIDEST = 100


def outcome(posterior: Posterior, files: Mapping[str, Path], archive: Archive) -> str:
    """The verdict, the time it took, the files written and what they lack."""
    verdict, d = posterior.verdict, posterior.diagnostics
    total = d.seconds_compiling + d.seconds_running
    facts = {
        "Verdict": verdict.level,
        "": " ".join(verdict.reasons),
        "Advice": " ".join(verdict.advice),
        "Time": f"{total:.1f} s, of which {d.seconds_compiling:.1f} s compiling",
        "Posterior": str(files["posterior"]),
        "Report": str(files["report"]),
        "Notes": " ".join(archive.record.get("notes", [])),
    }
    return "\n".join(_fact(name, text) for name, text in facts.items() if text)


def listing(titles: Mapping[str, str]) -> str:
    """Names and titles in two columns."""
    width = max(map(len, titles), default=0)
    lines = [f"{name:<{width}}  {title}" for name, title in titles.items()]
    return "\n".join([*lines, "", "Fit one with: ngvi fit NAME"])


def note(text: str) -> None:
    """Say something on stderr."""
    print(f"ngvi: {text}", file=sys.stderr, flush=True)


def _fact(name: str, text: str) -> str:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    label = f"{name:<11}"
    return textwrap.fill(
        text,
        max(width, 40),
        initial_indent=label,
        subsequent_indent=" " * len(label),
        # Paths are copied from the screen.
        break_long_words=False,
        break_on_hyphens=False,
    )
