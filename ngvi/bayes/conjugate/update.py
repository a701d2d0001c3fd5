"""Stochastic variational inference of conjugate-exponential models: the one update.

Where all conditionals are conjugate, ∇_μ E_q[ℓ] of a factor of q with natural
parameters λ is minus the λ of its prior and the sufficient statistics that the other
factors expect, so that `mirror_step` reads

    λ⁺ = (1 − ρ) λ + ρ (λ_prior + s E[statistics]).

With all data (s = 1) and ρ = 1 it is coordinate ascent, variational Bayesian EM: the
bound never falls. With a minibatch, s = N/B and ρ_t = (t + delay)^−κ, ½ < κ ≤ 1, it is
stochastic variational inference.

Source: Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference,
section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.families import ExponentialFamily
from ngvi.families.base import Params
from ngvi.mirror import mirror_step

Family = TypeVar("Family", bound=ExponentialFamily)


def conjugate_step(
    q: Family,
    prior: Family,
    statistics: Params,
    step_size: float | Float[Array, ""] = 1.0,
    scale: float | Float[Array, ""] = 1.0,
) -> Family:
    """λ⁺ = (1 − ρ) λ + ρ (λ_prior + s E[statistics]).

    Args:
        q: the factor as it is.
        prior: of the same family, its leaves broadcasting with those of q.
        statistics: what the data of a batch add to λ, a pytree like `q.mean_params`.
        step_size: ρ.
        scale: s, how many times the batch stands for.
    """
    gradient = jax.tree.map(
        lambda p, s: -(p + scale * s), prior.natural_params, statistics
    )
    return mirror_step(q, gradient, step_size)


def divergence(q: Family, prior: Family) -> Float[Array, ""]:
    """Σ KL(q ‖ prior) over the members of q, whose prior is the same or broadcasts."""
    alike = jax.tree.map(lambda one, all_: jnp.broadcast_to(one, all_.shape), prior, q)
    return q.kl(alike).sum()


class RobbinsMonro(NamedTuple):
    """The lengths ρ_t = (t + delay)^−decay of the steps t = 1, 2, …"""

    delay: float
    decay: float

    def step_size(self, step: int) -> float:
        """ρ_t."""
        return (step + self.delay) ** -self.decay


def stochastic(
    step: Callable[[Any, Any, Any, float, float], Any],
    bound: Callable[[Any, Any, Any], Float[Array, ""]],
    start: Any,
    prior: Any,
    data: Any,
    batch_size: int,
    epochs: int,
    lengths: RobbinsMonro,
    rng: np.random.RandomState,
) -> tuple[Any, list[float]]:
    """Epochs of stochastic steps, each through the rows in a random order.

    Args:
        step: (state, prior, some rows, ρ, s) ↦ the next state.
        bound: (state, prior, all rows) ↦ the evidence lower bound.
        start: the first state.
        prior: of what is global.
        data: a pytree of arrays with the rows along their first axes.
        batch_size: rows of a step.
        epochs: passes over the data.
        lengths: of the steps.
        rng: of the order.

    Returns:
        The last state, and the bound after each epoch.
    """
    rows = len(jax.tree.leaves(data)[0])
    size = min(batch_size, rows)
    state, taken, history = start, 0, []
    for _ in range(epochs):
        order = rng.permutation(rows)
        # Batches of one size, for one program: what is left over waits for its turn.
        for first in range(0, rows - size + 1, size):
            taken += 1
            chosen = order[first : first + size]
            batch = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], data)
            rho = lengths.step_size(taken)
            state = step(state, prior, batch, rho, rows / size)
        history.append(float(bound(state, prior, data)))
    return state, history


class Ascent(NamedTuple):
    """How far coordinate ascent went."""

    state: Any
    bounds: Float[Array, "room"]
    """Of each iteration; NaN for those not taken."""
    iterations: Int[Array, ""]

    @property
    def history(self) -> list[float]:
        """The bounds there are."""
        return [float(b) for b in self.bounds[: int(self.iterations)]]


def room_for(most: int) -> int:
    """A power of two: the same program for many numbers of iterations."""
    return max(512, 1 << (most - 1).bit_length())


def ascend(
    step: Callable[[Any], tuple[Any, Float[Array, ""]]],
    start: Any,
    tol: float | Float[Array, ""],
    most: int | Int[Array, ""],
    room: int,
) -> Ascent:
    """Repeat an update of all factors until the bound stays.

    Args:
        step: from a state to the next, and the bound of it or of the one it came from.
        start: the first state.
        tol: stop when an iteration gains less.
        most: iterations, at most.
        room: for bounds, `most` or more; see `room_for`.
    """
    dtype = jax.eval_shape(step, start)[1].dtype

    def keep_on(now: Ascent) -> Array:
        i = now.iterations
        gain = now.bounds[i - 1] - now.bounds[i - 2]
        # A bound that is NaN ends it too.
        return (i < most) & ((i < 2) | (gain > tol))

    def again(now: Ascent) -> Ascent:
        state, bound = step(now.state)
        bounds = now.bounds.at[now.iterations].set(bound)
        return Ascent(state, bounds, now.iterations + 1)

    nothing = jnp.full(room, jnp.nan, dtype)
    return jax.lax.while_loop(keep_on, again, Ascent(start, nothing, jnp.asarray(0)))
