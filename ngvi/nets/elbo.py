"""The evidence lower bound of a posterior over weights.

    log p(y) ≥ E_q[Σᵢ log p(yᵢ | f(w, xᵢ))] − KL(q ‖ prior),

the expectation by S draws of w, with the standard error that the draws leave; the KL
divergence is exact. Where the noise's precision γ is learned, E_q(γ) is in closed form
and KL includes that of q(γ).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.problem import Apply
from ngvi.nets.averages import At
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import PartialPosterior, WeightPosterior
from ngvi.nets.predictive import Predictive


class ELBO(NamedTuple):
    """In nats."""

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    """Of the draws."""
    expected_log_prob: Float[Array, ""]
    """E_q[Σ log p(y | f)]."""
    kl: Float[Array, ""]
    rows: Float[Array, "n"]
    """E_q[log p(yᵢ | f)] of every row."""


def elbo(
    apply: Apply,
    posterior: WeightPosterior | PartialPosterior,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    *,
    draws: int = 32,
    batch_size: int = 2**16,
) -> ELBO:
    """The bound, on all N rows that the posterior is of.

    Args:
        apply: (params, x) ↦ outputs.
        posterior: q with its prior.
        x, y: all the data.
        key: of the draws: the same one makes bounds of like nets comparable.
        draws: S, two or more.
        batch_size: as in `Predictive`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi.fisher import MLP
        >>> from ngvi.nets import full
        >>> net, x, y = MLP((1, 2)), jnp.linspace(-1, 1, 9)[:, None], jnp.arange(9) // 5
        >>> logistic = full(net, "categorical", len(x))
        >>> state = logistic.init(net.init(jax.random.key(0)), (x, y))
        >>> bound = elbo(net, logistic.posterior(state), x, y, jax.random.key(1))
        >>> bound.rows.shape, bool(bound.kl > 0)
        ((9,), True)
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2 for a standard error, got {draws}")
    predictive = Predictive(apply, posterior, draws, batch_size)
    each = predictive.over_rows(_expected_log_prob, x, key, y)
    return _bound(each, posterior)


@jax.jit
def _bound(
    each: Float[Array, "n s"], posterior: WeightPosterior | PartialPosterior
) -> ELBO:
    sums = each.sum(0)
    expected, kl = sums.mean(), posterior.kl()
    error = sums.std(ddof=1) / jnp.sqrt(len(sums))
    return ELBO(expected - kl, error, expected, kl, each.mean(1))


def _expected_log_prob(at: At) -> Float[Array, "b s"]:
    """Over γ, if it is learned."""
    if at.noise is not None:
        given = jax.vmap(ObservationNoise.expected_log_prob, (0, 0, None))
        return given(at.noise, at.outputs, at.y).T
    log_prob = jax.vmap(at.likelihood.log_prob)
    return jax.vmap(log_prob, (0, None))(at.outputs, at.y).T
