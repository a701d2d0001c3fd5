"""Evaluated draws from several mixtures, kept and weighed by all of them together.

The importance weight of a draw is p(z) / Σ_r n_r q_r(z) / n, whichever q_r it came
from: draws of earlier mixtures count as those of the latest do.

Source: Cornuet, Marin, Mira and Robert (2012), Adaptive multiple importance sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from ngvi.bayes.mixture_approximation import log_density
from ngvi.families import Mixture

_CHUNK = 512


def at_points(function: Callable, q: Mixture, points: np.ndarray) -> np.ndarray:
    """A function of a mixture at points, some at a time: one program for any number."""
    count = len(points)
    padded = np.pad(points, ((0, -count % _CHUNK), (0, 0)), mode="edge")
    parts = [
        np.asarray(function(q, jnp.asarray(padded[start : start + _CHUNK])))
        for start in range(0, len(padded), _CHUNK)
    ]
    return np.concatenate(parts)[:count]


class Contents(NamedTuple):
    """Of a pool of n draws, a pytree."""

    points: Any
    log_p: Any
    sources: tuple[Mixture, ...]
    log_q: tuple[Any, ...]
    """Of each source at all points."""


class Pool:
    """Evaluated draws from several mixtures, weighed by all of them together."""

    def __init__(self) -> None:
        self.points = np.zeros((0, 0))
        self.log_p = np.zeros(0)
        self.counts: list[int] = []
        """Of the draws from each source."""
        self._sources: list[Mixture] = []
        self._log_q: list[np.ndarray] = []

    @classmethod
    def of(cls, contents: Contents, counts: Sequence[int]) -> Self:
        """A pool that was."""
        pool = cls()
        pool.points, pool.log_p = np.array(contents.points), np.array(contents.log_p)
        pool.counts, pool._sources = list(counts), list(contents.sources)
        pool._log_q = [np.array(log_q) for log_q in contents.log_q]
        return pool

    @property
    def contents(self) -> Contents:
        """All that is in it but the counts."""
        sources, log_q = tuple(self._sources), tuple(self._log_q)
        return Contents(self.points, self.log_p, sources, log_q)

    @staticmethod
    def shapes(
        counts: Sequence[int], source: Mixture, dim: int, dtype: Any
    ) -> Contents:
        """Of what would be in a pool with so many draws from mixtures like this one."""
        flat = jax.ShapeDtypeStruct((sum(counts),), dtype)
        points = jax.ShapeDtypeStruct((sum(counts), dim), dtype)
        number = len(counts)
        return Contents(points, flat, (source,) * number, (flat,) * number)

    def add(self, source: Mixture, points: np.ndarray, log_p: np.ndarray) -> None:
        """Draws from one more mixture, and log p there."""
        self._log_q = [
            np.concatenate([known, at_points(log_density, earlier, points)])
            for known, earlier in zip(self._log_q, self._sources, strict=True)
        ]
        self._sources.append(source)
        self.counts.append(len(points))
        before = self.points.reshape(-1, points.shape[1])
        self.points = np.concatenate([before, points])
        self.log_p = np.concatenate([self.log_p, log_p])
        self._log_q.append(at_points(log_density, source, self.points))

    @property
    def log_q(self) -> np.ndarray:
        """log density of what all draws together are drawn from."""
        counts = np.array(self.counts, float)
        shares = np.log(counts / counts.sum())
        return logsumexp(np.stack(self._log_q) + shares[:, None], axis=0)

    @property
    def log_evidence(self) -> float:
        """The importance-weighted estimate of log ∫p."""
        return float(logsumexp(self.log_p - self.log_q) - np.log(self.log_p.size))
