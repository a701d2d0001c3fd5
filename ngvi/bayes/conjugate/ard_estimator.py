"""Linear regression with automatic relevance, with the interface of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ngvi.bayes.conjugate import linear_regression as steps
from ngvi.bayes.conjugate.checks import check_whole, gamma_prior, warn_of_rising
from ngvi.bayes.conjugate.linear_regression import Data, Posterior, Priors
from ngvi.bayes.conjugate.update import room_for


class ARDRegression(RegressorMixin, BaseEstimator):
    """y ~ N(wᵀx + b, 1/β) with a precision α_j of every weight, all with posteriors.

    The model and its updates are in `ngvi.bayes.conjugate.linear_regression`; inside,
    columns and y are standardised, and the priors are those of such.

    Args:
        relevance_prior: concentration and rate of the Gamma prior of every α_j.
        noise_prior: of that of β.
        tol: stop when an iteration gains less, in nats.
        max_iter: iterations, at most.

    Attributes:
        coef_, intercept_: E[w] and b, in the units of the data.
        coef_sd_: the posterior sd of w.
        relevance_: E[α_j], for standardised columns: large where x_j does not matter.
        noise_sd_: (E β)^−½.
        posterior_: q of the standardised weights, of α and of β.
        bound_: the evidence lower bound of y, given its mean.
        history_: that after each iteration; n_iter_: how many there were.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(80, 5))
        >>> y = 3 * x[:, 0] + 0.1 * np.sin(99 * x[:, 1])
        >>> ard = ARDRegression().fit(x, y)
        >>> [round(float(abs(w)), 1) for w in ard.coef_]
        [3.0, 0.0, 0.0, 0.0, 0.0]
    """

    posterior_: Posterior

    def __init__(
        self,
        *,
        relevance_prior: tuple[float, float] = (1e-6, 1e-6),
        noise_prior: tuple[float, float] = (1e-6, 1e-6),
        tol: float = 1e-3,
        max_iter: int = 500,
    ) -> None:
        self.relevance_prior = relevance_prior
        self.noise_prior = noise_prior
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> Self:
        """Find q.

        Args:
            X: shape (n, p), finite numbers.
            y: n numbers.

        Raises:
            ValueError: missing or infinite numbers, one row, or a setting out of its
                range.
        """
        check_whole(self, max_iter=1)
        priors = Priors(
            gamma_prior(self, "relevance_prior"), gamma_prior(self, "noise_prior")
        )
        X, y = validate_data(
            self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        y = np.asarray(y, np.float64)
        self._x_mean, self._y_mean = X.mean(0), float(y.mean())
        x_sd, self._y_sd = X.std(0), float(y.std()) or 1.0
        self._x_sd = np.where(x_sd > 0, x_sd, 1.0)
        dtype = jnp.result_type(float)
        labels = jnp.asarray((y - self._y_mean) / self._y_sd, dtype)
        data = Data.of(self._inside(X), labels)
        most = self.max_iter
        done = steps.fit(data, priors, self.tol, most, room_for(most))
        self.posterior_ = done.state
        shift = len(y) * float(np.log(self._y_sd))
        self.history_ = [bound - shift for bound in done.history]
        self.bound_, self.n_iter_ = self.history_[-1], len(self.history_)
        if self.n_iter_ == self.max_iter:
            warn_of_rising(self.max_iter)
        units = self._y_sd / self._x_sd
        weights = self.posterior_.weights
        self.coef_ = units * np.asarray(weights.mean, np.float64)
        self.coef_sd_ = units * np.sqrt(np.asarray(weights.variance, np.float64))
        self.intercept_ = self._y_mean - float(self._x_mean @ self.coef_)
        self.relevance_ = np.asarray(self.posterior_.relevance.mean)
        self.noise_sd_ = self._y_sd * float(self.posterior_.noise.mean) ** -0.5
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of y, and its sd with noise if asked for."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        mean = X @ self.coef_ + self.intercept_
        if not return_std:
            return mean
        root = self.posterior_.weights.precision.inverse_root
        spread = np.asarray(((self._inside(X) @ root) ** 2).sum(1), np.float64)
        return mean, np.sqrt(self._y_sd**2 * spread + self.noise_sd_**2)

    def _inside(self, X: np.ndarray) -> Any:
        scaled = (X - self._x_mean) / self._x_sd
        return jnp.asarray(scaled, jnp.result_type(float))
