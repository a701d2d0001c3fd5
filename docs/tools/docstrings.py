"""Docstrings as mkdocstrings reads them: an `Example:` is its section `Examples:`."""

import re
from typing import Any

import griffe


class OneExample(griffe.Extension):
    """The house style has one example a docstring, in the singular."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Before the docstring is parsed."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", text)
