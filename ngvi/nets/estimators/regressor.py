"""Regression with learned noise."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import validate_data

from ngvi.nets.estimators import defaults
from ngvi.nets.estimators.base import BayesianMLP
from ngvi.nets.observation_noise import ObservationNoise


class BayesianMLPRegressor(RegressorMixin, BayesianMLP):
    """Regression of one target or more: y ~ N(f(x), 1/γ), with q(w) and q(γ) learned.

    All targets, standardised, have the same γ. For the parameters see `Parameters` in
    `ngvi.nets.estimators.parameters`.

    Attributes:
        posterior_: q of the weights of `net_`, which takes and gives standardised
            numbers, and of the noise.
        elbo_: the evidence lower bound of y, in its units, the mean over the members;
            None after `partial_fit`. Of linearised nets it is that of each one's
            linearised model, an approximation.
        history_: epochs, losses and the objective, at every look; of the last member,
            and the mean over all of linearised ones.
        stop_reason_: "converged", "max_epochs", "diverged" or "interrupted".

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-2, 2, 60)[:, None]
        >>> y = 100 + 10 * np.sin(2 * x[:, 0])
        >>> net = BayesianMLPRegressor((20,), algorithm="vogn", random_state=0)
        >>> mean, sd = net.fit(x, y).predict(x, return_std=True)
        >>> lower, upper = net.predict_interval(x, level=0.9)
        >>> mean.shape, bool((sd > 0).all()), bool(((lower < y) & (y < upper)).all())
        ((60,), True, True)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def partial_fit(self, X: Any, y: Any) -> Self:
        """The posterior of the rows so far and of these, which are new.

        By Bayes' rule: the posterior so far is the prior of these rows, each of which
        counts once, in one pass (see `ngvi.nets.online`). So the same rows given twice
        are taken for twice as many: for several epochs there is `fit`, which the first
        call is, too. Give that one as many rows as there are: from few, the net learns
        that all is noise. The scales of features and targets are those of its rows.
        """
        if hasattr(self, "posterior_"):
            return self._absorb(X, y)
        return self._train(*self._checked(X, y, reset=True), online=True)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of y, and its sd with noise if asked for; shaped like y."""
        mean, sd, _ = self._predicted("moments", self._new_rows(X))
        if not return_std:
            return self._outside(mean)
        return self._outside(mean), self._shaped(sd * self._target_scaler.scale_)

    def predict_interval(
        self, X: Any, level: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the central intervals that hold y with this probability."""
        lower, upper = self._predicted("interval", self._new_rows(X), level)
        return self._outside(lower), self._outside(upper)

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws of y with noise, (n, samples) or (n, targets, samples); those of one
        sample are drawn jointly."""
        drawn = self._drawn(X, n_samples, random_state)
        return np.stack([self._outside(one) for one in drawn], -1)

    # -- what `BayesianMLP` asks for ---------------------------------------------------

    _small = defaults.LINEARIZED

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(
            self,
            X,
            y,
            reset=reset,
            dtype=np.float64,
            multi_output=True,
            y_numeric=True,
        )
        y = np.asarray(y, np.float64)
        if not reset and y.shape[1:] != self._target_shape:
            raise ValueError(
                f"y has targets of shape {y.shape[1:]}, the net was fitted to "
                f"{self._target_shape}"
            )
        return X, y

    def _learn_labels(self, y: np.ndarray, classes: Any = None) -> None:
        self._target_shape = y.shape[1:]
        self._target_scaler = StandardScaler().fit(y.reshape(len(y), -1))

    def _labels(self, y: np.ndarray) -> np.ndarray:
        return self._target_scaler.transform(y.reshape(len(y), -1)).astype(self._dtype)

    def _likelihood(self) -> ObservationNoise:
        small = self.algorithm_ == defaults.LINEARIZED
        prior = defaults.LITTLE_NOISE if small else defaults.NOISE
        return ObservationNoise.begin(*prior)

    @property
    def _outputs(self) -> int:
        return len(self._target_scaler.scale_)

    def _log_scale(self) -> float:
        return float(np.log(self._target_scaler.scale_).sum())

    def _outside(self, labels: np.ndarray) -> np.ndarray:
        """In the units of y."""
        # In double precision: targets may be far from zero.
        labels = np.asarray(labels, np.float64)
        return self._shaped(self._target_scaler.inverse_transform(labels))

    def _shaped(self, numbers: np.ndarray) -> np.ndarray:
        return numbers.reshape(len(numbers), *self._target_shape)
