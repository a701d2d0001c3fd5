"""Gaussian mixtures with the interface of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ngvi.bayes.conjugate import gaussian_mixture as steps
from ngvi.bayes.conjugate.checks import (
    check_one_of,
    check_steps,
    check_whole,
    warn_of_rising,
)
from ngvi.bayes.conjugate.gaussian_mixture import Mixture
from ngvi.bayes.conjugate.update import RobbinsMonro, room_for, stochastic
from ngvi.families import Dirichlet, NormalGamma, NormalInverseWishart

COVARIANCES = ("full", "diag")


class BayesianGaussianMixture(DensityMixin, BaseEstimator):
    """A Gaussian mixture with a posterior over weights, means and covariances.

    The model and its updates are in `ngvi.bayes.conjugate.gaussian_mixture`. Components
    that the data do not need keep the prior's weight: take more than you expect.

    Args:
        n_components: K, two or more.
        covariance_type: "full" or "diag".
        weight_concentration_prior: α₀ of each weight, 1/K by default.
        mean_precision_prior: κ₀, how many observations the prior mean is worth.
        mean_prior: of the means; that of the data by default.
        degrees_of_freedom_prior: ν₀ of the covariances, the number of columns by
            default.
        covariance_prior: Ψ₀, a matrix, or its diagonal for "diag"; that of the data by
            default. The prior mean of a precision is ν₀ Ψ₀⁻¹.
        tol: stop when an iteration gains less, in nats a datum.
        max_iter: iterations, or epochs with minibatches, at most.
        n_init: starts; the one with the best bound is kept.
        batch_size: of stochastic steps; None for all data at once.
        learning_decay, learning_offset: κ and the delay of their ρ_t = (t + delay)^−κ.
        random_state: of the starts.

    Attributes:
        posterior_: q, a Dirichlet family of the weights and a batch of families of the
            components, about `shift_`, the mean of the data.
        weights_, means_, covariances_: the posterior means of weights and means, and
            Ψ/ν of each component.
        bound_: the evidence lower bound.
        history_: the bound before each iteration; with minibatches, after each epoch.
        n_iter_, converged_: iterations, and whether the bound stayed.

    Example:
        >>> import numpy as np
        >>> x = np.r_[np.random.default_rng(0).normal(size=(60, 2)), np.zeros((60, 2))]
        >>> x[60:] = x[:60] + 8
        >>> mixture = BayesianGaussianMixture(
        ...     2, covariance_type="diag", random_state=0
        ... ).fit(x)
        >>> sorted(float(m.round()) for m in mixture.means_[:, 0])
        [0.0, 8.0]
    """

    posterior_: Mixture
    bound_: float
    history_: list[float]
    n_iter_: int
    converged_: bool

    def __init__(
        self,
        n_components: int = 2,
        *,
        covariance_type: str = "full",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float = 1.0,
        mean_prior: Any = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: Any = None,
        tol: float = 1e-5,
        max_iter: int = 500,
        n_init: int = 1,
        batch_size: int | None = None,
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.batch_size = batch_size
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find q.

        Args:
            X: shape (n, p), finite numbers, as many rows as components or more.
            y: ignored.

        Raises:
            ValueError: missing or infinite numbers, too few rows, or a prior or setting
                out of its range.
        """
        self._check()
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if len(X) < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} needs as many rows or more, X has "
                f"n_samples = {len(X)}"
            )
        rng = check_random_state(self.random_state)
        # About the mean: no digits are lost far from zero.
        self.shift_ = X.mean(0)
        x = self._inside(X)
        prior = self._prior(X)
        best = -np.inf
        for _ in range(self.n_init):
            labels = KMeans(
                self.n_components, n_init=1, random_state=rng.randint(2**31 - 1)
            ).fit_predict(X)
            start = jnp.asarray(np.eye(self.n_components)[labels], x.dtype)
            q = steps.begin(prior, x, start)
            q, history = self._moved(q, prior, x, rng)
            bound = float(steps.bound(q, prior, x))
            if bound > best:
                best = self.bound_ = bound
                self.posterior_, self.history_ = q, history
                self.n_iter_ = len(history)
        if not np.isfinite(best):
            raise ValueError(
                "the bound is not finite: covariance_prior is too narrow for these "
                "data, or X has columns that others determine"
            )
        # Stochastic steps shrink by themselves.
        whole = self.batch_size is None
        self.converged_ = not whole or self.n_iter_ < self.max_iter
        if not self.converged_:
            warn_of_rising(self.max_iter)
        return self

    def _moved(
        self, q: Mixture, prior: Mixture, x: Any, rng: np.random.RandomState
    ) -> tuple[Mixture, list[float]]:
        """Where q comes to, and the bounds on the way."""
        most = self.max_iter
        if self.batch_size is None:
            done = steps.fit(q, prior, x, self.tol * len(x), most, room_for(most))
            return done.state, done.history
        return stochastic(
            steps.stochastic_step,
            steps.bound,
            q,
            prior,
            x,
            self.batch_size,
            most,
            RobbinsMonro(self.learning_offset, self.learning_decay),
            rng,
        )

    def _prior(self, X: np.ndarray) -> Mixture:
        dtype = jnp.result_type(float)
        k, p = self.n_components, X.shape[1]
        alpha = self.weight_concentration_prior
        weights = Dirichlet(jnp.full(k, 1 / k if alpha is None else alpha, dtype))
        centre = X.mean(0) if self.mean_prior is None else np.asarray(self.mean_prior)
        if centre.shape != (p,):
            raise ValueError(f"mean_prior must have shape ({p},), got {centre.shape}")
        given = self.degrees_of_freedom_prior
        loc, kappa, df, scale = (
            jnp.asarray(value, dtype)
            for value in (
                centre - self.shift_,
                self.mean_precision_prior,
                p if given is None else given,
                self._scale(X),
            )
        )
        if self.covariance_type == "diag":
            return Mixture(weights, NormalGamma(loc, kappa, df / 2, scale / 2))
        return Mixture(weights, NormalInverseWishart(loc, kappa, df, scale))

    def _scale(self, X: np.ndarray) -> np.ndarray:
        p, diagonal = X.shape[1], self.covariance_type == "diag"
        if self.covariance_prior is not None:
            given = np.asarray(self.covariance_prior, float)
            wanted = (p,) if diagonal else (p, p)
            if given.shape != wanted:
                raise ValueError(
                    f"covariance_prior must have shape {wanted} for "
                    f"covariance_type={self.covariance_type!r}, got {given.shape}"
                )
            return given
        variance = X.var(0, ddof=1)
        # Constant columns: a variance that is small beside the others, not zero.
        least = 1e-6 * (variance.max() or 1.0)
        if diagonal:
            return np.maximum(variance, least)
        covariance = np.atleast_2d(np.cov(X.T))
        return covariance + np.diag(np.where(variance < least, least, 1e-9 * variance))

    def _check(self) -> None:
        check_whole(self, n_components=2, max_iter=1, n_init=1)
        check_one_of(self, "covariance_type", COVARIANCES)
        check_steps(self)

    def _inside(self, X: np.ndarray) -> Any:
        return jnp.asarray(X - self.shift_, jnp.result_type(float))

    # -- what was found ----------------------------------------------------------------

    @property
    def weights_(self) -> np.ndarray:
        """E[π], (K,)."""
        return np.asarray(self.posterior_.weights.mean)

    @property
    def means_(self) -> np.ndarray:
        """E[m_k], (K, p)."""
        return self.shift_ + np.asarray(self.posterior_.components.loc, np.float64)

    @property
    def covariances_(self) -> np.ndarray:
        """(E Σ_k⁻¹)⁻¹, (K, p, p), or its diagonals (K, p)."""
        q = self.posterior_.components
        if isinstance(q, NormalGamma):
            return np.asarray(q.rate / q.concentration)
        return np.asarray(q.scale / q.df[:, None, None])

    def predict_proba(self, X: Any) -> np.ndarray:
        """r: the probabilities of the components, (n, K)."""
        x = self._new(X)
        return np.asarray(steps.responsibilities(self.posterior_, x))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of each row."""
        return self.predict_proba(X).argmax(1)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, then `predict` of the same rows."""
        return self.fit(X).predict(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x | data) of each row, the parameters integrated over."""
        x = self._new(X)
        return np.asarray(steps.log_predictive(self.posterior_, x))

    def score(self, X: Any, y: Any = None) -> float:
        """Their mean."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: Any = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """New rows, each with parameters of its own, and their components."""
        check_is_fitted(self)
        rng = check_random_state(random_state)
        key = jax.random.key(int(rng.randint(2**31 - 1)))
        rows, labels = steps.sample(self.posterior_, key, n_samples)
        return self.shift_ + np.asarray(rows, np.float64), np.asarray(labels)

    def _new(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._inside(validate_data(self, X, reset=False, dtype=np.float64))
