"""What the estimators share: parameters, the fit, and the nets behind the predictions.

Inside, all is standardised and in JAX's precision, float32 unless it was told
otherwise; what goes in and comes out has the units of the data.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ngvi.fisher.mlp import MLP
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.elbo import ELBO, elbo
from ngvi.nets.estimators import defaults, settings
from ngvi.nets.estimators.activations import as_activation
from ngvi.nets.estimators.parameters import Parameters
from ngvi.nets.estimators.predicting import predicted
from ngvi.nets.estimators.small import fit_members
from ngvi.nets.estimators.training import (
    Stopping,
    TrainingProgress,
    is_finite,
    train,
    warn_of,
)
from ngvi.nets.mixture import Mixture
from ngvi.nets.online import absorb
from ngvi.nets.posterior import WeightPosterior
from ngvi.nets.predictive import Predictive
from ngvi.nets.state import State

# What random numbers are for.
START, TRAINING, BOUND, VALIDATION, PREDICTION = range(5)


class BayesianMLP(Parameters):
    """A multi-layer perceptron with a Gaussian posterior over its weights."""

    # -- what the tasks differ in ------------------------------------------------------

    _output_variance = 1.0
    """Of the net's outputs in the prior."""

    _small = "noisy_kfac"
    """The algorithm of small nets."""

    algorithm_: str
    posterior_: WeightPosterior | Mixture
    n_samples_seen_: int
    elbo_: float | None

    @abstractmethod
    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """X, and y as it comes, once they are seen to be numbers that fit."""

    @abstractmethod
    def _learn_labels(self, y: np.ndarray, classes: Any = None) -> None:
        """What `_labels` needs to know, from those of the training, or as given."""

    @abstractmethod
    def _labels(self, y: np.ndarray) -> np.ndarray:
        """As the likelihood takes them."""

    @abstractmethod
    def _likelihood(self) -> Any:
        """Of the net's outputs."""

    @property
    @abstractmethod
    def _outputs(self) -> int:
        """How many outputs the net has."""

    def _log_scale(self) -> float:
        """log |∂y/∂label|: of the densities of y and of its label."""
        return 0.0

    def _split_by(self, y: np.ndarray) -> np.ndarray | None:
        """The classes that both parts of a split must have."""
        return None

    # -- training ----------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Self:
        """Train on these data.

        Args:
            X: shape (n, features), finite numbers.
            y: n labels.

        Raises:
            ValueError: missing or infinite numbers, or settings out of their range.
        """
        return self._train(*self._checked(X, y, reset=True))

    def _train(
        self, X: np.ndarray, y: np.ndarray, classes: Any = None, online: bool = False
    ) -> Self:
        """From the start, on rows that are checked; `online` where more will come."""
        settings.check(self)
        parts = self._parts(X, y)
        self._begin(*parts[0], classes)
        data = [(self._inside(X), self._labels(y)) for X, y in parts]
        self.algorithm_ = settings.choose_algorithm(
            self, self._small, self.net_, len(X), online
        )
        small = self.algorithm_ == defaults.LINEARIZED
        found = self._linearized(*data[0]) if small else self._by_rows(*data)
        self.elbo_ = found - len(data[0][1]) * self._log_scale()
        return self

    def _by_rows(
        self, data: tuple[Any, Any], held_out: tuple[Any, Any] | None = None
    ) -> float:
        """The evidence lower bound of the labels, once the members are trained."""
        states, bounds = [], []
        for k in range(self.members or 1):
            algorithm, state = self._algorithm(*data, len(data[0]), k)
            outcome = train(
                algorithm.rule,
                state,
                data,
                self._key(TRAINING, k),
                max_epochs=self.max_epochs,
                epochs_per_look=defaults.EPOCHS_PER_LOOK,
                batch_size=self.batch_size,
                warm_up=round(
                    self.warm_up * self.max_epochs / defaults.EPOCHS_PER_LOOK
                ),
                first_weight=defaults.FIRST_KL_WEIGHT,
                stopping=self._stopping(data, held_out),
                progress=TrainingProgress(bool(self.verbose), type(self).__name__),
            )
            states.append(outcome.state)
            bounds.append(self._elbo(WeightPosterior.of(outcome.state), *data).value)
            if outcome.reason in ("diverged", "interrupted"):
                break
        self._keep(states)
        # Of the last member, which ends the training where it goes wrong.
        self.history_, self.n_iter_ = outcome.history, outcome.epochs
        self.stop_reason_ = outcome.reason
        warn_of(outcome)
        return float(np.mean(bounds))

    def _linearized(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The same, for small nets."""
        chosen = {
            "kl_weight": self.kl_weight,
            "max_iterations": min(self.max_epochs, defaults.ITERATIONS),
        }
        prior = settings.prior_of(
            self, self.algorithm_, self.net_, self._output_variance
        )
        members = range(self.members or defaults.MEMBERS)
        found = fit_members(
            self.net_,
            self._likelihood(),
            x,
            labels,
            [self._key(START, k) for k in members],
            settings=chosen | prior | (self.settings or {}),
            progress=TrainingProgress(bool(self.verbose), type(self).__name__),
        )
        self.posterior_ = found.posterior
        self.history_, self.n_iter_ = found.history, found.iterations
        self.stop_reason_ = found.reason
        return found.elbo

    def _absorb(self, X: Any, y: Any) -> Self:
        """More rows, each once: the posterior so far is their prior."""
        settings.check(self)
        if self.algorithm_ == defaults.LINEARIZED:
            raise ValueError(
                "the posterior of a fit with algorithm='linearized' cannot take more "
                "rows one by one: begin with partial_fit, or fit with a row such as "
                "algorithm='noisy_kfac'"
            )
        X, y = self._checked(X, y, reset=False)
        x, labels = self._inside(X), self._labels(y)
        states, losses = [], []
        for k, kept in enumerate(self._leaves):
            algorithm, state = self._algorithm(x, labels, self.n_samples_seen_, k)
            leaves = jax.tree.map(jnp.asarray, kept)
            state = jax.tree.unflatten(jax.tree.structure(state), leaves)
            for start in range(0, len(x), self.batch_size):
                rows = slice(start, start + self.batch_size)
                key = self._key(TRAINING, k, self.n_samples_seen_ + start)
                state, info = absorb(algorithm.rule, state, x[rows], labels[rows], key)
                losses.append(float(info.loss))
            states.append(state)
        if not is_finite(states):
            self.stop_reason_ = "diverged"
            warnings.warn(
                "the posterior of these rows is not finite, and that of the rows before"
                " is kept. Look for rows far from all others, or take larger batches",
                ConvergenceWarning,
                stacklevel=3,
            )
            return self
        self._keep(states)
        self.n_samples_seen_ += len(x)
        self.n_iter_ += 1
        self.elbo_ = None
        news = {"epoch": self.n_iter_, "loss": float(np.mean(losses))}
        for name, values in self.history_.items():
            values.append(news.get(name, np.nan))
        return self

    def _parts(self, X: np.ndarray, y: np.ndarray) -> list[tuple[Any, Any]]:
        """The rows to train with and, where there are such, those held out."""
        if self.early_stopping != "validation":
            return [(X, y)]
        try:
            X, held_out, y, labels = train_test_split(
                X,
                y,
                test_size=self.validation_fraction,
                random_state=check_random_state(self.random_state),
                stratify=self._split_by(y),
            )
        except ValueError as error:
            raise ValueError(
                f"{len(X)} rows cannot be split with a validation_fraction of "
                f"{self.validation_fraction}: {error} Take early_stopping='elbo', "
                "which holds out none"
            ) from error
        return [(X, y), (held_out, labels)]

    def _begin(self, X: np.ndarray, y: np.ndarray, classes: Any = None) -> None:
        """The scales, the net, the seed."""
        self._scaler = StandardScaler().fit(X)
        self._learn_labels(y, classes)
        sizes = (X.shape[1], *self.hidden, self._outputs)
        self.net_ = MLP(tuple(map(int, sizes)), as_activation(self.activation))
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.n_samples_seen_ = len(X)

    def _key(self, *use: int) -> Key[Array, ""]:
        key = jax.random.key(self._seed)
        for number in use:
            key = jax.random.fold_in(key, number)
        return key

    def _inside(self, X: np.ndarray) -> np.ndarray:
        """Standardised, in JAX's precision."""
        return self._scaler.transform(X).astype(self._dtype)

    @property
    def _dtype(self) -> Any:
        return jnp.result_type(float)

    def _algorithm(
        self, x: np.ndarray, labels: np.ndarray, data_size: int, member: int
    ) -> tuple[Algorithm, State]:
        algorithm = settings.algorithm_of(
            self,
            self.algorithm_,
            self.net_,
            self._likelihood(),
            data_size,
            self._output_variance,
        )
        # Two rows give the shapes: one program serves data of any size.
        few = np.resize(x, (2, x.shape[1])), np.resize(labels, (2, *labels.shape[1:]))
        return algorithm, algorithm.init(self.net_.init(self._key(START, member)), few)

    def _stopping(
        self, data: tuple[Any, Any], held_out: tuple[Any, Any] | None = None
    ) -> Stopping | None:
        if self.early_stopping is None:
            return None

        def bound(state: State) -> float:
            found = self._elbo(WeightPosterior.of(state), *data)
            value = found.expected_log_prob - self.kl_weight * found.kl
            return float(value) / len(data[1])

        def validation(state: State) -> float:
            posterior = WeightPosterior.of(state)
            predictive = Predictive(self.net_, posterior, self.draws)
            key = self._key(VALIDATION)
            assert held_out is not None
            rows, labels = held_out
            return float(predictive.log_density(rows, labels, key).mean())

        name = self.early_stopping
        objective = {"elbo": bound, "validation": validation}[name]
        return Stopping(objective, name, self.n_iter_no_change, self.tol)

    def _elbo(self, posterior: WeightPosterior, x: Any, labels: Any) -> ELBO:
        """Of the labels."""
        draws = defaults.ELBO_DRAWS
        return elbo(self.net_, posterior, x, labels, self._key(BOUND), draws=draws)

    def _keep(self, states: list[State]) -> None:
        """The members' states as NumPy arrays, which can be pickled, and the posterior
        of one, or their mixture."""
        self._leaves = [jax.tree.map(np.asarray, jax.tree.leaves(s)) for s in states]
        posteriors = [WeightPosterior.of(state) for state in states]
        one = len(posteriors) == 1
        self.posterior_ = posteriors[0] if one else Mixture.of(posteriors)

    # -- predictions -------------------------------------------------------------------

    @property
    def predictive_(self) -> Predictive:
        """Of the net inside, which takes standardised rows."""
        check_is_fitted(self)
        linearized = self.algorithm_ == defaults.LINEARIZED
        draws = self.draws
        if isinstance(self.posterior_, Mixture):
            draws *= len(self.posterior_)
        return Predictive(self.net_, self.posterior_, draws, linearized=linearized)

    def _new_rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._inside(validate_data(self, X, reset=False, dtype=np.float64))

    def _predicted(self, method: str, x: np.ndarray, *args: Any, y: Any = None) -> Any:
        """What a method of `Predictive` gives, of standardised rows."""
        key = self._key(PREDICTION)
        return predicted(self.predictive_, method, key, x, *args, y=y)

    def _drawn(self, X: Any, n_samples: int, random_state: Any) -> np.ndarray:
        """Labels as the likelihood gives them, the draws first."""
        x = self._new_rows(X)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        predictive = replace(self.predictive_, draws=n_samples)
        return np.asarray(predictive.sample(x, jax.random.key(seed)))

    def log_score(self, X: Any, y: Any) -> float:
        """The mean log predictive density (or probability) of y, in its units."""
        check_is_fitted(self)
        X, y = self._checked(X, y, reset=False)
        each = self._predicted("log_density", self._inside(X), y=self._labels(y))
        return float(each.mean()) - self._log_scale()
