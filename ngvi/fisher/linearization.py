"""A model linearised in its parameters, and the Gaussian outputs it then has.

    f(θ, x) ≈ f(θ*, x) + J(x) (θ − θ*),   so that θ ~ N(θ*, A Aᵀ) gives
    f(x) ~ N(f*, J A Aᵀ Jᵀ).

Source: Immer, Korzepa and Bauer (2021), Improving predictions of Bayesian neural nets
via local linearization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ngvi.fisher.problem import Apply


def linearized_outputs(
    apply: Apply,
    params: Any,
    whiten: Callable[[Float[Array, "c p"]], Float[Array, "c p"]],
    x: Any,
    batch_size: int,
) -> tuple[Any, Float[Array, "n c c"]]:
    """f*(x), and the covariance of its C numbers for every example.

    Args:
        apply: (params, x) ↦ outputs.
        params: θ*.
        whiten: rows g ↦ gᵀ A, in the order of `jax.flatten_util.ravel_pytree`.
        x: examples.
        batch_size: whose Jacobians to hold at a time.
    """
    flat, unravel = ravel_pytree(params)

    def one(x: Any) -> Float[Array, "c c"]:
        def outputs(flat: Float[Array, "p"]) -> Float[Array, "c"]:
            f = apply(unravel(flat), jax.tree.map(lambda leaf: leaf[None], x))
            return ravel_pytree(f)[0]

        rows = whiten(jax.jacrev(outputs)(flat))
        return rows @ rows.T

    return apply(params, x), jax.lax.map(one, x, batch_size=batch_size)


def covariance_roots(covariance: Float[Array, "n c c"]) -> Float[Array, "n c c"]:
    """R with R Rᵀ a covariance that may be singular."""
    if covariance.shape[-1] == 1:
        return jnp.sqrt(jnp.maximum(covariance, 0))
    # By its spectrum, which needs no jitter.
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.maximum(values, 0))[..., None, :]


def shifted(f: Any, shift: Float[Array, "n c"]) -> Any:
    """Outputs moved by so much in their C numbers, example by example."""

    def one(f: Any, shift: Float[Array, "c"]) -> Any:
        flat, unravel = ravel_pytree(f)
        return unravel(flat + shift)

    return jax.vmap(one)(f, shift)
