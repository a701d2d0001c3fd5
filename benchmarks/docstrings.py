"""A small collection of documents that is there already: docstrings.

Every docstring of 30 words or more in the sources of NumPy, SciPy and scikit-learn is a
document, test modules aside; equal ones count once. How many there are depends on the
versions installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

PACKAGES = ("numpy", "scipy", "sklearn")
SHORTEST = 30


class Corpus(NamedTuple):
    counts: Any
    """A sparse matrix in CSR format, documents by words."""
    words: np.ndarray


def docstrings(package: str) -> Iterator[str]:
    """Of modules, classes and functions, from the sources."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        if "tests" in path.parts or path.name.startswith("test_"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text and len(re.findall(r"\w+", text)) >= SHORTEST:
                yield text


def load() -> Corpus:
    """Counts of the words that are in ten documents or more, English stop words and
    words in more than a third of the documents left out; in an order of their own."""
    texts = {text for package in PACKAGES for text in docstrings(package)}
    vectorizer = CountVectorizer(
        token_pattern=r"[A-Za-z][A-Za-z]{2,}",
        stop_words="english",
        min_df=10,
        max_df=1 / 3,
    )
    counts = vectorizer.fit_transform(sorted(texts))
    order = np.random.default_rng(0).permutation(counts.shape[0])
    return Corpus(counts[order].tocsr(), vectorizer.get_feature_names_out())
