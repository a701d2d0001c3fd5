"""Classification into two classes or more."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from ngvi.bayes.gaussian_process.base import GaussianProcess, smooth
from ngvi.bayes.gaussian_process.expectations import predicted_moments
from ngvi.fisher.likelihoods import Bernoulli


class GaussianProcessClassifier(ClassifierMixin, GaussianProcess):
    """P(y_i = 1) = 1/(1 + exp(−f(x_i))), f a Gaussian process.

    Of more than two classes, each has a process of its own against all others, and the
    probabilities are made to sum to one.

    For the parameters see `GaussianProcess` in `ngvi.bayes.gaussian_process.base`.

    Attributes:
        classes_: in the order of the probabilities.
        processes_: one for two classes, one for each of more.
        elbo_: the evidence lower bound, summed over the processes; None with
            minibatches.
        n_iter_: of L-BFGS, or epochs; the most of any process.

    Example:
        >>> import numpy as np
        >>> from ngvi.bayes.gaussian_process import RBF
        >>> x = np.linspace(0, 6, 40)[:, None]
        >>> gp = GaussianProcessClassifier(RBF(4.0, 0.8), optimize=False)
        >>> gp = gp.fit(x, np.sin(x[:, 0]) > 0)
        >>> gp.predict([[1.5], [4.5]]).tolist()
        [True, False]
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the kernel, and find q.

        Args:
            X: shape (n, d), finite numbers.
            y: n classes.

        Raises:
            ValueError: missing or infinite numbers, fewer than two classes, or settings
                out of their range.
            TypeError: a kernel that is none.
        """
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float64)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                "a classifier needs two classes or more, y has the one class "
                f"{self.classes_.tolist()[0]!r}"
            )
        positive = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        kernel = smooth(4.0, X) if self.kernel is None else self.kernel
        self.processes_ = [
            self._process(X, (y == one).astype(float), kernel, Bernoulli())
            for one in positive
        ]
        bounds = [p.elbo for p in self.processes_ if p.elbo is not None]
        self.elbo_ = sum(bounds) if bounds else None
        self.n_iter_ = max(process.iterations for process in self.processes_)
        return self

    @property
    def kernel_(self) -> Any:
        """As it was learned; of more than two classes, a list."""
        kernels = [process.model.kernel for process in self.processes_]
        return kernels[0] if len(kernels) == 1 else kernels

    def latent(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of f, (n,) of two classes or (n, classes) of more."""
        x = self._new(X)
        found = [self._marginals(process, x) for process in self.processes_]
        mean = np.stack([np.asarray(f.mean) for f in found], -1)
        sd = np.sqrt(np.stack([np.asarray(f.variance) for f in found], -1))
        return (mean[:, 0], sd[:, 0]) if len(found) == 1 else (mean, sd)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (n, classes): f is averaged over."""
        x = self._new(X)
        found = [
            np.asarray(
                predicted_moments(Bernoulli(), self._marginals(process, x))[0],
                np.float64,
            )
            for process in self.processes_
        ]
        if len(found) == 1:
            return np.stack([1 - found[0], found[0]], -1)
        each = np.stack(found, -1)
        return each / each.sum(1, keepdims=True)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Their logarithms."""
        return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]
