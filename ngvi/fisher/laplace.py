"""Laplace's approximation: a Gaussian about the parameters a model was fitted to.

With the curvature F of −log p(y | f_θ(x)), N examples and the prior N(0, diag(τ)⁻¹),

    q(θ) = N(θ*, Σ),   Σ⁻¹ = N F + diag(τ),
    log p(D) ≈ Σ log p(y | f*) − ½ θ*ᵀ diag(τ) θ* + ½ log det τ − ½ log det(N F + τ).

The model's outputs are predicted by its linearisation, f(x) ~ N(f*(x), J Σ Jᵀ), for
which F is the exact curvature, or by the model itself at draws of θ.

Source: MacKay (1992), A practical Bayesian framework for backpropagation networks;
Immer, Korzepa and Bauer (2021), Improving predictions of Bayesian neural nets via local
linearization; Daxberger et al. (2021), Laplace redux.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import count
from ngvi.fisher.curvature import Curvature
from ngvi.fisher.damped import Damped
from ngvi.fisher.engine import StructureName, fisher
from ngvi.fisher.layers import discover
from ngvi.fisher.likelihoods import Likelihood, as_likelihood
from ngvi.fisher.linearization import (
    covariance_roots,
    linearized_outputs,
    shifted,
)
from ngvi.fisher.prepare import as_key
from ngvi.fisher.problem import Apply
from ngvi.pytrees import inner

_SMALLEST, _LARGEST = 1e-8, 1e8
"""Prior precisions among which the evidence is maximised."""


@dataclass(frozen=True)
class Laplace:
    """The approximate posterior. Made by `laplace`."""

    apply: Apply
    params: Any
    """θ*."""
    likelihood: Likelihood
    curvature: Curvature
    """N F."""
    prior_precision: Any
    """τ, a number or a pytree like the parameters."""
    log_likelihood: Float[Array, ""]
    """Σ log p(y | f*)."""
    precision: Damped
    """N F + τ."""

    def with_prior_precision(self, prior_precision: Any) -> Self:
        """The same with another prior; θ* stays."""
        precision = self.curvature.damp(prior_precision)
        return replace(self, prior_precision=prior_precision, precision=precision)

    def log_evidence(self) -> Float[Array, ""]:
        """log p(D), approximately."""
        return _log_evidence(self.curvature, self.params, self.prior_precision) + (
            self.log_likelihood
        )

    def with_best_prior_precision(self) -> Self:
        """τ, one number, that maximises the evidence at θ*, from 1e-8 to 1e8."""
        from scipy.optimize import minimize_scalar

        def minus(log_precision: float) -> float:
            tau = jnp.exp(log_precision).astype(self.log_likelihood.dtype)
            return -float(_log_evidence(self.curvature, self.params, tau))

        limits = np.log([_SMALLEST, _LARGEST])
        best = minimize_scalar(minus, bounds=limits, method="bounded")
        return self.with_prior_precision(float(np.exp(best.x)))

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Draws of θ, pytrees like the parameters with these leading axes."""
        noise = self.precision.draw(key, shape)
        return jax.tree.map(jnp.add, self.params, noise)

    def outputs(
        self, x: Any, batch_size: int = 32
    ) -> tuple[Any, Float[Array, "n c c"]]:
        """The outputs by linearisation: f*(x), and J Σ Jᵀ over its C numbers.

        Args:
            x: examples, as `apply` takes them.
            batch_size: whose Jacobians to hold at a time.
        """
        return _outputs(self.apply, batch_size, self.params, self.precision, x)

    def predict(
        self,
        x: Any,
        key: Key[Array, ""] | int = 0,
        samples: int = 100,
        linearized: bool = True,
    ) -> Any:
        """E[y | x, D]; of classes their probabilities.

        Args:
            x: examples.
            key: of the draws.
            samples: draws of the outputs to average over.
            linearized: of the linearised model; else of the model at draws of θ, whose
                curvature away from θ* the approximation knows nothing of.
        """
        key = as_key(key)
        if linearized:
            draws = _draw_outputs(key, samples, *self.outputs(x))
        else:
            draws = jax.lax.map(
                lambda params: self.apply(params, x), self.sample(key, (samples,))
            )
        return _mean(self.likelihood, draws)


def laplace(
    apply: Apply,
    params: Any,
    data: tuple[Any, Any],
    *,
    likelihood: Any,
    prior_precision: Any = 1.0,
    structure: StructureName = "dense",
    kind: Literal["true", "gauss-newton", "empirical"] = "true",
    layers: Literal["all", "last"] = "all",
    batch_size: int | None = None,
) -> Laplace:
    """Laplace's approximation at parameters that maximise the posterior.

    Args:
        apply: as in `fisher`.
        params: θ*, the maximum of Σ log p(y | f_θ(x)) − ½ θᵀ diag(τ) θ.
        data: (x, y), all N examples.
        likelihood: as in `fisher`.
        prior_precision: τ > 0: a number; or a pytree like the parameters, for the
            structures that take one as damping.
        structure: of F, as in `fisher`.
        kind: of F, as in `fisher`.
        layers: "last" takes the parameters of the last layer for random and all others
            as they are; then the parameters of the result are that layer's leaves.
        batch_size: as in `fisher`.

    Raises:
        ValueError: as `fisher`; or no layer was found, with "last"; or τ ≤ 0.
    """
    if any((np.asarray(leaf) <= 0).any() for leaf in jax.tree.leaves(prior_precision)):
        raise ValueError(f"prior_precision must be positive, got {prior_precision}")
    if layers == "last":
        apply, params = _last_layer(apply, params, data[0])
    elif layers != "all":
        raise ValueError(f"layers must be 'all' or 'last', got {layers!r}")
    used = as_likelihood(likelihood)
    found = fisher(
        apply,
        params,
        data,
        likelihood=used,
        kind=kind,
        structure=structure,
        batch_size=batch_size,
    )
    curvature = found.scale(float(count(data[0])))
    x, y = jax.tree.map(jnp.asarray, data)
    log_likelihood = _log_likelihood(apply, used, params, x, y)
    damped = curvature.damp(prior_precision)
    return Laplace(
        apply, params, used, curvature, prior_precision, log_likelihood, damped
    )


def _last_layer(apply: Apply, params: Any, x: Any) -> tuple[Apply, tuple[Array, ...]]:
    """The model as one of its last layer's leaves; the others are constants in it."""
    layers = discover(apply, params, x).layers
    if not layers:
        raise ValueError("no layer was found in apply: take layers='all'")
    leaves, treedef = jax.tree.flatten(params)
    chosen = layers[-1].leaves

    def restricted(last: tuple[Array, ...], x: Any) -> Any:
        moved = list(leaves)
        for i, leaf in zip(chosen, last, strict=True):
            moved[i] = leaf
        return apply(jax.tree.unflatten(treedef, moved), x)

    return restricted, tuple(leaves[i] for i in chosen)


@partial(jax.jit, static_argnums=0)
def _log_likelihood(
    apply: Apply, likelihood: Likelihood, params: Any, x: Any, y: Any
) -> Float[Array, ""]:
    return jax.vmap(likelihood.log_prob)(apply(params, x), y).sum()


@jax.jit
def _log_evidence(curvature: Curvature, params: Any, tau: Any) -> Float[Array, ""]:
    """All but the likelihood."""
    if jax.tree_util.all_leaves([tau]) and jnp.ndim(tau) == 0:
        tau = jax.tree.map(lambda leaf: jnp.broadcast_to(tau, leaf.shape), params)
        damping = jax.tree.leaves(tau)[0].reshape(-1)[0]
    else:
        damping = tau
    weighted = jax.tree.map(jnp.multiply, tau, params)
    of_prior = sum(jnp.log(leaf).sum() for leaf in jax.tree.leaves(tau))
    return (of_prior - inner(params, weighted) - curvature.logdet(damping)) / 2


@partial(jax.jit, static_argnums=(0, 1))
def _outputs(
    apply: Apply, batch_size: int, params: Any, precision: Damped, x: Any
) -> tuple[Any, Float[Array, "n c c"]]:
    return linearized_outputs(apply, params, precision.whiten_gradient, x, batch_size)


@partial(jax.jit, static_argnums=1)
def _draw_outputs(
    key: Key[Array, ""], samples: int, f: Any, covariance: Float[Array, "n c c"]
) -> Any:
    """Draws of N(f, covariance) in a new leading axis."""
    n, c, _ = covariance.shape
    eps = jax.random.normal(key, (samples, n, c), covariance.dtype)
    shifts = jnp.einsum("ncd,snd->snc", covariance_roots(covariance), eps)
    return jax.vmap(shifted, (None, 0))(f, shifts)


@jax.jit
def _mean(likelihood: Likelihood, draws: Any) -> Any:
    means: Callable[[Any], Any] = jax.vmap(jax.vmap(likelihood.mean))
    return jax.tree.map(lambda leaf: leaf.mean(0), means(draws))
