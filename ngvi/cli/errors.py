"""Errors for the person at the shell: one short paragraph, no traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

LONGEST = 600


class InputError(Exception):
    """What the user asked for cannot be done; the message says what to change."""


def in_words(error: BaseException) -> str:
    """An exception in one line: its type and message, cut where it is very long."""
    # A SyntaxError's own text ends with a place that is shown in better form.
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    text = " ".join(message.split())
    if len(text) > LONGEST:
        text = f"{text[:LONGEST].rsplit(' ', 1)[0]} …"
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def place_in(error: BaseException, file: Path) -> str | None:
    """The line of a file that an exception came from; None where none took part.

    Args:
        error: caught, so that it has a traceback.
        file: absolute.
    """
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"line {error.lineno}: {(error.text or '').strip()}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename) == file:
            return f"line {frame.lineno}: {frame.line}"
    return None


def raised_in(error: BaseException, folder: Path) -> bool:
    """Whether the line that raised an exception is in a file of this folder."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and folder in Path(frames[-1].filename).parents
