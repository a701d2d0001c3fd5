"""Topics: the published update written out, scikit-learn's bound, the ways to sweep."""

from __future__ import annotations

import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import digamma
from sklearn.decomposition import LatentDirichletAllocation as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

from ngvi.bayes.conjugate import LatentDirichletAllocation
from ngvi.bayes.conjugate.documents import Layout, cut
from ngvi.bayes.conjugate.sweeps import Inner, Priors, Sweeps
from ngvi.bayes.conjugate.update import RobbinsMonro
from ngvi.families import Dirichlet
from tests.bayes.conjugate.one_component import REFUSED

K, WORDS, DOCUMENTS = 3, 60, 50
ALPHA, ETA = 0.4, 0.2
RNG = np.random.default_rng(0)
TRUE = RNG.dirichlet(np.full(WORDS, 0.1), K)
SHARES = RNG.dirichlet(np.full(K, 0.3), DOCUMENTS)
LENGTHS = RNG.integers(0, 300, DOCUMENTS)
COUNTS = np.stack(
    [RNG.multinomial(n, p) for n, p in zip(LENGTHS, SHARES @ TRUE, strict=True)]
)
QUICK: dict[str, Any] = {"batch_size": 16, "random_state": 0}


@pytest.mark.slow
@parametrize_with_checks(
    [LatentDirichletAllocation(2, max_iter=3)],
    expected_failed_checks=lambda _: REFUSED,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)


# -- the update ------------------------------------------------------------------------


def naive(topics: np.ndarray, gamma: np.ndarray, iterations: int) -> Any:
    """γ and the statistics of all documents, word by word."""
    log_topics = digamma(topics) - digamma(topics.sum(1, keepdims=True))
    gamma, statistics = gamma.copy(), np.zeros_like(topics)
    for d in range(DOCUMENTS):
        for _ in range(iterations):
            log_theta = digamma(gamma[d]) - digamma(gamma[d].sum())
            r = np.exp(log_topics + log_theta[:, None])
            r *= COUNTS[d] / r.sum(0)
            gamma[d] = ALPHA + r.sum(1)
        statistics += r
    return gamma, statistics


def sweeps(batch_size: int, iterations: int) -> Sweeps:
    priors = Priors(Dirichlet(jnp.full(K, ALPHA)), Dirichlet(jnp.full(WORDS, ETA)))
    start = Dirichlet(jnp.asarray(np.random.default_rng(1).gamma(2, 1, (K, WORDS))))
    inner, lengths = Inner(0.0, iterations), RobbinsMonro(3.0, 0.7)
    rng = np.random.RandomState(0)
    return Sweeps(csr_matrix(COUNTS), start, priors, batch_size, inner, lengths, rng)


def test_published_update() -> None:
    run = sweeps(DOCUMENTS, 4)
    topics = np.asarray(run.topics.concentration)
    even = ALPHA + COUNTS.sum(1, keepdims=True) / np.full((1, K), K)
    gamma, statistics = naive(topics, even, 4)
    run.stochastic(keep=False)
    rho = (1 + 3.0) ** -0.7
    expected = (1 - rho) * topics + rho * (ETA + statistics)
    np.testing.assert_allclose(run.topics.concentration, expected, rtol=1e-10)
    np.testing.assert_allclose(run.documents.concentration, gamma, rtol=1e-10)
    # All at once with ρ = 1: variational Bayesian EM.
    run = sweeps(DOCUMENTS, 4)
    run.stochastic(keep=True)
    np.testing.assert_allclose(run.topics.concentration, ETA + statistics, rtol=1e-10)
    gamma, statistics = naive(ETA + statistics, gamma, 4)
    run.incremental()
    np.testing.assert_allclose(run.topics.concentration, ETA + statistics, rtol=1e-10)
    np.testing.assert_allclose(run.documents.concentration, gamma, rtol=1e-10)


def test_the_bound_does_not_fall_and_is_scikit_learns() -> None:
    run = sweeps(16, 3)
    run.stochastic(keep=True)
    bounds = [run.bound()]
    for sweep in range(12):
        run.incremental()
        if sweep > 5:
            run.learn_prior()
        bounds.append(run.bound())
    assert (np.diff(bounds) > -1e-9 * abs(bounds[0])).all()
    # Their bound takes the best r for γ and λ, ours the r that γ and λ came from.
    peer = Peer(K, doc_topic_prior=0.4, topic_word_prior=ETA, max_iter=1).fit(COUNTS)
    run = sweeps(16, 200)
    run.stochastic(keep=True)
    for _ in range(60):
        run.incremental()
    peer.components_ = np.asarray(run.topics.concentration)
    logs = digamma(peer.components_)
    logs -= digamma(peer.components_.sum(1, keepdims=True))
    peer.exp_dirichlet_component_ = np.exp(logs)
    gamma = np.asarray(run.documents.concentration)
    theirs = peer._approx_bound(COUNTS.astype(float), gamma, sub_sampling=False)
    np.testing.assert_allclose(run.bound(), theirs, rtol=1e-6)


def test_batches_hold_every_word_once() -> None:
    counts = csr_matrix(COUNTS)
    layout = Layout.of(counts, 7)
    found = np.zeros_like(COUNTS)
    for part in cut(counts, layout, RNG.permutation(DOCUMENTS)):
        assert part.batch.words.shape == (layout.rows, 32)
        for row, owner in enumerate(np.asarray(part.batch.owner)):
            words = np.asarray(part.batch.words[row])
            numbers = np.asarray(part.batch.counts[row]).astype(int)
            if numbers.any():
                np.add.at(found[part.documents[owner]], words, numbers)
    np.testing.assert_array_equal(found, COUNTS)


# -- the estimator ---------------------------------------------------------------------


def matched(components: np.ndarray) -> float:
    """The smallest overlap of a true topic with the one nearest to it."""
    topics = components / components.sum(1, keepdims=True)
    overlap = np.minimum(topics[:, None], TRUE[None]).sum(-1)
    return float(overlap.max(0).min())


def test_topics_are_found_by_every_way() -> None:
    settings = QUICK | {"doc_topic_prior": ALPHA, "topic_word_prior": ETA}
    lda = LatentDirichletAllocation(K, max_iter=60, **settings).fit(COUNTS)
    online = LatentDirichletAllocation(
        K, learning_method="online", max_iter=30, learning_offset=1.0, **settings
    ).fit(COUNTS)
    streamed = LatentDirichletAllocation(
        K, total_samples=DOCUMENTS, learning_offset=1.0, **settings
    )
    for _ in range(20):
        streamed.partial_fit(COUNTS)
    learned = LatentDirichletAllocation(
        K, max_iter=60, **(settings | {"doc_topic_prior": "learned"})
    ).fit(COUNTS)
    assert online.bound_ is None and streamed.n_iter_ == 20
    assert lda.bound_ == lda.history_[-1] and lda.n_iter_ < 60
    for model in (lda, online, streamed, learned):
        assert matched(model.components_) > 0.85
    given = LatentDirichletAllocation(K, max_iter=60, **QUICK, topic_word_prior=ETA)
    assert learned.bound_ > given.fit(COUNTS).bound_
    np.testing.assert_allclose(learned.doc_topic_prior_, 0.3, atol=0.1)
    peer = Peer(
        K, doc_topic_prior=ALPHA, topic_word_prior=ETA, max_iter=60, random_state=0
    ).fit(COUNTS)
    assert lda.bound_ > peer.score(COUNTS) - 5
    # What a word costs, without the topics' price: less than the bound's share.
    assert lda.perplexity(COUNTS) < np.exp(-lda.bound_ / COUNTS.sum())
    theta = lda.transform(csr_matrix(COUNTS))
    np.testing.assert_allclose(theta.sum(1), 1)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(lda)).transform(COUNTS), theta
    )
    best = lda.top_words([f"w{i}" for i in range(WORDS)], 3)
    assert [len(words) for words in best] == [3] * K
    assert best[0][0] == f"w{lda.components_[0].argmax()}"


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({}, -COUNTS, "Negative values"),
    ({}, np.where(COUNTS == 3, np.nan, COUNTS), "NaN"),
    ({}, COUNTS[:, :1], "two words or more"),
    ({"n_components": 1}, COUNTS, "n_components must be a whole number, 2 or more"),
    ({"max_iter": 0}, COUNTS, "max_iter must be"),
    ({"doc_topic_prior": -1.0}, COUNTS, "doc_topic_prior must be positive"),
    ({"doc_topic_prior": "best"}, COUNTS, "'learned' or None, got 'best'"),
    ({"learning_method": "batch"}, COUNTS, "one of incremental, online"),
    ({"learning_decay": 0.5}, COUNTS, "learning_decay must be above 0.5"),
]


@pytest.mark.parametrize(("settings", "counts", "message"), BAD)
def test_bad_input(settings: dict[str, Any], counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentDirichletAllocation(**settings).fit(counts)


def test_documents_of_other_words() -> None:
    lda = LatentDirichletAllocation(K, max_iter=1, **QUICK).fit(COUNTS)
    with pytest.raises(ValueError, match="60 features"):
        lda.transform(COUNTS[:, :9])
    with pytest.raises(ValueError, match="without words"):
        lda.perplexity(np.zeros((2, WORDS)))
