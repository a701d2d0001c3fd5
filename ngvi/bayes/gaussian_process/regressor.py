"""Regression, with noise of several kinds, and counts."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ngvi.bayes.gaussian_process.base import GaussianProcess, smooth
from ngvi.bayes.gaussian_process.expectations import (
    log_predictive,
    predicted_moments,
)
from ngvi.bayes.gaussian_process.kernels import Constant, Kernel
from ngvi.fisher.likelihoods import (
    Elementwise,
    Gaussian,
    StudentT,
    as_likelihood,
)


class GaussianProcessRegressor(RegressorMixin, GaussianProcess):
    """y_i ~ p(y | f(x_i)), f a Gaussian process.

    Args:
        kernel: see `GaussianProcess` in `ngvi.bayes.gaussian_process.base`, as for all
            parameters that are not listed here. It is that of y standardised where
            `normalize_y`.
        likelihood: "gaussian", "student_t" (noise with outliers) or "poisson" (counts,
            f the logarithm of their mean); or one of `ngvi.fisher.likelihoods` with one
            output. Its scale, in units of y standardised where `normalize_y`, is where
            the learning of it starts; what else it has is not learned.
        normalize_y: whether y is centred and scaled for the fit; not for counts.

    Attributes:
        process_: the kernel and likelihood as they were learned, and q(u).
        kernel_, likelihood_: the first two.
        elbo_: the evidence lower bound of y, exact for Gaussian noise and an exact
            process; None with minibatches.
        n_iter_: of L-BFGS, or epochs.
        history_: with minibatches, the mean bound of each epoch.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(0, 6, 40)[:, None]
        >>> gp = GaussianProcessRegressor().fit(x, 3 + np.sin(x[:, 0]))
        >>> mean, sd = gp.predict([[1.5]], return_std=True)
        >>> bool(abs(mean[0] - 3.997) < 0.01), bool(sd[0] < 0.1)
        (True, True)
    """

    def __init__(
        self,
        kernel: Any = None,
        *,
        likelihood: Any = "gaussian",
        normalize_y: bool = True,
        inducing: Any = None,
        learn_inducing: bool = True,
        batch_size: int | None = None,
        epochs: int = 20,
        optimize: bool = True,
        max_iter: int = 100,
        tol: float = 1e-5,
        max_steps: int = 100,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            kernel,
            inducing=inducing,
            learn_inducing=learn_inducing,
            batch_size=batch_size,
            epochs=epochs,
            optimize=optimize,
            max_iter=max_iter,
            tol=tol,
            max_steps=max_steps,
            random_state=random_state,
        )
        self.likelihood = likelihood
        self.normalize_y = normalize_y

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the kernel and the noise, and find q.

        Args:
            X: shape (n, d), finite numbers.
            y: shape (n,).

        Raises:
            ValueError: missing or infinite numbers, labels that the likelihood cannot
                give, or settings out of their range.
            TypeError: a kernel or a likelihood that is none.
        """
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        y = np.asarray(y, np.float64)
        likelihood = self._likelihood()
        likelihood.check_labels(np.zeros(len(y)), y)
        free = isinstance(likelihood, Gaussian | StudentT)
        self._mean, self._scale = 0.0, 1.0
        if free and self.normalize_y:
            self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        process = self._process(
            X, self._inside(y), self._kernel(X, likelihood), likelihood
        )
        self.process_, self.n_iter_ = process, process.iterations
        bound = process.elbo
        self.elbo_ = None if bound is None else bound - len(y) * np.log(self._scale)
        return self

    @property
    def kernel_(self) -> Kernel:
        """As it was learned."""
        return self.process_.model.kernel

    @property
    def likelihood_(self) -> Elementwise:
        """As it was learned."""
        return self.process_.model.likelihood

    def _likelihood(self) -> Elementwise:
        if self.likelihood == "gaussian":
            return Gaussian(0.3)
        if self.likelihood == "student_t":
            return StudentT(0.3, 4.0)
        found = as_likelihood(self.likelihood)
        if not isinstance(found, Elementwise) or len(found.outputs) != 1:
            raise ValueError(
                "likelihood must be of numbers and have one output, got "
                f"{type(found).__name__}"
            )
        return found

    def _kernel(self, x: np.ndarray, likelihood: Elementwise) -> Kernel:
        if self.kernel is not None:
            return self.kernel
        kernel = smooth(1.0, x)
        free = isinstance(likelihood, Gaussian | StudentT)
        return kernel if free else kernel + Constant(1.0)

    def _inside(self, y: np.ndarray) -> np.ndarray:
        return (y - self._mean) / self._scale

    # -- predictions -------------------------------------------------------------------

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of y and, if asked for, its sd with noise."""
        f = self._marginals_of(X)
        mean, sd = (
            np.asarray(v, np.float64) for v in predicted_moments(self.likelihood_, f)
        )
        mean = self._mean + self._scale * mean
        return (mean, self._scale * sd) if return_std else mean

    def latent(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of f: of the mean of y, or of its link, without noise."""
        f = self._marginals_of(X)
        sd = np.sqrt(np.asarray(f.variance, np.float64))
        mean = np.asarray(f.mean, np.float64)
        return self._mean + self._scale * mean, self._scale * sd

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws of y with noise, (n, samples); those of one sample have one f."""
        x = self._new(X)
        rng = check_random_state(random_state)
        f = self._draws(self.process_, x, n_samples, rng)
        key = jax.random.key(int(rng.randint(2**31 - 1)))
        drawn = np.asarray(self.likelihood_.sample_each(key, f), np.float64)
        return (self._mean + self._scale * drawn).T

    def log_score(self, X: Any, y: Any) -> float:
        """The mean log predictive density of y."""
        check_is_fitted(self)
        X, y = validate_data(self, X, y, reset=False, dtype=np.float64, y_numeric=True)
        f = self._marginals(self.process_, X)
        labels = jnp.asarray(self._inside(np.asarray(y, np.float64)), f.mean.dtype)
        each = log_predictive(self.likelihood_, labels, f)
        return float(each.mean()) - float(np.log(self._scale))

    def _marginals_of(self, X: Any) -> Any:
        x = self._new(X)
        return self._marginals(self.process_, x)
