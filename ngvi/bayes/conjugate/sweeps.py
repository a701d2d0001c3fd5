"""Sweeps over the documents of a collection; see `ngvi.bayes.conjugate.topics`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.bayes.conjugate.documents import Layout, Part, cut
from ngvi.bayes.conjugate.topics import (
    Batch,
    Visit,
    statistics,
    table_of,
    topic_bound,
    visit,
    word_bound,
)
from ngvi.bayes.conjugate.update import RobbinsMonro, conjugate_step, divergence
from ngvi.families import Dirichlet

Statistics = Float[Array, "topics words"]
Shares = Float[Array, "rows width topics"]


class Priors(NamedTuple):
    documents: Dirichlet
    """Dirichlet(α)."""
    topics: Dirichlet
    """Dirichlet(η)."""


class Inner(NamedTuple):
    """When the iterations for one batch of documents end."""

    tol: float | Float[Array, ""]
    most: int | Int[Array, ""]


@jax.jit
def expect(
    topics: Dirichlet,
    prior: Dirichlet,
    batch: Batch,
    documents: Dirichlet,
    old: Shares,
    inner: Inner,
) -> tuple[Visit, Statistics]:
    """Visit a batch, and what its statistics have changed by.

    Args:
        topics: q(φ).
        prior: of the documents.
        batch: their words.
        documents: q(θ) to start from.
        old: the shares at their last visit; zero at the first.
        inner: when their iterations end.
    """
    found = visit(table_of(topics), prior, batch, documents, *inner)
    words = topics.concentration.shape[1]
    return found, statistics(batch, found.shares - old, words)


@jax.jit
def look(
    topics: Dirichlet, prior: Dirichlet, batch: Batch, found: Visit
) -> Float[Array, ""]:
    """The bound of documents that were visited."""
    words = word_bound(table_of(topics), batch, found)
    return words - divergence(found.documents, prior)


step = jax.jit(conjugate_step)


@jax.jit
def changed(
    prior: Dirichlet, total: Statistics, change: Statistics
) -> tuple[Dirichlet, Statistics]:
    """The step of length one along all statistics, once some have changed."""
    # What was taken off may leave a rounding error below zero.
    total = jnp.maximum(total + change, 0)
    topics = Dirichlet(jnp.ones_like(total))
    return conjugate_step(topics, prior, total), total


@jax.jit
def bound(
    topics: Dirichlet,
    priors: Priors,
    documents: Dirichlet,
    total: Statistics,
    local: list[Float[Array, ""]],
) -> Float[Array, ""]:
    """The evidence lower bound of a collection."""
    return (
        topic_bound(topics, priors.topics, total)
        + sum(local)
        - divergence(documents, priors.documents)
    )


@jax.jit
def learned_prior(documents: Dirichlet) -> Dirichlet:
    """The α that maximises the bound: E log θ under it is the documents' mean."""
    return Dirichlet.from_mean(documents.mean_params.mean(0))


class Sweeps:
    """What the fit of a collection keeps from sweep to sweep.

    Args:
        counts: of the words, a sparse matrix in CSR format.
        topics: q(φ) to start from.
        priors: of documents and topics.
        batch_size: documents.
        inner: when their iterations end.
        lengths: of the stochastic steps.
        rng: of the documents' order.
    """

    def __init__(
        self,
        counts: Any,
        topics: Dirichlet,
        priors: Priors,
        batch_size: int,
        inner: Inner,
        lengths: RobbinsMonro,
        rng: np.random.RandomState,
    ) -> None:
        self.topics = topics
        self.priors = priors
        self.taken = 0
        self._inner = inner
        self._lengths = lengths
        self._rng = rng
        self.layout = Layout.of(counts, batch_size)
        order = rng.permutation(counts.shape[0])
        self._parts = list(cut(counts, self.layout, order))
        self._gamma = fresh(counts, priors.documents)
        self._shares: list[Any] = [None] * len(self._parts)
        self._local: list[Any] = [None] * len(self._parts)
        self._total: Any = None

    @property
    def documents(self) -> Dirichlet:
        """q(θ) of all documents."""
        return Dirichlet(jnp.asarray(self._gamma))

    def stochastic(self, keep: bool) -> None:
        """A sweep of stochastic steps.

        Args:
            keep: the shares, for `incremental` to start from; the topics are then left
                at those of all statistics.
        """
        total = jnp.zeros_like(self.topics.concentration)
        for i in self._rng.permutation(len(self._parts)):
            part = self._parts[i]
            found, expected = self._visit(i, no_shares(part, self.topics))
            self._keep(i, found, shares=keep)
            self.taken += 1
            step_size = self._lengths.step_size(self.taken)
            scale = len(self._gamma) / len(part.documents)
            self.topics = step(
                self.topics, self.priors.topics, expected, step_size, scale
            )
            total = total + expected
        if keep:
            none = jnp.zeros_like(total)
            self.topics, self._total = changed(self.priors.topics, none, total)

    def incremental(self) -> None:
        """A sweep that replaces each batch's shares; the bound does not fall."""
        for i in self._rng.permutation(len(self._parts)):
            found, change = self._visit(i, self._shares[i])
            self._keep(i, found, shares=True)
            self.topics, self._total = changed(self.priors.topics, self._total, change)

    def learn_prior(self) -> None:
        """Replace α by the best."""
        prior = learned_prior(self.documents)
        self.priors = self.priors._replace(documents=prior)

    def bound(self) -> float:
        """After a sweep that kept the shares."""
        found = bound(
            self.topics, self.priors, self.documents, self._total, self._local
        )
        return float(found)

    def _visit(self, i: int, old: Shares) -> tuple[Visit, Statistics]:
        part = self._parts[i]
        gamma = filled(self._gamma[part.documents], self.layout)
        prior = self.priors.documents
        return expect(self.topics, prior, part.batch, gamma, old, self._inner)

    def _keep(self, i: int, found: Visit, shares: bool) -> None:
        documents = self._parts[i].documents
        gamma = np.asarray(found.documents.concentration)
        self._gamma[documents] = gamma[: len(documents)]
        if shares:
            self._shares[i], self._local[i] = found.shares, found.local_bound


def fresh(counts: Any, prior: Dirichlet) -> Float[np.ndarray, "documents topics"]:
    """γ of documents that were never visited: their words shared out evenly."""
    alpha = np.asarray(prior.concentration)
    lengths = np.asarray(counts.sum(1)).reshape(-1, 1)
    return (alpha + lengths / len(alpha)).astype(alpha.dtype)


def filled(gamma: np.ndarray, layout: Layout) -> Dirichlet:
    """As many documents as a batch has room for; those added have no words."""
    missing = layout.documents - len(gamma)
    return Dirichlet(jnp.asarray(np.pad(gamma, ((0, missing), (0, 0)), mode="edge")))


def no_shares(part: Part, topics: Dirichlet) -> Shares:
    """Those of documents that were never visited."""
    size = (*part.batch.words.shape, len(topics.concentration))
    return jnp.zeros(size, topics.dtype)
