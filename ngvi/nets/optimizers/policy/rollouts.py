"""Rollouts: many environments side by side, in one scan over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.nets.optimizers.policy.environments import Environment
from ngvi.pytrees import pytree

Act = Callable[[Key[Array, ""], Float[Array, "n o"]], Array]
"""The actions in n environments, of what is observed in them."""


@pytree
class Episodes:
    """Episodes that are under way, one in each of n environments."""

    state: Any
    """Of the environments."""
    elapsed: Int[Array, "n"]
    earned: Float[Array, "n"]
    """The rewards so far, not discounted."""


class Transitions(NamedTuple):
    """What happened; time first, then the environment."""

    observations: Float[Array, "t n o"]
    actions: Any
    rewards: Float[Array, "t n"]
    next_observations: Float[Array, "t n o"]
    """Where the action led, also where an episode ended there."""
    terminated: Bool[Array, "t n"]
    """An end that belongs to the process: nothing can be earned after it."""
    ended: Bool[Array, "t n"]
    """That, or the time limit: what follows is another episode."""
    returns: Float[Array, "t n"]
    """What an episode earned, where it ended; NaN elsewhere."""


def begin(environment: Environment, key: Key[Array, ""], count: int) -> Episodes:
    """That many new episodes."""
    state = jax.vmap(environment.reset)(jax.random.split(key, count))
    dtype = jax.eval_shape(jax.vmap(environment.observe), state).dtype
    return Episodes(state, jnp.zeros(count, int), jnp.zeros(count, dtype))


def rollout(
    environment: Environment,
    act: Act,
    episodes: Episodes,
    key: Key[Array, ""],
    steps: int,
) -> tuple[Episodes, Transitions]:
    """So many steps in all environments; where an episode ends another begins.

    Args:
        environment: of which there are n.
        act: the policy.
        episodes: before the first step, from `begin` or an earlier rollout.
        key: of actions and starts.
        steps: in each environment.
    """
    observe = jax.vmap(environment.observe)
    count = len(episodes.elapsed)

    def step(episodes: Episodes, key: Key[Array, ""]) -> tuple[Episodes, Transitions]:
        of_action, of_start = jax.random.split(key)
        seen = observe(episodes.state)
        actions = act(of_action, seen)
        advance = jax.vmap(environment.advance)
        state, rewards, terminated = advance(episodes.state, actions)
        on = Episodes(state, episodes.elapsed + 1, episodes.earned + rewards)
        ended = terminated | (on.elapsed >= environment.max_steps)
        following = _where(ended, begin(environment, of_start, count), on)
        returns = jnp.where(ended, on.earned, jnp.nan)
        return following, Transitions(
            seen, actions, rewards, observe(state), terminated, ended, returns
        )

    return jax.lax.scan(step, episodes, jax.random.split(key, steps))


def episode_returns(
    environment: Environment, act: Act, key: Key[Array, ""], count: int
) -> Float[Array, "n"]:
    """What each of so many whole episodes earns."""
    of_start, of_steps = jax.random.split(key)
    episodes = begin(environment, of_start, count)
    _, seen = rollout(environment, act, episodes, of_steps, environment.max_steps)
    first = jnp.argmax(seen.ended, 0)
    return jnp.take_along_axis(seen.returns, first[None], 0)[0]


def _where(condition: Bool[Array, "n"], yes: Any, no: Any) -> Any:
    def choose(yes: Array, no: Array) -> Array:
        along = condition.reshape(-1, *(1,) * (yes.ndim - 1))
        return jnp.where(along, yes, no)

    return jax.tree.map(choose, yes, no)
