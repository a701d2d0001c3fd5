"""Classification into two classes or more."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from ngvi.nets.estimators import defaults
from ngvi.nets.estimators.base import BayesianMLP


class BayesianMLPClassifier(ClassifierMixin, BayesianMLP):
    """Classes by softmax of the outputs of a net, averaged over q of its weights.

    For the parameters see `Parameters` in `ngvi.nets.estimators.parameters`.

    Attributes:
        classes_: in the order of the probabilities.
        posterior_: q of the weights of `net_`, which takes standardised features.
        elbo_: the evidence lower bound; None after `partial_fit`.
        history_: epochs, losses and the objective, at every look.
        stop_reason_: "converged", "max_epochs", "diverged" or "interrupted".

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> net = BayesianMLPClassifier((20,), algorithm="vogn", random_state=0)
        >>> net.fit(x, y).predict_proba(x[:5]).shape, net.score(x, y) > 0.9
        ((5, 3), True)
    """

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """The posterior of the rows so far and of these, which are new.

        By Bayes' rule: the posterior so far is the prior of these rows, each of which
        counts once, in one pass (see `ngvi.nets.online`). So the same rows given twice
        are taken for twice as many: for several epochs there is `fit`, which the first
        call is, too. The scales of features are those of its rows.

        Args:
            X, y: the rows.
            classes: all that there will be, at the first call.
        """
        if hasattr(self, "posterior_"):
            known = self.classes_
            if classes is not None and not np.array_equal(np.unique(classes), known):
                raise ValueError(f"classes were {known} at first and are now {classes}")
            return self._absorb(X, y)
        if classes is None:
            raise ValueError("classes must be given at the first call of partial_fit")
        return self._train(*self._checked(X, y, reset=True), classes, online=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (n, C)."""
        p = self._predicted("probabilities", self._new_rows(X)).astype(np.float64)
        return p / p.sum(1, keepdims=True)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Their logarithms."""
        return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws of y, (n, samples); those of one sample are drawn jointly."""
        return self.classes_[self._drawn(X, n_samples, random_state).T]

    # -- what `BayesianMLP` asks for ---------------------------------------------------

    _output_variance = defaults.LOGIT_VARIANCE

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, reset=reset, dtype=np.float64)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return X, y

    def _learn_labels(self, y: np.ndarray, classes: Any = None) -> None:
        self.classes_ = np.unique(y if classes is None else classes)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a classifier needs two classes or more, y has the one class "
                f"{self.classes_.tolist()[0]!r}"
            )

    def _labels(self, y: np.ndarray) -> np.ndarray:
        found = np.isin(y, self.classes_)
        if not found.all():
            raise ValueError(
                f"y has labels {np.unique(y[~found])} that are none of the classes "
                f"{self.classes_}"
            )
        return np.searchsorted(self.classes_, y).astype(np.int32)

    def _likelihood(self) -> str:
        return "categorical"

    @property
    def _outputs(self) -> int:
        return len(self.classes_)

    def _split_by(self, y: np.ndarray) -> np.ndarray:
        return y
