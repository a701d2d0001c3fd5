"""Outputs of a net linearised about the mean of q, at draws of its weights.

    f(w, x) ≈ f(m, x) + J(x) (w − m),    w ~ q = N(m, S⁻¹) or a mixture of such.

*Jointly* over the rows, each draw is one of w. For each row *by itself* the outputs are
N(f(m, x), J S⁻¹ Jᵀ) in C numbers, and points that fill this normal evenly tell more of
it than as many random draws: quantiles of it, exactly of mean and variance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.linearization import covariance_roots, linearized_outputs, shifted
from ngvi.fisher.problem import Apply
from ngvi.nets.mixture import Mixture, one_of_each
from ngvi.nets.posterior import WeightPosterior

_ROWS = 256
"""Whose Jacobians are held at a time."""

Outputs = tuple[Callable[[Any], Any], Int[Array, "s"]]
"""x ↦ outputs, the draws first; and the component of each draw."""


def joint_outputs(
    apply: Apply, mixture: Mixture, draws: int, key: Key[Array, ""]
) -> Outputs:
    """At draws that all rows share.

    Args:
        apply: (params, x) ↦ outputs.
        mixture: of `WeightPosterior`, see `as_mixture`.
        draws: S.
        key: of the weights.
    """
    of_order, of_weights = jax.random.split(key)

    def one(draw: tuple[Array, Key[Array, ""]]) -> tuple[Any, Any]:
        q = mixture[draw[0]]
        return q.params, q.sample(draw[1])

    which = one_of_each(mixture.weights, draws, of_order)
    # One after another: all at once would hold a precision for each draw.
    about, w = jax.lax.map(one, (which, jax.random.split(of_weights, draws)))

    def outputs(x: Any) -> Any:
        def linear(about: Any, w: Any) -> Any:
            moved = jax.tree.map(jnp.subtract, w, about)
            f, change = jax.jvp(lambda params: apply(params, x), (about,), (moved,))
            return jax.tree.map(jnp.add, f, change)

        return jax.vmap(linear)(about, w)

    return outputs, which


def marginal_outputs(apply: Apply, mixture: Mixture, draws: int) -> Outputs:
    """At points that stand for each row's distribution, without its relation to others.

    Args:
        apply, mixture, draws: as in `joint_outputs`.
    """
    which = one_of_each(mixture.weights, draws)

    def outputs(x: Any) -> Any:
        def component(q: WeightPosterior) -> tuple[Any, Float[Array, "n c c"]]:
            def whiten(rows: Float[Array, "c p"]) -> Float[Array, "c p"]:
                rows = q.prior.layout.from_flat(rows)
                return q.precision.whiten_gradient(rows)

            f, covariance = linearized_outputs(apply, q.params, whiten, x, _ROWS)
            return f, covariance_roots(covariance)

        f, roots = jax.lax.map(component, mixture.components)
        eps = _even_normals(which, len(mixture), roots.shape[-1]).astype(roots.dtype)
        shifts = jnp.einsum("sncd,sd->snc", roots[which], eps)
        return jax.vmap(shifted)(jax.tree.map(lambda leaf: leaf[which], f), shifts)

    return outputs, which


def as_mixture(posterior: Any) -> Mixture:
    """A Gaussian posterior of all weights as a mixture of one.

    Raises:
        ValueError: it is neither that, nor a mixture of such.
    """
    if isinstance(posterior, WeightPosterior):
        return Mixture.of([posterior])
    if isinstance(posterior, Mixture) and isinstance(
        posterior.components, WeightPosterior
    ):
        return posterior
    raise ValueError(
        "linearized predictions are about the mean of a Gaussian posterior of all "
        f"weights, or of a mixture of such, got {type(posterior).__name__}"
    )


def _even_normals(
    which: Int[Array, "s"], components: int, dim: int
) -> Float[Array, "s d"]:
    """Points of N(0, I), filled evenly by those of each component by themselves.

    The first coordinate takes quantiles in turn, the others those of a Kronecker
    sequence (Roberts, 2018); each is scaled to a mean of 0 and a variance of 1.
    """
    sizes = jnp.bincount(which, length=components)
    rank = jnp.arange(len(which)) - jnp.searchsorted(which, which)
    # The root of g^(d+1) = g + 1.
    golden = 2.0
    for _ in range(50):
        golden = (1 + golden) ** (1 / (dim + 1))
    steps = golden ** -np.arange(1.0, dim)
    first = (rank + 0.5) / sizes[which]
    others = (0.5 + rank[:, None] * jnp.asarray(steps)) % 1
    u = jnp.concatenate([first[:, None], others], axis=1)
    smallest = 0.25 / len(which)
    eps = jax.scipy.special.ndtri(jnp.clip(u, smallest, 1 - smallest))
    mean = partial(jax.ops.segment_sum, segment_ids=which, num_segments=components)
    count = jnp.maximum(sizes, 1)[:, None]
    eps = eps - (mean(eps) / count)[which]
    variance = mean(eps**2) / count
    # Of one point there is none.
    return eps / jnp.sqrt(jnp.where(variance > 0, variance, 1))[which]
