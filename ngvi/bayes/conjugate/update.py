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


def robbins_monro(step: int, delay: float, decay: float) -> float:
    """ρ_t = (t + delay)^−κ of step t = 1, 2, …"""
    return (step + delay) ** -decay


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
