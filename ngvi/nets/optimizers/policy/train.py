"""A policy trained in an environment: rollouts, advantages and steps in one program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.likelihoods import Likelihood, as_likelihood
from ngvi.fisher.problem import Apply
from ngvi.nets.optimizers.pieces import checked
from ngvi.nets.optimizers.policy.advantages import (
    generalized_advantages,
    standardized,
)
from ngvi.nets.optimizers.policy.baseline import GaussNewtonBaseline, ValueState
from ngvi.nets.optimizers.policy.environments import Environment
from ngvi.nets.optimizers.policy.rollouts import (
    Act,
    Episodes,
    Transitions,
    begin,
    rollout,
)
from ngvi.nets.optimizers.policy.rows import PolicyOptimizer, PolicyState
from ngvi.nets.optimizers.policy.rules import PolicyInfo
from ngvi.nets.optimizers.policy.surrogate import PolicyBatch
from ngvi.pytrees import pytree


@pytree
class PolicyTraining:
    """Between two iterations; a pytree, that goes through `jit`, `scan` and `vmap`."""

    policy: PolicyState
    value: ValueState
    episodes: Episodes


class PolicyRecord(NamedTuple):
    """Of one iteration."""

    info: PolicyInfo
    mean_return: Float[Array, ""]
    """Of the episodes that ended in it; NaN if none did."""
    ended: Int[Array, ""]
    """How many did."""


def acting(apply: Apply, likelihood: Likelihood, params: Any) -> Act:
    """The policy: actions drawn from p(a | f_θ(s))."""

    def act(key: Key[Array, ""], observations: Array) -> Array:
        keys = jax.random.split(key, len(observations))
        return jax.vmap(likelihood.sample)(keys, apply(params, observations))

    return act


@dataclass(frozen=True)
class PolicyTrainer:
    """Iterations of: act, judge what was done, move the policy, fit the values.

    Args:
        environment: what is acted in.
        optimizer: from `policy_gradient`, `natural_policy_gradient` or `trpo`.
        baseline: V and how it is fitted.
        environments: side by side.
        horizon: the steps of an iteration in each of them.
        discount: γ.
        trace: λ of the advantages.

    Example:
        >>> import jax
        >>> from ngvi.fisher import MLP
        >>> from ngvi.nets.optimizers import (
        ...     CartPole, GaussNewtonBaseline, PolicyTrainer, trpo)
        >>> policy, net = MLP((4, 8, 2)), MLP((4, 8, 1))
        >>> baseline = GaussNewtonBaseline(lambda v, s: net(v, s)[:, 0])
        >>> trainer = PolicyTrainer(CartPole(), trpo(policy, "categorical"), baseline)
        >>> keys = jax.random.split(jax.random.key(0), 4)
        >>> state = trainer.init(policy.init(keys[0]), net.init(keys[1]), keys[2])
        >>> state, records = trainer.run(state, keys[3], 2)
        >>> records.mean_return.shape
        (2,)
    """

    environment: Environment
    optimizer: PolicyOptimizer
    baseline: GaussNewtonBaseline
    environments: int = 16
    horizon: int = 128
    discount: float = 0.99
    trace: float = 0.95

    def __post_init__(self) -> None:
        checked("environments", self.environments, 1)
        checked("horizon", self.horizon, 1)
        checked("discount", self.discount, 0, 1)
        checked("trace", self.trace, 0, 1)

    @property
    def iteration_steps(self) -> int:
        """Steps of the environment in one iteration."""
        return self.environments * self.horizon

    def init(
        self, params: Any, value_params: Any, key: Key[Array, ""]
    ) -> PolicyTraining:
        """Before the first iteration.

        Args:
            params: θ of the policy.
            value_params: φ of the value function.
            key: of the first episodes.

        Raises:
            ValueError: see `PolicyOptimizer.init`.
        """
        of_start, of_action = jax.random.split(key)
        episodes = begin(self.environment, of_start, self.environments)
        seen = jax.vmap(self.environment.observe)(episodes.state)
        likelihood = as_likelihood(self.optimizer.likelihood)
        act = acting(self.optimizer.apply, likelihood, params)
        batch = PolicyBatch(seen, act(of_action, seen), jnp.zeros(len(seen)))
        policy = self.optimizer.init(params, batch)
        return PolicyTraining(policy, self.baseline.init(value_params), episodes)

    def step(
        self, state: PolicyTraining, key: Key[Array, ""]
    ) -> tuple[PolicyTraining, PolicyRecord]:
        """One iteration."""
        return _iteration(self, state, key)

    def run(
        self, state: PolicyTraining, key: Key[Array, ""], iterations: int
    ) -> tuple[PolicyTraining, PolicyRecord]:
        """So many iterations, and the records of all."""
        return _iterations(self, state, key, iterations)

    def act(self, state: PolicyTraining) -> Act:
        """The policy as it is now."""
        policy = state.policy
        return acting(self.optimizer.apply, policy.likelihood, policy.params)

    def judged(
        self, value: ValueState, seen: Transitions
    ) -> tuple[Float[Array, "t n"], Float[Array, "t n"]]:
        """The advantages, and what the values are to be fitted to."""

        def values(observations: Array) -> Array:
            flat = observations.reshape(-1, observations.shape[-1])
            found = self.baseline.apply(value.params, flat)
            return found.reshape(observations.shape[:2])

        now = values(seen.observations)
        advantages = generalized_advantages(
            seen.rewards,
            now,
            values(seen.next_observations),
            seen.terminated,
            seen.ended,
            self.discount,
            self.trace,
        )
        return advantages, advantages + now


@partial(jax.jit, static_argnums=0)
def _iteration(
    trainer: PolicyTrainer, state: PolicyTraining, key: Key[Array, ""]
) -> tuple[PolicyTraining, PolicyRecord]:
    of_rollout, of_step = jax.random.split(key)
    episodes, seen = rollout(
        trainer.environment,
        trainer.act(state),
        state.episodes,
        of_rollout,
        trainer.horizon,
    )
    advantages, targets = jax.tree.map(_flat, trainer.judged(state.value, seen))
    observations, actions = jax.tree.map(_flat, (seen.observations, seen.actions))
    batch = PolicyBatch(observations, actions, standardized(advantages))
    policy, info = trainer.optimizer.step(state.policy, batch, of_step)
    # After the advantages: values that have seen these rewards would explain them away.
    value = trainer.baseline.fit(state.value, observations, targets)
    record = PolicyRecord(info, jnp.nanmean(seen.returns), seen.ended.sum())
    return PolicyTraining(policy, value, episodes), record


@partial(jax.jit, static_argnames=("trainer", "iterations"))
def _iterations(
    trainer: PolicyTrainer,
    state: PolicyTraining,
    key: Key[Array, ""],
    iterations: int,
) -> tuple[PolicyTraining, PolicyRecord]:
    keys = jax.random.split(key, iterations)
    return jax.lax.scan(partial(_iteration, trainer), state, keys)


def _flat(leaf: Float[Array, "t n *e"]) -> Float[Array, "m *e"]:
    return leaf.reshape(-1, *leaf.shape[2:])
