"""What is the Python manual about? Ten topics of its paragraphs, found in seconds.

The help texts that Python itself comes with (`pydoc_data.topics`, the language
reference) are cut into paragraphs, each a document. Latent Dirichlet allocation finds
topics in them, distributions over words, and says of every help page how much of it
belongs to each. Nothing but counts of words goes in.

Source: Blei, Ng and Jordan (2003), Latent Dirichlet allocation.

    python examples/topics.py
"""

from __future__ import annotations

import re
from pathlib import Path
from pydoc_data import topics as manual
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from ngvi.bayes.conjugate import LatentDirichletAllocation

TOPICS, SHOWN = 10, 7
PAGES = ("exceptions", "numeric-types", "import", "class", "strings", "with", "if")


def documents() -> tuple[list[str], np.ndarray]:
    """Paragraphs of ten words or more, and the help page of each."""
    texts, pages = [], []
    for page, text in manual.topics.items():
        for part in re.split(r"\n\s*\n", text):
            if len(re.findall(r"[a-zA-Z]{3,}", part)) >= 10:
                texts.append(part)
                pages.append(page)
    return texts, np.array(pages)


def fit(counts: Any, seed: int = 0) -> LatentDirichletAllocation:
    model = LatentDirichletAllocation(
        TOPICS, topic_word_prior=0.05, max_iter=40, random_state=seed
    )
    return model.fit(counts)


def main() -> None:
    texts, pages = documents()
    vectorizer = CountVectorizer(
        token_pattern=r"[A-Za-z_]{3,}", stop_words="english", min_df=5, max_df=0.2
    )
    counts = vectorizer.fit_transform(texts)
    words = vectorizer.get_feature_names_out()
    print(f"{len(texts)} paragraphs of {len(set(pages))} pages, {len(words)} words")
    model = fit(counts)
    shares = model.transform(counts)
    lengths = np.asarray(counts.sum(1)).ravel()
    sizes = lengths @ shares / lengths.sum()
    print(
        f"{model.n_iter_} sweeps; a word costs {model.perplexity(counts):.0f} equally"
    )
    print(f"likely ones, {np.exp(_entropy(counts)):.0f} without topics\n")
    order = np.argsort(-sizes)
    tops = model.top_words(words, SHOWN)
    for k in order:
        print(f"{sizes[k]:5.0%}  {' '.join(tops[k])}")
    draw(model, words, order, sizes, {p: shares[pages == p].mean(0) for p in PAGES})


def _entropy(counts: Any) -> float:
    """Of the words, all documents thrown together."""
    p = np.asarray(counts.sum(0)).ravel() / counts.sum()
    return float(-(p * np.log(p)).sum())


def draw(
    model: LatentDirichletAllocation,
    words: np.ndarray,
    order: np.ndarray,
    sizes: np.ndarray,
    pages: dict[str, np.ndarray],
) -> None:
    figure = plt.figure(figsize=(11, 7.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 1])
    mean = model.components_ / model.components_.sum(1, keepdims=True)
    for i, (axes, k) in enumerate(zip(top.subplots(2, 5).flat, order, strict=True)):
        best = np.argsort(-mean[k])[:SHOWN][::-1]
        axes.barh(range(SHOWN), mean[k][best], color=f"C{i}")
        axes.set_yticks(range(SHOWN), words[best], fontsize=8)
        axes.set_title(f"{sizes[k]:.0%} of all words", fontsize=9)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes = bottom.subplots()
    left = np.zeros(len(pages))
    for i, k in enumerate(order):
        width = np.array([share[k] for share in pages.values()])
        axes.barh(list(pages), width, left=left, color=f"C{i}")
        left += width
    axes.set(xlim=(0, 1), title="what help pages consist of")
    axes.invert_yaxis()
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/topics.png", dpi=150)
    print("\nout/topics.png: the topics, and some pages")


if __name__ == "__main__":
    main()
