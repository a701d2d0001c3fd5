"""Mixtures of Gaussians, q = Σ_k w_k q_k: the same step for each component.

    minimise  L(q) = E_q[ℓ + log q]

With the responsibilities r_k ∝ w_k q_k held where they are,

    L(q) ≤ Σ_k w_k (c_k + log w_k),     c_k = E_k[ℓ − log r_k] − Entropy(q_k) + log w_k

with equality, and equal gradients, at the q that they are of. So every component takes
an accepted step inside its own trust region on the potential ℓ − log r_k (its natural
gradient is that of the log-ratio ℓ + log q under q_k), and the weights the exact one,
a mirror step of length 1 of a categorical distribution:

    log w_k ← −c_k + constant.

There is room for a fixed number of components, so that all mixtures are one compiled
program; those that are not there have no weight and cost no evaluation.

Source: Arenz, Zhong and Neumann (2020), Trust-region variational inference with
Gaussian mixture models; Arenz et al. (2023), A unified perspective on natural gradient
variational inference with Gaussian mixture models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.families import Categorical, Gaussian, Mixture
from ngvi.families.gaussian import LOG_2PI
from ngvi.linalg import Dense
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import FirstOrder, Potential
from ngvi.mirror.step import fisher_length, mirror_step
from ngvi.mirror.trial import decide, objective_of, propose

ABSENT = -1e9
"""The logit of a component that is not there."""
# Trials are of single components, whose objective changes with the others: pairs of
# earlier steps would mislead.
_SETTINGS = loop.Settings(memory=0, max_iterations=1)
_FIRST_ORDER = FirstOrder()
# The squared Fisher length that a mixture at rest may have left, in nats times two.
_AT_REST = 0.01
# Iterations in a row that gain less than this many nats each.
_IDLE, _IDLE_NATS = 5, 2e-3


class MixtureState(NamedTuple):
    """Everything the steps of a mixture need to go on."""

    logits: Float[Array, "k"]
    components: loop.State
    """A batch of K; of one with room only, nothing is meant."""
    values: Float[Array, "k n"]
    """ℓ at the draws of each component."""
    gradients: Float[Array, "k n d"]
    objective: Float[Array, ""]
    """L(q) on the draws."""
    length: Float[Array, ""]
    """The root mean square Fisher length of the components' natural gradients."""
    idle: Int[Array, ""]
    iteration: Int[Array, ""]
    evaluations: Int[Array, ""]
    """Of ∇ℓ."""

    @property
    def q(self) -> Mixture:
        """The mixture; components that are not there are members of no weight."""
        return Mixture(self.logits, self.components.q)

    @property
    def present(self) -> Bool[Array, "k"]:
        """Which components are there."""
        return self.logits > ABSENT / 2


def begin(
    potential: Potential,
    logits: Float[Array, "k"],
    components: Gaussian,
    eps: Float[Array, "n d"],
) -> MixtureState:
    """A state at a mixture, not evaluated yet.

    Args:
        potential: ℓ.
        logits: of the weights; `ABSENT` where there is no component.
        components: a batch of K.
        eps: base draws of every component, matched and antithetic.
    """
    draws = _as_ladder(eps)

    def one(mean: Array, precision: Dense) -> loop.State:
        q = Gaussian(mean, precision)
        return loop.initial_state(potential, _FIRST_ORDER, q, draws, _SETTINGS)

    states = jax.vmap(one)(components.mean, components.precision)
    count, dtype = logits.shape[0], components.mean.dtype
    zero = jnp.zeros((), int)
    return MixtureState(
        jax.nn.log_softmax(jnp.asarray(logits, dtype)),
        states,
        jnp.zeros((count, eps.shape[0]), dtype),
        jnp.zeros((count, *eps.shape), dtype),
        jnp.asarray(jnp.inf, dtype),
        jnp.asarray(jnp.inf, dtype),
        zero,
        zero,
        zero,
    )


def run(
    potential: Potential,
    state: MixtureState,
    eps: Float[Array, "n d"],
    limit: int | Int[Array, ""],
) -> MixtureState:
    """Iterations until the mixture is at rest on these draws, or `limit` in all."""

    def moving(state: MixtureState) -> Array:
        rest = (state.length**2 < _AT_REST) | (state.idle >= _IDLE)
        return (state.iteration < limit) & ~rest

    return jax.lax.while_loop(moving, lambda s: iterate(potential, s, eps), state)


def iterate(
    potential: Potential, state: MixtureState, eps: Float[Array, "n d"]
) -> MixtureState:
    """One trial for every component, one after another, and a step of the weights."""
    mixture, draws = state.q, _as_ladder(eps)
    present = state.present
    numbers = jnp.arange(present.shape[0])

    def step(_: None, k: tuple) -> tuple[None, tuple]:
        number, here, *of_it = k
        trial = partial(_trial, potential, mixture, eps, draws)
        moved = jax.lax.cond(
            here, trial, lambda _, *same: _Moved(*same), number, *of_it
        )
        return None, moved

    batch = (numbers, present, state.components, state.values, state.gradients)
    _, moved = jax.lax.scan(step, None, batch)
    moved = _Moved(*moved)
    logits = _weights_step(state.logits, moved.state, present)
    after = state._replace(
        logits=logits,
        components=moved.state,
        values=moved.values,
        gradients=moved.gradients,
        iteration=state.iteration + 1,
        evaluations=state.evaluations + present.sum() * eps.shape[0],
    )
    return _judged(after, state.objective, eps)


class _Moved(NamedTuple):
    """A component after its trial."""

    state: loop.State
    values: Float[Array, "n"]
    gradients: Float[Array, "n d"]


def _ratio(mixture: Mixture, number: Array) -> Callable[[Array], tuple[Array, Array]]:
    """−log r_k and its gradient, at points (N, D)."""

    def at(z: Float[Array, "d"]) -> Float[Array, ""]:
        within = mixture.log_weights + mixture.components.log_prob(z)
        return -jax.nn.log_softmax(within)[number]

    return jax.vmap(jax.value_and_grad(at))


def _trial(
    potential: Potential,
    mixture: Mixture,
    eps: Float[Array, "n d"],
    draws: Ladder,
    number: Array,
    state: loop.State,
    values: Float[Array, "n"],
    gradients: Float[Array, "n d"],
) -> _Moved:
    """One trial of one component, the others staying where they are."""
    ratio = _ratio(mixture, number)
    tilt, slope = ratio(state.q.place(eps))
    estimate = _FIRST_ORDER.assemble(state.q, eps, values + tilt, gradients + slope)
    known = objective_of(state.q, estimate.value)
    state = replace(
        state,
        estimate=estimate,
        objective=jnp.where(state.fresh, jnp.inf, known),
        length=fisher_length(state.q.precision, estimate.gradient),
    )
    proposal = propose(state, _SETTINGS)
    points = proposal.step.q.place(eps)
    new_values, new_gradients = _FIRST_ORDER.at(potential, points)
    tilt, slope = ratio(points)
    tried = _FIRST_ORDER.assemble(
        proposal.step.q, eps, new_values + tilt, new_gradients + slope
    )
    after = decide(state, proposal, tried, draws, _SETTINGS)
    taken = after.rejected == state.rejected
    return _Moved(
        after,
        jnp.where(taken, new_values, values),
        jnp.where(taken, new_gradients, gradients),
    )


def _weights_step(
    logits: Float[Array, "k"], components: loop.State, present: Bool[Array, "k"]
) -> Float[Array, "k"]:
    """log w_k ← −c_k + constant, once every component has been evaluated."""
    fresh = (components.fresh & present).any()
    costs = jnp.where(present, components.objective, -ABSENT)
    costs = jnp.where(fresh, -logits, costs)
    # A categorical's parameters are relative to its last class: the first component,
    # which is always there.
    weights = Categorical(logits[::-1])
    relative = (costs - costs[0])[::-1][:-1]
    return jax.nn.log_softmax(mirror_step(weights, relative, 1.0).logits[::-1])


def _judged(
    state: MixtureState, before: Float[Array, ""], eps: Float[Array, "n d"]
) -> MixtureState:
    """With L and the Fisher length of the mixture that it is at."""
    weights = jax.nn.softmax(state.logits)
    bound = state.components.objective + jax.nn.log_softmax(state.logits)
    terms = jnp.where(state.present & (weights > 0), weights * bound, 0.0)
    objective = terms.sum() - eps.shape[-1] * (1 + LOG_2PI) / 2
    squares = jnp.where(state.present, weights * state.components.length**2, 0.0)
    idle = before - objective < _IDLE_NATS
    return state._replace(
        objective=objective,
        length=jnp.sqrt(squares.sum()),
        idle=jnp.where(idle, state.idle + 1, 0),
    )


def _as_ladder(eps: Float[Array, "n d"]) -> Ladder:
    return Ladder(eps[None], eps[:0])
