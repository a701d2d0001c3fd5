"""SWAG: a Gaussian of the iterates of a descent that does not settle.

From a mode, a descent of constant rate goes on; after every epoch, w is collected. With
their running mean w̄ and variances, and the last R of the deviations w_i − w̄_i from the
mean as it was then, as columns of D,

    q(w) = N(w̄, ½ diag(var) + 1/(2(R − 1)) D Dᵀ).

Source: Maddox, Garipov, Izmailov, Vetrov and Wilson (2019), A simple baseline for
Bayesian uncertainty in deep learning, algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.likelihoods import Likelihood
from ngvi.nets.baselines.descent import Descent, DescentRule, DescentState, descend
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.prior import Prior
from ngvi.pytrees import pytree


@pytree
class Swag:
    """The Gaussian of the iterates. Made by `swag`."""

    mean: Float[Array, "p"]
    """w̄, in the order of the prior's layout."""
    variances: Float[Array, "p"]
    """Of each weight over the iterates, with their number as the divisor."""
    deviations: Float[Array, "r p"]
    """D as rows, the oldest first."""
    prior: Prior
    likelihood: Likelihood
    noise: ObservationNoise | None

    @property
    def params(self) -> Any:
        """w̄, a pytree like the parameters."""
        return self.prior.layout.tree(self.mean)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Weights, pytrees like the parameters with these leading axes."""
        rank, dim = self.deviations.shape
        of_diagonal, of_rank = jax.random.split(key)
        dtype = self.mean.dtype
        each = jax.random.normal(of_diagonal, (*shape, dim), dtype)
        shared = jax.random.normal(of_rank, (*shape, rank), dtype)
        w = (
            self.mean
            + jnp.sqrt(self.variances / 2) * each
            + shared @ self.deviations / jnp.sqrt(2 * (rank - 1))
        )
        return self.prior.layout.tree(w)


def swag(
    training: Descent,
    state: DescentState,
    data: tuple[Any, Any],
    key: Key[Array, ""],
    *,
    learning_rate: float,
    batch_size: int,
    collections: int = 20,
    rank: int = 20,
    epochs: int = 1,
    optimizer: Any = "sgd",
) -> Swag:
    """Go on from a mode, and collect.

    Args:
        training: that of `maximum_a_posteriori`.
        state: where it has come to.
        data: (x, y), all N examples.
        key: of the orders of the examples.
        learning_rate: constant, and large enough to leave the mode.
        batch_size: B.
        collections: how many iterates; at least 2.
        rank: R ≥ 2, of the deviations that are kept; no more than are collected.
        epochs: from one iterate to the next.
        optimizer: as in `DescentRule`; its state starts anew.

    Raises:
        ValueError: too few collections or deviations.
    """
    rank = min(rank, collections)
    if rank < 2:
        raise ValueError(
            f"a covariance needs at least 2 iterates and 2 deviations, got "
            f"collections={collections} and rank={rank}"
        )
    rule = replace(training.rule, learning_rate=learning_rate, optimizer=optimizer)
    found, state = _collect(
        rule, state, *data, key, collections, rank, epochs, batch_size
    )
    mean, variances, deviations = found
    return Swag(mean, variances, deviations, state.prior, state.likelihood, state.noise)


@partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))
def _collect(
    rule: DescentRule,
    state: DescentState,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    collections: int,
    rank: int,
    epochs: int,
    batch_size: int,
) -> tuple[tuple[Array, Array, Array], DescentState]:
    """The mean, the variances and the deviations."""
    w = state.variables
    state = replace(state, optimizer=rule.transformation().init(w))

    def one(carry: Any, of_collection: tuple[Array, Array]) -> tuple[Any, None]:
        state, mean, squares, deviations = carry
        t, key = of_collection
        state, _ = descend(rule, state, x, y, key, epochs=epochs, batch_size=batch_size)
        # Welford's sums: a mean of squares less a squared mean would cancel.
        before = state.variables - mean
        mean = mean + before / t
        after = state.variables - mean
        squares = squares + before * after
        deviations = jnp.concatenate([deviations[1:], after[None]])
        return (state, mean, squares, deviations), None

    numbers = jnp.arange(1, collections + 1)
    keys = jax.random.split(key, collections)
    nothing = jnp.zeros_like(w)
    start = state, nothing, nothing, jnp.zeros((rank, len(w)), w.dtype)
    (state, mean, squares, deviations), _ = jax.lax.scan(one, start, (numbers, keys))
    return (mean, squares / collections, deviations), state
