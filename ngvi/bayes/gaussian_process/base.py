"""What the estimators of Gaussian processes share."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ngvi.bayes.gaussian_process import model as exact
from ngvi.bayes.gaussian_process import prior, stochastic
from ngvi.bayes.gaussian_process.kernels import RBF, Kernel
from ngvi.bayes.gaussian_process.model import Model
from ngvi.bayes.gaussian_process.prior import Marginals, Rows
from ngvi.families import Gaussian as GaussianFamily
from ngvi.fisher.likelihoods import Elementwise

ROWS_AT_ONCE = 4096


class Process(NamedTuple):
    """A fitted latent process."""

    model: Model
    inputs: Float[Array, "m d"]
    """Where u lives: the inducing inputs, or those of the data."""
    q: GaussianFamily
    elbo: float | None
    iterations: int

    def rows(self, x: Float[Array, "n d"]) -> Rows:
        """Those of new inputs."""
        kernel = self.model.kernel
        return prior.rows(kernel, prior.root(kernel, self.inputs), self.inputs, x)


@jax.jit
def latent(process: Process, x: Float[Array, "n d"]) -> Marginals:
    """q(f) at new inputs."""
    return prior.marginals(process.q, process.rows(x))


@jax.jit
def joint(
    process: Process, x: Float[Array, "n d"]
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """Mean and covariance of q(f) at new inputs."""
    rows = process.rows(x)
    spread = rows.weights @ process.q.precision.inverse_root
    rest = process.model.kernel(x, x) - rows.weights @ rows.weights.T
    return rows.weights @ process.q.mean, spread @ spread.T + rest


def smooth(variance: float, x: np.ndarray) -> RBF:
    """A kernel to start from, with the columns' own scales as lengthscales."""
    spread = np.maximum(x.std(0), 1e-12 + 1e-6 * abs(x).max())
    return RBF(variance, spread * np.sqrt(x.shape[1]))


class GaussianProcess(BaseEstimator):
    """A latent Gaussian process.

    Args:
        kernel: of `ngvi.bayes.gaussian_process`, with the values to start from; an RBF
            kernel with a lengthscale for each column by default.
        inducing: None for an exact process, O(n³); or how many inducing inputs, taken
            from the data far from each other, or where they are at the start, (m, d).
        learn_inducing: whether they move with the other parameters.
        batch_size: of minibatches; None for all data at once, by L-BFGS. Needs inducing
            inputs.
        epochs: with minibatches, passes over the data.
        optimize: whether the parameters of kernel and noise are learned; else the given
            ones are used.
        max_iter: of L-BFGS.
        tol: of q(u): the largest change of a marginal in the last step.
        max_steps: of q(u) for each value of the parameters.
        random_state: of inducing inputs and batches.
    """

    def __init__(
        self,
        kernel: Any = None,
        *,
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
        self.kernel = kernel
        self.inducing = inducing
        self.learn_inducing = learn_inducing
        self.batch_size = batch_size
        self.epochs = epochs
        self.optimize = optimize
        self.max_iter = max_iter
        self.tol = tol
        self.max_steps = max_steps
        self.random_state = random_state

    def _check(self) -> None:
        if self.kernel is not None and not isinstance(self.kernel, Kernel):
            raise TypeError(
                "kernel must be one of ngvi.bayes.gaussian_process, such as "
                f"RBF(1.0, 0.5), or None; got {type(self.kernel).__name__}"
            )
        for name in ("batch_size", "epochs", "max_iter", "max_steps"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if not self.tol > 0:
            raise ValueError(f"tol must be positive, got {self.tol}")
        if self.batch_size is not None and self.inducing is None:
            raise ValueError(
                "batch_size needs inducing inputs: an exact process takes all data at "
                "once. Pass inducing=100, say"
            )

    def _inducing(self, x: np.ndarray, rng: np.random.RandomState) -> np.ndarray | None:
        """Where they start."""
        given = self.inducing
        if given is None:
            return None
        if np.ndim(given) == 0:
            if not 1 <= given <= len(x):
                raise ValueError(
                    f"inducing must be from 1 to the number of rows, {len(x)}, got "
                    f"{given}; inducing=None is the exact process"
                )
            return kmeans_plusplus(x, int(given), random_state=rng)[0]
        given = np.asarray(given, float)
        if given.ndim != 2 or given.shape[1] != x.shape[1] or len(given) > len(x):
            raise ValueError(
                f"inducing inputs must have shape (m, {x.shape[1]}) with m up to "
                f"{len(x)}, got {given.shape}"
            )
        if not np.isfinite(given).all():
            raise ValueError("inducing inputs must be finite")
        return given

    def _process(
        self, x: np.ndarray, y: np.ndarray, kernel: Kernel, likelihood: Elementwise
    ) -> Process:
        """Fit one latent process.

        Args:
            x, y: the data.
            kernel, likelihood: with the values to start from.
        """
        dtype = jnp.result_type(float)
        rng = check_random_state(self.random_state)
        inputs, labels = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
        places = self._inducing(x, rng)
        inducing = None if places is None else jnp.asarray(places, dtype)
        start = Model(kernel, likelihood, inducing)
        if self.batch_size is not None:
            size = min(self.batch_size, len(x))
            model, q, self.history_ = stochastic.learn(
                start,
                np.asarray(inputs),
                np.asarray(labels),
                inducing=self.learn_inducing,
                batch_size=size,
                epochs=self.epochs,
                rng=rng,
                optimize=self.optimize,
            )
            return Process(model, model.inducing, q, None, self.epochs)
        found = exact.learn(
            start,
            inputs,
            labels,
            inducing=self.learn_inducing and inducing is not None,
            tol=self.tol,
            most=self.max_steps,
            searches=self.max_iter if self.optimize else 0,
        )
        self._warn(found)
        where = inputs if inducing is None else found.model.inducing
        iterations = int(found.search.nit if found.search else found.fit.iterations)
        return Process(
            found.model, where, found.fit.q, float(found.fit.elbo), iterations
        )

    def _warn(self, found: exact.Found) -> None:
        if found.search is not None and found.search.nit >= self.max_iter:
            warnings.warn(
                f"the parameters still moved after {self.max_iter} iterations of "
                "L-BFGS: raise max_iter, or take a simpler kernel",
                ConvergenceWarning,
                stacklevel=4,
            )
        if found.fit.iterations >= self.max_steps > 1:
            warnings.warn(
                f"q still moved by {float(found.fit.change):.1g} after "
                f"{self.max_steps} steps: raise max_steps",
                ConvergenceWarning,
                stacklevel=4,
            )

    # -- predictions -------------------------------------------------------------------

    def _new(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=np.float64)

    def _marginals(self, process: Process, x: np.ndarray) -> Marginals:
        """q(f), rows filled up to a power of two so that few programs are compiled."""
        dtype = jnp.result_type(float)
        parts = []
        for start in range(0, len(x), ROWS_AT_ONCE):
            part = x[start : start + ROWS_AT_ONCE]
            size = max(64, 1 << (len(part) - 1).bit_length())
            filled = part[np.minimum(np.arange(size), len(part) - 1)]
            mean, variance = latent(process, jnp.asarray(filled, dtype))
            parts.append(Marginals(mean[: len(part)], variance[: len(part)]))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def _draws(
        self, process: Process, x: np.ndarray, count: int, seed: Any
    ) -> Float[Array, "count n"]:
        """Of f, each jointly at all inputs."""
        mean, covariance = joint(process, jnp.asarray(x, jnp.result_type(float)))
        nugget = 100 * jnp.finfo(mean.dtype).eps * len(x)
        eye = jnp.eye(len(x), dtype=mean.dtype)
        values, vectors = jnp.linalg.eigh(covariance + nugget * eye)
        half = vectors * jnp.sqrt(jnp.maximum(values, 0))
        rng = check_random_state(seed)
        eps = jnp.asarray(rng.normal(size=(count, len(x))), mean.dtype)
        return mean + eps @ half.T
