"""A latent Gaussian model and its learned parameters.

The parameters θ (of the kernel, the noise's scale, inducing inputs) maximise the bound
max_q ELBO(q, θ). By the envelope theorem its gradient is ∂ELBO/∂θ with q(u) held where
it is best; q(u) being that of whitened u, it is also a good start for the next θ.

For Gaussian noise the best q is known, and with it the bound: with f = A u + rest,

    log N(y | 0, A Aᵀ + σ² I) − Σ rest / (2σ²),

the collapsed bound, or for an exact process the evidence itself.

Source: Titsias (2009), Variational learning of inducing variables in sparse Gaussian
processes, equation 9.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int
from scipy.optimize import Bounds, OptimizeResult, minimize

from ngvi.bayes.gaussian_process import cvi, prior
from ngvi.bayes.gaussian_process.prior import Rows
from ngvi.families import Gaussian
from ngvi.families.special.tables import LOG_2PI
from ngvi.fisher.likelihoods import Elementwise
from ngvi.fisher.likelihoods import Gaussian as Normal

FARTHEST = 1e4
"""How many times larger or smaller a positive parameter may become."""
SLOPE = 1e-3
"""A search ends where no parameter gains more, in nats an e-fold."""


class Model(NamedTuple):
    """f ~ GP(0, kernel), y_i ~ p(y | f(x_i))."""

    kernel: Any
    likelihood: Elementwise
    inducing: Any
    """Inputs Z; None where they are those of the data."""

    def lower(self, x: Float[Array, "n d"]) -> Float[Array, "m m"]:
        """L, of these inducing inputs or, for an exact process, of x."""
        return prior.root(self.kernel, x if self.inducing is None else self.inducing)

    def rows(self, x: Float[Array, "n d"]) -> Rows:
        """Those of the data."""
        lower = self.lower(x)
        if self.inducing is None:
            return prior.exact_rows(lower)
        return prior.rows(self.kernel, lower, self.inducing, x)


class Learned(NamedTuple):
    """What of a model is learned, without borders; None for what is not."""

    log_kernel: Any
    log_scale: Any
    inducing: Any

    @classmethod
    def of(cls, model: Model, inducing: bool) -> Self:
        """The present values.

        Args:
            model: which.
            inducing: whether inducing inputs are learned.
        """
        floats = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model.kernel)
        scale = getattr(model.likelihood, "scale", None)
        return cls(
            jax.tree.map(jnp.log, floats),
            None if scale is None else jnp.log(jnp.asarray(scale, float)),
            model.inducing if inducing else None,
        )

    def put(self, model: Model) -> Model:
        """The model with these values."""
        likelihood: Any = model.likelihood
        if self.log_scale is not None:
            likelihood = dataclasses.replace(likelihood, scale=jnp.exp(self.log_scale))
        inducing = model.inducing if self.inducing is None else self.inducing
        return Model(jax.tree.map(jnp.exp, self.log_kernel), likelihood, inducing)


def collapsed(
    model: Model, x: Float[Array, "n d"], y: Float[Array, "n"]
) -> Float[Array, ""]:
    """The bound of the best q, for Gaussian noise."""
    likelihood: Any = model.likelihood
    noise = jnp.asarray(likelihood.scale) ** 2
    if model.inducing is None:
        covariance = prior.covariance(model.kernel, x)
        root = jnp.linalg.cholesky(covariance + noise * jnp.eye(len(x)))
        white = solve_triangular(root, y, lower=True)
        square, log_det = white @ white, 2 * jnp.log(jnp.diagonal(root)).sum()
        return -(square + log_det + len(y) * LOG_2PI) / 2
    weights, rest = model.rows(x)
    system = jnp.eye(weights.shape[1]) + weights.T @ weights / noise
    root = jnp.linalg.cholesky(system)
    white = solve_triangular(root, weights.T @ y / noise, lower=True)
    square = (y @ y + rest.sum()) / noise - white @ white
    log_det = 2 * jnp.log(jnp.diagonal(root)).sum() + len(y) * jnp.log(noise)
    return -(square + log_det + len(y) * LOG_2PI) / 2


class Best(NamedTuple):
    """The best bound of a model, and its slope."""

    loss: Float[Array, ""]
    """−ELBO."""
    slope: Learned
    q: Gaussian
    """What it takes; as it was, where the noise is Gaussian."""


@jax.jit
def best(
    learned: Learned,
    model: Model,
    x: Float[Array, "n d"],
    y: Float[Array, "n"],
    q: Gaussian,
    tol: float | Float[Array, ""],
    most: int | Int[Array, ""],
) -> Best:
    """Fit q(u), and differentiate the bound in what is learned.

    Args:
        learned: values to put into the model.
        model: the rest of it.
        x, y: the data.
        q: of u, to start from.
        tol: of `cvi.fit`.
        most: iterations of it.
    """
    known = isinstance(model.likelihood, Normal)
    found = q if known else conclude(learned.put(model), x, y, q, tol, most).q

    def loss(learned: Learned) -> Float[Array, ""]:
        now = learned.put(model)
        if known:
            return -collapsed(now, x, y)
        return -cvi.look_at(found, now.rows(x), now.likelihood, y).elbo

    value, slope = jax.value_and_grad(loss)(learned)
    return Best(value, slope, found)


@jax.jit
def conclude(
    model: Model,
    x: Float[Array, "n d"],
    y: Float[Array, "n"],
    q: Gaussian,
    tol: float | Float[Array, ""],
    most: int | Int[Array, ""],
) -> cvi.Fit:
    """The best q(u) of a model; one step where the noise is Gaussian."""
    steps = 1 if isinstance(model.likelihood, Normal) else most
    return cvi.fit(q, model.rows(x), model.likelihood, y, tol, steps)


class Found(NamedTuple):
    """A model with what was learned, q(u), and how the search ended."""

    model: Model
    fit: cvi.Fit
    search: OptimizeResult | None


def learn(
    model: Model,
    x: Float[Array, "n d"],
    y: Float[Array, "n"],
    *,
    inducing: bool,
    tol: float,
    most: int,
    searches: int,
) -> Found:
    """Maximise the bound in the parameters by L-BFGS.

    Args:
        model: with the values to start from.
        x, y: the data.
        inducing: whether inducing inputs are learned.
        tol, most: of each fit of q(u).
        searches: iterations of L-BFGS, at most; 0 for a fit at the given values.
    """
    start = Learned.of(model, inducing)
    flat, unravel = ravel_pytree(start)
    size = len(x) if model.inducing is None else len(model.inducing)
    q = prior.standard(size, y.dtype)
    if not searches:
        return Found(model, _finite(conclude(model, x, y, q, tol, most)), None)
    last = best(start, model, x, y, q, tol, most)
    _check_bound(last.loss)

    # The first step of L-BFGS is as long as the slope: one e-fold, to begin with.
    scale = 1 / max(1e-3, float(jnp.linalg.norm(ravel_pytree(last.slope)[0])))

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal last
        learned = unravel(jnp.asarray(values, flat.dtype))
        tried = best(learned, model, x, y, last.q, tol, most)
        slope = np.asarray(ravel_pytree(tried.slope)[0], float)
        if not (np.isfinite(tried.loss) and np.isfinite(slope).all()):
            # A wall, not too high: the line search turns back by a part of the way.
            return scale * (1 + 2 * abs(float(last.loss))), np.zeros_like(slope)
        last = tried
        return scale * float(tried.loss), scale * slope

    search = minimize(
        objective,
        np.asarray(flat, float),
        jac=True,
        method="L-BFGS-B",
        bounds=_bounds(start),
        options={"maxiter": searches, "gtol": SLOPE * scale},
    )
    final = unravel(jnp.asarray(search.x, flat.dtype)).put(model)
    return Found(final, _finite(conclude(final, x, y, last.q, tol, most)), search)


def _finite(fit: cvi.Fit) -> cvi.Fit:
    _check_bound(fit.elbo)
    return fit


def _check_bound(bound: Float[Array, ""]) -> None:
    if not np.isfinite(bound):
        raise ValueError(
            "the covariance of the inputs under this kernel has no root, or the bound "
            f"is not finite ({float(bound)}): take other lengthscales and variances, "
            "fewer inducing inputs, or double precision, "
            'jax.config.update("jax_enable_x64", True)'
        )


def _bounds(start: Learned) -> Bounds:
    far = np.log(FARTHEST)
    logs = ravel_pytree(start._replace(inducing=None))[0]
    free = 0 if start.inducing is None else np.size(start.inducing)
    middle, reach = np.r_[logs, np.zeros(free)], np.r_[far + 0 * logs, [np.inf] * free]
    return Bounds(middle - reach, middle + reach)
