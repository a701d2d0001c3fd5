"""Linear response: covariances from how the optimal q answers to a change of the model.

If log p is given t·zᵢ more, the mean of the exact posterior moves by Cov(z, zᵢ) t. So
does the mean of the best q, by a covariance of its own,

    Ĉ = A [H⁻¹]_δδ Aᵀ,     H = ∇² L at the optimum,   q: z = m + A (δ + (I + T) ε),

which sees correlations that q does not have: where p is Gaussian it is the covariance
of p, also for a diagonal q, whose own sds are too small. Elsewhere it is a guide.

Source: Giordano, Broderick and Jordan (2018), Covariances, robustness and variational
Bayes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.estimates import over_draws

if TYPE_CHECKING:
    import pandas as pd

    from ngvi.bayes.posterior import Posterior

# Its covariance is D × D, and takes D linear solves.
_LARGEST = 200
_FEWEST_DRAWS = 256
_AT_ONCE = 32
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LinearResponse:
    """The two covariances of the unconstrained coordinates; printing compares sds."""

    names: tuple[str, ...]
    covariance: Float[np.ndarray, "d d"]
    """Ĉ."""
    variational: Float[np.ndarray, "d d"]
    """Of q itself."""

    def summary(self) -> pd.DataFrame:
        """A row for each unconstrained coordinate: q's sd, that of the linear response,
        and their ratio; far from 1, q's sds are not to be trusted."""
        import pandas as pd

        sd = np.sqrt(np.diag(self.variational))
        response = np.sqrt(np.diag(self.covariance))
        columns = {"sd": sd, "response sd": response, "ratio": response / sd}
        return pd.DataFrame(columns, index=list(self.names))

    def __str__(self) -> str:
        return self.summary().to_string(float_format=lambda x: f"{x:.3g}")

    __repr__ = __str__


def linear_response(posterior: Posterior) -> LinearResponse:
    """See `ngvi.Posterior.linear_response`."""
    q = posterior.gaussian
    if q.dim > _LARGEST:
        raise ValueError(
            f"linear_response() is for up to {_LARGEST} dimensions, not {q.dim}."
        )
    if not isinstance(q.precision, Dense | Diagonal):
        raise ValueError(
            "linear_response() is of a full or diagonal covariance, not "
            f"{posterior.record.diagnostics.covariance!r}: fit with "
            "covariance='full' or 'diagonal'."
        )
    count = max(_FEWEST_DRAWS, 2 * (q.dim + 1))
    rng = np.random.default_rng([posterior.record.diagnostics.seed, 7])
    eps = jnp.asarray(antithetic(sobol_normals(q.dim, count // 2, rng)), q.mean.dtype)
    found = np.asarray(_response(posterior.target, posterior.data, q, eps), float)
    if not (np.isfinite(found).all() and np.linalg.eigvalsh(found).min() > 0):
        raise ValueError(
            "The ELBO is not at a maximum that bends in every direction: there is no "
            "linear response. Fit to the end, or use posterior.refine()."
        )
    variational = np.asarray(q.precision.inverse_dense(), float)
    return LinearResponse(posterior.coordinate_names, found, variational)


@partial(jax.jit, static_argnums=0)
def _response(
    target: Target, data: Data, q: Gaussian, eps: Float[Array, "n d"]
) -> Float[Array, "d d"]:
    dim = q.dim
    root = q.precision.unwhiten(jnp.eye(dim, dtype=eps.dtype))  # rows are A's columns
    full = isinstance(q.precision, Dense)
    lower = jnp.tril_indices(dim)

    def objective(eta: dict[str, Array]) -> Float[Array, ""]:
        """L of the q that lies by η from this one, in its frame, plus a constant."""
        if full:
            change = jnp.zeros((dim, dim), eps.dtype).at[lower].set(eta["root"])
            scale = jnp.diagonal(change)
            moved = eps + eps @ change.T
        else:
            scale = eta["root"]
            moved = eps * (1 + scale)
        points = q.mean + (eta["mean"] + moved) @ root
        # Nothing of a draw is kept for the way back: the data may be many.
        potential = jax.checkpoint(partial(target.potential, data))
        values = over_draws(potential, points, _AT_ONCE)
        return values.mean() - jnp.log1p(scale).sum()

    size = dim * (dim + 1) // 2 if full else dim
    here = {"mean": jnp.zeros(dim, eps.dtype), "root": jnp.zeros(size, eps.dtype)}

    def bend(direction: Any) -> Any:
        return jax.jvp(jax.grad(objective), (here,), (direction,))[1]

    def answer(push: Float[Array, "d"]) -> Float[Array, "d"]:
        return _solved(bend, {"mean": push, "root": here["root"]})["mean"]

    whitened = jax.lax.map(answer, jnp.eye(dim, dtype=eps.dtype))
    covariance = root.T @ ((whitened + whitened.T) / 2) @ root
    return covariance


def _solved(product: Callable[[Any], Any], push: Any) -> Any:
    steps = 4 * sum(leaf.size for leaf in jax.tree.leaves(push))
    solve = jax.scipy.sparse.linalg.cg
    return solve(product, push, tol=_TOLERANCE, maxiter=min(steps, 1000))[0]
