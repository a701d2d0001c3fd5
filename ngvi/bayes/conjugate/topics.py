"""Latent Dirichlet allocation: documents as mixtures of topics.

    φ_k ~ Dirichlet(η),  θ_d ~ Dirichlet(α),  z ~ θ_d,  word ~ φ_z,
    q = Π Dirichlet(φ_k | λ_k) Π Dirichlet(θ_d | γ_d) Π r_dw(z).

With n_dw the count of word w in document d, all steps are `conjugate_step`s:

    r_dwk ∝ exp(E log θ_dk + E log φ_kw),
    γ_d⁺ = α + Σ_w n_dw r_dw,          until it stays,
    λ_k⁺ = (1 − ρ) λ_k + ρ (η + s Σ_d n_dw r_dwk).

Three ways to go through the documents: all at once, ρ = 1; *incrementally*, ρ = 1 on
the statistics of all batches, of which one batch's own are replaced at a time, so that
the topics move after each batch and the bound still never falls; and stochastically.
γ_d is kept from one visit of a document to the next, so that a visit takes few
iterations.

Source: Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation;
Neal and Hinton (1998), A view of the EM algorithm that justifies incremental variants.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.bayes.conjugate.update import conjugate_step, divergence
from ngvi.families import Dirichlet
from ngvi.families.special import digamma

ROW = 32
"""Distinct words in a row; a long document takes several rows."""


class Batch(NamedTuple):
    """Some documents as rows of words, filled up with counts of zero."""

    words: Int[Array, "rows width"]
    counts: Float[Array, "rows width"]
    owner: Int[Array, "rows"]
    """Which document of the batch a row is part of."""


class Visit(NamedTuple):
    """What a visit of the documents of a batch finds."""

    documents: Dirichlet
    """q(θ_d), a batch of them."""
    shares: Float[Array, "rows width topics"]
    """n r, the expected counts of each word by topic."""
    local_bound: Float[Array, ""]
    """Σ n r (E log θ − log r): the terms of the bound without topics and priors."""
    iterations: Int[Array, ""]


class Table(NamedTuple):
    """exp E log φ, each word's relative to its largest topic."""

    weights: Float[Array, "words topics"]
    log_largest: Float[Array, "words"]


def _relative(logs: Float[Array, "*b K"]) -> tuple[Array, Array]:
    """exp(x − max x), and max x; what is negligible beside the largest is kept off
    zero, so that the product of two such never is zero for all k."""
    largest = logs.max(-1, keepdims=True)
    floor = 0.45 * float(np.log(jnp.finfo(logs.dtype).tiny))
    return jnp.exp(jnp.maximum(logs - largest, floor)), largest


def table_of(topics: Dirichlet) -> Table:
    """Of all words, for many batches."""
    weights, largest = _relative(mean_logs(topics).T)
    return Table(weights, largest[:, 0])


def mean_logs(q: Dirichlet) -> Float[Array, "*b K"]:
    """E log x = ψ(α) − ψ(Σ α): `q.mean_params` in fewer operations, good enough where
    no entry is all but one."""
    total = q.concentration.sum(-1, keepdims=True)
    return digamma(q.concentration) - digamma(total)


def visit(
    table: Table,
    prior: Dirichlet,
    batch: Batch,
    documents: Dirichlet,
    tol: float | Float[Array, ""],
    most: int | Int[Array, ""],
) -> Visit:
    """Iterate γ and r of a batch's documents at given topics.

    Args:
        table: of the topics.
        prior: Dirichlet(α).
        batch: the documents.
        documents: where γ starts.
        tol: stop when no document's γ moved by more than this on average.
        most: iterations.
    """
    topics = table.weights[batch.words]
    size = len(documents.concentration)

    def expect(q: Dirichlet) -> tuple[Array, Array, Array]:
        # Of E log θ = ψ(γ) − ψ(Σ γ), what all topics share cancels in r.
        own = _relative(digamma(q.concentration))[0][batch.owner]
        total = jnp.einsum("rlk,rk->rl", topics, own)
        by_row = own * jnp.einsum("rlk,rl->rk", topics, batch.counts / total)
        return jax.ops.segment_sum(by_row, batch.owner, size), own, total

    def again(state: tuple[Array, Array, Dirichlet]) -> tuple[Array, Array, Dirichlet]:
        iteration, _, q = state
        moved = conjugate_step(q, prior, expect(q)[0])
        change = jnp.abs(moved.concentration - q.concentration).mean(-1).max()
        return iteration + 1, change, moved

    start = jnp.asarray(1), jnp.asarray(jnp.inf, topics.dtype), documents
    iterations, _, q = jax.lax.while_loop(
        lambda state: (state[0] < most) & (state[1] > tol), again, start
    )
    # The last iteration keeps what it expects.
    counts, own, total = expect(q)
    moved = conjugate_step(q, prior, counts)
    shares = topics * own[:, None] * (batch.counts / total)[..., None]
    # log r = log topics + log own − log total.
    local = (batch.counts * jnp.log(total)).sum() + (counts * mean_logs(moved)).sum()
    local -= (shares * (jnp.log(topics) + jnp.log(own)[:, None])).sum()
    return Visit(moved, shares, local, iterations)


def statistics(
    batch: Batch, shares: Float[Array, "rows width topics"], words: int
) -> Float[Array, "topics words"]:
    """Σ_d n_dw r_dwk."""
    flat = shares.reshape(-1, shares.shape[-1])
    return jax.ops.segment_sum(flat, batch.words.reshape(-1), words).T


def topic_bound(
    topics: Dirichlet, prior: Dirichlet, expected: Float[Array, "topics words"]
) -> Float[Array, ""]:
    """The terms of the bound that the topics enter: Σ n r E log φ − KL.

    Args:
        topics: q(φ).
        prior: Dirichlet(η).
        expected: the statistics of all documents.
    """
    return (expected * mean_logs(topics)).sum() - divergence(topics, prior)


def word_bound(table: Table, batch: Batch, found: Visit) -> Float[Array, ""]:
    """Σ n r (E log φ + E log θ − log r), of documents that were visited."""
    log_topics = jnp.log(table.weights) + table.log_largest[:, None]
    return found.local_bound + (found.shares * log_topics[batch.words]).sum()
