"""Factor analysis with missing entries, with the interface of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.validation import check_is_fitted, validate_data

from ngvi.bayes.conjugate import factor_analysis as steps
from ngvi.bayes.conjugate.checks import (
    check_one_of,
    check_steps,
    check_whole,
    gamma_prior,
    warn_of_rising,
)
from ngvi.bayes.conjugate.factor_analysis import Columns, Data, Priors
from ngvi.bayes.conjugate.update import RobbinsMonro, room_for, stochastic
from ngvi.families import Gamma, Gaussian
from ngvi.linalg import Dense

NOISES = ("columns", "shared")


class FactorAnalysis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Rows as a few hidden factors times loadings, plus noise; NaN is a missing entry.

    The model and its updates are in `ngvi.bayes.conjugate.factor_analysis`; inside,
    columns are standardised by the entries that are there.

    Args:
        n_components: K, factors; those not needed are switched off.
        noise: "columns" for a precision of each column, or "shared" for one of all
            (standardised) columns: principal components, matrix factorisation.
        relevance_prior: concentration and rate of the Gamma prior of every α_k.
        noise_prior: of that of every τ_j.
        tol: stop when an iteration gains less, in nats an entry.
        max_iter: iterations, or epochs with minibatches, at most.
        batch_size: rows of a stochastic step; None for all at once.
        learning_decay, learning_offset: κ and the delay of their ρ_t = (t + delay)^−κ.
        random_state: of the start and the batches.

    Attributes:
        components_: E[w], in the units of the data, (K, p).
        mean_: E[b], in the units of the data.
        noise_variance_: 1/E τ of each column.
        relevance_: E α_k: large for a factor that is switched off.
        posterior_: q of loadings, relevance and noise of standardised columns.
        bound_: the evidence lower bound of the entries that are there.
        history_: the bound before each iteration; with minibatches, after each epoch.
        n_iter_: iterations.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.normal(size=(90, 2)) @ rng.normal(size=(2, 6))
        >>> holes = y.copy()
        >>> holes[::7, 3] = np.nan
        >>> factors = FactorAnalysis(2, random_state=0).fit(holes)
        >>> bool(abs(factors.impute(holes) - y).max() < 0.3)
        True
    """

    posterior_: Columns
    bound_: float
    history_: list[float]
    n_iter_: int

    def __init__(
        self,
        n_components: int = 5,
        *,
        noise: str = "columns",
        relevance_prior: tuple[float, float] = (1e-3, 1e-3),
        noise_prior: tuple[float, float] = (1e-3, 1e-3),
        tol: float = 1e-6,
        max_iter: int = 1000,
        batch_size: int | None = None,
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.relevance_prior = relevance_prior
        self.noise_prior = noise_prior
        self.tol = tol
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find q.

        Args:
            X: shape (n, p), numbers or NaN.
            y: ignored.

        Raises:
            ValueError: infinite numbers, a column with no entry, or a setting out of
                its range.
        """
        self._check()
        X = self._numbers(X, reset=True)
        empty = np.flatnonzero(np.isnan(X).all(0))
        if len(empty):
            raise ValueError(
                f"columns {empty.tolist()} have no entry at all: leave them out"
            )
        self._mean, sd = np.nanmean(X, 0), np.nanstd(X, 0)
        self._sd = np.where(sd > 0, sd, 1.0)
        data = self._data(X)
        rng = check_random_state(self.random_state)
        self._priors = Priors(
            gamma_prior(self, "relevance_prior"), gamma_prior(self, "noise_prior")
        )
        start = self._start(data, rng)
        entries = float(data.there.sum())
        if self.batch_size is None:
            most = self.max_iter
            done = steps.fit(
                start, self._priors, data, self.tol * entries, most, room_for(most)
            )
            self.posterior_, history = done.state, done.history
            if len(history) == most:
                warn_of_rising(most)
        else:
            self.posterior_, history = stochastic(
                steps.stochastic_step,
                lambda *fit: steps.look(*fit)[1],
                start,
                self._priors,
                data,
                self.batch_size,
                self.max_iter,
                RobbinsMonro(self.learning_offset, self.learning_decay),
                rng,
            )
        # Densities of the data are those of standardised columns over their units.
        units = float((np.asarray(data.there).sum(0) * np.log(self._sd)).sum())
        self.history_ = [bound - units for bound in history]
        bound = float(steps.look(self.posterior_, self._priors, data)[1])
        self.bound_, self.n_iter_ = bound - units, len(history)
        return self

    def _start(self, data: Data, rng: np.random.RandomState) -> Columns:
        """Principal components of the data with columns' means for missing entries."""
        y = np.asarray(data.y, np.float64)
        n, p = y.shape
        k = self.n_components
        rank = min(k, n, p)
        _, values, vectors = randomized_svd(y, rank, random_state=rng)
        loadings = 0.01 * rng.normal(size=(p, k + 1))
        loadings[:, :rank] += vectors.T * values / np.sqrt(n)
        dtype = data.y.dtype
        sd = jnp.full((p, k + 1), 0.1, dtype)
        ones = jnp.ones(p if self.noise == "columns" else 1, dtype)
        return Columns(
            Gaussian(jnp.asarray(loadings, dtype), jax.vmap(Dense.from_deviations)(sd)),
            Gamma(jnp.ones(k, dtype), jnp.ones(k, dtype)),
            Gamma(ones, ones / 2),
        )

    def _check(self) -> None:
        check_whole(self, n_components=1, max_iter=1)
        check_one_of(self, "noise", NOISES)
        check_steps(self)

    def _numbers(self, X: Any, reset: bool = False) -> np.ndarray:
        return validate_data(
            self,
            X,
            reset=reset,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )

    def _data(self, X: np.ndarray) -> Data:
        scaled = jnp.asarray((X - self._mean) / self._sd, jnp.result_type(float))
        return Data.of(scaled, jnp.asarray(~np.isnan(X)))

    # -- what was found ----------------------------------------------------------------

    @property
    def components_(self) -> np.ndarray:
        """E[w], (K, p)."""
        loadings = np.asarray(self.posterior_.loadings.mean, np.float64)
        return loadings[:, :-1].T * self._sd

    @property
    def mean_(self) -> np.ndarray:
        """E[b]."""
        loadings = np.asarray(self.posterior_.loadings.mean, np.float64)
        return self._mean + loadings[:, -1] * self._sd

    @property
    def noise_variance_(self) -> np.ndarray:
        """1/E τ of each column."""
        return self._sd**2 / np.asarray(self.posterior_.noise.mean)

    @property
    def relevance_(self) -> np.ndarray:
        """E α_k."""
        return np.asarray(self.posterior_.relevance.mean)

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def transform(self, X: Any) -> np.ndarray:
        """E[z] of rows, missing entries allowed, (n, K)."""
        check_is_fitted(self)
        data = self._data(self._numbers(X))
        return np.asarray(steps.look(self.posterior_, self._priors, data)[0].mean)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The rows that factors stand for, (n, p)."""
        check_is_fitted(self)
        return np.asarray(Z) @ self.components_ + self.mean_

    def impute(self, X: Any) -> np.ndarray:
        """X with every missing entry replaced by its mean given those of its row."""
        numbers = self._numbers(X)
        return np.where(
            np.isnan(numbers), self.inverse_transform(self.transform(X)), numbers
        )
