"""Latent Dirichlet allocation beside scikit-learn's, on docstrings.

    python benchmarks/lda.py [--topics K] [--seeds S] [--out FILE.json]

Needs scikit-learn. One document in ten is held out. Of its words, each is kept with
probability ½, topics are inferred from those, and the others are predicted:
`completion` is exp(−mean log p) of a word to be predicted, with each library's own
inference. `perplexity` is that of the whole held-out documents by ngvi's bound, and
`bound` that of the training documents by scikit-learn's `score`, for either library's
topics, so that both are measured alike. All fits have the same priors (1/K) and
float32 counts. `seconds` are of whole second fits with one seed, `cpu` the processor
time of all their threads, which other users of the machine hardly change; `first` is
what the first fit took, with compilation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from docstrings import load
from scipy.special import digamma
from sklearn.decomposition import LatentDirichletAllocation as Peer

from ngvi.bayes.conjugate import LatentDirichletAllocation as Ours
from ngvi.families import Dirichlet

SETTINGS: list[tuple[str, type, dict[str, Any]]] = [
    ("ngvi, 2 sweeps", Ours, {"max_iter": 2}),
    ("ngvi, 5 sweeps", Ours, {"max_iter": 5}),
    ("ngvi, default", Ours, {}),
    ("ngvi, α learned", Ours, {"doc_topic_prior": "learned"}),
    ("ngvi, online", Ours, {"learning_method": "online", "max_iter": 10}),
    ("scikit-learn, batch, 2", Peer, {"max_iter": 2}),
    ("scikit-learn, batch, 10", Peer, {"max_iter": 10}),
    ("scikit-learn, batch, 40", Peer, {"max_iter": 40}),
    (
        "scikit-learn, online, 1",
        Peer,
        {"learning_method": "online", "max_iter": 1},
    ),
    (
        "scikit-learn, online, 10",
        Peer,
        {"learning_method": "online", "max_iter": 10},
    ),
]


class Data(NamedTuple):
    train: Any
    test: Any
    seen: Any
    hidden: Any


def split(counts: Any) -> Data:
    counts = counts.astype(np.float32)
    cut = counts.shape[0] * 9 // 10
    test = counts[cut:].tocsr()
    seen = test.copy()
    seen.data = np.random.default_rng(0).binomial(test.data.astype(int), 0.5)
    seen = seen.astype(np.float32)
    hidden = (test - seen).tocoo()
    seen.eliminate_zeros()
    return Data(counts[:cut].tocsr(), test, seen, hidden)


def completion(model: Any, data: Data) -> float:
    theta = model.transform(data.seen)
    topics = model.components_ / model.components_.sum(1, keepdims=True)
    p = (theta[data.hidden.row] * topics[:, data.hidden.col].T).sum(1)
    return float(np.exp(-np.average(np.log(p), weights=data.hidden.data)))


class Judges:
    """A model of each library, into which the topics of any are put."""

    def __init__(self, data: Data, topics: int) -> None:
        self.data = data
        self.ours = Ours(topics, max_iter=1, random_state=0).fit(data.train)
        self.peer = Peer(topics, max_iter=1, random_state=0).fit(data.train)

    def __call__(self, components: np.ndarray) -> dict[str, float]:
        self.ours.topics_ = Dirichlet(jnp.asarray(components, jnp.float32))
        self.peer.components_ = components
        total = components.sum(1, keepdims=True)
        mean_log = digamma(components) - digamma(total)
        self.peer.exp_dirichlet_component_ = np.exp(mean_log)
        return {
            "perplexity": self.ours.perplexity(self.data.test),
            "bound": float(self.peer.score(self.data.train)),
        }


def run(topics: int, seeds: int) -> list[dict[str, Any]]:
    data = split(load().counts)
    documents, words = data.train.shape
    print(
        f"{documents} documents and {data.test.shape[0]} held out, {words} words, "
        f"{int(data.train.sum())} tokens, {topics} topics, {seeds} seeds"
    )
    print(f"{'':26s}{'seconds':>8s}{'cpu':>8s}{'first':>8s}", end="")
    print(f"{'completion':>12s}", end="")
    print(f"{'perplexity':>12s}{'bound':>12s}")
    judge, rows = Judges(data, topics), []
    for name, cls, settings in SETTINGS:
        found: list[dict[str, float]] = []
        first = 0.0
        for seed in range(seeds):
            model = cls(topics, random_state=seed, **settings)
            if seed == 0:
                start = time.perf_counter()
                model.fit(data.train)
                first = time.perf_counter() - start
            start, cpu = time.perf_counter(), time.process_time()
            model.fit(data.train)
            seconds = time.perf_counter() - start
            cpu = time.process_time() - cpu
            scores = judge(np.asarray(model.components_))
            found.append(
                {
                    "seconds": seconds,
                    "cpu": cpu,
                    "completion": completion(model, data),
                    **scores,
                }
            )
        row = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
        rows.append({"name": name, "first": first, **row})
        print(f"{name:26s}{row['seconds']:8.2f}{row['cpu']:8.2f}", end="")
        print(f"{first:8.2f}", end="")
        print(f"{row['completion']:12.1f}{row['perplexity']:12.1f}", end="")
        print(f"{row['bound']:12.0f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to write all numbers, JSON")
    options = parser.parse_args()
    rows = run(options.topics, options.seeds)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
