"""Draws from q with what lies there: log p, log q, the sites, importance weights."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.approximation import Approximation
from ngvi.bayes.density import Density
from ngvi.bayes.importance import EVEN_WEIGHTS, efficiency, pareto_smoothed
from ngvi.bayes.model_trace import Trace, count_observations
from ngvi.bayes.summaries import Sites, columns
from ngvi.bayes.weighted_draws import WeightedDraws

SUMMARY_DRAWS = 2048
# The tails that a Gaussian misses are rare under it: they take more draws to be seen
# than a mean takes to be known.
_CHECK_BLOCKS = 4
_LARGEST_CHECK = 30_000_000
# Fewer draws of very many coordinates, and fewer at a time where there are many numbers
# to compute: memory stays bounded.
_FEWEST_DRAWS = 128
_SUMMARY_NUMBERS = 2**25
_BATCH = 256
_BATCH_NUMBERS = 2**22


class Evaluated(NamedTuple):
    """What lies at S points, on the host."""

    log_p: np.ndarray
    log_q: np.ndarray
    sites: Sites


class Weighed(NamedTuple):
    """Draws from q with their importance weights."""

    log_weight: np.ndarray
    weights: np.ndarray
    """Pareto-smoothed, summing to 1."""
    khat: float
    sites: Sites

    @classmethod
    def of(cls, at: Evaluated) -> Weighed:
        """Draws with weights in proportion to p/q."""
        log_weight = (at.log_p - at.log_q).astype(np.float64)
        return cls(log_weight, *pareto_smoothed(log_weight), at.sites)


class Drawn:
    """The fixed draws from one q that all summaries and checks are computed from."""

    def __init__(
        self,
        q: Approximation,
        density: Density,
        trace: Trace,
        seed: int,
    ) -> None:
        self.q, self.density, self.trace, self.seed = q, density, trace, seed

    def at(self, points: Float[Array, "s d"]) -> Evaluated:
        """What lies at points, computed in batches and gathered on the host."""
        log_p, sites = self.density.at(points, self._batch_size)
        # JAX sorts dictionaries; a reader expects the order of the model's program.
        order = [name for name in self.trace or sites if name in sites]
        sites = {name: sites[name] for name in order}
        return Evaluated(log_p, np.asarray(self.q.log_prob(points)), sites)

    def log_p(self, points: Float[Array, "s d"]) -> np.ndarray:
        """log p alone."""
        return self.density.at(points, self._batch_size)[0]

    @property
    def _batch_size(self) -> int:
        """How many draws the model is evaluated at in one go."""
        numbers = self.q.dim + count_observations(self.trace)
        return int(np.clip(_BATCH_NUMBERS // numbers, 1, _BATCH))

    @property
    def count(self) -> int:
        """How many draws a summary is computed from."""
        affordable = _SUMMARY_NUMBERS // self.q.dim // 2 * 2
        return int(np.clip(affordable, _FEWEST_DRAWS, SUMMARY_DRAWS))

    def block(self, number: int) -> Float[Array, "s d"]:
        """The points of a block of draws; the summary's are block 0."""
        rng = np.random.default_rng([self.seed, number])
        return self.q.draws(self.count, rng)

    @cached_property
    def points(self) -> Float[Array, "s d"]:
        """Those of the summary."""
        return self.block(0)

    @cached_property
    def summary(self) -> Evaluated:
        """The draws that every summary is computed from."""
        return self.at(self.points)

    def _as_they_are(self, khat: float) -> Weighed:
        """The summary's draws, where q has no density to weigh them by."""
        count = len(self.summary.log_p)
        return Weighed(
            np.zeros(count), np.full(count, 1 / count), khat, self.summary.sites
        )

    @cached_property
    def weighed(self) -> Weighed:
        """Draws to hold q against the posterior: the summary's, and more where the
        weights are uneven."""
        if isinstance(self.q, WeightedDraws):
            return self._as_they_are(self.q.evidence.khat)
        weighed = Weighed.of(self.summary)
        numbers = columns(self.summary.sites).size * _CHECK_BLOCKS
        if efficiency(weighed.weights) > EVEN_WEIGHTS or numbers > _LARGEST_CHECK:
            return weighed
        blocks = [self.at(self.block(number)) for number in range(1, _CHECK_BLOCKS)]
        every = jax.tree.map(lambda *x: np.concatenate(x), self.summary, *blocks)
        return Weighed.of(every)
