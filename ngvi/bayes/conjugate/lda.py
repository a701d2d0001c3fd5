"""Latent Dirichlet allocation with the interface of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_is_fitted,
    check_non_negative,
    validate_data,
)

from ngvi.bayes.conjugate.checks import check_one_of, check_steps, check_whole
from ngvi.bayes.conjugate.documents import Layout, Part, cut
from ngvi.bayes.conjugate.sweeps import (
    Inner,
    Priors,
    Statistics,
    Sweeps,
    expect,
    filled,
    fresh,
    look,
    no_shares,
    step,
)
from ngvi.bayes.conjugate.topics import Visit
from ngvi.bayes.conjugate.update import RobbinsMonro
from ngvi.families import Dirichlet

METHODS = ("incremental", "online")


class LatentDirichletAllocation(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Topics of a collection of documents, given as counts of words.

    The model and its updates are in `ngvi.bayes.conjugate.topics`.

    Args:
        n_components: K, topics, two or more.
        doc_topic_prior: α of every topic, 1/K by default; or "learned", an α for each
            topic, by maximising the bound too once it stays at 1/K.
        topic_word_prior: η, 1/K by default.
        learning_method: "incremental" replaces a batch's own share of the statistics
            by a new one, with steps of length one, once a first stochastic sweep has
            found some; the bound never falls. "online" takes stochastic steps all the
            time and keeps no shares: for collections whose number of distinct words,
            summed over documents, times K does not fit in memory.
        learning_decay: κ of the stochastic steps ρ_t = (t + offset)^−κ.
        learning_offset: their delay.
        max_iter: sweeps, at most.
        batch_size: documents.
        total_samples: documents in all, for `partial_fit`.
        tol: stop when a sweep gains less than this part of the bound ("incremental").
        mean_change_tol: a document's iterations stop when γ moves less on average.
        max_doc_update_iter: of them, at most, once the topics are known.
        max_visit_iter: of them, at most, at one visit while they are learned. More are
            no gain: they hold documents to topics that are not found yet.
        random_state: of the topics at the start and the order of the documents.

    Attributes:
        topics_: q(φ), a `ngvi.families.Dirichlet` of batch shape (K,).
        components_: its λ, (K, words).
        doc_topic_prior_, topic_word_prior_: α and η.
        history_: the bound after each sweep ("incremental").
        bound_: the last of them, the evidence lower bound; None otherwise.
        n_iter_: sweeps.
        n_batch_iter_: stochastic steps so far.

    Example:
        >>> import numpy as np
        >>> counts = np.kron(np.eye(2, dtype=int), np.full((20, 3), 5))
        >>> lda = LatentDirichletAllocation(2, random_state=0).fit(counts)
        >>> theta = lda.transform(counts)
        >>> [float(t.max().round(2)) for t in (theta[0], theta[-1])]
        [0.97, 0.97]
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        doc_topic_prior: Any = None,
        topic_word_prior: float | None = None,
        learning_method: str = "incremental",
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        max_iter: int = 20,
        batch_size: int = 128,
        total_samples: float = 1e6,
        tol: float = 1e-4,
        mean_change_tol: float = 1e-3,
        max_doc_update_iter: int = 100,
        max_visit_iter: int = 5,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.learning_method = learning_method
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.total_samples = total_samples
        self.tol = tol
        self.mean_change_tol = mean_change_tol
        self.max_doc_update_iter = max_doc_update_iter
        self.max_visit_iter = max_visit_iter
        self.random_state = random_state

    topics_: Dirichlet
    n_iter_: int
    n_batch_iter_: int
    history_: list[float]
    bound_: float | None
    _priors: Priors
    _rng: np.random.RandomState
    _layout: Layout

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags

    # -- fits --------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the topics.

        Args:
            X: counts, (documents, words), dense or sparse; not negative.
            y: ignored.

        Raises:
            ValueError: a count is negative, missing or infinite, or a setting is out
                of its range.
        """
        counts = self._begin(X)
        run = Sweeps(
            counts,
            self.topics_,
            self._priors,
            self.batch_size,
            Inner(self.mean_change_tol, self.max_visit_iter),
            self._lengths,
            self._rng,
        )
        keep = self.learning_method == "incremental"
        # Not at once: of topics not found yet, a small α keeps what is wrong.
        fixed = self.doc_topic_prior != "learned"
        learning = False
        for sweep in range(self.max_iter):
            if keep and sweep > 0:
                run.incremental()
            else:
                run.stochastic(keep)
            self.n_iter_ = sweep + 1
            if learning:
                run.learn_prior()
            if keep:
                self.history_.append(run.bound())
            stays = self._stays() if keep else sweep == self.max_iter // 2
            if stays and keep and (fixed or learning):
                break
            learning |= stays and not fixed
        self.topics_, self._priors, self._layout = run.topics, run.priors, run.layout
        self.n_batch_iter_ = run.taken
        self.bound_ = self.history_[-1] if keep else None
        return self

    def _stays(self) -> bool:
        if len(self.history_) < 2:
            return False
        before, now = self.history_[-2:]
        return now - before < self.tol * abs(now)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Stochastic steps, one for each batch of these documents, which stand for
        `total_samples`; y is ignored."""
        new = not hasattr(self, "topics_")
        counts = self._begin(X) if new else self._counts(X)
        for part, _, expected in self._visits(counts, self.max_visit_iter):
            self.n_batch_iter_ += 1
            self.topics_ = step(
                self.topics_,
                self._priors.topics,
                expected,
                self._lengths.step_size(self.n_batch_iter_),
                self.total_samples / len(part.documents),
            )
        self.history_, self.bound_ = [], None
        self.n_iter_ += 1
        return self

    def _visits(
        self, counts: Any, most: int
    ) -> Iterator[tuple[Part, Visit, Statistics]]:
        """New documents, as they come, batch after batch, with the topics of then."""
        layout = Layout.of(counts, self.batch_size)
        # One layout for all calls, with more room where a document needs it.
        self._layout = Layout(*map(max, layout, getattr(self, "_layout", layout)))
        start = fresh(counts, self._priors.documents)
        inner = Inner(self.mean_change_tol, most)
        for part in cut(counts, self._layout, np.arange(counts.shape[0])):
            gamma = filled(start[part.documents], self._layout)
            prior, none = self._priors.documents, no_shares(part, self.topics_)
            visited = expect(self.topics_, prior, part.batch, gamma, none, inner)
            yield part, *visited

    def _begin(self, X: Any) -> Any:
        """Checked counts, and topics to start from."""
        self._check()
        counts = self._counts(X, reset=True)
        words, k = counts.shape[1], self.n_components
        if words < 2:
            raise ValueError(
                f"{type(self).__name__} needs two words or more, got X with {words} "
                "feature(s)"
            )
        dtype = jnp.result_type(float)
        given = self.doc_topic_prior
        alpha = 1 / k if given is None or given == "learned" else given
        eta = 1 / k if self.topic_word_prior is None else self.topic_word_prior
        self._priors = Priors(
            Dirichlet(jnp.full(k, alpha, dtype)), Dirichlet(jnp.full(words, eta, dtype))
        )
        self._rng = check_random_state(self.random_state)
        start = self._rng.gamma(100.0, 0.01, (k, words))
        self.topics_ = Dirichlet(jnp.asarray(start, dtype))
        self.n_batch_iter_ = self.n_iter_ = 0
        self.history_, self.bound_ = [], None
        return counts

    def _check(self) -> None:
        learned = self.doc_topic_prior == "learned"
        if isinstance(self.doc_topic_prior, str) and not learned:
            raise ValueError(
                "doc_topic_prior must be a positive number, 'learned' or None, got "
                f"{self.doc_topic_prior!r}"
            )
        check_one_of(self, "learning_method", METHODS)
        check_whole(self, n_components=2, max_iter=1)
        check_whole(self, max_doc_update_iter=1, max_visit_iter=1)
        check_steps(self)
        for name in ("doc_topic_prior", "topic_word_prior", "total_samples"):
            value = getattr(self, name)
            if value is not None and value != "learned" and not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")

    def _counts(self, X: Any, reset: bool = False) -> Any:
        """Checked, as a sparse matrix."""
        X = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=np.float64)
        check_non_negative(X, f"{type(self).__name__} (counts of words)")
        counts = csr_matrix(X)
        counts.eliminate_zeros()
        return counts

    @property
    def _lengths(self) -> RobbinsMonro:
        return RobbinsMonro(self.learning_offset, self.learning_decay)

    # -- what was found ----------------------------------------------------------------

    @property
    def components_(self) -> np.ndarray:
        """λ of the topics: pseudo-counts of words, (K, words)."""
        return np.asarray(self.topics_.concentration)

    @property
    def doc_topic_prior_(self) -> np.ndarray:
        """α, (K,)."""
        return np.asarray(self._priors.documents.concentration)

    @property
    def topic_word_prior_(self) -> float:
        """η."""
        return float(self._priors.topics.concentration[0])

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def top_words(self, words: Any, count: int = 10) -> list[list[str]]:
        """The most probable words of each topic.

        Args:
            words: the names of the features, in order.
            count: how many.
        """
        check_is_fitted(self)
        best = np.argsort(-self.components_, 1)[:, :count]
        return [[str(words[i]) for i in topic] for topic in best]

    def transform(self, X: Any) -> np.ndarray:
        """E[θ] of documents, (documents, K)."""
        check_is_fitted(self)
        gamma = [
            np.asarray(found.documents.concentration)[: len(part.documents)]
            for part, found, _ in self._visits(
                self._counts(X), self.max_doc_update_iter
            )
        ]
        whole = np.concatenate(gamma)
        return whole / whole.sum(1, keepdims=True)

    def score(self, X: Any, y: Any = None) -> float:
        """A lower bound of E_q[log p(X | topics)]; y is ignored.

        In distinction from `bound_` it leaves out the price of the topics, KL(q(φ) ‖
        prior), which was paid for the documents of the fit.
        """
        check_is_fitted(self)
        prior = self._priors.documents
        return sum(
            float(look(self.topics_, prior, part.batch, found))
            for part, found, _ in self._visits(
                self._counts(X), self.max_doc_update_iter
            )
        )

    def perplexity(self, X: Any) -> float:
        """exp(−score / words): what a word of these documents costs."""
        check_is_fitted(self)
        total = self._counts(X).sum()
        if not total > 0:
            raise ValueError("the perplexity of documents without words is not defined")
        return float(np.exp(-self.score(X) / total))
